"""Class names of models and data sets, compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def in_order(names: Mapping[int, str]) -> list[str]:
    """Return class names in the order of their indices.

    Example:
        >>> in_order({1: "plane", 0: "ship"})
        ['ship', 'plane']
    """
    return [str(names[index]) for index in sorted(names)]


def class_difference(names: Sequence[str], expected: Sequence[str], other: str = "the data set") -> str | None:
    """Say in which class a model first differs from something else.

    Args:
        names (Sequence[str]): Class names of the model, in the order of their indices.
        expected (Sequence[str]): Those of the other.
        other (str): What the other is, for the text.

    Returns:
        (str | None): The difference; None where number, names and order agree.

    Example:
        >>> class_difference(["ship", "plane"], ["ship", "car"])
        "class 1 is 'plane', in the data set 'car'"
        >>> class_difference(["ship"], ["ship", "car"], "the teacher")
        'knows 1 classes, the teacher has 2'
    """
    if len(names) != len(expected):
        return f"knows {len(names)} classes, {other} has {len(expected)}"
    for index, (name, expected_name) in enumerate(zip(names, expected, strict=True)):
        if name != expected_name:
            return f"class {index} is '{name}', in {other} '{expected_name}'"
    return None
