"""Recognises data sets of COCO JSON files."""

from __future__ import annotations

import json
import mmap
import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from ds2d2_yolo.data.formats.coco import COCOReader
from ds2d2_yolo.data.formats.rules import Part
from ds2d2_yolo.data.layouts.layout import Layout
from ds2d2_yolo.data.layouts.source import SAMPLE, Source, has_words, head_of, role_of
from ds2d2_yolo.data.layouts.splits import assign_splits
from ds2d2_yolo.errors import DS2D2Error


def coco_files(source: Source) -> list[Path]:
    """Return the files that begin like COCO JSON, or have its lists further down."""
    pattern = re.compile(r'\s*\{\s*"(info|licenses|images|annotations|categories|type)"\s*:')
    found = []
    for folder in source.having("json"):
        for path in (folder.path / name for name in folder.first["json"]):
            head = head_of(path, 4096)
            begins = pattern.match(head) and has_words(path, '"images"')  # not the notes.json beside YOLO labels
            if begins or (head.lstrip().startswith("{") and has_words(path, '"images"', '"categories"')):
                found.append(path)
    return found


def coco_layout(source: Source, files: Sequence[Path], task: str, splits: str, notes: list[str]) -> Layout:
    """Return the layout of a data set of COCO JSON files.

    Args:
        source (Source): The data set.
        files (Sequence[Path]): Its JSON files.
        task (str): `detect` or `obb`.
        splits (str): The user's `splits=`.
        notes (list[str]): Notes for the user; new ones are appended.

    Raises:
        DS2D2Error: If files or requested splits are missing.
    """
    if not files:
        raise DS2D2Error(f"src={source.root}: has no COCO JSON, found {source.summary()}")
    named = _names_of(source, files)
    roles = {name: role_of(source.words(path)) for name, path in named.items()}
    candidates = roles if ":" in splits else _instances(named, roles)
    assigned = assign_splits({name: roles[name] for name in candidates}, splits, source.root)
    folders = [folder.path for folder in source.folders]
    parts = {
        split: [Part((named[name],), (_folder_of(named[name], folders, source),)) for name in names]
        for split, names in assigned.items()
    }
    used = [part for chosen in parts.values() for part in chosen]
    read = {path for part in used for path in part.labels}
    notes += [f"{source.below(path)} is not read: in no split" for path in files if path not in read]
    inputs = tuple(dict.fromkeys(path for part in used for path in (*part.labels, *part.images)))
    return Layout(
        "COCO", assigned, inputs, partial(COCOReader, parts, root=source.root, oriented=task == "obb"), tuple(notes)
    )


def _names_of(source: Source, files: Sequence[Path]) -> dict[str, Path]:
    """Return the files by their names in `splits=`: file name, else folder (Roboflow uses one file name), else both."""
    for call in (
        lambda path: path.stem,
        lambda path: path.parent.name,
        lambda path: source.below(path.with_suffix("")),
    ):
        named = {call(path): path for path in files}
        if len(named) == len(files):
            break
    return named


def _instances(named: Mapping[str, Path], roles: Mapping[str, str | None]) -> list[str]:
    """Return the files with boxes of each split, without COCO's other files (captions, keypoints, ...)."""
    chosen: list[str] = []
    for role in dict.fromkeys(roles.values()):
        names = [name for name in named if roles[name] == role]
        boxes = [name for name in names if name.startswith("instances")]
        boxes = boxes or [name for name in names if has_words(named[name], '"categories"')]
        chosen += boxes or names
    return chosen


def _folder_of(path: Path, folders: Sequence[Path], source: Source) -> Path:
    """Return the folder with most of the first images of a JSON file. Without any, the folder of the same split."""
    names = _first_file_names(path)
    present = {
        folder: sum(os.path.isfile(folder / name) for name in names)  # noqa: PTH113 - `is_file` raises for names that are too long
        for folder in folders
    }
    role = role_of(source.words(path))
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
