"""Reads all images and labels of one split, in threads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path

import cv2
import numpy as np
from ultralytics.data.utils import img2label_paths
from ultralytics.utils import TQDM

from ds2d2_yolo.data.check.findings import KINDS, VANISHING, Place, shown_path
from ds2d2_yolo.data.check.images import ImageFacts, image_facts
from ds2d2_yolo.data.check.labels import Labels, number_of_labels, read_labels
from ds2d2_yolo.data.check.report import SIZE_BANDS, SIZE_EDGES, SplitReport
from ds2d2_yolo.data.check.settings import UNLABELED_SPLIT, Settings, Split

_TOLERANCE = 1e-3  # of the image's side: some labels have only three decimals
_ALIKE = 0.8  # intersection over union
_CHUNK = 256  # images per step: limits the memory of the results


@dataclass(frozen=True)
class _Sample:
    """What a thread reads of one image and its labels."""

    image: Path
    label: Path
    facts: ImageFacts
    labels: Labels | None  # None without a label file
    sides: np.ndarray  # (N,) square roots of areas in pixels; empty if the image's size is unknown
    in_cell: dict[int, np.ndarray]  # by stride: number of centres in the cell of each object (N,)
    smallest: np.ndarray  # (N,) smaller sides of boxes, in pixels


def inspect_split(
    name: str, split: Split, settings: Settings, root: Path | None, pool: ThreadPool, progress: TQDM
) -> SplitReport:
    """Read all images and labels of a split, in threads."""
    report = SplitReport(
        images=len(split.images),
        class_counts=np.zeros(len(settings.names), np.int64),
        measured=settings.images != "none",
        cells={stride: Counter() for stride in settings.strides},
    )
    has_label_file = False
    image_of: dict[Path, Path] = {}  # by label file
    for start in range(0, len(split.images), _CHUNK):
        chunk = split.images[start : start + _CHUNK]
        labels = map(Path, img2label_paths([str(image) for image in chunk]))
        for sample in pool.starmap(partial(_read_sample, settings), zip(chunk, labels, strict=True), chunksize=16):
            if name == UNLABELED_SPLIT:
                _enter_image(sample, report, root)
                continue
            has_label_file |= sample.labels is not None and not sample.facts.rejected
            _enter(sample, report, settings, root)
            _enter_repeated(sample, image_of.get(sample.label), report, root)
            image_of.setdefault(sample.label, sample.image)
        progress.update(len(chunk))
    findings = report.findings
    if not split.images:
        findings["no_images"].add(Place(name, None, ""))
    elif not report.kept:
        findings["no_usable_images"].add(Place(name, None, ""))
    elif name == "train" and not has_label_file:
        expected = img2label_paths([str(split.images[0])])[0]
        findings["no_label_files"].add(Place(name, None, f"expected for example {shown_path(Path(expected), root)}"))
    elif name in {"train", "val"} and not report.objects:
        findings["no_objects"].add(Place(name, None, ""))
    if report.kept and name != UNLABELED_SPLIT:
        for index in np.flatnonzero(report.class_counts == 0).tolist():
            findings["class_without_object"].add(Place("", None, f"{name}: class {index} {settings.names[index]}"))
    return report


def _enter_image(sample: _Sample, report: SplitReport, root: Path | None) -> None:
    """Add an image of the split without labels to its report."""
    if sample.facts.kind:
        report.findings[sample.facts.kind].add(Place(shown_path(sample.image, root), None, sample.facts.detail))
    if not sample.facts.rejected:
        report.kept += 1
        report.background += 1
        report.objects_per_image[0] += 1


def _enter_repeated(sample: _Sample, first: Path | None, report: SplitReport, root: Path | None) -> None:
    """Report an image that is listed twice, or that has the same label file as an earlier image."""
    if first == sample.image:
        report.findings["listed_twice"].add(Place(shown_path(sample.image, root), None, ""))
    elif first is not None and sample.labels is not None:
        place = Place(shown_path(sample.image, root), None, f"as {shown_path(first, root)}")
        report.findings["shared_label"].add(place)


def _read_sample(settings: Settings, image: Path, label: Path) -> _Sample:
    """Read one image and its label file, in a thread."""
    facts = image_facts(image, settings.channels, settings.images)
    labels = read_labels(label, len(settings.names), settings.keypoints)
    sides = smallest = np.zeros(0)
    in_cell: dict[int, np.ndarray] = {}
    if labels is not None and facts.size is not None and len(labels.classes):
        scale = np.array(facts.size) * (settings.imgsz / max(facts.size))  # pixels per share of the image
        extents = labels.boxes[:, 2:] * scale
        smallest = extents.min(1)
        if settings.task == "obb" and labels.polygons:
            extents = np.array([_rectangle(polygon * scale) for polygon in labels.polygons])
        sides = np.sqrt(extents.prod(1))
        centres = labels.boxes[:, :2] * scale + (settings.imgsz - scale) / 2
        in_cell = {stride: _centres_per_cell(centres, settings.imgsz, stride) for stride in settings.strides}
    return _Sample(image, label, facts, labels, sides, in_cell, smallest)


def _rectangle(polygon: np.ndarray) -> tuple[float, float]:
    """Return width and height of the smallest rectangle around points (K, 2), as in Ultralytics' oriented boxes."""
    _, extent, _ = cv2.minAreaRect(polygon.astype(np.float32))
    return float(extent[0]), float(extent[1])


def _centres_per_cell(centres: np.ndarray, imgsz: int, stride: int) -> np.ndarray:
    """Return for each centre (N, 2), in pixels, the number of centres in its LL cell: the grid of DISW.

    Haar halves a level's map of imgsz / stride cells and rounds up. A cell is 2 * stride pixels wide if the map has an
    even number of cells.
    """
    grid = (imgsz // stride + 1) // 2
    cells = np.clip(np.floor(centres * (grid / imgsz)), 0, grid - 1).astype(np.int64)
    numbers = cells[:, 1] * grid + cells[:, 0]
    _, numbers, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    return np.asarray(counts[numbers])


def _enter(sample: _Sample, report: SplitReport, settings: Settings, root: Path | None) -> None:
    """Add the results of one image to the report of its split."""
    findings, labels = report.findings, sample.labels
    if sample.facts.kind:
        findings[sample.facts.kind].add(Place(shown_path(sample.image, root), None, sample.facts.detail))
    for fault in labels.faults if labels else ():
        findings[fault.kind].add(Place(shown_path(sample.label, root), fault.line, fault.detail))
    if sample.facts.rejected or (labels and labels.faults):
        report.lost_objects += labels.written if labels else 0
        return
    if labels is None:
        _enter_unlabelled(sample, report, root)
    number = 0 if labels is None else len(labels.classes)
    report.kept += 1
    report.background += number == 0
    report.objects_per_image[number] += 1
    if labels is not None and number:
        _enter_objects(sample, labels, report, settings, shown_path(sample.label, root))


def _enter_unlabelled(sample: _Sample, report: SplitReport, root: Path | None) -> None:
    """Add an image without label file to the report of its split. Labels beside the image are never read."""
    beside = sample.image.with_suffix(".txt")
    lost = number_of_labels(beside) if beside != sample.label else 0
    if lost:
        detail = f"{lost} objects, expected in {shown_path(sample.label, root)}"
        report.findings["label_beside_image"].add(Place(shown_path(beside, root), None, detail))
        report.lost_objects += lost
    else:
        report.findings["image_without_label"].add(Place(shown_path(sample.image, root), None, ""))


def _enter_objects(sample: _Sample, labels: Labels, report: SplitReport, settings: Settings, file: str) -> None:
    """Add the objects of one image and their findings to the report of its split."""
    findings = report.findings
    report.class_counts += np.bincount(labels.classes, minlength=len(settings.names))
    for kind, lines in (("duplicate_label", labels.duplicates), ("ambiguous_box", labels.ambiguous)):
        for line in lines:
            findings[kind].add(Place(file, line, ""))
    if settings.task == "obb" and not labels.polygons:
        findings["box_instead_of_polygon"].add(Place(file, None, "4 numbers per object, expected corners"))
    for kind, index, detail in _suspicious_boxes(sample, labels, settings):
        findings[kind].add(Place(file, int(labels.lines[index]), detail))
        report.lost_objects += KINDS[kind].error
    report.size_bands += np.bincount(np.digitize(sample.sides, SIZE_BANDS), minlength=len(SIZE_BANDS) + 1)
    report.sizes += np.histogram(np.clip(sample.sides, SIZE_EDGES[0], SIZE_EDGES[-1]), SIZE_EDGES)[0]
    for stride, counts in sample.in_cell.items():
        report.cells[stride].update(counts.tolist())


def _suspicious_boxes(sample: _Sample, labels: Labels, settings: Settings) -> Iterator[tuple[str, int, str]]:
    """Yield kind, index and description of boxes without area, outside the image, too small, or repeated."""
    centre, extent = labels.boxes[:, :2].astype(np.float64), labels.boxes[:, 2:].astype(np.float64)
    low, high = centre - extent / 2, centre + extent / 2
    flat = (extent == 0).any(1)
    if len(sample.sides):
        flat |= sample.sides == 0  # corners on one slanted line have a hull, but no area
    outside = ~flat & ((high <= 0) | (low >= 1)).any(1)
    beyond = ~flat & ~outside & ((low < -_TOLERANCE) | (high > 1 + _TOLERANCE)).any(1)
    vanishing = ~flat & ~outside & (sample.smallest <= VANISHING) if len(sample.smallest) else np.zeros_like(flat)
    for index in np.flatnonzero(flat).tolist():
        yield "box_without_area", index, "{:g} x {:g} of the image".format(*extent[index])
    for index in np.flatnonzero(outside).tolist():
        yield "box_outside", index, "centre at {:g}, {:g}".format(*centre[index])
    for index in np.flatnonzero(beyond).tolist():
        yield "box_beyond_edge", index, "from {:.4f}, {:.4f} to {:.4f}, {:.4f}".format(*low[index], *high[index])
    for index in np.flatnonzero(vanishing).tolist():
        yield "vanishing_box", index, f"{sample.smallest[index]:.2f} px at imgsz={settings.imgsz}"
    for index, other in sorted(_near_duplicates(labels.classes, centre, extent).items()):
        yield "near_duplicate", index, f"as line {labels.lines[other]}"


def _near_duplicates(classes: np.ndarray, centre: np.ndarray, extent: np.ndarray) -> dict[int, int]:
    """Return the indices of boxes (N, 2) that nearly equal an earlier box of their class, with its index."""
    order = np.argsort(centre[:, 0], kind="stable")
    found: dict[int, int] = {}
    start, step = np.arange(len(order)), 0
    while True:  # sorted by x: similar boxes follow directly
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
