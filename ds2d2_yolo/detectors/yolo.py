"""Ultralytics YOLO: every family (v5u to v10, 11, 12, 26), with DFL or not, NMS-free or not, and its four tasks."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from ultralytics.nn.modules.conv import Conv, Conv2
from ultralytics.nn.modules.head import OBB, OBB26, Detect, Pose, Pose26, Segment, Segment26, v10Detect
from ultralytics.nn.tasks import DetectionModel, OBBModel, PoseModel, SegmentationModel, guess_model_task
from ultralytics.utils.loss import RotatedBboxLoss
from ultralytics.utils.metrics import probiou
from ultralytics.utils.nms import non_max_suppression
from ultralytics.utils.ops import xywhr2xyxyxyxy
from ultralytics.utils.tal import dist2bbox, dist2rbox, make_anchors
from ultralytics.utils.torch_utils import fuse_conv_and_bn

from ds2d2_yolo.detectors.base import (
    AssignmentT,
    AssignsObjects,
    Batch,
    Config,
    Detector,
    Explains,
    Maps,
    RawT,
    TapOutputs,
    to_pixels,
)
from ds2d2_yolo.detectors.dense import DenseAssignment, DenseDetector
from ds2d2_yolo.method import DensePredictions, Similarity, generalized_iou
from ds2d2_yolo.method.wavelet import at_least_float32

_TASKS: dict[type[nn.Module], str] = {
    **{Detect: "detect", v10Detect: "detect", OBB: "obb", OBB26: "obb"},
    **{Segment: "segment", Segment26: "segment", Pose: "pose", Pose26: "pose"},
}
_MODELS: dict[str, type[DetectionModel]] = {
    "detect": DetectionModel,
    "obb": OBBModel,
    "segment": SegmentationModel,
    "pose": PoseModel,
}
TASKS = tuple(_MODELS)
"""Ultralytics' names of the tasks that models are distilled for."""

_COMPARED = {"box_head", "cls_head", "angle_head"}  # parts of heads; masks and keypoints are left out


def probabilistic_iou(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the probabilistic IoU of pairs of oriented boxes, as Ultralytics trains with it.

    A box is taken for the Gaussian of its width, height and angle, so that it is the same as itself turned by 180
    degrees, and a square the same as itself turned by 90.

    Args:
        first (torch.Tensor): Boxes (..., 5) as xywhr, in grid cells and radians.
        second (torch.Tensor): Boxes (..., 5) likewise.

    Returns:
        (torch.Tensor): Values (...) in [0, 1].

    Source:
        arXiv 2106.06072; `RotatedBboxLoss` of Ultralytics.

    Example:
        >>> box = torch.tensor([[8.0, 8.0, 4.0, 2.0, 0.1]])
        >>> bool(probabilistic_iou(box, box + torch.tensor([0.0, 0.0, 0.0, 0.0, torch.pi])) > 0.999)
        True
    """
    return probiou(first.flatten(0, -2), second.flatten(0, -2), floor=RotatedBboxLoss.floor).view(first.shape[:-1])


def hulls_of(boxes: torch.Tensor) -> torch.Tensor:
    """Return the upright hulls (N, 4) as xyxy of oriented boxes (N, 5) as xywhr, in the same unit.

    Example:
        >>> hulls_of(torch.tensor([[8.0, 8.0, 4.0, 2.0, torch.pi / 2]])).round().tolist()
        [[7.0, 6.0, 9.0, 10.0]]
    """
    corners = xywhr2xyxyxyxy(boxes)
    return torch.cat([corners.amin(1), corners.amax(1)], 1)


class UltralyticsDetector(Detector[RawT, AssignmentT]):
    """What all detectors of Ultralytics have in common: a sequence of layers, of which the last one is the head."""

    @property
    def head_layers(self) -> tuple[int, ...]:
        """Indices of the layers that the head takes its maps from."""
        return tuple(int(index) % len(self.model.model) for index in self.model.model[-1].f)

    def fuse(self, guest: nn.Module) -> None:
        """Fold the BatchNorm layers of a frozen model or head into its convolutions, in place."""
        # `BaseModel.fuse` would remove the one-to-many branch of heads that have a one-to-one branch, too.
        for module in guest.modules():
            if isinstance(module, Conv) and not isinstance(module, Conv2) and hasattr(module, "bn"):
                module.conv = fuse_conv_and_bn(module.conv, module.bn)
                del module.bn
                module.forward = module.forward_fuse  # type: ignore[method-assign]


class YOLODetector(
    UltralyticsDetector[DensePredictions, DenseAssignment], DenseDetector, AssignsObjects[DensePredictions], Explains
):
    """An Ultralytics model that finds horizontal or oriented boxes, and maybe their masks or keypoints.

    Of heads for masks and keypoints, boxes and classes are compared; what else they predict is left to the student's
    own loss. Heads with a one-to-one branch are followed on their one-to-many branch: that is the one whose gradients
    reach the neck in ordinary training.

    Example:
        >>> from ultralytics.nn.tasks import DetectionModel
        >>> YOLODetector(DetectionModel("yolo11n.yaml", verbose=False)).head_layers
        (16, 19, 22)
    """

    family = "YOLO"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._hulls = False
        self._kept: tuple[object, tuple[torch.Tensor, torch.Tensor]] | None = None  # the maps' sizes and their grid

    @classmethod
    def accepts(cls, model: nn.Module) -> bool:
        """Return whether `model` has one of the heads that are known, and not another one derived from them."""
        layers: Any = model.model if isinstance(model, DetectionModel) else [None]
        return type(layers[-1]) in _TASKS

    @classmethod
    def builds(cls, config: Config) -> bool:
        """Return whether a model YAML lists layers, as Ultralytics' do."""
        return isinstance(config.get("backbone"), list)

    @classmethod
    def build(cls, config: Config, ch: int, nc: int | None, verbose: bool) -> nn.Module:
        """Return Ultralytics' model of a YAML."""
        content = deepcopy(dict(config))
        kind = _MODELS.get(guess_model_task(content), DetectionModel)
        return kind(content, ch=ch, nc=nc, verbose=verbose)

    @property
    def box_coding(self) -> str:
        """Whether the head predicts a distribution over distances (DFL) or distances."""
        bins = int(self.model.model[-1].reg_max)
        coding = f"DFL, {bins} bins" if bins > 1 else "distances, no DFL"
        if self.task != "obb":
            return coding
        return (
            f"{coding}; {'raw angle' if isinstance(self.model.model[-1], OBB26) else 'angle from -45 to 135 degrees'}"
        )

    @property
    def task(self) -> str:
        """Task of the head."""
        return _TASKS[type(self.model.model[-1])]

    @property
    def keypoints(self) -> tuple[int, int] | None:
        """Shape of the keypoints of a `pose` head."""
        if self.task != "pose":
            return None
        number, values = self.model.model[-1].kpt_shape
        return int(number), int(values)

    def assignment_modules(self) -> Mapping[str, nn.Module]:
        """Return the task-aligned assigner of the (one-to-many) criterion."""
        criterion = self._criterion
        return {"assigner": getattr(criterion, "one2many", criterion).assigner}

    def assignment(self, outputs: TapOutputs) -> DenseAssignment:
        """Return the number of positive anchors, at least one per image, as a scalar on the device."""
        foreground = outputs["assigner"][3]
        return DenseAssignment(foreground.sum(1).clamp(min=1).sum())

    @property
    def assigns_by_predictions(self) -> bool:
        """Whether boxes and classes alone assign the objects; where there are masks or keypoints, these do too."""
        return self.task in {"detect", "obb"}

    def assign_by(self, raw: DensePredictions, maps: Maps) -> RemovableHandle:
        """Have the (one-to-many) task-aligned assigner see the scores and boxes that a teacher predicts.

        The one-to-one branch, where there is one, goes on assigning objects by its own predictions: a teacher's best
        anchor need not be the one that the student is about to choose.
        """
        scores, boxes = raw.logits.sigmoid(), raw.boxes
        if self.task == "obb":  # the assigner is given pixels
            _, strides = self._grid(maps, self.model.model[-1].stride)
            boxes = torch.cat([boxes[..., :4] * strides, boxes[..., 4:]], 2)

        def replace(assigner: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            return scores.to(inputs[0].dtype), boxes.to(inputs[1].dtype), *inputs[2:]

        return self.assignment_modules()["assigner"].register_forward_pre_hook(replace)

    def loss_factor(self, images: int) -> float:
        """Return the number of images; where there is a one-to-one branch, times the weight of the one-to-many loss.

        That is the only one of the two whose gradient reaches the maps, and Ultralytics has its weight fall to an
        eighth in the course of a training: without it, the terms would come to outweigh the loss that they were
        measured by.
        """
        return images * float(getattr(self._criterion, "o2m", 1.0))

    @property
    def _criterion(self) -> Any:  # Any: every task and head has a class of its own
        """The model's criterion."""
        # It is made at the first loss and made anew when a run with a one-to-one head resumes, so it is looked up for
        # every batch.
        if getattr(self.model, "criterion", None) is None:
            self.model.criterion = self.model.init_criterion()
        return self.model.criterion

    def response(self, head: nn.Module, outputs: TapOutputs) -> DensePredictions:
        """Return what a student predicts by its own (one-to-many) head."""
        raw = outputs["response"]
        return self.decode(head, raw[1] if isinstance(raw, tuple) else raw)  # in evaluation final ones come first

    def configure(self, sum_regions: bool, hulls: bool = False) -> None:
        """Take over what oriented objects cover."""
        self._hulls = hulls

    def footprints(self, batch: Batch) -> torch.Tensor:
        """Return the objects' boxes (N, 4) as xyxy pixels, or oriented ones (N, 5) as xywhr: pixels and radians."""
        if self.task != "obb":
            return super().footprints(batch)
        boxes = to_pixels(batch["bboxes"], batch["img"])
        return hulls_of(boxes) if self._hulls else boxes

    def freeze_head(self, head: nn.Module) -> None:
        """Make a head a guest that gives raw predictions, without the one-to-one branch that nothing here looks at."""
        super().freeze_head(head)
        head.training = True  # of the head alone, not of its layers: raw predictions are given in training only
        for name in [name for name in head._modules if name.startswith("one2one_")]:
            setattr(head, name, None)

    def forward_teacher(self, images: torch.Tensor) -> DensePredictions:
        """Return the predictions of the (one-to-many) head for images (B, 3, H, W) in [0, 1]."""
        raw = self.model(images)
        return self.decode(self.head, raw)

    def decode(self, head: Any, raw: TapOutputs) -> DensePredictions:  # Any: heads have attributes without types
        """Return predictions of raw boxes (B, 4 * reg_max, A), scores (B, C, A) and maybe angle (B, 1, A).

        Boxes become xyxy pixels; oriented ones xywhr in grid cells, the unit in which Ultralytics compares them.
        """
        raw = raw.get("one2many", raw)
        anchors, strides = self._grid(raw["feats"], head.stride)
        # In float32 at least: bfloat16 and float16 know pixel coordinates to 2 and 0.5 px only.
        distances = at_least_float32(raw["boxes"])
        if head.reg_max > 1:  # in the layout that the head gives: half the time of a softmax over the last dimension
            bins = torch.arange(head.reg_max, dtype=distances.dtype, device=distances.device)[:, None]
            distances = (distances.unflatten(1, (4, head.reg_max)).softmax(2) * bins).sum(2)
        elif "angle" not in raw:
            # They may be negative, which would make inverted boxes: 0 is taken instead, with a gradient by which a
            # distance can become positive again.
            distances = distances + (distances.clamp(min=0) - distances).detach()
        distances = distances.transpose(1, 2)
        if "angle" in raw:
            angles = at_least_float32(raw["angle"]).transpose(1, 2)  # decoded already, where the head decodes it
            boxes = torch.cat([dist2rbox(distances, angles, anchors), angles], 2)
        else:
            boxes = dist2bbox(distances, anchors, xywh=False) * strides
        return DensePredictions(logits=raw["scores"].transpose(1, 2), boxes=boxes)

    def predict(self, head: Any, maps: Maps, assignment: DenseAssignment | None = None) -> DensePredictions:
        """Return what a head (one-to-many) predicts from a pyramid; masks and keypoints are left out."""
        parts = {name: part if name in _COMPARED else None for name, part in head.one2many.items()}
        return self.decode(head, head.forward_head(list(maps), **parts))

    @property
    def similarity(self) -> Similarity:
        """Generalised IoU, of oriented boxes probabilistic IoU."""
        return probabilistic_iou if self.task == "obb" else generalized_iou

    def detections_of(
        self, raw: DensePredictions, maps: Maps, confidence: float = 0.25, iou: float = 0.7
    ) -> list[torch.Tensor]:
        """Return what the teacher finds, from raw predictions; oriented boxes (N, 7) as `detect` does."""
        if self.task != "obb":
            return super().detections_of(raw, maps, confidence, iou)
        _, strides = self._grid(maps, self.model.model[-1].stride)
        boxes, angles = raw.boxes.float().split([4, 1], 2)
        rows = torch.cat([boxes * strides, raw.logits.float().sigmoid(), angles], 2).transpose(1, 2)
        classes = raw.logits.shape[2]
        # A place may tell several classes, as in Ultralytics' validation
        found = non_max_suppression(rows, confidence, iou, nc=classes, multi_label=True, rotated=True)
        return [rows[:, [0, 1, 2, 3, 6, 4, 5]] for rows in found]

    def places(self, maps: Maps) -> torch.Tensor:
        """Return the grid cells of all anchors (A, 4) as xyxy pixels."""
        centres, strides = self._grid(maps, self.model.model[-1].stride)
        return torch.cat([centres - 0.5, centres + 0.5], 1) * strides

    def _grid(self, features: Maps, strides: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return centres (A, 2) in grid cells and strides (A, 1) in pixels per cell of all anchors, in float32.

        They are kept for as long as the maps keep their sizes: to make them waits for the device.
        """
        sizes = tuple((tuple(x.shape[-2:]), x.device) for x in features)
        if self._kept is None or self._kept[0] != sizes:
            with torch.inference_mode(False):
                # `make_anchors` looks at the maps' sizes, dtype and device alone
                self._kept = sizes, make_anchors([x[:1, :1].float() for x in features], strides, 0.5)
        return self._kept[1]
