"""How far two detectors find the same objects."""

from __future__ import annotations

import torch
import torch.distributed as dist
from scipy.optimize import linear_sum_assignment
from ultralytics.utils.metrics import batch_probiou, box_iou

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
        student, teacher = (found[found[:, -2] >= self.confidence].float().cpu() for found in (student, teacher))
        measure = batch_probiou if student.shape[1] == 7 else box_iou
        overlap = measure(student[:, :-2], teacher[:, :-2])
        overlap[overlap < self.iou] = 0
        alike = (student[:, None, -1] == teacher[None, :, -1]) & (overlap > 0)
        worth = overlap.double() + _SAME_CLASS * alike
        rows, columns = map(torch.from_numpy, linear_sum_assignment(worth.numpy(), maximize=True))
        paired = overlap[rows, columns] > 0
        rows, columns = rows[paired], columns[paired]
        same = int((student[rows, -1] == teacher[columns, -1]).sum())
        counts = [len(student) + len(teacher), len(rows), same, float(overlap[rows, columns].sum())]
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
