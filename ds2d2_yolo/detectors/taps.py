"""Temporary forward hooks for one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from torch import nn
from torch.utils.hooks import RemovableHandle

Result = TypeVar("Result")


class Taps:
    """Collects the outputs of selected modules during one forward pass.

    `open` adds hooks, and `close` removes them. So the model is unchanged between two passes, for example when it is
    copied, pickled, exported or validated. `close` returns the outputs and keeps no reference to them.

    Example:
        >>> import torch
        >>> layer = nn.Linear(2, 3)
        >>> taps = Taps()
        >>> taps.open({"layer": layer})
        >>> output = layer(torch.ones(1, 2))
        >>> taps.close()["layer"] is output
        True
        >>> len(layer._forward_hooks)
        0
    """

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []
        self._outputs: dict[Any, Any] = {}

    def open(self, modules: Mapping[Any, nn.Module]) -> None:
        """Start to collect. If an exception has left taps open, close them first.

        Args:
            modules (Mapping[Any, nn.Module]): The modules to tap, by key. `close` returns outputs by the same keys.
        """
        self.close()
        self._handles = [module.register_forward_hook(partial(self._keep, key)) for key, module in modules.items()]

    def close(self) -> dict[Any, Any]:
        """Remove the hooks and return the outputs by key. Modules that did not run since `open` have no entry."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        outputs, self._outputs = self._outputs, {}
        return outputs

    def _keep(self, key: Any, module: nn.Module, inputs: Any, output: Any) -> None:
        self._outputs[key] = output


def tapped(modules: Mapping[Any, nn.Module], run: Callable[[], Result]) -> tuple[Result, dict[Any, Any]]:
    """Call a function with modules tapped, also if it fails.

    Args:
        modules (Mapping[Any, nn.Module]): The modules, by key.
        run (Callable): Runs them.

    Returns:
        result (Result): The return value of `run`.
        outputs (dict[Any, Any]): Outputs of the modules that ran, by the same keys.

    Example:
        >>> import torch
        >>> layer = nn.Linear(2, 3)
        >>> result, outputs = tapped({"layer": layer}, lambda: layer(torch.ones(1, 2)).sum())
        >>> bool(outputs["layer"].sum() == result)
        True
    """
    taps = Taps()
    taps.open(modules)
    try:
        result = run()
    finally:
        outputs = taps.close()
    return result, outputs
