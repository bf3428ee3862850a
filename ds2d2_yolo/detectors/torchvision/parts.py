"""Shared parts of RetinaNet and Faster R-CNN: backbone, feature pyramid, anchors, matcher, non-maximum suppression.

All settings are those of the reference.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import ResNet
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork, batched_nms, clip_boxes_to_image
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from ds2d2_yolo.method.wavelet import at_least_float32


class Stage(nn.Sequential):
    """Part of a backbone. With `frozen_statistics`, training does not change its BatchNorm statistics.

    Scale and shift are still trained, as in the reference (`norm_eval=True`). torchvision's `FrozenBatchNorm2d` freezes
    them, too.

    Args:
        *layers (nn.Module): Layers.
        frozen_statistics (bool): Whether the running statistics are frozen.
    """

    def __init__(self, *layers: nn.Module, frozen_statistics: bool) -> None:
        super().__init__(*layers)
        self.frozen_statistics = frozen_statistics

    def train(self, mode: bool = True) -> Stage:
        """Set the mode of all layers. BatchNorm layers with frozen statistics stay in evaluation mode."""
        super().train(mode)
        if self.frozen_statistics:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def fuse(self) -> None:
        """Fuse every BatchNorm layer into the convolution before it, in place, for evaluation only.

        This needs layers that are defined in the order in which they run, as in torchvision's ResNets.
        """
        for module in self.modules():
            before: nn.Module | None = None
            for name, child in list(module.named_children()):
                if isinstance(child, nn.BatchNorm2d) and isinstance(before, nn.Conv2d):
                    fused = fuse_conv_bn_eval(before, child)
                    before.weight, before.bias = fused.weight, fused.bias
                    setattr(module, name, nn.Identity())
                before = child


def backbone_stages(network: ResNet, frozen_statistics: bool) -> list[Stage]:
    """Return the stem and the four stages of a ResNet or ResNeXt of torchvision.

    Args:
        network (ResNet): The network.
        frozen_statistics (bool): Whether training leaves BatchNorm's running statistics unchanged.

    Returns:
        (list[Stage]): Stem (stride 4) and stages (strides 4, 8, 16, 32).

    Example:
        >>> from torchvision.models import resnet18
        >>> len(backbone_stages(resnet18(), frozen_statistics=True))
        5
    """
    stem = (network.conv1, network.bn1, network.relu, network.maxpool)
    stages = (network.layer1, network.layer2, network.layer3, network.layer4)
    return [Stage(*layers, frozen_statistics=frozen_statistics) for layers in (stem, *stages)]


class Pyramid(FeaturePyramidNetwork):
    """torchvision's feature pyramid over the last maps of a backbone, initialised as in the reference.

    Args:
        in_channels (Sequence[int]): Channels of the backbone's maps, finest first.
        channels (int): Channels of every level.
        extra (ExtraFPNBlock): Block that computes the levels above the backbone's.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, extra: ExtraFPNBlock) -> None:
        super().__init__(list(in_channels), channels, extra)
        self.inputs = len(in_channels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the levels (B, channels, H_l, W_l), finest first."""
        return list(super().forward({str(index): x for index, x in enumerate(maps)}).values())


class StridedLevels(ExtraFPNBlock):
    """Two more levels by convolution with stride 2: P6 from the backbone's last map, P7 from P6 (`on_input`).

    torchvision's `LastLevelP6P7` has a ReLU before P7, and computes P6 from P5 if the channels allow it.

    Args:
        in_channels (int): Channels of the backbone's last map.
        channels (int): Channels of the levels.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.p6 = nn.Conv2d(in_channels, channels, 3, stride=2, padding=1)
        self.p7 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        for convolution in (self.p6, self.p7):
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]

    def forward(
        self, results: list[torch.Tensor], x: list[torch.Tensor], names: list[str]
    ) -> tuple[list[torch.Tensor], list[str]]:
        """Return levels and names, including the two new ones."""
        p6 = self.p6(x[-1])
        return [*results, p6, self.p7(p6)], [*names, "p6", "p7"]


class PyramidAnchors(AnchorGenerator):
    """Anchors on the grids of a feature pyramid, centred on the cells' top left corners.

    This differs from torchvision in two points. Anchors are not rounded to whole pixels. Strides are given, because the
    image size divided by the grid size is wrong for a level whose size was rounded up.

    Args:
        strides (Sequence[float]): Stride of every level, in pixels.
        scales (Sequence[float]): Side of the square anchors, in strides.
        ratios (Sequence[float]): Height by width.

    Example:
        >>> PyramidAnchors([8], [4.0])([torch.zeros(1, 1, 2, 2)]).shape
        torch.Size([12, 4])
    """

    def __init__(
        self, strides: Sequence[float], scales: Sequence[float], ratios: Sequence[float] = (0.5, 1.0, 2.0)
    ) -> None:
        sizes = tuple(tuple(stride * scale for scale in scales) for stride in strides)
        super().__init__(sizes, (tuple(ratios),) * len(strides))
        self.strides = tuple(strides)

    def generate_anchors(
        self,
        scales: Sequence[float],
        aspect_ratios: Sequence[float],
        dtype: torch.dtype = torch.float32,
        device: torch.device = torch.device("cpu"),  # noqa: B008
    ) -> torch.Tensor:
        """Return the anchors (N, 4) of one cell, relative to its origin, ordered by ratio, then by size."""
        sizes = torch.as_tensor(scales, dtype=dtype, device=device)
        roots = torch.as_tensor(aspect_ratios, dtype=dtype, device=device).sqrt()
        half = torch.stack([sizes[None] / roots[:, None], sizes[None] * roots[:, None]], -1).reshape(-1, 2) / 2
        return torch.cat([-half, half], 1)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the anchors (A, 4) of all levels as xyxy in pixels, float32, ordered by level, y, x, anchor."""
        self.set_cell_anchors(torch.float32, maps[0].device)
        grids = [x.shape[-2:] for x in maps]
        strides = [(stride, stride) for stride in self.strides]
        return torch.cat(self.grid_anchors(grids, strides))


class DeltaCoder(BoxCoder):
    """torchvision's box coder with a lower bound for size deltas, as in the reference."""

    def decode_single(self, rel_codes: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Apply deltas (N, 4 * C) to boxes (N, 4) and return boxes (N, 4 * C), at least float32."""
        rel_codes = at_least_float32(rel_codes).unflatten(1, (-1, 4))
        bounds = rel_codes.new_tensor(self.weights[2:]) * -self.bbox_xform_clip
        sides = torch.maximum(rel_codes[..., 2:], bounds)
        return super().decode_single(torch.cat([rel_codes[..., :2], sides], -1).flatten(1), boxes)


class MaxIoUMatcher(Matcher):
    """torchvision's matcher with the reference's rule for objects without an anchor of high IoU.

    Such an object gets its best anchors if their IoU is at least `minimum`, even if another object has a higher IoU
    with them. In torchvision, the object with the highest IoU gets these anchors.

    Args:
        high (float): Minimum IoU of a positive anchor.
        low (float): IoU below which an anchor is negative. Anchors between `low` and `high` are ignored.
        minimum (float): Minimum IoU for an object's best anchors.
    """

    def __init__(self, high: float, low: float, minimum: float) -> None:
        super().__init__(high, low, allow_low_quality_matches=True)
        self.minimum = minimum

    def set_low_quality_matches_(
        self, matches: torch.Tensor, all_matches: torch.Tensor, match_quality_matrix: torch.Tensor
    ) -> None:
        """Change `matches` (A,) in place, from IoUs (G, A). The last of several objects gets an anchor."""
        best = match_quality_matrix.amax(1, keepdim=True)
        taken = (match_quality_matrix == best) & (best >= self.minimum) & (best > 0)
        number = torch.arange(len(best), device=best.device)[:, None]
        last = torch.where(taken, number, -1).amax(0)
        matches.copy_(torch.where(last >= 0, last, matches))


def suppress(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    labels: torch.Tensor,
    image_size: tuple[int, int],
    iou: float,
    max_det: int,
    agnostic: bool,
) -> torch.Tensor:
    """Apply non-maximum suppression to one image. Return detections sorted by score, padded with zeros.

    Args:
        boxes (torch.Tensor): Boxes (N, 4) as xyxy in pixels. They are clipped to the image.
        scores (torch.Tensor): Scores (N,).
        labels (torch.Tensor): Classes (N,).
        image_size (tuple[int, int]): Height and width.
        iou (float): IoU threshold.
        max_det (int): Number of detections to return.
        agnostic (bool): Whether boxes of different classes suppress each other.

    Returns:
        (torch.Tensor): Detections (max_det, 6) as x1, y1, x2, y2, score, class.
    """
    boxes = clip_boxes_to_image(boxes, image_size)
    solid = (boxes[:, 2:] > boxes[:, :2]).all(1)
    boxes, scores, labels = boxes[solid], scores[solid], labels[solid]
    kept = batched_nms(boxes, scores, torch.zeros_like(labels) if agnostic else labels, iou)[:max_det]
    found = torch.cat([boxes[kept], scores[kept, None], labels[kept, None].to(boxes.dtype)], 1)
    return F.pad(found, (0, 0, 0, max_det - len(found)))
