"""Types for the attributes of Ultralytics' trainers that this package reads."""

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
"""Type of `cfg` in Ultralytics' trainers: a YAML file, its content, or arguments as a namespace."""

ModelConfiguration = str | dict[str, Any]
"""A model YAML, or its content. Any: lists of layers, numbers and other types."""


class Trainer(Protocol):
    """A trainer of Ultralytics, for callbacks and exact resuming.

    Attributes:
        args (SimpleNamespace): Arguments of the run, which Ultralytics completes.
        model (nn.Module): The model in training. In a DDP run it is wrapped.
        ema (ModelEMA): Exponential moving average (EMA) of the model.
        optimizer (Optimizer): The optimiser.
        train_loader (DataLoader): The training loader, Ultralytics' `InfiniteDataLoader`.
        device (torch.device): Device of the model.
        save_dir (Path): Folder of the run.
        csv (Path): Its `results.csv`.
        batch_size (int): Images of a batch, over all devices.
        world_size (int): Number of processes, 0 on a CPU.
        epoch (int): The current epoch, from 0.
        epochs (int): Number of epochs.
        start_epoch (int): The first epoch. Above 0 in a resumed run.
        stop (bool): Whether training ends with this epoch.
        train_time_start (float): Start of training, in seconds since 1970.
        data_fingerprint (str): Fingerprint of the data at the start of training. Only in trainers of ds2d2.
    """

    args: SimpleNamespace
    model: nn.Module
    ema: ModelEMA
    optimizer: Optimizer
    train_loader: Any  # Any: Ultralytics' loader and data set have methods that torch's types lack
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

    def distillation_state(self) -> dict[str, Any]:
        """Return the state of distillation, for the exact state. Only in trainers of ds2d2."""


Callbacks = dict[str, list[Callable[[Any], object]]]
"""Ultralytics' callbacks by event. Any: the argument is a trainer of any class."""
