"""What a YOLO data set holds and what is wrong with it, as Ultralytics' loader would see it.

Nothing is written: labels are read here rather than by Ultralytics' scan, which leaves `.cache` files and replaces
JPEGs that lack their end marker. `parse_labels` reads a label file as `ultralytics.data.utils.verify_image_label` does;
`inspect_dataset` goes through all images and labels of a data set.
"""

from __future__ import annotations

import glob
import hashlib
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from PIL import Image
from ultralytics.data.utils import IMG_FORMATS, exif_size, img2label_paths
from ultralytics.utils import TQDM
from ultralytics.utils.ops import segments2boxes
from ultralytics.utils.patches import imread

Task = Literal["detect", "obb"]
ImageCheck = Literal["full", "header", "none"]

SIZE_BANDS: tuple[float, ...] = (8.0, 16.0, 32.0, 96.0)
"""Borders of the size bands, in pixels: square roots of areas. 32 and 96 are COCO's borders of small, medium, large."""

SIZE_EDGES: np.ndarray = 2.0 ** np.linspace(0, 12, 49)
"""Edges of the size histogram, in pixels, a quarter of an octave apart; its end bins take what lies beyond them."""

PLACES_KEPT = 1000
"""How many places of one kind of finding are kept per split; all are counted."""

_TOLERANCE = 1e-3  # of the side of the image: labels are written with as few as three decimals
_VANISHING = 2.0  # pixels: `RandomPerspective.box_candidates` drops what is not wider and higher
_ALIKE = 0.8  # intersection over union
_CHUNK = 256  # images handed to the threads at a time, so that results do not pile up


class Kind(NamedTuple):
    """A kind of finding.

    Attributes:
        error (bool): Whether training would stop, or lose images or labels without stopping.
        title (str): Name for people, in the plural.
        consequence (str): What Ultralytics does about it.
    """

    error: bool
    title: str
    consequence: str


KINDS: Mapping[str, Kind] = {
    "no_images": Kind(True, "splits without images", "training stops"),
    "no_usable_images": Kind(True, "splits without a usable image", "training stops"),
    "no_label_files": Kind(True, "training splits without label files", "training stops"),
    "undecodable_image": Kind(True, "images that OpenCV cannot decode", "training stops when it comes to them"),
    "box_instead_of_polygon": Kind(True, "files of boxes without corners", "training with task=obb stops"),
    "missing_image": Kind(True, "listed images that do not exist", "left out"),
    "unreadable_image": Kind(True, "unreadable images", "left out with all their labels"),
    "truncated_image": Kind(True, "truncated images", "left out, trained on in part, or training stops, by format"),
    "unreadable_label": Kind(True, "unreadable label files", "left out with their images"),
    "malformed_label": Kind(True, "malformed label lines", "each costs its whole image with all labels"),
    "unknown_class": Kind(True, "labels of unknown classes", "each costs its whole image with all labels"),
    "label_without_image": Kind(True, "label files without image", "never read"),
    "box_without_area": Kind(True, "boxes without area", "dropped by augmentation"),
    "box_outside": Kind(True, "boxes outside the image", "dropped by augmentation"),
    "unfinished_jpeg": Kind(False, "JPEGs without end marker at their end", "rewritten in place, in the data set"),
    "image_without_label": Kind(False, "images without label file", "trained on as background"),
    "duplicate_label": Kind(False, "duplicate labels", "removed"),
    "ambiguous_box": Kind(False, "boxes labelled with several classes", "kept, and contradict each other"),
    "near_duplicate": Kind(False, "boxes over 80 % the same as another of their class", "kept; one object, twice?"),
    "box_beyond_edge": Kind(False, "boxes reaching out of the image", "cut at the edge"),
    "vanishing_box": Kind(False, f"boxes not over {_VANISHING:g} px wide and high", "mostly dropped by augmentation"),
    "class_without_object": Kind(False, "classes without object", "nothing to learn or to measure"),
    "missing_split": Kind(False, "missing files of splits beyond train and val", "validating on them stops"),
    "identical_images": Kind(False, "identical images in two splits", "metrics look better than they are"),
}
"""All kinds of findings; errors first."""


class Place(NamedTuple):
    """Where something was found: the file (may be empty), its line from 1 (or None), and what is there."""

    file: str
    line: int | None
    detail: str

    def __str__(self) -> str:
        """Return `file:line: detail`."""
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{where}: {self.detail}" if where and self.detail else where or self.detail


@dataclass
class Finding:
    """How often something was found, and the first `PLACES_KEPT` places."""

    count: int = 0
    places: list[Place] = field(default_factory=list)

    def add(self, place: Place) -> None:
        """Count one more."""
        self.count += 1
        if len(self.places) < PLACES_KEPT:
            self.places.append(place)


class Fault(NamedTuple):
    """What makes Ultralytics reject a label file: a kind of `KINDS`, the line from 1, and what is there."""

    kind: str
    line: int | None
    detail: str


@dataclass(frozen=True)
class Labels:
    """The objects of one label file, as Ultralytics keeps them.

    Attributes:
        classes (np.ndarray): Class indices (N,) int64.
        boxes (np.ndarray): Boxes, or hulls of polygons, (N, 4) float32, as x, y, width, height in shares of the image.
        polygons (tuple[np.ndarray, ...]): Corners (K, 2) float32 of every object, in shares of the image; empty where
            the file holds boxes.
        lines (np.ndarray): Line of every object (N,), from 1.
        written (int): Number of lines that are not blank.
        faults (tuple[Fault, ...]): Why the file is rejected; with any of them, there are no objects.
        duplicates (tuple[int, ...]): Lines that repeat an earlier one and are left out.
        ambiguous (tuple[int, ...]): Lines whose box an earlier line has with another class.
    """

    classes: np.ndarray
    boxes: np.ndarray
    polygons: tuple[np.ndarray, ...]
    lines: np.ndarray
    written: int
    faults: tuple[Fault, ...] = ()
    duplicates: tuple[int, ...] = ()
    ambiguous: tuple[int, ...] = ()


@dataclass(frozen=True)
class Split:
    """One split of a data set: its image files, and those entries of the data YAML that are folders."""

    images: Sequence[Path]
    folders: Sequence[Path] = ()


@dataclass(frozen=True)
class Settings:
    """What a data set is inspected for.

    Attributes:
        names (Sequence[str]): Class names.
        task (Task): `detect` (sizes of boxes or hulls) or `obb` (sizes of the smallest rectangles around polygons).
        imgsz (int): Training size in pixels: the longer side of an image is scaled to it, the shorter one padded.
        strides (Sequence[int]): Strides of the levels, in pixels; each divides `imgsz`.
        images (ImageCheck): `full`: decode all images; `header`: check them without decoding, as Ultralytics' scan
            does; `none`: do not open them, so that sizes and densities stay unknown.
        channels (int): Channels of the images, as in the data YAML.
        keypoints (tuple[int, int]): Number of keypoints and of numbers for each in pose labels; Ultralytics passes
            over these for detection. (0, 0) where the labels hold none.
    """

    names: Sequence[str]
    task: Task = "detect"
    imgsz: int = 640
    strides: Sequence[int] = (8, 16, 32)
    images: ImageCheck = "full"
    channels: int = 3
    keypoints: tuple[int, int] = (0, 0)


@dataclass
class SplitReport:
    """What one split holds.

    Attributes:
        images (int): Images that are listed.
        kept (int): Images that the loader keeps.
        background (int): Kept images without an object.
        lost_objects (int): Label lines of rejected images and of files without image, and boxes without area or
            outside the image.
        class_counts (np.ndarray): Objects of every class in kept images, (classes,) int64.
        objects_per_image (Counter[int]): Number of kept images by their number of objects.
        measured (bool): Whether the sizes of the images are known, and with them `size_bands`, `sizes` and `cells`.
        size_bands (np.ndarray): Objects below each border of `SIZE_BANDS` and not below the one before, then the rest.
        sizes (np.ndarray): Objects per bin of `SIZE_EDGES`.
        cells (dict[int, Counter[int]]): For every stride, the number of objects by how many centres are in the LL
            cell of theirs, their own included.
        findings (dict[str, Finding]): By kind.
    """

    images: int
    class_counts: np.ndarray
    measured: bool
    kept: int = 0
    background: int = 0
    lost_objects: int = 0
    objects_per_image: Counter[int] = field(default_factory=Counter)
    size_bands: np.ndarray = field(default_factory=lambda: np.zeros(len(SIZE_BANDS) + 1, np.int64))
    sizes: np.ndarray = field(default_factory=lambda: np.zeros(len(SIZE_EDGES) - 1, np.int64))
    cells: dict[int, Counter[int]] = field(default_factory=dict)
    findings: dict[str, Finding] = field(default_factory=lambda: defaultdict(Finding))

    @property
    def objects(self) -> int:
        """Number of objects in kept images."""
        return int(self.class_counts.sum())

    def median_objects(self) -> float:
        """Return the median number of objects per kept image; 0 without any image."""
        counts = sorted(self.objects_per_image.items())
        total = sum(number for _, number in counts)
        middle = [_nth(counts, position) for position in ((total - 1) // 2, total // 2)] if total else [0]
        return sum(middle) / len(middle)

    def most_objects(self) -> int:
        """Return the largest number of objects in one kept image."""
        return max(self.objects_per_image, default=0)

    def together(self, stride: int) -> float:
        """Return the share of objects in whose LL cell there is another object's centre, 0 to 1."""
        counts = self.cells[stride]
        return 1 - counts[1] / counts.total() if counts else 0.0

    def most_together(self, stride: int) -> int:
        """Return the largest number of centres in one LL cell."""
        return max(self.cells[stride], default=0)


@dataclass
class Inspection:
    """What a data set holds: a report per split, and images that two splits share, by the names of the two."""

    splits: dict[str, SplitReport]
    shared: dict[tuple[str, str], Finding]

    @property
    def has_errors(self) -> bool:
        """Whether training would stop, or lose images or labels."""
        return any(
            KINDS[kind].error and finding.count
            for report in self.splits.values()
            for kind, finding in report.findings.items()
        )


# ---------------------------------------------------------------------------------------------- label files


def parse_labels(text: str, classes: int, keypoints: tuple[int, int] = (0, 0)) -> Labels:
    r"""Read the text of a label file as Ultralytics' `verify_image_label` does, and say which lines it stumbles over.

    A line is `class x y width height` or `class x1 y1 x2 y2 ...`, in shares of the image. Ultralytics forgives one per
    cent beyond 0 and 1 and rejects the whole file for one line that goes further.

    Args:
        text (str): Contents of the file.
        classes (int): Number of classes.
        keypoints (tuple[int, int]): As in `Settings`.

    Returns:
        (Labels): Its objects, or the faults for which it is rejected.

    Example:
        >>> parse_labels("0 0.5 0.5 0.1 0.1", classes=1).boxes.shape
        (1, 4)
        >>> parse_labels("0 0.5 0.5 0.1 0.1\n3 0.5 0.5 0.2 0.2", classes=1).faults[0]
        Fault(kind='unknown_class', line=2, detail='class 3, the data set has 0 to 0')
    """
    rows, lines = [], []
    pose = 5 + keypoints[0] * keypoints[1]
    for number, line in enumerate(text.splitlines(), 1):
        if fields := line.split():
            rows.append(fields[:5] if len(fields) == pose else fields)
            lines.append(number)
    polygonal = any(len(fields) > 6 for fields in rows)
    values = _numbers(rows, polygonal)
    if values is None or not _acceptable(values[0], values[1], classes).all():
        found = [(line, _fault(fields, polygonal, classes)) for line, fields in zip(lines, rows, strict=True)]
        faults = tuple(Fault(fault[0], line, fault[1]) for line, fault in found if fault)
        return Labels(np.zeros(0, np.int64), np.zeros((0, 4), np.float32), (), np.zeros(0, int), len(rows), faults)
    numbers, boxes, polygons = values
    kept, duplicates, ambiguous = _repetitions(numbers, boxes, polygons)
    return Labels(
        classes=numbers[kept].astype(np.int64),
        boxes=boxes[kept],
        polygons=tuple(polygons[index] for index in kept) if polygons else (),
        lines=np.array(lines, int)[kept],
        written=len(rows),
        duplicates=tuple(lines[index] for index in duplicates),
        ambiguous=tuple(lines[index] for index in ambiguous),
    )


def _numbers(rows: list[list[str]], polygonal: bool) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]] | None:
    """Return classes (N,), boxes (N, 4) and polygons of rows, or None where some row is not made of such numbers."""
    if not all(_has_right_length(fields, polygonal) for fields in rows):
        return None
    try:
        with np.errstate(over="ignore"):  # what does not fit float32 is infinite, and refused as that
            if not polygonal:
                table = np.array(rows, np.float32).reshape(-1, 5)
                return table[:, 0], table[:, 1:], []
            classes = np.array([fields[0] for fields in rows], np.float32)
            polygons = [np.array(fields[1:], np.float32).reshape(-1, 2) for fields in rows]
    except ValueError:
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        return classes, segments2boxes(polygons), polygons


def _has_right_length(fields: list[str], polygonal: bool) -> bool:
    return len(fields) != 5 and len(fields) >= 3 and len(fields) % 2 == 1 if polygonal else len(fields) == 5


def _acceptable(classes: np.ndarray, boxes: np.ndarray, known: int) -> np.ndarray:
    """Return which rows pass: written so that NaN does not."""
    with np.errstate(invalid="ignore"):
        right_class = (classes >= 0) & (classes < known) & (classes % 1 == 0)
        return np.asarray(right_class & ((boxes >= -0.01) & (boxes <= 1.01)).all(1) & (boxes[:, 2:] >= 0).all(1))


def _fault(fields: list[str], polygonal: bool, classes: int) -> tuple[str, str] | None:
    """Return kind and description of what is wrong with a row, None where nothing is."""
    if polygonal and len(fields) == 5:
        return "malformed_label", "a box in a file of polygons"
    if not _has_right_length(fields, polygonal):
        return "malformed_label", f"{len(fields)} fields, a box has 5, a polygon 7, 9, 11, ..."
    values = _numbers([fields], polygonal)
    if values is None:
        wrong = next(word for word in fields if _numbers([[word] * 5], False) is None)
        return "malformed_label", f"'{wrong[:20]}' is not a number"
    number, box = values[0][0], values[1]
    if not np.isfinite(box).all():
        return "malformed_label", "coordinates that are not finite"
    if not _acceptable(np.zeros(1), box, 1).all():
        x, y, width, height = (f"{value:g}" for value in box[0])
        return "malformed_label", f"box x={x} y={y} w={width} h={height}, must be shares of the image, 0 to 1"
    if number == number // 1 and number >= classes:
        return "unknown_class", f"class {number:.0f}, the data set has 0 to {classes - 1}"
    if not (number >= 0 and number % 1 == 0):
        return "malformed_label", f"class {number:g}, must be a whole number from 0"
    return None


def _repetitions(
    classes: np.ndarray, boxes: np.ndarray, polygons: list[np.ndarray]
) -> tuple[list[int], list[int], list[int]]:
    """Return the indices of rows to keep, of repeated ones, and of those kept that give a box a second class."""
    shapes = [polygon.tobytes() for polygon in polygons] if polygons else [row.tobytes() for row in boxes + 0.0]
    if len(set(shapes)) == len(shapes):
        return list(range(len(shapes))), [], []
    first: dict[bytes, set[float]] = {}
    kept, duplicates, ambiguous = [], [], []
    for index, (shape, number) in enumerate(zip(shapes, classes.tolist(), strict=True)):
        seen = first.setdefault(shape, set())
        if number in seen:
            duplicates.append(index)
            continue
        if seen:
            ambiguous.append(index)
        kept.append(index)
        seen.add(number)
    return kept, duplicates, ambiguous


# --------------------------------------------------------------------------------------------------- images


@dataclass(frozen=True)
class _Picture:
    """What was found out about an image: width and height in pixels, and a kind of `KINDS` with what is wrong."""

    size: tuple[int, int] | None = None
    kind: str | None = None
    detail: str = ""

    @property
    def rejected(self) -> bool:
        return self.kind is not None and KINDS[self.kind].error


def _look_at_image(path: Path, settings: Settings) -> _Picture:
    """Check an image as Ultralytics' `check_image` does, without mending it, and decode it where that is wanted."""
    if not path.is_file():
        return _Picture(kind="missing_image")
    if settings.images == "none":
        return _Picture()
    try:
        # Ultralytics' own `Image.open` tries to install a package when Pillow does not know a format.
        known = path.suffix.lower() in {".avif", ".heic", ".heif"} or cv2.haveImageReader(str(path))
        if not known and str(path).isascii():  # OpenCV opens no other paths on Windows
            return _Picture(
                kind="unreadable_image", detail="empty" if not path.stat().st_size else "no known image format"
            )
        with Image.open(path) as image:
            form = str(image.format).lower()
            image.verify()
            width, height = exif_size(image)
        if min(width, height) < 10:
            return _Picture(kind="unreadable_image", detail=f"{width} x {height} pixels, must be at least 10")
        if form not in IMG_FORMATS | {"jpeg2000"}:
            return _Picture(kind="unreadable_image", detail=f"is a {form} file, which Ultralytics does not read")
    except Exception as error:  # Pillow raises a dozen kinds, by format
        return _Picture(kind="unreadable_image", detail=_first_line(error))
    unfinished = form in {"jpg", "jpeg"} and not _ends_as_jpeg(path)
    full = settings.images == "full"
    try:
        # Neither `verify` nor every release of OpenCV tells that pixels are missing; Pillow's decoder does. PNGs are
        # verified whole, and a JPEG that ends properly is decoded by OpenCV alone.
        if unfinished or (full and form not in {"jpg", "jpeg", "png"}):
            with Image.open(path) as image:
                image.load()
    except Exception as error:
        return _Picture(kind="truncated_image", detail=_first_line(error))
    if full:
        try:
            decoded = imread(str(path), _decoder_flag(settings.channels))
        except cv2.error as error:
            return _Picture(kind="undecodable_image", detail=_first_line(error))
        if decoded is None:
            return _Picture(kind="undecodable_image", detail="Pillow reads it, OpenCV does not")
    return _Picture((width, height), "unfinished_jpeg" if unfinished else None)


def _decoder_flag(channels: int) -> int:
    return {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR}.get(channels, cv2.IMREAD_UNCHANGED)


def _ends_as_jpeg(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-2, os.SEEK_END)
        return file.read() == b"\xff\xd9"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__


# ------------------------------------------------------------------------------------------------ one split


def inspect_dataset(splits: Mapping[str, Split], settings: Settings, root: Path | None = None) -> Inspection:
    """Go through all images and labels of a data set, in threads; memory does not grow with the number of objects.

    Args:
        splits (Mapping[str, Split]): Splits by name; `train` must have label files.
        settings (Settings): What to look for.
        root (Path | None): Folder that files are named relative to, where they lie below it.

    Returns:
        (Inspection): What was found.

    Example:
        >>> inspect_dataset({"val": Split([])}, Settings(names=["ship"])).splits["val"].findings["no_images"].count
        1
    """
    reports: dict[str, SplitReport] = {}
    total = sum(len(split.images) for split in splits.values())
    progress = TQDM(total=total, desc="Checking images and labels", unit="image", file=sys.stderr)
    with _threads() as pool:
        for name, split in splits.items():
            reports[name] = _inspect_split(name, split, settings, root, pool, progress)
        progress.close()
        for name, path, objects in _labels_without_image(splits):
            place = Place(_relative(path, root), None, f"{objects} objects")
            reports[name].findings["label_without_image"].add(place)
            reports[name].lost_objects += objects
        shared = _shared_images(splits, settings.images != "none", root, pool)
    return Inspection(reports, shared)


@contextmanager
def _threads() -> Iterator[ThreadPool]:
    """Give threads that have ended when the block has, however it ends.

    Python aborts where it shuts down while a thread is inside of OpenCV, as after an interrupt.
    """
    with ThreadPool(min(8, os.cpu_count() or 1)) as pool:
        try:
            yield pool
        finally:
            pool.terminate()
            pool.join()


@dataclass(frozen=True)
class _Look:
    """What a thread finds out about one image and its labels."""

    image: Path
    label: Path
    picture: _Picture
    labels: Labels | None  # None where there is no label file
    sides: np.ndarray  # (N,) square roots of areas in pixels; empty where the size of the image is unknown
    together: dict[int, np.ndarray]  # by stride: numbers of centres (N,) in the cell of each object
    smallest: np.ndarray  # (N,) smaller sides of boxes, in pixels


def _inspect_split(
    name: str, split: Split, settings: Settings, root: Path | None, pool: ThreadPool, progress: TQDM
) -> SplitReport:
    report = SplitReport(
        images=len(split.images),
        class_counts=np.zeros(len(settings.names), np.int64),
        measured=settings.images != "none",
        cells={stride: Counter() for stride in settings.strides},
    )
    has_label_file = False
    for start in range(0, len(split.images), _CHUNK):
        chunk = split.images[start : start + _CHUNK]
        labels = map(Path, img2label_paths([str(image) for image in chunk]))
        for look in pool.starmap(partial(_look, settings), zip(chunk, labels, strict=True), chunksize=16):
            has_label_file |= look.labels is not None and not look.picture.rejected
            _enter(look, report, settings, root)
        progress.update(len(chunk))
    findings = report.findings
    if not split.images:
        findings["no_images"].add(Place(name, None, ""))
    elif not report.kept:
        findings["no_usable_images"].add(Place(name, None, ""))
    elif name == "train" and not has_label_file:
        expected = img2label_paths([str(split.images[0])])[0]
        findings["no_label_files"].add(Place(name, None, f"expected for example {_relative(Path(expected), root)}"))
    if report.kept:
        for index in np.flatnonzero(report.class_counts == 0).tolist():
            findings["class_without_object"].add(Place("", None, f"{name}: class {index} {settings.names[index]}"))
    return report


def _look(settings: Settings, image: Path, label: Path) -> _Look:
    """Read one image and its label file; runs in a thread."""
    picture = _look_at_image(image, settings)
    labels = _read_labels(label, settings)
    sides = smallest = np.zeros(0)
    together: dict[int, np.ndarray] = {}
    if labels is not None and picture.size is not None and len(labels.classes):
        scale = np.array(picture.size) * (settings.imgsz / max(picture.size))  # pixels per share of the image
        extents = labels.boxes[:, 2:] * scale
        smallest = extents.min(1)
        if settings.task == "obb" and labels.polygons:
            extents = np.array([_rectangle(polygon * scale) for polygon in labels.polygons])
        sides = np.sqrt(extents.prod(1))
        centres = labels.boxes[:, :2] * scale + (settings.imgsz - scale) / 2
        together = {stride: _centres_per_cell(centres, settings.imgsz, stride) for stride in settings.strides}
    return _Look(image, label, picture, labels, sides, together, smallest)


def _read_labels(path: Path, settings: Settings) -> Labels | None:
    if not path.is_file():
        return None
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        fault = Fault("unreadable_label", None, getattr(error, "strerror", None) or f"is not UTF-8 ({error.args[-1]})")
        return Labels(np.zeros(0, np.int64), np.zeros((0, 4), np.float32), (), np.zeros(0, int), 0, (fault,))
    return parse_labels(text, len(settings.names), settings.keypoints)


def _rectangle(polygon: np.ndarray) -> tuple[float, float]:
    """Return width and height of the smallest rectangle around points (K, 2), as Ultralytics makes oriented boxes."""
    _, extent, _ = cv2.minAreaRect(polygon.astype(np.float32))
    return float(extent[0]), float(extent[1])


def _centres_per_cell(centres: np.ndarray, imgsz: int, stride: int) -> np.ndarray:
    """Return how many centres (N, 2), in pixels, lie in the LL cell of each: the grid that DISW is built on.

    Haar halves a level's map of imgsz / stride cells, rounding up, so that a cell spans 2 * stride pixels where the
    map has an even number of cells.
    """
    grid = (imgsz // stride + 1) // 2
    cells = np.clip(np.floor(centres * (grid / imgsz)), 0, grid - 1).astype(np.int64)
    numbers = cells[:, 1] * grid + cells[:, 0]
    _, numbers, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    return np.asarray(counts[numbers])


def _enter(look: _Look, report: SplitReport, settings: Settings, root: Path | None) -> None:
    """Add what was found about one image to the report of its split."""
    findings, labels = report.findings, look.labels
    file = partial(_relative, root=root)
    if look.picture.kind:
        findings[look.picture.kind].add(Place(file(look.image), None, look.picture.detail))
    for fault in labels.faults if labels else ():
        findings[fault.kind].add(Place(file(look.label), fault.line, fault.detail))
    if look.picture.rejected or (labels and labels.faults):
        report.lost_objects += labels.written if labels else 0
        return
    if labels is None:
        findings["image_without_label"].add(Place(file(look.image), None, ""))
    number = 0 if labels is None else len(labels.classes)
    report.kept += 1
    report.background += number == 0
    report.objects_per_image[number] += 1
    if labels is None or not number:
        return
    report.class_counts += np.bincount(labels.classes, minlength=len(settings.names))
    for kind, lines in (("duplicate_label", labels.duplicates), ("ambiguous_box", labels.ambiguous)):
        for line in lines:
            findings[kind].add(Place(file(look.label), line, ""))
    if settings.task == "obb" and not labels.polygons:
        findings["box_instead_of_polygon"].add(Place(file(look.label), None, "4 numbers per object, expected corners"))
    for kind, index, detail in _odd_boxes(look, labels, settings):
        findings[kind].add(Place(file(look.label), int(labels.lines[index]), detail))
        report.lost_objects += KINDS[kind].error
    report.size_bands += np.bincount(np.digitize(look.sides, SIZE_BANDS), minlength=len(SIZE_BANDS) + 1)
    report.sizes += np.histogram(np.clip(look.sides, SIZE_EDGES[0], SIZE_EDGES[-1]), SIZE_EDGES)[0]
    for stride, counts in look.together.items():
        report.cells[stride].update(counts.tolist())


def _odd_boxes(look: _Look, labels: Labels, settings: Settings) -> Iterator[tuple[str, int, str]]:
    """Yield kind, index and description of boxes without area, outside or beyond the image, too small, or doubled."""
    centre, extent = labels.boxes[:, :2].astype(np.float64), labels.boxes[:, 2:].astype(np.float64)
    low, high = centre - extent / 2, centre + extent / 2
    flat = (extent == 0).any(1)
    if len(look.sides):
        flat |= look.sides == 0  # corners on one slanted line have a hull
    outside = ~flat & ((high <= 0) | (low >= 1)).any(1)
    beyond = ~flat & ~outside & ((low < -_TOLERANCE) | (high > 1 + _TOLERANCE)).any(1)
    vanishing = ~flat & ~outside & (look.smallest <= _VANISHING) if len(look.smallest) else np.zeros_like(flat)
    for index in np.flatnonzero(flat).tolist():
        yield "box_without_area", index, "{:g} x {:g} of the image".format(*extent[index])
    for index in np.flatnonzero(outside).tolist():
        yield "box_outside", index, "centre at {:g}, {:g}".format(*centre[index])
    for index in np.flatnonzero(beyond).tolist():
        yield "box_beyond_edge", index, "from {:.4f}, {:.4f} to {:.4f}, {:.4f}".format(*low[index], *high[index])
    for index in np.flatnonzero(vanishing).tolist():
        yield "vanishing_box", index, f"{look.smallest[index]:.2f} px at imgsz={settings.imgsz}"
    for index, other in sorted(_near_duplicates(labels.classes, centre, extent).items()):
        yield "near_duplicate", index, f"as line {labels.lines[other]}"


def _near_duplicates(classes: np.ndarray, centre: np.ndarray, extent: np.ndarray) -> dict[int, int]:
    """Return the indices of boxes (N, 2) that are nearly an earlier one of their class, with the index of that."""
    order = np.argsort(centre[:, 0], kind="stable")
    found: dict[int, int] = {}
    start, step = np.arange(len(order)), 0
    while True:  # sorted by x, the partners of a box come right after it
        step += 1
        start = start[start + step < len(order)]
        one, two = order[start], order[start + step]
        near = centre[two, 0] - centre[one, 0] <= 0.25 * extent[one, 0]
        start, one, two = start[near], one[near], two[near]
        if not len(start):
            return found
        reach, shift = extent[one] + extent[two], np.abs(centre[two] - centre[one])
        overlap = np.clip(reach / 2 - shift, 0, np.minimum(extent[one], extent[two])).prod(1)
        union = extent[one].prod(1) + extent[two].prod(1) - overlap
        alike = (overlap >= _ALIKE * union) & (overlap > 0) & (classes[one] == classes[two])
        for pair in zip(one[alike].tolist(), two[alike].tolist(), strict=True):
            found.setdefault(max(pair), min(pair))


# ----------------------------------------------------------------------------------------- across the splits


def _labels_without_image(splits: Mapping[str, Split]) -> Iterator[tuple[str, Path, int]]:
    """Yield split, path and number of objects of label files where the folder of the images has none of that name."""
    claimed: set[str] = set()
    folders: dict[Path, tuple[str, Path]] = {}  # label folders: split, folder of the images
    for name, split in splits.items():
        labels = img2label_paths([str(image) for image in split.images])
        claimed.update(labels)
        for image, label in zip(split.images, labels, strict=True):
            folders.setdefault(Path(label).parent, (name, image.parent))
        for folder in split.folders:
            top = Path(img2label_paths([str(folder / "any.jpg")])[0]).parent
            # Not `Path.rglob`, which passes over linked folders: Ultralytics follows them.
            for below in glob.glob(f"{glob.escape(str(top))}/**/", recursive=True):  # noqa: PTH207
                folders.setdefault(Path(below), (name, folder / os.path.relpath(below, top)))
    for labels_in, (name, images_in) in folders.items():
        unclaimed = [path for path in sorted(labels_in.glob("*.txt")) if str(path) not in claimed]
        if not unclaimed:
            continue
        stems = {path.stem for path in images_in.glob("*.*") if path.suffix[1:].lower() in IMG_FORMATS}
        for path in unclaimed:
            if path.stem not in stems and (objects := _number_of_labels(path)):
                yield name, path, objects


def _number_of_labels(path: Path) -> int:
    """Return the number of lines of a label file; 0 where it begins with something else, such as class names."""
    try:
        rows = [row for line in path.read_bytes().decode("utf-8-sig").splitlines() if (row := line.split())]
        values = [float(word) for word in rows[0]] if rows else []
    except (OSError, ValueError):
        return 0
    return len(rows) if len(values) >= 5 else 0


def _shared_images(
    splits: Mapping[str, Split], compare_bytes: bool, root: Path | None, pool: ThreadPool
) -> dict[tuple[str, str], Finding]:
    """Find images that are in two splits: the same file, by whatever path, or another one of the same bytes."""
    files: dict[tuple[int, int], dict[str, Path]] = defaultdict(dict)  # device and inode: path by split
    sizes: dict[int, dict[tuple[int, int], None]] = defaultdict(dict)  # bytes: files, in order
    for name, split in splits.items():
        for image in split.images:
            try:
                status = image.stat()
            except OSError:
                continue
            if status.st_size:
                identity = (status.st_dev, status.st_ino)
                files[identity].setdefault(name, image)
                sizes[status.st_size][identity] = None
    alike = {
        identity: next(iter(files[identity].values()))
        for same_size in sizes.values()
        if compare_bytes and len(same_size) > 1 and len({name for member in same_size for name in files[member]}) > 1
        for identity in same_size
    }
    groups: dict[object, list[tuple[int, int]]] = defaultdict(list)
    progress = TQDM(total=len(alike), desc="Comparing images", unit="image", file=sys.stderr) if alike else None
    for identity, digest in zip(alike, pool.imap(_digest, alike.values()), strict=True):
        groups[digest or identity].append(identity)
        if progress:
            progress.update(1)
    if progress:
        progress.close()
    for identity in files.keys() - alike.keys():
        groups[identity].append(identity)

    shared = {pair: Finding() for pair in combinations(splits, 2)}
    for group in groups.values():
        members: dict[str, tuple[Path, tuple[int, int]]] = {}
        for identity in group:
            for name, path in files[identity].items():
                members.setdefault(name, (path, identity))
        for pair in combinations((name for name in splits if name in members), 2):
            (path, identity), (other, other_identity) = members[pair[0]], members[pair[1]]
            how = "the same file" if identity == other_identity else "the same bytes"
            shared[pair].add(Place(_relative(path, root), None, f"{how} as {_relative(other, root)}"))
    return {pair: finding for pair, finding in shared.items() if finding.count}


def _digest(path: Path) -> bytes | None:
    """Return the hash of a file, None where it cannot be read."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError:
        return None
    return digest.digest()


def _relative(path: Path, root: Path | None) -> str:
    """Return a path, with forward slashes, relative to the root of the data set where it lies below it."""
    return (path.relative_to(root) if root is not None and path.is_relative_to(root) else path).as_posix()


def _nth(counts: list[tuple[int, int]], position: int) -> int:
    """Return the value at a position, from 0, of a sorted list given as (value, how often)."""
    for value, number in counts:
        if position < number:
            return value
        position -= number
    raise IndexError(position)
