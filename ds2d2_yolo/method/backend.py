"""The wavelet transform of pytorch-wavelets, for every basis except Haar. Imported only when needed."""

from __future__ import annotations

import importlib
import sys
import warnings
from functools import cache
from importlib.resources import files
from types import ModuleType
from typing import IO

import torch
from torch import nn
from torch.autograd.function import FunctionCtx


def _import_pytorch_wavelets() -> ModuleType:
    """Import pytorch-wavelets, with a substitute for `pkg_resources` if that is missing.

    pytorch-wavelets needs one function of `pkg_resources`, for a transform that is not used here. Setuptools 82 no
    longer has this module, and some environments have no setuptools.
    """
    stand_in = ModuleType("pkg_resources")
    stand_in.resource_stream = _resource_stream  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the module warns that it is deprecated
        try:
            importlib.import_module(stand_in.__name__)
        except (ImportError, AttributeError):  # missing, or too old for this Python
            sys.modules[stand_in.__name__] = stand_in
        try:
            return importlib.import_module("pytorch_wavelets")
        finally:
            if sys.modules.get(stand_in.__name__) is stand_in:
                del sys.modules[stand_in.__name__]


def _resource_stream(package: str, name: str) -> IO[bytes]:
    """Open a file of a package, as the function of this name in `pkg_resources` does."""
    return files(package).joinpath(name).open("rb")


PYTORCH_WAVELETS = _import_pytorch_wavelets()


Filters = tuple[tuple[float, ...], tuple[float, ...]]
"""Low-pass and high-pass filter of a decomposition, of equal length."""


@cache
def _transforms(filters: Filters, dtype: torch.dtype, device: torch.device) -> tuple[nn.Module, nn.Module]:
    """Return the transform and its adjoint, with filters that are exact in `dtype`.

    The adjoint of the analysis is the synthesis with reversed filters. As the basis is orthogonal, this is the inverse.
    """
    low, high = filters
    backwards = low[::-1], high[::-1]
    with torch.inference_mode(False):  # tensors from inference mode cannot be used in training later
        analysis = PYTORCH_WAVELETS.DWTForward(J=1, mode="zero", wave=filters).to(device, dtype)
        synthesis = PYTORCH_WAVELETS.DWTInverse(mode="zero", wave=backwards).to(device, dtype)
        for transform in (analysis, synthesis):
            for buffer, values in zip(transform.buffers(), 2 * backwards, strict=True):
                # The library has rounded them to torch's default dtype, usually float32.
                buffer.copy_(torch.tensor(values, dtype=dtype).view_as(buffer))
    return analysis, synthesis


class _Context(FunctionCtx):
    """Values that the forward passes of the two functions below save for their backward passes."""

    filters: Filters
    size: torch.Size


class _Analysis(torch.autograd.Function):
    """The transform, with forward and backward pass outside autocast.

    The library's backward pass would run under autocast, which rounds gradients to half precision. So `_Analysis` and
    `_Synthesis` are each other's backward pass.
    """

    @staticmethod
    def forward(ctx: _Context, x: torch.Tensor, filters: Filters) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the low-frequency band (B, C, h, w) and the detail bands (B, C, 3, h, w)."""
        ctx.filters, ctx.size = filters, x.shape[-2:]
        with torch.autocast(x.device.type, enabled=False):
            ll, (detail,) = _transforms(filters, x.dtype, x.device)[0](x)
        return ll, detail

    @staticmethod
    def backward(ctx: _Context, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the gradient at the map."""
        height, width = ctx.size  # the synthesis returns maps with even sides
        gradient: torch.Tensor = _Synthesis.apply(*gradients, ctx.filters)
        return gradient[..., :height, :width], None


class _Synthesis(torch.autograd.Function):
    """The adjoint of the transform, with forward and backward pass outside autocast."""

    @staticmethod
    def forward(ctx: _Context, ll: torch.Tensor, detail: torch.Tensor, filters: Filters) -> torch.Tensor:
        """Return a map (B, C, H, W) with even sides."""
        ctx.filters = filters
        with torch.autocast(ll.device.type, enabled=False):
            x: torch.Tensor = _transforms(filters, ll.dtype, ll.device)[1]((ll, [detail]))
        return x

    @staticmethod
    def backward(ctx: _Context, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        """Return the gradients at the bands."""
        return *_Analysis.apply(gradient, ctx.filters), None


@torch.compiler.disable  # the library calls PyWavelets for sizes, which cannot be compiled
def analyse(x: torch.Tensor, filters: Filters) -> tuple[torch.Tensor, torch.Tensor]:
    """Decompose maps with the filters of an orthogonal wavelet. Differentiable any number of times.

    Args:
        x (torch.Tensor): Maps (B, C, H, W), float32 or float64.
        filters (Filters): Filters of the decomposition.

    Returns:
        ll (torch.Tensor): Low-frequency band (B, C, h, w), with the dtype of `x`.
        detail (torch.Tensor): The bands LH, HL and HH as (B, C, 3, h, w), with the dtype of `x`.

    Example:
        >>> ll, detail = analyse(torch.ones(1, 1, 4, 4), ((0.5, 0.5), (-0.5, 0.5)))
        >>> tuple(detail.shape), ll.flatten().tolist()
        ((1, 1, 3, 2, 2), [1.0, 1.0, 1.0, 1.0])
    """
    bands: tuple[torch.Tensor, torch.Tensor] = _Analysis.apply(x, filters)
    return bands
