"""Labels of an image in pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ultralytics.utils.ops import xywhn2xyxy, xyxyxyxy2xywhr


def pixel_boxes(
    boxes: np.ndarray, polygons: Sequence[np.ndarray], size: tuple[int, int], oriented: bool = False
) -> np.ndarray:
    """Return the boxes of an image's labels in pixels.

    Args:
        boxes (np.ndarray): Boxes (G, 4), xywh as fractions of the image.
        polygons (Sequence[np.ndarray]): Their corners, each (P, 2) as fractions of the image. Used for oriented boxes.
        size (tuple[int, int]): Height and width of the image in pixels.
        oriented (bool): Whether to return the smallest rectangles around the polygons.

    Returns:
        (np.ndarray): (G, 4) as xyxy pixels, or oriented (G, 5) as xywhr: pixels and radians.

    Example:
        >>> pixel_boxes(np.array([[0.5, 0.5, 0.25, 0.5]]), [], (40, 80)).tolist()
        [[30.0, 10.0, 50.0, 30.0]]
    """
    height, width = size
    if not oriented:
        return np.asarray(xywhn2xyxy(np.asarray(boxes, np.float64), width, height))
    corners = [polygon.reshape(-1, 2) * np.array([width, height], np.float32) for polygon in polygons]
    return np.concatenate([np.zeros((0, 5)), *(xyxyxyxy2xywhr(points.reshape(1, -1)) for points in corners)])
