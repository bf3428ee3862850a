"""COCO's average precision from ground truth and detections, by faster-coco-eval."""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from ultralytics.utils.metrics import batch_probiou

from ds2d2_yolo.data.coco_truth import COCOAnnotation, COCODetection, COCOTruth
from ds2d2_yolo.errors import DS2D2Error

AP_COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
"""AP over IoU 0.50 to 0.95, at 0.50, at 0.75, and for small, medium and large objects."""

Shape = Literal["bbox", "rbox"]
"""Key of the boxes that are compared."""

_SIZES: dict[Shape, int] = {"bbox": 4, "rbox": 5}  # numbers of a box


@dataclass(frozen=True)
class Scores:
    """Average precision (AP) by COCO's definition, from 0 to 1. NaN if there are no objects.

    Attributes:
        objects (int): Number of objects.
        AP (float): Mean AP over the IoU thresholds 0.50, 0.55, ... 0.95.
        AP50 (float): AP at IoU 0.50.
        AP75 (float): AP at IoU 0.75.
        APs (float): AP of objects up to 32 x 32 pixels in the original image.
        APm (float): AP of objects between 32 x 32 and 96 x 96 pixels.
        APl (float): AP of objects from 96 x 96 pixels.
    """

    objects: int
    AP: float
    AP50: float
    AP75: float
    APs: float
    APm: float
    APl: float


def coco_scores(
    truth: COCOTruth, predictions: Iterable[COCODetection], task: str = "detect", max_dets: int = 100
) -> tuple[Scores, dict[str, Scores]]:
    """Compute COCO's average precision with faster-coco-eval.

    Args:
        truth (COCOTruth): COCO data set. For `obb`, its annotations have an `rbox`, as written by `coco_truth`.
        predictions (Iterable[COCODetection]): COCO detections: `image_id`, `category_id`, `bbox` (x, y, width,
            height in pixels), `score`. For `obb` also `rbox` (cx, cy, width, height in pixels, angle in radians). Then
            `rbox` gives IoU and size, with Ultralytics' `batch_probiou`.
        task (str): `detect`, `obb`, `segment` or `pose`.
        max_dets (int): Maximum number of detections per class and image.

    Returns:
        total (Scores): Means over the classes with objects.
        classes (dict[str, Scores]): Scores by class name, in the order of the category ids.

    Raises:
        DS2D2Error: If `max_dets` is not a whole number of at least 1, or the image of a detection is not in `truth`.

    Example:
        >>> box = {"image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20]}
        >>> truth = {
        ...     "images": [{"id": 1, "width": 64, "height": 64}],
        ...     "categories": [{"id": 1, "name": "ship"}],
        ...     "annotations": [{**box, "id": 1, "area": 400, "iscrowd": 0}],
        ... }
        >>> total, classes = coco_scores(truth, [{**box, "score": 0.9}])
        >>> round(total.AP, 6), round(classes["ship"].APs, 6), total.APl
        (1.0, 1.0, nan)
    """
    check_max_dets(max_dets)
    shape: Shape = "rbox" if task == "obb" else "bbox"
    found = _columns_by_class(truth, predictions, shape)
    objects: dict[int, list[COCOAnnotation]] = defaultdict(list)
    for item in truth["annotations"]:
        objects[item["category_id"]].append(item)
    names = {category["id"]: category["name"] for category in truth["categories"]}
    parts, classes = [], {}
    for number in sorted(names):  # one class at a time: the library needs a kilobyte per detection
        part: COCOTruth = {**truth, "annotations": objects[number]}
        part["categories"] = [category for category in truth["categories"] if category["id"] == number]
        precision = _precision(part, found[number].records(number, shape), shape, max_dets)
        count = sum(not item.get("iscrowd") for item in objects[number])
        parts.append(precision)
        classes[names[number]] = _scores_of(precision, count)
    return _scores_of(np.concatenate(parts, axis=2), sum(scores.objects for scores in classes.values())), classes


class _Columns:
    """Detections of one class without the overhead of Python's objects."""

    def __init__(self) -> None:
        self._images: list[Any] = []
        self._numbers = array("d")  # score and box, one detection after the other

    def add(self, image: Any, score: float, box: Sequence[float]) -> None:
        self._images.append(image)
        self._numbers.append(score)
        self._numbers.extend(box)

    def records(self, category: int, shape: Shape) -> list[dict[str, Any]]:
        """Return the detections as annotations in COCO's format."""
        rows = np.array(self._numbers).reshape(len(self._images), 1 + _SIZES[shape]).tolist()
        return [
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "score": score,
                shape: box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for number, (image, (score, *box)) in enumerate(zip(self._images, rows, strict=True), start=1)
        ]


def _columns_by_class(
    truth: COCOTruth, predictions: Iterable[COCODetection], shape: Shape
) -> defaultdict[int, _Columns]:
    """Return the detections by class, after a check that all their images are in the ground truth."""
    images = {image["id"] for image in truth["images"]}
    found: defaultdict[int, _Columns] = defaultdict(_Columns)
    stray = set()
    for item in predictions:
        if item["image_id"] not in images:
            stray.add(item["image_id"])
        found[item["category_id"]].add(item["image_id"], item["score"], item[shape])
    if stray:
        raise DS2D2Error(
            f"predictions: image_id {min(stray, key=str)} is not in the ground truth; take both from the same split"
        )
    return found


def _precision(truth: COCOTruth, found: list[dict[str, Any]], shape: Shape, max_dets: int) -> np.ndarray:
    """Return COCO's precision (IoU thresholds, recalls, classes, sizes)."""
    # Copies, as the library changes the annotations
    reference = COCO({**truth, "annotations": [dict(item) for item in truth["annotations"]]})
    results = COCO({"images": truth["images"], "categories": truth["categories"], "annotations": found})
    evaluator = (_OrientedEvaluator if shape == "rbox" else COCOeval_faster)(reference, results, "bbox")
    evaluator.params.maxDets = [max_dets]
    evaluator.evaluate()
    evaluator.accumulate()
    precision: np.ndarray = evaluator.eval["precision"][..., 0]
    return precision


def check_max_dets(max_dets: int) -> None:
    """Refuse an invalid `max_dets`.

    Raises:
        DS2D2Error: If it is not a whole number of at least 1.
    """
    if type(max_dets) is not int or max_dets < 1:
        raise DS2D2Error(f"max_dets={max_dets}: expected a whole number of at least 1", 2)


class _OrientedEvaluator(COCOeval_faster):
    """COCO's evaluation with the IoU of oriented boxes."""

    def computeIoU(self, imgId: int, catId: int) -> np.ndarray | list[float]:
        truths, found = (
            dataset.get_instances([imgId], [catId], True)[0][0] for dataset in (self.gt_dataset, self.dt_dataset)
        )
        if not truths or not found:
            return []
        order = np.argsort([-item["score"] for item in found], kind="mergesort")[: self.params.maxDets[-1]]
        # float64, as the covariances of long, thin boxes nearly cancel
        rows, columns = np.array([found[i]["rbox"] for i in order]), np.array([item["rbox"] for item in truths])
        return batch_probiou(rows.astype(np.float64), columns.astype(np.float64)).numpy()


def _scores_of(precision: np.ndarray, objects: int) -> Scores:
    """Average COCO's precision (IoU thresholds, recalls, classes, sizes). Entries without objects are -1."""

    def mean(values: np.ndarray) -> float:
        values = values[values > -1]
        return float(values.mean()) if values.size else math.nan

    everything = precision[..., 0]
    whole = [mean(everything), mean(everything[0]), mean(everything[5])]  # thresholds 0.50, 0.55, ... 0.95
    return Scores(objects, *whole, *(mean(precision[..., size]) for size in (1, 2, 3)))
