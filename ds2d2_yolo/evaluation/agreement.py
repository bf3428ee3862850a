"""Agreement of the detections of two models."""

from __future__ import annotations

import torch
import torch.distributed as dist
from scipy.optimize import linear_sum_assignment
from ultralytics.utils.metrics import batch_probiou, box_iou

AGREEMENT = ("metrics/agreement", "metrics/agreement_class", "metrics/agreement_iou")
"""Columns of the agreement between the detections of teacher and student."""

_LOWEST_IOU = 0.5  # of a pair
_SAME_CLASS = 1e-5  # bonus for equal classes: decides between IoUs that differ only by float32 rounding


class Agreement:
    """Measures the agreement of the detections of two models.

    Detections are paired one to one so that the sum of the pairs' IoU is maximal. A pair needs an IoU of 0.5, but not
    equal classes. Between equal IoUs, a pair of equal classes is preferred.

    Args:
        confidence (float): Minimum confidence of a detection.

    Example:
        >>> agreement = Agreement()
        >>> box = torch.tensor([[0.0, 0.0, 8.0, 8.0, 0.9, 1.0]])
        >>> agreement.update(box, torch.cat([box, box + 20]))
        >>> {name: round(value, 2) for name, value in agreement.results().items()}
        {'metrics/agreement': 0.67, 'metrics/agreement_class': 1.0, 'metrics/agreement_iou': 1.0}
    """

    def __init__(self, confidence: float = 0.25) -> None:
        self.confidence = confidence
        self._counts = torch.zeros(4, dtype=torch.float64)

    def update(self, student: torch.Tensor, teacher: torch.Tensor) -> None:
        """Add one image's detections (N, 6) and (M, 6): xyxy, confidence, class. With xywhr, (N, 7) and (M, 7)."""
        student, teacher = (found[found[:, -2] >= self.confidence].float().cpu() for found in (student, teacher))
        measure = batch_probiou if student.shape[1] == 7 else box_iou
        overlap = measure(student[:, :-2], teacher[:, :-2])
        overlap[overlap < _LOWEST_IOU] = 0
        alike = (student[:, None, -1] == teacher[None, :, -1]) & (overlap > 0)
        worth = overlap.double() + _SAME_CLASS * alike
        rows, columns = map(torch.from_numpy, linear_sum_assignment(worth.numpy(), maximize=True))
        paired = overlap[rows, columns] > 0
        rows, columns = rows[paired], columns[paired]
        same = int((student[rows, -1] == teacher[columns, -1]).sum())
        counts = [len(student) + len(teacher), len(rows), same, float(overlap[rows, columns].sum())]
        self._counts += torch.tensor(counts, dtype=torch.float64)

    def gather(self, device: torch.device) -> None:
        """Sum the counts of a distributed run in the first process. All processes must call this."""
        counts = self._counts.to(device, torch.float32 if device.type == "mps" else torch.float64)
        dist.reduce(counts, dst=0)
        self._counts = counts.cpu().double()

    def results(self) -> dict[str, float]:
        """Return the measures, from 0 to 1.

        Returns:
            (dict[str, float]): 0 for an empty set, otherwise

                - `metrics/agreement`: share of both models' detections that are paired (a symmetric F1 score)
                - `metrics/agreement_class`: share of the pairs with equal classes
                - `metrics/agreement_iou`: mean IoU of the pairs
        """
        found, pairs, same, overlap = self._counts.tolist()
        values = 2 * pairs / max(found, 1.0), same / max(pairs, 1.0), overlap / max(pairs, 1.0)
        return dict(zip(AGREEMENT, values, strict=True))
