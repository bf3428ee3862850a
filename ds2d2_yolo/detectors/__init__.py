"""Detector families: how each yields maps, runs a head on given maps, decodes and assigns. Knows no training loop."""

from __future__ import annotations

from torch import nn

from ds2d2_yolo.detectors.base import Detector
from ds2d2_yolo.detectors.taps import Taps
from ds2d2_yolo.detectors.yolo import YOLODetector

_FAMILIES: list[type[Detector]] = [YOLODetector]


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


__all__ = ["Detector", "Taps", "YOLODetector", "detector_of", "register_detector"]
