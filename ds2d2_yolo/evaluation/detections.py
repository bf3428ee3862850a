"""The detections of a validation by Ultralytics, in pixels of the original images."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
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
from ds2d2_yolo.loading.decoding import undecodable_named


def validate_and_collect(detector: Model, overrides: Mapping[str, Any]) -> DetectionCollector:
    """Run Ultralytics' validation and keep its detections.

    Args:
        detector (Model): An Ultralytics model.
        overrides (Mapping[str, Any]): Ultralytics' val arguments.

    Returns:
        (DetectionCollector): The validator.

    Raises:
        DS2D2Error: If its folder cannot be made, or the labels do not suit the task.
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
        with undecodable_named(overrides["data"]):
            validator(model=detector.model)
    except DS2D2Error:
        with suppress(OSError):  # made by the constructor; they go only if they hold nothing else
            for picture in validator.save_dir.glob("val_batch*.jpg"):
                picture.unlink()
            validator.save_dir.rmdir()
            if is_new:
                validator.save_dir.parent.rmdir()
        raise
    return validator


def coco_detections(
    detections: Sequence[tuple[str, np.ndarray]], files: Sequence[str], truth: COCOTruth, task: str
) -> list[COCODetection]:
    """Return detections as COCO has them, image by image, with Ultralytics' names for what is oriented.

    Args:
        detections (Sequence[tuple[str, np.ndarray]]): As `DetectionCollector` keeps them.
        files (Sequence[str]): Image files in the order of the ground truth.
        truth (COCOTruth): The ground truth.
        task (str): `detect`, `obb`, `segment` or `pose`.

    Returns:
        (list[COCODetection]): The detections.
    """
    numbers: dict[str, deque[int]] = defaultdict(deque)  # several where a list has an image more than once
    for number, file in enumerate(files):
        numbers[file].append(number)
    records: list[COCODetection] = []
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
            records.append(record)
    return records


class DetectionCollector(DetectionValidator):
    """Comes before a validator of Ultralytics and keeps its detections, in pixels of the original images."""

    detections: list[tuple[str, np.ndarray]]
    """Image files and their detections (N, 6) or (N, 7) float64: box as the model gives it, confidence, class."""

    shapes: dict[str, tuple[int, int]]
    """Height and width of every image, in pixels, by file."""

    def get_dataloader(self, dataset_path: str, batch_size: int) -> Any:
        """Return Ultralytics' loader, once the labels suit the task."""
        with label_errors(self.args.split):
            dataloader: Any = super().get_dataloader(dataset_path, batch_size)
        check_labels(dataloader.dataset.labels, self.args.task)
        return dataloader

    def init_metrics(self, model: torch.nn.Module) -> None:
        """Forget an earlier validation."""
        super().init_metrics(model)
        self.detections, self.shapes = [], {}
        if self._keeps_masks_small:
            self.process = process_mask

    def update_metrics(self, preds: list[dict[str, torch.Tensor]], batch: dict[str, Any]) -> None:
        """Enter a batch, and the shapes of its images."""
        super().update_metrics(preds, batch)
        self.shapes.update(zip(batch["im_file"], batch["ori_shape"], strict=True))

    def scale_preds(self, predn: dict[str, torch.Tensor], pbatch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Return an image's detections in pixels of the original image."""
        if self._keeps_masks_small:
            return DetectionValidator.scale_preds(self, predn, pbatch)  # of the boxes
        return super().scale_preds(predn, pbatch)

    @property
    def _keeps_masks_small(self) -> bool:
        """Whether masks are compared at a quarter of the input's size, as in training and in Ultralytics' own val.

        With `save_json`, which has detections handed over here, Ultralytics would enlarge them and get other figures.
        """
        return bool(self.args.task == "segment" and not self.args.save_txt)

    def pred_to_json(self, predn: dict[str, torch.Tensor], pbatch: dict[str, Any]) -> None:
        """Keep an image's detections."""
        parts = [predn["bboxes"], predn["conf"].unsqueeze(1), predn["cls"].unsqueeze(1)]
        rows = torch.cat([part.cpu().double() for part in parts], 1)  # in this order, as MPS has no float64
        self.detections.append((str(pbatch["im_file"]), rows.numpy()))

    def eval_json(self, stats: dict[str, Any]) -> dict[str, Any]:
        """Return the figures as they are: the file is not written here."""
        return stats
