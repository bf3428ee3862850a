"""Adapters before and after training: fitted in the first batches, and saved in a file next to the student."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from ds2d2_yolo.files import whole_file
from ds2d2_yolo.loading.fingerprint import fingerprint_of_model

_FORMAT = "ds2d2-adapters"
_RIDGE = 1e-3  # times the mean power of the student's channels: enough for fewer cells than channels
CELLS_PER_CHANNEL = 8
"""Cells of a level that a fit needs per channel of the student. With fewer, it does not hold for other images."""

_MOST_CELLS = 64  # of a batch per channel: fine levels have many cells
_MOST_BATCHES = 50  # small batches of small images may never have enough cells

_Sums = tuple[torch.Tensor, torch.Tensor]
"""Sums over cells: products of the student's channels (Cs, Cs), and of the teacher's with these (Ct, Cs)."""


def keep_adapters(path: Path, name: str, student: nn.Module, adapters: nn.Module) -> None:
    """Add the adapters of a student to a file of tensors and text. It holds one entry per checkpoint.

    Args:
        path (Path): The file. It is replaced in one step.
        name (str): Name of the student's checkpoint, such as `best`.
        student (nn.Module): The student without its adapters.
        adapters (nn.Module): Its adapters.
    """
    content = _read(path) or {"format": _FORMAT, "version": 1, "students": {}}
    state = {key: value.half() for key, value in adapters.state_dict().items()}
    content["students"][name] = {"student": fingerprint_of_model(student), "adapters": state}
    with whole_file(path) as partial:
        torch.save(content, partial)


def find_adapters(path: Path, student: nn.Module) -> dict[int, torch.Tensor]:
    """Return the adapters that were trained with a student.

    Args:
        path (Path): File written by `keep_adapters`. Code in it is never run.
        student (nn.Module): The student.

    Returns:
        (dict[int, torch.Tensor]): Weights (Ct, Cs) float32 by index of the level. Empty if the file is missing, has
            another format, or belongs to other students.
    """
    content = _read(path)
    if content is None:
        return {}
    own = fingerprint_of_model(student)
    for entry in content["students"].values():
        if entry["student"] == own:
            return {int(key.split(".")[0]): value.float().flatten(1) for key, value in entry["adapters"].items()}
    return {}


def fit_adapters(maps: Iterable[tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]]) -> list[torch.Tensor]:
    """Fit one adapter per level, a linear map without bias from the student's maps to the teacher's.

    The fit is a ridge regression in float64. It minimises the squared error over all cells. For Haar, this error is the
    sum of both explicit terms without their weight.

    Args:
        maps (Iterable): Student maps (B, Cs_l, H_l, W_l) and teacher maps (B, Ct_l, H_l, W_l) of one image after the
            other. They are not kept.

    Returns:
        (list[torch.Tensor]): Weights (Ct_l, Cs_l) float32.

    Example:
        >>> student = torch.rand(1, 3, 8, 8)
        >>> (adapter,) = fit_adapters([([student], [2 * student])])
        >>> bool((adapter - 2 * torch.eye(3)).abs().max() < 0.1)
        True
    """
    sums: list[_Sums] = []
    for student_maps, teacher_maps in maps:
        new = [_sums(*pair) for pair in zip(student_maps, teacher_maps, strict=True)]
        sums = [(a + c, b + d) for (a, b), (c, d) in zip(sums, new, strict=True)] if sums else new
    return [_solve(*level) for level in sums]


class AdapterFit:
    """Fits the adapters to the first batches of a training, as `fit_adapters` does.

    The terms reach the student through its adapters. Random adapters would pull it in random directions until they are
    trained, and a pretrained student would forget. So each of the first batches is added to the fit, and the adapters
    are set before their terms are computed. All workers of a distributed run add up their batches.

    Args:
        adapters (nn.ModuleList): One module per level, on the student's device. Convolutions are fitted, also those
            that several levels share.

    Attributes:
        finished (bool): Whether the fit has enough cells. After that, `observe` must not be called.

    Example:
        >>> adapters = nn.ModuleList([nn.Conv2d(3, 3, 1, bias=False)])
        >>> student = torch.rand(1, 3, 8, 8)
        >>> AdapterFit(adapters).observe([student], [2 * student])
        >>> bool((adapters[0].weight.squeeze() - 2 * torch.eye(3)).abs().max() < 0.1)
        True
    """

    def __init__(self, adapters: nn.ModuleList) -> None:
        self._adapters = [adapter for adapter in dict.fromkeys(adapters) if isinstance(adapter, nn.Conv2d)]
        self._levels = [[i for i, other in enumerate(adapters) if other is adapter] for adapter in self._adapters]
        self._sums: list[torch.Tensor] = []
        self._batches = 0
        self.finished = not self._adapters

    def observe(self, student_maps: Sequence[torch.Tensor], teacher_maps: Sequence[torch.Tensor]) -> None:
        """Add a batch to the fit, and set the adapters.

        A batch with values that are not finite is skipped.

        Args:
            student_maps (Sequence[torch.Tensor]): The student's tapped maps (B, Cs_l, H_l, W_l).
            teacher_maps (Sequence[torch.Tensor]): The teacher's (B, Ct_l, H_l, W_l).
        """
        new = [self._sums_of(index, student_maps, teacher_maps) for index in range(len(self._adapters))]
        if dist.is_available() and dist.is_initialized():
            for values in new:
                dist.all_reduce(values)
        if not bool(torch.stack([values.isfinite().all() for values in new]).all()):
            return
        self._sums = [old + values for old, values in zip(self._sums, new, strict=True)] if self._sums else new
        self._batches += 1
        has_enough = True
        for adapter, values in zip(self._adapters, self._sums, strict=True):
            squares, crosses, cells = values.split([adapter.in_channels, adapter.out_channels, 1])
            with torch.no_grad():
                adapter.weight.copy_(_solve(squares, crosses)[:, :, None, None])
            has_enough &= bool(cells[0, 0] >= CELLS_PER_CHANNEL * adapter.in_channels)
        self.finished = has_enough or self._batches >= _MOST_BATCHES

    def _sums_of(
        self, index: int, student_maps: Sequence[torch.Tensor], teacher_maps: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """Return the sums of an adapter's levels, squares and crosses, and a row with the number of cells."""
        channels, levels = self._adapters[index].in_channels, self._levels[index]
        pairs = [_thinned(student_maps[level], teacher_maps[level], _MOST_CELLS * channels) for level in levels]
        sums = torch.stack([torch.cat(_sums(*pair)) for pair in pairs]).sum(0)
        cells = sum(student[:, 0].numel() for student, _ in pairs)
        return torch.cat([sums, torch.full_like(sums[:1], cells)])


def adapt(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Apply an adapter's weight (Ct, Cs) to maps (B, Cs, H, W) and return maps (B, Ct, H, W)."""
    return F.conv2d(x, weight[:, :, None, None].to(x.dtype))


def _thinned(student: torch.Tensor, teacher: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the same evenly spaced cells of two maps (B, C, H, W), about `most` at the most, as maps (B, C, N, 1)."""
    step = max(student[:, 0].numel() // most, 1)
    thin = [x.detach().flatten(2)[:, :, ::step, None] for x in (student, teacher)]
    return thin[0], thin[1]


def _sums(student: torch.Tensor, teacher: torch.Tensor) -> _Sums:
    """Return the sums over the cells of two maps (B, C, H, W), in float64."""
    pair = [x.cpu() if x.device.type == "mps" else x for x in (student, teacher)]  # has no float64
    own, other = (x.transpose(0, 1).flatten(1).double() for x in pair)
    return own @ own.T, other @ own.T


def _solve(squares: torch.Tensor, crosses: torch.Tensor) -> torch.Tensor:
    """Return the adapter (Ct, Cs) float32 that fits sums best."""
    power = squares.diagonal().mean().clamp(min=1e-12)  # all values of a map can be zero
    ridge = _RIDGE * power * torch.eye(len(squares), dtype=squares.dtype, device=squares.device)
    return torch.linalg.solve(squares + ridge, crosses.T).T.float().contiguous()


def _read(path: Path) -> dict[str, Any] | None:
    """Return the content of an adapters file, or None if it is missing or cannot be read."""
    if not path.is_file():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch raises many types for damaged files; without the file, adapters are fitted
        return None
    return content if isinstance(content, dict) and content.get("format") == _FORMAT else None
