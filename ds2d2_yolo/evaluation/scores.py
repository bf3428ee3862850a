"""COCO's average precision from ground truth and detections, by faster-coco-eval."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from ultralytics.utils.metrics import batch_probiou

from ds2d2_yolo.data.coco_truth import COCODetection, COCOTruth
from ds2d2_yolo.errors import DS2D2Error

AP_COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
"""AP over IoU 0.50 to 0.95, at 0.50, at 0.75, and for small, medium and large objects."""


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
    truth: COCOTruth, predictions: Sequence[COCODetection], task: str = "detect", max_dets: int = 100
) -> tuple[Scores, dict[str, Scores]]:
    """Compute COCO's average precision with faster-coco-eval.

    Args:
        truth (COCOTruth): COCO data set. For `obb`, its annotations have an `rbox`, as written by `coco_truth`.
        predictions (Sequence[COCODetection]): COCO detections: `image_id`, `category_id`, `bbox` (x, y, width,
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
    images = {image["id"] for image in truth["images"]}
    if stray := {item["image_id"] for item in predictions} - images:
        raise DS2D2Error(
            f"predictions: image_id {min(stray, key=str)} is not in the ground truth; take both from the same split"
        )
    # Copies, as the library changes the annotations
    reference = COCO({**truth, "annotations": [dict(item) for item in truth["annotations"]]})
    shape: Literal["rbox", "bbox"] = "rbox" if task == "obb" else "bbox"
    found = [
        {
            "id": number,
            "image_id": item["image_id"],
            "category_id": item["category_id"],
            "score": item["score"],
            shape: item[shape],
            "area": item[shape][2] * item[shape][3],
            "iscrowd": 0,
        }
        for number, item in enumerate(predictions, start=1)
    ]
    results = COCO({"images": truth["images"], "categories": truth["categories"], "annotations": found})
    evaluator = (_OrientedEvaluator if task == "obb" else COCOeval_faster)(reference, results, "bbox")
    evaluator.params.maxDets = [max_dets]
    evaluator.evaluate()
    evaluator.accumulate()
    precision = evaluator.eval["precision"][..., 0]  # IoU thresholds, recalls, classes, sizes
    counts = Counter(item["category_id"] for item in truth["annotations"] if not item.get("iscrowd"))
    names = {category["id"]: category["name"] for category in truth["categories"]}
    classes = {
        names[number]: _scores_of(precision[:, :, index : index + 1], counts[number])
        for index, number in enumerate(evaluator.params.catIds)
    }
    return _scores_of(precision, counts.total()), classes


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
