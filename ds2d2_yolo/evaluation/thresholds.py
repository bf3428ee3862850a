"""Confidence thresholds from which the detections of a model are good enough to be used as labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ds2d2_yolo.evaluation.matching import match


@dataclass(frozen=True)
class Threshold:
    """The minimum confidence of a class, with the precision and recall of the detections above it.

    Attributes:
        confidence (float | None): The minimum confidence. None if no detection of the class is good enough.
        precision (float): Precision of these detections, 0 to 1.
        recall (float): Their recall, 0 to 1.
        objects (int): Number of labelled objects of the class.
        pooled (bool): Whether it is the threshold of all classes together, because the class has no labelled object.
    """

    confidence: float | None
    precision: float
    recall: float
    objects: int
    pooled: bool = False

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


class LabelledImage(NamedTuple):
    """Detections and labels of an image.

    Attributes:
        found (np.ndarray): Detections (N, 6) as xyxy pixels, confidence, class; oriented (N, 7) as xywhr: pixels and
            radians.
        boxes (np.ndarray): Labelled boxes (G, 4) as xyxy, or (G, 5) as xywhr, in the same units.
        labels (np.ndarray): Their classes (G,).
        size (tuple[int, int]): Height and width of the image in pixels.
    """

    found: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    size: tuple[int, int]


def find_thresholds(
    images: Sequence[LabelledImage], classes: int, precision: float | None = None
) -> tuple[list[Threshold], Threshold, Threshold]:
    """Find the confidence threshold of every class: the one with the best F1 score, or the lowest with some precision.

    A detection is correct if its IoU with an object of its class is at least 0.5, and no detection of higher confidence
    is matched to that object.

    Args:
        images (Sequence[LabelledImage]): Detections and labels of the images.
        classes (int): Number of classes.
        precision (float | None): Required precision, 0 to 1. None takes the best F1 score.

    Returns:
        thresholds (list[Threshold]): By class.
        total (Threshold): The threshold with the best F1 score for all classes together.
        chance (Threshold): The same, with every image compared with the labels of another one. Without any correct
            detection if there is only one image.

    Example:
        >>> box = np.array([[8.0, 8.0, 24.0, 24.0]])
        >>> found = np.array([[8.0, 8.0, 24.0, 24.0, 0.9, 0], [40.0, 40.0, 50.0, 50.0, 0.3, 0]])
        >>> image = LabelledImage(found, box, np.zeros(1), (64, 64))
        >>> thresholds, _, _ = find_thresholds([image], classes=1)
        >>> thresholds[0].confidence, thresholds[0].precision
        (0.9, 1.0)
    """
    own = [_hits(image, image) for image in images]
    objects = np.bincount(_joined([image.labels for image in images]).astype(int), minlength=classes)
    found = _joined([image.found[:, -2:] for image in images], 2)
    hits = _joined(own).astype(bool)
    total = _threshold(found[:, 0], hits, int(objects.sum()), None)
    pooled = total if precision is None else _threshold(found[:, 0], hits, int(objects.sum()), precision)
    thresholds = []
    for index in range(classes):
        mine = found[:, 1] == index
        if objects[index]:
            thresholds.append(_threshold(found[mine, 0], hits[mine], int(objects[index]), precision))
        else:
            thresholds.append(Threshold(pooled.confidence, math.nan, math.nan, 0, pooled=True))
    others = [_hits(image, images[number - 1]) for number, image in enumerate(images)]
    by_chance = _joined(others).astype(bool) & (len(images) > 1)
    chance = _threshold(found[:, 0], by_chance, int(objects.sum()), None)
    return thresholds, total, chance


def _joined(parts: Sequence[np.ndarray], columns: int | None = None) -> np.ndarray:
    empty = np.zeros(0) if columns is None else np.zeros((0, columns))
    return np.concatenate([empty, *parts])


def _hits(image: LabelledImage, truth: LabelledImage) -> np.ndarray:
    """Return which detections (N,) of an image are correct, given the labels of an image, scaled to its size."""
    scale = np.array([image.size[1] / truth.size[1], image.size[0] / truth.size[0]])
    objects = truth.boxes.copy()
    objects[:, :4] *= np.tile(scale, 2)
    order = np.argsort(-image.found[:, -2], kind="stable")
    found = image.found[order]
    hits = np.zeros(len(found), dtype=bool)
    hits[order], _ = match(found[:, :-2], found[:, -1], objects, truth.labels)
    return hits


def _threshold(scores: np.ndarray, hits: np.ndarray, objects: int, precision: float | None) -> Threshold:
    """Return the threshold for detections (N,). Detections with equal scores are on the same side of it."""
    order = np.argsort(-scores, kind="stable")
    scores, right = scores[order], np.cumsum(hits[order])
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if len(scores) else np.zeros(0, int)
    right = right[ends]
    precisions, recalls = right / (ends + 1), right / max(objects, 1)
    if precision is None:
        worth = 2 * right / (ends + 1 + objects)  # F1
        best = int(worth.argmax()) if len(worth) and worth.max() > 0 else None
    else:
        good = np.flatnonzero((precisions >= precision) & (right > 0))
        best = int(good[-1]) if len(good) else None
    if best is None:
        return Threshold(None, 0.0, 0.0, objects)
    return Threshold(float(scores[ends[best]]), float(precisions[best]), float(recalls[best]), objects)
