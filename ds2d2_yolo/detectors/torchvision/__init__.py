"""RetinaNet and Faster R-CNN: parts of torchvision, put together and set as the reference's (docs/torchvision.md)."""

from ds2d2_yolo.detectors.torchvision.faster_rcnn import FasterRCNNDetector
from ds2d2_yolo.detectors.torchvision.retinanet import RetinaNetDetector

__all__ = ["FasterRCNNDetector", "RetinaNetDetector"]
