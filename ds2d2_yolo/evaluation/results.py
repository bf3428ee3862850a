"""The result of an evaluation, and its files."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ds2d2_yolo.data.coco_truth import COCODetection, COCOTruth
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.evaluation.scores import Scores
from ds2d2_yolo.files import without_nan


@dataclass(frozen=True)
class Evaluation(Scores):
    """The result of an evaluation. The inherited numbers are means over the classes with objects.

    Attributes:
        images (int): Number of images, including those without objects.
        sizes (dict[str, int]): Number of `small`, `medium` and `large` objects.
        classes (dict[str, Scores]): Scores by class name, in the order of the data set.
        mAP50 (float): Ultralytics' own metric, for comparison.
        mAP50_95 (float): Ultralytics' own metric, for comparison.
        figures (dict[str, float]): Ultralytics' metrics of masks, `metrics/mAP50(M)` and `metrics/mAP50-95(M)`, or of
            keypoints, with `(P)`. Empty for other tasks.
        max_dets (int): Maximum number of detections per class and image.
        most (int): Maximum number of objects of one class in one image. Above `max_dets`, no detector reaches AP 1.
        refused (dict[str, str]): Images that Ultralytics skipped, and why.
        settings (dict[str, Any]): Model, data and the arguments that affect the numbers.
        folder (Path): Folder of `coco.json`, `coco.csv`, `ground_truth.json` and `predictions.json`.
    """

    images: int
    sizes: dict[str, int]
    classes: dict[str, Scores]
    mAP50: float
    mAP50_95: float
    figures: dict[str, float]
    max_dets: int
    most: int
    refused: dict[str, str]
    settings: dict[str, Any]
    folder: Path


def save_evaluation(evaluation: Evaluation, truth: COCOTruth, predictions: Iterable[COCODetection]) -> None:
    """Write the four files of an evaluation into its folder, the numbers last.

    Args:
        evaluation (Evaluation): The numbers, for `coco.json` and the table `coco.csv`.
        truth (COCOTruth): The ground truth, for `ground_truth.json`.
        predictions (Iterable[COCODetection]): The detections, for `predictions.json`.

    Raises:
        DS2D2Error: If they cannot be written.
    """
    numbers = {**asdict(evaluation), "folder": str(evaluation.folder)}
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    columns = [field.name for field in fields(Scores)]
    writer.writerow(["class", *columns])
    for name, scores in [("all", evaluation), *evaluation.classes.items()]:
        values = (getattr(scores, column) for column in columns)
        writer.writerow([name, *("" if math.isnan(value) else value for value in values)])
    contents: dict[str, Iterable[str]] = {
        "ground_truth.json": [json.dumps(truth)],
        "predictions.json": _list_in_json(predictions),
        "coco.csv": [table.getvalue()],
        "coco.json": [json.dumps(without_nan(numbers), indent=2, default=str) + "\n"],
    }
    try:
        for name, content in contents.items():
            with (evaluation.folder / name).open("w", encoding="utf-8") as file:
                file.writelines(content)
    except OSError as error:
        raise DS2D2Error(
            f"{evaluation.folder}: cannot save the results ({error.strerror or error}); make room, or pass another "
            "project="
        ) from error


def _list_in_json(items: Iterable[object]) -> Iterator[str]:
    """Yield the parts of a list in JSON, as its whole text may need much memory."""
    yield "["
    for number, item in enumerate(items):
        yield f"{', ' if number else ''}{json.dumps(item)}"
    yield "]"
