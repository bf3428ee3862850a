"""Checks of models from checkpoints: damaged ones are refused in one line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import SETTINGS

from ds2d2_yolo.detectors import TASKS, Detector, build_model, detector_of, input_channels, is_supported
from ds2d2_yolo.errors import DS2D2Error, message_of, similar_file
from ds2d2_yolo.files import refuse_unusable

_SUFFIXES = {".pt", ".yaml", ".yml"}
_LARGEST_STRIDE = 512  # pixels, more than any model has


def read_checkpoint(role: str, path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """Read a checkpoint as Ultralytics does.

    Args:
        role (str): Name of the argument, for messages.
        path (str | Path): A .pt file, or a bare name that Ultralytics can find or download.

    Returns:
        model (nn.Module): The model, float32, in evaluation mode.
        content (dict[str, Any]): The complete checkpoint.

    Raises:
        DS2D2Error: If the file is missing or cannot be read, or its model does not work or is an amplifier's.
    """
    name = str(path)
    refuse_unusable(name)
    is_bare = Path(name).name == name
    if not Path(name).is_file() and not is_bare and "://" not in name:
        hint = f"pass the path of a .pt, such as {role}=yolo11n.pt"
        raise DS2D2Error(f"{role}={name}: no such file; {similar_file(role, name, hint, _SUFFIXES)}")
    try:
        model, content = load_checkpoint(name)
    except Exception as error:  # missing, not downloadable, truncated, unknown classes: torch raises many types
        place = f"put the file into {Path.cwd()} or {SETTINGS['weights_dir']}"
        place = place if is_bare and not Path(name).exists() else f"pass another .pt as {role}="
        raise DS2D2Error(f"{role}={name}: cannot be loaded, {message_of(error)}; {place}") from error
    try:
        if is_supported(model):
            _check(detector_of(model))
        _try(model)
    except Exception as error:  # attributes of other types, missing modules, wrong shapes: many types
        raise DS2D2Error(
            f"{role}={name}: is damaged, {message_of(error)}; pass another .pt as {role}=, or train it again"
        ) from error
    if role != "resume":  # it has its own message, which says how to continue
        refuse_amplifier_stage(role, name, model)
    return model, content


def refuse_amplifier_stage(role: str, name: str, model: nn.Module) -> None:
    """Refuse a model of the amplifier stage. Its head is trained on other maps than its layers compute.

    Args:
        role (str): Name of the argument, for the message.
        name (str): Its value.
        model (nn.Module): The model.

    Raises:
        DS2D2Error: If it is one.
    """
    if hasattr(model, "ds2d2_teacher"):
        raise DS2D2Error(
            f"{role}={name}: is a checkpoint of the amplifier stage; pass the best.pt of a teacher or a student"
        )


def _check(detector: Detector) -> None:
    """Raise an error if a model lacks attributes that all Ultralytics models have, or does not work."""
    model, names = detector.model, detector.model.names
    if not isinstance(names, Mapping) or set(names) != set(range(len(names))) or not names:
        raise ValueError(f"its class names are {names!r:.100}, expected a name for each number from 0")
    if not all(isinstance(name, str) for name in names.values()):
        raise ValueError("some of its class names are not text")
    classes = getattr(detector.head, "nc", len(names))
    if type(classes) is not int or classes != len(names):
        raise ValueError(f"it has {len(names)} class names, but its head has {classes!r:.100} classes")
    if model.task not in TASKS:
        raise ValueError(f"its task is {model.task!r:.100}")
    if not isinstance(model.yaml, dict):
        raise TypeError("it has no model YAML")
    for name, values in model.state_dict().items():
        if values.is_floating_point() and not bool(values.isfinite().all()):
            raise ValueError(f"{name} has values that are not finite")
    build_model(model.yaml, ch=input_channels(model), nc=len(names))  # Ultralytics does this before fine-tuning


def _try(model: Any) -> None:
    """Raise an error if a model fails on an image."""
    stride = model.stride
    is_known = isinstance(stride, torch.Tensor) and stride.numel() > 0
    if not is_known or not bool(((stride > 0) & (stride <= _LARGEST_STRIDE)).all()):
        raise ValueError(f"its strides are {stride!r:.100}")
    side = 5 * int(stride.max())  # RT-DETR selects more queries than a small image has cells
    with torch.no_grad():
        model(torch.zeros(1, input_channels(model), side, side))
