"""COCO JSON, as MMDetection users have it: one file per split, beside the folders of the images."""

from __future__ import annotations

import json
import math
import os
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ds2d2_yolo.data.annotations import Account, AnnotatedImage, Annotation
from ds2d2_yolo.data.classes import DIOR_CLASSES, DOTA_ADDED_CLASSES, DOTA_CLASSES
from ds2d2_yolo.data.formats.files import (
    IMAGE_SUFFIXES,
    LABELS_WITHOUT_IMAGE,
    MalformedError,
    decode,
    relative,
    shortened,
    stays_inside,
)
from ds2d2_yolo.errors import DS2D2Error

_REFERENCE_ORDERS = (DIOR_CLASSES, *(DOTA_CLASSES + added for added in DOTA_ADDED_CLASSES.values()))

_Id = int | str


@dataclass(slots=True)
class _Image:
    """An entry of the list `images`; where it is malformed, `fault` says how."""

    id: _Id | None = None
    file_name: str = ""
    name: str = ""
    size: tuple[int, int] | None = None
    fault: str = ""


@dataclass(slots=True)
class _Content:
    """What an instances file holds; None for `annotations` where the list is absent."""

    images: list[_Image]
    annotations: list[object] | None
    categories: dict[_Id, str]


class COCOReader:
    """Reads COCO instances files.

    Ids are names here: they may begin anywhere and leave gaps. One file is in memory at a time, and each is parsed
    twice: for its categories and the names of its images, and when its split is read. A file without the list
    `annotations`, as COCO's `image_info_test2017.json`, gives images without labels.

    An image is called by its file name without folder and suffix or, where several would be called the same, with the
    folders, joined by `__`. Where two images share an id, or a name even so, nobody can tell whose the objects are,
    and none of them is read.

    Args:
        files (Mapping[str, tuple[Path, Path]]): For every split of the result the JSON file and the folder that its
            file names are relative to.
        account (Account): Takes what is found and what cannot be read; images in the folders that no file names are
            noted at once, the rest when a split is read.
        root (Path): Folder of the data set; files are named relative to it in messages.
        oriented (bool): Whether to read the corners from `segmentation`, which then must be one polygon of four, or
            `bbox`.

    Attributes:
        class_names (tuple[str, ...]): In the order of the first file's categories; in the reference's order if they
            are those of DIOR or of a version of DOTA.

    Raises:
        DS2D2Error: If a file is no COCO JSON, whatever `on_error` says, as its whole split would be missing; or if
            the files have different categories.

    Example:
        >>> reader = COCOReader(  # doctest: +SKIP
        ...     {"train": (root / "trainval.json", root / "JPEGImages-trainval")}, Account(), root, oriented=False
        ... )
    """

    layout = "COCO"

    def __init__(self, files: Mapping[str, tuple[Path, Path]], account: Account, root: Path, oriented: bool) -> None:
        self._files = dict(files)
        self._account = account
        self._root = root
        self._oriented = oriented
        self._counts: dict[str, int] = {}
        self.class_names: tuple[str, ...] = ()
        named: set[str] = set()
        for split, (path, folder) in self._files.items():
            content = self._load(path)
            found = _in_order(content.categories.values())
            if self.class_names and set(found) != set(self.class_names):
                other = min(set(found) ^ set(self.class_names))
                self._refuse(path, f"its categories are not those of the other files, only one has {shortened(other)}")
            self.class_names = self.class_names or found
            self._counts[split] = len(content.images)
            named.update(os.path.normpath(folder / image.file_name) for image in content.images if image.file_name)
        self._leave_out_unnamed(named)

    def splits(self) -> Mapping[str, int]:
        """Return the number of images of every split."""
        return dict(self._counts)

    def read(self, split: str) -> Iterator[AnnotatedImage]:
        """Yield the images of a split in the order of its file.

        Raises:
            DS2D2Error: With `on_error="stop"`, for what is malformed.
        """
        path, folder = self._files[split]
        content = self._load(path)
        file = relative(path, self._root)
        ids = Counter(image.id for image in content.images)
        names = Counter(image.name for image in content.images)
        entries_of = self._group(content.annotations or [], ids, file)
        labelled = content.annotations is not None
        for number, image in enumerate(content.images, start=1):
            self._account.enter("image")
            image_file = folder / image.file_name
            fault = image.fault or self._fault(image, image_file, path, ids, names, labelled)
            if fault and image.file_name:
                self._account.malformed("image", relative(image_file, self._root), fault)
            elif fault:
                self._account.malformed("image", file, f"image of this number: {fault}", number)
            objects = self._read_objects(entries_of.pop(image.id, []), content.categories, file)
            if not fault:
                labels = path if labelled else image_file
                yield AnnotatedImage(image.name, labels, image_file, image.size, objects, labelled)
            elif objects:
                self._account.leave_out("object", file, fault, count=len(objects))

    @staticmethod
    def _fault(
        image: _Image,
        image_file: Path,
        path: Path,
        ids: Mapping[_Id | None, int],
        names: Mapping[str, int],
        labelled: bool,
    ) -> str:
        """Say why an entry of `images` cannot be used among the others; empty where it can."""
        if ids[image.id] > 1:
            return f"several images of this id in {path.name}"
        if names[image.name] > 1:
            return f"several images of this name in {path.name}"
        if not os.path.isfile(image_file):  # noqa: PTH113 - `is_file` raises for names that are too long
            return LABELS_WITHOUT_IMAGE if labelled else f"no such image, though {path.name} names it"
        return ""

    # ------------------------------------------------------------------------------------------------ files

    def _load(self, path: Path) -> _Content:
        try:
            content = json.loads(decode(path.read_bytes()))
        except OSError as error:
            self._refuse(path, f"cannot be read ({error.strerror})")
        except json.JSONDecodeError as error:
            self._refuse(path, f"broken JSON, {error.msg} (column {error.colno})", error.lineno)
        except MalformedError as error:
            self._refuse(path, str(error), error.line)
        except (ValueError, RecursionError):  # a number with thousands of digits, or brackets nested as deep
            self._refuse(path, "JSON that no such file holds, with endless numbers or nesting")
        if not isinstance(content, dict):
            self._refuse(path, "expected an object with the lists images, annotations and categories")
        annotations = content.get("annotations")
        for key in ("images", "categories", *(["annotations"] if "annotations" in content else [])):
            if not isinstance(content.get(key), list):
                self._refuse(path, f"expected the list {key}, as COCO instances files have it")
        images = [_as_image(entry) for entry in content["images"]]
        _name_images(images)
        return _Content(images, annotations, self._categories(path, content["categories"]))

    def _categories(self, path: Path, entries: list[object]) -> dict[_Id, str]:
        categories: dict[_Id, str] = {}
        for number, entry in enumerate(entries, start=1):
            key, name = (_as_id(entry.get("id")), entry.get("name")) if isinstance(entry, dict) else (None, None)
            if key is None or not isinstance(name, str) or not name.strip() or not name.isprintable():
                self._refuse(path, f"category number {number}: expected an id and a name")
            if key in categories or name.strip() in categories.values():
                self._refuse(path, f"category number {number}: id or name {shortened(name)} occurs twice")
            categories[key] = name.strip()
        if not categories:
            self._refuse(path, "the list categories is empty")
        return categories

    def _refuse(self, path: Path, reason: str, line: int | None = None) -> NoReturn:
        place = relative(path, self._root) if line is None else f"{relative(path, self._root)}:{line}"
        raise DS2D2Error(f"{place}: {reason}; mend the file, or fetch it again")

    def _leave_out_unnamed(self, named: set[str]) -> None:
        folders = {folder for _, folder in self._files.values()}
        for top in sorted(folder for folder in folders if not folders & set(folder.parents)):
            for place, inner, file_names in os.walk(top):
                inner[:] = sorted(name for name in inner if not name.startswith("."))
                for file_name in sorted(file_names):
                    path = Path(place, file_name)
                    if (
                        path.suffix.lower() in IMAGE_SUFFIXES
                        and file_name[0] != "."
                        and os.path.normpath(path) not in named
                    ):
                        self._account.enter("image")
                        self._account.leave_out("image", relative(path, self._root), "in no split")

    # ---------------------------------------------------------------------------------------------- objects

    def _group(self, entries: list[object], ids: Mapping[_Id | None, int], file: str) -> dict[_Id | None, list[_Entry]]:
        """Return the annotations of each image, with their numbers; what belongs to none is malformed."""
        groups: dict[_Id | None, list[_Entry]] = {}
        for number, entry in enumerate(entries, start=1):
            key = _as_id(entry.get("image_id")) if isinstance(entry, dict) else None
            if isinstance(entry, dict) and key is not None and key in ids:
                groups.setdefault(key, []).append((number, entry))
            else:
                self._account.enter("object")
                self._account.malformed("object", file, "annotation of this number: its image is unknown", number)
        return groups

    def _read_objects(self, entries: list[_Entry], categories: Mapping[_Id, str], file: str) -> list[Annotation]:
        objects = []
        for number, entry in entries:
            self._account.enter("object")
            try:
                objects.append(self._read_object(entry, number, categories))
            except MalformedError as error:
                self._account.malformed("object", file, f"annotation of this number: {error}", number)
        return objects

    def _read_object(self, entry: dict[str, object], number: int, categories: Mapping[_Id, str]) -> Annotation:
        category = _as_id(entry.get("category_id"))
        if category is None or category not in categories:
            raise MalformedError(f"unknown category {shortened(entry.get('category_id'))}")
        crowd = [entry.get(key) or 0 for key in ("iscrowd", "ignore")]
        difficult = _as_id(entry.get("difficult", 0))
        if any(value not in (0, 1) for value in crowd) or not isinstance(difficult, int) or difficult < 0:
            raise MalformedError("expected 0 or 1 for iscrowd and ignore, a whole number for difficult")
        if self._oriented:
            polygons = entry.get("segmentation")
            if not isinstance(polygons, list) or len(polygons) != 1:
                raise MalformedError("expected one polygon of four corners as segmentation")
            points = _as_points(polygons[0], 8, "expected one polygon of four corners as segmentation")
        else:
            x, y, width, height = _as_points(entry.get("bbox"), 4, "expected four finite numbers as bbox")
            points = (x, y, x + width, y + height)
            if not all(map(math.isfinite, points)):
                raise MalformedError("expected four finite numbers as bbox")
        return Annotation(categories[category], points, difficult, any(crowd), number)


_Entry = tuple[int, dict[str, object]]


def _in_order(names: Iterable[str]) -> tuple[str, ...]:
    given = tuple(names)
    return next((order for order in _REFERENCE_ORDERS if set(order) == set(given)), given)


def _as_id(value: object) -> _Id | None:
    """Return an id that can be looked up, None where there is none; some tools write whole numbers as 1.0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, (int, str)) and not isinstance(value, bool) else None


def _as_image(entry: object) -> _Image:
    if not isinstance(entry, dict):
        return _Image(fault="expected an object")
    image = _Image(_as_id(entry.get("id")))
    file_name = entry.get("file_name")
    if not isinstance(file_name, str) or not stays_inside(file_name):
        image.fault = "expected a file_name that stays in its folder"
        return image
    image.file_name = posixpath.normpath(file_name.replace("\\", "/"))  # JSON written on Windows has backslashes
    if image.id is None:
        image.fault = "expected an id"
    width, height = _as_id(entry.get("width")), _as_id(entry.get("height"))
    if entry.get("width") is None and entry.get("height") is None:
        return image
    if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
        image.size = (width, height)
    else:
        image.fault = "expected whole numbers above 0 as width and height"
    return image


def _name_images(images: list[_Image]) -> None:
    """Call the images by their file names: without folders, unless these tell them apart."""
    split = [image.file_name.rpartition("/")[::2] for image in images]
    stems = [name.rpartition(".")[0] or name for _, name in split]
    counts = Counter(stems)
    for image, (folder, _), stem in zip(images, split, stems, strict=True):
        image.name = f"{folder}/{stem}".replace("/", "__") if folder and counts[stem] > 1 else stem


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _as_points(values: object, count: int, expectation: str) -> tuple[float, ...]:
    try:
        if isinstance(values, list) and len(values) == count and all(map(_is_number, values)):
            return tuple(map(float, values))
    except OverflowError:  # a whole number beyond what a float holds
        pass
    raise MalformedError(expectation)
