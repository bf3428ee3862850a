"""Ultralytics' own figures of a checkpoint."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ultralytics import YOLO


def validate(path: str | Path, data: str, args: Any) -> dict[str, float]:
    """Measure a trained detector on the validation set, as Ultralytics does during training.

    Args:
        path (str | Path): Checkpoint.
        data (str): Data YAML.
        args (Any): Arguments of the run, of which size, batch, device and split are taken.

    Returns:
        (dict[str, float]): Ultralytics' metrics by name.
    """
    with tempfile.TemporaryDirectory() as folder:
        overrides = {
            name: getattr(args, name) for name in ("imgsz", "device", "workers", "split", "single_cls", "rect")
        }
        overrides |= {"model": str(path), "data": data, "plots": False, "mode": "val", "save_dir": folder}
        overrides["batch"] = args.batch if args.batch >= 1 else 16
        model = YOLO(str(path))  # of another class where the checkpoint is: it knows its validator
        metrics = model.task_map[args.task]["validator"](args=overrides | {"task": args.task})()
    return {key: float(value) for key, value in metrics.items()}
