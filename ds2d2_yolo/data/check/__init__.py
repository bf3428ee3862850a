"""Checks a YOLO data set: contents and problems, as Ultralytics' loader treats them.

Nothing is written. Ultralytics' own scan would leave `.cache` files and replace JPEGs without an end marker.
`parse_labels` reads a label file like `ultralytics.data.utils.verify_image_label`. `inspect_dataset` reads all images
and labels of a data set.
"""

from ds2d2_yolo.data.check.dataset import inspect_dataset
from ds2d2_yolo.data.check.findings import KINDS, PLACES_KEPT, Finding, Kind, Place
from ds2d2_yolo.data.check.labels import Fault, Labels, parse_labels
from ds2d2_yolo.data.check.report import SIZE_BANDS, SIZE_EDGES, Inspection, SplitReport
from ds2d2_yolo.data.check.settings import UNLABELED_SPLIT, Settings, Split

__all__ = [
    "KINDS",
    "PLACES_KEPT",
    "SIZE_BANDS",
    "SIZE_EDGES",
    "UNLABELED_SPLIT",
    "Fault",
    "Finding",
    "Inspection",
    "Kind",
    "Labels",
    "Place",
    "Settings",
    "Split",
    "SplitReport",
    "inspect_dataset",
    "parse_labels",
]
