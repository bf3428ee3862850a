"""DOTA: one text file per image, one object per line."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ds2d2_yolo.data.annotations import Account, Annotation
from ds2d2_yolo.data.classes import DOTA_ADDED_CLASSES, DOTA_CLASSES
from ds2d2_yolo.data.formats.per_image import LabelFile, PerImageReader
from ds2d2_yolo.data.formats.rules import MalformedError, Part, as_class, as_integer, as_number, decode

OWN = "own"
"""Value of `version=` for a data set with its own classes."""

HEADERS = ("imagesource:", "gsd:")
"""Begins of the lines that may precede the objects, lower case."""

_NUMBER = re.compile(r"[-+]?[\d.]+")


class DOTAReader(PerImageReader[str]):
    """Reads DOTA v1.0, v1.5 and v2.0, and data sets in the same format with their own classes.

    A line has the corners x1, y1, ... x4, y4 in pixels, the class and, optionally, the degree of difficulty. The first
    lines may state the source of the image and its ground resolution. Each image has one text file of its name.

    Args:
        splits (Mapping[str, Sequence[Part]]): The parts of every split of the result.
        account (Account): Counts what is found and what cannot be read.
        root (Path): Folder of the data set; messages name files relative to it.
        version (str): `1.0`, `1.5` or `2.0`: the classes of this version. `own`: all classes that occur.

    Raises:
        DS2D2Error: If a folder cannot be read.

    Example:
        >>> train = Part((root / "train/labelTxt",), (root / "train/images",))  # doctest: +SKIP
        >>> test = Part((), (root / "test/images",), "images")  # doctest: +SKIP
        >>> reader = DOTAReader({"train": [train], "test": [test]}, Account(), root, "1.0")  # doctest: +SKIP
    """

    suffix = ".txt"

    def __init__(self, splits: Mapping[str, Sequence[Part]], account: Account, root: Path, version: str) -> None:
        self._version = version
        known = DOTA_CLASSES + DOTA_ADDED_CLASSES[version] if version != OWN else None
        super().__init__(splits, account, root, known)

    def parse(self, content: bytes) -> LabelFile[str]:
        """Return the lines with objects."""
        lines: list[tuple[str, int | None]] = []
        for number, line in enumerate(io.StringIO(decode(content), newline=None), start=1):
            if line.strip() and (lines or not line.lower().startswith(HEADERS)):
                lines.append((line, number))
        return LabelFile(None, lines)

    def read_object(self, item: str, line: int | None) -> Annotation:
        """Return a line as an annotation."""
        fields = item.split()
        words, degree = (fields[8:-1], fields[-1]) if len(fields) > 9 else (fields[8:], "0")
        # The name of a class may have blanks, such as "large vehicle".
        if not words or any(_NUMBER.fullmatch(word) for word in words[1:]):
            raise MalformedError(f"expected 8 numbers, the class and the difficulty, found {len(fields)} fields")
        points = tuple([as_number(field, "a coordinate") for field in fields[:8]])
        return Annotation(as_class(" ".join(words)), points, as_integer(degree, "difficulty"), line=line)

    def hint(self, name: str) -> str:
        """Return which versions have a class, for the message."""
        versions = [version for version, added in DOTA_ADDED_CLASSES.items() if name in added]
        if not versions:
            return ""
        return (
            f", which v{self._version} lacks and v{' and v'.join(versions)} {'has' if len(versions) == 1 else 'have'}"
        )
