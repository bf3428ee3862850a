"""Recognises data sets of DOTA's text files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from ds2d2_yolo.data.classes import DOTA_ADDED_CLASSES, DOTA_CLASSES
from ds2d2_yolo.data.formats.dota import HEADERS, OWN, DOTAReader
from ds2d2_yolo.data.formats.rules import Part, file_names
from ds2d2_yolo.data.layouts.layout import Layout
from ds2d2_yolo.data.layouts.source import SAMPLE, Folder, Source, head_of, role_of
from ds2d2_yolo.data.layouts.splits import (
    SPLITS,
    Names,
    assign_splits,
    is_scored,
    lists_of,
    only_labelled,
    parts_by_folder,
    with_published,
)
from ds2d2_yolo.errors import DS2D2Error


def dota_folders(source: Source) -> list[Path]:
    """Return the folders of DOTA's label files."""
    found = [folder.path for folder in source.having("txt") if _has_labels(folder)]
    # A folder with only empty or malformed files is recognised by its place beside the others.
    shapes = {_without_role(source.words(path)) for path in found}
    found = [folder.path for folder in source.having("txt") if _without_role(source.words(folder.path)) in shapes]
    return [path for path in found if not _is_task2(source, path)] or found


def _has_labels(folder: Folder) -> bool:
    """Whether a folder has a label file of DOTA. In a sparse data set, most files have no objects."""
    names: Iterable[str] = folder.first["txt"]
    if folder.count["txt"] > len(folder.first["txt"]):
        names = (*names, *sorted(name for name in file_names(folder.path) if name.lower().endswith(".txt")))
    others = 0
    for path in (folder.path / name for name in names):
        head = head_of(path, 4096) if path.stat().st_size else ""
        if _is_dota(head):
            return True
        others += any(line.strip() and not line.lower().startswith(HEADERS) for line in head.splitlines())
        if others == SAMPLE:
            break
    return False


def _is_task2(source: Source, path: Path) -> bool:
    """Whether labels are those of Task 2: hulls of the oriented boxes, in the same format beside them."""
    return re.search(r"hbb|reclabel|task[-_ ]?2", source.words(path)) is not None


def dota_layout(source: Source, folders: Sequence[Path], splits: str, version: str | None, notes: list[str]) -> Layout:
    """Return the layout of a data set of DOTA's label files.

    Args:
        source (Source): The data set.
        folders (Sequence[Path]): Its label files.
        splits (str): The user's `splits=`.
        version (str | None): `1.0`, `1.5`, `2.0` or `own`. None: by names of folders, headers and classes.
        notes (list[str]): Notes for the user; new ones are appended.

    Raises:
        DS2D2Error: If labels, images or requested splits are missing.
    """
    _check_choice(source, folders, version)
    labels = _of_one_version(source, folders, version)
    notes += [
        f"{source.below(folder.path)} is not read: its boxes (Task 2) are the hulls of the oriented ones"
        for folder in source.having("txt")
        if _is_task2(source, folder.path) and folder.path not in labels
    ]
    if version is None:
        version, why = _version_of(source, labels)
        called = "with its own classes" if version == OWN else f"version {version}"
        other = "1.0" if version == OWN else ""
        notes.append(f"read as DOTA {called} because of {why}; version={other} chooses another")
    parts = _parts(source, labels, "labels" if version == OWN else "both", notes)
    _check_images(source, parts)
    roles = {split: role_of(split) for split in (*SPLITS, *parts) if split in parts}
    assigned = assign_splits(roles, splits, source.root, is_scored(parts))
    by_split = {split: [parts[name] for name in names] for split, names in assigned.items()}
    used = (path for chosen in by_split.values() for part in chosen for path in part.paths)
    reader = partial(DOTAReader, by_split, root=source.root, version=version)
    name = "DOTA with its own classes" if version == OWN else f"DOTA v{version}"
    return Layout(name, assigned, tuple(dict.fromkeys(used)), reader, tuple(notes))


def _check_choice(source: Source, folders: Sequence[Path], version: str | None) -> None:
    if not folders:
        raise DS2D2Error(
            f"src={source.root}: has no labels of DOTA (*.txt with x1 y1 ... x4 y4 class difficulty), "
            f"found {source.summary()}"
        )
    if version is not None and version not in (*DOTA_ADDED_CLASSES, OWN):
        raise DS2D2Error(
            f"version={version}: no such version of DOTA, choose {', '.join((*DOTA_ADDED_CLASSES, OWN))}", 2
        )


def _parts(source: Source, labels: Sequence[Path], names: Names, notes: list[str]) -> dict[str, Part]:
    """Return the splits of the source: from lists, else from folders."""
    images = [folder.path for folder in source.having("images")]
    lists = lists_of(source, apart=labels)
    parts = {split: Part(tuple(labels), tuple(images), path) for split, path in lists.items()}
    return with_published(parts or only_labelled(source, parts_by_folder(source, labels, images, names), notes), ".txt")


def _check_images(source: Source, parts: Mapping[str, Part]) -> None:
    for split, part in parts.items():
        if not part.images:
            raise DS2D2Error(
                f"src={source.root}: no images for the labels in {source.below(part.labels[0])}, "
                f"expected a folder such as {split}/images; found {source.summary()}"
            )


def _of_one_version(source: Source, folders: Sequence[Path], version: str | None) -> list[Path]:
    """Return the label folders of one version. Two folders of a split must not have the same file names."""
    stated = {path: _stated_version(source.words(path)) for path in folders}
    chosen = [path for path in folders if version is None or version not in stated.values() or stated[path] == version]
    for paths in source.by_role(chosen).values():
        names: dict[str, Path] = {}
        for path in paths:
            for name in file_names(path):
                if (other := names.setdefault(name, path)) != path:
                    versions = sorted({str(stated[path]), str(stated[other])} - {"None"})
                    ways = [f"choose by version={version}" for version in versions[: 2 * (len(versions) > 1)]]
                    raise DS2D2Error(
                        f"{source.root}: {source.below(other)} and {source.below(path)} both have labels of {name}, "
                        f"{' or '.join(ways) or f'move {path} out of it'}"
                    )
    return chosen


def _without_role(words: str) -> str:
    return re.sub(r"(?<![a-z])(train|val|test)(?![a-z])", "", words)


def _is_dota(head: str) -> bool:
    """Whether a label file has a line of DOTA. The reader reports other lines."""
    number = r"[+-]?[\d.]+(?:e[+-]?\d+)?"
    line = re.compile(rf"\s*(?:{number}\s+){{8}}(?=.*[^\s\d.e+-])\S", re.IGNORECASE)
    return any(line.match(text) for text in head.splitlines()[:40])


def _stated_version(words: str) -> str | None:
    stated = re.findall(r"(?<![\d.])v?([12]\.[05])(?![\d.])", words)
    return stated[-1] if stated and stated[-1] in DOTA_ADDED_CLASSES else None


def _version_of(source: Source, folders: Sequence[Path]) -> tuple[str, str]:
    """Return the version of labels, and the reason: names of folders, or else the first version with all classes."""
    stated = {_stated_version(source.words(path)) for path in folders} - {None}
    if len(stated) == 1:
        version = str(stated.pop())
        return version, f"the name of {source.below(folders[0])}"
    occurring, from_dota = _occurring(folders)
    known = {name for version in DOTA_ADDED_CLASSES.values() for name in version} | set(DOTA_CLASSES)
    distinctive = sorted(name for name in occurring if name in known and "-" in name)
    why = "the header lines imagesource and gsd" if from_dota else f"classes such as {' and '.join(distinctive[:2])}"
    # A few unknown classes are mistakes in lines, which the reader reports.
    unknown = sum(number for name, number in occurring.items() if name not in known)
    if (not from_dota and len(distinctive) < 2) or unknown * 10 > sum(occurring.values()):
        listed = ", ".join(sorted(occurring)[:3]) or "none"
        return OWN, f"the classes {listed}{', ...' if len(occurring) > 3 else ''}"
    added = set(occurring) & known - set(DOTA_CLASSES)
    return next(version for version, names in DOTA_ADDED_CLASSES.items() if added <= set(names)), why


def _occurring(folders: Sequence[Path]) -> tuple[Counter[str], bool]:
    """Return the number of objects of each class, and whether files begin with DOTA's header."""
    occurring: Counter[str] = Counter()
    headed = False
    paths = (folder / name for folder in folders for name in file_names(folder))  # no pipes: reading them never ends
    for path in (path for path in paths if path.suffix.lower() == ".txt"):
        try:
            text = path.read_bytes().decode("utf-8", "replace")
        except OSError:
            continue  # the reader reports it
        headed |= text.lstrip("\ufeff").lower().startswith(HEADERS)
        occurring.update(fields[8] for fields in map(str.split, text.splitlines()) if len(fields) > 8)
    return occurring, headed
