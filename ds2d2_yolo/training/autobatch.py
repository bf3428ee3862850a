"""A distilled training step for Ultralytics' AutoBatch, which measures memory for several batch sizes."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ds2d2_yolo.detectors import Batch, Detector, detector_of
from ds2d2_yolo.training.step import Distiller


class DistillationStep(nn.Module):
    """A module that computes the student's own loss and the terms for a batch of images.

    AutoBatch copies a model, calls it with growing batches, and runs the backward pass. With this module it also
    measures the memory of the teacher, the amplifier and the maps of the terms. It adds memory for many objects itself.

    Args:
        student (Any): The student, with its adapters.
        distiller (Distiller): The distillation.

    Example:
        >>> step = DistillationStep(trainer.model, trainer.distiller)  # doctest: +SKIP
        >>> step(torch.zeros(8, 3, 640, 640)).sum().backward()  # doctest: +SKIP
    """

    def __init__(self, student: Any, distiller: Distiller) -> None:
        super().__init__()
        self.student = student
        self.distiller = distiller
        self.yaml, self.stride, self.names = student.yaml, student.stride, student.names

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the losses and terms of a batch of black images (B, C, H, W) with one object each.

        The values from AutoBatch are not used: they are uninitialised memory, which would cause warnings about terms
        that are not finite.
        """
        detector = detector_of(self.student)
        batch = artificial_batch(detector, images)
        if (ratio := self.distiller.teacher.ratio) > 1:
            batch["teacher_img"] = F.interpolate(batch["img"], scale_factor=ratio)
        self.distiller.begin_step(detector, batch)
        try:
            loss: torch.Tensor = self.student(batch)[0]
        finally:
            self.distiller.end_step(report=False)
        return loss


def artificial_batch(detector: Detector, images: torch.Tensor) -> Batch:
    """Return a training batch of black images with one object each, for the detector's task.

    Args:
        detector (Detector): The detector.
        images (torch.Tensor): Images (B, C, H, W) of the required size.

    Returns:
        (Batch): The batch.
    """
    count = images.shape[0]
    batch: Batch = {
        "img": torch.zeros_like(images),
        "cls": images.new_zeros(count, 1),
        "bboxes": images.new_full((count, 5 if detector.task == "obb" else 4), 0.5),
        "batch_idx": torch.arange(count, dtype=torch.float32, device=images.device),
    }
    if detector.task == "segment":  # the format of overlapping masks: every pixel has its object's number
        batch["masks"] = images.new_zeros(count, images.shape[2] // 4, images.shape[3] // 4)
        batch["masks"][:, ::2] = 1
        batch["sem_masks"] = torch.zeros_like(batch["masks"])
    elif detector.task == "pose":
        batch["keypoints"] = images.new_full((count, detector.model.model[-1].kpt_shape[0], 3), 0.5)
    return batch
