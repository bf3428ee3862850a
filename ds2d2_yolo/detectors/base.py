"""What the engine asks of a detector family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from ultralytics.utils.nms import non_max_suppression
from ultralytics.utils.ops import xywh2xyxy, xyxy2xywh

from ds2d2_yolo.method import Gains, dense_implicit_terms


class Detector(ABC):
    """A detection model as distillation sees it: maps to tap, a head to look through, an assigner to follow.

    A family subclasses this in one file of `ds2d2_yolo/detectors/` and registers itself in that folder's `__init__`;
    nothing else changes.

    Args:
        model (nn.Module): The model, as the trainer holds it or as a checkpoint contains it.

    Attributes:
        family (str): Name of the family; teacher and student must share it.
        shared_adapter (bool): Whether one adapter serves all maps, where they all have the same channels.
        explicit_only (bool): Whether it teaches and learns by its maps alone, then with models of other families too.
        model (nn.Module): The model.
    """

    family: str
    shared_adapter = False
    explicit_only = False

    def __init__(self, model: nn.Module) -> None:
        self.model: Any = model  # detection models carry attributes that nn.Module's types do not know

    @classmethod
    @abstractmethod
    def accepts(cls, model: nn.Module) -> bool:
        """Return whether `model` belongs to this family and can be distilled."""

    @classmethod
    @abstractmethod
    def builds(cls, config: Mapping[str, Any]) -> bool:
        """Return whether the content of a model YAML describes a model of this family."""

    @classmethod
    @abstractmethod
    def build(cls, config: Mapping[str, Any], ch: int, nc: int | None, verbose: bool) -> nn.Module:
        """Return a new model.

        Args:
            config (Mapping[str, Any]): Content of a model YAML; it is not changed.
            ch (int): Channels of the images.
            nc (int | None): Number of classes; None takes that of the YAML.
            verbose (bool): Whether to print a summary.
        """

    @property
    def title(self) -> str:
        """What a person would call the model, such as `yolo11s`: the name of its YAML file, with the scale in it."""
        return Path(str(self.model.yaml.get("yaml_file", self.family))).stem

    @property
    @abstractmethod
    def box_coding(self) -> str:
        """How the head codes boxes, for the summary, such as `DFL, 16 bins`."""

    @property
    def task(self) -> str:
        """Ultralytics' name of what the model does: `detect`, `obb`, `segment` or `pose`."""
        return "detect"

    @property
    def keypoints(self) -> tuple[int, int] | None:
        """How many keypoints the model finds of an object and how many values of each; None where it finds none."""
        return None

    @property
    def head_index(self) -> int:
        """Index of the layer that is the head: the last one of the model's sequence."""
        return len(self.model.model) - 1

    @property
    @abstractmethod
    def head_layers(self) -> tuple[int, ...]:
        """Indices of the layers whose outputs the head takes, in the head's order."""

    def layer(self, index: int) -> nn.Module:
        """Return layer `index` of the model's sequence.

        Raises:
            IndexError: If there is no such layer.
        """
        if not 0 <= index <= self.head_index:
            raise IndexError(f"{self.title} has layers 0 to {self.head_index}, not {index}")
        layer: nn.Module = self.model.model[index]
        return layer

    @abstractmethod
    def assignment_modules(self) -> Mapping[str, nn.Module]:
        """Return the modules whose outputs tell, in a training pass, how the ground truth was assigned."""

    @abstractmethod
    def assignment(self, outputs: Mapping[str, Any]) -> Any:
        """Return what comparisons need to know of the assignment, from the outputs of `assignment_modules`."""

    @property
    def assigns_by_predictions(self) -> bool:
        """Whether what the model predicts of classes and boxes, and nothing else of it, assigns the objects."""
        return False

    def assign_by(self, predictions: Any, maps: Sequence[torch.Tensor]) -> RemovableHandle:
        """Have the model's own loss assign objects by the predictions of a teacher, in the place of its own.

        Args:
            predictions (Any): What the teacher's `forward_teacher` returned for the batch.
            maps (Sequence[torch.Tensor]): The teacher's maps (B, C_l, H_l, W_l) that its head was given.

        Returns:
            (RemovableHandle): What ends it: objects are assigned by the model's own predictions again.

        Raises:
            NotImplementedError: If the family is none that `assigns_by_predictions`.

        Source:
            Label assignment distillation, arXiv 2108.10520.
        """
        raise NotImplementedError(f"{self.family} does not assign objects by what is predicted of classes and boxes")

    def response_modules(self) -> Mapping[str, nn.Module]:
        """Return the modules whose outputs tell what the model itself predicts, in a pass that computes its loss."""
        return {"response": self.head}

    def response(self, head: nn.Module, outputs: Mapping[Any, Any]) -> Any:
        """Return what a student of the family predicts by its own head.

        Args:
            head (nn.Module): The student's head.
            outputs (Mapping[Any, Any]): Outputs of its `response_modules` and `assignment_modules`.

        Returns:
            (Any): Predictions, as `decode` returns them, with gradient to the student.
        """
        return self.decode(head, outputs["response"])

    def footprints(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return what the objects of a batch cover, for their weight.

        Args:
            batch (Mapping[str, Any]): The batch: `img` (B, 3, H, W), `bboxes` (N, 4) as normalised xywh.

        Returns:
            (torch.Tensor): Boxes (N, 4) as xyxy pixels, or (N, 5) oriented as xywhr: pixels and radians.
        """
        return to_pixels(xywh2xyxy(batch["bboxes"]), batch["img"])

    @abstractmethod
    def forward_teacher(self, images: torch.Tensor) -> Any:
        """Run the frozen model on images (B, 3, H, W) in [0, 1] and return its raw predictions; taps see its maps."""

    def decode(self, head: nn.Module, raw: Any) -> Any:
        """Return what a head's raw output says of classes and boxes.

        Args:
            head (nn.Module): A head of the family.
            raw (Any): Its output in training.

        Returns:
            (Any): Predictions that `compare_predictions` takes; dense ones as `DensePredictions`.

        Raises:
            NotImplementedError: If the family's heads need more than their output, as those of regions do; then it has
                a `predict` of its own.
        """
        raise NotImplementedError(f"{self.family} predicts from more than a head's output, see its `predict`")

    def predict(self, head: nn.Module, maps: Sequence[torch.Tensor], assignment: Any) -> Any:
        """Return what a frozen head predicts from a pyramid.

        Args:
            head (nn.Module): The teacher's head or the high-frequency amplifier.
            maps (Sequence[torch.Tensor]): Maps (B, C_l, H_l, W_l), in the head's channels.
            assignment (Any): What the student's `assignment` returned for this batch.

        Returns:
            (Any): Predictions, as `decode` returns them, with gradient to `maps`.
        """
        return self.decode(head, head(list(maps)))

    def compare_predictions(self, student: Any, teacher: Any, assignment: Any) -> torch.Tensor:
        """Return the class term plus the box term between two predictions.

        This one is for dense predictions whose `assignment` is the number of positive anchors.

        Args:
            student (Any): Predictions that the student is to be taught by.
            teacher (Any): Predictions that it is to reach.
            assignment (Any): What the student's `assignment` returned for this batch.

        Returns:
            (torch.Tensor): Scalar with gradient to `student`.
        """
        return torch.stack(dense_implicit_terms(student, teacher, assignment)).sum()

    def compare(
        self,
        head: nn.Module,
        student: Sequence[torch.Tensor],
        teacher: Sequence[torch.Tensor],
        assignment: Any,
        teacher_predictions: Any = None,
    ) -> torch.Tensor:
        """Return the implicit term: two pyramids compared as predictions of one frozen head.

        Args:
            head (nn.Module): The teacher's head or the high-frequency amplifier, frozen.
            student (Sequence[torch.Tensor]): Maps from the student (B, C_l, H_l, W_l), in the head's channels.
            teacher (Sequence[torch.Tensor]): Maps from the teacher, of the same shapes.
            assignment (Any): What the student's `assignment` returned for this batch.
            teacher_predictions (Any): The head's predictions for `teacher`, where they are known already.

        Returns:
            (torch.Tensor): Scalar with gradient to `student`.
        """
        if teacher_predictions is None:
            with torch.no_grad():
                teacher_predictions = self.predict(head, teacher, assignment)
        return self.compare_predictions(self.predict(head, student, assignment), teacher_predictions, assignment)

    def answers(self, predictions: Any, maps: Sequence[torch.Tensor], assignment: Any) -> Any:
        """Return what the teacher predicts, as `compare_predictions` takes it.

        Args:
            predictions (Any): What `forward_teacher` returned.
            maps (Sequence[torch.Tensor]): The teacher's maps (B, C_l, H_l, W_l) that the head was given.
            assignment (Any): What the student's `assignment` returned for this batch.

        Returns:
            (Any): Predictions, without gradient.
        """
        return predictions

    def confidence(self, predictions: Any, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return how sure the teacher is that there is an object, cell by cell.

        This one is for dense predictions in the usual order: level by level, row by row, anchors of a cell together.

        Args:
            predictions (Any): What `forward_teacher` returned.
            maps (Sequence[torch.Tensor]): The teacher's maps (B, C_l, H_l, W_l) that the head was given.

        Returns:
            (list[torch.Tensor]): The highest class probability (B, 1, H_l, W_l) of every cell.
        """
        highest = predictions.logits.float().amax(2)
        anchors = highest.shape[1] // sum(x.shape[2] * x.shape[3] for x in maps)
        cells = highest.unflatten(1, (-1, anchors)).amax(2).sigmoid()
        parts = cells.split([x.shape[2] * x.shape[3] for x in maps], 1)
        return [part.unflatten(1, (1, *x.shape[2:])) for part, x in zip(parts, maps, strict=True)]

    def detections_of(
        self, predictions: Any, maps: Sequence[torch.Tensor], confidence: float = 0.25, iou: float = 0.7
    ) -> list[torch.Tensor]:
        """Return what the teacher finds, from raw predictions that it has made already.

        This one is for dense predictions of logits (B, A, C) and xyxy boxes in pixels (B, A, 4).

        Args:
            predictions (Any): What `forward_teacher` returned.
            maps (Sequence[torch.Tensor]): The teacher's maps (B, C_l, H_l, W_l) that the head was given.
            confidence (float): Least confidence of a detection.
            iou (float): Overlap from which the weaker of two detections is dropped.

        Returns:
            (list[torch.Tensor]): Detections (N, 6) of every image by falling confidence: xyxy in pixels of the input,
                confidence, class.
        """
        rows = torch.cat([xyxy2xywh(predictions.boxes.float()), predictions.logits.float().sigmoid()], 2)
        # A place may tell several classes, as in Ultralytics' validation
        return list(non_max_suppression(rows.transpose(1, 2), confidence, iou, multi_label=True))

    def detect(self, images: torch.Tensor, confidence: float = 0.25, iou: float = 0.7) -> list[torch.Tensor]:
        """Return what the model finds, as Ultralytics' `predict` does; taps see its maps.

        Args:
            images (torch.Tensor): Images (B, 3, H, W) in [0, 1].
            confidence (float): Least confidence of a detection.
            iou (float): Overlap from which the weaker of two detections is dropped.

        Returns:
            (list[torch.Tensor]): Detections (N, 6) of every image by falling confidence: xyxy in pixels of the input,
                confidence, class; for oriented boxes (N, 7): xywhr in pixels and radians, confidence, class.
        """
        final, oriented = bool(getattr(self.model, "end2end", False)), self.task == "obb"
        with torch.no_grad():
            output = self.model.eval()(images)
            while isinstance(output, (tuple, list)):  # raw outputs or prototypes of masks follow
                output = output[0]
            found = non_max_suppression(
                output, confidence, iou, nc=len(self.model.names), rotated=oriented, end2end=final
            )
        columns = [0, 1, 2, 3, 6, 4, 5] if oriented else [0, 1, 2, 3, 4, 5]
        return [own[own[:, 4].argsort(descending=True)][:, columns] for own in found]

    def places(self, maps: Sequence[torch.Tensor]) -> torch.Tensor | None:
        """Return where predictions for one image are made, to show where those of two models differ.

        Args:
            maps (Sequence[torch.Tensor]): Maps of this model for the image (1, C_l, H_l, W_l).

        Returns:
            (torch.Tensor | None): Places (N, 4) as xyxy pixels of the input: the cell of every anchor, or the regions
                that the model proposes. None where the family does not tell.
        """
        return None

    def differences(
        self,
        head: nn.Module,
        student: Sequence[torch.Tensor],
        teacher: Sequence[torch.Tensor],
        places: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what the implicit term of one image is made of, place by place.

        Args:
            head (nn.Module): As for `compare`.
            student (Sequence[torch.Tensor]): Maps from the student (1, C_l, H_l, W_l), in the head's channels.
            teacher (Sequence[torch.Tensor]): Maps from the teacher, of the same shapes.
            places (torch.Tensor): What the teacher's `places` returned for the image.

        Returns:
            classes (torch.Tensor): How much the classes differ (N,), before any normalisation.
            boxes (torch.Tensor): How much the boxes differ (N,), likewise.

        Raises:
            NotImplementedError: If the family's `places` are None.
        """
        raise NotImplementedError(f"{self.family} does not tell where predictions differ")

    @property
    def head(self) -> nn.Module:
        """The head."""
        return self.layer(self.head_index)

    @property
    def reference_gains(self) -> Gains | None:
        """Gains that the paper's authors use for this family (on DIOR); None where they have none."""
        return None

    @property
    def head_layout(self) -> str:
        """What the heads of teacher and student must have in common, beside the levels; empty where nothing."""
        return ""

    @property
    def frozen_layers(self) -> tuple[int, ...]:
        """Indices of layers that training must leave as they are."""
        return ()

    def implicit_part(self, head: nn.Module) -> nn.Module:
        """Return the part of a head that `compare` looks through: what an amplifier consists of."""
        return head

    def loss_factor(self, images: int) -> float:
        """Return what the model multiplies the losses of a batch of so many images by; the terms are, too."""
        return float(images)  # as Ultralytics' criteria do

    def load_backbone(self) -> None:  # noqa: B027
        """Load the public weights that a backbone of a new model starts from, where the family has any.

        Raises:
            DS2D2Error: If they are neither on the disk nor to be had from the network.
        """

    def configure(self, sum_regions: bool, hulls: bool = False) -> None:  # noqa: B027
        """Take over the arguments that are about a family or a task.

        Args:
            sum_regions (bool): Whether the implicit class term is a sum over regions of interest, not a mean.
            hulls (bool): Whether oriented objects cover their upright hulls, not their own boxes.
        """

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in order."""
        names = self.model.names
        assert isinstance(names, Mapping)
        return [str(names[index]) for index in sorted(names)]

    def freeze(self) -> None:
        """Make the model a guest: evaluation mode, no gradients."""
        self.model.eval().requires_grad_(False)
        self.freeze_head(self.head)

    def freeze_head(self, head: nn.Module) -> None:
        """Make a head a guest, likewise; the amplifier is one without a model of its own."""
        head.eval().requires_grad_(False)

    def fuse(self, guest: nn.Module) -> None:  # noqa: B027
        """Fold the BatchNorm layers of a guest into its convolutions, in place, where the family has such.

        Its outputs stay the same up to rounding, its state dict does not: weights are loaded before.

        Args:
            guest (nn.Module): A model or a head that was frozen.
        """


def to_pixels(boxes: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Return boxes (N, 4 or more), whose first four columns are normalised x and y by turns, in pixels of images."""
    height, width = images.shape[-2:]
    boxes = boxes.clone()
    boxes[:, 0:4:2] *= width
    boxes[:, 1:4:2] *= height
    return boxes
