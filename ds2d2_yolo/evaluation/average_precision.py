"""AP by COCO's definition, by size and by class, of a detector on any YOLO-format data set."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from textwrap import shorten
from typing import Any

import faster_coco_eval
import numpy as np
import torch
import ultralytics
from faster_coco_eval import COCO, COCOeval_faster
from ultralytics import RTDETR, YOLO
from ultralytics.cfg import get_cfg
from ultralytics.engine.model import Model
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.utils import DEFAULT_CFG, TQDM
from ultralytics.utils.checks import check_imgsz
from ultralytics.utils.metrics import batch_probiou
from ultralytics.utils.ops import process_mask, xywhr2xyxyxyxy

from ds2d2_yolo.data.coco_truth import check_labels, coco_truth, label_errors, refused_images
from ds2d2_yolo.detectors import TASKS
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.files import without_nan
from ds2d2_yolo.loading.data import check_keypoint_shape, load_data
from ds2d2_yolo.loading.fingerprint import images_of_split
from ds2d2_yolo.loading.models import check_keypoints
from ds2d2_yolo.loading.place import check_place

AP_COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
"""What is measured: AP over IoU 0.50 to 0.95, at 0.50, at 0.75, and of small, medium and large objects."""

# Arguments of Ultralytics that change the numbers; they are saved beside them.
_SETTINGS = ("split", "imgsz", "batch", "rect", "conf", "iou", "max_det", "single_cls", "classes", "augment")

_SIZES = {"small": 32.0**2, "medium": 96.0**2, "large": math.inf}  # upper bounds of COCO's, square pixels


@dataclass(frozen=True)
class Scores:
    """Average precision by COCO's definition, as a share of 1; NaN where there is no object to find.

    Attributes:
        objects (int): How many there are to be found.
        AP (float): Mean over the IoU thresholds 0.50, 0.55, ... 0.95.
        AP50 (float): At IoU 0.50.
        AP75 (float): At IoU 0.75.
        APs (float): AP of objects of up to 32 x 32 pixels of the original image.
        APm (float): AP of those between 32 x 32 and 96 x 96.
        APl (float): AP of those from 96 x 96.
    """

    objects: int
    AP: float
    AP50: float
    AP75: float
    APs: float
    APm: float
    APl: float


@dataclass(frozen=True)
class Evaluation(Scores):
    """What an evaluation found; the inherited numbers are means over the classes that occur.

    Attributes:
        images (int): How many were looked at, those without objects included.
        sizes (dict[str, int]): Objects that are `small`, `medium` and `large`.
        classes (dict[str, Scores]): By class name, in the order of the data set.
        mAP50 (float): Ultralytics' own figure, for comparison.
        mAP50_95 (float): Ultralytics' own figure, for comparison.
        figures (dict[str, float]): Ultralytics' figures of masks or keypoints by its names, `metrics/mAP50(M)` and
            `metrics/mAP50-95(M)` or `(P)`; empty for tasks without.
        max_dets (int): Detections per class and image that counted.
        most (int): Objects in the image and class that have the most; above `max_dets` no detector reaches AP 1.
        refused (dict[str, str]): Images that Ultralytics left out, and why.
        settings (dict[str, Any]): Model, data and the arguments that the numbers depend on.
        folder (Path): Where `coco.json`, `coco.csv`, `ground_truth.json` and `predictions.json` are.
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


def evaluate(model: str | Path | Model, data: str | Path, *, max_dets: int = 100, **arguments: Any) -> Evaluation:
    """Measure a detector as COCO does, on one split of a YOLO-format data set.

    Ultralytics validates as ever, with its own output; its detections are taken in pixels of the original images,
    before they are rounded. Everything needed to compute the numbers again is saved in the run's folder. Of a model
    for masks or keypoints these are the numbers of its boxes; its masks or keypoints are measured by Ultralytics alone.

    Args:
        model (str | Path | Model): Checkpoint of an Ultralytics detect, obb, segment or pose model, or such a model
            itself.
        data (str | Path): Data YAML: a path, one of ds2d2's or of Ultralytics'.
        max_dets (int): Best detections of each class that count in each image. Unless `max_det` is given, Ultralytics
            keeps at least as many per image.
        **arguments (Any): Ultralytics' val arguments: `split`, `imgsz`, `batch`, `device`, `conf`, `iou`, `max_det`,
            `project`, `name`, `plots`, ...

    Returns:
        (Evaluation): The numbers.

    Raises:
        DS2D2Error: If the model or the data cannot be used or do not belong together, or an argument is wrong.

    Example:
        >>> evaluation = evaluate("runs/detect/train/weights/best.pt", "scenes.yaml", imgsz=320)  # doctest: +SKIP
        >>> evaluation.APs, evaluation.classes["vehicle"].AP50  # doctest: +SKIP
        (0.412, 0.713)
    """
    _check_max_dets(max_dets)
    detector = _load(model)
    title, task = _title(model), str(detector.task)
    overrides = _complete_arguments(detector, title, {**arguments, "data": str(data)}, max_dets)
    args = get_cfg(overrides=overrides)
    description = load_data(args)
    images = images_of_split(description[args.split])
    if not images:
        raise DS2D2Error(f"split={args.split}: {description[args.split]} has no images")
    _check_classes(title, detector.names, description["names"], args.single_cls)
    if task == "pose":
        check_keypoint_shape(args.data, description)
        check_keypoints("model", title, detector.model, description)
    check_place(args)

    validator = _validate(detector, {**overrides, "data": args.data})
    # Ultralytics drops the images' shapes from its labels when it sorts them for rectangular batches.
    labels = sorted(
        ({**label, "shape": validator.shapes[label["im_file"]]} for label in validator.dataloader.dataset.labels),
        key=lambda label: str(label["im_file"]),
    )
    files = [str(label["im_file"]) for label in labels]
    unseen = set(map(str, images)) - set(files)
    figures = validator.metrics.results_dict
    with TQDM(total=4, desc="AP by COCO's definition", file=sys.stderr) as progress:
        truth = coco_truth(labels, description["names"], task, description["path"])
        progress.update()
        predictions = _predictions(validator.detections, files, truth, task)
        progress.update()
        total, classes = coco_scores(truth, predictions, task, max_dets)
        progress.update()
        evaluation = Evaluation(
            **asdict(total),
            images=len(files),
            sizes=_count_sizes(truth),
            classes=classes,
            mAP50=float(figures["metrics/mAP50(B)"]),
            mAP50_95=float(figures["metrics/mAP50-95(B)"]),
            figures=figures_beside_boxes(figures),
            max_dets=max_dets,
            most=_most_objects(truth),
            refused=refused_images(sorted(unseen), description, args.single_cls, task),
            settings={
                **{"model": title, "data": args.data, "task": task},
                **{name: getattr(validator.args, name) for name in _SETTINGS},
                **{"ultralytics": ultralytics.__version__, "faster_coco_eval": faster_coco_eval.__version__},
            },
            folder=Path(validator.save_dir),
        )
        _save(evaluation, truth, predictions)
        progress.update()
    return evaluation


def figures_beside_boxes(figures: Mapping[str, Any]) -> dict[str, float]:
    """Return Ultralytics' mAP of what a task finds beside boxes: masks (M) or keypoints (P).

    Args:
        figures (Mapping[str, Any]): Ultralytics' figures by name, of a validation or a line of `results.csv`.

    Returns:
        (dict[str, float]): Those of them, by the same names.

    Example:
        >>> figures_beside_boxes({"metrics/mAP50(B)": 0.7, "metrics/recall(M)": 0.8, "metrics/mAP50(M)": 0.6})
        {'metrics/mAP50(M)': 0.6}
    """
    return {
        name: float(value)
        for name, value in figures.items()
        if name.startswith("metrics/mAP50") and not name.endswith("(B)")
    }


def coco_scores(
    truth: Mapping[str, Any], predictions: Sequence[Mapping[str, Any]], task: str = "detect", max_dets: int = 100
) -> tuple[Scores, dict[str, Scores]]:
    """Compute COCO's average precision with faster-coco-eval.

    Args:
        truth (Mapping[str, Any]): COCO data set; for `obb` its annotations have an `rbox`, as `coco_truth` writes it.
        predictions (Sequence[Mapping[str, Any]]): COCO detections: `image_id`, `category_id`, `bbox` (x, y, width,
            height in pixels), `score`; for `obb` also `rbox` (cx, cy, width, height in pixels, angle in radians), by
            which overlap and size are measured, with Ultralytics' `batch_probiou`.
        task (str): `detect`, `obb`, `segment` or `pose`.
        max_dets (int): Best detections of each class that count in each image.

    Returns:
        total (Scores): Means over the classes that occur.
        classes (dict[str, Scores]): By class name, in the order of the category ids.

    Raises:
        DS2D2Error: If `max_dets` is not a whole number of at least 1, or a detection is of an image unknown to `truth`.

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
    _check_max_dets(max_dets)
    images = {image["id"] for image in truth["images"]}
    if stray := {item["image_id"] for item in predictions} - images:
        raise DS2D2Error(f"predictions: image_id {min(stray, key=str)} is not in the ground truth")
    # Copies, as the library writes into the annotations that it is given
    reference = COCO({**truth, "annotations": [dict(item) for item in truth["annotations"]]})
    shape = "rbox" if task == "obb" else "bbox"
    found = [
        {
            **{name: item[name] for name in ("image_id", "category_id", "score", shape)},
            **{"id": number, "area": item[shape][2] * item[shape][3], "iscrowd": 0},
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


class _Collector(DetectionValidator):
    """Comes before a validator of Ultralytics and keeps its detections, in pixels of the original images."""

    detections: list[tuple[str, np.ndarray]]
    """Image files and their detections (N, 6) or (N, 7) float64: box as the model gives it, confidence, class."""

    shapes: dict[str, tuple[int, int]]
    """Height and width of every image, in pixels, by file."""

    def get_dataloader(self, dataset_path: str, batch_size: int) -> Any:
        with label_errors(self.args.split):
            dataloader: Any = super().get_dataloader(dataset_path, batch_size)
        check_labels(dataloader.dataset.labels, self.args.task)
        return dataloader

    def init_metrics(self, model: torch.nn.Module) -> None:
        super().init_metrics(model)
        self.detections, self.shapes = [], {}
        if self._keeps_masks_small:
            self.process = process_mask

    def update_metrics(self, preds: list[dict[str, torch.Tensor]], batch: dict[str, Any]) -> None:
        super().update_metrics(preds, batch)
        self.shapes.update(zip(batch["im_file"], batch["ori_shape"], strict=True))

    def scale_preds(self, predn: dict[str, torch.Tensor], pbatch: dict[str, Any]) -> dict[str, torch.Tensor]:
        if self._keeps_masks_small:
            return DetectionValidator.scale_preds(self, predn, pbatch)  # of the boxes
        return super().scale_preds(predn, pbatch)

    @property
    def _keeps_masks_small(self) -> bool:
        """Whether masks are compared at a quarter of the input's size, as in training and in Ultralytics' own val.

        With `save_json`, which has detections handed over here, Ultralytics would enlarge them and get other figures.
        """
        return bool(self.args.task == "segment" and not self.args.save_txt)

    def pred_to_json(self, predn: dict[str, torch.Tensor], pbatch: dict[str, Any]) -> None:
        parts = [predn["bboxes"], predn["conf"].unsqueeze(1), predn["cls"].unsqueeze(1)]
        rows = torch.cat([part.cpu().double() for part in parts], 1)  # in this order, as MPS has no float64
        self.detections.append((str(pbatch["im_file"]), rows.numpy()))

    def eval_json(self, stats: dict[str, Any]) -> dict[str, Any]:
        return stats


class _OrientedEvaluator(COCOeval_faster):
    """COCO's evaluation with the overlap of oriented boxes."""

    def computeIoU(self, imgId: int, catId: int) -> Any:
        truths, found = (
            dataset.get_instances([imgId], [catId], True)[0][0] for dataset in (self.gt_dataset, self.dt_dataset)
        )
        if not truths or not found:
            return []
        order = np.argsort([-item["score"] for item in found], kind="mergesort")[: self.params.maxDets[-1]]
        # float64, as the covariances of long, thin boxes all but cancel
        rows, columns = np.array([found[i]["rbox"] for i in order]), np.array([item["rbox"] for item in truths])
        return batch_probiou(rows.astype(np.float64), columns.astype(np.float64)).numpy()


def _check_max_dets(max_dets: Any) -> None:
    if type(max_dets) is not int or max_dets < 1:
        raise DS2D2Error(f"max_dets={max_dets}: expected a whole number of at least 1", 2)


def _title(model: str | Path | Model) -> str:
    return str(model.ckpt_path or model.model_name) if isinstance(model, Model) else str(model)


def _load(model: str | Path | Model) -> Model:
    """Return an Ultralytics model that can be evaluated."""
    name = _title(model)
    if isinstance(model, Model):
        detector = model
    else:
        # A bare name may be one that Ultralytics knows where to find or to download.
        if not Path(name).exists() and Path(name).name != name and "://" not in name:
            raise DS2D2Error(f"model={name}: no such file")
        try:
            detector = YOLO(name)
        except Exception as error:  # missing, not downloadable, truncated, foreign classes: torch raises many kinds
            message = shorten(str(error), 300, placeholder=" ...") or type(error).__name__
            raise DS2D2Error(f"model={name}: cannot be loaded, {message}") from error
    if detector.task not in TASKS:
        raise DS2D2Error(
            f"model={name}: is trained for task={detector.task}, only {', '.join(TASKS)} are evaluated here"
        )
    if not isinstance(detector.model, torch.nn.Module):
        raise DS2D2Error(f"model={name}: is no checkpoint, pass the .pt file of a training")
    if isinstance(detector, RTDETR):
        # Some of the supported releases hand its detections over in other pixels.
        raise DS2D2Error(f"model={name}: is an RT-DETR, which is not evaluated here")
    if hasattr(detector.model, "ds2d2_teacher"):
        raise DS2D2Error(f"model={name}: is a checkpoint of the amplifier stage, its head sees other maps")
    return detector


def _complete_arguments(detector: Model, title: str, arguments: Mapping[str, Any], max_dets: int) -> dict[str, Any]:
    """Return the arguments of a validation, after the checks that need nothing else."""
    if arguments.get("task", detector.task) != detector.task:
        raise DS2D2Error(f"task={arguments['task']}: model={title} is trained for task={detector.task}", 2)
    if not arguments.get("save_json", True):
        raise DS2D2Error("save_json=False: predictions.json is always saved here", 2)
    overrides = {
        **{"rect": True, "max_det": max(DEFAULT_CFG.max_det, max_dets)},  # rect: as Ultralytics' own val
        **detector.overrides,
        **arguments,
        **{"model": title, "task": detector.task, "mode": "val", "save_json": True},
    }
    try:
        args = get_cfg(overrides=overrides)
        check_imgsz(args.imgsz, max_dim=1)
    except (TypeError, ValueError, SyntaxError) as error:
        raise DS2D2Error(shorten(str(error), 300, placeholder=" ..."), 2) from error
    if min(args.imgsz if isinstance(args.imgsz, list) else [args.imgsz]) < 1:
        raise DS2D2Error(f"imgsz={args.imgsz}: expected a whole number of pixels", 2)
    if args.batch < 1:
        raise DS2D2Error(f"batch={args.batch}: expected a whole number of at least 1", 2)
    return overrides


def _check_classes(title: str, known: Mapping[int, str], expected: Mapping[int, str], single_cls: bool) -> None:
    """Refuse a model and data whose classes differ; spelling is the user's own affair, order is not."""
    ours, theirs = ([str(names[index]) for index in sorted(names)] for names in (expected, known))
    if len(set(ours)) < len(ours):
        name = next(name for name, count in Counter(ours).items() if count > 1)
        raise DS2D2Error(f"data: the class name '{name}' occurs twice, results by class need different names")
    if single_cls:
        return
    if len(theirs) != len(ours):
        raise DS2D2Error(f"model={title}: knows {len(theirs)} classes, the data set has {len(ours)}")
    if ours != theirs and set(ours) & set(theirs):
        index = next(i for i, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1])
        raise DS2D2Error(
            f"model={title}: class {index} is '{theirs[index]}', in the data set '{ours[index]}': "
            "put the names of the data YAML in the model's order"
        )


def _validate(detector: Model, overrides: dict[str, Any]) -> Any:
    """Run Ultralytics' validation and return the validator, with its `detections`."""
    kind = type("Collector", (_Collector, detector.task_map[detector.task]["validator"]), {})
    try:
        validator = kind(args=overrides, _callbacks=detector.callbacks)
    except OSError as error:
        reason = error.strerror or error
        raise DS2D2Error(f"project={overrides.get('project')}: cannot write there ({reason})") from error
    try:
        validator(model=detector.model)
    except DS2D2Error:
        with suppress(OSError):
            validator.save_dir.rmdir()  # made by the constructor; it goes only if it is empty
        raise
    return validator


def _predictions(
    detections: Sequence[tuple[str, np.ndarray]], files: Sequence[str], truth: Mapping[str, Any], task: str
) -> list[dict[str, Any]]:
    """Return detections as COCO has them, image by image, with Ultralytics' names for what is oriented."""
    numbers = {file: number for number, file in enumerate(files)}
    records = []
    for number, rows in sorted(((numbers[file], rows) for file, rows in detections), key=lambda pair: pair[0]):
        image = truth["images"][number]
        boxes, scores, classes = rows[:, :-2], rows[:, -2].tolist(), rows[:, -1].astype(int).tolist()
        shapes: dict[str, list[list[float]]] = {}
        if task == "obb":
            corners = xywhr2xyxyxyxy(boxes)
            first, last = corners.min(axis=1), corners.max(axis=1)
            shapes = {"rbox": boxes.tolist(), "poly": corners.reshape(-1, 8).tolist()}
        else:
            first, last = boxes[:, :2], boxes[:, 2:]
        shapes["bbox"] = np.hstack([first, last - first]).tolist()
        for index, (score, label) in enumerate(zip(scores, classes, strict=True)):
            record = {"image_id": image["id"], "file_name": image["file_name"], "category_id": label + 1}
            records.append({**record, **{name: values[index] for name, values in shapes.items()}, "score": score})
    return records


def _scores_of(precision: np.ndarray, objects: int) -> Scores:
    """Average COCO's precision, (IoU thresholds, recalls, classes, sizes); -1 marks where there is no object."""

    def mean(values: np.ndarray) -> float:
        values = values[values > -1]
        return float(values.mean()) if values.size else math.nan

    everything = precision[..., 0]
    whole = [mean(everything), mean(everything[0]), mean(everything[5])]  # thresholds 0.50, 0.55, ... 0.95
    return Scores(objects, *whole, *(mean(precision[..., size]) for size in (1, 2, 3)))


def _count_sizes(truth: Mapping[str, Any]) -> dict[str, int]:
    counts = Counter(
        next(name for name, bound in _SIZES.items() if item["area"] <= bound) for item in truth["annotations"]
    )
    return {name: counts[name] for name in _SIZES}


def _most_objects(truth: Mapping[str, Any]) -> int:
    """Return the number of objects in the image and class that have the most."""
    crowds = Counter((item["image_id"], item["category_id"]) for item in truth["annotations"])
    return max(crowds.values(), default=0)


def _save(evaluation: Evaluation, truth: Mapping[str, Any], predictions: Sequence[Mapping[str, Any]]) -> None:
    """Write an evaluation's four files, the numbers last."""
    numbers = {**asdict(evaluation), "folder": str(evaluation.folder)}
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    columns = [field.name for field in fields(Scores)]
    writer.writerow(["class", *columns])
    for name, scores in {"all": evaluation, **evaluation.classes}.items():
        values = (getattr(scores, column) for column in columns)
        writer.writerow([name, *("" if math.isnan(value) else value for value in values)])
    contents = {
        "ground_truth.json": json.dumps(truth),
        "predictions.json": json.dumps(predictions),
        "coco.csv": table.getvalue(),
        "coco.json": json.dumps(without_nan(numbers), indent=2, default=str) + "\n",
    }
    try:
        for name, content in contents.items():
            (evaluation.folder / name).write_text(content, encoding="utf-8")
    except OSError as error:
        raise DS2D2Error(f"{evaluation.folder}: cannot save the results, {error.strerror or error}") from error
