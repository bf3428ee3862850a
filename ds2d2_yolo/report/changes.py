"""Compares the detections of two detectors, image by image."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from ds2d2_yolo.data.coco_truth import COCOAnnotation, COCODetection, COCOTruth
from ds2d2_yolo.evaluation.matching import match
from ds2d2_yolo.explanation.images import InputImage, read_rgb
from ds2d2_yolo.report.detections import draw_sides, draw_table
from ds2d2_yolo.report.page import Grid, Heading, Paragraph, Part, Picture

_SHOWN = 3  # images with the largest changes, in each direction
_ROWS = 6  # images that show all detectors


@dataclass(frozen=True)
class Pairing:
    """Detections of two detectors in the same images.

    Attributes:
        label (str): Name of the pair, such as `seed 0`; may be empty.
        truth (COCOTruth): COCO data set.
        new (Sequence[COCODetection]): COCO detections of the detector that count.
        old (Sequence[COCODetection]): COCO detections of the baseline that count.
    """

    label: str
    truth: COCOTruth
    new: Sequence[COCODetection]
    old: Sequence[COCODetection]

    @classmethod
    def of_folders(cls, label: str, new: Path, old: Path, confidence: float) -> Pairing:
        """Return the pair from the saved detections of two evaluations, for detections of a lowest score."""
        truth = json.loads((new / "ground_truth.json").read_text(encoding="utf-8"))
        return cls(label, truth, *(read_detections(side / "predictions.json", confidence) for side in (new, old)))


def read_detections(path: Path, confidence: float) -> list[COCODetection]:
    """Read the saved detections of an evaluation. Those that do not count never fill the memory: most are unlikely.

    Args:
        path (Path): `predictions.json` of the evaluation.
        confidence (float): Lowest score of a detection that counts.

    Returns:
        (list[COCODetection]): The COCO detections that count.
    """
    text = path.read_text(encoding="utf-8")
    items = json.loads(text, object_hook=lambda item: item if item["score"] >= confidence else None)
    return [item for item in items if item is not None]


def changes_by_image(
    truth: COCOTruth,
    student: Sequence[COCODetection],
    baseline: Sequence[COCODetection],
) -> list[tuple[str, float]]:
    """Return the change of the F1 score from a baseline to a student, for each image.

    Args:
        truth (COCOTruth): COCO data set.
        student (Sequence[COCODetection]): COCO detections of the student that count.
        baseline (Sequence[COCODetection]): COCO detections of the baseline that count.

    Returns:
        (list[tuple[str, float]]): File and change of the F1 score, 2 hits / (2 hits + false alarms + misses), at IoU
            0.5, the largest first. Images without objects and detections are left out.

    Example:
        >>> box = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}
        >>> truth = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [box]}
        >>> changes_by_image(truth, [{**box, "score": 0.9}], [])
        [('a.png', 1.0)]
    """
    objects = by_image(truth["annotations"])
    sides = [by_image(found) for found in (student, baseline)]
    changes = []
    for image in truth["images"]:
        number = image["id"]
        if number in objects or any(number in side for side in sides):
            new, old = (_f1(side[number], objects[number]) for side in sides)
            changes.append((str(image["file_name"]), new - old))
    return sorted(changes, key=lambda pair: -pair[1])


def show_changes(pairings: Sequence[Pairing], titles: tuple[str, str], confidence: float, root: Path) -> list[Part]:
    """Return the images in which a detector is better or worse than a baseline, for a page.

    Args:
        pairings (Sequence[Pairing]): Detections of both, once per seed. Images are sorted by their mean change.
        titles (tuple[str, str]): Names of the baseline and of the other detector.
        confidence (float): Lowest score of these detections, for the text.
        root (Path): Folder of the data set; names of image files are relative to it.

    Returns:
        (list[Part]): Parts of the page.

    Raises:
        DS2D2Error: If an image cannot be read.
    """
    changes = [dict(changes_by_image(pairing.truth, pairing.new, pairing.old)) for pairing in pairings]
    files = dict.fromkeys(file for by_file in changes for file in by_file)
    means = {file: fmean(by_file.get(file, 0.0) for by_file in changes) for file in files}
    order = sorted(means, key=lambda file: -means[file])
    better, worse = ([file for file in order if sign * means[file] > 0] for sign in (1, -1))
    whose = "" if len(pairings) == 1 else f", mean over {len(pairings)} seeds"
    parts: list[Part] = [
        Paragraph(
            f"{titles[1]} is better than {titles[0]} on {len(better)} of {len(order)} images, and worse on "
            f"{len(worse)}. Measure: the F1 score, by boxes at IoU 0.5, of detections with a confidence of "
            f"{confidence:g} or more{whose}."
        )
    ]
    for heading, chosen in (("Largest gains", better[:_SHOWN]), ("Largest losses", worse[::-1][:_SHOWN])):
        pictures = []
        for file in chosen:
            # The most typical of several seeds, not the most impressive
            index = min(range(len(pairings)), key=lambda index: abs(changes[index].get(file, 0.0) - means[file]))
            pairing = pairings[index]
            seed = f"; shown: {pairing.label}, {changes[index].get(file, 0.0):+.2f}" if pairing.label else ""
            png = _draw_change(pairing, file, titles, root)
            pictures.append(Picture(png, f"Detections in {file}", f"{file}: F1 {means[file]:+.2f}{seed}"))
        if pictures:
            parts += [Heading(heading), Grid(pictures)]
    return parts


def show_detections(
    truth: COCOTruth, found: Mapping[str, Sequence[COCODetection]], confidence: float, root: Path
) -> list[Part]:
    """Return the detections of several detectors in a few images, one row per image, for a page.

    Args:
        truth (COCOTruth): COCO data set. The images with objects are chosen at even distances.
        found (Mapping[str, Sequence[COCODetection]]): COCO detections by the title of their column.
        confidence (float): Lowest score of these detections, for the text.
        root (Path): Folder of the data set; names of image files are relative to it.

    Returns:
        (list[Part]): Parts of the page.

    Raises:
        DS2D2Error: If an image cannot be read.
    """
    objects = by_image(truth["annotations"])
    files = {image["id"]: str(image["file_name"]) for image in truth["images"] if image["id"] in objects}
    chosen = list(files)[:: max(len(files) // _ROWS, 1)][:_ROWS]
    if not chosen:
        return []
    names = [category["name"] for category in truth["categories"]]
    images = [_labelled(root / files[number], objects[number]) for number in chosen]
    sides = {title: by_image(side) for title, side in found.items()}
    table = draw_table(images, {title: [side[number] for number in chosen] for title, side in sides.items()}, names)
    caption = f"Detections with a confidence of {confidence:g} or more. Images were chosen at even distances."
    return [Picture(table, f"Detections of {', '.join(found)} in {len(chosen)} images", caption)]


def _labelled(path: Path, objects: np.ndarray) -> InputImage:
    """Return an image with its objects of the ground truth: its label file may have others, as of other classes."""
    return InputImage(path, read_rgb(path), objects[:, :-2], objects[:, -1].astype(int), labelled=True)


def _draw_change(pairing: Pairing, file: str, titles: tuple[str, str], root: Path) -> bytes:
    """Return the detections of both detectors in an image, as a PNG. Arguments are those of `show_changes`."""
    number = next(image["id"] for image in pairing.truth["images"] if str(image["file_name"]) == file)
    objects, *sides = (by_image(items)[number] for items in (pairing.truth["annotations"], pairing.old, pairing.new))
    names = [category["name"] for category in pairing.truth["categories"]]
    return draw_sides(_labelled(root / file, objects), dict(zip(titles, sides, strict=True)), names)


def by_image(items: Sequence[COCOAnnotation] | Sequence[COCODetection]) -> dict[int, np.ndarray]:
    """Return rows (N, 6) by image, by decreasing score: xyxy pixels, score (1 for objects), class index.

    Oriented boxes have rows (N, 7): xywhr in pixels and radians, score, class index.
    """
    rows: dict[int, list[list[object]]] = defaultdict(list)
    columns = 6
    for item in items:
        x, y, width, height = item["bbox"]
        box = item.get("rbox") or [x, y, x + width, y + height]
        rows[item["image_id"]].append([*box, item.get("score", 1.0), item["category_id"] - 1])
        columns = len(box) + 2
    arrays: dict[int, np.ndarray] = defaultdict(lambda: np.zeros((0, columns)))
    for image, items_of_image in rows.items():
        array = np.array(items_of_image, float)
        arrays[image] = array[np.argsort(-array[:, -2], kind="stable")]
    return arrays


def _f1(found: np.ndarray, objects: np.ndarray) -> float:
    hit, _ = match(found[:, :-2], found[:, -1].astype(int), objects[:, :-2], objects[:, -1].astype(int))
    return 2 * int(hit.sum()) / max(len(found) + len(objects), 1)
