"""AP by COCO's definition, by size and by class, for a detector on a data set in YOLO format."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import faster_coco_eval
import torch
import ultralytics
from ultralytics import RTDETR, YOLO
from ultralytics.cfg import get_cfg, get_save_dir
from ultralytics.engine.model import Model
from ultralytics.utils import DEFAULT_CFG, TQDM
from ultralytics.utils.checks import check_imgsz

from ds2d2_yolo.data.coco_truth import COCOTruth, coco_truth, refused_images
from ds2d2_yolo.detectors import TASKS
from ds2d2_yolo.errors import DS2D2Error, message_of
from ds2d2_yolo.evaluation.detections import coco_detections, validate_and_collect
from ds2d2_yolo.evaluation.results import Evaluation, save_evaluation
from ds2d2_yolo.evaluation.scores import check_max_dets, coco_scores
from ds2d2_yolo.evaluation.validation import mask_and_keypoint_metrics
from ds2d2_yolo.files import report_full_disk
from ds2d2_yolo.loading.classes import class_difference, in_order
from ds2d2_yolo.loading.data import check_keypoint_shape, load_data, refuse_missing_images, resolve_data
from ds2d2_yolo.loading.images import images_of_split
from ds2d2_yolo.loading.models import check_keypoints
from ds2d2_yolo.loading.place import check_place
from ds2d2_yolo.loading.soundness import read_checkpoint, refuse_amplifier_stage

# Arguments of Ultralytics that change the numbers. They are saved with them.
_SETTINGS = ("split", "imgsz", "batch", "rect", "conf", "iou", "max_det", "single_cls", "classes", "augment")

_SIZES = {"small": 32.0**2, "medium": 96.0**2, "large": math.inf}  # COCO's upper bounds, in square pixels


def evaluate(model: str | Path | Model, data: str | Path, *, max_dets: int = 100, **arguments: Any) -> Evaluation:
    """Compute COCO's AP of a detector on one split of a data set in YOLO format.

    Ultralytics runs its usual validation. Its detections are used in pixels of the original images, before rounding.
    All data for computing the numbers again are saved in the run's folder. For a model with masks or keypoints, AP is
    that of its boxes. Only Ultralytics evaluates masks and keypoints.

    Args:
        model (str | Path | Model): Checkpoint of an Ultralytics detect, obb, segment or pose model, or the model
            itself.
        data (str | Path): Data YAML: a path, or the name of one that ships with ds2d2 or Ultralytics.
        max_dets (int): Maximum number of detections per class and image. Unless `max_det` is given, Ultralytics keeps
            at least as many per image.
        **arguments (Any): Ultralytics' val arguments: `split`, `imgsz`, `batch`, `device`, `conf`, `iou`, `max_det`,
            `project`, `name`, `plots`, ...

    Returns:
        (Evaluation): The numbers.

    Raises:
        DS2D2Error: If the model or the data cannot be used, they do not match, or an argument is wrong.

    Example:
        >>> evaluation = evaluate("runs/detect/train/weights/best.pt", "scenes.yaml", imgsz=320)  # doctest: +SKIP
        >>> evaluation.APs, evaluation.classes["vehicle"].AP50  # doctest: +SKIP
        (0.412, 0.713)
    """
    check_max_dets(max_dets)
    detector = _load(model)
    title, task = _title(model), str(detector.task)
    overrides = _complete_arguments(detector, title, {**arguments, "data": resolve_data(data)}, max_dets)
    args = get_cfg(overrides=overrides)
    description = load_data(args.data, args.split, args.single_cls)
    images = images_of_split(description[args.split])
    if not images:
        raise DS2D2Error(
            f"split={args.split}: {description[args.split]} has no images; put some there, or pass another split="
        )
    refuse_missing_images(args.data, args.split, description[args.split], images)
    _check_classes(title, detector.names, description["names"], args.single_cls)
    if task == "pose":
        check_keypoint_shape(args.data, description)
        check_keypoints("model", title, detector.model, description)
    folder = get_save_dir(args)
    check_place(args.device, args.amp, args.project, folder)
    with report_full_disk(folder):
        return _measure(detector, overrides, description, images, max_dets)


def _measure(
    detector: Model, overrides: Mapping[str, Any], description: Mapping[str, Any], images: Sequence[Path], max_dets: int
) -> Evaluation:
    """Validate, compute the numbers and save them."""
    title, task = str(overrides["model"]), str(overrides["task"])
    validator = validate_and_collect(detector, overrides)
    # Ultralytics removes the images' shapes from its labels when it sorts them for rectangular batches.
    labels = sorted(
        ({**label, "shape": validator.shapes[label["im_file"]]} for label in validator.dataloader.dataset.labels),
        key=lambda label: str(label["im_file"]),
    )
    files = [str(label["im_file"]) for label in labels]
    unseen = set(map(str, images)) - set(files)
    figures = validator.metrics.results_dict
    with TQDM(total=3, desc="AP by COCO's definition", file=sys.stderr) as progress:
        truth = coco_truth(labels, description["names"], task, description["path"])
        progress.update()
        # In COCO's format, millions of detections need gigabytes. So they have it one by one
        predictions = partial(coco_detections, validator.detections, files, truth, task)
        total, classes = coco_scores(truth, predictions(), task, max_dets)
        progress.update()
        evaluation = Evaluation(
            **asdict(total),
            images=len(files),
            sizes=_count_sizes(truth),
            classes=classes,
            mAP50=float(figures["metrics/mAP50(B)"]),
            mAP50_95=float(figures["metrics/mAP50-95(B)"]),
            figures=mask_and_keypoint_metrics(figures),
            max_dets=max_dets,
            most=_most_objects(truth),
            refused=refused_images(sorted(unseen), description, validator.args.single_cls, task),
            settings={
                **{"model": title, "data": overrides["data"], "task": task},
                **{name: getattr(validator.args, name) for name in _SETTINGS},
                **{"ultralytics": ultralytics.__version__, "faster_coco_eval": faster_coco_eval.__version__},
            },
            folder=Path(validator.save_dir),
        )
        save_evaluation(evaluation, truth, predictions())
        progress.update()
    return evaluation


def _title(model: str | Path | Model) -> str:
    return str(model.ckpt_path or model.model_name) if isinstance(model, Model) else str(model)


def _load(model: str | Path | Model) -> Model:
    """Return an Ultralytics model that can be evaluated."""
    name = _title(model)
    if isinstance(model, Model):
        detector = model
    else:
        if Path(name).suffix.lower() in {".yaml", ".yml"}:
            raise DS2D2Error(f"model={name}: is an architecture without trained weights; pass the .pt of a training")
        if name.endswith(".pt"):
            read_checkpoint("model", name)
        try:
            detector = YOLO(name)
        except Exception as error:  # missing, not downloadable, truncated, unknown classes: torch raises many types
            raise DS2D2Error(
                f"model={name}: cannot be loaded, {message_of(error)}; pass another .pt as model="
            ) from error
    if detector.task not in TASKS:
        raise DS2D2Error(
            f"model={name}: is trained for task={detector.task}, which is not evaluated here; run 'yolo val "
            f"model={name}'"
        )
    if not isinstance(detector.model, torch.nn.Module):
        raise DS2D2Error(f"model={name}: is not a checkpoint; pass the .pt of a training")
    if isinstance(detector, RTDETR):
        # Some supported releases return its detections in other pixels.
        raise DS2D2Error(f"model={name}: is an RT-DETR, which is not evaluated here; run 'yolo val model={name}'")
    refuse_amplifier_stage("model", name, detector.model)  # the model may be given as an object
    return detector


def _complete_arguments(detector: Model, title: str, arguments: Mapping[str, Any], max_dets: int) -> dict[str, Any]:
    """Check and complete the arguments of a validation."""
    if arguments.get("task", detector.task) != detector.task:
        raise DS2D2Error(
            f"task={arguments['task']}: model={title} is trained for task={detector.task}; leave task= out", 2
        )
    if not arguments.get("save_json", True):
        raise DS2D2Error("save_json=False: predictions.json is always saved here; leave save_json= out", 2)
    overrides = {
        **{"rect": True, "max_det": max(DEFAULT_CFG.max_det, max_dets)},  # rect: as in Ultralytics' own val
        **detector.overrides,
        **arguments,
        **{"model": title, "task": detector.task, "mode": "val", "save_json": True},
    }
    if isinstance(overrides.get("imgsz"), tuple):
        overrides["imgsz"] = list(overrides["imgsz"])
    try:
        args = get_cfg(overrides=overrides)
        check_imgsz(args.imgsz, max_dim=1)
    except (TypeError, ValueError, SyntaxError) as error:
        raise DS2D2Error(message_of(error), 2) from error
    if min(args.imgsz if isinstance(args.imgsz, list) else [args.imgsz]) < 1:
        raise DS2D2Error(f"imgsz={args.imgsz}: expected a whole number of pixels, such as imgsz=640", 2)
    if args.batch < 1:
        raise DS2D2Error(f"batch={args.batch}: expected a whole number of at least 1, such as batch=16", 2)
    return overrides


def _check_classes(title: str, model_names: Mapping[int, str], expected: Mapping[int, str], single_cls: bool) -> None:
    """Refuse a model and data with another number or order of classes. Completely different names are accepted."""
    names, data_names = in_order(model_names), in_order(expected)
    difference = None if single_cls else class_difference(names, data_names)
    if difference is None or (len(names) == len(data_names) and not set(names) & set(data_names)):
        return
    advice = "put 'names:' of the data YAML in the model's order"
    if len(names) != len(data_names):
        advice = "pass data= with the classes that the model was trained on"
    raise DS2D2Error(f"model={title}: {difference}; {advice}")


def _count_sizes(truth: COCOTruth) -> dict[str, int]:
    counts = Counter(
        next(name for name, bound in _SIZES.items() if item["area"] <= bound) for item in truth["annotations"]
    )
    return {name: counts[name] for name in _SIZES}


def _most_objects(truth: COCOTruth) -> int:
    """Return the maximum number of objects of one class in one image."""
    crowds = Counter((item["image_id"], item["category_id"]) for item in truth["annotations"])
    return max(crowds.values(), default=0)
