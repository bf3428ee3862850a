"""The files in the folders of a data set whose layout is to be recognised."""

from __future__ import annotations

import codecs
import heapq
import mmap
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ds2d2_yolo.data.formats.rules import IMAGE_SUFFIXES
from ds2d2_yolo.errors import DS2D2Error

SAMPLE = 40
"""Number of files per kind and folder that are opened. Only JSON is opened whatever the number: one file is a split."""

ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".rar", ".7z")
"""Suffixes of packed data sets, lower case."""

_DEPTH = 4  # folders below the source; DOTA's labels are the deepest: train/labelTxt-v1.5/DOTA-v1.5_train


@dataclass
class Folder:
    """The files of one folder: for each kind of file some of the names, sorted, and the number. Of JSON all names."""

    path: Path
    first: dict[str, list[str]] = field(default_factory=dict)
    count: dict[str, int] = field(default_factory=dict)


@dataclass
class Source:
    """A data set whose layout is to be recognised: its folders and their files."""

    root: Path
    folders: list[Folder]

    @classmethod
    def of(cls, root: Path) -> Source:
        """List the files of a folder and of the folders below it.

        Raises:
            DS2D2Error: If a folder cannot be read.
        """
        return cls(root, list(_folders_in(root)))

    def having(self, kind: str) -> list[Folder]:
        """Return the folders that have files of a kind."""
        return [folder for folder in self.folders if folder.count.get(kind)]

    def below(self, path: Path) -> str:
        """Return a path relative to the source, for messages."""
        return path.relative_to(self.root).as_posix()

    def words(self, path: Path) -> str:
        """Return the path below the source in lower case, to search for words."""
        return f"/{self.below(path).lower()}"

    def by_role(self, folders: Iterable[Path]) -> dict[str | None, tuple[Path, ...]]:
        """Group folders by the split that their names state; None if they state none."""
        found: dict[str | None, tuple[Path, ...]] = {}
        for path in folders:
            role = role_of(self.words(path))
            found[role] = (*found.get(role, ()), path)
        return found

    def summary(self) -> str:
        """Return the first files in a few words, for messages."""
        filled = [folder for folder in self.folders if folder.count]
        shown = [
            f"{self.below(folder.path)}/ ({_counts(folder)})"
            for folder in heapq.nlargest(4, filled, key=lambda folder: sum(folder.count.values()))
        ]
        return ", ".join(shown) or f"no files, {_DEPTH} folders deep"


def _counts(folder: Folder) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in folder.count.items())


def _folders_in(folder: Path, depth: int = _DEPTH) -> Iterator[Folder]:
    names: dict[str, list[str]] = {}
    below = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith((".", "__MACOSX")):
                    continue
                if entry.is_dir():
                    if entry.is_symlink() and folder.resolve().is_relative_to(Path(entry.path).resolve()):
                        continue  # a link to a folder above
                    below.append(entry.name)
                elif entry.is_file():  # not a pipe, which would never end
                    names.setdefault(_kind_of(entry.name), []).append(entry.name)
    except OSError as error:
        raise DS2D2Error(f"{folder}: this folder cannot be read ({error.strerror or error})") from error
    counts = {kind: len(found) for kind, found in sorted(names.items())}
    # Not only the first ones: neighbours show the same scene, with only some of the classes.
    chosen = {kind: sorted(found)[:: max(1, len(found) // SAMPLE)][:SAMPLE] for kind, found in names.items()}
    yield Folder(folder, chosen | {"json": sorted(names.get("json", ()))}, counts)
    if depth:
        for name in sorted(below):
            yield from _folders_in(folder / name, depth - 1)


def _kind_of(name: str) -> str:
    suffix = Path(name).suffix.lower()
    for kind, suffixes in (("images", IMAGE_SUFFIXES), ("archives", ARCHIVES), ("yaml", (".yaml", ".yml"))):
        if suffix in suffixes:
            return kind
    return suffix[1:] if suffix in (".xml", ".txt", ".json", ".csv") else "other files"


def head_of(path: Path, size: int = 1 << 16) -> str:
    """Return the first bytes of a file as text.

    Raises:
        DS2D2Error: If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(size)
    except OSError as error:
        raise DS2D2Error(f"{path}: cannot be read ({error.strerror or error})") from error
    wide = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return head.decode("utf-16" if wide else "utf-8-sig", errors="replace")


def has_words(path: Path, *keys: str) -> bool:
    """Whether a file has all of the words."""
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        wide = content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        encodings = ("utf-16-le", "utf-16-be") if wide else ("utf-8",)
        return all(any(content.find(key.encode(encoding)) >= 0 for encoding in encodings) for key in keys)


_ROLES = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
_ROLE = re.compile(r"(?<![a-z])(trainval|train(?:ing)?|val(?:id(?:ation)?)?|test(?:ing)?)(?![a-z])")


def role_of(words: str) -> str | None:
    """Return the split that a name states.

    Example:
        >>> role_of("instances_train2017"), role_of("JPEGImages-trainval"), role_of("valid/a"), role_of("labelTxt")
        ('train', 'trainval', 'val', None)
    """
    roles = _ROLE.findall(words.lower())
    return _ROLES.get(roles[-1], roles[-1]) if roles else None
