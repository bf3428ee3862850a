"""Hits, false alarms and misses: the detections of one image compared with its ground truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from ultralytics.utils.metrics import batch_probiou, box_iou


@dataclass(frozen=True)
class Matched:
    """Boxes of one image, in the input format: hits, false alarms, and missed objects."""

    hits: np.ndarray
    false_alarms: np.ndarray
    misses: np.ndarray


def match_detections(
    boxes: np.ndarray, classes: np.ndarray, objects: np.ndarray, labels: np.ndarray, threshold: float = 0.5
) -> Matched:
    """Match detections to objects, the most confident first, each object once.

    Args:
        boxes (np.ndarray): Detections (D, 4) as xyxy pixels, or (D, 5) oriented as xywhr in pixels and radians. They
            are sorted by decreasing confidence.
        classes (np.ndarray): Their classes (D,).
        objects (np.ndarray): Ground truth (G, 4) or (G, 5), in the same format.
        labels (np.ndarray): Its classes (G,).
        threshold (float): Lowest IoU of a hit, which must also have the right class. For oriented boxes it is
            Ultralytics' probabilistic IoU.

    Returns:
        (Matched): Hits, false alarms and misses.

    Example:
        >>> box = np.array([[0.0, 0.0, 9.0, 9.0]])
        >>> len(match_detections(box, np.array([1]), box, np.array([1])).hits)
        1
    """
    overlap = np.zeros((len(boxes), len(objects)))
    if overlap.size:
        measure = batch_probiou if boxes.shape[1] == 5 else box_iou
        overlap = measure(torch.from_numpy(boxes).float(), torch.from_numpy(objects).float()).numpy()
    overlap = overlap * (classes[:, None] == labels[None, :])
    taken = np.zeros(len(objects), dtype=bool)
    hit = np.zeros(len(boxes), dtype=bool)
    for index in range(len(boxes)):
        candidates = np.where(taken, 0.0, overlap[index])
        if len(candidates) and candidates.max() >= threshold:
            taken[candidates.argmax()] = hit[index] = True
    return Matched(boxes[hit], boxes[~hit], objects[~taken])
