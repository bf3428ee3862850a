"""A distilled training step for AutoBatch, which measures the memory that a model needs for images of several sizes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ds2d2_yolo.detectors import Batch, Detector, detector_of
from ds2d2_yolo.training.step import Distiller


class DistillationStep(nn.Module):
    """A student that is distilled whenever it is called with images: its own loss and the terms are computed.

    Ultralytics' AutoBatch copies a model, calls it with batches of growing size and goes backward from what it returns.
    Given this module, it finds the teacher, the amplifier and the maps that the terms keep for the backward pass in the
    memory that it measures. What the loss needs for many objects it adds by itself.

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

        AutoBatch hands over memory as it finds it, which would make terms that are not finite, with warnings.
        """
        detector = detector_of(self.student)
        assert detector is not None
        batch = made_up_batch(detector, images)
        self.distiller.arm(detector, batch)
        try:
            loss: torch.Tensor = self.student(batch)[0]
        finally:
            self.distiller.disarm(report=False)
        return loss


def made_up_batch(detector: Detector, images: torch.Tensor) -> Batch:
    """Return a training batch of black images with one object each, as the detector's task has them.

    Args:
        detector (Detector): The detector.
        images (torch.Tensor): Images (B, C, H, W) of the size that is wanted.

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
    if detector.task == "segment":  # as masks that overlap are given: the number of the object in every pixel
        batch["masks"] = images.new_zeros(count, images.shape[2] // 4, images.shape[3] // 4)
        batch["masks"][:, ::2] = 1
        batch["sem_masks"] = torch.zeros_like(batch["masks"])
    elif detector.task == "pose":
        batch["keypoints"] = images.new_full((count, detector.model.model[-1].kpt_shape[0], 3), 0.5)
    return batch
