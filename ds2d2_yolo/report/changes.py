"""What changed between two detectors, image by image."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from ds2d2_yolo.explanation.explainer import Picture, read_picture
from ds2d2_yolo.report import html
from ds2d2_yolo.report.detections import match_detections
from ds2d2_yolo.report.figures import Canvas, outcome_legend
from ds2d2_yolo.report.sheet import draw_outcomes

_SHOWN = 3  # images that changed most, each way


@dataclass(frozen=True)
class Pairing:
    """What two detectors have found in the same images.

    Attributes:
        label (str): Which pair it is, such as `seed 0`; may be empty.
        truth (Mapping[str, Any]): COCO data set.
        new (Sequence[Mapping[str, Any]]): COCO detections of the one that is looked at.
        old (Sequence[Mapping[str, Any]]): COCO detections of the baseline.
    """

    label: str
    truth: Mapping[str, Any]
    new: Sequence[Mapping[str, Any]]
    old: Sequence[Mapping[str, Any]]

    @classmethod
    def of_folders(cls, label: str, new: Path, old: Path) -> Pairing:
        """Return the pair whose detections two evaluations have saved."""
        truth, ours, theirs = (
            json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
            for folder, name in ((new, "ground_truth"), (new, "predictions"), (old, "predictions"))
        )
        return cls(label, truth, ours, theirs)


def changes_by_image(
    truth: Mapping[str, Any],
    student: Sequence[Mapping[str, Any]],
    baseline: Sequence[Mapping[str, Any]],
    confidence: float,
) -> list[tuple[str, float]]:
    """Return how much better a student does than a baseline, image by image.

    Args:
        truth (Mapping[str, Any]): COCO data set.
        student (Sequence[Mapping[str, Any]]): COCO detections of the student.
        baseline (Sequence[Mapping[str, Any]]): COCO detections of the baseline.
        confidence (float): Least score of a detection that counts.

    Returns:
        (list[tuple[str, float]]): File and change of the F1 score, 2 hits / (2 hits + false alarms + misses), at IoU
            0.5, the largest first; images without object and detection are left out.

    Example:
        >>> box = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}
        >>> truth = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [box]}
        >>> changes_by_image(truth, [{**box, "score": 0.9}], [], 0.25)
        [('a.png', 1.0)]
    """
    objects = by_image(truth["annotations"])
    sides = [by_image([item for item in found if item["score"] >= confidence]) for found in (student, baseline)]
    changes = []
    for image in truth["images"]:
        number = image["id"]
        if number in objects or any(number in side for side in sides):
            new, old = (_f1(side[number], objects[number]) for side in sides)
            changes.append((str(image["file_name"]), new - old))
    return sorted(changes, key=lambda pair: -pair[1])


def show_changes(
    pairings: Sequence[Pairing], titles: tuple[str, str], confidence: float, root: Path, single_cls: bool
) -> str:
    """Return the images where one detector does better than another, and where worse, for a page.

    Args:
        pairings (Sequence[Pairing]): What both have found, once per seed; images are ranked by their mean change.
        titles (tuple[str, str]): What the baseline and the other one are called.
        confidence (float): Least score of a detection that counts.
        root (Path): Folder that the image files are relative to.
        single_cls (bool): Whether all objects count as one class.

    Returns:
        (str): HTML.

    Raises:
        DS2D2Error: If an image cannot be read.
    """
    changes = [dict(changes_by_image(own.truth, own.new, own.old, confidence)) for own in pairings]
    files = dict.fromkeys(file for own in changes for file in own)
    means = {file: fmean(own.get(file, 0.0) for own in changes) for file in files}
    order = sorted(means, key=lambda file: -means[file])
    better, worse = ([file for file in order if sign * means[file] > 0] for sign in (1, -1))
    whose = "" if len(pairings) == 1 else f", on average over {len(pairings)} seeds"
    parts = [
        html.paragraph(
            f"By the F1 score at IoU 0.5 of detections with a confidence of {confidence:g} or more{whose}: {titles[1]} "
            f"is better than {titles[0]} on {len(better)} of {len(order)} images, worse on {len(worse)}."
        )
    ]
    for heading, chosen in (("for the better", better[:_SHOWN]), ("for the worse", worse[::-1][:_SHOWN])):
        pictures = []
        for file in chosen:
            # Of several seeds the most typical one, not the most impressive
            index = min(range(len(pairings)), key=lambda index: abs(changes[index].get(file, 0.0) - means[file]))
            own = pairings[index]
            number = next(image["id"] for image in own.truth["images"] if str(image["file_name"]) == file)
            sides = {
                title: by_image([item for item in found if item["score"] >= confidence])[number]
                for title, found in zip(titles, (own.old, own.new), strict=True)
            }
            task = "obb" if any("rbox" in item for item in own.truth["annotations"]) else "detect"
            picture = read_picture(root / file, len(own.truth["categories"]), True, single_cls, task)
            seed = f"; shown: {own.label}, {changes[index].get(file, 0.0):+.2f}" if own.label else ""
            caption = f"{file}: F1 {means[file]:+.2f}{seed}"
            pictures.append(html.picture(draw_sides(picture, sides), f"Detections in {file}", caption))
        if pictures:
            parts += [f"<h3>Most changed {heading}</h3>", html.grid(pictures)]
    return "\n".join(parts)


def by_image(items: Sequence[Mapping[str, Any]]) -> dict[Any, np.ndarray]:
    """Return rows (N, 6) by image, by falling score: xyxy pixels, score (1 for objects), class index.

    Those of oriented boxes are (N, 7): xywhr in pixels and radians, score, class index.
    """
    rows: dict[Any, list[list[float]]] = defaultdict(list)
    columns = 6
    for item in items:
        x, y, width, height = item["bbox"]
        box = item.get("rbox") or [x, y, x + width, y + height]
        rows[item["image_id"]].append([*box, item.get("score", 1.0), item["category_id"] - 1])
        columns = len(box) + 2
    arrays: dict[Any, np.ndarray] = defaultdict(lambda: np.zeros((0, columns)))
    for image, own in rows.items():
        array = np.array(own)
        arrays[image] = array[np.argsort(-array[:, -2], kind="stable")]
    return arrays


def _f1(found: np.ndarray, objects: np.ndarray) -> float:
    matched = match_detections(found[:, :-2], found[:, -1].astype(int), objects[:, :-2], objects[:, -1].astype(int))
    hits = 2 * len(matched.hits)
    return hits / max(hits + len(matched.false_alarms) + len(matched.misses), 1)


def draw_sides(picture: Picture, sides: Mapping[str, np.ndarray]) -> bytes:
    """Return detections of two sides beside each other, as a PNG.

    Args:
        picture (Picture): The image and its objects.
        sides (Mapping[str, np.ndarray]): Detections by title, as `by_image` returns them.
    """
    aspect = min(max(picture.pixels.shape[0] / picture.pixels.shape[1], 0.4), 1.8)
    width = 3.4
    canvas = Canvas(2 * width + 0.5, width * aspect + 0.95)
    for index, (title, found) in enumerate(sides.items()):
        axes = canvas.axes(0.2 + index * (width + 0.1), 0.3, width, width * aspect)
        draw_outcomes(axes, picture.pixels, found, (picture.boxes, picture.labels), title)
    canvas.figure.legend(
        handles=outcome_legend(("hit", "false alarm", "miss")), loc="lower center", ncols=3, frameon=False, fontsize=8.5
    )
    return canvas.png()
