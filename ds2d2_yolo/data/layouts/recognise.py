"""Recognises the layout of a folder: DIOR, DIOR-R, DOTA, COCO JSON or plain PASCAL VOC."""

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
"""Values of `layout=`."""

_EXPECTED = (
    "expected DIOR (Annotations/Horizontal Bounding Boxes/*.xml), DOTA (train/images, train/labelTxt/*.txt), "
    "COCO (trainval.json beside folders of images) or VOC (Annotations/*.xml, JPEGImages)"
)


def recognise(
    src: Path, task: str = "detect", splits: str = "paper", layout: str | None = None, version: str | None = None
) -> Layout:
    """Recognise the layout of a folder.

    The first annotations in the files decide, not the names of folders. DIOR and DOTA have priority over COCO JSON:
    such files beside them are made from them.

    Args:
        src (Path): The folder.
        task (str): `detect` or `obb`. For DIOR it chooses the horizontal or the oriented annotations.
        splits (str): `paper`, `train-val-test`, or a mapping from splits of the result to splits of the source, such as
            `train:train+val,val:test`.
        layout (str | None): One of `LAYOUTS`; None recognises it.
        version (str | None): DOTA's `1.0`, `1.5` or `2.0`. None: by names of folders, or by the classes.

    Returns:
        (Layout): The layout.

    Raises:
        DS2D2Error: If the folder has no layout or several, or if requested splits or annotations are missing.

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
        notes = [f"read as {wanted}, as layout= states"]
    else:
        name = _only_one(source, evidence)
        wanted = name.lower()
        notes = [f"read as {name} because of {evidence[name][0]}; layout= chooses another"]
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
    """Return the evidence for each layout."""
    evidence = {
        "DIOR": [folder.dior for folder in xml if folder.dior],
        "DOTA": [f"{source.below(path)}/*.txt with eight numbers and a class per line" for path in dota],
        "COCO": [f"{source.below(path)} with images, annotations and categories" for path in coco],
        "VOC": [f"{source.below(folder.path)}/*.xml" for folder in xml if not folder.dior],
    }
    if evidence["DIOR"] and all(folder.classes <= set(DIOR_CLASSES) for folder in xml):
        evidence["VOC"] = []  # DIOR's folders whose first files have few classes
    return evidence


def _only_one(source: Source, evidence: Mapping[str, Sequence[str]]) -> str:
    """Return the only layout with evidence."""
    names = [name for name, found in evidence.items() if found]
    if len(names) == 2 and names[1] == "COCO":
        names.pop()  # the JSON was made from the files beside it
    if not names:
        advice = advice_for(source) or _EXPECTED
        raise DS2D2Error(f"src={source.root}: no known layout, found {source.summary()}; {advice}")
    if len(names) > 1:
        raise DS2D2Error(
            f"src={source.root}: has the layouts of {' and '.join(names)}, choose one with layout=, such as "
            f"layout={names[0].lower()}, or pass a folder of one"
        )
    return names[0]
