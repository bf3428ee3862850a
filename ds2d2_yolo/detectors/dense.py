"""Dense detectors: one prediction per anchor, ordered by level, then by row, then by cell."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from ultralytics.utils.nms import non_max_suppression
from ultralytics.utils.ops import xyxy2xywh

from ds2d2_yolo.detectors.base import ComparesPredictions, CutsLevels, Maps, Responds, TapOutputs, confidence_of
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
    """Base of all dense families. They differ in how the raw output of their heads is decoded.

    A family that is a `CutsLevels` cuts its `assignment` with `at_levels`, too.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._parts: dict[int, tuple[nn.Module, nn.Module]] = {}  # by the id of a whole head: the head and its part

    def compare_levels(self, levels: Sequence[int], scale: float = 1.0) -> None:
        """Have predictions compared at some levels of the head alone."""
        super().compare_levels(levels, scale)
        self._parts.clear()

    def level_part(self, head: nn.Module) -> nn.Module:
        """Return the part of a head that belongs to the compared levels. It is made once for every head."""
        if self.levels is None:
            return head
        if id(head) not in self._parts:
            assert isinstance(self, CutsLevels)  # refused for others
            self._parts[id(head)] = head, self.cut_head(head, self.levels)
        return self._parts[id(head)][1]

    @abstractmethod
    def decode(self, head: Any, raw: Any) -> DensePredictions:  # every family has its own type of output
        """Decode the raw output of a head into class logits and boxes.

        Args:
            head (Any): A head of the family.
            raw (Any): Its output in training.

        Returns:
            (DensePredictions): Logits (B, A, C) and boxes (B, A, K), such as xyxy in pixels.
        """

    @property
    def similarity(self) -> Similarity:
        """The similarity of two boxes."""
        return generalized_iou

    def predict(self, head: nn.Module, maps: Maps, assignment: DenseAssignment | None = None) -> DensePredictions:
        """Return the predictions of a frozen head from feature maps."""
        return self.decode(head, head(list(maps)))

    def target(self, head: nn.Module, maps: Maps, assignment: DenseAssignment | None = None) -> DensePredictions:
        """Return the predictions of a frozen head from the teacher's maps of all levels, at the compared ones."""
        return self._chosen(self.predict(head, maps), maps)

    def compare_predictions(
        self, student: DensePredictions, teacher: DensePredictions, assignment: DenseAssignment
    ) -> torch.Tensor:
        """Return the quality focal loss of the classes plus the similarity loss of the boxes."""
        return torch.stack(dense_implicit_terms(student, teacher, *assignment, similarity=self.similarity)).sum()

    def predictions_of(self, raw: DensePredictions, maps: Maps, assignment: DenseAssignment) -> DensePredictions:
        """Return `raw` at the compared levels. Dense predictions do not depend on the assignment."""
        return self._chosen(raw, maps)

    def response_modules(self) -> Mapping[str, nn.Module]:
        """Return the head."""
        return {"response": self.head}

    def response(self, head: nn.Module, outputs: TapOutputs) -> DensePredictions:
        """Return the student's own predictions at the compared levels."""
        return self._chosen(self.decode(head, outputs["response"]), self.maps_in(outputs))

    def maps_in(self, outputs: TapOutputs) -> Iterator[torch.Tensor]:
        """Yield the maps of all levels, out of what tapped modules have returned."""
        return (outputs[index] for index in self.head_layers)

    def at_levels(self, values: torch.Tensor, maps: Iterable[torch.Tensor]) -> torch.Tensor:
        """Return values of all anchors at the levels of `compare_levels`.

        Args:
            values (torch.Tensor): Values (B, A, ...), level by level.
            maps (Iterable[torch.Tensor]): Maps (B, C_l, H_l, W_l) of all levels; not looked at where all are compared.

        Returns:
            (torch.Tensor): Values (B, A', ...) of the chosen levels, in their order.
        """
        if self.levels is None:
            return values
        cells = [x.shape[2] * x.shape[3] for x in maps]
        anchors = values.shape[1] // sum(cells)
        parts = values.split([number * anchors for number in cells], 1)
        return torch.cat([parts[level] for level in self.levels], 1)

    def in_compared_pixels(self, boxes: torch.Tensor) -> torch.Tensor:
        """Return boxes (B, A, K), as `decode` returns them, in pixels of the images that are compared."""
        return boxes / self.scale

    def in_coarser_cells(self, boxes: torch.Tensor, factor: int) -> torch.Tensor:
        """Return boxes (..., K) of a level, as `decode` returns them, in the unit of a level `factor` times coarser."""
        return boxes

    def _chosen(self, predictions: DensePredictions, maps: Iterable[torch.Tensor]) -> DensePredictions:
        """Return predictions of all levels at those that are compared; `maps` are of all levels.

        Levels finer than those count on the finest compared one: each of its anchors takes the most confident
        prediction inside its cell.
        """
        if self.levels is None:
            return predictions
        maps, finest = list(maps), self.levels[0]
        cells = [x.shape[2] * x.shape[3] for x in maps]
        anchors = predictions.logits.shape[1] // sum(cells)
        logits, boxes = (values.split([number * anchors for number in cells], 1) for values in predictions)
        found = [DensePredictions(logits[level], boxes[level]) for level in self.levels]
        if finest > 0:
            inside = [DensePredictions(*(values[:, :, None] for values in found[0]))]
            for level in range(finest):
                factor = maps[level].shape[2] // maps[finest].shape[2]
                finer = logits[level], self.in_coarser_cells(boxes[level], factor)
                inside.append(DensePredictions(*(_by_cell(values, maps[level], factor) for values in finer)))
            found[0] = _most_confident(inside)
        return DensePredictions(
            torch.cat([part.logits for part in found], 1),
            self.in_compared_pixels(torch.cat([part.boxes for part in found], 1)),
        )

    def confidence(self, raw: DensePredictions, maps: Maps) -> list[torch.Tensor]:
        """Return the highest class probability (B, 1, H_l, W_l) of every cell."""
        return confidence_of(raw.logits, maps)

    def detections_of(
        self, raw: DensePredictions, maps: Maps, confidence: float = 0.25, iou: float = 0.7
    ) -> list[torch.Tensor]:
        """Return the teacher's detections (N, 6) for every image, from boxes (B, A, 4) as xyxy in pixels."""
        rows = torch.cat([xyxy2xywh(raw.boxes.float()), raw.logits.float().sigmoid()], 2)
        # An anchor can have several classes, as in Ultralytics' validation
        return list(non_max_suppression(rows.transpose(1, 2), confidence, iou, multi_label=True))

    def differences(
        self, head: nn.Module, student: Maps, teacher: Maps, places: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the class term and the box term of every anchor (A,), as required by `Explains`."""
        with torch.no_grad():
            predictions = self.predict(self.level_part(head), student)
            classes, boxes = dense_differences(predictions, self.target(head, teacher), self.similarity)
        return classes[0], boxes[0]


def _by_cell(values: torch.Tensor, finer: torch.Tensor, factor: int) -> torch.Tensor:
    """Arrange values of a level by the cells of a level `factor` times coarser.

    Args:
        values (torch.Tensor): Values (B, A, K) of the level's anchors.
        finer (torch.Tensor): Its map (B, C, H, W).
        factor (int): Cells of the level along the side of a coarser cell.

    Returns:
        (torch.Tensor): Values (B, A / factor^2, factor^2, K).
    """
    height, width = finer.shape[2] // factor, finer.shape[3] // factor
    cells = values.unflatten(1, (height, factor, width, factor, -1))
    return cells.permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 5).flatten(1, 3)


def _most_confident(inside: Sequence[DensePredictions]) -> DensePredictions:
    """Return, for every anchor, the prediction of the highest class logit among several (B, A, N_i, C or K)."""
    logits, boxes = (torch.cat(values, 2) for values in zip(*inside, strict=True))
    best = logits.amax(3).argmax(2)[:, :, None, None]
    return DensePredictions(*(values.take_along_dim(best, 2).squeeze(2) for values in (logits, boxes)))
