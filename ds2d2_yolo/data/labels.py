"""Labels of an image: as Ultralytics' loader takes them, and in pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ultralytics.data.utils import img2label_paths, verify_image_label
from ultralytics.utils.ops import xywhn2xyxy, xyxyxyxy2xywhr


class UsableLabels(NamedTuple):
    """The objects of an image that Ultralytics can use.

    Attributes:
        classes (np.ndarray): Class indices (G,) float32.
        boxes (np.ndarray): Boxes, or hulls of polygons, (G, 4) float32, as xywh in fractions of the image.
        polygons (list[np.ndarray]): Their corners (P, 2); empty for boxes.
    """

    classes: np.ndarray
    boxes: np.ndarray
    polygons: list[np.ndarray]


def usable_labels(
    image: str | Path, data: Mapping[str, Any], task: str = "detect", single_cls: bool = False
) -> UsableLabels | str:
    """Return the labels of an image, or Ultralytics' complaint if it cannot use the image.

    Ultralytics rewrites a JPEG without an end marker.

    Args:
        image (str | Path): The image.
        data (Mapping[str, Any]): Its data set, as described by Ultralytics.
        task (str): Task of the labels; those of `pose` have keypoints.
        single_cls (bool): Whether all objects count as one class.
    """
    pose = task == "pose"
    points = data["kpt_shape"] if pose else (0, 0)
    (label,) = img2label_paths([str(image)])
    found = verify_image_label((str(image), label, "", pose, data["nc"], *points, single_cls))
    if found[0] is None:
        return str(found[-1])
    rows, polygons = found[1], found[3]
    return UsableLabels(rows[:, 0], rows[:, 1:], polygons)


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
