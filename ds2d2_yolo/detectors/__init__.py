"""Detector families: how each yields maps, runs a head on given maps, decodes and assigns. Knows no training loop."""

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
    Maps,
    Responds,
    TapOutputs,
)
from ds2d2_yolo.detectors.dense import DenseAssignment, DenseDetector
from ds2d2_yolo.detectors.rtdetr import RTDETRDetector
from ds2d2_yolo.detectors.taps import Taps
from ds2d2_yolo.detectors.torchvision import FasterRCNNDetector, RetinaNetDetector
from ds2d2_yolo.detectors.yolo import TASKS, YOLODetector, hulls_of

_FAMILIES: list[type[Detector]] = [RTDETRDetector, YOLODetector, RetinaNetDetector, FasterRCNNDetector]


def register_detector(family: type[Detector]) -> type[Detector]:
    """Make a family known; usable as a decorator. The family registered last is asked first.

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


def detector_of(model: nn.Module) -> Detector | None:
    """Return `model` as a detector of the family that accepts it, or None where no family does.

    Args:
        model (nn.Module): A model, as a trainer holds it or as a checkpoint contains it.

    Returns:
        (Detector | None): The detector.

    Example:
        >>> from torch import nn
        >>> detector_of(nn.Linear(1, 1)) is None
        True
    """
    return next((family(model) for family in _FAMILIES if family.accepts(model)), None)


def build_model(config: str | Path | Config, ch: int = 3, nc: int | None = None, verbose: bool = False) -> nn.Module:
    """Build a new model of the family that a model YAML is for.

    Args:
        config (str | Path | Config): Model YAML, or its content.
        ch (int): Channels of the images.
        nc (int | None): Number of classes; None takes that of the YAML.
        verbose (bool): Whether to print a summary.

    Returns:
        (nn.Module): The model.

    Raises:
        ValueError: If no family builds from such a YAML.

    Example:
        >>> type(build_model("yolo11n.yaml")).__name__
        'DetectionModel'
    """
    content: Config = config if isinstance(config, Mapping) else yaml_model_load(config)
    for family in _FAMILIES:
        if family.builds(content):
            return family.build(content, ch, nc, verbose)
    kind = f"detector: {content['detector']}" if "detector" in content else "neither layers nor 'detector:'"
    raise ValueError(f"a model YAML with {kind} is for no known family of detectors")


__all__ = [
    "TASKS",
    "AssignsObjects",
    "Batch",
    "ComparesPredictions",
    "Config",
    "DenseAssignment",
    "DenseDetector",
    "Detector",
    "Explains",
    "FasterRCNNDetector",
    "Maps",
    "RTDETRDetector",
    "Responds",
    "RetinaNetDetector",
    "TapOutputs",
    "Taps",
    "YOLODetector",
    "build_model",
    "detector_of",
    "hulls_of",
    "register_detector",
]
