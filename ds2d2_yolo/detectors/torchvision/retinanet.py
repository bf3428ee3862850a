"""RetinaNet: dense predictions for anchors on five levels, assigned to objects by IoU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import box_iou, sigmoid_focal_loss

from ds2d2_yolo.detectors.base import Explains, Maps, TapOutputs
from ds2d2_yolo.detectors.dense import DenseAssignment
from ds2d2_yolo.detectors.torchvision.model import DenseTorchvisionDetector, TorchvisionModel, Truth
from ds2d2_yolo.detectors.torchvision.parts import DeltaCoder, MaxIoUMatcher, PyramidAnchors, suppress
from ds2d2_yolo.method import DensePredictions, Gains

_STRIDES = (8, 16, 32, 64, 128)
_CANDIDATES = 1000  # per level, before suppression


class Assignment(NamedTuple):
    """The assignment of anchors to objects.

    Attributes:
        objects (torch.Tensor): Index of each anchor's object in its image (B, A). -1 is background, -2 is ignored.
        label_weights (torch.Tensor): Weights (B, A), float32: 0 for ignored anchors, else 1.
        avg_factor (torch.Tensor): Number of positive anchors, at least one per image, a scalar.
    """

    objects: torch.Tensor
    label_weights: torch.Tensor
    avg_factor: torch.Tensor


class RetinaPredictions(NamedTuple):
    """Raw predictions: `logits` (B, A, C), `deltas` (B, A, 4), `anchors` (A, 4), and anchors per level."""

    logits: torch.Tensor
    deltas: torch.Tensor
    anchors: torch.Tensor
    per_level: list[int]
    image_size: tuple[int, int]


class RetinaAssigner(nn.Module):
    """Assigns anchors to objects: positive from IoU 0.5, negative below 0.4. Each object gets its best anchors, too.

    This is a module, so that its output can be tapped.
    """

    def __init__(self) -> None:
        super().__init__()
        self.matcher = MaxIoUMatcher(0.5, 0.4, minimum=0.0)

    def forward(self, anchors: torch.Tensor, boxes: Sequence[torch.Tensor]) -> Assignment:
        """Return the assignment of anchors (A, 4) to the boxes (N_i, 4) of every image, all as xyxy in pixels."""
        background = torch.full_like(anchors[:, 0], self.matcher.BELOW_LOW_THRESHOLD, dtype=torch.int64)
        objects = torch.stack([self.matcher(box_iou(rows, anchors)) if len(rows) else background for rows in boxes])
        positives = (objects >= 0).sum(1).clamp(min=1).sum()
        return Assignment(objects, (objects != self.matcher.BETWEEN_THRESHOLDS).float(), positives)


class RetinaHead(RetinaNetHead):
    """torchvision's RetinaNet head with anchors, assigner, losses and non-maximum suppression.

    Args:
        channels (int): Channels of the maps.
        classes (int): Number of classes.
        score_threshold (float): Minimum score of a detection.
        nms_iou (float): IoU threshold of non-maximum suppression.
        anchor_scale (float): Side of a level's smallest square anchor, in strides of the level.
    """

    def __init__(
        self, channels: int, classes: int, score_threshold: float, nms_iou: float, anchor_scale: float = 4.0
    ) -> None:
        super().__init__(channels, 9, classes)
        self.anchors = PyramidAnchors(_STRIDES, [anchor_scale * 2 ** (octave / 3) for octave in range(3)])
        self.assigner = RetinaAssigner()
        self.coder = DeltaCoder((1.0, 1.0, 1.0, 1.0))
        self.score_threshold, self.nms_iou = score_threshold, nms_iou
        self.max_det, self.agnostic_nms = 100, False

    def forward(self, maps: list[torch.Tensor]) -> RetinaPredictions:
        """Return raw predictions for maps (B, C, H_l, W_l) of the levels P3 to P7."""
        outputs = super().forward(maps)
        height, width = maps[0].shape[-2:]
        return RetinaPredictions(
            outputs["cls_logits"],
            outputs["bbox_regression"],
            self.anchors(maps),
            [9 * x.shape[-2] * x.shape[-1] for x in maps],
            (height * _STRIDES[0], width * _STRIDES[0]),
        )

    def decode(self, raw: RetinaPredictions) -> DensePredictions:
        """Decode raw predictions to logits and boxes (B, A, 4) as xyxy in pixels, float32, not clipped."""
        batch = raw.deltas.shape[0]
        boxes = self.coder.decode_single(raw.deltas.flatten(0, 1), raw.anchors.repeat(batch, 1))
        return DensePredictions(raw.logits, boxes.view(batch, -1, 4))

    def losses(self, raw: RetinaPredictions, truth: Truth) -> dict[str, torch.Tensor]:
        """Return the focal loss (gamma 2, alpha 0.25) and the L1 loss of the deltas, both per positive anchor."""
        boxes, classes = truth
        assignment: Assignment = self.assigner(raw.anchors, boxes)
        image, anchor = (assignment.objects >= 0).nonzero(as_tuple=True)
        start = torch.tensor([0, *(len(rows) for rows in boxes)], device=image.device).cumsum(0)[image]
        matched = start + assignment.objects[image, anchor]

        logits, deltas = raw.logits.float(), raw.deltas[image, anchor].float()
        targets = torch.zeros_like(logits)
        targets[image, anchor, torch.cat(classes)[matched]] = 1.0
        focal = sigmoid_focal_loss(logits, targets, alpha=0.25, gamma=2.0) * assignment.label_weights[..., None]
        distance = (deltas - self.coder.encode_single(torch.cat(boxes)[matched], raw.anchors[anchor])).abs()
        return {"cls_loss": focal.sum() / assignment.avg_factor, "box_loss": distance.sum() / assignment.avg_factor}

    @torch.no_grad()
    def detect(self, raw: RetinaPredictions) -> torch.Tensor:
        """Return detections (B, max_det, 6) as x1, y1, x2, y2, score, class, padded with zeros."""
        return torch.stack([self._detect_one(raw, index) for index in range(len(raw.logits))])

    def _detect_one(self, raw: RetinaPredictions, image: int) -> torch.Tensor:
        boxes, scores, labels = [], [], []
        parts = (x.split(raw.per_level) for x in (raw.logits[image].float(), raw.deltas[image], raw.anchors))
        for logits, deltas, anchors in zip(*parts, strict=True):
            probabilities = logits.sigmoid().flatten()
            best, index = probabilities.topk(min(_CANDIDATES, len(probabilities)))
            index = index[best > self.score_threshold]
            anchor = index // logits.shape[1]
            boxes.append(self.coder.decode_single(deltas[anchor], anchors[anchor]))
            scores.append(probabilities[index])
            labels.append(index % logits.shape[1])
        return suppress(
            torch.cat(boxes),
            torch.cat(scores),
            torch.cat(labels),
            raw.image_size,
            self.nms_iou,
            self.max_det,
            self.agnostic_nms,
        )


class RetinaNetModel(TorchvisionModel):
    """RetinaNet on levels P3 to P7.

    Example:
        >>> from ds2d2_yolo.detectors import build_model
        >>> from ds2d2_yolo.resources import own_file
        >>> build_model(own_file("retinanet_r18.yaml", "cfg", "models"), nc=3).stride.tolist()
        [8.0, 16.0, 32.0]
    """

    strides = _STRIDES

    def make_head(self, channels: int) -> nn.Module:
        """Return the head."""
        config = self.yaml
        return RetinaHead(channels, config["nc"], config["score_threshold"], config["nms_iou"], config["anchor_scale"])


class RetinaNetDetector(DenseTorchvisionDetector, Explains):
    """RetinaNet. The implicit terms compare the predictions of all anchors, except those that the student ignores."""

    family = "RetinaNet"
    model_class = RetinaNetModel

    @property
    def box_coding(self) -> str:
        """Box encoding of the head."""
        return "deltas of 9 anchors per cell"

    @property
    def head_layout(self) -> str:
        """Levels and anchors, which teacher and student must share."""
        return f"{len(self.head_layers)} levels, 9 anchors per cell from {self.model.yaml['anchor_scale']:g} strides on"

    @property
    def reference_gains(self) -> Gains:
        """The authors' gains on DIOR."""
        return Gains(1e-5, 1e-5, 1.0, 1.0)

    def assignment_modules(self) -> Mapping[str, nn.Module]:
        """Return the assigner."""
        return {"assigner": self.model.model[-1].assigner}

    def assignment(self, outputs: TapOutputs) -> DenseAssignment:
        """Return the number of positive anchors, and the weights of all anchors."""
        assigned: Assignment = outputs["assigner"]
        return DenseAssignment(assigned.avg_factor, assigned.label_weights)

    def decode(self, head: Any, raw: RetinaPredictions, ratio: int = 1) -> DensePredictions:
        """Return logits and boxes of all anchors."""
        centres = (raw.anchors[:, :2] + raw.anchors[:, 2:]).repeat(1, 2) / 2
        anchors = centres + (raw.anchors - centres) / ratio
        predictions: DensePredictions = head.decode(raw._replace(anchors=anchors))
        return predictions

    def places(self, maps: Maps) -> torch.Tensor:
        """Return the grid cells of all anchors (A, 4) as xyxy in pixels. Nine anchors share each cell."""
        generator = self.model.model[-1].anchors
        anchors = generator(list(maps))
        centres = (anchors[:, :2] + anchors[:, 2:]) / 2
        numbers = torch.tensor([9 * x.shape[-2] * x.shape[-1] for x in maps], device=anchors.device)
        halves = torch.tensor(generator.strides, device=anchors.device).repeat_interleave(numbers)[:, None] / 2
        return torch.cat([centres - halves, centres + halves], 1)
