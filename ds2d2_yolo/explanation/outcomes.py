"""Hits, false alarms and misses: the detections of one image compared with its ground truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ds2d2_yolo.evaluation.matching import match


@dataclass(frozen=True)
class Matched:
    """Boxes of one image, in the input format: hits, false alarms, and missed objects."""

    hits: np.ndarray
    false_alarms: np.ndarray
    misses: np.ndarray


def match_detections(boxes: np.ndarray, classes: np.ndarray, objects: np.ndarray, labels: np.ndarray) -> Matched:
    """Return hits, false alarms and misses. Arguments are those of `evaluation.matching.match`.

    Example:
        >>> box = np.array([[0.0, 0.0, 9.0, 9.0]])
        >>> len(match_detections(box, np.array([1]), box, np.array([1])).hits)
        1
    """
    hit, taken = match(boxes, classes, objects, labels)
    return Matched(boxes[hit], boxes[~hit], objects[~taken])
