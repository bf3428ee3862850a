"""Ultralytics YOLO: v5u to v10, 11, 12 and 26, with or without DFL and NMS, for four tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from ultralytics.nn.modules.conv import Conv, Conv2
from ultralytics.nn.modules.head import OBB, OBB26, Detect, Pose, Pose26, Segment, Segment26, v10Detect
from ultralytics.nn.tasks import DetectionModel, OBBModel, PoseModel, SegmentationModel, guess_model_task
from ultralytics.utils.loss import RotatedBboxLoss
from ultralytics.utils.metrics import probiou
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
    ImageWeights,
    Maps,
    RawT,
    Suppression,
    TapOutputs,
    WeighsImages,
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
"""The tasks that distillation supports, by Ultralytics' names."""

_COMPARED = {"box_head", "cls_head", "angle_head"}  # parts of heads, without masks and keypoints
_MOST_GRIDS = 32  # training at several scales, and validation in rectangles, have many sizes


def probabilistic_iou(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the probabilistic IoU of pairs of oriented boxes, as in Ultralytics' loss.

    Each box is modelled as a Gaussian. A rotation by 180 degrees does not change it, nor does one by 90 degrees change
    a square.

    Args:
        first (torch.Tensor): Boxes (..., 5) as xywhr, in grid cells and radians.
        second (torch.Tensor): Boxes (..., 5) in the same format.

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
    """Return the axis-aligned hulls (N, 4) as xyxy of oriented boxes (N, 5) as xywhr, in the same unit.

    Example:
        >>> hulls_of(torch.tensor([[8.0, 8.0, 4.0, 2.0, torch.pi / 2]])).round().tolist()
        [[7.0, 6.0, 9.0, 10.0]]
    """
    corners = xywhr2xyxyxyxy(boxes)
    return torch.cat([corners.amin(1), corners.amax(1)], 1)


class UltralyticsDetector(Detector[RawT, AssignmentT]):
    """Base of all Ultralytics detectors: a sequence of layers, of which the last one is the head."""

    @property
    def head_layers(self) -> tuple[int, ...]:
        """Indices of the layers that the head takes its maps from."""
        return tuple(int(index) % len(self.model.model) for index in self.model.model[-1].f)

    def fuse(self, module: nn.Module) -> None:
        """Fuse the BatchNorm layers of a frozen model or head into its convolutions, in place."""
        # `BaseModel.fuse` would also remove the one-to-many branch of heads with a one-to-one branch.
        for layer in module.modules():
            if isinstance(layer, Conv) and not isinstance(layer, Conv2) and hasattr(layer, "bn"):
                layer.conv = fuse_conv_and_bn(layer.conv, layer.bn)
                del layer.bn
                layer.forward = layer.forward_fuse  # type: ignore[method-assign]


class YOLODetector(
    UltralyticsDetector[DensePredictions, DenseAssignment],
    DenseDetector,
    AssignsObjects[DensePredictions],
    WeighsImages,
    Explains,
):
    """An Ultralytics YOLO model for horizontal or oriented boxes, instance masks or keypoints.

    The terms compare boxes and classes. Masks and keypoints are left to the student's own loss. For heads with a
    one-to-one branch, the terms use the one-to-many branch. Only its gradients reach the neck in ordinary training.

    Example:
        >>> from ultralytics.nn.tasks import DetectionModel
        >>> YOLODetector(DetectionModel("yolo11n.yaml", verbose=False)).head_layers
        (16, 19, 22)
    """

    family = "YOLO"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._hulls = False
        # By the id of the strides and the sizes of the maps. The strides are kept so that no others get their id
        self._grids: dict[object, tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]] = {}

    @classmethod
    def accepts(cls, model: nn.Module) -> bool:
        """Return whether `model` has a supported head. Subclasses of these heads are not supported."""
        layers: Any = model.model if isinstance(model, DetectionModel) else [None]
        return type(layers[-1]) in _TASKS

    @classmethod
    def builds(cls, config: Config) -> bool:
        """Return whether a model YAML lists layers, as those of Ultralytics do."""
        return isinstance(config.get("backbone"), list)

    @classmethod
    def build(cls, config: Config, ch: int, nc: int | None, verbose: bool) -> nn.Module:
        """Build Ultralytics' model from the content of a YAML file."""
        content = deepcopy(dict(config))
        kind = _MODELS.get(guess_model_task(content), DetectionModel)
        return kind(content, ch=ch, nc=nc, verbose=verbose)

    @property
    def box_coding(self) -> str:
        """Whether the head predicts distances or distributions of distances (DFL)."""
        bins = int(self.model.model[-1].reg_max)
        coding = f"DFL, {bins} bins" if bins > 1 else "distances, no DFL"
        if self.task != "obb":
            return coding
        return (
            f"{coding}; {'raw angle' if isinstance(self.model.model[-1], OBB26) else 'angle from -45 to 135 degrees'}"
        )

    @property
    def task(self) -> str:
        """Task of the head: `detect`, `obb`, `segment` or `pose`."""
        return _TASKS[type(self.model.model[-1])]

    @property
    def keypoints(self) -> tuple[int, int] | None:
        """Shape of the keypoints of a `pose` head."""
        if self.task != "pose":
            return None
        number, values = self.model.model[-1].kpt_shape
        return int(number), int(values)

    def assignment_modules(self) -> Mapping[str, nn.Module]:
        """Return the task-aligned assigner of the criterion (of its one-to-many part)."""
        criterion = self._criterion
        return {"assigner": getattr(criterion, "one2many", criterion).assigner}

    def assignment(self, outputs: TapOutputs) -> DenseAssignment:
        """Return the number of positive anchors, at least one per image, as a scalar on the device."""
        return DenseAssignment(outputs["assigner"][3].sum(1).clamp(min=1).sum())

    @property
    def assigns_by_predictions(self) -> bool:
        """Whether the assignment depends on boxes and classes only. In other tasks, masks and keypoints matter, too."""
        return self.task in {"detect", "obb"}

    def assign_by(self, raw: DensePredictions, maps: Maps) -> RemovableHandle:
        """Give the teacher's scores and boxes to the task-aligned assigner.

        A one-to-one branch keeps assigning objects by its own predictions: the teacher's best anchor can differ from
        the student's.
        """
        scores, boxes = raw.logits.sigmoid(), raw.boxes
        if self.task == "obb":  # the assigner expects pixels
            _, strides = self._grid(maps, self.model.model[-1].stride)
            boxes = torch.cat([boxes[..., :4] * strides, boxes[..., 4:]], 2)

        def replace(assigner: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            return scores.to(inputs[0].dtype), boxes.to(inputs[1].dtype), *inputs[2:]

        return self.assignment_modules()["assigner"].register_forward_pre_hook(replace)

    def weigh_images(self, weights: torch.Tensor) -> ImageWeights:
        """Weight the images in the next loss, also in a one-to-one branch."""
        criterion = self._criterion
        branches = [getattr(criterion, "one2many", criterion), getattr(criterion, "one2one", None)]
        return YOLOImageWeights(self.model, [branch for branch in branches if branch is not None], weights)

    def loss_factor(self, images: int) -> float:
        """Return the number of images, multiplied by the weight of the one-to-many loss if the model has one.

        Only the one-to-many loss has gradients at the feature maps. Ultralytics reduces its weight to an eighth during
        training. This factor keeps the ratio between terms and loss constant.
        """
        return images * float(getattr(self._criterion, "o2m", 1.0))

    @property
    def _criterion(self) -> Any:  # Any: every task and head has its own class
        """The model's criterion."""
        # The first loss creates it, and resuming a run with a one-to-one head replaces it. So every batch looks it up.
        if getattr(self.model, "criterion", None) is None:
            self.model.criterion = self.model.init_criterion()
        return self.model.criterion

    def response(self, head: nn.Module, outputs: TapOutputs) -> DensePredictions:
        """Return the student's own predictions, from its one-to-many head."""
        raw = outputs["response"]
        raw = raw[1] if isinstance(raw, tuple) else raw  # in evaluation mode raw ones are second
        return super().response(head, {**outputs, "response": raw})

    def configure(self, sum_regions: bool, hulls: bool = False) -> None:
        """Set whether oriented objects cover their own boxes or their hulls."""
        self._hulls = hulls

    def footprints(self, batch: Batch) -> torch.Tensor:
        """Return the objects' boxes (N, 4) as xyxy in pixels, or (N, 5) as xywhr in pixels and radians."""
        if self.task != "obb":
            return super().footprints(batch)
        boxes = to_pixels(batch["bboxes"], batch["img"])
        return hulls_of(boxes) if self._hulls else boxes

    def freeze_head(self, head: nn.Module) -> None:
        """Freeze a head, make it return raw predictions, and remove its unused one-to-one branch."""
        super().freeze_head(head)
        head.training = True  # not its layers: a head returns raw predictions in training mode only
        for name in [name for name in head._modules if name.startswith("one2one_")]:
            setattr(head, name, None)

    def forward_teacher(self, images: torch.Tensor) -> DensePredictions:
        """Return the predictions of the one-to-many head for images (B, 3, H, W) in [0, 1]."""
        raw = self.model(images)
        return self.decode(self.head, raw)

    def decode(
        self, head: Any, raw: TapOutputs, ratio: int = 1
    ) -> DensePredictions:  # Any: heads have attributes without types
        """Decode raw boxes (B, 4 * reg_max, A), scores (B, C, A) and, for oriented boxes, angles (B, 1, A).

        Boxes become xyxy in pixels. Oriented boxes become xywhr in grid cells, the unit of Ultralytics' loss.
        """
        raw = raw.get("one2many", raw)
        anchors, strides = self._grid(raw["feats"], head.stride)
        # At least float32: bfloat16 and float16 round pixel coordinates to 2 and 0.5 px.
        distances = at_least_float32(raw["boxes"])
        if head.reg_max > 1:  # in the head's own layout: half the time of a softmax over the last dimension
            bins = torch.arange(head.reg_max, dtype=distances.dtype, device=distances.device)[:, None]
            distances = (distances.unflatten(1, (4, head.reg_max)).softmax(2) * bins).sum(2)
        elif "angle" not in raw:
            # Negative distances would invert boxes, so they become 0. The gradient passes, so that they can recover.
            distances = distances + (distances.clamp(min=0) - distances).detach()
        distances = distances.transpose(1, 2) / ratio
        if "angle" in raw:
            angles = at_least_float32(raw["angle"]).transpose(1, 2)  # heads that decode angles have done so already
            boxes = torch.cat([dist2rbox(distances, angles, anchors), angles], 2)
        else:
            boxes = dist2bbox(distances, anchors, xywh=False) * strides
        return DensePredictions(logits=raw["scores"].transpose(1, 2), boxes=boxes)

    def run_head(self, head: Any, maps: Maps) -> TapOutputs:  # Any: heads have attributes without types
        """Return the raw predictions of a one-to-many head from feature maps, without masks and keypoints."""
        parts = {name: part if name in _COMPARED else None for name, part in head.one2many.items()}
        raw: TapOutputs = head.forward_head(list(maps), **parts)
        return raw

    @property
    def similarity(self) -> Similarity:
        """Generalised IoU, or probabilistic IoU for oriented boxes."""
        return probabilistic_iou if self.task == "obb" else generalized_iou

    def detections_of(self, raw: DensePredictions, maps: Maps, suppression: Suppression) -> list[torch.Tensor]:
        """Return the teacher's detections from its raw predictions, in the format of `detect`."""
        if self.task != "obb":
            return super().detections_of(raw, maps, suppression)
        _, strides = self._grid(maps, self.model.model[-1].stride)
        boxes, angles = raw.boxes.float().split([4, 1], 2)
        rows = torch.cat([boxes * strides, raw.logits.float().sigmoid(), angles], 2)
        return [found[:, [0, 1, 2, 3, 6, 4, 5]] for found in self.suppressed(rows, suppression, extra=1)]

    def places(self, maps: Maps) -> torch.Tensor:
        """Return the grid cells of all anchors (A, 4) as xyxy in pixels."""
        centres, strides = make_anchors(list(maps), self.model.model[-1].stride, 0.5)
        return torch.cat([centres - 0.5, centres + 0.5], 1) * strides

    def _grid(self, features: Maps, strides: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return centres (A, 2) in grid cells and strides (A, 1) in pixels per cell of all anchors, in float32.

        They are cached, because computing them waits for the device.
        """
        key = id(strides), *((tuple(x.shape[-2:]), x.device) for x in features)
        if key not in self._grids:
            if len(self._grids) >= _MOST_GRIDS:
                self._grids.clear()
            with torch.inference_mode(False):
                # `make_anchors` uses only size, dtype and device of the maps
                self._grids[key] = strides, make_anchors([x[:1, :1].float() for x in features], strides, 0.5)
        return self._grids[key][1]


class YOLOImageWeights(ImageWeights):
    """Weights of images in a task-aligned loss.

    All parts of the loss are divided by the sum of the assigner's target scores. All parts except the class part are
    also weighted by these scores. So the scores are scaled by the weights. The class part needs the original scores as
    targets, and its output is scaled instead.

    Args:
        model (nn.Module): The model that returns the loss.
        criteria (Sequence[Any]): Its criterion, or both criteria of a model with two branches, with `assigner` and
            `bce`.
        weights (torch.Tensor): Weight of every image (B,).
    """

    def __init__(self, model: nn.Module, criteria: Sequence[Any], weights: torch.Tensor) -> None:
        self._weights = weights[:, None, None]
        self._handles = [model.register_forward_hook(self._finish)]
        for number, criterion in enumerate(criteria):
            targets: list[torch.Tensor] = []
            notes = number == 0
            self._handles += [
                criterion.assigner.register_forward_hook(partial(self._scale, targets)),
                criterion.bce.register_forward_pre_hook(partial(self._restore, targets)),
                criterion.bce.register_forward_hook(partial(self._weigh, notes)),
            ]

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _scale(self, targets: list[torch.Tensor], assigner: nn.Module, inputs: Any, output: Any) -> Any:
        """Forward hook of the assigner: scale its target scores (B, A, C)."""
        labels, boxes, scores, *others = output
        targets[:] = [scores]
        return labels, boxes, scores * self._weights.to(scores.dtype), *others

    def _restore(self, targets: list[torch.Tensor], bce: nn.Module, inputs: tuple[torch.Tensor, ...]) -> Any:
        """Forward pre-hook of the class part: restore its original targets."""
        return inputs[0], targets.pop().to(inputs[1].dtype)

    def _weigh(self, notes: bool, bce: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> Any:
        """Forward hook of the class part (B, A, C): record its sums and scale its output."""
        if notes:
            self.classification, self.objects = output.detach().sum((1, 2)), inputs[1].detach().sum((1, 2))
        return output * self._weights.to(output.dtype)

    def _finish(self, model: nn.Module, inputs: object, output: Any) -> Any:
        """Forward hook of the model: replace the loss's factor, the number of images, by the sum of the weights."""
        self.remove()
        loss, items = output
        return loss * self._weights.mean().to(loss.dtype), items
