"""What lies in the folders of a data set that is to be recognised."""

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
"""How many files of a kind are looked into in each folder."""

ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".rar", ".7z")
"""What packed data sets end in, lower case."""

_DEPTH = 4  # folders below the source; DOTA's labels lie deepest: train/labelTxt-v1.5/DOTA-v1.5_train


@dataclass
class Folder:
    """What lies in one folder: the first names, sorted, of each kind of file, and how many there are."""

    path: Path
    first: dict[str, list[str]] = field(default_factory=dict)
    count: dict[str, int] = field(default_factory=dict)


@dataclass
class Source:
    """A data set that is to be recognised: its folders, and what lies in each."""

    root: Path
    folders: list[Folder]

    @classmethod
    def of(cls, root: Path) -> Source:
        """Look into a folder and those below it.

        Raises:
            DS2D2Error: If one of them cannot be read.
        """
        return cls(root, list(_folders_in(root)))

    def having(self, kind: str) -> list[Folder]:
        """Folders in which files of a kind lie."""
        return [folder for folder in self.folders if folder.count.get(kind)]

    def below(self, path: Path) -> str:
        """Name a path relative to the source, as messages do."""
        return path.relative_to(self.root).as_posix()

    def words(self, path: Path) -> str:
        """Path below the source in lower case, of which parts are compared."""
        return f"/{self.below(path).lower()}"

    def by_role(self, folders: Iterable[Path]) -> dict[str | None, tuple[Path, ...]]:
        """Sort folders by the split that their names stand for; None where they stand for none."""
        found: dict[str | None, tuple[Path, ...]] = {}
        for path in folders:
            role = role_of(self.words(path))
            found[role] = (*found.get(role, ()), path)
        return found

    def summary(self) -> str:
        """Say in a few words what was found."""
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
                        continue  # leads back to where it lies
                    below.append(entry.name)
                elif entry.is_file():  # no pipe, which would never end
                    names.setdefault(_kind_of(entry.name), []).append(entry.name)
    except OSError as error:
        raise DS2D2Error(f"{folder}: this folder cannot be read ({error.strerror or error})") from error
    counts = {kind: len(found) for kind, found in sorted(names.items())}
    # Not the first ones alone: neighbours show the same scene, and only some of its classes.
    chosen = {kind: sorted(found)[:: max(1, len(found) // SAMPLE)][:SAMPLE] for kind, found in names.items()}
    yield Folder(folder, chosen, counts)
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
    """Whether a file has all of some words."""
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        wide = content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        encodings = ("utf-16-le", "utf-16-be") if wide else ("utf-8",)
        return all(any(content.find(key.encode(encoding)) >= 0 for encoding in encodings) for key in keys)


_ROLES = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
_ROLE = re.compile(r"(?<![a-z])(trainval|train(?:ing)?|val(?:id(?:ation)?)?|test(?:ing)?)(?![a-z])")


def role_of(words: str) -> str | None:
    """Which split a name stands for.

    Example:
        >>> role_of("instances_train2017"), role_of("JPEGImages-trainval"), role_of("valid/a"), role_of("labelTxt")
        ('train', 'trainval', 'val', None)
    """
    roles = _ROLE.findall(words.lower())
    return _ROLES.get(roles[-1], roles[-1]) if roles else None
