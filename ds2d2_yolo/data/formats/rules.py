"""Common rules of all readers: for files, names, ids, sizes, classes, boxes and texts."""

from __future__ import annotations

import codecs
import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

import numpy as np
from ultralytics.data.utils import IMG_FORMATS

from ds2d2_yolo.errors import DS2D2Error

IMAGE_SUFFIXES: frozenset[str] = frozenset(f".{name}" for name in IMG_FORMATS)
"""Suffixes of images that Ultralytics reads, lower case."""

LABELS_WITHOUT_IMAGE = "labels without image"
SEVERAL_IMAGES = "several images of this name"
SWAPPED_CORNERS = "box(es) whose first corner is not the upper left one, read as the box between the corners"
ELSEWHERE = "image(s) found only by file name: the folder stated in the labels does not exist"
UPLOADED = "file(s) found by names with or without the prefix that Label Studio adds to uploads"
OTHER_SPLIT = "its image is only in the folder of another split"

_LABEL_SUFFIXES = {".xml", ".txt"}
# Label Studio puts eight hexadecimal digits before the name of a file. Those with a year are taken for a date.
_UPLOADED = re.compile(r"^(?!(?:\d{4})?(?:19|20)\d+-)[0-9a-f]{8}-(?=.)")


@dataclass(frozen=True)
class Part:
    """Files that make up a split of a source, or a part of it.

    Attributes:
        labels (tuple[Path, ...]): Folders of label files, or one file with all labels; empty if the labels are not
            published.
        images (tuple[Path, ...]): Folders of images.
        names (Literal["both", "images", "labels"] | Path): Source of the names of images: a list, the label files, or
            the images. With `both`, each image must have a label file and the reverse.
        apart (tuple[Path, ...]): Folders of images of other splits: images of the same names there are others.
    """

    labels: tuple[Path, ...]
    images: tuple[Path, ...]
    names: Literal["both", "images", "labels"] | Path = "both"
    apart: tuple[Path, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """All its files and folders."""
        return (*self.labels, *self.images, *([self.names] if isinstance(self.names, Path) else []))

    def excludes(self, path: Path) -> bool:
        """Whether a file belongs to another split."""
        known = (folder for folder in path.parents if folder in self.images or folder in self.apart)
        return next(known, None) in self.apart


class MalformedError(Exception):
    """Something in a file that cannot be used. Readers turn it into an entry of the account.

    Args:
        reason (str): Always the same words for the same reason.
        line (int | None): Line of the file, from 1.
    """

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


def file_names(folder: Path) -> Iterator[str]:
    """Yield the names of the files in a folder, unsorted, without hidden files such as those of macOS.

    Raises:
        DS2D2Error: If the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            yield from (entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file())
    except OSError as error:
        raise DS2D2Error(f"{folder}: this folder cannot be read ({error.strerror})") from error


def composed(name: str) -> str:
    """Return a name in which a letter with an accent is one character. macOS writes two, other systems one.

    Example:
        >>> len("e\u0301.jpg"), len(composed("e\u0301.jpg"))
        (6, 5)
    """
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def stem_of(path: str) -> str:
    r"""Return the last part of a path from any tool, without the suffix of an image or a label file.

    Example:
        >>> stem_of("C:\\data\\a.v2.JPG"), stem_of("train/a.v2")
        ('a.v2', 'a.v2')
    """
    base = composed(re.split(r"[/\\]", path)[-1])
    stem, suffix = os.path.splitext(base)  # noqa: PTH122 - also for impossible file names
    return stem if suffix.lower() in IMAGE_SUFFIXES | _LABEL_SUFFIXES else base


class FileIndex:
    """Finds the files of some folders by the path that a label file or a list states.

    Paths in labels are often from another computer: absolute, with `..`, or with a prefix from an upload. A file is
    found by the last part of the path without its suffix. If several files match, the suffix decides, then the folders.

    Args:
        folders (Iterable[Path]): The folders, without those below them.
        suffixes (Iterable[str]): Suffixes of the files, lower case.

    Raises:
        DS2D2Error: If a folder cannot be read.

    Example:
        >>> FileIndex([], IMAGE_SUFFIXES).find("/home/me/a.jpg")
        []
    """

    def __init__(self, folders: Iterable[Path], suffixes: Iterable[str] = IMAGE_SUFFIXES) -> None:
        suffixes = frozenset(suffixes)
        self._by_stem: dict[str, tuple[str, ...]] = {}
        self._uploaded: dict[str, tuple[str, ...]] = {}  # name before an upload -> names after it
        for folder in dict.fromkeys(folders):
            for name in sorted(file_names(folder)):
                stem, suffix = os.path.splitext(composed(name))  # noqa: PTH122
                if suffix.lower() in suffixes:
                    self._by_stem[stem] = (*self._by_stem.get(stem, ()), str(folder / name))
                    if before := _original(stem):
                        self._uploaded[before] = (*self._uploaded.get(before, ()), stem)

    def __iter__(self) -> Iterator[str]:
        """Yield the paths of all files."""
        for paths in self._by_stem.values():
            yield from paths

    def __contains__(self, stem: object) -> bool:
        """Whether there is a file of exactly this name, without its suffix."""
        return stem in self._by_stem

    def find(
        self, stated: str, named: Container[str] = (), excludes: Callable[[Path], bool] | None = None
    ) -> list[Path]:
        """Return the files that match a path. There are several if the path is ambiguous.

        Args:
            stated (str): The path.
            named (Container[str]): Names, without suffixes, that something else has exactly. Files of these names are
                not found by the prefix of an upload.
            excludes (Callable[[Path], bool] | None): Whether a file must not be found.
        """
        if len(found := self._by_stem.get(stated, ())) == 1 and not excludes:
            return [Path(found[0])]  # a plain name from a list: the usual case
        stated = unquote(stated.partition("?d=")[2]) if "?d=" in stated else stated
        stated = composed(stated)
        *folders, base = re.split(r"[/\\]+", stated)
        plain = stem_of(base)
        found = self._by_stem.get(base) or self._by_stem.get(plain) or ()
        for spelling in (stem_of(unquote(base)), stem_of(base.partition("?")[0])):
            found = found or self._by_stem.get(spelling, ())
        others = [name for name in (_original(plain), *self._uploaded.get(plain, ())) if name not in named]
        found = found or tuple(path for name in others for path in self._by_stem.get(name, ()))
        found = tuple(path for path in found if not (excludes and excludes(Path(path))))
        for alike in (lambda path: os.path.basename(path) == base, lambda path: _shared_end(folders, path)):  # noqa: PTH119
            best = max(map(alike, found), default=0)
            found = tuple(path for path in found if alike(path) == best)
        return [Path(path) for path in found]


def _original(stem: str) -> str:
    """Return the name of a file before an upload to Label Studio, empty if it has no prefix of one."""
    return _UPLOADED.sub("", stem) if _UPLOADED.match(stem) else ""


def is_by_upload(stated: str, path: Path) -> bool:
    """Whether only one of a stated path and the file that was found for it has the prefix of an upload.

    Example:
        >>> is_by_upload("a.jpg", Path("images/0a1b2c3d-a.jpg")), is_by_upload("20230101-a", Path("20230101-a.jpg"))
        (True, False)
    """
    return bool(_original(stem_of(stated))) != bool(_original(stem_of(path.name)))


def _shared_end(folders: Sequence[str], path: str) -> int:
    """Return the number of folders that a stated path and the path of a file share at their ends."""
    own = Path(path).parent.parts
    shared = 0
    while shared < min(len(own), len(folders)) and own[-1 - shared] == folders[-1 - shared]:
        shared += 1
    return shared


def no_image_below(root: Path) -> str:
    """Return what to do about labels without an image.

    Example:
        >>> no_image_below(Path("set/Annotations"))
        'no image of this name is in set/Annotations: src= needs images and labels, perhaps src=set'
    """
    return f"no image of this name is in {root}: src= needs images and labels, perhaps src={root.parent}"


def unique_names(paths: Sequence[str]) -> list[str]:
    """Return unique names of images: file names, with the differing folders if a name occurs several times.

    Names that differ only in case would be one file on disks of macOS and Windows. In one folder they get numbers.
    Only names of images whose paths are equal, or differ in their suffixes alone, stay equal.

    Args:
        paths (Sequence[str]): Paths, relative to a folder, with forward slashes.

    Example:
        >>> unique_names(["a/1.jpg", "b/1.jpg", "b/2.jpg"])
        ['a__1', 'b__1', '2']
        >>> unique_names(["P1.jpg", "p1.jpg", "P2.jpg", "P2.png"])
        ['P1', 'p1__1', 'P2', 'P2']
    """
    folders = [path.split("/")[:-1] for path in paths]
    stems = [stem_of(path) for path in paths]
    counts = Counter(map(str.casefold, stems))
    levels = zip(*folders, strict=False)
    shared = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, levels))
    names = [
        "__".join([*(part for part in folder[shared:] if part.strip(".")), stem])
        if counts[stem.casefold()] > 1
        else stem
        for folder, stem in zip(folders, stems, strict=True)
    ]
    spellings: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        spellings.setdefault(name.casefold(), []).append(name)
    numbers = {name: number for alike in spellings.values() for number, name in enumerate(alike)}
    return [f"{name}__{numbers[name]}" if numbers[name] else name for name in names]


def relative(path: Path, root: Path) -> str:
    """Return a path for messages: printable, and relative to the data set if it is inside.

    Example:
        >>> relative(Path("DOTA/train/labelTxt/P0706.txt"), Path("DOTA"))
        'train/labelTxt/P0706.txt'
    """
    shown = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
    return shown.encode("utf-8", "backslashreplace").decode("utf-8")


def read_labels(path: Path) -> bytes:
    """Return the content of an image's label file.

    Raises:
        MalformedError: If it is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise MalformedError("image without labels") from None
    except OSError as error:
        raise MalformedError(f"cannot be read ({error.strerror})") from None


def decode(content: bytes) -> str:
    """Decode a file: UTF-8, UTF-16 with a byte order mark, or the encoding that an XML file declares.

    Raises:
        MalformedError: If it has none of these encodings.
    """
    declared = re.match(rb"\s*<\?xml[^>]*?encoding\s*=\s*[\"']([\w.:-]+)", content)
    encoding = declared.group(1).decode() if declared else "UTF-8"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "UTF-16"
    elif re.fullmatch("utf-?(8|16)", encoding, re.IGNORECASE):
        encoding = "UTF-8"  # a UTF-16 declaration that is readable as ASCII is wrong
    try:
        return content.decode("utf-8-sig" if encoding == "UTF-8" else encoding)
    except LookupError:
        raise MalformedError(f"unknown encoding {shortened(encoding)}, save the file as UTF-8", 1) from None
    except ValueError as error:
        start = error.start if isinstance(error, UnicodeDecodeError) else 0
        hint = f"not {encoding}, save it as UTF-8, such as with 'iconv -f GBK -t UTF-8' where it is GBK"
        raise MalformedError(hint, content.count(b"\n", 0, start) + 1) from None


def as_id(value: object) -> str | None:
    """Return an id as text, None if there is none. Tools also write 1 as 1.0 or "1".

    Example:
        >>> as_id(1), as_id(1.0), as_id("1"), as_id(True), as_id("")
        ('1', '1', '1', None, None)
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return (value.strip() or None) if isinstance(value, str) else None


def as_size(width: object, height: object) -> tuple[int, int] | None:
    """Return the size that labels state, None if it is not two positive whole numbers. The file's own size counts.

    Example:
        >>> as_size("800", 600.0), as_size(0, 0), as_size(None, 600)
        ((800, 600), None, None)
    """
    sides = [re.fullmatch(r"0*([1-9]\d{0,8})(\.0*)?", str(side).strip()) for side in (width, height)]
    if sides[0] is None or sides[1] is None:
        return None
    return int(sides[0].group(1)), int(sides[1].group(1))


def as_class(value: object) -> str:
    """Return the name of a class, with single blanks.

    Raises:
        MalformedError: If it is not a name.
    """
    name = " ".join(value.split()) if isinstance(value, str) else ""
    if not name or not name.isprintable():
        raise MalformedError(f"unknown class {shortened('' if value is None else value)}")
    return name


def hull_of(points: Sequence[float]) -> tuple[float, float, float, float]:
    """Return the horizontal box around points x1, y1, x2, y2, ...: two opposite corners or more.

    Example:
        >>> hull_of((30, 5, 10, 20)), hull_of((0, 2, 4, 0, 6, 3))
        ((10, 5, 30, 20), (0, 0, 6, 3))
    """
    return min(points[0::2]), min(points[1::2]), max(points[0::2]), max(points[1::2])


def rotated(cx: float, cy: float, width: float, height: float, angle: float) -> tuple[float, ...]:
    """Return the corners of a box that is rotated around its centre, as stated by roLabelImg and CVAT.

    Args:
        cx (float): Centre x, pixels.
        cy (float): Centre y, pixels.
        width (float): Pixels.
        height (float): Pixels.
        angle (float): Radians, clockwise in the image.

    Returns:
        (tuple[float, ...]): x1, y1, ... x4, y4. At angle 0: clockwise from the top left.

    Example:
        >>> rotated(30.0, 20.0, 20.0, 10.0, 0.0)
        (20.0, 15.0, 40.0, 15.0, 40.0, 25.0, 20.0, 25.0)
    """
    along = np.array([math.cos(angle), math.sin(angle)]) * width / 2
    across = np.array([-math.sin(angle), math.cos(angle)]) * height / 2
    signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    return tuple(float(value) for a, b in signs for value in (cx, cy) + a * along + b * across)


def as_number(text: str, what: str) -> float:
    """Parse a number.

    Args:
        text (str): The text.
        what (str): Its name in the message.

    Raises:
        MalformedError: If it is not a finite number.

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


def as_integer(text: str, what: str) -> int:
    """Parse a whole number, 0 or more.

    Args:
        text (str): The text.
        what (str): Its name in the message.

    Raises:
        MalformedError: If it is not such a number, or has more than nine digits.
    """
    if not re.fullmatch("[0-9]{1,9}", text):
        raise MalformedError(f"{what}: expected a whole number")
    return int(text)


def shortened(text: object) -> str:
    """Return something from a file for a message: quoted, printable and short.

    Example:
        >>> shortened("ship 0")
        "'ship 0'"
    """
    shown = ascii(str(text)[:41])
    return shown if len(shown) <= 42 else f"{shown[:40]}...'"
