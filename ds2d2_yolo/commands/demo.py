"""`ds2d2 demo`: the whole method on rendered scenes, compared with a plain student."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ultralytics.utils.callbacks import get_default_callbacks

from ds2d2_yolo.commands.compare import make_comparison
from ds2d2_yolo.commands.report import run_report
from ds2d2_yolo.commands.words import parse_arguments
from ds2d2_yolo.comparison.plan import plan_comparison
from ds2d2_yolo.comparison.work import work
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.trainer import DS2D2Trainer

# About 14 minutes on two idle cores.
SETTINGS: dict[str, Any] = {
    "methods": "plain,ds2d2",
    "seeds": "0",
    "imgsz": 128,
    "batch": 16,
    "teacher_epochs": 12,
    "amplifier_epochs": 2,
    "epochs": 6,
    "optimizer": "AdamW",
    "lr0": 0.003,
    "nbs": 16,
    "warmup_epochs": 1,
    "warmup_bias_lr": 0.0,
    "mosaic": 0.0,  # it halves the objects, to a few pixels: too difficult for so few epochs
    "scale": 0.2,
    "plots": False,
}
_MODELS = {
    "detect": {"teacher": "yolo11s.yaml", "student": "yolo11n.yaml", "data": "scenes-demo.yaml"},
    "obb": {"teacher": "yolo11s-obb.yaml", "student": "yolo11n-obb.yaml", "data": "scenes-demo-obb.yaml"},
}
"""Models and data by task."""

WORKER = ("-m", "ds2d2_yolo.commands.demo")
"""Arguments of Python that start the process of a job."""


def run_demo(given: Mapping[str, Any]) -> None:
    """Train teacher, amplifier, plain and distilled student, and write a page about them: the mode `ds2d2 demo`.

    It is a comparison with special settings, in the folder `demo`. After an interruption the same call continues it.

    Args:
        given (Mapping[str, Any]): Arguments that replace those of the demo; `task` is `detect` or `obb`.

    Raises:
        DS2D2Error: If an argument is wrong, or a training fails.

    Example:
        >>> run_demo({"epochs": 3})  # doctest: +SKIP
    """
    planned = plan_comparison(comparison_of_demo(given))
    make_comparison(planned, WORKER)
    print("Next, on your own data:")
    print("  ds2d2 check data=path/to/data.yaml")
    print("  ds2d2 train teacher=yolo11l.pt student=yolo11n.pt data=path/to/data.yaml epochs=100 imgsz=640")
    run_report({"run": str(planned.folder), "exist_ok": True})


def comparison_of_demo(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of the demo's comparison. Arguments and errors are those of `run_demo`."""
    given = {("student" if name == "model" else name): value for name, value in given.items()}
    task = str(given.get("task", "detect"))
    if task not in _MODELS and not {"teacher", "student", "data"} <= given.keys():
        raise DS2D2Error(f"task={task}: the demo has models and data for {' and '.join(_MODELS)}; pass your own", 2)
    asked = {"name": "demo"} | SETTINGS | _MODELS.get(task, {}) | given
    if str(asked["teacher"]).endswith(".pt") and "teacher_epochs" not in given:
        del asked["teacher_epochs"]  # the demo's epochs are for its own teacher; a given checkpoint is not trained
    return asked


def run(words: Sequence[str]) -> None:
    """Run the command with the words after its name."""
    run_demo(parse_arguments(words))


def _use_every_core(trainer: Any) -> None:
    """Callback: Ultralytics keeps one core for data loading. On a CPU the training process itself loads the data."""
    if trainer.device.type == "cpu":
        torch.set_num_threads(os.cpu_count() or 1)


def _work() -> int:
    callbacks = get_default_callbacks()
    callbacks["on_train_start"].append(_use_every_core)
    return work(DS2D2Trainer, callbacks)


if __name__ == "__main__":  # the process of one job, see `WORKER`
    sys.exit(_work())
