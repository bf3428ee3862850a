"""Matching of detections to objects of the same image, each object once."""

from __future__ import annotations

import numpy as np
import torch
from ultralytics.utils.metrics import batch_probiou, box_iou

_SAME_OBJECT = 0.5  # intersection over union, as for AP50


def match(
    boxes: np.ndarray, classes: np.ndarray, objects: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Match detections to objects of their class, the most confident first, with an IoU of at least 0.5.

    Args:
        boxes (np.ndarray): Detections (D, 4) as xyxy pixels, or (D, 5) oriented as xywhr in pixels and radians. They
            are sorted by decreasing confidence.
        classes (np.ndarray): Their classes (D,).
        objects (np.ndarray): Ground truth (G, 4) or (G, 5), in the same format. The IoU of oriented boxes is
            Ultralytics' probabilistic IoU.
        labels (np.ndarray): Its classes (G,).

    Returns:
        hit (np.ndarray): (D,) bool: whether a detection has an object.
        taken (np.ndarray): (G,) bool: whether an object has a detection.

    Example:
        >>> box = np.array([[0.0, 0.0, 9.0, 9.0]])
        >>> match(box, np.array([1]), np.concatenate([box, box]), np.array([1, 0]))
        (array([ True]), array([ True, False]))
    """
    hit, taken = np.zeros(len(boxes), dtype=bool), np.zeros(len(objects), dtype=bool)
    if not len(boxes) or not len(objects):
        return hit, taken
    measure = batch_probiou if boxes.shape[1] == 5 else box_iou
    overlaps = measure(torch.from_numpy(boxes).float(), torch.from_numpy(objects).float()).numpy()
    overlaps = overlaps * (classes[:, None] == labels[None, :])
    for index, overlap in enumerate(overlaps):
        candidates = np.where(taken, 0.0, overlap)
        if candidates.max() >= _SAME_OBJECT:
            taken[candidates.argmax()] = hit[index] = True
    return hit, taken
