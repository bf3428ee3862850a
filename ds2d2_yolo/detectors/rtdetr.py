"""RT-DETR: explicit terms only, because its predictions come from queries, not from cells."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from ultralytics.nn.modules.head import RTDETRDecoder
from ultralytics.nn.tasks import RTDETRDetectionModel

from ds2d2_yolo.detectors.base import Config, Maps, TapOutputs, confidence_of
from ds2d2_yolo.detectors.taps import tapped
from ds2d2_yolo.detectors.yolo import UltralyticsDetector


class RTDETRDetector(UltralyticsDetector[torch.Tensor, None]):
    """RT-DETR as teacher or student of another RT-DETR or of a YOLO model.

    The explicit terms compare its encoder maps of strides 8, 16 and 32. The implicit terms need predictions for every
    cell, but the decoder predicts for selected queries only. The weight uses the encoder's class scores as confidence.
    The decoder selects its queries by the same scores.

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
        """Build Ultralytics' model from the content of a YAML file."""
        return RTDETRDetectionModel(deepcopy(dict(config)), ch=ch, nc=nc, verbose=verbose)

    @property
    def box_coding(self) -> str:
        """Number of queries."""
        return f"{self.model.model[-1].num_queries} queries"

    def forward_teacher(self, images: torch.Tensor) -> torch.Tensor:
        """Return the encoder's class logits (B, A, C) of all cells for images (B, 3, H, W) in [0, 1]."""
        _, outputs = tapped({"scores": self.model.model[-1].enc_score_head}, lambda: self.model(images))
        scores: torch.Tensor = outputs["scores"]
        return scores

    def loss_factor(self, images: int) -> float:
        """Return 1, because RT-DETR's loss is not multiplied by the batch size."""
        return 1.0

    def assignment_modules(self) -> Mapping[str, nn.Module]:
        """Return no modules: only implicit terms need the assignment."""
        return {}

    def assignment(self, outputs: TapOutputs) -> None:
        """Return None: only implicit terms need the assignment."""

    def confidence(self, raw: torch.Tensor, maps: Maps) -> list[torch.Tensor]:
        """Return the encoder's highest class probability (B, 1, H_l, W_l) for every cell."""
        return confidence_of(raw, maps)
