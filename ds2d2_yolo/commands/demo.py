"""`ds2d2 demo`: the whole method on the embedded data set, compared with a student trained without it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ultralytics import YOLO
from ultralytics.utils import LOGGER, colorstr
from ultralytics.utils.callbacks import get_default_callbacks

from ds2d2_yolo.commands.words import parse_arguments
from ds2d2_yolo.evaluation import validate
from ds2d2_yolo.explanation.images import read_image
from ds2d2_yolo.explanation.outcomes import predict
from ds2d2_yolo.loading.fingerprint import images_of_split
from ds2d2_yolo.report.detections import draw_table
from ds2d2_yolo.tables import text_table
from ds2d2_yolo.trainer import DS2D2Trainer
from ds2d2_yolo.training.arguments import DEFAULTS
from ds2d2_yolo.training.pipeline import plan
from ds2d2_yolo.training.trainer import PlainTrainer

# Chosen so that all four trainings take a quarter of an hour on two cores.
SETTINGS: dict[str, Any] = {
    "teacher": "yolo11s.yaml",
    "student": "yolo11n.yaml",
    "data": "scenes-close.yaml",
    "imgsz": 160,
    "batch": 8,
    "teacher_epochs": 10,
    "amplifier_epochs": 4,
    "epochs": 12,
    "optimizer": "AdamW",
    "lr0": 0.003,
    "nbs": 8,
    "warmup_epochs": 1,
    "warmup_bias_lr": 0.0,
    "mosaic": 0.0,  # it halves the objects, which at this size are a few pixels wide: too hard for so few epochs
    "scale": 0.2,
    "plots": False,
}
_PICTURES = 6


def run_demo(overrides: Mapping[str, Any]) -> Path:
    """Train teacher, amplifier, distilled and plain student; print a table and save pictures.

    Args:
        overrides (Mapping[str, Any]): Arguments that replace those of the demo.

    Returns:
        (Path): Folder of the pictures.

    Raises:
        DS2D2Error: If an argument is wrong.

    Example:
        >>> run_demo({"epochs": 3})  # doctest: +SKIP
    """
    asked = SETTINGS | dict(overrides)
    if str(asked["teacher"]).endswith(".pt") and "teacher_epochs" not in overrides:
        del asked["teacher_epochs"]  # the demo's are for its own teacher; a finished one is not trained further
    if "model" in asked:
        asked["student"] = asked.pop("model")
    planned = plan(asked | {"name": asked.get("name") or "demo"})
    args, folder = planned.arguments, planned.arguments.run_folder
    start = time.time()
    callbacks = get_default_callbacks()
    callbacks["on_train_start"].append(_use_every_core)
    done = planned.run(callbacks).completed
    # Beside each other in one project, where the next demo finds the finished stages
    shared = {key: value for key, value in asked.items() if key != "student"}
    shared |= {"project": str(folder.parent), "exist_ok": True, "model": args.model, "data": args.data}
    distilled = DS2D2Trainer(overrides=shared | done | {"name": f"{folder.name}-ds2d2"}, _callbacks=callbacks)
    distilled.train()
    distilling = DEFAULTS.keys() - {"lr_steps"}  # a schedule is the plain student's, too
    shared = {key: value for key, value in shared.items() if key not in distilling}
    plain = PlainTrainer(overrides=shared | {"name": f"{folder.name}-plain"}, _callbacks=callbacks)
    plain.train()

    weights = {"teacher": distilled.args.teacher, "plain student": plain.best, "DS2D2 student": distilled.best}
    models = {title: YOLO(path) for title, path in weights.items()}
    for line in ["", *_table(models, {title: validate(path, args.data, args) for title, path in weights.items()})]:
        LOGGER.info(line)
    LOGGER.info(f"One seed and a short schedule: differences below about 0.02 mean nothing. {_minutes(start)}")
    folder.mkdir(parents=True, exist_ok=True)
    picture = _draw(folder / "detections.png", models, planned.data, args.imgsz)
    LOGGER.info(f"Side-by-side detections saved as {colorstr('bold', picture)}")
    return folder


def _table(models: Mapping[str, YOLO], metrics: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the lines of the table: size and AP of every model."""
    rows = [["", "parameters", "AP50", "AP50-95"]]
    for title, values in metrics.items():
        model = models[title].model
        assert isinstance(model, torch.nn.Module)
        count = sum(parameter.numel() for parameter in model.parameters())
        figures = (values[f"metrics/{name}(B)"] for name in ("mAP50", "mAP50-95"))
        rows.append([title, f"{count:,}", *(f"{value:.3f}" for value in figures)])
    return text_table(rows)


def _draw(path: Path, models: Mapping[str, YOLO], data: Mapping[str, Any], imgsz: int) -> Path:
    """Draw what every model finds in a few images of the validation set; return the picture."""
    images = images_of_split(data["val"])
    chosen = images[:: max(len(images) // _PICTURES, 1)][:_PICTURES]
    names = [str(name) for _, name in sorted(data["names"].items())]
    # Models that were trained so briefly are sure of nothing yet
    found = {
        title: [predict(model, image, imgsz, confidence=0.1) for image in chosen] for title, model in models.items()
    }
    return draw_table(path, [read_image(image, len(names), True) for image in chosen], found, names)


def _use_every_core(trainer: Any) -> None:
    """Callback: Ultralytics leaves one core to data loading, which on a CPU happens in the training process itself."""
    if trainer.device.type == "cpu":
        torch.set_num_threads(os.cpu_count() or 1)


def _minutes(start: float) -> str:
    return f"{(time.time() - start) / 60:.0f} minutes."


def run(arguments: Sequence[str]) -> None:
    """Run the command with the words after its name."""
    run_demo(parse_arguments(arguments))
