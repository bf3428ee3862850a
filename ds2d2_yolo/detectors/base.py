"""The interface of a detector family: the required base class `Detector`, and optional abilities."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from ultralytics.utils.nms import non_max_suppression
from ultralytics.utils.ops import xywh2xyxy

from ds2d2_yolo.method import Gains

RawT = TypeVar("RawT")
"""Return type of a family's `forward_teacher`."""

AssignmentT = TypeVar("AssignmentT")
"""A family's description of how the ground truth was assigned."""

PredictionsT = TypeVar("PredictionsT")
"""A family's predictions, as its terms compare them."""

Maps = Sequence[torch.Tensor]
"""A feature pyramid: one feature map (B, C_l, H_l, W_l) for each level."""

Config = Mapping[str, Any]  # values in a YAML file have many types
"""Content of a model YAML."""

TapOutputs = Mapping[Any, Any]  # keys and outputs depend on the tapped modules
"""Outputs of tapped modules, by the key of each tap."""


class _Objects(TypedDict):
    img: torch.Tensor
    cls: torch.Tensor
    bboxes: torch.Tensor
    batch_idx: torch.Tensor


class Batch(_Objects, total=False):
    """A training batch in Ultralytics' format.

    Attributes:
        img (torch.Tensor): Images (B, 3, H, W) in [0, 1].
        teacher_img (torch.Tensor): The same images at the teacher's size, where that is larger.
        cls (torch.Tensor): Class of every object (N, 1).
        bboxes (torch.Tensor): Boxes (N, 4) as normalised xywh, or (N, 5) as xywhr.
        batch_idx (torch.Tensor): Index of every object's image (N,).
        masks (torch.Tensor): Masks (B, H / 4, W / 4), for the task `segment`.
        sem_masks (torch.Tensor): Classes of pixels (B, H / 4, W / 4), for the task `segment`.
        keypoints (torch.Tensor): Keypoints (N, K, 3), for the task `pose`.
        unlabeled (Sequence[bool]): Whether the labels of each image (B,) are from a teacher, in a run with such images.
    """

    teacher_img: torch.Tensor
    masks: torch.Tensor
    sem_masks: torch.Tensor
    keypoints: torch.Tensor
    unlabeled: Sequence[bool]


class Suppression(NamedTuple):
    """Which detections remain, by Ultralytics' names and defaults.

    Attributes:
        conf (float): Minimum confidence.
        iou (float): IoU threshold of non-maximum suppression.
        max_det (int): Highest number of detections of an image.
        agnostic_nms (bool): Whether boxes of different classes suppress each other.
    """

    conf: float = 0.25
    iou: float = 0.7
    max_det: int = 300
    agnostic_nms: bool = False


class Detector(ABC, Generic[RawT, AssignmentT]):
    """A detection model for distillation: feature maps to tap, an assigner, and a confidence for every cell.

    These suffice for the explicit terms, also between different families. Other classes add abilities:

    - `ComparesPredictions`: the implicit terms.
    - `Responds`: the response term.
    - `AssignsObjects`: assignment by the teacher's predictions.
    - `WeighsImages`: weights of images in the model's own loss, for images without labels.
    - `Explains`: maps of where predictions differ.

    To add a family, subclass this in one file of `ds2d2_yolo/detectors/` and register it in that folder's `__init__`.

    Args:
        model (nn.Module): The model, from a trainer or a checkpoint.

    Attributes:
        family (str): Name of the family. Prediction terms need the same family in teacher and student.
        shared_adapter (bool): Whether all maps share one adapter if their channels are equal.
        model (nn.Module): The model.
        ratio (int): For a teacher: side of its images, in sides of the student's.
    """

    family: str
    shared_adapter = False

    def __init__(self, model: nn.Module) -> None:
        self.model: Any = model  # detection models have attributes that the type nn.Module lacks
        self.ratio = 1

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
        """Build a new model.

        Args:
            config (Config): Content of a model YAML. It is not changed.
            ch (int): Channels of the images.
            nc (int | None): Number of classes. None means the number in the YAML.
            verbose (bool): Whether to print a summary.
        """

    @property
    def title(self) -> str:
        """Name of the model for people, such as `yolo11s`: its YAML file's name, including the scale."""
        return Path(str(self.model.yaml.get("yaml_file", self.family))).stem

    @property
    @abstractmethod
    def box_coding(self) -> str:
        """The box encoding of the head for the summary, such as `DFL, 16 bins`."""

    @property
    def task(self) -> str:
        """The model's task, by Ultralytics' name: `detect`, `obb`, `segment` or `pose`."""
        return "detect"

    @property
    def keypoints(self) -> tuple[int, int] | None:
        """Number of keypoints per object and of values per keypoint. None if the model has no keypoints."""
        return None

    @property
    def head_index(self) -> int:
        """Index of the head: the last layer of the model."""
        return len(self.model.model) - 1

    @property
    @abstractmethod
    def head_layers(self) -> tuple[int, ...]:
        """Indices of the layers whose outputs are the head's inputs, in the head's order."""

    def layer(self, index: int) -> nn.Module:
        """Return layer `index` of the model.

        Raises:
            IndexError: If there is no such layer.
        """
        if not 0 <= index <= self.head_index:
            raise IndexError(f"{self.title} has layers 0 to {self.head_index}, not {index}")
        layer: nn.Module = self.model.model[index]
        return layer

    @abstractmethod
    def assignment_modules(self) -> Mapping[str, nn.Module]:
        """Return the modules whose outputs in a training pass contain the assignment of the ground truth."""

    @abstractmethod
    def assignment(self, outputs: TapOutputs) -> AssignmentT:
        """Return the assignment for comparisons, from the outputs of `assignment_modules`."""

    def footprints(self, batch: Batch) -> torch.Tensor:
        """Return the areas that the objects of a batch cover, for the weight of the explicit terms.

        Args:
            batch (Batch): The batch.

        Returns:
            (torch.Tensor): Boxes (N, 4) as xyxy in pixels, or (N, 5) as xywhr in pixels and radians.
        """
        return to_pixels(xywh2xyxy(batch["bboxes"]), batch["img"])

    @abstractmethod
    def forward_teacher(self, images: torch.Tensor) -> RawT:
        """Run the frozen model on images (B, 3, H, W) in [0, 1] and return raw predictions. Taps record its maps."""

    @abstractmethod
    def confidence(self, raw: RawT, maps: Maps) -> list[torch.Tensor]:
        """Return the teacher's confidence that each cell contains an object.

        Args:
            raw (RawT): Output of `forward_teacher`.
            maps (Maps): The teacher's maps (B, C_l, H_l, W_l), which are the head's inputs.

        Returns:
            (list[torch.Tensor]): The highest object probability of every cell (B, 1, H_l, W_l), for each level.
        """

    def detect(self, images: torch.Tensor, confidence: float = 0.25) -> list[torch.Tensor]:
        """Return the model's detections, as Ultralytics' `predict` does. Taps record its maps.

        Args:
            images (torch.Tensor): Images (B, 3, H, W) in [0, 1].
            confidence (float): Minimum confidence of a detection.

        Returns:
            (list[torch.Tensor]): Detections (N, 6) for every image, sorted by confidence, highest first: xyxy in pixels
                of the input, confidence, class. For oriented boxes (N, 7): xywhr in pixels and radians, confidence,
                class.
        """
        final, oriented = bool(getattr(self.model, "end2end", False)), self.task == "obb"
        with torch.no_grad():
            output = self.model.eval()(images)
            while isinstance(output, (tuple, list)):  # the rest are raw outputs or prototypes of masks
                output = output[0]
            found = non_max_suppression(
                output, confidence, iou_thres=0.7, nc=len(self.model.names), rotated=oriented, end2end=final
            )
        columns = [0, 1, 2, 3, 6, 4, 5] if oriented else [0, 1, 2, 3, 4, 5]
        return [rows[rows[:, 4].argsort(descending=True)][:, columns] for rows in found]

    @property
    def explicit_only(self) -> bool:
        """Whether the family supports the explicit terms only. Such models can be paired with other families."""
        return not isinstance(self, ComparesPredictions)

    @property
    def head(self) -> nn.Module:
        """The head."""
        return self.layer(self.head_index)

    @property
    def reference_gains(self) -> Gains | None:
        """Gains of the paper's authors for this family on DIOR. None if they published none."""
        return None

    @property
    def head_layout(self) -> str:
        """A property that the heads of teacher and student must share, besides the levels. Empty if there is none."""
        return ""

    @property
    def frozen_layers(self) -> tuple[int, ...]:
        """Indices of layers that training must not change."""
        return ()

    def implicit_part(self, head: nn.Module) -> nn.Module:
        """Return the part of a head that `compare` runs. An amplifier has the same structure."""
        return head

    def loss_factor(self, images: int) -> float:
        """Return the factor of the model's losses for a batch of `images` images. The terms get the same factor."""
        return float(images)  # as Ultralytics' criteria do

    def load_backbone(self) -> None:
        """Load public pretrained weights into the backbone of a new model, if the family has any.

        Raises:
            DS2D2Error: If the weights are not on the disk and cannot be downloaded.
        """

    def configure(self, sum_regions: bool, hulls: bool = False) -> None:
        """Set the options of a family or a task.

        Args:
            sum_regions (bool): Whether the implicit class term is a sum over regions of interest, not a mean.
            hulls (bool): Whether oriented objects cover their axis-aligned hulls, not their own boxes.
        """

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, by index."""
        names = self.model.names
        return [str(names[index]) for index in sorted(names)]

    def freeze(self) -> None:
        """Freeze the model: evaluation mode, no gradients."""
        self.model.eval().requires_grad_(False)
        self.freeze_head(self.head)

    def freeze_head(self, head: nn.Module) -> None:
        """Freeze a head: evaluation mode, no gradients. The amplifier is such a head."""
        head.eval().requires_grad_(False)

    def fuse(self, module: nn.Module) -> None:
        """Fuse BatchNorm layers into convolutions, in place, if the family has any.

        The outputs stay the same up to rounding. The state dict changes, so load weights before.

        Args:
            module (nn.Module): A frozen model or head.
        """


class ComparesPredictions(Detector[RawT, AssignmentT], Generic[RawT, AssignmentT, PredictionsT]):
    """A detector for the implicit terms, which compare its head's predictions from two feature pyramids.

    Attributes:
        takes_larger_images (bool): Whether `predict`, `target` and `predictions_of` heed `ratio`.
    """

    takes_larger_images = False

    @abstractmethod
    def predict(self, head: nn.Module, maps: Maps, assignment: AssignmentT) -> PredictionsT:
        """Return the predictions of a frozen head from the student's feature maps.

        Args:
            head (nn.Module): The teacher's head or the high-frequency amplifier.
            maps (Maps): Maps (B, C_l, H_l, W_l) in the student's grids, with the head's number of channels.
            assignment (AssignmentT): Output of the student's `assignment` for this batch.

        Returns:
            (PredictionsT): Predictions with gradient to `maps`.
        """

    @abstractmethod
    def compare_predictions(
        self, student: PredictionsT, teacher: PredictionsT, assignment: AssignmentT
    ) -> torch.Tensor:
        """Return the class term plus the box term between two predictions.

        Args:
            student (PredictionsT): Predictions from the student.
            teacher (PredictionsT): Predictions from the teacher, the target.
            assignment (AssignmentT): Output of the student's `assignment` for this batch.

        Returns:
            (torch.Tensor): Scalar with gradient to `student`.
        """

    @abstractmethod
    def predictions_of(self, raw: RawT, maps: Maps, assignment: AssignmentT) -> PredictionsT:
        """Return the teacher's predictions in the form that `compare_predictions` expects, for the student's images.

        Args:
            raw (RawT): Output of `forward_teacher`.
            maps (Maps): The teacher's maps (B, C_l, H_l, W_l), which are the head's inputs.
            assignment (AssignmentT): Output of the student's `assignment` for this batch.

        Returns:
            (PredictionsT): Predictions, without gradient.
        """

    @abstractmethod
    def detections_of(self, raw: RawT, maps: Maps, suppression: Suppression) -> list[torch.Tensor]:
        """Return the teacher's detections from its raw predictions.

        Args:
            raw (RawT): Output of `forward_teacher`.
            maps (Maps): The teacher's maps (B, C_l, H_l, W_l), which are the head's inputs.
            suppression (Suppression): Which detections remain. Some families heed `conf` alone.

        Returns:
            (list[torch.Tensor]): Detections for every image, in the format of `detect`.
        """

    def compare(
        self,
        head: nn.Module,
        student: Maps,
        teacher: Maps,
        assignment: AssignmentT,
        teacher_predictions: PredictionsT | None = None,
    ) -> torch.Tensor:
        """Return the implicit term: the difference between one frozen head's predictions from two feature pyramids.

        Args:
            head (nn.Module): The teacher's head or the high-frequency amplifier, frozen.
            student (Maps): Maps from the student (B, C_l, H_l, W_l), with the head's channels.
            teacher (Maps): Maps from the teacher, `ratio` times as high and wide.
            assignment (AssignmentT): Output of the student's `assignment` for this batch.
            teacher_predictions (PredictionsT | None): The head's predictions for `teacher`. If None, they are computed.

        Returns:
            (torch.Tensor): Scalar with gradient to `student`.
        """
        if teacher_predictions is None:
            with torch.no_grad():
                teacher_predictions = self.target(head, teacher, assignment)
        return self.compare_predictions(self.predict(head, student, assignment), teacher_predictions, assignment)

    def target(self, head: nn.Module, maps: Maps, assignment: AssignmentT) -> PredictionsT:
        """Return the predictions of a frozen head from the teacher's maps, as a target for the student's.

        Args:
            head (nn.Module): The teacher's head or the high-frequency amplifier.
            maps (Maps): Maps (B, C_l, H_l, W_l), `ratio` times as high and wide as the student's.
            assignment (AssignmentT): Output of the student's `assignment` for this batch.

        Returns:
            (PredictionsT): Predictions for the student's images.
        """
        return self.predict(head, maps, assignment)


class Responds(ABC, Generic[PredictionsT]):
    """Interface for the response term, which compares the student's own predictions with the teacher's."""

    @abstractmethod
    def response_modules(self) -> Mapping[str, nn.Module]:
        """Return the modules whose outputs contain the model's own predictions, in a pass that computes its loss."""

    @abstractmethod
    def response(self, head: nn.Module, outputs: TapOutputs) -> PredictionsT:
        """Return the student's own predictions.

        Args:
            head (nn.Module): The student's head.
            outputs (TapOutputs): Outputs of its `response_modules` and `assignment_modules`.

        Returns:
            (PredictionsT): Predictions with gradient to the student.
        """


class AssignsObjects(ABC, Generic[RawT]):
    """Interface for assignment by the teacher: its predictions assign the objects in the student's loss.

    Source:
        Label assignment distillation, arXiv 2108.10520.
    """

    @property
    def assigns_by_predictions(self) -> bool:
        """Whether the assignment depends only on predicted classes and boxes."""
        return True

    @abstractmethod
    def assign_by(self, raw: RawT, maps: Maps) -> RemovableHandle:
        """Make the model's own loss assign objects by the teacher's predictions, instead of by its own.

        Args:
            raw (RawT): Output of the teacher's `forward_teacher` for the batch.
            maps (Maps): The teacher's maps (B, C_l, H_l, W_l), which are its head's inputs.

        Returns:
            (RemovableHandle): Its `remove` restores assignment by the model's own predictions.
        """


class WeighsImages(ABC):
    """Interface for weights of images in the model's own loss."""

    @abstractmethod
    def weigh_images(self, weights: torch.Tensor) -> ImageWeights:
        """Weight the images in the next pass that computes the model's loss.

        The loss becomes the weighted mean over the objects, multiplied by the sum of the weights. Weights of 1 do not
        change the loss. An image of weight 0 has no effect. Ultralytics divides by at least 1 object, so batches with
        fewer objects count less than their weights.

        Args:
            weights (torch.Tensor): Weight of every image (B,), not negative.

        Returns:
            (ImageWeights): Statistics of the pass. Its `remove` ends the weighting, at the latest after the pass.
        """


class ImageWeights(ABC):
    """Weights of images during one pass.

    Attributes:
        classification (torch.Tensor | None): Sum of the class loss for every image (B,), without weights and before
            normalisation. None before the pass.
        objects (torch.Tensor | None): Sum of the assigner's target scores for every image (B,), the normaliser. None
            before the pass.
    """

    classification: torch.Tensor | None = None
    objects: torch.Tensor | None = None

    @abstractmethod
    def remove(self) -> None:
        """Restore the model's own loss."""


class Explains(ABC):
    """Interface for explanations: where the predictions of two models differ."""

    @abstractmethod
    def places(self, maps: Maps) -> torch.Tensor:
        """Return the location of every prediction for one image.

        Args:
            maps (Maps): Maps of this model for the image (1, C_l, H_l, W_l), reduced to the student's grids.

        Returns:
            (torch.Tensor): Locations (N, 4) as xyxy in pixels of the student's image: the cell of every anchor, or the
                proposed regions.
        """

    @abstractmethod
    def differences(
        self, head: nn.Module, student: Maps, teacher: Maps, places: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the implicit term of one image separately for every location.

        Args:
            head (nn.Module): The teacher's head or the high-frequency amplifier, frozen.
            student (Maps): Maps from the student (1, C_l, H_l, W_l), with the head's channels.
            teacher (Maps): Maps from the teacher, `ratio` times as high and wide.
            places (torch.Tensor): Output of the teacher's `places` for the image.

        Returns:
            classes (torch.Tensor): Difference of the classes (N,), not normalised.
            boxes (torch.Tensor): Difference of the boxes (N,), not normalised.
        """


def input_channels(model: nn.Module) -> int:
    """Return the number of channels of the images that a model takes."""
    return int(next(model.parameters()).shape[1])


def to_pixels(boxes: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Scale normalised boxes (N, 4 or more) to pixels of `images`. Their first four columns are x, y, x, y."""
    height, width = images.shape[-2:]
    boxes = boxes.clone()
    boxes[:, 0:4:2] *= width
    boxes[:, 1:4:2] *= height
    return boxes


def confidence_of(logits: torch.Tensor, maps: Maps) -> list[torch.Tensor]:
    """Return the highest class probability (B, 1, H_l, W_l) of every cell.

    Args:
        logits (torch.Tensor): Class logits (B, A, C), ordered by level, then by row, then by cell.
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
