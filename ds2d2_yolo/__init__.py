"""DS2D2 for Ultralytics YOLO: dual-stream spectral decoupling distillation for small detectors on overhead imagery."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ds2d2_yolo.training import AmplifierTrainer, DS2D2Trainer

__all__ = ["AmplifierTrainer", "DS2D2Trainer", "__version__"]


def __getattr__(name: str) -> Any:
    # On first use: `ds2d2_yolo.method` must be usable without Ultralytics, and `ds2d2 help` at once.
    if name in {"AmplifierTrainer", "DS2D2Trainer"}:
        import ds2d2_yolo.training as engine

        return getattr(engine, name)
    raise AttributeError(f"module 'ds2d2_yolo' has no attribute '{name}'")
