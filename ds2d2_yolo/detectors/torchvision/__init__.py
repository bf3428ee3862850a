"""RetinaNet and Faster R-CNN from torchvision, configured as in the reference (docs/guides/torchvision.md)."""

from ds2d2_yolo.detectors.torchvision.faster_rcnn import FasterRCNNDetector
from ds2d2_yolo.detectors.torchvision.retinanet import RetinaNetDetector

__all__ = ["FasterRCNNDetector", "RetinaNetDetector"]
