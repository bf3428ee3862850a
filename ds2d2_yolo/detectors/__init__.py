"""Detector families: feature maps, heads, decoding and assignment. Independent of training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn
from ultralytics.nn.tasks import yaml_model_load

from ds2d2_yolo.detectors.base import (
    AssignsObjects,
    Batch,
    ComparesPredictions,
    Config,
    Detector,
    Explains,
    ImageWeights,
    Maps,
    Responds,
    Suppression,
    TapOutputs,
    WeighsImages,
    input_channels,
)
from ds2d2_yolo.detectors.dense import DenseAssignment, DenseDetector
from ds2d2_yolo.detectors.rtdetr import RTDETRDetector
from ds2d2_yolo.detectors.taps import Taps, tapped
from ds2d2_yolo.detectors.torchvision import FasterRCNNDetector, RetinaNetDetector
from ds2d2_yolo.detectors.yolo import TASKS, YOLODetector, hulls_of
from ds2d2_yolo.errors import DS2D2Error

_FAMILIES: list[type[Detector]] = [RTDETRDetector, YOLODetector, RetinaNetDetector, FasterRCNNDetector]


def register_detector(family: type[Detector]) -> type[Detector]:
    """Register a detector family. Usable as a decorator. The family that was registered last is tried first.

    Args:
        family (type[Detector]): The family's class.

    Returns:
        (type[Detector]): The same class.

    Example:
        >>> register_detector(YOLODetector) is YOLODetector
        True
    """
    if family not in _FAMILIES:
        _FAMILIES.insert(0, family)
    return family


def is_supported(model: nn.Module) -> bool:
    """Return whether a family accepts a model.

    Example:
        >>> is_supported(nn.Linear(1, 1))
        False
    """
    return any(family.accepts(model) for family in _FAMILIES)


def detector_of(model: nn.Module) -> Detector:
    """Return the detector for a model, of the first family that accepts it.

    Args:
        model (nn.Module): A model, from a trainer or a checkpoint.

    Returns:
        (Detector): The detector.

    Raises:
        DS2D2Error: If no family supports the model.
    """
    for family in _FAMILIES:
        if family.accepts(model):
            return family(model)
    layers = getattr(model, "model", [model])
    head = layers[-1] if isinstance(layers, nn.Sequential) else model
    raise DS2D2Error(
        f"a {type(model).__name__} with a {type(head).__name__} head cannot be distilled; pass a YOLO model of the "
        f"tasks {', '.join(TASKS)}, a RetinaNet or a Faster R-CNN"
    )


def build_model(config: str | Path | Config, ch: int = 3, nc: int | None = None, verbose: bool = False) -> nn.Module:
    """Build a new model from a model YAML of any supported family.

    Args:
        config (str | Path | Config): Model YAML, or its content.
        ch (int): Channels of the images.
        nc (int | None): Number of classes. None means the number in the YAML.
        verbose (bool): Whether to print a summary.

    Returns:
        (nn.Module): The model.

    Raises:
        ValueError: If no family supports the YAML.

    Example:
        >>> type(build_model("yolo11n.yaml")).__name__
        'DetectionModel'
    """
    content: Config = config if isinstance(config, Mapping) else yaml_model_load(config)
    if nc is not None and not verbose:  # Ultralytics prints a line about another number in the YAML
        content = {**content, "nc": nc}
    for family in _FAMILIES:
        if family.builds(content):
            return family.build(content, ch, nc, verbose)
    kind = f"detector: {content['detector']}" if "detector" in content else "neither layers nor 'detector:'"
    raise ValueError(f"no detector family supports a model YAML with {kind}")


__all__ = [
    "TASKS",
    "AssignsObjects",
    "Batch",
    "ComparesPredictions",
    "DenseAssignment",
    "DenseDetector",
    "Detector",
    "Explains",
    "FasterRCNNDetector",
    "ImageWeights",
    "Maps",
    "RTDETRDetector",
    "Responds",
    "RetinaNetDetector",
    "Suppression",
    "TapOutputs",
    "Taps",
    "WeighsImages",
    "YOLODetector",
    "build_model",
    "detector_of",
    "hulls_of",
    "input_channels",
    "is_supported",
    "register_detector",
    "tapped",
]
