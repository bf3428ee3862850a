"""Adapters after training: saved in a file next to the student, or fitted again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ds2d2_yolo.files import whole_file
from ds2d2_yolo.loading.fingerprint import fingerprint_of_model

_FORMAT = "ds2d2-adapters"
_RIDGE = 1e-3  # times the mean power of the student's channels: enough for fewer cells than channels


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
    products: list[tuple[torch.Tensor, torch.Tensor]] = []
    for student_maps, teacher_maps in maps:
        rows = [
            [x.transpose(0, 1).flatten(1).double() for x in pair]
            for pair in zip(student_maps, teacher_maps, strict=True)
        ]
        new = [(student @ student.T, teacher @ student.T) for student, teacher in rows]
        products = [(a + c, b + d) for (a, b), (c, d) in zip(products, new, strict=True)] if products else new
    fitted = []
    for squares, crosses in products:
        power = squares.diagonal().mean().clamp(min=1e-12)  # all values of a map can be zero
        ridge = _RIDGE * power * torch.eye(len(squares), dtype=squares.dtype, device=squares.device)
        fitted.append(torch.linalg.solve(squares + ridge, crosses.T).T.float().contiguous())
    return fitted


def adapt(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Apply an adapter's weight (Ct, Cs) to maps (B, Cs, H, W) and return maps (B, Ct, H, W)."""
    return F.conv2d(x, weight[:, :, None, None].to(x.dtype))


def _read(path: Path) -> dict[str, Any] | None:
    """Return the content of an adapters file, or None if it is missing or cannot be read."""
    if not path.is_file():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch raises many types for damaged files; without the file, adapters are fitted
        return None
    return content if isinstance(content, dict) and content.get("format") == _FORMAT else None
