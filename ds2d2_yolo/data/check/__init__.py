"""Checks a YOLO data set: contents and problems, as Ultralytics' loader treats them.

Nothing is written. Ultralytics' own scan would leave `.cache` files and replace JPEGs without an end marker.
`inspect_dataset` reads all images and labels of a data set, label files like
`ultralytics.data.utils.verify_image_label`.
"""

from ds2d2_yolo.data.check.dataset import inspect_dataset
from ds2d2_yolo.data.check.findings import KINDS, Finding
from ds2d2_yolo.data.check.report import SIZE_BANDS, SIZE_EDGES, Inspection, SplitReport
from ds2d2_yolo.data.check.settings import UNLABELED_SPLIT, Settings, Split

__all__ = [
    "KINDS",
    "SIZE_BANDS",
    "SIZE_EDGES",
    "UNLABELED_SPLIT",
    "Finding",
    "Inspection",
    "Settings",
    "Split",
    "SplitReport",
    "inspect_dataset",
]
