"""Ultralytics YOLO: every family with a `Detect` head (v5u to v10, 11, 12, 26), with DFL or not, NMS-free or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics.nn.modules.conv import Conv, Conv2
from ultralytics.nn.modules.head import Detect, v10Detect
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.tal import dist2bbox, make_anchors
from ultralytics.utils.torch_utils import fuse_conv_and_bn

from ds2d2_yolo.detectors.base import Detector
from ds2d2_yolo.spectral import DensePredictions, dense_differences


class YOLODetector(Detector):
    """An Ultralytics detection model with a horizontal-box head.

    Heads with a one-to-one branch are followed on their one-to-many branch: that is the one whose gradients reach the
    neck in ordinary training.

    Example:
        >>> from ultralytics.nn.tasks import DetectionModel
        >>> YOLODetector(DetectionModel("yolo11n.yaml", verbose=False)).head_layers
        (16, 19, 22)
    """

    family = "YOLO"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._kept: tuple[Any, tuple[torch.Tensor, torch.Tensor]] | None = None

    @classmethod
    def accepts(cls, model: nn.Module) -> bool:
        """Return whether `model` is a detection model whose head is `Detect` or `v10Detect` itself.

        Subclasses for other tasks (segment, pose, obb) and open vocabularies predict more than boxes and classes.
        """
        layers: Any = model.model if isinstance(model, DetectionModel) else [None]
        return type(layers[-1]) in {Detect, v10Detect}

    @classmethod
    def builds(cls, config: Mapping[str, Any]) -> bool:
        """Return whether a model YAML lists layers, as Ultralytics' do."""
        return isinstance(config.get("backbone"), list)

    @classmethod
    def build(cls, config: Mapping[str, Any], ch: int, nc: int | None, verbose: bool) -> nn.Module:
        """Return Ultralytics' detection model of a YAML."""
        return DetectionModel(deepcopy(dict(config)), ch=ch, nc=nc, verbose=verbose)

    @property
    def title(self) -> str:
        """Name of the model's YAML file, with the scale in it, such as `yolo11s`."""
        return Path(str(self.model.yaml.get("yaml_file", "YOLO"))).stem

    @property
    def box_coding(self) -> str:
        """Whether the head predicts a distribution over distances (DFL) or distances."""
        bins = int(self.model.model[-1].reg_max)
        return f"DFL, {bins} bins" if bins > 1 else "distances, no DFL"

    @property
    def head_index(self) -> int:
        """Index of the last layer."""
        return len(self.model.model) - 1

    @property
    def head_layers(self) -> tuple[int, ...]:
        """Indices of the layers that the head takes its maps from."""
        return tuple(int(index) % len(self.model.model) for index in self.model.model[-1].f)

    def layer(self, index: int) -> nn.Module:
        """Return layer `index` of the model's sequence."""
        if not 0 <= index < len(self.model.model):
            raise IndexError(f"{self.title} has layers 0 to {len(self.model.model) - 1}, not {index}")
        layer: nn.Module = self.model.model[index]
        return layer

    def assignment_modules(self) -> Mapping[str, nn.Module]:
        """Return the task-aligned assigner of the (one-to-many) criterion."""
        # The criterion is made at the first loss and made anew when a run with a one-to-one head resumes, so it is
        # looked up for every batch.
        if getattr(self.model, "criterion", None) is None:
            self.model.criterion = self.model.init_criterion()
        criterion = getattr(self.model.criterion, "one2many", self.model.criterion)
        return {"assigner": criterion.assigner}

    def assignment(self, outputs: Mapping[str, Any]) -> torch.Tensor:
        """Return the number of positive anchors, at least one per image, as a scalar on the device."""
        foreground = outputs["assigner"][3]
        return foreground.sum(1).clamp(min=1).sum()

    def freeze_head(self, head: nn.Module) -> None:
        """Make a head a guest that gives raw predictions, without the one-to-one branch that nothing here looks at."""
        super().freeze_head(head)
        head.training = True  # of the head alone, not of its layers: raw predictions are given in training only
        for name in [name for name in head._modules if name.startswith("one2one_")]:
            setattr(head, name, None)

    def fuse(self, guest: nn.Module) -> None:
        """Fold the BatchNorm layers of a frozen model or head into its convolutions, in place."""
        # `BaseModel.fuse` would remove the one-to-many branch of heads that have a one-to-one branch, too.
        for module in guest.modules():
            if isinstance(module, Conv) and not isinstance(module, Conv2) and hasattr(module, "bn"):
                module.conv = fuse_conv_and_bn(module.conv, module.bn)
                del module.bn
                module.forward = module.forward_fuse  # type: ignore[method-assign]

    def forward_teacher(self, images: torch.Tensor) -> DensePredictions:
        """Return the predictions of the (one-to-many) head for images (B, 3, H, W) in [0, 1]."""
        raw = self.model(images)
        return self.decode(self.head, raw)

    def decode(self, head: Any, raw: Mapping[str, Any]) -> DensePredictions:
        """Return logits and xyxy boxes in pixels of raw boxes (B, 4 * reg_max, A) and scores (B, C, A)."""
        raw = raw.get("one2many", raw)
        anchors, strides = self._grid(raw["feats"], head.stride)
        # In float32: bfloat16 and float16 know pixel coordinates to 2 and 0.5 px only.
        distances = raw["boxes"].float().transpose(1, 2)
        if head.reg_max > 1:
            bins = torch.arange(head.reg_max, dtype=distances.dtype, device=distances.device)
            distances = (distances.unflatten(2, (4, head.reg_max)).softmax(3) * bins).sum(3)
        boxes = dist2bbox(distances, anchors, xywh=False) * strides
        return DensePredictions(logits=raw["scores"].transpose(1, 2), boxes=boxes)

    def predict(self, head: Any, maps: Sequence[torch.Tensor], assignment: Any = None) -> DensePredictions:
        """Return what a head (one-to-many) predicts from a pyramid."""
        return self.decode(head, head.forward_head(list(maps), **head.one2many))

    def places(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the grid cells of all anchors (A, 4) as xyxy pixels."""
        centres, strides = self._grid(maps, self.model.model[-1].stride)
        return torch.cat([centres - 0.5, centres + 0.5], 1) * strides

    def differences(
        self,
        head: nn.Module,
        student: Sequence[torch.Tensor],
        teacher: Sequence[torch.Tensor],
        places: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return quality focal and generalised IoU loss of every anchor (A,)."""
        with torch.no_grad():
            classes, boxes = dense_differences(*(self.predict(head, maps) for maps in (student, teacher)))
        return classes[0], boxes[0]

    def _grid(self, features: Sequence[torch.Tensor], strides: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return centres (A, 2) in grid cells and strides (A, 1) in pixels per cell of all anchors, in float32.

        They are kept for as long as the maps keep their sizes: to make them waits for the device.
        """
        sizes = tuple((tuple(x.shape[-2:]), x.device) for x in features)
        if self._kept is None or self._kept[0] != sizes:
            with torch.inference_mode(False):
                # `make_anchors` looks at the maps' sizes, dtype and device alone
                self._kept = sizes, make_anchors([x[:1, :1].float() for x in features], strides, 0.5)
        return self._kept[1]
