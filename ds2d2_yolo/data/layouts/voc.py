"""Data sets of XML files, recognised: PASCAL VOC, DIOR and DIOR-R."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ds2d2_yolo.data.annotations import Account, Reader
from ds2d2_yolo.data.classes import DIOR_CLASSES
from ds2d2_yolo.data.formats.voc import VOCReader
from ds2d2_yolo.data.layouts.layout import Layout
from ds2d2_yolo.data.layouts.source import Folder, Source, head_of, role_of
from ds2d2_yolo.data.layouts.splits import Assignment, assign_splits
from ds2d2_yolo.errors import DS2D2Error

_DISTINCTIVE = {
    *("Expressway-Service-area", "Expressway-toll-station", "baseballfield", "basketballcourt", "golffield"),
    *("groundtrackfield", "storagetank", "tenniscourt", "trainstation"),
}  # classes that other data sets spell otherwise, if they have them


@dataclass
class XMLFolder:
    """A folder of XML annotations.

    Attributes:
        path (Path): The folder.
        oriented (bool): Whether their boxes are oriented.
        dior (str): What speaks for DIOR, which other data sets do not share; empty if nothing does.
    """

    path: Path
    oriented: bool
    dior: str


def xml_folders(source: Source) -> list[XMLFolder]:
    """Return the folders of XML annotations."""
    found = []
    for folder in source.having("xml"):
        heads = [head_of(folder.path / name) for name in folder.first["xml"]]
        heads = [head for head in heads if "<annotation" in head]
        if heads:
            names = set(re.findall(r"<name>\s*([^<]*?)\s*</name>", "".join(heads)))
            oriented = any("<robndbox>" in head for head in heads)
            found.append(XMLFolder(folder.path, oriented, _evidence_of_dior(source, folder, names)))
    return found


def _evidence_of_dior(source: Source, folder: Folder, names: set[str]) -> str:
    """Say what other data sets do not share with DIOR: folders, classes in its spelling, numbers of five digits."""
    if re.search(r"(horizontal|oriented) bounding boxes", source.words(folder.path)):
        return f"the folder {folder.path.name}"
    if not names or not names <= set(DIOR_CLASSES):
        return ""
    for images in source.having("images"):
        if re.search(r"/jpegimages-(trainval|test)(/|$)", source.words(images.path)):
            return f"the folder {source.below(images.path)}, and classes of DIOR alone"
    distinctive = sorted(names & _DISTINCTIVE)
    if len(distinctive) > 1:
        return f"classes of DIOR alone, such as {' and '.join(distinctive[:2])}"
    numbered = all(re.fullmatch(r"\d{5}\.xml", name, re.IGNORECASE) for name in folder.first["xml"])
    return "images numbered with five digits, and classes of DIOR alone" if numbered and len(names) > 2 else ""


def voc_layout(
    source: Source, folders: Sequence[XMLFolder], wanted: str, task: str, splits: str, notes: list[str]
) -> Layout:
    """Return the layout of a data set of XML annotations.

    Args:
        source (Source): The data set.
        folders (Sequence[XMLFolder]): Its annotations.
        wanted (str): `dior`, `dior-r` or `voc`.
        task (str): `detect` or `obb`.
        splits (str): What the user asked for.
        notes (list[str]): What the user should know; more is added.

    Raises:
        DS2D2Error: If it has not the annotations or the splits asked for.
    """
    chosen = _annotations(source, folders, oriented=wanted == "dior-r" or task == "obb")
    dior = wanted != "voc"
    assigned, lists = _lists_by_split(source, splits, notes)
    images = _image_folders(source)
    name = ("DIOR-R" if chosen.oriented else "DIOR") if dior else "VOC"
    if name == "DIOR-R" and task == "detect":
        notes.append("oriented annotations, of which the hulls are taken")

    def open_reader(account: Account) -> Reader:
        classes = DIOR_CLASSES if dior else None
        return VOCReader(
            *(chosen.path, images, lists, account, source.root, classes, chosen.oriented, name),
            first_pixel=0 if dior else 1,
        )

    inputs = (chosen.path, *images, *sorted({path for paths in lists.values() for path in paths}))
    return Layout(name, assigned, inputs, open_reader, tuple(notes))


def _annotations(source: Source, folders: Sequence[XMLFolder], oriented: bool) -> XMLFolder:
    """Return the folder of the horizontal or of the oriented annotations."""
    fitting = [folder for folder in folders if folder.oriented == oriented]
    if not fitting and not oriented and folders:
        fitting, oriented = list(folders), True  # the hulls of oriented boxes are horizontal ones
    kind = "oriented" if oriented else "horizontal"
    if not fitting:
        raise DS2D2Error(
            f"src={source.root}: has no {kind} annotations (*.xml with {'robndbox' if oriented else 'bndbox'}), "
            f"found {source.summary()}"
        )
    if len(fitting) > 1:
        shown = " and ".join(source.below(folder.path) for folder in fitting)
        raise DS2D2Error(f"src={source.root}: has {kind} annotations in {shown}, pass the folder of one data set")
    return fitting[0]


def _lists_by_split(source: Source, wish: str, notes: list[str]) -> tuple[Assignment, Mapping[str, Sequence[Path]]]:
    """Return which splits make up which of the result, and their lists; no list stands for all images."""
    lists = _lists(source)
    if lists:
        assigned = assign_splits({name: role_of(name) for name in lists}, wish, source.root, unite=True)
        return assigned, {split: [lists[name] for name in names] for split, names in assigned.items()}
    if ":" in wish:
        raise DS2D2Error(f"splits={wish}: {source.root} has no lists (ImageSets/Main/train.txt, ...)", 2)
    notes.append("no ImageSets/Main/*.txt: all images become the split train")
    return {"train": ("all",)}, {"train": []}


def _lists(source: Source) -> dict[str, Path]:
    """The lists of the splits by name; those for detection where there are others, too."""
    folders = [
        folder.path
        for folder in source.having("txt")
        if any((folder.path / f"{name}.txt").is_file() for name in ("train", "val", "test", "trainval"))
    ]
    folders = [path for path in folders if path.name.lower() == "main"] or folders
    if len(folders) > 1:
        shown = " and ".join(source.below(path) for path in folders)
        raise DS2D2Error(f"src={source.root}: lists of splits in {shown}, pass the folder of one data set")
    names = ("train", "val", "trainval", "test")
    return {name: folder / f"{name}.txt" for folder in folders for name in names if (folder / f"{name}.txt").is_file()}


def _image_folders(source: Source) -> list[Path]:
    """Folders of the images; not those of VOC's masks, which bear the same names."""
    folders = [folder.path for folder in source.having("images")]
    for pattern in (r"/jpegimages[^/]*", r"/(images?|imgs?)(?![a-z])[^/]*"):
        named_so = [path for path in folders if re.search(pattern, source.words(path))]
        if named_so:
            return named_so
    return folders
