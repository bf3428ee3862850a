"""Formats numbers and names for tables."""

from __future__ import annotations

import math
from pathlib import Path

SIZES = {"APs": "small", "APm": "medium", "APl": "large"}
"""Sizes of objects, by the name of their AP."""


def percent(value: float) -> str:
    """Return a share of 1 in percent, with one decimal; a dash for NaN.

    Example:
        >>> percent(0.1234), percent(float("nan"))
        ('12.3', '-')
    """
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def points(value: float) -> str:
    """Return a difference of shares in percentage points, with its sign; a dash for NaN.

    Example:
        >>> points(0.012)
        '+1.2'
    """
    return "-" if math.isnan(value) else f"{100 * value:+.1f}"


def model_name(path: object) -> str:
    """Return the short name of a model: for best.pt in a run's folder, the name of the run.

    Example:
        >>> model_name("runs/teacher-yolo11s/weights/best.pt"), model_name("yolo11n.yaml")
        ('teacher-yolo11s', 'yolo11n')
    """
    file = Path(str(path))
    return file.parent.parent.name if file.parent.name == "weights" else file.stem
