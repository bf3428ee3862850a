"""Dense detectors: one prediction per anchor, ordered by level, then by row, then by cell."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from ultralytics.utils.nms import non_max_suppression
from ultralytics.utils.ops import xyxy2xywh

from ds2d2_yolo.detectors.base import ComparesPredictions, Maps, Responds, Suppression, TapOutputs, confidence_of
from ds2d2_yolo.method import DensePredictions, Similarity, dense_differences, dense_implicit_terms, generalized_iou


class DenseAssignment(NamedTuple):
    """Normalisation of the terms for dense predictions.

    Attributes:
        avg_factor (torch.Tensor): Number of positive anchors, at least one per image, a scalar.
        label_weights (torch.Tensor | None): Weights (B, A): 0 for anchors that the assigner ignores, else 1. None
            means 1 for all.
    """

    avg_factor: torch.Tensor
    label_weights: torch.Tensor | None = None


class DenseDetector(
    ComparesPredictions[DensePredictions, DenseAssignment, DensePredictions], Responds[DensePredictions]
):
    """Base of all dense families. They differ in how the raw output of their heads is decoded."""

    takes_larger_images = True

    @abstractmethod
    def decode(self, head: Any, raw: Any, ratio: int = 1) -> DensePredictions:  # families have own types of output
        """Decode the raw output of a head into class logits and boxes.

        Args:
            head (Any): A head of the family.
            raw (Any): Its output in training.
            ratio (int): By what to divide the distances of boxes from their cells.

        Returns:
            (DensePredictions): Logits (B, A, C) and boxes (B, A, K), such as xyxy in pixels.
        """

    def run_head(self, head: Any, maps: Maps) -> Any:  # Any: see `decode`
        """Return the raw output of a frozen head from feature maps (B, C_l, H_l, W_l)."""
        return head(list(maps))

    @property
    def similarity(self) -> Similarity:
        """The similarity of two boxes."""
        return generalized_iou

    def predict(self, head: nn.Module, maps: Maps, assignment: DenseAssignment | None = None) -> DensePredictions:
        """Return the predictions of a frozen head from feature maps in the student's grids.

        The head of a teacher with larger images predicts sizes in their pixels. So distances are divided by `ratio`.
        """
        return self.decode(head, self.run_head(head, maps), self.ratio)

    def target(self, head: nn.Module, maps: Maps, assignment: DenseAssignment | None = None) -> DensePredictions:
        """Return the predictions of a frozen head from the teacher's maps, for the student's images."""
        return self._reduced(self.decode(head, self.run_head(head, maps)), maps)

    def compare_predictions(
        self, student: DensePredictions, teacher: DensePredictions, assignment: DenseAssignment
    ) -> torch.Tensor:
        """Return the quality focal loss of the classes plus the similarity loss of the boxes."""
        return torch.stack(dense_implicit_terms(student, teacher, *assignment, similarity=self.similarity)).sum()

    def predictions_of(self, raw: DensePredictions, maps: Maps, assignment: DenseAssignment) -> DensePredictions:
        """Return `raw`, for the student's images. Dense predictions do not depend on the assignment."""
        return self._reduced(raw, maps)

    def _reduced(self, predictions: DensePredictions, maps: Maps) -> DensePredictions:
        """Return the most confident prediction of every `ratio` x `ratio` cells, for each anchor of a cell.

        Boxes are divided by `ratio`, in pixels or in grid cells. Angles stay.

        Args:
            predictions (DensePredictions): Predictions for the teacher's images.
            maps (Maps): The teacher's maps (B, C_l, H_l, W_l).
        """
        if self.ratio == 1:
            return predictions
        cells = [x.shape[2] * x.shape[3] for x in maps]
        anchors = predictions.logits.shape[1] // sum(cells)
        logits, boxes = (values.split([number * anchors for number in cells], 1) for values in predictions)
        found = []
        for *level, x in zip(logits, boxes, maps, strict=True):
            confidence = level[0].amax(2).unflatten(1, (*x.shape[2:], anchors)).permute(0, 3, 1, 2)
            _, cell = F.max_pool2d(confidence, self.ratio, ceil_mode=True, return_indices=True)
            anchor = torch.arange(anchors, device=cell.device)[:, None, None]
            best = (cell * anchors + anchor).permute(0, 2, 3, 1).flatten(1)[..., None]
            found.append([values.take_along_dim(best, 1) for values in level])
        logits, boxes = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
        return DensePredictions(logits, torch.cat([boxes[..., :4] / self.ratio, boxes[..., 4:]], 2))

    def response_modules(self) -> Mapping[str, nn.Module]:
        """Return the head."""
        return {"response": self.head}

    def response(self, head: nn.Module, outputs: TapOutputs) -> DensePredictions:
        """Return the student's own predictions."""
        return self.decode(head, outputs["response"])

    def confidence(self, raw: DensePredictions, maps: Maps) -> list[torch.Tensor]:
        """Return the highest class probability (B, 1, H_l, W_l) of every cell."""
        return confidence_of(raw.logits, maps)

    def detections_of(self, raw: DensePredictions, maps: Maps, suppression: Suppression) -> list[torch.Tensor]:
        """Return the teacher's detections (N, 6) for every image, from boxes (B, A, 4) as xyxy in pixels."""
        rows = torch.cat([xyxy2xywh(raw.boxes.float()), raw.logits.float().sigmoid()], 2)
        return self.suppressed(rows, suppression)

    def suppressed(self, rows: torch.Tensor, suppression: Suppression, extra: int = 0) -> list[torch.Tensor]:
        """Return the detections that remain after non-maximum suppression, as in Ultralytics' validation.

        Args:
            rows (torch.Tensor): Boxes as xywh in pixels, probabilities of the classes, and angles of oriented boxes,
                (B, A, 4 + C + extra).
            suppression (Suppression): Which detections remain.
            extra (int): 1 for oriented boxes.
        """
        found = non_max_suppression(
            rows.transpose(1, 2),
            suppression.conf,
            suppression.iou,
            agnostic=suppression.agnostic_nms,
            multi_label=True,  # an anchor can have several classes
            max_det=suppression.max_det,
            nc=rows.shape[2] - 4 - extra,
            rotated=extra > 0,
        )
        return list(found)

    def differences(
        self, head: nn.Module, student: Maps, teacher: Maps, places: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the class term and the box term of every anchor (A,), as required by `Explains`."""
        with torch.no_grad():
            predictions = self.predict(head, student), self.target(head, teacher)
            classes, boxes = dense_differences(*predictions, self.similarity)
        return classes[0], boxes[0]
