"""Distil a detector that this package does not know, torchvision's FCOS: python examples/third_party_fcos.py data.yaml.

A family needs two things: a model that Ultralytics' trainers can train, and a `Detector`. The `Detector` states which
layers to tap, how ground truth is assigned and what the head predicts. Backbone and pyramid come from this package.
"""

import sys
from collections import namedtuple
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.detection.fcos import FCOS, FCOSHead
from ultralytics.utils import YAML

from ds2d2_yolo import DenseAssignment, DensePredictions, DS2D2Trainer, register_detector
from ds2d2_yolo.detectors.torchvision.model import DenseTorchvisionDetector, TorchvisionModel, Truth
from ds2d2_yolo.detectors.torchvision.parts import PyramidAnchors

STRIDES = (8, 16, 32, 64, 128)


# Raw predictions: torchvision's outputs by name, points (A, 4), points per level, size of the image
Raw = namedtuple("Raw", ["outputs", "points", "per_level", "image_size"])


class AnnouncingHead(FCOSHead):
    """torchvision's head. The matches for its loss pass through a module, so that they can be tapped."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__(channels, 1, classes)
        self.matches = nn.Identity()

    def compute_loss(self, targets: Any, outputs: Any, anchors: Any, matched: list[torch.Tensor]) -> Any:
        return super().compute_loss(targets, outputs, anchors, list(self.matches(torch.stack(matched))))


class Head(FCOS):
    """torchvision's FCOS without its backbone: gets feature maps and returns raw predictions."""

    def __init__(self, channels: int, classes: int) -> None:
        body = nn.Identity()
        body.out_channels = channels  # type: ignore[assignment]
        super().__init__(body, classes, head=AnnouncingHead(channels, classes), score_thresh=0.05, nms_thresh=0.6)
        self.anchor_generator = PyramidAnchors(STRIDES, [1.0], [1.0])
        self.max_det, self.agnostic_nms = 100, False

    def forward(self, maps: list[torch.Tensor]) -> Raw:
        size = (maps[0].shape[2] * STRIDES[0], maps[0].shape[3] * STRIDES[0])
        return Raw(self.head(maps), self.anchor_generator(maps), [x[0, 0].numel() for x in maps], size)

    def losses(self, raw: Raw, truth: Truth) -> dict[str, torch.Tensor]:
        targets = [{"boxes": boxes, "labels": labels} for boxes, labels in zip(*truth, strict=True)]
        losses = self.compute_loss(targets, raw.outputs, [raw.points] * len(targets), raw.per_level)
        return dict(zip(("cls_loss", "box_loss", "centre_loss"), losses.values(), strict=True))

    def detect(self, raw: Raw) -> torch.Tensor:
        outputs = {name: list(x.split(raw.per_level, 1)) for name, x in raw.outputs.items()}
        images, points = len(raw.outputs["cls_logits"]), list(raw.points.split(raw.per_level))
        self.detections_per_img = self.max_det
        found = self.postprocess_detections(outputs, [points] * images, [raw.image_size] * images)
        rows = [torch.cat([x["boxes"], x["scores"][:, None], x["labels"][:, None].float()], 1) for x in found]
        return torch.stack([F.pad(x, (0, 0, 0, self.max_det - len(x))) for x in rows])


class FCOSModel(TorchvisionModel):
    """The model that Ultralytics trains."""

    strides = STRIDES

    def make_head(self, channels: int) -> Head:
        return Head(channels, self.yaml["nc"])


@register_detector
class FCOSDetector(DenseTorchvisionDetector):
    """The model for distillation: dense predictions, as in RetinaNet."""

    family, box_coding, model_class = "FCOS", "distances to four sides", FCOSModel

    def assignment_modules(self) -> Mapping[str, nn.Module]:
        return {"matches": self.model.model[-1].head.matches}

    def assignment(self, outputs: Mapping[str, Any]) -> DenseAssignment:
        return DenseAssignment((outputs["matches"] >= 0).sum(1).clamp(min=1).sum())  # positives, at least one an image

    def decode(self, head: Any, raw: Raw, ratio: int = 1) -> DensePredictions:
        boxes = head.box_coder.decode(raw.outputs["bbox_regression"].float() / ratio, raw.points)
        return DensePredictions(raw.outputs["cls_logits"], boxes)


def main(data: str, channels: int = 256, **arguments: object) -> DS2D2Trainer:
    """Train an FCOS teacher, its amplifier and a student."""
    common = {"detector": "FCOS", "nc": 1, "weights": "IMAGENET1K_V1", "fpn_channels": channels}
    for name, backbone in (("fcos_r50.yaml", "resnet50"), ("fcos_r18.yaml", "resnet18")):
        YAML.save(name, {**common, "backbone": backbone})
    pair = {"teacher": "fcos_r50.yaml", "student": "fcos_r18.yaml", "data": data}
    trainer = DS2D2Trainer(overrides=pair | arguments)
    trainer.train()
    return trainer


if __name__ == "__main__":
    import third_party_fcos  # under its own name: checkpoints refer to its classes by it

    third_party_fcos.main(sys.argv[1])
