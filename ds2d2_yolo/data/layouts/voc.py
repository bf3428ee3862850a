"""Recognises data sets of XML files: PASCAL VOC, DIOR and DIOR-R."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ds2d2_yolo.data.annotations import Account, Reader
from ds2d2_yolo.data.classes import DIOR_CLASSES
from ds2d2_yolo.data.formats.rules import Part
from ds2d2_yolo.data.formats.voc import VOCReader
from ds2d2_yolo.data.layouts.layout import Layout
from ds2d2_yolo.data.layouts.source import Folder, Source, head_of, role_of
from ds2d2_yolo.data.layouts.splits import (
    assign_splits,
    is_scored,
    lists_of,
    only_labelled,
    parts_by_folder,
    with_published,
)
from ds2d2_yolo.errors import DS2D2Error

_DISTINCTIVE = {
    *("Expressway-Service-area", "Expressway-toll-station", "baseballfield", "basketballcourt", "golffield"),
    *("groundtrackfield", "storagetank", "tenniscourt", "trainstation"),
}  # other data sets spell these classes differently


@dataclass
class XMLFolder:
    """A folder of XML annotations.

    Attributes:
        path (Path): The folder.
        oriented (bool): Whether their boxes are oriented.
        dior (str): Evidence for DIOR that other data sets do not have; empty without any.
        classes (set[str]): Classes of the first annotations.
    """

    path: Path
    oriented: bool
    dior: str
    classes: set[str]


def xml_folders(source: Source) -> list[XMLFolder]:
    """Return the folders of XML annotations."""
    found = []
    for folder in source.having("xml"):
        heads = [head_of(folder.path / name) for name in folder.first["xml"]]
        heads = [head for head in heads if re.search(r"<annotation[\s>]", head)]
        if heads:
            names = set(re.findall(r"<name>\s*([^<]*?)\s*</name>", "".join(heads)))
            oriented = any("<robndbox>" in head for head in heads)
            found.append(XMLFolder(folder.path, oriented, _evidence_of_dior(source, folder, names), names))
    return found


def _evidence_of_dior(source: Source, folder: Folder, names: set[str]) -> str:
    """Return evidence that only DIOR has: folders, its spelling of classes, numbers with five digits."""
    if re.search(r"(horizontal|oriented) bounding boxes", source.words(folder.path)):
        return f"the folder {folder.path.name}"
    if not names or not names <= set(DIOR_CLASSES):
        return ""
    for images in source.having("images"):
        if re.search(r"/jpegimages-(trainval|test)(/|$)", source.words(images.path)):
            return f"the folder {source.below(images.path)}, and class names that only DIOR has"
    distinctive = sorted(names & _DISTINCTIVE)
    if len(distinctive) > 1:
        return f"class names that only DIOR has, such as {' and '.join(distinctive[:2])}"
    numbered = all(re.fullmatch(r"\d{5}\.xml", name, re.IGNORECASE) for name in folder.first["xml"])
    found = f"images numbered with five digits, and class names that only DIOR has, such as {''.join(distinctive)}"
    return found if numbered and distinctive and len(names) > 2 else ""


def voc_layout(
    source: Source, folders: Sequence[XMLFolder], wanted: str, task: str, splits: str, notes: list[str]
) -> Layout:
    """Return the layout of a data set of XML annotations.

    Args:
        source (Source): The data set.
        folders (Sequence[XMLFolder]): Its annotations.
        wanted (str): `dior`, `dior-r` or `voc`.
        task (str): `detect` or `obb`.
        splits (str): The user's `splits=`.
        notes (list[str]): Notes for the user; new ones are appended.

    Raises:
        DS2D2Error: If annotations or requested splits are missing.
    """
    corners = wanted == "dior-r" or task == "obb"
    chosen = _annotations(source, folders, corners)
    oriented = any(folder.oriented for folder in chosen)
    name, classes, first_pixel = "VOC", None, 1
    if wanted != "voc":
        name, classes, first_pixel = "DIOR-R" if oriented else "DIOR", DIOR_CLASSES, 0
    if oriented and task == "detect":
        notes.append("oriented annotations, converted to their hulls")
    labels, images = tuple(folder.path for folder in chosen), tuple(_image_folders(source))
    lists = lists_of(source)
    parts = {split: Part(labels, images, path) for split, path in lists.items()}
    parts = with_published(parts or _parts(source, labels, images, notes), ".xml")
    roles = {split: role_of(split) for split in parts}
    assigned = assign_splits(roles, splits, source.root, is_scored(parts), unite=bool(lists))
    by_split = {split: [parts[name] for name in names] for split, names in assigned.items()}

    def open_reader(account: Account) -> Reader:
        return VOCReader(by_split, account, source.root, classes, corners, first_pixel=first_pixel)

    inputs = dict.fromkeys(path for chosen in by_split.values() for part in chosen for path in part.paths)
    return Layout(name, assigned, tuple(inputs), open_reader, tuple(notes))


def _parts(source: Source, labels: Sequence[Path], images: Sequence[Path], notes: list[str]) -> dict[str, Part]:
    """Return the splits by folders, without lists."""
    parts = only_labelled(source, parts_by_folder(source, labels, images, "labels"), notes)
    alone = " and no folders of splits: all images become the split train" if set(parts) == {"train"} else ""
    notes.append(f"no ImageSets/Main/*.txt{alone or ': folders make up the splits'}")
    return parts


def _annotations(source: Source, folders: Sequence[XMLFolder], oriented: bool) -> list[XMLFolder]:
    """Return the folders of horizontal annotations or, for splits that have them, of oriented ones."""
    if not folders or (oriented and not any(folder.oriented for folder in folders)):
        kind = "robndbox; task=detect takes those with bndbox" if oriented else "bndbox"
        raise DS2D2Error(
            f"src={source.root}: has no {'oriented' if oriented else 'horizontal'} annotations (*.xml with {kind}), "
            f"found {source.summary()}"
        )
    chosen: list[XMLFolder] = []
    for paths in source.by_role(folder.path for folder in folders).values():
        of_role = [folder for folder in folders if folder.path in paths]
        chosen += [folder for folder in of_role if folder.oriented == oriented] or of_role
    return chosen


def _image_folders(source: Source) -> list[Path]:
    """Return the folders of the images, without VOC's masks, which have the same names."""
    folders = [folder.path for folder in source.having("images")]
    for pattern in (r"/jpegimages[^/]*", r"/(images?|imgs?)(?![a-z])[^/]*"):
        named_so = [path for path in folders if re.search(pattern, source.words(path))]
        if named_so:
            return named_so
    return folders
