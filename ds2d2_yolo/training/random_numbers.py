"""The random state of Python, NumPy, torch and a device: read, set, and replaced for a while."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the random state of Python, NumPy, torch and the device, as values that can be saved."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 - the generator of Ultralytics' augmentations
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.array(keys, np.int64)), *rest),
    }
    state["torch"] = torch.get_rng_state()
    if device.type == "cuda":
        state["device"] = torch.cuda.get_rng_state(device)
    return state


@contextmanager
def own_random_numbers(seed: int) -> Iterator[None]:
    """Seed torch's random numbers on the CPU in a block, and restore them after it. Those of GPUs stay as they are.

    Args:
        seed (int): The seed.

    Yields:
        (None): Random numbers in the block depend on the seed alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)  # `torch.manual_seed` would seed GPUs, too
        yield


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Restore the random state from the output of `random_state`."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "device" in state:
        torch.cuda.set_rng_state(state["device"], device)
