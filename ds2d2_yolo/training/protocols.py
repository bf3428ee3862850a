"""What this package reads of Ultralytics' trainers, which have no types for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer
from ultralytics.utils.torch_utils import ModelEMA

Configuration = str | Path | Mapping[str, object] | SimpleNamespace
"""What Ultralytics' trainers take as `cfg`: a YAML file, its content, or arguments as a namespace."""

ModelConfiguration = str | dict[str, Any]
"""A model YAML, or its content. Any: lists of layers and numbers of many kinds."""


class Trainer(Protocol):
    """A trainer of Ultralytics, as its callbacks and the files of exact resuming meet it.

    Attributes:
        args (SimpleNamespace): Arguments of the run, which Ultralytics completes.
        model (nn.Module): The model that is trained, in a DDP run wrapped.
        ema (ModelEMA): Its average.
        optimizer (Optimizer): The optimiser.
        train_loader (DataLoader): The batches of an epoch, Ultralytics' `InfiniteDataLoader`.
        device (torch.device): Where the model is.
        save_dir (Path): Folder of the run.
        csv (Path): Its `results.csv`.
        batch_size (int): Images of a batch, over all devices.
        world_size (int): Processes of the run; 0 on a CPU.
        epoch (int): The epoch that is under way, from 0.
        epochs (int): Their number.
        start_epoch (int): The first of them: above 0 in a run that resumes.
        stop (bool): Whether training ends with this epoch.
        train_time_start (float): When training began, in seconds since the epoch of the clock.
        data_fingerprint (str): Of the data as they were when training began; of our trainers.
    """

    args: SimpleNamespace
    model: nn.Module
    ema: ModelEMA
    optimizer: Optimizer
    train_loader: Any  # Any: Ultralytics' loader and its data set have methods that torch's types do not know
    device: torch.device
    save_dir: Path
    csv: Path
    batch_size: int
    world_size: int
    epoch: int
    epochs: int
    start_epoch: int
    stop: bool
    train_time_start: float
    data_fingerprint: str

    def state_of_distillation(self) -> dict[str, Any]:
        """Return what distillation adds to the exact state; of our trainers."""


Callbacks = dict[str, list[Callable[[Any], object]]]
"""Ultralytics' callbacks by event. Any: each is given the trainer of its run, which it knows by its own type."""
