"""DS2D2 for Ultralytics YOLO: dual-stream spectral decoupling distillation for small detectors on overhead imagery."""

__version__ = "0.1.0"
