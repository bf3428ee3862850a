"""Reads images with their labels, scales and pads them for the models, and converts boxes between the two sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from ultralytics.data.augment import LetterBox
from ultralytics.data.utils import img2label_paths
from ultralytics.utils.patches import imread

from ds2d2_yolo.data.check.labels import parse_labels, read_labels
from ds2d2_yolo.data.labels import pixel_boxes
from ds2d2_yolo.detectors import Detector
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.files import refuse_unusable

_ANY_CLASS = 1 << 30  # a number of classes that no label reaches

Item = TypeVar("Item")

Window = tuple[float, float, float, float]
"""Left, right, bottom and top of a padded input, in pixels of the image. All maps cover this area."""


@dataclass(frozen=True)
class InputImage:
    """An input image with its labels.

    Attributes:
        path (Path): Its file.
        pixels (np.ndarray): (H, W, 3) uint8, RGB.
        boxes (np.ndarray): Objects (G, 4) as xyxy pixels, or (G, 5) oriented as xywhr: pixels and radians.
        labels (np.ndarray): Their classes (G,).
        labelled (bool): Whether the image has labels; a labelled image may have no objects.
        source (Path | None): The original image if the labels are a teacher's detections, otherwise None.
    """

    path: Path
    pixels: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    labelled: bool
    source: Path | None = None

    @property
    def shown_path(self) -> Path:
        """The path that pictures and pages show."""
        return self.source or self.path

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def panel_aspect(self) -> float:
        """Height by width of a panel that shows the image, within limits that suit a page."""
        return min(max(self.size[0] / self.size[1], 0.4), 1.8)


def read_image(
    path: Path,
    classes: int,
    labelled: bool = False,
    single_cls: bool = False,
    task: str = "detect",
    points: Sequence[int] = (0, 0),
    counted: int | Sequence[int] | None = None,
) -> InputImage:
    """Read an image and its labels, as Ultralytics reads them.

    Args:
        path (Path): The image.
        classes (int): Number of classes.
        labelled (bool): Whether an image without a label file has no objects.
        single_cls (bool): Whether all objects count as one class.
        task (str): Task of the labels; objects of `obb` are oriented.
        points (Sequence[int]): For `pose`: number of keypoints, and of values per keypoint.
        counted (int | Sequence[int] | None): Argument `classes` of a training: objects of other classes are left out.
            None means all.

    Returns:
        (InputImage): The image.

    Raises:
        DS2D2Error: If the image cannot be decoded, or its labels are damaged.
    """
    pixels = read_rgb(path)
    file = Path(img2label_paths([str(path)])[0])
    # Not by Ultralytics' own function: it rewrites JPEGs that have no end marker
    found = read_labels(file, _ANY_CLASS if single_cls else classes, points)
    labels = found or parse_labels("", classes)
    if labels.faults:
        _, line, detail = labels.faults[0]
        raise DS2D2Error(f"{file}: {'' if line is None else f'line {line}: '}{detail}; correct the file")
    if task == "obb" and len(labels.polygons) != len(labels.boxes):
        raise DS2D2Error(
            f"{file}: holds boxes, task=obb needs the four corners of each object; label the corners, or pass "
            "models for task=detect"
        )
    boxes = pixel_boxes(labels.boxes, labels.polygons, pixels.shape[:2], oriented=task == "obb")
    kept = np.ones(len(labels.classes), bool) if counted is None else np.isin(labels.classes, counted)
    numbers = np.zeros_like(labels.classes) if single_cls else labels.classes
    return InputImage(path, pixels, boxes[kept], numbers[kept], labelled or found is not None)


def read_rgb(path: Path) -> np.ndarray:
    """Return the pixels of an image (H, W, 3) uint8, RGB, as Ultralytics reads them.

    Raises:
        DS2D2Error: If the image cannot be decoded.
    """
    refuse_unusable(path)
    try:
        pixels = imread(path, cv2.IMREAD_COLOR)
    except cv2.error:
        pixels = None
    if pixels is None or pixels.dtype != np.uint8:
        raise DS2D2Error(f"{path}: cannot be read as an image of 8 bits; replace or remove it")
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def model_input(image: InputImage, imgsz: int, step: int, device: torch.device) -> tuple[torch.Tensor, Window]:
    """Scale and pad an image as `predict` does. Return it with its window.

    Args:
        image (InputImage): The image.
        imgsz (int): Longer side, in pixels.
        step (int): The sides are padded to a multiple of this number.
        device (torch.device): Device of the models.

    Returns:
        pixels (torch.Tensor): (1, 3, H, W) in [0, 1].
        window (Window): The window.
    """
    padded = np.asarray(LetterBox(imgsz, auto=True, stride=step)(image=image.pixels))
    height, width = image.size
    ratio = min(imgsz / height, imgsz / width)
    inner = max(round(width * ratio), 1), max(round(height * ratio), 1)
    left, top = round((padded.shape[1] - inner[0]) / 2 - 0.1), round((padded.shape[0] - inner[1]) / 2 - 0.1)
    x, y = width / inner[0], height / inner[1]
    window = (-left * x, (padded.shape[1] - left) * x, (padded.shape[0] - top) * y, -top * y)
    pixels = torch.from_numpy(np.ascontiguousarray(padded.transpose(2, 0, 1))).to(device)[None].float() / 255
    return pixels, window


def input_step(student: Detector, teacher: Detector, ratio: int) -> int:
    """Return the number of pixels that the sides of a student's input are multiples of, so that all grids fit.

    Args:
        student (Detector): The student.
        teacher (Detector): The teacher.
        ratio (int): Side of the teacher's input, in sides of the student's.
    """
    return max(32, int(student.model.stride.max()), int(teacher.model.stride.max()) // ratio)


def pair_inputs(
    image: InputImage, imgsz: int, step: int, device: torch.device, ratio: int = 1
) -> tuple[torch.Tensor, torch.Tensor, Window]:
    """Scale and pad an image for a student and its teacher as in training. Return both inputs and their window.

    Args:
        image (InputImage): The image.
        imgsz (int): Longer side of the student's input, in pixels.
        step (int): The sides of the student's input are padded to a multiple of this number.
        device (torch.device): Device of the models.
        ratio (int): Ratio of the teacher's input size to the student's.

    Returns:
        student (torch.Tensor): (1, 3, H, W) in [0, 1].
        teacher (torch.Tensor): (1, 3, ratio * H, ratio * W). The student's input is this one, reduced.
        window (Window): The window.
    """
    large, window = model_input(image, ratio * imgsz, ratio * step, device)
    return (large if ratio == 1 else F.avg_pool2d(large, ratio)), large, window


def boxes_in_input(boxes: np.ndarray, window: Window, size: tuple[int, int]) -> np.ndarray:
    """Convert boxes from pixels of the image to pixels of the input.

    Args:
        boxes (np.ndarray): Boxes (N, 4) as xyxy or (N, 5) as xywhr, in pixels of the image and radians.
        window (Window): Window of the input.
        size (tuple[int, int]): Height and width of the input, in pixels.

    Returns:
        (np.ndarray): Boxes of the same shape, in pixels of the input and radians.
    """
    corner, scale = _scales(window, size, boxes.shape[1] == 5)
    moved: np.ndarray = (boxes - corner) / scale
    return moved


def detections_in_image(found: torch.Tensor, window: Window, size: tuple[int, int], image: InputImage) -> np.ndarray:
    """Convert detections from pixels of the input to pixels of the image. Upright boxes are clipped to the image.

    Args:
        found (torch.Tensor): Detections (N, 6) with boxes as xyxy or (N, 7) as xywhr, in pixels of the input and
            radians. Confidence and class follow the box.
        window (Window): Window of the input.
        size (tuple[int, int]): Height and width of the input, in pixels.
        image (InputImage): The image.

    Returns:
        (np.ndarray): Detections of the same shape, float64.
    """
    rows: np.ndarray = found.cpu().double().numpy()
    oriented = rows.shape[1] == 7
    corner, scale = _scales(window, size, oriented)
    height, width = image.size
    boxes = rows[:, :-2] * scale + corner
    rows[:, :-2] = boxes if oriented else boxes.clip(0, [width, height, width, height])
    return rows


def spread_out(items: Sequence[Item], number: int) -> list[Item]:
    """Return `number` of the items, at even distances. All are returned if there are fewer.

    Example:
        >>> spread_out([0, 1, 2, 3, 4, 5], 3)
        [0, 2, 4]
    """
    return [items[index * len(items) // number] for index in range(number)] if number < len(items) else list(items)


def _scales(window: Window, size: tuple[int, int], oriented: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return offset and scale from input to image pixels, for xyxy (4,) or xywhr (5,)."""
    left, right, bottom, top = window
    x, y = (right - left) / size[1], (bottom - top) / size[0]
    if oriented:  # x and y differ only by rounding to whole pixels
        return np.array([left, top, 0, 0, 0]), np.array([x, y, math.sqrt(x * y), math.sqrt(x * y), 1])
    return np.array([left, top, left, top]), np.array([x, y, x, y])
