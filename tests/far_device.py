"""A device that is far away: it finds tensors on the wrong device where no GPU is.

Its tensors compute on the CPU, and refuse to meet tensors of the CPU, as those of a GPU do. It counts how often the
program waits for it. PyTorch's device type `lazy` stands for it: it has no kernels here, and its backward pass runs in
the thread of the CPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

FAR = torch.device("lazy", 0)
_FROM_NUMBERS = (torch.tensor, torch.as_tensor)  # they allocate in C++, where no mode is asked
_SIZES_DEPEND_ON_VALUES = {"nonzero", "masked_select", "_unique2", "bincount", "repeat_interleave"}
_MOVES = {"copy_", "_to_copy"}
_INDEXING = {"index", "index_put_", "_index_put_impl_", "index_put", "_unsafe_index"}


waits: Counter[str] = Counter()
"""How often the program needed values of the far device, by operation."""


class FarTensor(torch.Tensor):
    """A tensor on the far device. `inner` has its values."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> FarTensor:
        options = {"dtype": inner.dtype, "layout": inner.layout, "device": FAR, "strides": inner.stride()}
        tensor = torch.Tensor._make_wrapper_subclass(cls, inner.size(), **options)
        tensor.inner = inner
        return tensor

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        copy = FarTensor(self.inner.detach().clone())
        if isinstance(self, torch.nn.Parameter):
            return torch.nn.Parameter(copy, self.requires_grad)
        return copy.requires_grad_(self.requires_grad)

    def tolist(self) -> list[Any]:
        waits["tolist"] += 1
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, operation, types, arguments=(), named=None):
        return _compute(operation, arguments, named or {})


def _name(operation: Any) -> str:
    return operation.overloadpacket._qualified_op_name.split("::")[1]


def _check(operation: Any, arguments: Sequence[Any], tensors: Sequence[torch.Tensor]) -> None:
    """Refuse what a GPU refuses. It takes numbers from the CPU, and indices."""
    far = [tensor for tensor in tensors if isinstance(tensor, FarTensor)]
    near = [tensor for tensor in tensors if not isinstance(tensor, FarTensor) and tensor.dim()]
    if _name(operation) in _INDEXING and isinstance(arguments[0], FarTensor):
        near = [value for value in arguments[2:3] if any(value is tensor for tensor in near)]
    if far and near and _name(operation) not in _MOVES:
        shapes = [tuple(tensor.shape) for tensor in near], [tuple(tensor.shape) for tensor in far]
        raise RuntimeError(f"{operation}: on the CPU are tensors {shapes[0]}, on the far device {shapes[1]}")


def _waits(operation: Any, arguments: Sequence[Any], named: dict[str, Any]) -> bool:
    """Return whether an operation on far tensors makes a program wait: for values, or for the size of a result."""
    if _name(operation) in _MOVES:
        to = named.get("device") or arguments[0].device
        return to.type != FAR.type
    if _name(operation) in _INDEXING:
        return any(part is not None and part.dtype == torch.bool for part in arguments[1])
    return _name(operation) in {"_local_scalar_dense", "equal", *_SIZES_DEPEND_ON_VALUES}


def _compute(operation: Any, arguments: Sequence[Any], named: dict[str, Any]) -> Any:
    """Compute an operation on the CPU. Its results are far if its arguments are, or if it names the far device."""
    tensors = [leaf for leaf in tree_leaves((arguments, named)) if isinstance(leaf, torch.Tensor)]
    _check(operation, arguments, tensors)
    if any(isinstance(tensor, FarTensor) for tensor in tensors):
        waits[_name(operation)] += _waits(operation, arguments, named)
    device = named.get("device")
    is_far = any(isinstance(tensor, FarTensor) for tensor in tensors) if device is None else device.type == FAR.type
    if device is not None and is_far:
        named = {**named, "device": torch.device("cpu")}
    inner_arguments, inner_named = tree_map(
        lambda leaf: leaf.inner if isinstance(leaf, FarTensor) else leaf, (arguments, named)
    )
    results = operation(*inner_arguments, **inner_named)
    if operation._schema.is_mutable and isinstance(results, torch.Tensor):
        return named.get("out", arguments[0])
    return tree_map(lambda leaf: FarTensor(leaf) if is_far and isinstance(leaf, torch.Tensor) else leaf, results)


class _Operations(TorchDispatchMode):
    """Also sees operations without a far argument, such as `torch.zeros(3, device=FAR)`."""

    def __torch_dispatch__(self, operation, types, arguments=(), named=None):
        return _compute(operation, arguments, named or {})


class _Functions(TorchFunctionMode):
    """Moves what is made of Python numbers."""

    def __torch_function__(self, function, types, arguments=(), named=None):
        named = dict(named or {})
        if function in _FROM_NUMBERS and torch.device(named.get("device") or "cpu").type == FAR.type:
            del named["device"]
            return function(*arguments, **named).to(FAR)
        if function is torch.Tensor.new_tensor and isinstance(arguments[0], FarTensor):
            return torch.tensor(arguments[1], dtype=named.get("dtype", arguments[0].dtype)).to(FAR)
        if function in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and isinstance(arguments[0], FarTensor):
            index = arguments[1] if isinstance(arguments[1], tuple) else (arguments[1],)
            index = tuple(torch.tensor(part) if isinstance(part, list) else part for part in index)
            values = [torch.as_tensor(value, dtype=arguments[0].dtype).to(FAR) for value in arguments[2:]]
            return function(arguments[0], index, *values)
        return function(*arguments, **named)


class _Autocast(torch.autocast):
    """Knows the far device: it is always off there."""

    def __init__(self, device_type: str, *arguments: Any, **named: Any) -> None:
        super().__init__("cpu" if device_type == FAR.type else device_type, *arguments, **named)


@contextmanager
def far_device() -> Iterator[torch.device]:
    """Make the far device usable."""
    answers = {"is_available": False, "device_count": 0, "memory_reserved": 0, "empty_cache": None, "synchronize": None}
    module = SimpleNamespace(**{name: lambda *_, answer=answer: answer for name, answer in answers.items()})
    module.get_device_properties = lambda *_: SimpleNamespace(total_memory=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, FAR.type, module, raising=False)
        patch.setattr(torch, "autocast", _Autocast)
        patch.setattr(torch.amp, "autocast", _Autocast)
        swaps = torch.__future__.get_swap_module_params_on_conversion()
        # `Module.to` cannot change a tensor's class otherwise.
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            with _Functions(), _Operations():
                yield FAR
        finally:
            torch.__future__.set_swap_module_params_on_conversion(swaps)
