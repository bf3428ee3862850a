"""COCO JSON as used with MMDetection: one file per split, beside the folders of the images."""

from __future__ import annotations

import json
import math
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NoReturn

from ds2d2_yolo.data.annotations import Account, AnnotatedImage, Annotation
from ds2d2_yolo.data.classes import DIOR_CLASSES, DOTA_ADDED_CLASSES, DOTA_CLASSES
from ds2d2_yolo.data.formats.rules import (
    ELSEWHERE,
    IMAGE_SUFFIXES,
    LABELS_WITHOUT_IMAGE,
    OTHER_SPLIT,
    SEVERAL_IMAGES,
    SWAPPED_CORNERS,
    UPLOADED,
    FileIndex,
    MalformedError,
    Part,
    as_class,
    as_id,
    as_number,
    as_size,
    decode,
    hull_of,
    is_by_upload,
    no_image_below,
    relative,
    shortened,
    stem_of,
    unique_names,
)
from ds2d2_yolo.errors import DS2D2Error

_REFERENCE_ORDERS = (DIOR_CLASSES, *(DOTA_CLASSES + added for added in DOTA_ADDED_CLASSES.values()))

_Entry = tuple[int, dict[str, object]]


@dataclass(slots=True)
class _Image:
    """An entry of the list `images`. If it is malformed, `fault` is the reason."""

    id: str | None = None
    file_name: str = ""
    path: Path | None = None
    size: tuple[int, int] | None = None
    remark: str = ""
    fault: str = ""


@dataclass(slots=True)
class _Content:
    """The content of an instances file. `annotations` is None if the list is missing."""

    images: list[_Image]
    annotations: list[object] | None
    categories: dict[str, str]
    parents: set[str]


class COCOReader:
    """Reads COCO instances files, also those of Roboflow, CVAT and Label Studio.

    Ids can be any numbers or names. Only one file is in memory at a time. Each is parsed twice: first for its
    categories and names of images, then when its split is read. A file without the list `annotations` gives images
    without labels, such as COCO's `image_info_test2017.json`.

    `FileIndex` finds the images and `unique_names` names them. If two images have the same id or the same name, their
    objects are ambiguous: neither is read.

    Classes are the categories of all files, by name. A parent category without objects is not a class.

    Args:
        splits (Mapping[str, Sequence[Part]]): JSON files of every split of the result. File names in them are relative
            to the folder of the part.
        account (Account): Counts what is found and what cannot be read. Images that no file names are listed at once,
            the rest when a split is read.
        root (Path): Folder of the data set; messages name files relative to it.
        oriented (bool): Whether to read corners from `segmentation`, which must be one polygon with four, instead of
            `bbox`.

    Attributes:
        class_names (tuple[str, ...]): In the order of the first file's categories, then of the other files. The classes
            of DIOR or of a version of DOTA are in the reference's order.

    Raises:
        DS2D2Error: If a file is not COCO JSON, also with `on_error="skip"`: its whole split would be missing.

    Example:
        >>> part = Part((root / "trainval.json",), (root / "JPEGImages-trainval",))  # doctest: +SKIP
        >>> reader = COCOReader({"train": [part]}, Account(), root, oriented=False)  # doctest: +SKIP
    """

    def __init__(self, splits: Mapping[str, Sequence[Part]], account: Account, root: Path, oriented: bool) -> None:
        self._parts = {split: list(parts) for split, parts in splits.items()}
        self._account = account
        self._root = root
        self._oriented = oriented
        self._called: dict[str, list[str]] = {}  # names of the images by split, in order
        categories: dict[str, list[Path]] = {}  # files by the categories that they have
        used: set[str] = set()
        parents: set[str] = set()
        named: set[str] = set()
        for split, part in ((split, part) for split, parts in self._parts.items() for part in parts):
            content = self._load(part)
            for name in content.categories.values():
                categories.setdefault(name, []).append(part.labels[0])
            parents |= content.parents
            used |= {content.categories.get(key or "", "") for key in map(_category_of, content.annotations or [])}
            paths = [image.path for image in content.images]
            named.update(str(path) for path in paths if path)
            self._called.setdefault(split, []).extend(
                os.path.relpath(image.path, root).replace(os.sep, "/") if image.path else image.file_name
                for image in content.images
            )
        self._called = {split: unique_names(paths) for split, paths in self._called.items()}
        self.class_names = self._choose_classes(categories, parents - used if used - {""} else set())
        self._leave_out_unnamed(named)

    def splits(self) -> Mapping[str, int]:
        """Return the number of images of every split."""
        return {split: len(names) for split, names in self._called.items()}

    def read(self, split: str) -> Iterator[AnnotatedImage]:
        """Yield the images of a split in the order of its files.

        Raises:
            DS2D2Error: With `on_error="stop"`, at the first malformed entry.
        """
        called = iter(self._called[split])
        counts = Counter(map(str.casefold, self._called[split]))
        for part in self._parts[split]:
            yield from self._read_part(part, called, counts)

    def _read_part(self, part: Part, called: Iterator[str], counts: Mapping[str, int]) -> Iterator[AnnotatedImage]:
        content = self._load(part)
        path, labelled = part.labels[0], content.annotations is not None
        file = relative(path, self._root)
        ids = Counter(image.id for image in content.images)
        entries_of = self._group(content.annotations or [], ids, file)
        for number, (image, name) in enumerate(zip(content.images, called, strict=False), start=1):
            self._account.enter("image")
            lacking = LABELS_WITHOUT_IMAGE if labelled else f"no such image, though {path.name} names it"
            fault = image.fault
            for applies, what in (
                (ids[image.id] > 1, f"several images of this id in {path.name}"),
                (counts[name.casefold()] > 1, SEVERAL_IMAGES),
                (image.path is None, lacking),
            ):
                fault = fault or what * applies
            self._note_image(image, part, fault, number)
            objects = self._read_objects(entries_of.pop(image.id, []), content.categories, file)
            if not fault and image.path is not None:
                yield AnnotatedImage(name, path if labelled else image.path, image.path, image.size, objects, labelled)
            elif objects:
                self._account.leave_out("object", file, fault, count=len(objects))

    def _note_image(self, image: _Image, part: Part, fault: str, number: int) -> None:
        """Report a malformed image, or an image that is not at its stated path."""
        if fault and image.file_name:
            where = image.path or part.images[0] / image.file_name
            detail = self._advice(image, part) if image.path is None else ""
            self._account.malformed("image", relative(where, self._root), fault, detail=detail)
        elif fault:
            file = relative(part.labels[0], self._root)
            self._account.malformed("image", file, f"image of this number: {fault}", number)
        elif image.remark:
            self._account.remark(image.remark, relative(image.path or Path(), self._root))

    def _advice(self, image: _Image, part: Part) -> str:
        if image.fault != OTHER_SPLIT:
            return no_image_below(self._root)
        found = relative(self._index.find(image.file_name)[0], self._root)
        folder = relative(part.images[0], self._root)
        return f"{found}; move it to {folder} if it is meant, or link to it there"

    # ------------------------------------------------------------------------------------------------ files

    def _load(self, part: Part) -> _Content:
        path = part.labels[0]
        content = self._parsed(path)
        annotations = content.get("annotations")
        for key in ("images", "categories", *(["annotations"] if "annotations" in content else [])):
            if not isinstance(content.get(key), list):
                self._refuse(path, f"expected the list {key}, as COCO instances files have it")
        images = [_as_image(entry) for entry in content["images"]]
        named = {stem_of(image.file_name) for image in images}
        for image in images:
            self._find(image, part, named)
        return _Content(images, annotations, *self._categories(path, content["categories"]))

    def _parsed(self, path: Path) -> dict[str, list[object]]:
        try:
            content = json.loads(decode(path.read_bytes()))
        except OSError as error:
            self._refuse(path, f"cannot be read ({error.strerror})")
        except json.JSONDecodeError as error:
            self._refuse(path, f"broken JSON, {error.msg} (column {error.colno})", error.lineno)
        except MalformedError as error:
            self._refuse(path, str(error), error.line)
        except (ValueError, RecursionError):  # a number with thousands of digits, or thousands of nested brackets
            self._refuse(path, "JSON with too long numbers or too deep nesting")
        if not isinstance(content, dict):
            self._refuse(path, "expected an object with the lists images, annotations and categories")
        return content

    def _find(self, image: _Image, part: Part, named: set[str]) -> None:
        """Find the file of an image: at its stated path, then by the rules for all formats."""
        if not image.file_name:
            return
        for folder in (part.images[0], part.labels[0].parent):
            direct = Path(os.path.normpath(folder / image.file_name))
            inside = direct.is_relative_to(self._root) and not part.excludes(direct)
            if inside and os.path.isfile(direct):  # noqa: PTH113 - `is_file` raises for names that are too long
                image.path = direct
                return
        found = self._index.find(image.file_name, named, part.excludes)
        if len(found) == 1:
            image.path = found[0]
            image.remark = UPLOADED if is_by_upload(image.file_name, found[0]) else ELSEWHERE
        if len(found) > 1:
            image.fault = image.fault or SEVERAL_IMAGES
        elif not found and self._index.find(image.file_name, named):
            image.fault = image.fault or OTHER_SPLIT

    @cached_property
    def _index(self) -> FileIndex:
        return FileIndex(Path(place) for place, _ in _walk(self._root, self._root))

    def _categories(self, path: Path, entries: list[object]) -> tuple[dict[str, str], set[str]]:
        """Return the names of the categories by id, and the names of those that are parents."""
        categories: dict[str, str] = {}
        parents: set[str] = set()
        for number, entry in enumerate(entries, start=1):
            key = as_id(entry.get("id")) if isinstance(entry, dict) else None
            try:
                name = as_class(entry.get("name") if isinstance(entry, dict) else None)
            except MalformedError:
                name = ""
            if key is None or not name:
                self._refuse(path, f"category number {number}: expected an id and a name")
            if key in categories or name in categories.values():
                self._refuse(path, f"category number {number}: id or name {shortened(name)} occurs twice")
            categories[key] = name
            if isinstance(entry, dict) and entry.get("supercategory") != name:
                parents.add(str(entry.get("supercategory")))
        if not categories:
            self._refuse(path, "the list categories is empty")
        return categories, parents & set(categories.values())

    def _choose_classes(self, categories: Mapping[str, Sequence[Path]], without: set[str]) -> tuple[str, ...]:
        """Return one list of classes for all files. Differences between files are reported."""
        for name in sorted(without):
            self._account.remark("root category without objects, which is not a class", f"'{name}'")
        files = {path for paths in categories.values() for path in paths}
        for path in sorted(files):
            lacking = [name for name, having in categories.items() if path not in having and name not in without]
            if lacking:
                what = "file(s) without some category of the others, classes are joined by name"
                more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
                self._account.remark(what, f"{relative(path, self._root)} lacks {shortened(lacking[0])}{more}")
        return _in_reference_order(name for name in categories if name not in without)

    def _refuse(self, path: Path, reason: str, line: int | None = None) -> NoReturn:
        place = relative(path, self._root) if line is None else f"{relative(path, self._root)}:{line}"
        raise DS2D2Error(f"{place}: {reason}; correct the file, or download it again")

    def _leave_out_unnamed(self, named: set[str]) -> None:
        folders = {folder for parts in self._parts.values() for part in parts for folder in part.images}
        for top in sorted(folder for folder in folders if not folders & set(folder.parents)):
            for place, file_names in _walk(top, self._root):
                for file_name in file_names:
                    path = Path(place, file_name)
                    if path.suffix.lower() in IMAGE_SUFFIXES and file_name[0] != "." and str(path) not in named:
                        self._account.enter("image")
                        self._account.leave_out("image", relative(path, self._root), "in no split")

    # ---------------------------------------------------------------------------------------------- objects

    def _group(self, entries: list[object], ids: Mapping[str | None, int], file: str) -> dict[str | None, list[_Entry]]:
        """Return the numbered annotations of each image. An annotation without an image is malformed."""
        groups: dict[str | None, list[_Entry]] = {}
        for number, entry in enumerate(entries, start=1):
            key = as_id(entry.get("image_id")) if isinstance(entry, dict) else None
            if isinstance(entry, dict) and key is not None and key in ids:
                groups.setdefault(key, []).append((number, entry))
            else:
                self._account.enter("object")
                self._account.malformed("object", file, "annotation of this number: its image is unknown", number)
        return groups

    def _read_objects(self, entries: list[_Entry], categories: Mapping[str, str], file: str) -> list[Annotation]:
        objects = []
        for number, entry in entries:
            self._account.enter("object")
            try:
                objects.append(self._read_object(entry, number, categories, file))
            except MalformedError as error:
                self._account.malformed("object", file, f"annotation of this number: {error}", number)
        return objects

    def _read_object(
        self, entry: dict[str, object], number: int, categories: Mapping[str, str], file: str
    ) -> Annotation:
        category = _category_of(entry)
        if category is None or category not in categories:
            raise MalformedError(f"unknown category {shortened(entry.get('category_id'))}")
        crowd = [entry.get(key) or 0 for key in ("iscrowd", "ignore")]
        difficult = as_id(entry.get("difficult", 0)) or ""
        if any(value not in (0, 1) for value in crowd) or not re.fullmatch("[0-9]{1,9}", difficult):
            raise MalformedError("expected 0 or 1 for iscrowd and ignore, a whole number for difficult")
        points = self._corners(entry) if self._oriented else _box(entry)
        if len(points) == 4 and points != hull_of(points):
            self._account.remark(SWAPPED_CORNERS, file, number)
            points = hull_of(points)
        return Annotation(categories[category], points, int(difficult), any(crowd), number)

    @staticmethod
    def _corners(entry: Mapping[str, object]) -> tuple[float, ...]:
        polygons = entry.get("segmentation")
        if not isinstance(polygons, list) or len(polygons) != 1:
            raise MalformedError("expected one polygon of four corners as segmentation")
        return _as_points(polygons[0], 8, "expected one polygon of four corners as segmentation")


def _box(entry: Mapping[str, object]) -> tuple[float, ...]:
    """Return x1, y1, x2, y2 from `bbox` or, if it is missing, from the polygons."""
    box, polygons = entry.get("bbox"), entry.get("segmentation")
    if not box and isinstance(polygons, list) and polygons:
        flat = [_as_points(polygon, None, "expected polygons of finite numbers") for polygon in polygons]
        return hull_of([value for polygon in flat for value in polygon])
    x, y, width, height = _as_points(box, 4, "expected four finite numbers as bbox")
    points = (x, y, x + width, y + height)
    if not all(map(math.isfinite, points)):
        raise MalformedError("expected four finite numbers as bbox")
    return points


def _in_reference_order(names: Iterable[str]) -> tuple[str, ...]:
    given = tuple(names)
    return next((order for order in _REFERENCE_ORDERS if set(order) == set(given)), given)


def _category_of(entry: object) -> str | None:
    return as_id(entry.get("category_id")) if isinstance(entry, dict) else None


def _as_image(entry: object) -> _Image:
    if not isinstance(entry, dict):
        return _Image(fault="expected an object")
    image = _Image(as_id(entry.get("id")), size=as_size(entry.get("width"), entry.get("height")))
    file_name = entry.get("file_name")
    if isinstance(file_name, str) and "\0" not in file_name:
        image.file_name = posixpath.normpath(file_name.replace("\\", "/"))  # JSON written on Windows has backslashes
    if image.file_name.rpartition("/")[2] in ("", ".", ".."):
        image.file_name, image.fault = "", "expected the path of an image as file_name"
    elif image.id is None:
        image.fault = "expected an id"
    return image


def _walk(top: Path, root: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield a folder and all folders below it, each with its file names, without hidden names.

    Links are followed once, if they lead out of `root`: what is in it has another path already.
    """
    whole, entered = root.resolve(), set[Path]()

    def is_new(folder: str) -> bool:
        if not os.path.islink(folder):  # noqa: PTH114 - ten times as fast
            return True
        target = Path(os.path.realpath(folder))
        known = target in entered or target.is_relative_to(whole) or whole.is_relative_to(target)
        entered.add(target)
        return not known

    for place, inner, names in os.walk(top, followlinks=True):
        inner[:] = sorted(name for name in inner if name[0] != "." and is_new(os.path.join(place, name)))  # noqa: PTH118
        yield place, sorted(names)


def _number(value: object) -> object:
    """Convert a number that a tool wrote as text. Anything else is returned unchanged."""
    try:
        return as_number(value, "number") if isinstance(value, str) else value
    except MalformedError:
        return value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _as_points(values: object, count: int | None, expectation: str) -> tuple[float, ...]:
    """Return `count` numbers. With `count=None`: an even number of them, at least 6."""
    values = [*map(_number, values)] if isinstance(values, list) else values
    try:
        if (
            isinstance(values, list)
            and all(map(_is_number, values))
            and (len(values) == count if count else len(values) in range(6, 1 << 20, 2))
        ):
            return tuple(map(float, values))
    except OverflowError:  # a whole number too large for a float
        pass
    raise MalformedError(expectation)
