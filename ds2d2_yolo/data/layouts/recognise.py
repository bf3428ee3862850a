"""Which layout a folder has, found by looking: DIOR, DIOR-R, DOTA, COCO JSON or plain PASCAL VOC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ds2d2_yolo.data.classes import DIOR_CLASSES
from ds2d2_yolo.data.layouts.advice import advice_for
from ds2d2_yolo.data.layouts.coco import coco_files, coco_layout
from ds2d2_yolo.data.layouts.dota import dota_folders, dota_layout
from ds2d2_yolo.data.layouts.layout import Layout
from ds2d2_yolo.data.layouts.source import ARCHIVES, Source
from ds2d2_yolo.data.layouts.voc import XMLFolder, voc_layout, xml_folders
from ds2d2_yolo.errors import DS2D2Error

LAYOUTS: tuple[str, ...] = ("dior", "dior-r", "dota", "coco", "voc")
"""What `layout=` takes."""

_EXPECTED = (
    "expected DIOR (Annotations/Horizontal Bounding Boxes/*.xml, ImageSets/Main/*.txt, JPEGImages-trainval), "
    "DOTA (train/images, train/labelTxt/*.txt, or images, labelTxt), "
    "COCO (trainval.json, test.json beside folders of images, or _annotations.coco.json in train, valid, test), "
    "or VOC (Annotations/*.xml, ImageSets/Main/*.txt, JPEGImages, or XML beside images)"
)


def recognise(
    src: Path, task: str = "detect", splits: str = "paper", layout: str | None = None, version: str | None = None
) -> Layout:
    """Find out which layout a folder has.

    What its files hold counts, not what the folders are called: the first annotations are looked into. DIOR and DOTA
    come before COCO JSON, as files of that form beside them are made from them.

    Args:
        src (Path): The folder.
        task (str): `detect` or `obb`; of DIOR's annotations it chooses the horizontal or the oriented ones.
        splits (str): `paper`, `train-val-test`, or which splits of the source make up which of the result, such as
            `train:train+val,val:test`.
        layout (str | None): One of `LAYOUTS`, if it is not to be recognised.
        version (str | None): `1.0`, `1.5` or `2.0` of DOTA. None: by names of folders, or by the classes that occur.

    Returns:
        (Layout): What was found.

    Raises:
        DS2D2Error: If the folder has none of the layouts, or several, or not the splits or the annotations asked for.

    Example:
        >>> recognise(Path("DIOR")).name  # doctest: +SKIP
        'DIOR'
    """
    if layout is not None and layout.lower() not in LAYOUTS:
        raise DS2D2Error(f"layout={layout}: no such layout, choose {', '.join(LAYOUTS)}", 2)
    if not src.is_dir():
        advice = f"pass the folder of images and labels, such as src={src.parent}"
        if not src.is_file() or src.suffix.lower() in ARCHIVES:
            advice = "unpack it and pass the folder" if src.is_file() else "pass the folder of the unpacked data set"
        raise DS2D2Error(f"src={src}: no such folder, {advice}")
    source = Source.of(src)
    xml, dota, coco = xml_folders(source), dota_folders(source), coco_files(source)
    evidence = _evidence(source, xml, dota, coco)
    if layout:
        wanted = layout.lower()
        notes = [f"taken for {wanted}, as layout= says"]
    else:
        name = _only_one(source, evidence)
        wanted = name.lower()
        notes = [f"taken for {name}, layout= says otherwise; found {evidence[name][0]}"]
    if coco and wanted != "coco":
        notes.append(f"{coco[0].name} is not read: layout=coco converts COCO JSON")
    if version is not None and wanted != "dota":
        raise DS2D2Error(f"version={version}: only DOTA has versions, leave it out", 2)
    if wanted == "dota":
        return dota_layout(source, dota, splits, version, notes)
    if wanted == "coco":
        return coco_layout(source, coco, task, splits, notes)
    return voc_layout(source, xml, wanted, task, splits, notes)


def _evidence(
    source: Source, xml: Sequence[XMLFolder], dota: Sequence[Path], coco: Sequence[Path]
) -> dict[str, list[str]]:
    """Say what speaks for each layout."""
    evidence = {
        "DIOR": [folder.dior for folder in xml if folder.dior],
        "DOTA": [f"{source.below(path)}/*.txt with eight numbers and a class in a line" for path in dota],
        "COCO": [f"{source.below(path)} with images, annotations and categories" for path in coco],
        "VOC": [f"{source.below(folder.path)}/*.xml" for folder in xml if not folder.dior],
    }
    if evidence["DIOR"] and all(folder.classes <= set(DIOR_CLASSES) for folder in xml):
        evidence["VOC"] = []  # folders of a split with a few classes
    return evidence


def _only_one(source: Source, evidence: Mapping[str, Sequence[str]]) -> str:
    """Return the layout of which something was found."""
    names = [name for name, found in evidence.items() if found]
    if len(names) == 2 and names[1] == "COCO":
        names.pop()  # made from what lies beside it
    if not names:
        advice = advice_for(source) or _EXPECTED
        raise DS2D2Error(f"src={source.root}: no known layout, found {source.summary()}; {advice}")
    if len(names) > 1:
        raise DS2D2Error(
            f"src={source.root}: has the layouts of {' and '.join(names)}, say which with layout=, such as "
            f"layout={names[0].lower()}, or pass a folder of one"
        )
    return names[0]
