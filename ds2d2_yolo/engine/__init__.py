"""The three stages as Ultralytics trainers, and the pipeline that chains and reuses them."""

from ds2d2_yolo.engine.amplifier import AmplifierTrainer
from ds2d2_yolo.engine.student import DS2D2Trainer

__all__ = ["AmplifierTrainer", "DS2D2Trainer"]
