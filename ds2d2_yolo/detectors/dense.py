"""Dense detectors: one prediction per anchor, in the order level by level, row by row, anchors of a cell together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from ultralytics.utils.nms import non_max_suppression
from ultralytics.utils.ops import xyxy2xywh

from ds2d2_yolo.detectors.base import ComparesPredictions, Maps, Responds, TapOutputs, confidence_of
from ds2d2_yolo.method import DensePredictions, Similarity, dense_differences, dense_implicit_terms, generalized_iou


class DenseAssignment(NamedTuple):
    """What normalises the terms of dense predictions.

    Attributes:
        avg_factor (torch.Tensor): Number of positive anchors, at least one per image, a scalar.
        label_weights (torch.Tensor | None): 0 for anchors that the assigner ignores, else 1 (B, A); None counts all.
    """

    avg_factor: torch.Tensor
    label_weights: torch.Tensor | None = None


class DenseDetector(
    ComparesPredictions[DensePredictions, DenseAssignment, DensePredictions], Responds[DensePredictions]
):
    """What all dense families have in common; what differs is how their heads' raw output is decoded."""

    @abstractmethod
    def decode(self, head: Any, raw: Any) -> DensePredictions:  # every family's head has its own type of output
        """Return what a head's raw output says of classes and boxes.

        Args:
            head (Any): A head of the family.
            raw (Any): Its output in training.

        Returns:
            (DensePredictions): Logits (B, A, C) and boxes (B, A, K), such as xyxy in pixels.
        """

    @property
    def similarity(self) -> Similarity:
        """How boxes are compared."""
        return generalized_iou

    def predict(self, head: nn.Module, maps: Maps, assignment: DenseAssignment | None = None) -> DensePredictions:
        """Return what a frozen head predicts from a pyramid."""
        return self.decode(head, head(list(maps)))

    def compare_predictions(
        self, student: DensePredictions, teacher: DensePredictions, assignment: DenseAssignment
    ) -> torch.Tensor:
        """Return quality focal loss plus the loss of the boxes' similarity."""
        return torch.stack(dense_implicit_terms(student, teacher, *assignment, similarity=self.similarity)).sum()

    def predictions_of(self, raw: DensePredictions, maps: Maps, assignment: DenseAssignment) -> DensePredictions:
        """Return `raw`: all of it is known before the student has run."""
        return raw

    def response_modules(self) -> Mapping[str, nn.Module]:
        """Return the head."""
        return {"response": self.head}

    def response(self, head: nn.Module, outputs: TapOutputs) -> DensePredictions:
        """Return what a student predicts by its own head."""
        return self.decode(head, outputs["response"])

    def confidence(self, raw: DensePredictions, maps: Maps) -> list[torch.Tensor]:
        """Return the highest class probability (B, 1, H_l, W_l) of every cell."""
        return confidence_of(raw.logits, maps)

    def detections_of(
        self, raw: DensePredictions, maps: Maps, confidence: float = 0.25, iou: float = 0.7
    ) -> list[torch.Tensor]:
        """Return what the teacher finds, from boxes (B, A, 4) as xyxy pixels: detections (N, 6) of every image."""
        rows = torch.cat([xyxy2xywh(raw.boxes.float()), raw.logits.float().sigmoid()], 2)
        # A place may tell several classes, as in Ultralytics' validation
        return list(non_max_suppression(rows.transpose(1, 2), confidence, iou, multi_label=True))

    def differences(
        self, head: nn.Module, student: Maps, teacher: Maps, places: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the class and the box term of every anchor (A,), as `Explains` asks for them."""
        with torch.no_grad():
            predictions = self.predict(head, student), self.predict(head, teacher)
            classes, boxes = dense_differences(*predictions, self.similarity)
        return classes[0], boxes[0]
