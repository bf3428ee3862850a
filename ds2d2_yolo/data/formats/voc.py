"""PASCAL VOC and DIOR: one XML file per image, and lists of names for the splits."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from ds2d2_yolo.data.annotations import Account, AnnotatedImage, Annotation
from ds2d2_yolo.data.formats.files import (
    LABELS_WITHOUT_IMAGE,
    MalformedError,
    as_number,
    as_whole,
    decode,
    file_names,
    image_names,
    read_labels,
    relative,
    shortened,
    stays_inside,
)
from ds2d2_yolo.errors import DS2D2Error

_BOX = ("xmin", "ymin", "xmax", "ymax")
_CORNERS = (
    "x_left_top",
    "y_left_top",
    "x_right_top",
    "y_right_top",
    "x_right_bottom",
    "y_right_bottom",
    "x_left_bottom",
    "y_left_bottom",
)
_NO_IMAGE = -1
_SEVERAL_IMAGES = -2


class VOCReader:
    """Reads PASCAL VOC and DIOR.

    In memory it keeps the names of the images, and nothing else that grows with the data set. What is wrong with the
    lists, and every image or annotation that none of them names, is noted in the account at once; the rest when a
    split is read.

    Args:
        annotations (Path): Folder of the XML files.
        images (Sequence[Path]): Folders of the images.
        splits (Mapping[str, Sequence[Path]]): For every split of the result, the lists (one name per line) that make
            it up; an empty sequence stands for all annotations.
        account (Account): Takes what is found and what cannot be read.
        root (Path): Folder of the data set; files are named relative to it in messages.
        class_names (Sequence[str] | None): The classes. None: all that occur, sorted, which takes a first pass over
            the annotations.
        oriented (bool): Whether to read `robndbox` (four corners) or `bndbox`.
        layout (str): Name of the layout for people.
        first_pixel (int): What the source calls the first column and row of an image. 1 for plain VOC: it is taken off
            all four coordinates, as MMDetection's `XMLDataset` and the recipe in Ultralytics' `VOC.yaml` do, so that
            results are comparable. 0 for DIOR, of which the reference takes the numbers as they are.

    Raises:
        DS2D2Error: If a list or folder cannot be read; with `on_error="stop"` also for the first malformed line.

    Example:
        >>> reader = VOCReader(  # doctest: +SKIP
        ...     root / "Annotations" / "Horizontal Bounding Boxes",
        ...     [root / "JPEGImages-trainval", root / "JPEGImages-test"],
        ...     {"train": [lists / "train.txt", lists / "val.txt"], "val": [lists / "test.txt"]},
        ...     Account(), root, DIOR_CLASSES, oriented=False, layout="DIOR", first_pixel=0,
        ... )
    """

    def __init__(
        self,
        annotations: Path,
        images: Sequence[Path],
        splits: Mapping[str, Sequence[Path]],
        account: Account,
        root: Path,
        class_names: Sequence[str] | None,
        oriented: bool,
        layout: str,
        *,
        first_pixel: int,
    ) -> None:
        self.layout = layout
        self._annotations = annotations
        self._account = account
        self._root = root
        self._oriented = oriented
        self._first_pixel = first_pixel
        self._places: list[tuple[Path, str]] = []  # folder and suffix, of which the dictionaries hold the indices
        self._splits = {split: self._names(lists) for split, lists in splits.items()}
        self._find_images(images)
        self._expected = frozenset(class_names) if class_names is not None else None
        self.class_names = tuple(class_names) if class_names is not None else self._collect_classes()

    def splits(self) -> Mapping[str, int]:
        """Return the number of images of every split."""
        return {split: len(names) for split, names in self._splits.items()}

    def read(self, split: str) -> Iterator[AnnotatedImage]:
        """Yield the images of a split in the order of its lists.

        Raises:
            DS2D2Error: With `on_error="stop"`, for what is malformed.
        """
        for name, place in self._splits[split].items():
            self._account.enter("image")
            item = self._read_image(name, place)
            if item is not None:
                yield item

    # ------------------------------------------------------------------------------------------------ names

    def _names(self, lists: Sequence[Path]) -> dict[str, int]:
        if not lists:
            found = (Path(name).stem for name in file_names(self._annotations) if name.lower().endswith(".xml"))
            return dict.fromkeys(sorted(found), _NO_IMAGE)
        names: dict[str, int] = {}
        for path in lists:
            try:
                lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
            except OSError as error:
                raise DS2D2Error(f"{path}: this list cannot be read ({error.strerror})") from error
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    name = line.decode("utf-8").strip()
                except UnicodeDecodeError:
                    self._refuse_name(path, number, "a name that is not UTF-8")
                    continue
                if name in names:
                    self._refuse_name(path, number, "a name for the second time in its split")
                elif not stays_inside(name) or "/" in name or "\\" in name:
                    self._refuse_name(path, number, "expected the plain name of an image, without folder")
                else:
                    names[name] = _NO_IMAGE
        return names

    def _refuse_name(self, path: Path, line: int, reason: str) -> None:
        self._account.enter("image")
        self._account.malformed("image", relative(path, self._root), reason, line)

    def _find_images(self, folders: Sequence[Path]) -> None:
        unnamed: dict[str, Path] = {}
        indices: dict[tuple[Path, str], int] = {}
        for folder in folders:
            for name, suffix in image_names(folder):
                place = indices.setdefault((folder, suffix), len(indices))
                named = False
                for names in self._splits.values():
                    if name in names:
                        names[name] = place if names[name] == _NO_IMAGE else _SEVERAL_IMAGES
                        named = True
                if not named:
                    unnamed[name] = folder / f"{name}{suffix}"
        self._places = list(indices)
        for file_name in file_names(self._annotations):
            name = file_name[:-4]
            if file_name.lower().endswith(".xml") and not any(name in names for names in self._splits.values()):
                unnamed[name] = self._annotations / file_name
        for path in sorted(unnamed.values()):
            self._account.enter("image")
            self._account.leave_out("image", relative(path, self._root), "in no split")

    def _collect_classes(self) -> tuple[str, ...]:
        classes: set[str] = set()
        for names in self._splits.values():
            for name in names:
                try:
                    tree = _parse(read_labels(self._annotations / f"{name}.xml"))
                except MalformedError:
                    continue  # reported when the split is read
                classes.update(_text(item, "name") for item in tree.iterfind("object"))
        return tuple(sorted(classes - {""}))

    # ----------------------------------------------------------------------------------------------- images

    def _read_image(self, name: str, place: int) -> AnnotatedImage | None:
        labels = self._annotations / f"{name}.xml"
        try:
            if place == _SEVERAL_IMAGES:
                raise MalformedError("several images of this name")
            if place == _NO_IMAGE and not os.path.lexists(labels):
                raise MalformedError("a list names it, but it has neither image nor labels")
            content = read_labels(labels)
            tree = _parse(content)
            size = _size(tree)
        except MalformedError as error:
            self._account.malformed("image", relative(labels, self._root), str(error), error.line)
            return None
        if place == _NO_IMAGE:
            self._account.malformed("image", relative(labels, self._root), LABELS_WITHOUT_IMAGE)
        objects = self._read_objects(tree, content, labels)
        if place == _NO_IMAGE:
            if objects:
                file = relative(labels, self._root)
                self._account.leave_out("object", file, LABELS_WITHOUT_IMAGE, count=len(objects))
            return None
        folder, suffix = self._places[place]
        return AnnotatedImage(name, labels, folder / f"{name}{suffix}", size, objects)

    def _read_objects(self, tree: ElementTree.Element, content: bytes, labels: Path) -> list[Annotation]:
        elements = tree.findall("object")
        self._account.enter("object", len(elements))
        objects = []
        for element, line in zip(elements, _lines(content, len(elements)), strict=True):
            try:
                objects.append(self._read_object(element, line))
            except MalformedError as error:
                self._account.malformed("object", relative(labels, self._root), str(error), line)
        return objects

    def _read_object(self, element: ElementTree.Element, line: int | None) -> Annotation:
        name = _text(element, "name")
        if not name or (self._expected is not None and name not in self._expected):
            raise MalformedError(f"unknown class {shortened(name)}")
        tag, keys = ("robndbox", _CORNERS) if self._oriented else ("bndbox", _BOX)
        box = element.find(tag)
        if box is None:
            raise MalformedError(f"object without {tag}")
        texts = {child.tag: child.text or "" for child in box}
        points = tuple([as_number(texts.get(key, ""), key) - self._first_pixel for key in keys])
        difficult = _text(element, "difficult")
        return Annotation(name, points, as_whole(difficult, "difficult") if difficult else 0, line=line)


def _lines(content: bytes, count: int) -> Sequence[int | None]:
    """The lines where the objects begin, which the parser does not tell; None where comments or parts hold more."""
    lines: list[int] = []
    line, counted = 1, 0
    for match in re.finditer(rb"<object[\s/>]", content):
        line += content.count(b"\n", counted, match.start())
        counted = match.start()
        lines.append(line)
    return lines if len(lines) == count else [None] * count


def _parse(content: bytes) -> ElementTree.Element:
    # Labels need no document type, and its entities can be made to expand to gigabytes. No other spelling of the word
    # gets past this: the encoding is fixed to UTF-8, whatever the file declares, except that Expat takes zero bytes
    # for UTF-16 nevertheless.
    for marker, reason in ((b"\0", "not UTF-8"), (b"<!DOCTYPE", "XML with a document type, which labels do not need")):
        at = content.find(marker)
        if at >= 0:
            raise MalformedError(reason, content.count(b"\n", 0, at) + 1)
    parser = ElementTree.XMLParser(encoding="utf-8")
    try:
        parser.feed(content)
        tree = parser.close()
    except ElementTree.ParseError as error:
        decode(content)  # tells better where it is not UTF-8
        raise MalformedError(f"broken XML, {expat.ErrorString(error.code)}", error.position[0]) from None
    if tree.tag != "annotation":
        raise MalformedError(f"expected the element annotation, found {shortened(tree.tag)}")
    return tree


def _text(element: ElementTree.Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _size(tree: ElementTree.Element) -> tuple[int, int] | None:
    """The size that the labels state; None where they do not, or where a tool wrote zeros."""
    stated = tree.find("size")
    if stated is None:
        return None
    width, height = (as_whole(_text(stated, key), key) for key in ("width", "height"))
    return (width, height) if width and height else None
