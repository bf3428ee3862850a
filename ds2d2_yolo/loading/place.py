"""Where a run computes and where it writes: refused before it starts."""

from __future__ import annotations

import os
from typing import Any

import torch
from ultralytics.cfg import get_save_dir
from ultralytics.utils.torch_utils import select_device

from ds2d2_yolo.errors import DS2D2Error, message_of


def check_place(args: Any) -> None:
    """Refuse a device that is not there, or a project folder that cannot be written to.

    Raises:
        DS2D2Error: If Ultralytics refuses the device, or the closest existing parent of the run's folder is no folder
            or not writable.
    """
    try:
        device = select_device(args.device, verbose=False)
    except Exception as error:  # ValueError, AssertionError or RuntimeError, by device and release
        raise DS2D2Error(f"device={args.device}: {message_of(error)}", 2) from error
    if args.amp == "bf16" and (device.type != "cuda" or not torch.cuda.is_bf16_supported(including_emulation=False)):
        raise DS2D2Error(f"amp=bf16: needs a GPU that computes in bfloat16, this run is on {device}", 2)
    folder = get_save_dir(args)
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise DS2D2Error(f"project={args.project}: cannot write to {existing}, choose another project= folder")
