"""Exact resuming of an interrupted run, by a state file next to Ultralytics' checkpoints.

A checkpoint of Ultralytics contains EMA weights and the optimiser's momentum in half precision. It does not contain:

- the weights in training
- accumulated gradients
- the order of the data
- the random state

A run that resumes from the checkpoint alone gives another result: its weights jump to the EMA, and its data order
starts again.
"""

from __future__ import annotations

import math
import shutil
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from ultralytics.utils import LOGGER, RANK, colorstr
from ultralytics.utils.patches import torch_load, torch_save
from ultralytics.utils.torch_utils import strip_optimizer, unwrap_model

from ds2d2_yolo.training.adapters import keep_adapters
from ds2d2_yolo.training.random_numbers import random_state, set_random_state

_FORMAT = "ds2d2-state"
_PARTIAL = ".partial"
ADAPTERS = "ds2d2_adapters"
"""Name of the module that distillation adds to a student."""


@contextmanager
def whole_files(folder: Path) -> Iterator[Path]:
    """Provide a temporary folder for files. At the end they move to `folder`, last.pt last.

    If the process is killed, every file in `folder` is the complete old or the complete new one. last.pt determines the
    next epoch. As it is moved last, best.pt is never older.

    Args:
        folder (Path): Target folder.

    Yields:
        (Path): An empty folder on the same file system.
    """
    partial = folder / _PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        for path in sorted(partial.iterdir(), key=lambda path: path.name == "last.pt"):
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def state_file(checkpoint: Path, epoch: int) -> Path:
    """Return the file next to a checkpoint with the exact state after an epoch, counted from 0."""
    return checkpoint.with_name(f"state{epoch}.pt")


def save_state(trainer: Any, path: Path, unstepped: int) -> None:  # Any: the module of PlainTrainer imports this one
    """Write the exact state of a trainer at the end of an epoch.

    Args:
        trainer (PlainTrainer): The trainer.
        path (Path): The file. It contains only tensors and plain values.
        unstepped (int): Number of batches since the optimiser's last step. Their gradients are saved.
    """
    model = unwrap_model(trainer.model)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None} if unstepped else {}
    loader = trainer.train_loader
    content = {
        "format": _FORMAT,
        "epoch": trainer.epoch,
        "finished": bool(trainer.stop),
        "data": trainer.data_fingerprint,
        "model": model.state_dict(),
        "ema": trainer.ema.ema.state_dict(),
        "optimizer": trainer.optimizer.state_dict()["state"],
        "gradients": gradients,
        "unstepped": unstepped,
        "random": random_state(trainer.device),
        "order": _order_of(loader).get_state(),
        "distillation": trainer.distillation_state(),
        "buffer": list(getattr(loader.dataset, "buffer", [])),  # images for mosaics
    }
    torch.save(content, path)


def checkpoint_size(trainer: Any) -> int:
    """Return the approximate size in bytes of an epoch's last.pt, best.pt and exact state together."""
    values = [*trainer.optimizer.state.values(), dict(trainer.model.state_dict())]
    *moments, model = (sum(x.nbytes for x in group.values() if isinstance(x, torch.Tensor)) for group in values)
    # Two checkpoints contain EMA and moments in half precision; the state contains these and the weights in full
    return 3 * model + 2 * sum(moments)


def load_state(checkpoint: Path, epoch: int) -> dict[str, Any] | None:
    """Return the exact state for a checkpoint. If it is missing or damaged, print a warning and return None.

    Args:
        checkpoint (Path): The checkpoint of a resumed run.
        epoch (int): Its epoch, counted from 0.

    Returns:
        (dict[str, Any] | None): The state, as saved by `save_state`.
    """
    path = state_file(checkpoint, epoch)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["format"] == _FORMAT and content["epoch"] == epoch:
            return dict(content)
        reason = "another format"
    except FileNotFoundError:
        reason = "missing"
    except Exception as error:  # damaged: torch raises many types
        reason = type(error).__name__
    LOGGER.warning(
        f"{colorstr('DS2D2:')} {path} is not usable ({reason}), so the result will differ from an uninterrupted run. "
        "The run continues from EMA weights in half precision. For exact results start it again with another name="
    )
    return None


def restore_state(trainer: Any, state: dict[str, Any]) -> None:
    """Set a resumed trainer to the exact state.

    The data order and the random state are restored for one process that loads its own data (workers=0, as always on a
    CPU). The random state of worker processes cannot be saved. Their images get a new order and new augmentations, not
    those of the first epochs.

    Args:
        trainer (PlainTrainer): The trainer at the end of its `resume_training`.
        state (dict[str, Any]): Output of `load_state`.
    """
    unwrap_model(trainer.model).load_state_dict(state["model"])
    trainer.ema.ema.load_state_dict(state["ema"])
    groups = trainer.optimizer.state_dict()["param_groups"]
    trainer.optimizer.load_state_dict({"state": state["optimizer"], "param_groups": groups})
    if RANK != -1:
        return  # the order depends on the epoch only, and every rank has its own random state
    loader = trainer.train_loader
    if not loader.num_workers:
        images = len(loader.dataset.labels)  # the length of a set with unlabelled images is that of an epoch
        for index in (index for index in state["buffer"] if index < images):  # some can have been removed since
            loader.dataset.load_image(index)
    _restore_order(loader, state["order"], trainer.start_epoch - (trainer.epochs - trainer.args.close_mosaic))
    set_random_state(state["random"], trainer.device)


def restore_gradients(model: nn.Module, gradients: dict[str, torch.Tensor]) -> None:
    """Restore the gradients that were accumulated when the state was saved."""
    for name, parameter in model.named_parameters():
        if name in gradients:
            parameter.grad = gradients[name].to(parameter.device)


def remove_states(folder: Path, keep: Path | None = None) -> None:
    """Remove exact states that are not needed any more.

    Args:
        folder (Path): Folder of a run's checkpoints.
        keep (Path | None): State to keep.
    """
    for path in folder.glob("state*.pt"):
        if path != keep and path.stem.removeprefix("state").isdigit():
            path.unlink()


def training_is_over(last: Path, checkpoint: dict[str, Any]) -> bool:
    """Return whether no epoch is left to train: all are finished, or early stopping has ended the run.

    Args:
        last (Path): last.pt of the run.
        checkpoint (dict[str, Any]): Its content.

    Returns:
        (bool): Whether no epoch is left. The final checkpoints may still be incomplete.
    """
    epoch = checkpoint.get("epoch", -1)
    epochs = (checkpoint.get("train_args") or {}).get("epochs", math.inf)  # missing in files of other programs
    if epoch == -1 or epoch + 1 >= epochs:
        return True
    return bool(peek_state(last, epoch).get("finished"))


def peek_state(checkpoint: Path, epoch: int) -> dict[str, Any]:
    """Return the exact state for a checkpoint without reading its tensors. Empty if it is missing or damaged.

    Args:
        checkpoint (Path): The checkpoint.
        epoch (int): Its epoch, counted from 0.

    Returns:
        (dict[str, Any]): The state, as saved by `save_state`.
    """
    try:
        return dict(torch.load(state_file(checkpoint, epoch), map_location="cpu", weights_only=True, mmap=True))
    except Exception:  # missing or damaged, for which torch raises many types: `load_state` warns
        return {}


def complete_checkpoints(folder: Path) -> None:
    """Write the final checkpoints of a run that was killed after its last epoch."""
    with whole_files(folder) as partial:
        for name in ("last.pt", "best.pt"):
            if (folder / name).is_file():
                without_adapters(folder / name, partial / name)
                strip_optimizer(partial / name)
    remove_states(folder)


def without_adapters(source: Path, target: Path) -> None:
    """Copy a checkpoint without the adapters, so that it contains only classes of torch and Ultralytics.

    The adapters are saved next to it in `adapters.pt`, for `ds2d2 explain`.

    Args:
        source (Path): The checkpoint.
        target (Path): The copy.
    """
    state = torch_load(source, map_location="cpu")
    for key in ("ema", "model"):
        if isinstance(state.get(key), nn.Module) and hasattr(state[key], ADAPTERS):
            adapters = getattr(state[key], ADAPTERS)
            delattr(state[key], ADAPTERS)
            keep_adapters(source.with_name("adapters.pt"), source.stem, state[key], adapters)
    torch_save(state, target)


def _restore_order(loader: Any, order: torch.Tensor, closed: int) -> None:
    """Make a new loader continue with the image order of the interrupted run.

    `close_mosaic` replaces the loader's iterator, which draws a number from the generator. The uninterrupted run does
    this once, but the resumed run does it again. A dropped iterator also does not draw the number that samplers draw at
    the end of an epoch.

    Args:
        loader (Any): The loader, before its first epoch.
        order (torch.Tensor): State of its generator after the last epoch of the interrupted run.
        closed (int): Epochs since mosaics were closed. Negative before.
    """
    if not loader.num_workers:
        loader.iterator = DataLoader.__iter__(loader)  # draws its number here, not at the first batch
    generator = _order_of(loader)
    finished = iter(loader.batch_sampler.sampler)
    deque(islice(finished, len(loader)), maxlen=0)  # draws the indices up to the end of an epoch
    generator.set_state(order)
    if closed:
        next(finished, None)
    if closed > 0:
        loader.generator = torch.Generator()


def _order_of(loader: Any) -> torch.Generator:
    """Return the generator of the image order: the sampler's, which initially is the loader's."""
    generator: torch.Generator = getattr(loader.sampler, "generator", None) or loader.generator
    return generator
