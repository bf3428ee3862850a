"""Detections from Ultralytics' validation, in pixels of the original images."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from ultralytics.cfg import get_cfg, get_save_dir
from ultralytics.engine.model import Model
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.utils.ops import process_mask, xywhr2xyxyxyxy

from ds2d2_yolo.data.coco_truth import COCODetection, COCOTruth, check_labels, label_errors
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.loading.decoding import name_undecodable_images


def validate_and_collect(detector: Model, overrides: Mapping[str, Any]) -> DetectionCollector:
    """Run Ultralytics' validation and keep its detections.

    Args:
        detector (Model): An Ultralytics model.
        overrides (Mapping[str, Any]): Ultralytics' val arguments.

    Returns:
        (DetectionCollector): The validator.

    Raises:
        DS2D2Error: If its folder cannot be created, or the labels do not match the task.
    """
    kind = type("Collector", (DetectionCollector, detector.task_map[detector.task]["validator"]), {})
    is_new = not get_save_dir(get_cfg(overrides=dict(overrides))).parent.exists()
    try:
        validator: DetectionCollector = kind(args=dict(overrides), _callbacks=detector.callbacks)
    except OSError as error:
        reason = error.strerror or error
        raise DS2D2Error(
            f"project={overrides.get('project')}: cannot write there ({reason}); pass another project="
        ) from error
    try:
        with name_undecodable_images(overrides["data"]):
            validator(model=detector.model)
    except DS2D2Error:
        with suppress(OSError):  # remove the constructor's folders, unless they contain other files
            for picture in validator.save_dir.glob("val_batch*.jpg"):
                picture.unlink()
            validator.save_dir.rmdir()
            if is_new:
                validator.save_dir.parent.rmdir()
        raise
    return validator


def coco_detections(
    detections: Sequence[tuple[str, np.ndarray]], files: Sequence[str], truth: COCOTruth, task: str
) -> Iterator[COCODetection]:
    """Yield detections in COCO's format, image by image. Oriented boxes have Ultralytics' keys.

    Args:
        detections (Sequence[tuple[str, np.ndarray]]): Detections of a `DetectionCollector`.
        files (Sequence[str]): Image files in the order of the ground truth.
        truth (COCOTruth): The ground truth.
        task (str): `detect`, `obb`, `segment` or `pose`.

    Yields:
        (COCODetection): The detection.
    """
    numbers: dict[str, deque[int]] = defaultdict(deque)  # several if a list contains an image more than once
    for number, file in enumerate(files):
        numbers[file].append(number)
    numbered = [(numbers[file].popleft(), rows) for file, rows in detections]
    for number, rows in sorted(numbered, key=lambda pair: pair[0]):
        image = truth["images"][number]
        boxes, scores, classes = rows[:, :-2], rows[:, -2].tolist(), rows[:, -1].astype(int).tolist()
        corners = xywhr2xyxyxyxy(boxes) if task == "obb" else boxes.reshape(-1, 2, 2)
        first, last = corners.min(axis=1), corners.max(axis=1)
        hulls = np.hstack([first, last - first]).tolist()
        for index, (score, label) in enumerate(zip(scores, classes, strict=True)):
            record: COCODetection = {
                "image_id": image["id"],
                "file_name": image["file_name"],
                "category_id": label + 1,
                "bbox": hulls[index],
                "score": score,
            }
            if task == "obb":
                record["rbox"], record["poly"] = boxes[index].tolist(), corners[index].reshape(-1).tolist()
            yield record


class DetectionCollector(DetectionValidator):
    """First base class of a validator: keeps its detections, in pixels of the original images."""

    detections: list[tuple[str, np.ndarray]]
    """Image files and their detections (N, 6) or (N, 7) float64: box in the model's format, confidence, class."""

    shapes: dict[str, tuple[int, int]]
    """Height and width of every image, in pixels, by file."""

    def get_dataloader(self, dataset_path: str, batch_size: int) -> Any:
        """Return Ultralytics' loader, after a check that the labels match the task."""
        with label_errors(self.args.split):
            dataloader: Any = super().get_dataloader(dataset_path, batch_size)
        check_labels(dataloader.dataset.labels, self.args.task)
        return dataloader

    def init_metrics(self, model: torch.nn.Module) -> None:
        """Reset the detections."""
        super().init_metrics(model)
        self.detections, self.shapes = [], {}
        if self._keeps_masks_small:
            self.process = process_mask

    def update_metrics(self, preds: list[dict[str, torch.Tensor]], batch: dict[str, Any]) -> None:
        """Add a batch, and the shapes of its images."""
        super().update_metrics(preds, batch)
        self.shapes.update(zip(batch["im_file"], batch["ori_shape"], strict=True))

    def scale_preds(self, predn: dict[str, torch.Tensor], pbatch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Return an image's detections in pixels of the original image."""
        if self._keeps_masks_small:
            return DetectionValidator.scale_preds(self, predn, pbatch)  # scales only the boxes
        return super().scale_preds(predn, pbatch)

    @property
    def _keeps_masks_small(self) -> bool:
        """Whether masks are compared at a quarter of the input's size, as in training and in Ultralytics' own val.

        `save_json` is needed to collect detections. With it, Ultralytics would enlarge masks and get other metrics.
        """
        return bool(self.args.task == "segment" and not self.args.save_txt)

    def pred_to_json(self, predn: dict[str, torch.Tensor], pbatch: dict[str, Any]) -> None:
        """Keep an image's detections."""
        parts = [predn["bboxes"], predn["conf"].unsqueeze(1), predn["cls"].unsqueeze(1)]
        rows = torch.cat([part.cpu().double() for part in parts], 1)  # in this order, as MPS has no float64
        self.detections.append((str(pbatch["im_file"]), rows.numpy()))

    def eval_json(self, stats: dict[str, Any]) -> dict[str, Any]:
        """Return the metrics unchanged, as no file is written here."""
        return stats
