"""DS2D2 for Ultralytics YOLO: dual-stream spectral decoupling distillation for small detectors on overhead imagery."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ds2d2_yolo.detectors import DenseAssignment, Detector, register_detector
    from ds2d2_yolo.errors import DS2D2Error
    from ds2d2_yolo.evaluation import evaluate
    from ds2d2_yolo.method import (
        DensePredictions,
        DS2D2Loss,
        Gains,
        HeadComparison,
        LossInputs,
        RegionPredictions,
        TappedMaps,
        decompose,
        dense_implicit_terms,
        density_independent_scale_weight,
        explicit_terms,
        generalized_iou,
        kl_divergence,
        quality_focal_loss,
        region_implicit_terms,
    )
    from ds2d2_yolo.trainer import DS2D2Trainer
    from ds2d2_yolo.training.amplifier import AmplifierTrainer
    from ds2d2_yolo.training.pipeline import Plan, plan
    from ds2d2_yolo.training.trainer import PlainTrainer

_METHOD = (
    "DS2D2Loss",
    "DensePredictions",
    "Gains",
    "HeadComparison",
    "LossInputs",
    "RegionPredictions",
    "TappedMaps",
    "decompose",
    "dense_implicit_terms",
    "density_independent_scale_weight",
    "explicit_terms",
    "generalized_iou",
    "kl_divergence",
    "quality_focal_loss",
    "region_implicit_terms",
)
_HOMES = {
    **dict.fromkeys(_METHOD, "method"),
    **dict.fromkeys(("DenseAssignment", "Detector", "register_detector"), "detectors"),
    "AmplifierTrainer": "training.amplifier",
    "DS2D2Error": "errors",
    "DS2D2Trainer": "trainer",
    "Plan": "training.pipeline",
    "PlainTrainer": "training.trainer",
    "evaluate": "evaluation",
    "plan": "training.pipeline",
}

__all__ = [
    "AmplifierTrainer",
    "DS2D2Error",
    "DS2D2Loss",
    "DS2D2Trainer",
    "DenseAssignment",
    "DensePredictions",
    "Detector",
    "Gains",
    "HeadComparison",
    "LossInputs",
    "PlainTrainer",
    "Plan",
    "RegionPredictions",
    "TappedMaps",
    "__version__",
    "decompose",
    "dense_implicit_terms",
    "density_independent_scale_weight",
    "evaluate",
    "explicit_terms",
    "generalized_iou",
    "kl_divergence",
    "plan",
    "quality_focal_loss",
    "region_implicit_terms",
    "register_detector",
]


def __getattr__(name: str) -> Any:  # Any: every name has its own type
    # Imported on first use: `ds2d2_yolo.method` must work without Ultralytics, and `ds2d2 help` must be fast.
    if name in _HOMES:
        return getattr(import_module(f"ds2d2_yolo.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ds2d2_yolo' has no attribute '{name}'")
