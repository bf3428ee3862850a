"""Which detections are right: hits, false alarms and misses of one image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ultralytics import YOLO
from ultralytics.engine.results import Results
from ultralytics.utils.metrics import batch_probiou, box_iou


@dataclass(frozen=True)
class Matched:
    """Boxes of one image, as they were given: detections that hit, false alarms, and objects that were missed."""

    hits: np.ndarray
    false_alarms: np.ndarray
    misses: np.ndarray


def match_detections(
    boxes: np.ndarray, classes: np.ndarray, objects: np.ndarray, labels: np.ndarray, threshold: float = 0.5
) -> Matched:
    """Assign detections to objects, the most confident first, each object once.

    Args:
        boxes (np.ndarray): Detections (D, 4) as xyxy pixels, or (D, 5) oriented as xywhr: pixels and radians; sorted
            by falling confidence.
        classes (np.ndarray): Their classes (D,).
        objects (np.ndarray): Ground truth (G, 4) or (G, 5), likewise.
        labels (np.ndarray): Their classes (G,).
        threshold (float): Intersection over union (of oriented boxes the probabilistic one, as Ultralytics validates
            with) from which a detection of the right class is a hit.

    Returns:
        (Matched): The three kinds.

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


def predict(model: YOLO, path: Path, imgsz: int, confidence: float) -> np.ndarray:
    """Return what a model of Ultralytics for upright boxes detects in an image.

    Args:
        model (YOLO): The model.
        path (Path): The image.
        imgsz (int): Side at which the model looks at it, in pixels.
        confidence (float): Least confidence of a detection.

    Returns:
        (np.ndarray): Detections (N, 6) by falling confidence: xyxy pixels of the image, confidence, class.
    """
    (result,) = model.predict(str(path), imgsz=imgsz, conf=confidence, verbose=False)
    assert isinstance(result, Results)
    assert result.boxes is not None
    detections: np.ndarray = torch.as_tensor(result.boxes.data).cpu().numpy()
    return detections
