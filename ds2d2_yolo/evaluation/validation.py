"""Ultralytics' own metrics of a checkpoint."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ultralytics import YOLO

from ds2d2_yolo.loading.decoding import name_undecodable_images


def validate(path: str | Path, data: str, args: Any) -> dict[str, float]:
    """Evaluate a trained detector on the validation set, as Ultralytics does during training.

    Args:
        path (str | Path): Checkpoint.
        data (str): Data YAML.
        args (Any): Arguments of the run, such as size, batch, device and split.

    Returns:
        (dict[str, float]): Ultralytics' metrics by name.
    """
    with tempfile.TemporaryDirectory() as folder:
        overrides = {
            name: getattr(args, name)
            for name in ("imgsz", "device", "workers", "split", "single_cls", "classes", "rect")
        }
        overrides |= {"model": str(path), "data": data, "plots": False, "mode": "val", "save_dir": folder}
        overrides["batch"] = args.batch if args.batch >= 1 else 16
        model = YOLO(str(path))  # can be an object of another class, which has the right validator
        with name_undecodable_images(data):
            metrics = model.task_map[args.task]["validator"](args=overrides | {"task": args.task})(model=model.model)
    return {key: float(value) for key, value in metrics.items()}


def mask_and_keypoint_metrics(figures: Mapping[str, float]) -> dict[str, float]:
    """Return Ultralytics' mAP of masks (M) or keypoints (P).

    Args:
        figures (Mapping[str, float]): Ultralytics' metrics by name, from a validation or a row of `results.csv`.

    Returns:
        (dict[str, float]): The mAP of masks or keypoints, by the same names.

    Example:
        >>> mask_and_keypoint_metrics({"metrics/mAP50(B)": 0.7, "metrics/recall(M)": 0.8, "metrics/mAP50(M)": 0.6})
        {'metrics/mAP50(M)': 0.6}
    """
    return {
        name: float(value)
        for name, value in figures.items()
        if name.startswith("metrics/mAP50") and not name.endswith("(B)")
    }
