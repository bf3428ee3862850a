"""DOTA: one text file per image, one object per line."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path

from ds2d2_yolo.data.annotations import Account, AnnotatedImage, Annotation
from ds2d2_yolo.data.classes import DOTA_ADDED_CLASSES, DOTA_CLASSES
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
)
from ds2d2_yolo.errors import DS2D2Error

_HEADERS = ("imagesource:", "gsd:")


class DOTAReader:
    """Reads DOTA v1.0, v1.5 and v2.0.

    A line holds the corners x1, y1, ... x4, y4 in pixels, the class, and the degree of difficulty, which may be
    absent; the first lines may name the source of the image and its ground resolution. All of an image's labels are
    in the text file of its name.

    Args:
        splits (Mapping[str, tuple[Path, Path | None]]): For every split of the result the folder of its images and
            the folder of its label files; None where the labels are not published.
        account (Account): Takes what is found and what cannot be read.
        root (Path): Folder of the data set; files are named relative to it in messages.
        version (str): `1.0`, `1.5` or `2.0`: which classes there are.

    Raises:
        DS2D2Error: If there is no such version, or if a folder cannot be read.

    Example:
        >>> reader = DOTAReader(  # doctest: +SKIP
        ...     {"train": (root / "train/images", root / "train/labelTxt"), "test": (root / "test/images", None)},
        ...     Account(), root, "1.0",
        ... )
    """

    def __init__(
        self, splits: Mapping[str, tuple[Path, Path | None]], account: Account, root: Path, version: str
    ) -> None:
        if version not in DOTA_ADDED_CLASSES:
            raise DS2D2Error(f"version={version}: no such version of DOTA, choose {', '.join(DOTA_ADDED_CLASSES)}")
        self.layout = f"DOTA v{version}"
        self.class_names = DOTA_CLASSES + DOTA_ADDED_CLASSES[version]
        self._account = account
        self._root = root
        self._version = version
        self._folders = dict(splits)
        self._images = {split: _images_of(images, labels) for split, (images, labels) in splits.items()}

    def splits(self) -> Mapping[str, int]:
        """Return the number of images of every split, counting labels without image."""
        return {split: len(names) for split, names in self._images.items()}

    def read(self, split: str) -> Iterator[AnnotatedImage]:
        """Yield the images of a split, sorted by name.

        Raises:
            DS2D2Error: With `on_error="stop"`, for what is malformed.
        """
        images, labels = self._folders[split]
        for name, suffixes in self._images[split].items():
            self._account.enter("image")
            paths = [images / f"{name}{suffix}" for suffix in suffixes]
            if len(paths) > 1:
                self._account.malformed("image", relative(paths[0], self._root), "several images of this name")
            elif labels is None:
                yield AnnotatedImage(name, paths[0], paths[0], None, labelled=False)
            else:
                item = self._read_image(name, labels / f"{name}.txt", paths[0] if paths else None)
                if item is not None:
                    yield item

    def _read_image(self, name: str, labels: Path, image: Path | None) -> AnnotatedImage | None:
        try:
            text = decode(read_labels(labels))
        except MalformedError as error:
            self._account.malformed("image", relative(labels, self._root), str(error), error.line)
            return None
        file = relative(labels, self._root)
        if image is None:
            self._account.malformed("image", file, LABELS_WITHOUT_IMAGE)
        objects = self._read_objects(text, file)
        if image is None:
            if objects:
                self._account.leave_out("object", file, LABELS_WITHOUT_IMAGE, count=len(objects))
            return None
        return AnnotatedImage(name, labels, image, None, objects)

    def _read_objects(self, text: str, file: str) -> list[Annotation]:
        objects: list[Annotation] = []
        in_header = True
        for number, line in enumerate(io.StringIO(text, newline=None), start=1):
            if not line.strip() or (in_header and line.lower().startswith(_HEADERS)):
                continue
            in_header = False
            self._account.enter("object")
            try:
                objects.append(self._read_object(line.split(), number))
            except MalformedError as error:
                self._account.malformed("object", file, str(error), number)
        return objects

    def _read_object(self, fields: list[str], number: int) -> Annotation:
        if len(fields) not in (9, 10):
            raise MalformedError(f"expected 8 numbers, the class and the difficulty, found {len(fields)} fields")
        name = fields[8]
        if name not in self.class_names:
            raise MalformedError(f"unknown class {shortened(name)}{self._hint(name)}")
        points = tuple([as_number(field, "a coordinate") for field in fields[:8]])
        return Annotation(name, points, as_whole(fields[9], "difficulty") if len(fields) == 10 else 0, line=number)

    def _hint(self, name: str) -> str:
        versions = [version for version, added in DOTA_ADDED_CLASSES.items() if name in added]
        if not versions:
            return ""
        return (
            f", which v{self._version} lacks and v{' and v'.join(versions)} {'has' if len(versions) == 1 else 'have'}"
        )


def _images_of(images: Path, labels: Path | None) -> dict[str, list[str]]:
    """Names of all images or labels of a split, sorted, and the suffixes of the images of that name."""
    found: dict[str, list[str]] = {}
    for name, suffix in image_names(images):
        found.setdefault(name, []).append(suffix)
    if labels is not None:
        for file_name in file_names(labels):
            if file_name.lower().endswith(".txt"):
                found.setdefault(file_name[:-4], [])
    return {name: sorted(found[name]) for name in sorted(found)}
