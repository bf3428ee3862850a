"""Common base of the formats with a label file for each image: DIOR, VOC and DOTA."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

from ds2d2_yolo.data.annotations import Account, AnnotatedImage, Annotation
from ds2d2_yolo.data.formats.rules import (
    LABELS_WITHOUT_IMAGE,
    SEVERAL_IMAGES,
    SWAPPED_CORNERS,
    UPLOADED,
    FileIndex,
    MalformedError,
    Part,
    composed,
    hull_of,
    is_by_upload,
    no_image_below,
    read_labels,
    relative,
    shortened,
    stem_of,
    unique_names,
)
from ds2d2_yolo.errors import DS2D2Error

Item = TypeVar("Item")

_NO_LABELS = {"classes", "labels", "labelmap", "notes", "obj", "predefined_classes", "readme"}


@dataclass
class LabelFile(Generic[Item]):
    """The content of a label file: the stated size, and its objects with their lines, not yet parsed."""

    size: tuple[int, int] | None
    objects: list[tuple[Item, int | None]]


@dataclass(frozen=True)
class _Files:
    """A part of a split, and the files in its folders."""

    part: Part
    labels: FileIndex
    images: FileIndex


class PerImageReader(ABC, Generic[Item]):
    """Reads a data set with a label file for each image, which has the name of the image.

    Only names and paths of files are kept in memory. Mistakes in the lists, and files that belong to no split, are
    listed at once. The rest follows when a split is read.

    Args:
        splits (Mapping[str, Sequence[Part]]): The parts of every split of the result.
        account (Account): Counts what is found and what cannot be read.
        root (Path): Folder of the data set; messages name files relative to it.
        class_names (Sequence[str] | None): The classes. None: all that occur in any split, sorted. This reads all label
            files first.

    Raises:
        DS2D2Error: If a list or folder cannot be read. With `on_error="stop"` also at the first malformed line.
    """

    suffix: str
    """Suffix of the label files, lower case."""

    def __init__(
        self,
        splits: Mapping[str, Sequence[Part]],
        account: Account,
        root: Path,
        class_names: Sequence[str] | None,
    ) -> None:
        self._account = account
        self._root = root
        self._given = None if class_names is None else tuple(class_names)
        self._indices: dict[tuple[str, tuple[Path, ...]], FileIndex] = {}
        self._files: list[_Files] = []
        self._names: dict[str, dict[str, _Files]] = {}
        for split, parts in splits.items():
            self._names[split] = {}
            for part in parts:
                files = _Files(part, self._index(self.suffix, part.labels), self._index("", part.images))
                self._files.append(files)
                self._add_names(self._names[split], files)
        self._leave_out_unnamed()

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Classes in the order of their numbers."""
        return tuple(sorted(self._occurring_classes())) if self._given is None else self._given

    def splits(self) -> Mapping[str, int]:
        """Return the number of images of every split."""
        return {split: len(names) for split, names in self._names.items()}

    def read(self, split: str) -> Iterator[AnnotatedImage]:
        """Yield the images of a split in the order of its lists or, without lists, of their names.

        Raises:
            DS2D2Error: With `on_error="stop"`, at the first malformed entry.
        """
        stated = self._names[split]
        called = unique_names(list(stated))
        counts = Counter(map(str.casefold, called))
        for (path, files), name in zip(stated.items(), called, strict=True):
            self._account.enter("image")
            item = self._read_image(path, name, files, unique=counts[name.casefold()] == 1)
            if item is not None:
                yield item

    @abstractmethod
    def parse(self, content: bytes) -> LabelFile[Item]:
        """Parse a label file.

        Raises:
            MalformedError: If the whole file is unusable.
        """

    @abstractmethod
    def read_object(self, item: Item, line: int | None) -> Annotation:
        """Convert an item of `parse` to an annotation.

        Raises:
            MalformedError: If it is not a valid object.
        """

    def hint(self, name: str) -> str:
        """Return a hint about an unknown class, for the message."""
        return ""

    # ------------------------------------------------------------------------------------------------ names

    def _index(self, suffix: str, folders: tuple[Path, ...]) -> FileIndex:
        if (suffix, folders) not in self._indices:
            self._indices[suffix, folders] = FileIndex(folders, [suffix]) if suffix else FileIndex(folders)
        return self._indices[suffix, folders]

    def _add_names(self, names: dict[str, _Files], files: _Files) -> None:
        """Add the images of a part. Names are as in lists: without suffix, possibly with folders."""
        source = files.part.names
        if isinstance(source, Path):
            for name, line in self._listed(source):
                if name in names:
                    self._refuse_name(source, line, "a name for the second time in its split")
                names.setdefault(name, files)
            return
        found = {self._stated(path) for path in (files.images if source == "images" else files.labels)}
        # Tools write lists of classes and notes beside the labels.
        found = {name for name in found if stem_of(name).lower() not in _NO_LABELS or files.images.find(name)}
        if source == "both":
            found |= {name for name in map(self._stated, files.images) if not self._labels_of(name, files)}
        names.update(dict.fromkeys(sorted(found, key=lambda name: (stem_of(name), name)), files))

    def _labels_of(self, stated: str, files: _Files) -> list[Path]:
        return files.labels.find(stated, files.images)

    def _images_of(self, stated: str, files: _Files) -> list[Path]:
        return files.images.find(stated, files.labels)

    def _stated(self, path: str) -> str:
        return os.path.splitext(os.path.relpath(path, self._root))[0].replace(os.sep, "/")  # noqa: PTH122

    def _listed(self, path: Path) -> Iterator[tuple[str, int]]:
        """Yield the names in a list with their lines."""
        try:
            lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
        except OSError as error:
            raise DS2D2Error(f"{path}: this list cannot be read ({error.strerror})") from error
        for number, line in enumerate(lines, start=1):
            try:
                folder, slash, base = line.decode("utf-8").strip().replace("\\", "/").rpartition("/")
            except UnicodeDecodeError:
                self._refuse_name(path, number, "a name that is not UTF-8")
                continue
            if base in (".", "..") or "\0" in folder + base or (slash and not base):
                self._refuse_name(path, number, "expected the name of an image")
            elif base:
                yield f"{folder}{slash}{stem_of(base)}", number

    def _refuse_name(self, path: Path, line: int, reason: str) -> None:
        self._account.enter("image")
        self._account.malformed("image", relative(path, self._root), reason, line)

    def _leave_out_unnamed(self) -> None:
        """List the files that belong to no image of the splits. Image and label file of one name count once."""
        entries = [(stated, files) for names in self._names.values() for stated, files in names.items()]
        listed = any(isinstance(files.part.names, Path) for _, files in entries)
        unnamed: dict[tuple[Path | str, ...], tuple[list[str], list[str]]] = {}
        for files, kind, path in self._unused(entries):
            stem = composed(os.path.splitext(os.path.basename(path))[0])  # noqa: PTH119, PTH122 - ten times as fast
            if kind or stem.lower() not in _NO_LABELS:
                unnamed.setdefault((*files.part.paths, stem), ([], []))[kind].append(path)
        paths = [path for labels, images in unnamed.values() for path in (*labels, *images[len(labels) :])]
        for path in sorted(paths):
            self._account.enter("image")
            reason = "in no split"
            if not listed:
                reason = LABELS_WITHOUT_IMAGE if path.lower().endswith(self.suffix) else "image without labels"
            self._account.leave_out("image", relative(Path(path), self._root), reason)

    def _unused(self, entries: Sequence[tuple[str, _Files]]) -> Iterator[tuple[_Files, int, str]]:
        """Yield the files of no entry once: the first part that has them, 0 for labels or 1 for images, the path."""
        used: set[str] = set()
        for stated, files in entries:
            used.update(map(str, (*self._labels_of(stated, files), *self._images_of(stated, files))))
        for files in self._files:
            for kind, index in enumerate((files.labels, files.images)):
                for path in index:
                    if path not in used:
                        used.add(path)
                        yield files, kind, path

    def _occurring_classes(self) -> set[str]:
        classes: set[str] = set()
        for names in self._names.values():
            for stated, files in names.items():
                for path in self._labels_of(stated, files):
                    with suppress(MalformedError):  # reported when the split is read
                        for item, line in self.parse(read_labels(path)).objects:
                            with suppress(MalformedError):
                                classes.add(self.read_object(item, line).name)
        return classes

    # ----------------------------------------------------------------------------------------------- images

    def _read_image(self, stated: str, name: str, files: _Files, unique: bool) -> AnnotatedImage | None:
        labels, images = self._labels_of(stated, files), self._images_of(stated, files)
        where = labels[0] if labels else (files.part.labels or [Path()])[0] / f"{stem_of(stated)}{self.suffix}"
        fault = ""
        if len(images) > 1 or not unique:
            fault, where = SEVERAL_IMAGES, (images or [where])[0]
        elif len(labels) > 1:
            fault = "several label files of this name"
        elif not labels and not images:
            fault = "a list names it, but it has neither image nor labels"
        elif not labels and files.part.labels:
            fault = "image without labels"
        if fault:
            self._account.malformed("image", relative(where, self._root), fault)
            return None
        for path in (*labels, *images):
            if is_by_upload(stated, path):
                self._account.remark(UPLOADED, relative(path, self._root))
        if not labels:
            return AnnotatedImage(name, images[0], images[0], None, labelled=False)
        return self._read_labels(name, where, images[0] if images else None)

    def _read_labels(self, name: str, labels: Path, image: Path | None) -> AnnotatedImage | None:
        file = relative(labels, self._root)
        try:
            content = self.parse(read_labels(labels))
        except MalformedError as error:
            self._account.malformed("image", file, str(error), error.line)
            return None
        if image is None:
            self._account.malformed("image", file, LABELS_WITHOUT_IMAGE, detail=no_image_below(self._root))
        objects = []
        for item, line in content.objects:
            self._account.enter("object")
            try:
                objects.append(self._checked(self.read_object(item, line), file))
            except MalformedError as error:
                self._account.malformed("object", file, str(error), line)
        if image is not None:
            return AnnotatedImage(name, labels, image, content.size, objects)
        if objects:
            self._account.leave_out("object", file, LABELS_WITHOUT_IMAGE, count=len(objects))
        return None

    def _checked(self, item: Annotation, file: str) -> Annotation:
        """Check the class of an object and return it."""
        if self._given is not None and item.name not in self._given:
            raise MalformedError(f"unknown class {shortened(item.name)}{self.hint(item.name)}")
        if len(item.points) == 4 and item.points != hull_of(item.points):
            self._account.remark(SWAPPED_CORNERS, file, item.line)
            return replace(item, points=hull_of(item.points))
        return item
