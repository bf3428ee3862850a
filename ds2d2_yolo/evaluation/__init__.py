"""Evaluation of models on data: AP by COCO's definition, Ultralytics' own metrics, agreement of two models.

All results are numbers. Independent of training, pictures and pages.
"""

from ds2d2_yolo.evaluation.agreement import AGREEMENT, Agreement
from ds2d2_yolo.evaluation.average_precision import evaluate
from ds2d2_yolo.evaluation.results import Evaluation
from ds2d2_yolo.evaluation.scores import AP_COLUMNS
from ds2d2_yolo.evaluation.validation import mask_and_keypoint_metrics, validate

__all__ = [
    "AGREEMENT",
    "AP_COLUMNS",
    "Agreement",
    "Evaluation",
    "evaluate",
    "mask_and_keypoint_metrics",
    "validate",
]
