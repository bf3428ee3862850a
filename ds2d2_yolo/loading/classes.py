"""Comparison of class names in models and data sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.tables import counted

_MOST_PAIRS = 4  # of different names in a message


def in_order(names: Mapping[int, str]) -> list[str]:
    """Return class names in the order of their indices.

    Example:
        >>> in_order({1: "plane", 0: "ship"})
        ['ship', 'plane']
    """
    return [str(names[index]) for index in sorted(names)]


def check_unique(path: str | Path, names: Sequence[str]) -> None:
    """Refuse a data set with two classes of the same name.

    Args:
        path (str | Path): The data YAML.
        names (Sequence[str]): Its class names.

    Raises:
        DS2D2Error: If a name occurs twice.
    """
    for name, count in Counter(names).items():
        if count > 1:
            raise DS2D2Error(f"data={path}: the class name '{name}' occurs twice; rename one of them under 'names:'")


def class_difference(names: Sequence[str], expected: Sequence[str], other: str = "the data set") -> str | None:
    """Describe the first class that differs between a model and a data set or another model.

    Args:
        names (Sequence[str]): Class names of the model, in the order of their indices.
        expected (Sequence[str]): Class names to compare with.
        other (str): Name of the other side, for the text.

    Returns:
        (str | None): The difference. None if number, names and order are equal.

    Example:
        >>> class_difference(["ship", "plane"], ["ship", "car"])
        "class 1 is 'plane', in the data set 'car'"
        >>> class_difference(["ship"], ["ship", "car"], "the teacher")
        'has 1 class, the teacher has 2'
    """
    if len(names) != len(expected):
        return f"has {counted(len(names), 'class', 'classes')}, {other} has {len(expected)}"
    for index, (name, expected_name) in enumerate(zip(names, expected, strict=True)):
        if name != expected_name:
            return f"class {index} is '{name}', in {other} '{expected_name}'"
    return None


def side_by_side(names: Sequence[str], expected: Sequence[str]) -> str:
    """List the differences between class names of a model and a data set with equally many classes.

    Args:
        names (Sequence[str]): Class names of a model, in the order of their indices.
        expected (Sequence[str]): Class names of the data set.

    Returns:
        (str): The different pairs, and whether only the order or the spelling differs.

    Example:
        >>> side_by_side(["Ship", "plane"], ["ship", "plane"])
        "class 0 is 'Ship', in the data set 'ship' (only the spelling differs)"
        >>> side_by_side(["plane", "ship"], ["ship", "plane"])
        "class 0 is 'plane', in the data set 'ship'; class 1 'ship', 'plane' (the same names in another order)"
    """
    pairs = [(index, *pair) for index, pair in enumerate(zip(names, expected, strict=True)) if pair[0] != pair[1]]
    (index, name, other), *rest = pairs
    text = f"class {index} is '{name}', in the data set '{other}'"
    text += "".join(f"; class {index} '{name}', '{other}'" for index, name, other in rest[: _MOST_PAIRS - 1])
    text += f"; and {len(pairs) - _MOST_PAIRS} more" if len(pairs) > _MOST_PAIRS else ""
    if sorted(names) == sorted(expected):
        return f"{text} (the same names in another order)"
    if all(_plain(name) == _plain(other) for _, name, other in pairs):
        return f"{text} (only the spelling differs)"
    return text


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())
