"""Validation that also tells how close a student is to its teacher: the terms, and the agreement of detections."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from scipy.optimize import linear_sum_assignment
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.utils import RANK
from ultralytics.utils.metrics import batch_probiou, box_iou
from ultralytics.utils.torch_utils import autocast, unwrap_model

from ds2d2_yolo.detectors import Detector, detector_of
from ds2d2_yolo.engine.distiller import Distiller
from ds2d2_yolo.engine.resume import ADAPTERS

AGREEMENT = ("metrics/agreement", "metrics/agreement_class", "metrics/agreement_iou")
"""Columns of the agreement between the detections of teacher and student."""

_SAME_CLASS = 1e-5  # decides between overlaps that are equal but for rounding in float32


class Agreement:
    """Counts how far two detectors find the same.

    Detections of both with the least confidence or more are paired one to one, whatever their classes, so that the sum
    of the pairs' intersections over union (IoU) is the largest; pairs need the least IoU or more. Of boxes that overlap
    alike, those of one class are paired.

    Args:
        confidence (float): Least confidence of a detection.
        iou (float): Least intersection over union of a pair.

    Example:
        >>> agreement = Agreement()
        >>> box = torch.tensor([[0.0, 0.0, 8.0, 8.0, 0.9, 1.0]])
        >>> agreement.update(box, torch.cat([box, box + 20]))
        >>> {name: round(value, 2) for name, value in agreement.results().items()}
        {'metrics/agreement': 0.67, 'metrics/agreement_class': 1.0, 'metrics/agreement_iou': 1.0}
    """

    def __init__(self, confidence: float = 0.25, iou: float = 0.5) -> None:
        self.confidence, self.iou = confidence, iou
        self._counts = torch.zeros(4, dtype=torch.float64)

    def update(self, student: torch.Tensor, teacher: torch.Tensor) -> None:
        """Add the detections (N, 6) and (M, 6) in one image: xyxy (xywhr: N, 7 and M, 7), confidence, class."""
        ours, theirs = (found[found[:, -2] >= self.confidence].float().cpu() for found in (student, teacher))
        measure = batch_probiou if ours.shape[1] == 7 else box_iou
        overlap = measure(ours[:, :-2], theirs[:, :-2])
        overlap[overlap < self.iou] = 0
        alike = (ours[:, None, -1] == theirs[None, :, -1]) & (overlap > 0)
        worth = overlap.double() + _SAME_CLASS * alike
        rows, columns = map(torch.from_numpy, linear_sum_assignment(worth.numpy(), maximize=True))
        paired = overlap[rows, columns] > 0
        rows, columns = rows[paired], columns[paired]
        same = int((ours[rows, -1] == theirs[columns, -1]).sum())
        counts = [len(ours) + len(theirs), len(rows), same, float(overlap[rows, columns].sum())]
        self._counts += torch.tensor(counts, dtype=torch.float64)

    def gather(self, device: torch.device) -> None:
        """Add up, in the first process of a distributed run, what all of them have counted; all are to call it."""
        counts = self._counts.to(device, torch.float32 if device.type == "mps" else torch.float64)
        dist.reduce(counts, dst=0)
        self._counts = counts.cpu().double()

    def results(self) -> dict[str, float]:
        """Return the measures, from 0 to 1.

        Returns:
            (dict[str, float]): `metrics/agreement`, the share of both sides' detections that are paired (an F1 score);
                `metrics/agreement_class`, the share of the pairs that are of one class; `metrics/agreement_iou`, the
                mean IoU of the pairs. 0 where there is nothing to take a share of.
        """
        found, pairs, same, overlap = self._counts.tolist()
        values = 2 * pairs / max(found, 1.0), same / max(pairs, 1.0), overlap / max(pairs, 1.0)
        return dict(zip(AGREEMENT, values, strict=True))


class DistillationValidator(DetectionValidator):
    """Validates a student as Ultralytics does, and compares it with its teacher on the same images.

    The terms join the validation losses, in training; the agreement joins the metrics, in the final evaluation too,
    where Ultralytics computes no losses.

    Args:
        distiller (Distiller): The distillation.
        *args (Any): As for Ultralytics' validators.
        **kwargs (Any): Likewise.
    """

    def __init__(self, distiller: Distiller, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.device: Any  # set by Ultralytics when it validates
        self.distiller = distiller
        self.agreement = Agreement()
        self._student: Detector | None = None  # in training; the final evaluation has a fused one

    def init_metrics(self, model: torch.nn.Module) -> None:
        """Start counting."""
        super().init_metrics(model)
        self.agreement = Agreement()
        self._student = detector_of(unwrap_model(model)) if self.training else None

    def preprocess(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Prepare a batch, and tap the student that is about to see it."""
        batch = super().preprocess(batch)
        if self._student is not None:
            self.distiller.watch(self._student)
        return batch

    def update_metrics(self, preds: list[dict[str, torch.Tensor]], batch: dict[str, Any]) -> None:
        """Take a batch into account that the student has seen."""
        found = [torch.cat([own["bboxes"], own["conf"][:, None], own["cls"][:, None]], 1) for own in preds]
        batch_of_teacher = {**batch, "img": batch["img"].float()}  # half precision is autocast's, as in training
        with autocast(self.training and self.args.quantize == 16, device=self.device.type):
            predictions, known = self.distiller.consult(batch_of_teacher["img"])
            if self._student is not None:
                adapters = dict(getattr(self._student.model, ADAPTERS).named_parameters())
                terms = self.distiller.measure(self._student, batch_of_teacher, predictions, known, adapters)
                for name, value in terms.items():
                    self.loss[f"{name}_loss"] += value
        for ours, theirs in zip(
            found, self.distiller.detections(predictions, known, self.agreement.confidence), strict=True
        ):
            self.agreement.update(ours, theirs)
        super().update_metrics(preds, batch)

    def gather_stats(self) -> None:
        """Gather what all processes have found."""
        super().gather_stats()
        if RANK != -1:
            self.agreement.gather(self.device)

    def get_stats(self) -> dict[str, Any]:
        """Return the metrics, the agreement among them."""
        return {**super().get_stats(), **self.agreement.results()}
