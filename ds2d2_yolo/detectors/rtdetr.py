"""RT-DETR: teacher and student by its maps alone, as queries and not cells make its predictions."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import nn
from ultralytics.nn.modules.head import RTDETRDecoder
from ultralytics.nn.tasks import RTDETRDetectionModel

from ds2d2_yolo.detectors.base import Config, Maps, TapOutputs, confidence_of
from ds2d2_yolo.detectors.taps import Taps
from ds2d2_yolo.detectors.yolo import UltralyticsDetector


class EncoderScores(NamedTuple):
    """What RT-DETR's encoder says of every cell, before queries are chosen: class `logits` (B, A, C)."""

    logits: torch.Tensor


class RTDETRDetector(UltralyticsDetector[EncoderScores, None]):
    """RT-DETR, whose encoder maps of strides 8, 16 and 32 teach and learn, from other RT-DETRs as from YOLO models.

    Its predictions are made by queries, which the decoder chooses from all cells: there is nothing to compare cell by
    cell through it, so it has the explicit terms only. How sure it is of an object in a cell, for their weight, its
    encoder tells, by which the queries are chosen.

    Example:
        >>> RTDETRDetector(RTDETRDetectionModel("rtdetr-l.yaml", verbose=False)).head_layers
        (21, 24, 27)
    """

    family = "RT-DETR"

    @classmethod
    def accepts(cls, model: nn.Module) -> bool:
        """Return whether `model` is an RT-DETR of Ultralytics."""
        layers: Any = model.model if isinstance(model, RTDETRDetectionModel) else [None]
        return type(layers[-1]) is RTDETRDecoder

    @classmethod
    def builds(cls, config: Config) -> bool:
        """Return whether the last layer of a model YAML is RT-DETR's decoder."""
        layers = config.get("head")
        return isinstance(layers, list) and layers[-1][2] == RTDETRDecoder.__name__

    @classmethod
    def build(cls, config: Config, ch: int, nc: int | None, verbose: bool) -> nn.Module:
        """Return Ultralytics' model of a YAML."""
        return RTDETRDetectionModel(deepcopy(dict(config)), ch=ch, nc=nc, verbose=verbose)

    @property
    def box_coding(self) -> str:
        """How boxes are coded."""
        return f"{self.model.model[-1].num_queries} queries"

    def forward_teacher(self, images: torch.Tensor) -> EncoderScores:
        """Return the encoder's class logits of all cells for images (B, 3, H, W) in [0, 1]."""
        taps = Taps()
        taps.open({"scores": self.model.model[-1].enc_score_head})
        try:
            self.model(images)
        finally:
            outputs = taps.close()
        return EncoderScores(outputs["scores"])

    def loss_factor(self, images: int) -> float:
        """Return 1: RT-DETR's loss is not multiplied by the batch size."""
        return 1.0

    def assignment_modules(self) -> Mapping[str, nn.Module]:
        """Return none: only implicit terms ask how the ground truth was assigned."""
        return {}

    def assignment(self, outputs: TapOutputs) -> None:
        """Return None, likewise."""

    def confidence(self, raw: EncoderScores, maps: Maps) -> list[torch.Tensor]:
        """Return the highest class probability (B, 1, H_l, W_l) that the encoder gives every cell."""
        return confidence_of(raw.logits, maps)
