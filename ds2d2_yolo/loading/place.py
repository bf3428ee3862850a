"""Checks of the device and the output folder before a run starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from ultralytics.utils.torch_utils import select_device

from ds2d2_yolo.errors import DS2D2Error, message_of
from ds2d2_yolo.files import refuse_unwritable


def chosen_device(device: Any) -> torch.device:
    """Return the device of a run.

    Args:
        device (Any): Ultralytics' argument `device`: a number, text, list or `torch.device`. None chooses one.

    Returns:
        (torch.device): The device.

    Raises:
        DS2D2Error: If Ultralytics refuses it.

    Example:
        >>> chosen_device("cpu")
        device(type='cpu')
    """
    try:
        return select_device(device, verbose=False)
    except Exception as error:  # ValueError, AssertionError or RuntimeError, by device and release
        raise DS2D2Error(f"device={device}: {message_of(error)}", 2) from error


def check_place(device: Any, amp: bool | str, project: str | None, folder: Path) -> None:
    """Refuse a device that does not exist, or a project folder that is not writable.

    Args:
        device (Any): Ultralytics' argument `device`: a number, text, list or `torch.device`.
        amp (bool | str): Ultralytics' argument `amp`.
        project (str | None): Ultralytics' argument `project`, for the message.
        folder (Path): The run's folder.

    Raises:
        DS2D2Error: If Ultralytics refuses the device, or the closest existing parent of the run's folder is no folder
            or not writable.
    """
    chosen = chosen_device(device)
    if amp == "bf16" and (chosen.type != "cuda" or not torch.cuda.is_bf16_supported(including_emulation=False)):
        raise DS2D2Error(
            f"amp=bf16: needs a GPU that computes in bfloat16, this run uses {chosen}; pass amp=True or amp=False", 2
        )
    refuse_unwritable("project", project, folder)
