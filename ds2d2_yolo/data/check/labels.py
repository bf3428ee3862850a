"""Reads label files as Ultralytics' loader does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ultralytics.utils.ops import segments2boxes


class Fault(NamedTuple):
    """A reason for Ultralytics to reject a label file: a kind of `KINDS`, the line from 1, and a detail."""

    kind: str
    line: int | None
    detail: str


@dataclass(frozen=True)
class Labels:
    """The objects that Ultralytics keeps of one label file.

    Attributes:
        classes (np.ndarray): Class indices (N,) int64.
        boxes (np.ndarray): Boxes, or hulls of polygons, (N, 4) float32, as x, y, width, height in shares of the image.
        polygons (tuple[np.ndarray, ...]): Corners (K, 2) float32 of every object, in shares of the image; empty for a
            file of boxes.
        lines (np.ndarray): Line of every object (N,), from 1.
        written (int): Number of lines that are not blank.
        faults (tuple[Fault, ...]): Reasons why the file is rejected. A rejected file has no objects.
        duplicates (tuple[int, ...]): Lines that repeat an earlier line and are left out.
        ambiguous (tuple[int, ...]): Lines with the same box as an earlier line, but another class.
    """

    classes: np.ndarray
    boxes: np.ndarray
    polygons: tuple[np.ndarray, ...]
    lines: np.ndarray
    written: int
    faults: tuple[Fault, ...] = ()
    duplicates: tuple[int, ...] = ()
    ambiguous: tuple[int, ...] = ()


def read_labels(path: Path, classes: int, keypoints: Sequence[int] = (0, 0)) -> Labels | None:
    """Read a label file, see `parse_labels`. Return None if it does not exist."""
    if not path.is_file():
        return None
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        fault = Fault("unreadable_label", None, getattr(error, "strerror", None) or f"is not UTF-8 ({error.args[-1]})")
        return Labels(np.zeros(0, np.int64), np.zeros((0, 4), np.float32), (), np.zeros(0, int), 0, (fault,))
    return parse_labels(text, classes, keypoints)


def number_of_labels(path: Path) -> int:
    """Return the number of lines of a label file; 0 if it begins with something else, such as class names."""
    try:
        rows = [row for line in path.read_bytes().decode("utf-8-sig").splitlines() if (row := line.split())]
        values = [float(word) for word in rows[0]] if rows else []
    except (OSError, ValueError):
        return 0
    return len(rows) if len(values) >= 5 else 0


def parse_labels(text: str, classes: int, keypoints: Sequence[int] = (0, 0)) -> Labels:
    r"""Read the text of a label file as Ultralytics' `verify_image_label` does, and report the lines that it rejects.

    A line is `class x y width height` or `class x1 y1 x2 y2 ...`, in shares of the image. Ultralytics tolerates values
    from -0.01 to 1.01. A single line beyond that makes it reject the whole file.

    Args:
        text (str): Contents of the file.
        classes (int): Number of classes.
        keypoints (Sequence[int]): As in `Settings`.

    Returns:
        (Labels): Its objects, or the faults if it is rejected.

    Example:
        >>> parse_labels("0 0.5 0.5 0.1 0.1", classes=1).boxes.shape
        (1, 4)
        >>> parse_labels("0 0.5 0.5 0.1 0.1\n3 0.5 0.5 0.2 0.2", classes=1).faults[0]
        Fault(kind='unknown_class', line=2, detail='class 3, the data set has 0 to 0')
    """
    rows, lines = [], []
    pose = 5 + keypoints[0] * keypoints[1]
    for number, line in enumerate(text.splitlines(), 1):
        if fields := line.split():
            rows.append(fields[:5] if len(fields) == pose else fields)
            lines.append(number)
    polygonal = any(len(fields) > 6 for fields in rows)
    values = _numbers(rows, polygonal)
    if values is None or not _acceptable(values[0], values[1], classes).all():
        found = [(line, _fault(fields, polygonal, classes)) for line, fields in zip(lines, rows, strict=True)]
        faults = tuple(Fault(fault[0], line, fault[1]) for line, fault in found if fault)
        return Labels(np.zeros(0, np.int64), np.zeros((0, 4), np.float32), (), np.zeros(0, int), len(rows), faults)
    numbers, boxes, polygons = values
    kept, duplicates, ambiguous = _repetitions(numbers, boxes, polygons)
    return Labels(
        classes=numbers[kept].astype(np.int64),
        boxes=boxes[kept],
        polygons=tuple(polygons[index] for index in kept) if polygons else (),
        lines=np.array(lines, int)[kept],
        written=len(rows),
        duplicates=tuple(lines[index] for index in duplicates),
        ambiguous=tuple(lines[index] for index in ambiguous),
    )


def _numbers(rows: list[list[str]], polygonal: bool) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]] | None:
    """Return classes (N,), boxes (N, 4) and polygons of rows, or None if a row has other contents."""
    if not all(_has_right_length(fields, polygonal) for fields in rows):
        return None
    try:
        with np.errstate(over="ignore"):  # too large for float32: becomes infinite and is refused
            if not polygonal:
                table = np.array(rows, np.float32).reshape(-1, 5)
                return table[:, 0], table[:, 1:], []
            classes = np.array([fields[0] for fields in rows], np.float32)
            polygons = [np.array(fields[1:], np.float32).reshape(-1, 2) for fields in rows]
    except ValueError:
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        return classes, segments2boxes(polygons), polygons


def _has_right_length(fields: list[str], polygonal: bool) -> bool:
    return len(fields) != 5 and len(fields) >= 3 and len(fields) % 2 == 1 if polygonal else len(fields) == 5


def _acceptable(classes: np.ndarray, boxes: np.ndarray, number: int) -> np.ndarray:
    """Return which rows are accepted. The comparisons are written such that NaN is not."""
    with np.errstate(invalid="ignore"):
        right_class = (classes >= 0) & (classes < number) & (classes % 1 == 0)
        return np.asarray(right_class & ((boxes >= -0.01) & (boxes <= 1.01)).all(1) & (boxes[:, 2:] >= 0).all(1))


def _fault(fields: list[str], polygonal: bool, classes: int) -> tuple[str, str] | None:
    """Return kind and description of the error in a row, or None."""
    if polygonal and len(fields) == 5:
        return "malformed_label", "a box in a file of polygons"
    if not _has_right_length(fields, polygonal):
        return "malformed_label", f"{len(fields)} fields, a box has 5, a polygon 7, 9, 11, ..."
    values = _numbers([fields], polygonal)
    if values is None:
        wrong = next(word for word in fields if _numbers([[word] * 5], False) is None)
        return "malformed_label", f"'{wrong[:20]}' is not a number"
    number, box = values[0][0], values[1]
    if not np.isfinite(box).all():
        return "malformed_label", "coordinates that are not finite"
    if not _acceptable(np.zeros(1), box, 1).all():
        x, y, width, height = (f"{value:g}" for value in box[0])
        return "malformed_label", f"box x={x} y={y} w={width} h={height}, must be shares of the image, 0 to 1"
    if number == number // 1 and number >= classes:
        return "unknown_class", f"class {number:.0f}, the data set has 0 to {classes - 1}"
    if not (number >= 0 and number % 1 == 0):
        return "malformed_label", f"class {number:g}, must be a whole number from 0"
    return None


def _repetitions(
    classes: np.ndarray, boxes: np.ndarray, polygons: list[np.ndarray]
) -> tuple[list[int], list[int], list[int]]:
    """Return the indices of rows to keep, of repeated rows, and of kept rows that give a box a second class."""
    shapes = [polygon.tobytes() for polygon in polygons] if polygons else [row.tobytes() for row in boxes + 0.0]
    if len(set(shapes)) == len(shapes):
        return list(range(len(shapes))), [], []
    first: dict[bytes, set[float]] = {}
    kept, duplicates, ambiguous = [], [], []
    for index, (shape, number) in enumerate(zip(shapes, classes.tolist(), strict=True)):
        classes_of_shape = first.setdefault(shape, set())
        if number in classes_of_shape:
            duplicates.append(index)
            continue
        if classes_of_shape:
            ambiguous.append(index)
        kept.append(index)
        classes_of_shape.add(number)
    return kept, duplicates, ambiguous
