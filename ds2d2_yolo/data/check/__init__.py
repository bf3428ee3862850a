"""What a YOLO data set holds and what is wrong with it, as Ultralytics' loader would see it.

Nothing is written: labels are read here rather than by Ultralytics' scan, which leaves `.cache` files and replaces
JPEGs that lack their end marker. `parse_labels` reads a label file as `ultralytics.data.utils.verify_image_label` does;
`inspect_dataset` goes through all images and labels of a data set.
"""

from ds2d2_yolo.data.check.dataset import inspect_dataset
from ds2d2_yolo.data.check.findings import KINDS, PLACES_KEPT, Finding, Kind, Place
from ds2d2_yolo.data.check.labels import Fault, Labels, parse_labels
from ds2d2_yolo.data.check.report import SIZE_BANDS, SIZE_EDGES, Inspection, SplitReport
from ds2d2_yolo.data.check.settings import Settings, Split

__all__ = [
    "KINDS",
    "PLACES_KEPT",
    "SIZE_BANDS",
    "SIZE_EDGES",
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
