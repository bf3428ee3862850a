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

_LABEL_FOLDERS = {"annotations", "Annotations", "annotation", "labels", "json"}  # masks may be in them, too


def coco_files(source: Source) -> list[Path]:
    """Return the files that begin like COCO JSON, or have its lists further down."""
    pattern = re.compile(r'\s*\{\s*"(info|licenses|images|annotations|categories|type)"\s*:')
    found = []
    for folder in source.having("json"):
        for path in (folder.path / name for name in folder.first["json"]):
            head = head_of(path, 4096)
            begins = pattern.match(head) and has_words(path, '"images"')  # not the notes.json beside YOLO labels
            other = not head.lstrip().startswith("{") or '"shapes"' in head  # labelme has one for each image
            if begins or (not other and has_words(path, '"images"', '"categories"')):
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
    scored = any(roles[name] == "test" and has_words(named[name], '"image_id"') for name in candidates)
    assigned = assign_splits({name: roles[name] for name in candidates}, splits, source.root, scored)
    parts = {split: [_part_of(named[name], source, notes) for name in names] for split, names in assigned.items()}
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


def _part_of(path: Path, source: Source, notes: list[str]) -> Part:
    """Return a JSON file with the folder of its images, and the folders that have other images of the same names."""
    names = _first_file_names(path)
    present = {
        folder.path: {name for name in names if os.path.isfile(folder.path / name)}  # noqa: PTH113 - `is_file` raises for names that are too long
        for folder in source.folders
    }
    role = role_of(source.words(path))
    roles = {folder: role_of(source.words(folder)) for folder in present}
    own = _folder_of(path, source, roles, present)
    if role and roles[own] and not _overlap(role, roles[own]):
        notes.append(f"{source.below(path)}: its images are in {source.below(own)}, by its name of another split")
    apart = [
        folder
        for folder, other in roles.items()
        if not own.is_relative_to(folder)
        and not folder.samefile(own)  # one of them is a link
        and (present[folder] & present[own] or (role and other and not _overlap(role, other)))
    ]
    return Part((path,), (own,), apart=tuple(apart))


def _folder_of(path: Path, source: Source, roles: Mapping[Path, str | None], present: Mapping[Path, set[str]]) -> Path:
    """Return the folder of the images of a JSON file.

    Splits often have images of the same names. So the words of the paths decide first: the split, the folders above,
    the name of the file. Then a folder called images is preferred to one of masks. The number of images is the last.

    Args:
        path (Path): The JSON file.
        source (Source): The data set.
        roles (Mapping[Path, str | None]): Split that the name of each folder states.
        present (Mapping[Path, set[str]]): Which of the first images each folder has.

    Raises:
        DS2D2Error: If two folders are equally good and have different images of one name.
    """
    role = role_of(source.words(path))
    filled = {folder.path for folder in source.having("images")}
    above = set(path.parent.relative_to(source.root).parts) - _LABEL_FOLDERS

    def suits(folder: Path) -> int:
        """Return 3 for the same split, 2 for none, 1 for the same split without these images, 0 for another split."""
        same = role is not None and roles[folder] == role
        if not present[folder]:
            return 1 if same and folder in filled else -1
        return 3 if same else 2 * _overlap(role, roles[folder])

    def rank(folder: Path) -> tuple[int, ...]:
        parts = folder.relative_to(source.root).parts
        word = rf"(?<![^\W_]){re.escape(folder.name.lower())}(?![^\W_])"
        called = bool(parts) and re.search(word, path.stem.lower()) is not None
        images = re.search(r"/(jpegimages|images?|imgs?)(?![a-z])", source.words(folder)) is not None
        return suits(folder), len(above & set(parts)), called, images, folder == path.parent, len(present[folder])

    best = max(map(rank, roles))
    equal = [folder for folder in roles if rank(folder) == best]
    for name in sorted(set().union(*(present[folder] for folder in equal))):
        having = {os.path.realpath(folder / name): folder for folder in equal if name in present[folder]}
        if len(having) > 1:
            shown = " and ".join(map(source.below, having.values()))
            raise DS2D2Error(
                f"src={source.root}: {shown} both have {name}, which {source.below(path)} names; move one folder out "
                f"of {source.root}, or call the one that is meant {path.stem}"
            )
    return equal[0] if suits(equal[0]) >= 0 else source.root


def _overlap(role: str | None, other: str | None) -> bool:
    """Whether images of one split can be in the folder of another one: of the same, of none, or trainval."""
    return None in (role, other) or role == other or {role, other} in ({"train", "trainval"}, {"val", "trainval"})


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
