"""Advice for a data YAML that cannot be used, or whose images are missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ultralytics.utils import SETTINGS, YAML
from ultralytics.utils.checks import check_file

from ds2d2_yolo.errors import did_you_mean, message_of, similar_file
from ds2d2_yolo.loading.images import SPLITS
from ds2d2_yolo.resources import resource_folder

_LINES = (("train", "train", "images/train"), ("val", "validation", "images/val"), ("names", "nc", "[ship, plane]"))
"""Required lines of a data YAML: key, alternative key, and an example."""


def what_to_change(path: str, error: Exception, split: str = "val") -> str:
    """Describe what is wrong with a data YAML and what to change, in place of Ultralytics' error.

    Args:
        path (str): The data YAML.
        error (Exception): The error of Ultralytics' `check_det_dataset`.
        split (str): The split for evaluation.

    Returns:
        (str): The end of a message that names the data set. It is Ultralytics' own text for causes not handled here.
    """
    if Path(path).is_dir():
        return (
            "is a folder without a data YAML; pass the YAML itself, or make one with "
            f"'ds2d2 convert src={path} out=path/to/new'"
        )
    try:
        if not (found := check_file(path, hard=False)):
            shipped = [file.name for file in resource_folder("datasets").glob("*.yaml")]
            other = did_you_mean(path, shipped, "pass a data YAML, such as data=scenes.yaml", most=1, cutoff=0.75)
            return f"no such file; {similar_file('data', path, other)}"
        content = YAML.load(found)
        for key, other, example in _LINES:
            if content.get(key) is None and other not in content:
                return f"the line '{key}:' is missing; add for example '{key}: {example}'"
        if wrong := _wrong_value(content):
            return wrong
        absent = isinstance(error, FileNotFoundError)  # otherwise a failed download, values of another type, ...
        return (absent and missing_images(path, ("train", "val", split))) or message_of(error)
    except Exception:  # no YAML, or values of other types: Ultralytics' own message describes it
        return message_of(error)


def _wrong_value(content: Mapping[str, Any]) -> str | None:
    """Describe the first value of a data YAML that Ultralytics cannot use. None if there is none."""
    for name in SPLITS:
        entries = content.get(name) or []
        for entry in entries if isinstance(entries, list) else [entries]:
            if not isinstance(entry, str):
                return f"'{name}:' holds {entry!r}; write a folder, or a text file with one path per line"
    names = content.get("names")
    numbers = list(map(str, names)) if isinstance(names, dict) else []
    for number in range(len(numbers)):
        if str(number) not in numbers:
            return f"'names:' has no class {number}; number the classes from 0 without gaps"
    return None


def missing_images(path: str | Path, splits: Iterable[str] = ("train", "val")) -> str | None:
    """Describe the first split of a data YAML whose images do not exist, and the line to change.

    Args:
        path (str | Path): The data YAML.
        splits (Iterable[str]): Splits to check.

    Returns:
        (str | None): The missing split and what to write. None if all splits exist.
    """
    file = Path(check_file(path)).resolve()
    content = YAML.load(file)
    root = Path(content.get("path") or file.parent)
    if not root.exists() and not root.is_absolute():
        root = Path(SETTINGS["datasets_dir"]) / root
    for name in dict.fromkeys(splits):
        entries = content.get(name) or []
        for entry in [entries] if isinstance(entries, str) else entries:
            if (root / entry).exists() or (entry.startswith("../") and (root / entry[3:]).exists()):
                continue
            return f"'{name}: {entry}' is {(root / entry).resolve()}, which does not exist; " + _line_to_write(
                content, name, entry, file, root
            )
    return None


def _line_to_write(content: Mapping[str, Any], name: str, entry: str, file: Path, root: Path) -> str:
    """Return the correct line of a data YAML for the images of a split."""
    written = content.get("path")
    bases = [file.parent / str(written or ""), file.parent, *file.parents[1:3]]
    base = next((base for base in bases if (base / entry).exists()), None)
    if base is not None:
        why = "" if written is None or Path(written).is_absolute() else f" ({written} counts from the working folder)"
        return f"write 'path: {base.resolve()}' in {file.name}{why}"
    place = root / entry
    if place.parent.is_dir():
        names = [other.name for other in place.parent.iterdir() if other.is_dir() or other.suffix == ".txt"]
        for other in get_close_matches(place.name, names, n=1):
            return f"write '{name}: {(Path(entry).parent / other).as_posix()}' in {file.name}"
    return f"correct 'path:' or '{name}:' in {file.name}"


def lists_elsewhere(entries: str | Iterable[str], images: Sequence[Path]) -> str:
    """Return what to change if none of the images in text files exists.

    Args:
        entries (str | Iterable[str]): The split's entry in the checked data YAML.
        images (Sequence[Path]): The images, none of which exists.

    Returns:
        (str): The advice.
    """
    for entry in map(Path, [entries] if isinstance(entries, str) else entries):
        if entry.is_file() and (entry.parent / images[0]).is_file() and not images[0].is_absolute():
            return f"in {entry.name} write ./{images[0].as_posix()}, as lines without ./ count from the working folder"
        if entry.is_file() and "\\" in images[0].name:  # on Windows it separates folders, and no name has it
            return f"in {entry.name} write / in place of \\"
    return "correct the paths in the list of the split"
