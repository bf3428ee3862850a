"""Validation of a student with comparison to its teacher: the terms, and the agreement of detections."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

import torch
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.utils import RANK
from ultralytics.utils.torch_utils import autocast, unwrap_model

from ds2d2_yolo.detectors import Batch, Detector, Suppression, detector_of
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.evaluation import Agreement
from ds2d2_yolo.training.resume import ADAPTERS
from ds2d2_yolo.training.step import Distiller


class DistillationValidator(DetectionValidator):
    """Validates a student as Ultralytics does, and compares it with its teacher on the same images.

    During training, the terms are added to the validation losses. The agreement is added to the metrics, also in the
    final evaluation, which has no losses. A teacher with larger images gets the same images at its own
    size. Its boxes are compared in pixels of the student's images.

    Args:
        distiller (Distiller): The distillation.
        *args (Any): As for Ultralytics' validators.
        **kwargs (Any): As for Ultralytics' validators.

    Attributes:
        teacher_batches (Iterable | None): Batches of the same images at the teacher's size, if that is larger.
    """

    def __init__(self, distiller: Distiller, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.device: Any  # set by Ultralytics when it validates
        self.distiller = distiller
        self.agreement = Agreement()
        self.teacher_batches: Iterable[dict[str, Any]] | None = None
        self._large: Iterator[dict[str, Any]] | None = None
        self._student: Detector | None = None  # set during training; the model in the final evaluation is fused

    def init_metrics(self, model: torch.nn.Module) -> None:
        """Reset the counts."""
        super().init_metrics(model)
        self.agreement = Agreement()
        self._large = None if self.teacher_batches is None else iter(self.teacher_batches)
        self._student = detector_of(unwrap_model(model)) if self.training else None

    def preprocess(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Prepare a batch, and tap the student for its forward pass."""
        batch = super().preprocess(batch)
        if self._large is not None:
            large = next(self._large)
            if large["im_file"] != batch["im_file"]:
                raise DS2D2Error("val_kd=True: images of the validation set changed; run the same command again")
            batch["teacher_img"] = large["img"].to(self.device).float() / 255
        if self._student is not None:
            self.distiller.tap_student(self._student)
        return batch

    def update_metrics(self, preds: list[dict[str, torch.Tensor]], batch: dict[str, Any]) -> None:
        """Update losses and metrics after the student's forward pass for a batch."""
        student_found = [torch.cat([p["bboxes"], p["conf"][:, None], p["cls"][:, None]], 1) for p in preds]
        # Autocast chooses half precision, as in training.
        large = batch.pop("teacher_img", None)
        batch_of_teacher = cast(Batch, {**batch, "img": batch["img"].float()})
        with autocast(self.training and self.args.quantize == 16, device=self.device.type):
            teacher_outputs = self.distiller.run_teacher(batch_of_teacher["img"] if large is None else large)
            if self._student is not None:
                adapters = dict(getattr(self._student.model, ADAPTERS).named_parameters())
                student_outputs = self.distiller.tapped_outputs()
                terms = self.distiller.terms(
                    self._student, batch_of_teacher, student_outputs, teacher_outputs, adapters
                )
                for name, value in terms.items():
                    self.loss[f"{name}_loss"] += value
        args = self.args
        suppression = Suppression(
            self.agreement.confidence, args.iou, args.max_det, args.agnostic_nms or args.single_cls
        )
        teacher_found = self.distiller.detections(teacher_outputs, suppression)
        for detections in zip(student_found, teacher_found, strict=True):
            self.agreement.update(*detections)
        super().update_metrics(preds, batch)

    def gather_stats(self) -> None:
        """Gather the results of all processes."""
        super().gather_stats()
        if RANK != -1:
            self.agreement.gather(self.device)

    def get_stats(self) -> dict[str, Any]:
        """Return the metrics, including the agreement."""
        return {**super().get_stats(), **self.agreement.results()}
