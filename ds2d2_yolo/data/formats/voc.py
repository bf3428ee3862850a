"""PASCAL VOC, DIOR and roLabelImg: one XML file per image."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from ds2d2_yolo.data.annotations import Account, Annotation
from ds2d2_yolo.data.formats.per_image import LabelFile, PerImageReader
from ds2d2_yolo.data.formats.rules import (
    MalformedError,
    Part,
    as_class,
    as_integer,
    as_number,
    as_size,
    decode,
    hull_of,
    rotated,
    shortened,
)

_BOX = ("xmin", "ymin", "xmax", "ymax")
_CENTRE = ("cx", "cy", "w", "h", "angle")
_CORNERS = tuple(
    f"{axis}_{place}" for place in ("left_top", "right_top", "right_bottom", "left_bottom") for axis in "xy"
)


class VOCReader(PerImageReader[ElementTree.Element]):
    """Reads PASCAL VOC, DIOR and the files of roLabelImg.

    An object is a `bndbox`, a `robndbox` or a `polygon`. A `robndbox` has four corners (DIOR-R), or centre, size and
    angle (roLabelImg). If an object has several, the task decides: corners or the box. If it has only one, this is
    converted: corners to their hull, or a box to its corners.

    Args:
        splits (Mapping[str, Sequence[Part]]): The parts of every split of the result.
        account (Account): Counts what is found and what cannot be read.
        root (Path): Folder of the data set; messages name files relative to it.
        class_names (Sequence[str] | None): The classes. None: all that occur, sorted.
        oriented (bool): Whether to return corners instead of boxes.
        first_pixel (int): Number of an image's first column and row in the source. Plain VOC has 1. It is subtracted
            from all coordinates of boxes and corners, as in MMDetection's `XMLDataset` and Ultralytics' `VOC.yaml`.
            DIOR has 0: the reference uses its numbers unchanged. Centres always count from 0, as in roLabelImg.

    Raises:
        DS2D2Error: If a list or folder cannot be read. With `on_error="stop"` also at the first malformed line.

    Example:
        >>> images = (root / "JPEGImages-trainval", root / "JPEGImages-test")  # doctest: +SKIP
        >>> annotations = root / "Annotations" / "Horizontal Bounding Boxes"  # doctest: +SKIP
        >>> splits = {"train": [Part((annotations,), images, lists / "train.txt")]}  # doctest: +SKIP
        >>> reader = VOCReader(  # doctest: +SKIP
        ...     splits, Account(), root, DIOR_CLASSES, oriented=False, first_pixel=0
        ... )
    """

    suffix = ".xml"

    def __init__(
        self,
        splits: Mapping[str, Sequence[Part]],
        account: Account,
        root: Path,
        class_names: Sequence[str] | None,
        oriented: bool,
        *,
        first_pixel: int,
    ) -> None:
        self._oriented = oriented
        self._first_pixel = first_pixel
        super().__init__(splits, account, root, class_names)

    def parse(self, content: bytes) -> LabelFile[ElementTree.Element]:
        """Return the size and the elements `object` of an annotation."""
        text = decode(content)
        tree = _parse(text)
        elements = tree.findall("object")
        if not elements and tree.find(".//object") is not None:
            raise MalformedError("its objects are not directly below annotation, export the labels as VOC or COCO")
        stated = tree.find("size")
        size = None if stated is None else as_size(_text(stated, "width"), _text(stated, "height"))
        return LabelFile(size, list(zip(elements, _lines(text, len(elements)), strict=True)))

    def read_object(self, item: ElementTree.Element, line: int | None) -> Annotation:
        """Return an element `object` as an annotation."""
        name = as_class(_text(item, "name"))
        difficult = _text(item, "difficult")
        degree = as_integer(difficult, "difficult") if difficult else 0
        return Annotation(name, self._points(item), degree, line=line)

    def _points(self, item: ElementTree.Element) -> tuple[float, ...]:
        """Return a box with four numbers or, if corners are needed and present, eight."""
        order = ("robndbox", "bndbox", "polygon") if self._oriented else ("bndbox", "robndbox", "polygon")
        tag, found = next(((tag, box) for tag in order if (box := item.find(tag)) is not None), ("", item))
        texts = {child.tag: child.text or "" for child in found}

        def numbers(keys: Sequence[str]) -> tuple[float, ...]:
            return tuple([as_number(texts.get(key, ""), key) for key in keys])

        if tag == "robndbox" and not texts.keys().isdisjoint(_CENTRE):
            points = rotated(*numbers(_CENTRE))
        elif tag == "polygon":
            keys = [f"{axis}{number}" for number in range(1, len(texts) // 2 + 1) for axis in "xy"]
            points = self._from_zero(hull_of(numbers(keys or ["x1"])))
        elif tag:
            points = self._from_zero(numbers(_CORNERS if tag == "robndbox" else _BOX))
        else:
            raise MalformedError("object without bndbox")
        return points if len(points) == 4 or self._oriented else hull_of(points)

    def _from_zero(self, points: Sequence[float]) -> tuple[float, ...]:
        return tuple(value - self._first_pixel for value in points)


def _lines(text: str, count: int) -> Sequence[int | None]:
    """Return the first line of every object, which the parser does not give. All are None if their number differs."""
    lines: list[int] = []
    line, counted = 1, 0
    for match in re.finditer(r"<object[\s/>]", text):
        line += text.count("\n", counted, match.start())
        counted = match.start()
        lines.append(line)
    return lines if len(lines) == count else [None] * count


def _parse(text: str) -> ElementTree.Element:
    # Entities of a document type can expand to gigabytes, and labels do not need one. The check is safe for every
    # encoding: the parser gets this text, not the file.
    for marker, reason in (
        ("\0", "not UTF-8, save it as UTF-8"),
        ("<!DOCTYPE", "XML with a document type, which labels do not need, remove it"),
    ):
        at = text.find(marker)
        if at >= 0:
            raise MalformedError(reason, text.count("\n", 0, at) + 1)
    parser = ElementTree.XMLParser(encoding="utf-8")
    try:
        parser.feed(text.encode("utf-8", "replace"))
        tree = parser.close()
    except ElementTree.ParseError as error:
        raise MalformedError(f"broken XML, {expat.ErrorString(error.code)}", error.position[0]) from None
    if tree.tag != "annotation":
        raise MalformedError(f"expected the element annotation, found {shortened(tree.tag)}")
    return tree


def _text(element: ElementTree.Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()
