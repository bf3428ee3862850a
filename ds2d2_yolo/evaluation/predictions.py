"""Detections of a checkpoint in images without labels, in pixels of the images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from ultralytics import YOLO
from ultralytics.utils.patches import imread

from ds2d2_yolo.data.check.images import decoder_flag
from ds2d2_yolo.data.threads import threads
from ds2d2_yolo.detectors import input_channels


class Prediction(NamedTuple):
    """Detections of a model in an image.

    Attributes:
        found (np.ndarray): Detections (N, 6) float64: xyxy in pixels, confidence, class. Oriented ones are (N, 7):
            xywhr in pixels and radians, confidence, class.
        size (tuple[int, int]): Height and width of the image in pixels.
    """

    found: np.ndarray
    size: tuple[int, int]


def predict(
    path: str | Path, images: Sequence[Path], confidence: float, args: Any
) -> Iterator[list[tuple[Path, Prediction | None]]]:
    """Run a model on images, batch by batch.

    All images are padded to squares. So the detections in an image do not depend on the other images of the batch.

    Args:
        path (str | Path): A checkpoint for the task `detect` or `obb`.
        images (Sequence[Path]): The images.
        confidence (float): Minimum confidence of a detection.
        args (Any): Arguments of the run, such as size, batch, device, `iou` and `max_det`.

    Yields:
        (list[tuple[Path, Prediction | None]]): The images of a batch, in their order, with their detections. None for
            an image that cannot be decoded.
    """
    model: Any = YOLO(str(path))
    settings = {name: getattr(args, name) for name in ("imgsz", "iou", "max_det")}
    settings |= {"conf": confidence, "device": _one_device(args.device), "rect": False}
    for batch in _batches(images, int(args.batch) if args.batch >= 1 else 16, input_channels(model.model)):
        pixels = [image for _, image in batch if image is not None]
        results = iter(model.predict(pixels, verbose=False, save=False, **settings) if pixels else [])
        yield [(file, None if image is None else _prediction(next(results))) for file, image in batch]


def _prediction(result: Any) -> Prediction:
    boxes = result.boxes if result.obb is None else result.obb
    places = boxes.xyxy if result.obb is None else boxes.xywhr
    parts = (places, boxes.conf[:, None], boxes.cls[:, None])
    rows = np.hstack([part.cpu().numpy().astype(np.float64) for part in parts])
    return Prediction(rows, (int(result.orig_shape[0]), int(result.orig_shape[1])))


def _one_device(device: Any) -> Any:
    """Return the first device of a run."""
    if isinstance(device, (list, tuple)):
        return device[0]
    return device.split(",")[0] if isinstance(device, str) else device


def _batches(images: Sequence[Path], size: int, channels: int) -> Iterator[list[tuple[Path, np.ndarray | None]]]:
    """Yield batches of images with their pixels (H, W, C). Threads read the next batch at the same time."""

    def read(file: Path) -> np.ndarray | None:
        try:
            pixels: np.ndarray | None = imread(str(file), decoder_flag(channels))
        except (OSError, cv2.error):
            return None
        return pixels

    parts = [images[start : start + size] for start in range(0, len(images), size)]
    with threads() as pool:
        waiting = [pool.map_async(read, part) for part in parts[:1]]
        for number, part in enumerate(parts):
            pixels = waiting.pop().get()
            waiting += [pool.map_async(read, following) for following in parts[number + 1 : number + 2]]
            yield list(zip(part, pixels, strict=True))
