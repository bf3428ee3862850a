"""What distillation compares in one image, as arrays: bands, weights and errors by level, and differences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ds2d2_yolo.detectors import hulls_of
from ds2d2_yolo.explanation.images import InputImage, Window, boxes_in_input
from ds2d2_yolo.method import decompose, density_independent_scale_weight, explicit_errors, weight_and_divisor

BANDS = ("LL", "LH", "HL", "HH")
"""The bands in the order of `ds2d2_yolo.method.Bands`."""

_CANVAS = 4  # side of a canvas cell, in pixels of the input


@dataclass(frozen=True)
class LevelView:
    """One level of the pyramid, on the grid of its bands.

    Attributes:
        stride (float): Pixels of the input per cell of the map. A cell of the bands is twice as large.
        teacher (dict[str, np.ndarray]): Energy of every band (h, w): root of the mean square over the channels.
        student (dict[str, np.ndarray]): The same of the adapted maps.
        low (np.ndarray): Squared error of LL (h, w), mean over the channels, not weighted.
        high (np.ndarray): Squared error of the detail bands (h, w), mean over channels and bands, not weighted.
        disw (np.ndarray): Density-independent scale weight (h, w).
        weight (np.ndarray): Weight of the errors (h, w). The mean of weight times error is the level's part of a term.
        explained (float): Share of the teacher's energy in this image that the student's adapted map explains, at
            most 1. Below 0 if a map of zeros would be closer.
    """

    stride: float
    teacher: dict[str, np.ndarray]
    student: dict[str, np.ndarray]
    low: np.ndarray
    high: np.ndarray
    disw: np.ndarray
    weight: np.ndarray
    explained: float


@dataclass(frozen=True)
class DifferenceView:
    """Where one head's predictions from the two pyramids differ: (h, w) on a canvas over the input.

    A prediction belongs to a place: the cell of an anchor, or a region. Its difference is spread evenly over this area,
    as DISW spreads an object. The sum over the canvas is the sum over all places.
    """

    classes: np.ndarray
    boxes: np.ndarray


def view_levels(
    image: InputImage,
    student_maps: Sequence[torch.Tensor],
    teacher_maps: Sequence[torch.Tensor],
    strides: Sequence[float],
    window: Window,
    size: tuple[int, int],
    wavelet: str,
    weight: str = "disw",
    confidence: Sequence[torch.Tensor] | None = None,
    hulls: bool = False,
) -> Iterator[LevelView]:
    """Yield what the explicit terms compare, one level after the other.

    Args:
        image (InputImage): The image.
        student_maps (Sequence[torch.Tensor]): The student's maps in the teacher's channels (1, Ct_l, H_l, W_l).
        teacher_maps (Sequence[torch.Tensor]): The teacher's, of the same shapes.
        strides (Sequence[float]): Strides of the levels.
        window (Window): Window of the input, from `model_input`.
        size (tuple[int, int]): Height and width of the input, in pixels.
        wavelet (str): Name of an orthogonal wavelet of PyWavelets.
        weight (str): Weight of the explicit terms, one of `ds2d2_yolo.method.WEIGHTS`.
        confidence (Sequence[torch.Tensor] | None): For weight `confidence`: the teacher's confidence (1, 1, H_l, W_l)
            in [0, 1].
        hulls (bool): Whether the weight of an oriented object covers its upright hull instead of its oriented box.

    Yields:
        (LevelView): The level.
    """
    pairs = list(zip(student_maps, teacher_maps, strict=True))
    errors = [explicit_errors(student, teacher, wavelet) for student, teacher in pairs]
    boxes = torch.from_numpy(boxes_in_input(image.boxes, window, size))
    if hulls:
        boxes = hulls_of(boxes)
    grids = [(low.shape[2], low.shape[3]) for low, _ in errors]
    disws = density_independent_scale_weight(boxes, torch.zeros(len(boxes)), 1, size, grids)
    for level, ((student, teacher), (low, high), disw) in enumerate(zip(pairs, errors, disws, strict=True)):
        used, divisor = weight_and_divisor(weight, disw, None if confidence is None else confidence[level].cpu())
        if divisor is not None:  # the mean of weight times error is the loss
            used = used * used.numel() / divisor
        explained = 1 - (student - teacher).square().sum() / teacher.square().sum().clamp(min=1e-12)
        bands = _energies(teacher, wavelet), _energies(student, wavelet)
        yield LevelView(strides[level], *bands, _array(low), _array(high), _array(disw), _array(used), float(explained))


def spread_over(places: torch.Tensor, values: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    """Spread the value of every place evenly over the canvas cells that it covers.

    Args:
        places (torch.Tensor): Places (N, 4) as xyxy pixels of the input, clipped to it.
        values (torch.Tensor): Values (N,), at least 0.
        size (tuple[int, int]): Height and width of the input, in pixels.

    Returns:
        (np.ndarray): Canvas (h, w) float64, one cell per 4 x 4 pixels. Its sum is the sum of the values inside.

    Example:
        >>> canvas = spread_over(torch.tensor([[0.0, 0.0, 8.0, 8.0]]), torch.tensor([4.0]), (16, 16))
        >>> canvas[0].tolist()
        [1.0, 1.0, 0.0, 0.0]
    """
    height, width = -(-size[0] // _CANVAS), -(-size[1] // _CANVAS)
    corners, amounts = places.cpu().double().numpy() / _CANVAS, values.cpu().double().numpy()
    left, top = (np.clip(np.floor(corners[:, i]), 0, n - 1).astype(int) for i, n in ((0, width), (1, height)))
    right, bottom = (np.clip(np.ceil(corners[:, i]), 1, n).astype(int) for i, n in ((2, width), (3, height)))
    inside = (corners[:, 2] > 0) & (corners[:, 3] > 0) & (corners[:, 0] < width) & (corners[:, 1] < height)
    inside &= (right > left) & (bottom > top)
    left, top, right, bottom = left[inside], top[inside], right[inside], bottom[inside]
    share = amounts[inside] / ((right - left) * (bottom - top))
    table = np.zeros((height + 1, width + 1))
    for rows, columns, sign in ((top, left, 1), (top, right, -1), (bottom, left, -1), (bottom, right, 1)):
        np.add.at(table, (rows, columns), sign * share)
    canvas: np.ndarray = table.cumsum(0).cumsum(1)[:height, :width]
    return canvas.clip(min=0)  # rounding may leave small negative numbers


def _energies(x: torch.Tensor, wavelet: str) -> dict[str, np.ndarray]:
    """Return the root mean square over the channels of every band (h, w) of a map (1, C, H, W)."""
    bands = decompose(x, wavelet)
    return {name: _array(band.square().mean(1, keepdim=True).sqrt()) for name, band in zip(BANDS, bands, strict=True)}


def _array(x: torch.Tensor) -> np.ndarray:
    array: np.ndarray = x[0, 0].float().cpu().numpy()
    return array
