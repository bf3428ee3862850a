"""Adapters after training: kept in a file beside the student, which leaves without them, or fitted anew."""

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
_RIDGE = 1e-3  # of the mean power of the student's channels: enough where cells are fewer than channels


def keep_adapters(path: Path, name: str, student: nn.Module, adapters: nn.Module) -> None:
    """Save the adapters of a student in a small file of tensors and text, beside those of its other checkpoints.

    Args:
        path (Path): The file; it appears complete or not at all.
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
        path (Path): File written by `keep_adapters`; loaded without running any code it might contain.
        student (nn.Module): The student.

    Returns:
        (dict[int, torch.Tensor]): Weights (Ct, Cs) float32 by number of the level; empty where the file is missing, is
            no such file, or is about other students.
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
    """Fit one adapter per level: the linear map without bias that brings the student's maps closest to the teacher's.

    What is minimised is the squared error over all cells (ridge regression, in float64), which with Haar is the sum of
    both explicit terms without their weight.

    Args:
        maps (Iterable): Student's (B, Cs_l, H_l, W_l) and teacher's maps (B, Ct_l, H_l, W_l), image by image; they are
            not kept.

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
        power = squares.diagonal().mean().clamp(min=1e-12)  # maps may be zero throughout
        ridge = _RIDGE * power * torch.eye(len(squares), dtype=squares.dtype, device=squares.device)
        fitted.append(torch.linalg.solve(squares + ridge, crosses.T).T.float().contiguous())
    return fitted


def adapt(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return maps (B, Cs, H, W) brought to the teacher's channels by an adapter's weight (Ct, Cs)."""
    return F.conv2d(x, weight[:, :, None, None].to(x.dtype))


def _read(path: Path) -> dict[str, Any] | None:
    """Return the content of an adapters file, or None where there is none that can be read."""
    if not path.is_file():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch raises many kinds for files that are no archive; without the file, adapters are fitted
        return None
    return content if isinstance(content, dict) and content.get("format") == _FORMAT else None
