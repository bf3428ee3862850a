"""What the engine asks of a detector family: what every family has, and what it may have besides."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypedDict, TypeVar

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from ultralytics.utils.nms import non_max_suppression
from ultralytics.utils.ops import xywh2xyxy

from ds2d2_yolo.method import Gains

RawT = TypeVar("RawT")
"""What a family's `forward_teacher` returns."""

AssignmentT = TypeVar("AssignmentT")
"""What a family tells of the assignment of the ground truth."""

PredictionsT = TypeVar("PredictionsT")
"""What a family compares."""

Maps = Sequence[torch.Tensor]
"""A pyramid: maps (B, C_l, H_l, W_l), level by level."""

Config = Mapping[str, Any]  # a YAML file has values of many types
"""Content of a model YAML."""

TapOutputs = Mapping[Any, Any]  # modules return what they like, under keys of whoever tapped them
"""What tapped modules have returned, by the keys that they were tapped under."""


class _Objects(TypedDict):
    img: torch.Tensor
    cls: torch.Tensor
    bboxes: torch.Tensor
    batch_idx: torch.Tensor


class Batch(_Objects, total=False):
    """A training batch, as Ultralytics makes it and its models are given it.

    Attributes:
        img (torch.Tensor): Images (B, 3, H, W) in [0, 1].
        cls (torch.Tensor): Class of every object (N, 1).
        bboxes (torch.Tensor): Their boxes (N, 4) as normalised xywh, or (N, 5) as xywhr.
        batch_idx (torch.Tensor): Index of their image (N,).
        masks (torch.Tensor): Masks (B, H / 4, W / 4), for the task `segment`.
        sem_masks (torch.Tensor): Classes of pixels (B, H / 4, W / 4), likewise.
        keypoints (torch.Tensor): Keypoints (N, K, 3), for the task `pose`.
    """

    masks: torch.Tensor
    sem_masks: torch.Tensor
    keypoints: torch.Tensor


class Detector(ABC, Generic[RawT, AssignmentT]):
    """A detection model as distillation sees it: maps to tap, an assigner to follow, how sure it is of objects where.

    With these alone it teaches and learns by its maps, also with models of other families. `ComparesPredictions` adds
    what the implicit terms need, `Responds` what the response term needs, `AssignsObjects` and `Explains` one ability
    each.

    A family subclasses this in one file of `ds2d2_yolo/detectors/` and registers itself in that folder's `__init__`;
    nothing else changes.

    Args:
        model (nn.Module): The model, as the trainer holds it or as a checkpoint contains it.

    Attributes:
        family (str): Name of the family; teacher and student must share it.
        shared_adapter (bool): Whether one adapter serves all maps, where they all have the same channels.
        model (nn.Module): The model.
    """

    family: str
    shared_adapter = False

    def __init__(self, model: nn.Module) -> None:
        self.model: Any = model  # detection models carry attributes that nn.Module's types do not have

    @classmethod
    @abstractmethod
    def accepts(cls, model: nn.Module) -> bool:
        """Return whether `model` belongs to this family and can be distilled."""

    @classmethod
    @abstractmethod
    def builds(cls, config: Config) -> bool:
        """Return whether the content of a model YAML describes a model of this family."""

    @classmethod
    @abstractmethod
    def build(cls, config: Config, ch: int, nc: int | None, verbose: bool) -> nn.Module:
        """Return a new model.

        Args:
            config (Config): Content of a model YAML; it is not changed.
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
    def assignment(self, outputs: TapOutputs) -> AssignmentT:
        """Return what comparisons need of the assignment, from the outputs of `assignment_modules`."""

    def footprints(self, batch: Batch) -> torch.Tensor:
        """Return what the objects of a batch cover, for their weight.

        Args:
            batch (Batch): The batch.

        Returns:
            (torch.Tensor): Boxes (N, 4) as xyxy pixels, or (N, 5) oriented as xywhr: pixels and radians.
        """
        return to_pixels(xywh2xyxy(batch["bboxes"]), batch["img"])

    @abstractmethod
    def forward_teacher(self, images: torch.Tensor) -> RawT:
        """Run the frozen model on images (B, 3, H, W) in [0, 1] and return its raw predictions; taps see its maps."""

    @abstractmethod
    def confidence(self, raw: RawT, maps: Maps) -> list[torch.Tensor]:
        """Return how sure the teacher is that there is an object, cell by cell.

        Args:
            raw (RawT): What `forward_teacher` returned.
            maps (Maps): The teacher's maps (B, C_l, H_l, W_l) that the head was given.

        Returns:
            (list[torch.Tensor]): The highest probability of an object (B, 1, H_l, W_l) of every cell.
        """

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
        return [rows[rows[:, 4].argsort(descending=True)][:, columns] for rows in found]

    @property
    def explicit_only(self) -> bool:
        """Whether it teaches and learns by its maps alone, then with models of other families too."""
        return not isinstance(self, ComparesPredictions)

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

    def load_backbone(self) -> None:
        """Load the public weights that a backbone of a new model starts from, where the family has any.

        Raises:
            DS2D2Error: If they are neither on the disk nor to be had from the network.
        """

    def configure(self, sum_regions: bool, hulls: bool = False) -> None:
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

    def fuse(self, guest: nn.Module) -> None:
        """Fold the BatchNorm layers of a guest into its convolutions, in place, where the family has such.

        Its outputs stay the same up to rounding, its state dict does not: weights are loaded before.

        Args:
            guest (nn.Module): A model or a head that was frozen.
        """


class ComparesPredictions(Detector[RawT, AssignmentT], Generic[RawT, AssignmentT, PredictionsT]):
    """A detector whose head can be looked through: the implicit terms compare what it predicts from two pyramids."""

    @abstractmethod
    def predict(self, head: nn.Module, maps: Maps, assignment: AssignmentT) -> PredictionsT:
        """Return what a frozen head predicts from a pyramid.

        Args:
            head (nn.Module): The teacher's head or the high-frequency amplifier.
            maps (Maps): Maps (B, C_l, H_l, W_l), in the head's channels.
            assignment (AssignmentT): What the student's `assignment` returned for this batch.

        Returns:
            (PredictionsT): Predictions with gradient to `maps`.
        """

    @abstractmethod
    def compare_predictions(
        self, student: PredictionsT, teacher: PredictionsT, assignment: AssignmentT
    ) -> torch.Tensor:
        """Return the class term plus the box term between two predictions.

        Args:
            student (PredictionsT): Predictions that the student is to be taught by.
            teacher (PredictionsT): Predictions that it is to reach.
            assignment (AssignmentT): What the student's `assignment` returned for this batch.

        Returns:
            (torch.Tensor): Scalar with gradient to `student`.
        """

    @abstractmethod
    def predictions_of(self, raw: RawT, maps: Maps, assignment: AssignmentT) -> PredictionsT:
        """Return what the teacher predicts, as `compare_predictions` takes it.

        Args:
            raw (RawT): What `forward_teacher` returned.
            maps (Maps): The teacher's maps (B, C_l, H_l, W_l) that the head was given.
            assignment (AssignmentT): What the student's `assignment` returned for this batch.

        Returns:
            (PredictionsT): Predictions, without gradient.
        """

    @abstractmethod
    def detections_of(self, raw: RawT, maps: Maps, confidence: float = 0.25, iou: float = 0.7) -> list[torch.Tensor]:
        """Return what the teacher finds, from raw predictions that it has made already.

        Args:
            raw (RawT): What `forward_teacher` returned.
            maps (Maps): The teacher's maps (B, C_l, H_l, W_l) that the head was given.
            confidence (float): Least confidence of a detection.
            iou (float): Overlap from which the weaker of two detections is dropped.

        Returns:
            (list[torch.Tensor]): Detections of every image by falling confidence, as `detect` returns them.
        """

    def compare(
        self,
        head: nn.Module,
        student: Maps,
        teacher: Maps,
        assignment: AssignmentT,
        teacher_predictions: PredictionsT | None = None,
    ) -> torch.Tensor:
        """Return the implicit term: two pyramids compared as predictions of one frozen head.

        Args:
            head (nn.Module): The teacher's head or the high-frequency amplifier, frozen.
            student (Maps): Maps from the student (B, C_l, H_l, W_l), in the head's channels.
            teacher (Maps): Maps from the teacher, of the same shapes.
            assignment (AssignmentT): What the student's `assignment` returned for this batch.
            teacher_predictions (PredictionsT | None): The head's predictions for `teacher`; None has them made.

        Returns:
            (torch.Tensor): Scalar with gradient to `student`.
        """
        if teacher_predictions is None:
            with torch.no_grad():
                teacher_predictions = self.predict(head, teacher, assignment)
        return self.compare_predictions(self.predict(head, student, assignment), teacher_predictions, assignment)


class Responds(ABC, Generic[PredictionsT]):
    """What a family has whose students' own predictions can be compared with the teacher's: the response term."""

    @abstractmethod
    def response_modules(self) -> Mapping[str, nn.Module]:
        """Return the modules whose outputs tell what the model itself predicts, in a pass that computes its loss."""

    @abstractmethod
    def response(self, head: nn.Module, outputs: TapOutputs) -> PredictionsT:
        """Return what a student of the family predicts by its own head.

        Args:
            head (nn.Module): The student's head.
            outputs (TapOutputs): Outputs of its `response_modules` and `assignment_modules`.

        Returns:
            (PredictionsT): Predictions with gradient to the student.
        """


class AssignsObjects(ABC, Generic[RawT]):
    """What a family has whose students' objects can be assigned by a teacher's predictions.

    Source:
        Label assignment distillation, arXiv 2108.10520.
    """

    @property
    def assigns_by_predictions(self) -> bool:
        """Whether what the model predicts of classes and boxes, and nothing else of it, assigns the objects."""
        return True

    @abstractmethod
    def assign_by(self, raw: RawT, maps: Maps) -> RemovableHandle:
        """Have the model's own loss assign objects by the predictions of a teacher, in the place of its own.

        Args:
            raw (RawT): What the teacher's `forward_teacher` returned for the batch.
            maps (Maps): The teacher's maps (B, C_l, H_l, W_l) that its head was given.

        Returns:
            (RemovableHandle): What ends it: objects are assigned by the model's own predictions again.
        """


class Explains(ABC):
    """What a family has that can show where the predictions of two models differ."""

    @abstractmethod
    def places(self, maps: Maps) -> torch.Tensor:
        """Return where predictions for one image are made.

        Args:
            maps (Maps): Maps of this model for the image (1, C_l, H_l, W_l).

        Returns:
            (torch.Tensor): Places (N, 4) as xyxy pixels of the input: the cell of every anchor, or the regions that the
                model proposes.
        """

    @abstractmethod
    def differences(
        self, head: nn.Module, student: Maps, teacher: Maps, places: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what the implicit term of one image is made of, place by place.

        Args:
            head (nn.Module): As for `compare`.
            student (Maps): Maps from the student (1, C_l, H_l, W_l), in the head's channels.
            teacher (Maps): Maps from the teacher, of the same shapes.
            places (torch.Tensor): What the teacher's `places` returned for the image.

        Returns:
            classes (torch.Tensor): How much the classes differ (N,), before any normalisation.
            boxes (torch.Tensor): How much the boxes differ (N,), likewise.
        """


def to_pixels(boxes: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Return boxes (N, 4 or more), whose first four columns are normalised x and y by turns, in pixels of images."""
    height, width = images.shape[-2:]
    boxes = boxes.clone()
    boxes[:, 0:4:2] *= width
    boxes[:, 1:4:2] *= height
    return boxes


def confidence_of(logits: torch.Tensor, maps: Maps) -> list[torch.Tensor]:
    """Return the highest class probability (B, 1, H_l, W_l) of every cell.

    Args:
        logits (torch.Tensor): Class logits (B, A, C) level by level, row by row, anchors of a cell together.
        maps (Maps): Maps (B, C_l, H_l, W_l) of the levels.

    Example:
        >>> (grid,) = confidence_of(torch.tensor([[[0.0, -1.0], [0.0, 2.0]]]), [torch.zeros(1, 3, 1, 2)])
        >>> [round(value, 2) for value in grid[0, 0, 0].tolist()]
        [0.5, 0.88]
    """
    highest = logits.float().amax(2)
    anchors = highest.shape[1] // sum(x.shape[2] * x.shape[3] for x in maps)
    cells = highest.unflatten(1, (-1, anchors)).amax(2).sigmoid()
    parts = cells.split([x.shape[2] * x.shape[3] for x in maps], 1)
    return [part.unflatten(1, (1, *x.shape[2:])) for part, x in zip(parts, maps, strict=True)]
