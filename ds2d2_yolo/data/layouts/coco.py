"""Data sets of COCO JSON files, recognised."""

from __future__ import annotations

import json
import mmap
import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ds2d2_yolo.data.formats.coco import COCOReader
from ds2d2_yolo.data.layouts.layout import Layout
from ds2d2_yolo.data.layouts.source import SAMPLE, Source, head_of, role_of
from ds2d2_yolo.data.layouts.splits import assign_splits
from ds2d2_yolo.errors import DS2D2Error


def coco_files(source: Source) -> list[Path]:
    """Return the files that begin as COCO JSON does."""
    pattern = re.compile(r'\s*\{\s*"(info|licenses|images|annotations|categories|type)"\s*:')
    return [
        path
        for folder in source.having("json")
        for path in (folder.path / name for name in folder.first["json"])
        if pattern.match(head_of(path, 4096).removeprefix("\ufeff"))
    ]


def coco_layout(source: Source, files: Sequence[Path], task: str, splits: str, notes: list[str]) -> Layout:
    """Return the layout of a data set of COCO JSON files.

    Args:
        source (Source): The data set.
        files (Sequence[Path]): Its JSON files.
        task (str): `detect` or `obb`.
        splits (str): What the user asked for.
        notes (list[str]): What the user should know; more is added.

    Raises:
        DS2D2Error: If it has not the files or the splits asked for.
    """
    if not files:
        raise DS2D2Error(f"src={source.root}: has no COCO JSON, found {source.summary()}")
    by_name = {path.stem: path for path in files}
    if len(by_name) < len(files):
        raise DS2D2Error(f"src={source.root}: has JSON files of the same name, pass the folder of one data set")
    assigned = assign_splits({name: role_of(name) for name in by_name}, splits, source.root, unite=False)
    folders = [folder.path for folder in source.folders]
    used = {split: by_name[names[0]] for split, names in assigned.items()}
    pairs = {split: (path, _folder_of(path, folders, source)) for split, path in used.items()}
    notes += [f"{path.name} is not read: in no split" for path in files if path not in used.values()]
    inputs = tuple(dict.fromkeys(path for pair in pairs.values() for path in pair))
    return Layout(
        "COCO", assigned, inputs, partial(COCOReader, pairs, root=source.root, oriented=task == "obb"), tuple(notes)
    )


def _folder_of(path: Path, folders: Sequence[Path], source: Source) -> Path:
    """The folder in which most of the first images of a JSON file lie; if none does, the one that bears its name."""
    names = _first_file_names(path)
    present = {
        folder: sum(os.path.isfile(folder / name) for name in names)  # noqa: PTH113 - `is_file` raises for names that are too long
        for folder in folders
    }
    role = role_of(path.stem)
    alike = {folder: role is not None and role_of(source.words(folder)) == role for folder in folders}
    best = max(folders, key=lambda folder: (present[folder], alike[folder]))
    return best if present[best] or alike[best] else source.root


def _first_file_names(path: Path) -> list[str]:
    names: list[str] = []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for found in re.finditer(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")', content):
            try:
                names.append(json.loads(found.group(1)))
            except ValueError:
                continue  # the reader reports it
            if len(names) == SAMPLE:
                break
    return names
