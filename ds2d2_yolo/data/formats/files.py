"""What the readers share: looking at folders and names, and turning text into numbers."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

from ultralytics.data.utils import IMG_FORMATS

from ds2d2_yolo.errors import DS2D2Error

IMAGE_SUFFIXES: frozenset[str] = frozenset(f".{name}" for name in IMG_FORMATS)
"""What images end in, lower case: all that Ultralytics reads."""

LABELS_WITHOUT_IMAGE = "labels without image"


class MalformedError(Exception):
    """Something in a file that cannot be used; readers turn it into an entry of the account.

    Args:
        reason (str): A few words that are the same for the same reason.
        line (int | None): Line of the file where it shows, from 1.
    """

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


def file_names(folder: Path) -> Iterator[str]:
    """Yield the names of the files in a folder, in no order, without hidden ones such as those that macOS leaves.

    Raises:
        DS2D2Error: If the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            yield from (entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file())
    except OSError as error:
        raise DS2D2Error(f"{folder}: this folder cannot be read ({error.strerror})") from error


def image_names(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the images of a folder, in no order, as name and suffix.

    Raises:
        DS2D2Error: If the folder cannot be read.
    """
    for file_name in file_names(folder):
        name, dot, suffix = file_name.rpartition(".")
        if dot + suffix.lower() in IMAGE_SUFFIXES:
            yield name, dot + suffix


def stays_inside(path: str) -> bool:
    """Whether a path from a label file stays in the folder that it is relative to, on Windows, too.

    Example:
        >>> stays_inside("train2017/1.jpg"), stays_inside("../1.jpg"), stays_inside("C:/1.jpg")
        (True, False, False)
    """
    parts = re.split(r"[/\\]", path)
    return parts[-1] not in ("", ".") and parts[0] != "" and ".." not in parts and not re.search(r"^\w:|\0", path)


def relative(path: Path, root: Path) -> str:
    """Return a path as messages name it: relative to the data set where it lies in it, and printable.

    Example:
        >>> relative(Path("DOTA/train/labelTxt/P0706.txt"), Path("DOTA"))
        'train/labelTxt/P0706.txt'
    """
    shown = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
    return shown.encode("utf-8", "backslashreplace").decode("utf-8")


def read_labels(path: Path) -> bytes:
    """Return the content of an image's label file.

    Raises:
        MalformedError: If there is none, or if it cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise MalformedError("image without labels") from None
    except OSError as error:
        raise MalformedError(f"cannot be read ({error.strerror})") from None


def decode(content: bytes) -> str:
    """Return the text of a UTF-8 file, with or without byte order mark.

    Raises:
        MalformedError: If it is not UTF-8.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MalformedError("not UTF-8", content.count(b"\n", 0, error.start) + 1) from None


def as_number(text: str, what: str) -> float:
    """Return the number that a text spells.

    Args:
        text (str): The text.
        what (str): What it is, for the message.

    Raises:
        MalformedError: If it is none, or not finite.

    Example:
        >>> as_number("1.5e2", "xmin")
        150.0
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in text:
        raise MalformedError(f"{what}: expected a finite number")
    return value


def as_whole(text: str, what: str) -> int:
    """Return the whole number, 0 or more, that a text spells.

    Args:
        text (str): The text.
        what (str): What it is, for the message.

    Raises:
        MalformedError: If it is none, or has more than nine digits.
    """
    if not re.fullmatch("[0-9]{1,9}", text):
        raise MalformedError(f"{what}: expected a whole number")
    return int(text)


def shortened(text: object) -> str:
    """Return something from a file as it can stand in a message: quoted, printable and short.

    Example:
        >>> shortened("ship 0")
        "'ship 0'"
    """
    shown = ascii(str(text)[:41])
    return shown if len(shown) <= 42 else f"{shown[:40]}...'"
