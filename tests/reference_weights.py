"""Loads the reference's heads from the golden files into this package's modules.

| reference (MMDetection) | here (torchvision's names) |
|---|---|
| `cls_convs.{i}.conv`, `reg_convs.{i}.conv` | `classification_head.conv.{i}.0`, `regression_head.conv.{i}.0` |
| `retina_cls`, `retina_reg` | `classification_head.cls_logits`, `regression_head.bbox_reg` |
| `shared_fcs.{0,1}` | `box_head.fc{6,7}` |
| `fc_cls`: classes, then background | `box_predictor.cls_score`: background, then classes |
| `fc_reg`: 4 deltas per class | `box_predictor.bbox_pred`: 4 unused deltas of the background, then 4 per class |
"""

from __future__ import annotations

import re

import torch
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead

from ds2d2_yolo.detectors.torchvision.faster_rcnn import RegionHead
from ds2d2_yolo.detectors.torchvision.retinanet import RetinaHead

_RETINA_NAMES = [
    (r"cls_convs\.(\d)\.conv", r"classification_head.conv.\1.0"),
    (r"reg_convs\.(\d)\.conv", r"regression_head.conv.\1.0"),
    (r"retina_cls", "classification_head.cls_logits"),
    (r"retina_reg", "regression_head.bbox_reg"),
]


def retina_head(arrays, prefix: str) -> RetinaHead:
    """The frozen head stored under `prefix`: 16 channels, 5 classes, 2 convolutions per branch instead of 4."""
    head = RetinaHead(16, 5, score_threshold=0.05, nms_iou=0.5)
    for branch in (head.classification_head, head.regression_head):
        branch.conv = branch.conv[:2]
    state = {}
    for name in arrays.names:
        if name.startswith(prefix):
            own = name.removeprefix(prefix)
            for pattern, replacement in _RETINA_NAMES:
                own = re.sub(pattern, replacement, own)
            state[own] = arrays[name]
    head.load_state_dict(state)
    return head.eval().requires_grad_(False)


def region_head(arrays, prefix: str) -> RegionHead:
    """The frozen second stage stored under `prefix`: 16 channels, 5 classes, 32 hidden units instead of 1024."""
    head = RegionHead(16, 5, regions=512)
    head.box_head, head.box_predictor = TwoMLPHead(16 * 49, 32), FastRCNNPredictor(32, 6)
    state = {}
    for kind in ("weight", "bias"):
        for own, theirs in (("fc6", "shared_fcs.0"), ("fc7", "shared_fcs.1")):
            state[f"box_head.{own}.{kind}"] = arrays[f"{prefix}{theirs}.{kind}"]
        state[f"box_predictor.cls_score.{kind}"] = arrays[f"{prefix}fc_cls.{kind}"].roll(1, 0)
        deltas = arrays[f"{prefix}fc_reg.{kind}"]
        state[f"box_predictor.bbox_pred.{kind}"] = torch.cat([torch.zeros_like(deltas[:4]), deltas])
    head.load_state_dict(state)
    return head.eval().requires_grad_(False)
