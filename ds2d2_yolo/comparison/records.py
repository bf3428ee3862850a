"""Records of finished runs, keyed by everything that shapes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from ultralytics import __version__ as ultralytics_version
from ultralytics.utils import DEFAULT_CFG_DICT

from ds2d2_yolo import __version__
from ds2d2_yolo.detectors import Detector
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.evaluation import figures_beside_boxes
from ds2d2_yolo.files import write_json
from ds2d2_yolo.loading.fingerprint import (
    effective_arguments,
    fingerprint_of_file,
    fingerprint_of_model,
)
from ds2d2_yolo.training.arguments import DEFAULTS
from ds2d2_yolo.training.results import read_rows
from ds2d2_yolo.training.stages import (
    architecture_of,
)

_MODELS = {"teacher", "amplifier", "distill_model", "teacher_epochs", "amplifier_epochs", "pretrained"}
_CHECKS = {"val", "val_kd", "safe"}


@dataclass(frozen=True)
class Results:
    """What a comparison found.

    Attributes:
        teacher (dict[str, Any]): Record of the teacher's evaluation.
        stages (dict[str, float | None]): Seconds that the teacher and every amplifier were trained for; None where a
            given file does not tell.
        runs (list[dict[str, Any]]): Record of every run, by seed, then by method.
    """

    teacher: dict[str, Any]
    stages: dict[str, float | None]
    runs: list[dict[str, Any]]


def shaping_arguments(args: Any) -> dict[str, Any]:
    """Return the arguments that shape a student, but for its models, which are fingerprinted themselves."""
    settings = {key: value for key, value in vars(args).items() if key not in _MODELS | _CHECKS}
    return effective_arguments(settings, DEFAULT_CFG_DICT | DEFAULTS)


def fingerprint_of_student(args: Any, student: Detector) -> Any:
    """Return what tells a student's start from another one's: its architecture, or its weights."""
    if str(args.model).endswith(".pt"):
        return fingerprint_of_model(student.model)
    start = args.pretrained
    if isinstance(start, (str, Path)):
        start = fingerprint_of_file(Path(start)) if Path(start).is_file() else str(start)
    return [architecture_of(args.model), start]


# -------------------------------------------------------------------------------------------------------- records


def read_record(path: Path, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the record of a finished run or evaluation with the same inputs, or None.

    Args:
        path (Path): Its file.
        inputs (Mapping[str, Any]): What shapes the result, as JSON values.

    Returns:
        (dict[str, Any] | None): The record; where COCO has no object to find, it has None.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return dict(record) if isinstance(record, dict) and record.get("inputs") == inputs else None


def _write_record(job: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    record = {
        **content,
        "inputs": job["inputs"],
        "date": datetime.now().astimezone().isoformat(),
        "versions": {"ds2d2_yolo": __version__, "ultralytics": ultralytics_version, "torch": torch.__version__},
    }
    write_json(Path(job["record"]), record, indent=1)


def read_curve(path: Path) -> list[dict[str, float]]:
    """Return what a training reached after every epoch, and how long that took, from its `results.csv`.

    Args:
        path (Path): The file. Of an epoch that was run again after an interruption it has two lines; the second counts.

    Returns:
        (list[dict[str, float]]): By epoch: `epoch` (from 1), `seconds` (since the start, validation included), `AP50`,
            `AP50-95`, and Ultralytics' mAP of masks or keypoints by its names, such as `metrics/mAP50(M)`.

    Raises:
        DS2D2Error: If the file is missing, damaged or holds no epochs.
    """
    rows = read_rows(path)
    try:
        epochs = {
            int(row["epoch"]): {
                "epoch": int(row["epoch"]),
                "seconds": row["time"],
                "AP50": row["metrics/mAP50(B)"],
                "AP50-95": row["metrics/mAP50-95(B)"],
                **figures_beside_boxes(row),
            }
            for row in rows
        }
    except (KeyError, ValueError) as error:
        raise DS2D2Error(f"{path}: cannot be read as the table of a training ({error!r})") from error
    if not epochs:
        raise DS2D2Error(f"{path}: has no epochs")
    return [epochs[number] for number in sorted(epochs)]


def training_seconds(weights: str | Path) -> float | None:
    """Return how long the training took that made a file, or None where no `results.csv` beside it tells."""
    path = Path(weights).resolve().parent.parent / "results.csv"
    try:
        return read_curve(path)[-1]["seconds"]
    except DS2D2Error:
        return None
