"""The supported tasks: Ultralytics' trainer for each, and the choice of a trainer for a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ultralytics.models.rtdetr.train import RTDETRTrainer
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.models.yolo.pose import PoseTrainer
from ultralytics.models.yolo.segment import SegmentationTrainer
from ultralytics.nn.tasks import guess_model_task, torch_safe_load, yaml_model_load
from ultralytics.utils.files import get_latest_run

from ds2d2_yolo.detectors import RTDETRDetector, YOLODetector, detector_of
from ds2d2_yolo.resources import own_file

TRAINERS: dict[str, type[DetectionTrainer]] = {
    "detect": DetectionTrainer,
    "obb": OBBTrainer,
    "segment": SegmentationTrainer,
    "pose": PoseTrainer,
}
"""Ultralytics' trainers of the supported tasks."""

_COMBINED: dict[tuple[type[Any], type[Any]], type[Any]] = {}


def trainer_for(kind: type[Any], overrides: Mapping[str, Any]) -> type[Any]:
    """Return a trainer class for the model of a run. Its second base class is Ultralytics' trainer of the task.

    Args:
        kind (type): A trainer of this package, independent of the task.
        overrides (Mapping[str, Any]): Arguments of the run.

    Returns:
        (type): `kind` if it suffices. Otherwise a class derived from `kind` and from Ultralytics' trainer of the task
            or of RT-DETR.

    Example:
        >>> from ds2d2_yolo import DS2D2Trainer
        >>> [base.__name__ for base in trainer_for(DS2D2Trainer, {"student": "yolo11n-obb.yaml"}).__bases__]
        ['DS2D2Trainer', 'OBBTrainer']
    """
    task, family = _task_and_family(overrides)
    base = RTDETRTrainer if family == RTDETRDetector.family else TRAINERS.get(task, DetectionTrainer)
    if issubclass(kind, base):
        return kind
    if (kind, base) not in _COMBINED:
        # The new class has the name of `kind`, for messages and pickles.
        names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
        _COMBINED[kind, base] = type(kind.__name__, (kind, base), names)
    return _COMBINED[kind, base]


def task_of(overrides: Mapping[str, Any]) -> str:
    """Return the task of a run: the given one, or that of its model, from a YAML or a checkpoint.

    For a file that cannot be read it is `detect`. The checks of the run report the file.

    Args:
        overrides (Mapping[str, Any]): Arguments of the run.

    Returns:
        (str): Ultralytics' name of the task.

    Example:
        >>> task_of({"model": "yolo26n-pose.yaml"}), task_of({"model": "missing.yaml"})
        ('pose', 'detect')
    """
    return _task_and_family(overrides)[0]


def _task_and_family(overrides: Mapping[str, Any]) -> tuple[str, str]:
    """Return the task of a run, as `task_of`, and the name of its model's family if the trainer depends on it."""
    given = overrides.get("task") or "detect"
    if given != "detect":  # Ultralytics' default
        return str(given), ""
    path = overrides.get("resume") or next(filter(None, map(overrides.get, ("student", "model", "teacher"))), None)
    try:
        name = str(get_latest_run() if path is True else path)
        if overrides.get("resume") and not Path(name).is_file():
            return "detect", ""  # Ultralytics would look for it in the network
        if Path(name).suffix in {".yaml", ".yml"}:
            config = yaml_model_load(own_file(name, "cfg", "models"))
            if not YOLODetector.builds(config):
                return "detect", ""  # without layers, Ultralytics cannot tell the task and warns
            return str(guess_model_task(config)), RTDETRDetector.family if RTDETRDetector.builds(config) else ""
        content, _ = torch_safe_load(name, safe_only=bool(overrides.get("safe")))
        detector = detector_of(content.get("ema") or content["model"])
        return detector.task, detector.family
    except Exception:  # missing, damaged, refused and unsupported files raise many types
        return "detect", ""
