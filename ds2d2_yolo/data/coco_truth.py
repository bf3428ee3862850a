"""Converts the ground truth of a data set in YOLO's format to COCO annotations and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any, TypedDict

import numpy as np
from ultralytics.data.dataset import YOLODataset
from ultralytics.utils.ops import xyxyxyxy2xywhr

from ds2d2_yolo.data.check.findings import shown_path
from ds2d2_yolo.data.labels import usable_labels
from ds2d2_yolo.errors import DS2D2Error


class COCOImage(TypedDict):
    """An image of a COCO data set."""

    id: int
    file_name: str
    width: int
    height: int


class COCOCategory(TypedDict):
    """A class of a COCO data set."""

    id: int
    name: str


class _Shape(TypedDict):
    bbox: list[float]  # x, y, width, height in pixels
    area: float


class _OrientedShape(_Shape, total=False):
    rbox: list[float]  # centre x, centre y, width, height in pixels, angle in radians
    segmentation: list[list[float]]


class COCOAnnotation(_OrientedShape):
    """An object of a COCO data set."""

    id: int
    image_id: int
    category_id: int
    iscrowd: int


class COCOTruth(TypedDict):
    """A COCO data set."""

    info: dict[str, str]
    images: list[COCOImage]
    annotations: list[COCOAnnotation]
    categories: list[COCOCategory]


class _Detection(TypedDict):
    image_id: int
    category_id: int
    bbox: list[float]  # x, y, width, height in pixels
    score: float


class COCODetection(_Detection, total=False):
    """A detection in COCO's format, with Ultralytics' additions."""

    file_name: str
    rbox: list[float]  # centre x, centre y, width, height in pixels, angle in radians
    poly: list[float]  # x1, y1, ... x4, y4 in pixels


def coco_truth(
    labels: Sequence[Mapping[str, Any]],
    names: Mapping[int, str],
    task: str = "detect",
    root: Path | str | None = None,
) -> COCOTruth:
    """Convert labels, as read by Ultralytics, to a COCO data set.

    Coordinates are pixels of the original image. Images and objects are numbered from 1 in the given order. Classes are
    also numbered from 1: `category_id` is the class index plus 1. YOLO labels have no crowds: `iscrowd` is always 0.

    `bbox` is clipped to the image, as in Ultralytics' predictions. For `segment` it is the box around the outline.
    Outlines and keypoints are not converted. For `obb`:

    - `rbox` is the smallest rectangle around the corners, as fitted by Ultralytics: cx, cy, w, h, angle in radians.
    - `area` is w * h of `rbox`, `segmentation` has the labelled corners, and `bbox` is their hull.

    Args:
        labels (Sequence[Mapping[str, Any]]): The `labels` of an Ultralytics data set. Each has `im_file`, `shape`
            (height and width in pixels) and `cls` (N, 1) float32. `bboxes` are (N, 4) float32: normalised centre, width
            and height. `segments` are N polygons (P, 2) float32, normalised, or empty.
        names (Mapping[int, str]): Class names by index.
        task (str): `detect`, `obb`, `segment` or `pose`.
        root (Path | str | None): File names are relative to this folder; names outside of it are absolute.

    Returns:
        (COCOTruth): `info`, `images`, `annotations` and `categories`, ready for `json.dumps`.

    Raises:
        DS2D2Error: If the labels do not fit the task; see `check_labels`.

    Example:
        >>> box = np.array([[0.5, 0.5, 0.25, 0.5]], np.float32)
        >>> label = {"im_file": "a.png", "shape": (100, 200), "cls": np.zeros((1, 1)), "bboxes": box, "segments": []}
        >>> truth = coco_truth([label], {0: "ship"})
        >>> truth["annotations"][0]["bbox"], truth["annotations"][0]["area"]
        ([75.0, 25.0, 50.0, 50.0], 2500.0)
    """
    check_labels(labels, task)
    images: list[COCOImage] = []
    annotations: list[COCOAnnotation] = []
    for number, label in enumerate(labels, start=1):
        height, width = (int(side) for side in label["shape"])
        size = np.array([width, height], np.float64)
        images.append(
            {"id": number, "file_name": shown_path(Path(label["im_file"]), root), "width": width, "height": height},
        )
        shapes = _oriented(label["segments"], size) if task == "obb" else _horizontal(label["bboxes"], size)
        for index, shape in zip(label["cls"].reshape(-1).tolist(), shapes, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(index) + 1,
                    **shape,
                    "iscrowd": 0,
                }
            )
    return {
        "info": {"description": f"written by ds2d2 from YOLO labels, task {task}"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": index + 1, "name": str(names[index])} for index in sorted(names)],
    }


def read_truth(data: Mapping[str, Any], split: str = "val", task: str = "detect") -> COCOTruth:
    """Read the labels of one split as Ultralytics does before a validation, and return them as a COCO data set.

    This means:

    - Duplicates are removed. Polygons become boxes, except for `obb`.
    - Images have the size after their EXIF rotation. Images without a label file have no objects.
    - Images that Ultralytics refuses are missing; `refused_images` lists them.
    - Ultralytics writes its cache beside the labels.

    Args:
        data (Mapping[str, Any]): A data set as Ultralytics' `check_det_dataset` describes it.
        split (str): `train`, `val` or `test`.
        task (str): `detect`, `obb`, `segment` or `pose`.

    Returns:
        (COCOTruth): See `coco_truth`. Images are in the order of their paths, with names relative to the data set.

    Raises:
        DS2D2Error: If the split is missing or has no readable image, or its labels do not fit the task.

    Example:
        >>> from ultralytics.data.utils import check_det_dataset
        >>> truth = read_truth(check_det_dataset("dota8.yaml"), task="obb")  # doctest: +SKIP
    """
    if not data.get(split):
        raise DS2D2Error(f"split={split}: the data YAML has no line '{split}:'; add it, or pass split=val")
    with label_errors(split):
        labels = YOLODataset(img_path=data[split], data=dict(data), task=task, augment=False).labels
    return coco_truth(labels, data["names"], task, data.get("path"))


def check_labels(labels: Sequence[Mapping[str, Any]], task: str) -> None:
    """Refuse labels without corners or outlines if the task needs them: not all releases of Ultralytics do this.

    Args:
        labels (Sequence[Mapping[str, Any]]): The `labels` of an Ultralytics data set.
        task (str): `detect`, `obb`, `segment` or `pose`.

    Raises:
        DS2D2Error: If the task is `obb` or `segment` and an image has boxes.
    """
    needed = {"obb": "the corners", "segment": "the outline"}.get(task)
    for label in labels if needed else ():
        if len(label["segments"]) != len(label["cls"]):
            raise DS2D2Error(
                f"{label['im_file']}: its label file holds boxes, task={task} needs {needed} of each object; "
                "label them, or pass a model for task=detect"
            )


@contextmanager
def label_errors(split: str) -> Iterator[None]:
    """Turn an error of Ultralytics while it reads the labels of a split into one line.

    Args:
        split (str): Name of the split, for the message.

    Raises:
        DS2D2Error: If Ultralytics raises an error about missing images or unsuitable labels.
    """
    try:
        yield
    except (FileNotFoundError, RuntimeError, ValueError) as error:
        raise DS2D2Error(f"split={split}: {shorten(str(error), 300, placeholder=' ...')}") from error


def refused_images(
    images: Iterable[Path | str], data: Mapping[str, Any], single_cls: bool = False, task: str = "detect"
) -> dict[str, str]:
    """Return the images that Ultralytics leaves out because they or their labels are damaged.

    Args:
        images (Iterable[Path | str]): Image files.
        data (Mapping[str, Any]): A data set as Ultralytics' `check_det_dataset` describes it.
        single_cls (bool): Whether all objects count as one class.
        task (str): Task of the labels; those of `pose` have keypoints.

    Returns:
        (dict[str, str]): Ultralytics' reason by image file.
    """
    refused = {}
    for image in map(str, images):
        labels = usable_labels(image, data, task, single_cls)
        if isinstance(labels, str):
            refused[image] = labels.removeprefix(f"{image}: ignoring corrupt image/label: ")
    return refused


def yolo_lines(truth: COCOTruth, task: str = "detect") -> dict[str, list[str]]:
    """Return the YOLO labels of a COCO data set from `coco_truth`.

    Args:
        truth (COCOTruth): The data set, from `coco_truth` or its JSON file.
        task (str): `detect` writes boxes, `obb` corners.

    Returns:
        (dict[str, list[str]]): The lines of every label file, by `file_name` of the image. Coordinates have nine
            digits, the precision of float32.

    Example:
        >>> box = np.array([[0.5, 0.5, 0.25, 0.5]], np.float32)
        >>> label = {"im_file": "a.png", "shape": (100, 200), "cls": np.zeros((1, 1)), "bboxes": box, "segments": []}
        >>> yolo_lines(coco_truth([label], {0: "ship"}))
        {'a.png': ['0 0.5 0.5 0.25 0.5']}
    """
    images = {image["id"]: image for image in truth["images"]}
    lines: dict[str, list[str]] = {image["file_name"]: [] for image in truth["images"]}
    for annotation in truth["annotations"]:
        image = images[annotation["image_id"]]
        size = np.array([image["width"], image["height"]], np.float64)
        if task == "obb":
            values = np.reshape(annotation["segmentation"][0], (-1, 2)) / size
        else:
            corner, extent = np.reshape(annotation["bbox"], (2, 2)) / size
            values = np.array([corner + extent / 2, extent])
        numbers = [f"{value:.9g}" for value in values.reshape(-1).tolist()]
        lines[image["file_name"]].append(" ".join([str(annotation["category_id"] - 1), *numbers]))
    return lines


def _horizontal(boxes: np.ndarray, size: np.ndarray) -> list[_OrientedShape]:
    """Return the geometry of boxes (N, 4), clipped to the image."""
    centre, half = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64) / 2
    first, last = (np.clip(corner * size, 0, size) for corner in (centre - half, centre + half))
    extent = last - first
    pixels, areas = np.hstack([first, extent]).tolist(), extent.prod(axis=1).tolist()
    return [{"bbox": box, "area": area} for box, area in zip(pixels, areas, strict=True)]


def _oriented(polygons: Sequence[np.ndarray], size: np.ndarray) -> list[_OrientedShape]:
    """Return the geometry of the rectangles around polygons (P, 2)."""
    shapes: list[_OrientedShape] = []
    for polygon in polygons:
        points = polygon.astype(np.float64) * size
        rbox = xyxyxyxy2xywhr(points.astype(np.float32).reshape(1, -1))[0].tolist()
        first = points.min(axis=0)
        bbox = [*first.tolist(), *(points.max(axis=0) - first).tolist()]
        shapes.append(
            {"bbox": bbox, "rbox": rbox, "area": rbox[2] * rbox[3], "segmentation": [points.reshape(-1).tolist()]}
        )
    return shapes
