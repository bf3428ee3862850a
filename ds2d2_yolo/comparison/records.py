"""Records of finished runs and evaluations, one JSON file each. A record is found by its inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, cast

from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.evaluation import mask_and_keypoint_metrics
from ds2d2_yolo.training.results import read_rows

Epoch = Mapping[str, float]
"""The metrics of a training after an epoch, see `read_curve`."""

_BoxMetrics = TypedDict("_BoxMetrics", {"AP50": float, "AP50-95": float})


class EvaluationRecord(_BoxMetrics):
    """Results of an evaluation. Masks and keypoints add Ultralytics' mAP by its names, such as `metrics/mAP50(M)`.

    Attributes:
        coco (dict[str, float | None]): COCO's AP, AP50, AP75, APs, APm, APl; None if there are no such objects.
        classes (dict[str, dict[str, float | None]]): The same by class, with the number of `objects`.
        weights (str): Checkpoint that was evaluated.
        inputs (dict[str, object]): Everything that determines the result, as JSON values.
        date (str): Date and time at the end.
        versions (dict[str, str]): Of this package, Ultralytics and torch.
    """

    coco: dict[str, float | None]
    classes: dict[str, dict[str, float | None]]
    weights: str
    inputs: dict[str, object]
    date: str
    versions: dict[str, str]


class RunRecord(EvaluationRecord):
    """Results of a training, with the evaluation of its student.

    Attributes:
        method (str): Name of the method.
        seed (int): Seed.
        seconds (float): From the start of the training to the end of its last epoch, validations included.
        seconds_per_epoch (float): Mean over the epochs.
        peak_bytes (int | None): Peak memory of the training process; None if unknown.
        curve (list[Epoch]): Metrics after every epoch.
        continued_after (list[int]): Epochs after which the run was interrupted and continued.
        arguments (dict[str, object]): Train arguments.
    """

    method: str
    seed: int
    seconds: float
    seconds_per_epoch: float
    peak_bytes: int | None
    curve: list[Epoch]
    continued_after: list[int]
    arguments: dict[str, object]


@dataclass(frozen=True)
class Results:
    """Results of a comparison.

    Attributes:
        teacher (EvaluationRecord): Record of the teacher's evaluation.
        stages (dict[str, float | None]): Training time of the teacher and of every amplifier, in seconds; None if
            unknown for a given file.
        runs (list[RunRecord]): Record of every run, by seed, then by method.
    """

    teacher: EvaluationRecord
    stages: dict[str, float | None]
    runs: list[RunRecord]

    @property
    def methods(self) -> list[str]:
        """Names of the methods that have runs, in their order."""
        return list(dict.fromkeys(run["method"] for run in self.runs))

    def runs_of(self, method: str) -> list[RunRecord]:
        """Return the runs of a method, by seed."""
        return [run for run in self.runs if run["method"] == method]


def value_of(record: EvaluationRecord, metric: str) -> float:
    """Return a metric of a record: Ultralytics' if it has that name, else COCO's.

    Example:
        >>> value_of({"AP50": 0.5, "coco": {"AP50": 0.4, "APs": None}}, "APs")
        nan
    """
    values = cast(Mapping[str, float], record)  # some names exist only for masks or keypoints
    return values[metric] if metric in values else number(record["coco"][metric])


def number(value: float | None) -> float:
    """Return a number of a JSON file, which has None in place of NaN."""
    return math.nan if value is None else float(value)


def read_curve(path: Path) -> list[Epoch]:
    """Return the metrics and the time after every epoch, from a training's `results.csv`.

    Args:
        path (Path): The file. An epoch that was repeated after an interruption has two lines: the second counts.

    Returns:
        (list[Epoch]): By epoch: `epoch` (from 1), `seconds` (since the start, with validation), `AP50`, `AP50-95`.
            Masks and keypoints add Ultralytics' mAP by its names, such as `metrics/mAP50(M)`.

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
                **mask_and_keypoint_metrics(row),
            }
            for row in rows
        }
    except (KeyError, ValueError) as error:
        raise DS2D2Error(
            f"{path}: cannot be read as the table of a training ({error!r}); run the same command again"
        ) from error
    if not epochs:
        raise DS2D2Error(f"{path}: has no epochs; run the same command again")
    return [epochs[number] for number in sorted(epochs)]


def training_seconds(weights: str | Path) -> float | None:
    """Return the training time of a checkpoint in seconds, or None if there is no `results.csv` beside it."""
    path = Path(weights).resolve().parent.parent / "results.csv"
    try:
        return read_curve(path)[-1]["seconds"]
    except DS2D2Error:
        return None
