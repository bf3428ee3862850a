"""Data sets of DOTA's text files, recognised."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from ds2d2_yolo.data.classes import DOTA_ADDED_CLASSES
from ds2d2_yolo.data.formats.dota import DOTAReader
from ds2d2_yolo.data.layouts.layout import Layout
from ds2d2_yolo.data.layouts.source import Source, head_of, role_of
from ds2d2_yolo.data.layouts.splits import SPLITS, assign_splits
from ds2d2_yolo.errors import DS2D2Error


def dota_folders(source: Source) -> list[Path]:
    """Return the folders of DOTA's label files."""
    found = [
        folder.path
        for folder in source.having("txt")
        if any(_is_dota(head_of(folder.path / name, 4096)) for name in folder.first["txt"])
    ]
    # A folder of which all images are empty, or all files are malformed, lies as the others do.
    shapes = {_without_role(source.words(path)) for path in found}
    found = [folder.path for folder in source.having("txt") if _without_role(source.words(folder.path)) in shapes]
    return [path for path in found if not _is_task2(source, path)] or found


def _is_task2(source: Source, path: Path) -> bool:
    """Whether labels are those of Task 2: hulls of the oriented boxes, which lie beside these in the same format."""
    return re.search(r"hbb|reclabel|task[-_ ]?2", source.words(path)) is not None


def dota_layout(source: Source, folders: Sequence[Path], splits: str, version: str | None, notes: list[str]) -> Layout:
    """Return the layout of a data set of DOTA's label files.

    Args:
        source (Source): The data set.
        folders (Sequence[Path]): Its label files.
        splits (str): What the user asked for.
        version (str | None): `1.0`, `1.5` or `2.0`. None: by names of folders, or by the classes that occur.
        notes (list[str]): What the user should know; more is added.

    Raises:
        DS2D2Error: If it has not the labels, the images or the splits asked for.
    """
    if not folders:
        raise DS2D2Error(
            f"src={source.root}: has no labels of DOTA (*.txt with x1 y1 ... x4 y4 class difficulty), "
            f"found {source.summary()}"
        )
    if version is not None and version not in DOTA_ADDED_CLASSES:
        raise DS2D2Error(f"version={version}: no such version of DOTA, choose {', '.join(DOTA_ADDED_CLASSES)}", 2)
    labels = _labels_by_split(source, folders, version)
    notes += [
        f"{source.below(folder.path)} is not read: the boxes of Task 2 are the hulls of those that are"
        for folder in source.having("txt")
        if _is_task2(source, folder.path) and folder.path not in labels.values()
    ]
    if version is None:
        stated = {_stated_version(source.words(path)) for path in labels.values()} - {None}
        version = stated.pop() if len(stated) == 1 else _occurring_version(list(labels.values()))
        notes.append(f"taken for version {version}, version= says otherwise")
    images = _images_by_split(source, labels, notes)
    roles: dict[str, str | None] = {split: split for split in (*SPLITS, *labels) if split in images}
    assigned = assign_splits(roles, splits, source.root, unite=False, scored=False)
    pairs = {split: (images[names[0]], labels.get(names[0])) for split, names in assigned.items()}
    inputs = tuple(path for pair in pairs.values() for path in pair if path is not None)
    reader = partial(DOTAReader, pairs, root=source.root, version=str(version))
    return Layout(f"DOTA v{version}", assigned, inputs, reader, tuple(notes))


def _labels_by_split(source: Source, folders: Sequence[Path], version: str | None) -> dict[str, Path]:
    stated = {path: _stated_version(source.words(path)) for path in folders}
    if version is not None and version in stated.values():
        folders = [path for path in folders if stated[path] == version]
    labels: dict[str, Path] = {}
    for path in folders:
        split = role_of(source.words(path)) or "train"
        if split in labels:
            shown = f"{source.below(labels[split])} and {source.below(path)}"
            raise DS2D2Error(
                f"src={source.root}: labels of {split} in {shown}, say which with version=, or pass one data set"
            )
        labels[split] = path
    return labels


def _without_role(words: str) -> str:
    return re.sub(r"(?<![a-z])(train|val|test)(?![a-z])", "", words)


def _is_dota(head: str) -> bool:
    lines = (line for line in head.splitlines() if line.strip() and not line.lower().startswith(("imagesource", "gsd")))
    number = r"[+-]?[\d.]+(?:e[+-]?\d+)?"
    return re.match(rf"\s*(?:{number}\s+){{8}}[a-z][\w-]*(\s+\d+)?\s*$", next(lines, ""), re.IGNORECASE) is not None


def _stated_version(words: str) -> str | None:
    stated = re.findall(r"(?<![\d.])v?([12]\.[05])(?![\d.])", words)
    return stated[-1] if stated and stated[-1] in DOTA_ADDED_CLASSES else None


def _occurring_version(folders: Sequence[Path]) -> str:
    """The first version that has all classes which occur."""
    added = {name for names in DOTA_ADDED_CLASSES.values() for name in names}
    pattern = re.compile(rf"\s({'|'.join(map(re.escape, sorted(added)))})(?:\s|$)".encode())
    occurring: set[str] = set()
    for folder in folders:
        for path in folder.glob("*.txt"):
            try:
                occurring.update(name.decode() for name in pattern.findall(path.read_bytes()))
            except OSError:
                continue  # the reader reports it
    return next(version for version, names in DOTA_ADDED_CLASSES.items() if occurring <= set(names))


def _images_by_split(source: Source, labels: Mapping[str, Path], notes: list[str]) -> dict[str, Path]:
    """Folders of the images by split; with labels or, of test, without."""
    images: dict[str, Path] = {}
    for folder in source.having("images"):
        split = role_of(source.words(folder.path)) or "train"
        if split not in labels and split != "test":
            where = source.below(folder.path)
            notes.append(f"{where} with {folder.count['images']} image(s) is not read: no labels")
            continue
        if split in images:
            shown = " and ".join(source.below(path) for path in (images[split], folder.path))
            raise DS2D2Error(
                f"src={source.root}: images of {split} in {shown}, put those of a split into one folder (links will do)"
            )
        images[split] = folder.path
    missing = [split for split in labels if split not in images]
    if missing:
        raise DS2D2Error(
            f"src={source.root}: no images for the labels in {source.below(labels[missing[0]])}, "
            f"expected a folder such as {missing[0]}/images; found {source.summary()}"
        )
    return images
