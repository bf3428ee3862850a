"""The method: functions from tensors to scalars, independent of detectors, Ultralytics and files."""

from ds2d2_yolo.method.explicit import explicit_errors, explicit_terms
from ds2d2_yolo.method.implicit import (
    DensePredictions,
    RegionPredictions,
    Similarity,
    dense_differences,
    dense_implicit_terms,
    generalized_iou,
    kl_divergence,
    quality_focal_loss,
    region_differences,
    region_implicit_terms,
    similarity_loss,
)
from ds2d2_yolo.method.loss import TERMS, WEIGHTS, DS2D2Loss, Gains, HeadComparison, LossInputs, TappedMaps
from ds2d2_yolo.method.wavelet import (
    Bands,
    band_size,
    decompose,
    filter_length,
    high_frequency_map,
    high_frequency_maps,
)
from ds2d2_yolo.method.weight import density_independent_scale_weight, focus_weight, weight_and_divisor

__all__ = [
    "TERMS",
    "WEIGHTS",
    "Bands",
    "DS2D2Loss",
    "DensePredictions",
    "Gains",
    "HeadComparison",
    "LossInputs",
    "RegionPredictions",
    "Similarity",
    "TappedMaps",
    "band_size",
    "decompose",
    "dense_differences",
    "dense_implicit_terms",
    "density_independent_scale_weight",
    "explicit_errors",
    "explicit_terms",
    "filter_length",
    "focus_weight",
    "generalized_iou",
    "high_frequency_map",
    "high_frequency_maps",
    "kl_divergence",
    "quality_focal_loss",
    "region_differences",
    "region_implicit_terms",
    "similarity_loss",
    "weight_and_divisor",
]
