"""Records of finished work, one JSON file each. A record is valid for the inputs that it names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from ultralytics import __version__ as ultralytics_version

from ds2d2_yolo import __version__
from ds2d2_yolo.files import write_json


def read_record(path: Path, inputs: Mapping[str, object]) -> dict[str, Any] | None:
    """Return the record of finished work with the same inputs, or None.

    Args:
        path (Path): Its file.
        inputs (Mapping[str, object]): Everything that determines the result. Values that JSON does not have are text.

    Returns:
        (dict[str, Any] | None): The content, with `inputs`, `date` and `versions`.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    same = isinstance(record, dict) and record.get("inputs") == json.loads(json.dumps(inputs, default=str))
    return dict(record) if same else None


def write_record(path: Path, inputs: Mapping[str, object], content: Mapping[str, object]) -> None:
    """Write the record of finished work: its content, its inputs, date and versions."""
    write_json(path, {**content, "inputs": inputs, **stamp()}, indent=1)


def stamp() -> dict[str, Any]:
    """Return `date` and `versions` of a file that is written now."""
    versions = {"ds2d2_yolo": __version__, "ultralytics": ultralytics_version, "torch": torch.__version__}
    return {"date": datetime.now().astimezone().isoformat(), "versions": versions}
