"""Forward hooks that exist for one forward pass and leave no trace."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle


class Taps:
    """Collects what chosen modules return.

    Hooks are registered by `open` and gone after `close`: whatever copies, pickles, exports or validates the model
    between two passes finds it as it was. Outputs are handed over, not kept: after `close` nothing here refers to them.

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
        """Start to collect; a pass left open by an exception is closed first.

        Args:
            modules (Mapping[Any, nn.Module]): The modules by the key under which `close` returns their outputs.
        """
        self.close()
        self._handles = [module.register_forward_hook(partial(self._keep, key)) for key, module in modules.items()]

    def close(self) -> dict[Any, Any]:
        """Remove the hooks and return the outputs by key; a module that did not run since `open` has none."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        outputs, self._outputs = self._outputs, {}
        return outputs

    def _keep(self, key: Any, module: nn.Module, inputs: Any, output: Any) -> None:
        self._outputs[key] = output
