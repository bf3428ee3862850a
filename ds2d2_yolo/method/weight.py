"""DISW, the density-independent scale weight: every object has equal influence, for any size and any neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

# Shares are integers in units of 2**-40. So the sums are exact and do not depend on order or device. CUDA has no
# deterministic cumulative sum for floats. A cell can hold 8 million objects.
_UNIT = 2.0**40

_EPSILON = 1e-9  # minimum of the sum of weights, if the teacher's confidence is 0 everywhere


def density_independent_scale_weight(
    boxes: torch.Tensor,
    batch_index: torch.Tensor,
    batch_size: int,
    input_size: tuple[int, int],
    grid_sizes: Sequence[tuple[int, int]],
) -> list[torch.Tensor]:
    """Build the density-independent scale weight of a batch on the low-frequency grid of every level.

    The weight is 1 everywhere. Every box adds 1 / (number of its cells) to each of its cells, so each object adds 1 in
    total. Overlapping boxes add up.

    - A box on a grid of h x w cells covers the columns i0..i1 and the rows j0..j1, both ends inclusive. Here
      i0 = max(0, floor(x1 * w / W_in)) and i1 = min(w - 1, ceil(x2 * w / W_in)). Rows use the same formulas.
    - An oriented box covers the cells whose centres are inside it. If there are none, it covers the cell of its centre.
    - A box without cells adds nothing: it is outside the image, inverted or not a number.

    Boxes are marked at their corners only, and two cumulative sums fill them (an inverse summed-area table). So the
    cost hardly depends on the number of boxes, and not on the number of channels. Oriented boxes are marked at both
    ends of every row of cells, and one cumulative sum fills them.

    Args:
        boxes (torch.Tensor): Ground-truth boxes of the whole batch, any dtype, N may be 0. Boxes (N, 4) are x1, y1, x2,
            y2 in pixels of the padded input. Oriented boxes (N, 5) are centre x, centre y, width, height in pixels,
            angle in radians. The angle rotates the width's side from x towards y.
        batch_index (torch.Tensor): Index of every box's image (N,).
        batch_size (int): Number of images B.
        input_size (tuple[int, int]): Height and width of the padded input, in pixels.
        grid_sizes (Sequence[tuple[int, int]]): Height and width of the grid of every level, in cells.

    Returns:
        (list[torch.Tensor]): One float32 weight (B, 1, h, w) per level, on the device of `boxes`.

    Raises:
        ValueError: If `boxes` and `batch_index` are not (N, 4) or (N, 5) and (N,).

    Source:
        Section "Density-independent scale weight" of DS2D2 (doi 10.1109/TGRS.2025.3600098); `transform_bboxes` in
        `mmdet/models/distillation/ds2d2_retinanet.py` of the reference, without its rounding to float16. Oriented boxes
        are not part of the paper.

    Example:
        >>> box = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
        >>> (weight,) = density_independent_scale_weight(box, torch.tensor([0]), 1, (64, 64), [(4, 4)])
        >>> weight[0, 0].tolist()
        [[1.25, 1.25, 1.0, 1.0], [1.25, 1.25, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]]
    """
    if boxes.dim() != 2 or boxes.shape[1] not in {4, 5} or batch_index.shape != boxes.shape[:1]:
        raise ValueError(
            "density_independent_scale_weight expects boxes (N, 4) or (N, 5) and batch_index (N,), "
            f"got {tuple(boxes.shape)} and {tuple(batch_index.shape)}"
        )
    # Cell borders are computed in float64, as in the reference. In float32, a box that ends on a border may round into
    # the next cell. Apple's GPUs have no float64.
    boxes = boxes.detach().to(torch.float32 if boxes.device.type == "mps" else torch.float64)
    batch_index = batch_index.long()
    paint = _paint if boxes.shape[1] == 4 else _paint_oriented
    return [paint(boxes, batch_index, batch_size, input_size, size) for size in grid_sizes]


def focus_weight(weight: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
    """Multiply a weight by the teacher's confidence, so that it focuses on objects.

    DISW alone is close to 1 nearly everywhere. As most cells are background, its mean is mostly a mean over background.
    With the confidence it becomes a mean over the objects that the teacher detects.

    Args:
        weight (torch.Tensor): Weight (B, 1, h, w).
        confidence (torch.Tensor): The teacher's confidence (B, 1, H, W) in [0, 1], on a grid of any size.

    Returns:
        (torch.Tensor): Weight (B, 1, h, w): `weight` times the highest confidence within each cell.

    Raises:
        ValueError: If the shapes do not match.

    Source:
        Not part of the paper. Weights by the teacher's class scores are common in feature distillation, for example in
        Ultralytics' own.

    Example:
        >>> confidence = torch.tensor([[[[0.0, 0.5, 0.0], [0.0, 0.0, 0.0]]]])
        >>> focus_weight(torch.ones(1, 1, 1, 2), confidence).tolist()
        [[[[0.5, 0.0]]]]
    """
    if weight.dim() != 4 or weight.shape[:2] != confidence.shape[:2] or weight.shape[1] != 1:
        raise ValueError(
            "focus_weight expects weight (B, 1, h, w) and confidence (B, 1, H, W), "
            f"got {tuple(weight.shape)} and {tuple(confidence.shape)}"
        )
    # The maximum, not the mean: it keeps the single confident cell of a small object. The blocks of 2 x 2 are those of
    # the Haar transform, also for odd sides. Longer wavelets have a few more cells at the border.
    blocks = F.max_pool2d(confidence.detach().float(), 2, ceil_mode=True)
    return weight * (blocks if blocks.shape == weight.shape else F.adaptive_max_pool2d(blocks, weight.shape[2:]))


def weight_and_divisor(
    kind: str, disw: torch.Tensor, confidence: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the weight of one level's explicit terms, and the divisor of the weighted sums over its cells.

    Args:
        kind (str): One of `WEIGHTS`.
        disw (torch.Tensor): Density-independent scale weight (B, 1, h, w).
        confidence (torch.Tensor | None): As for `focus_weight`. Needed for `confidence`.

    Returns:
        weight (torch.Tensor): The weight (B, 1, h, w).
        divisor (torch.Tensor | None): The sum of the weight, a scalar. None for the number of cells.

    Raises:
        ValueError: If the confidence is needed and missing.
    """
    if kind != "confidence":
        return disw if kind == "disw" else torch.ones_like(disw), None
    if confidence is None:
        raise ValueError("weight=confidence: LossInputs needs the teacher's confidence, confidence=")
    weight = focus_weight(disw, confidence)
    return weight, weight.sum().clamp(min=_EPSILON)


def _paint(
    boxes: torch.Tensor,
    batch_index: torch.Tensor,
    batch_size: int,
    input_size: tuple[int, int],
    grid_size: tuple[int, int],
) -> torch.Tensor:
    """Return the weight (B, 1, h, w) of one level."""
    height, width = grid_size
    x1, y1, x2, y2 = boxes.unbind(1)
    scale_x, scale_y = width / input_size[1], height / input_size[0]
    left, right = (x1 * scale_x).floor().clamp(min=0), (x2 * scale_x).ceil().clamp(max=width - 1) + 1
    top, bottom = (y1 * scale_y).floor().clamp(min=0), (y2 * scale_y).ceil().clamp(max=height - 1) + 1
    columns, rows = right - left, bottom - top
    covered = (columns > 0) & (rows > 0)  # also False if a coordinate is not a number
    share = torch.where(covered, _UNIT / (columns * rows), 0.0).round().long()
    left, right, top, bottom = (torch.where(covered, edge, 0.0).long() for edge in (left, right, top, bottom))

    # One extra row and column, for the far corners of boxes that end at the border of the grid.
    first = batch_index * (height + 1)
    corners = torch.cat(
        [
            (first + row) * (width + 1) + column
            for row, column in ((top, left), (top, right), (bottom, left), (bottom, right))
        ]
    )
    table = torch.zeros(batch_size * (height + 1) * (width + 1), dtype=torch.long, device=boxes.device)
    table.index_add_(0, corners, torch.cat([share, -share, -share, share]))
    table = table.view(batch_size, 1, height + 1, width + 1).cumsum(2).cumsum(3)
    return (1.0 + table[:, :, :height, :width] / _UNIT).float()


def _paint_oriented(
    boxes: torch.Tensor,
    batch_index: torch.Tensor,
    batch_size: int,
    input_size: tuple[int, int],
    grid_size: tuple[int, int],
) -> torch.Tensor:
    """Return the weight (B, 1, h, w) of one level for oriented boxes (N, 5)."""
    height, width = grid_size
    step_x, step_y = input_size[1] / width, input_size[0] / height
    x, y, w, h, angle = boxes.unsqueeze(2).unbind(1)  # (N, 1) each
    cos, sin = angle.cos(), angle.sin()

    # A box is the intersection of two strips, each between two opposite sides. A row of cells enters and leaves each
    # strip at one x. It is inside the box between the later entry and the earlier exit.
    rows = torch.arange(height, dtype=boxes.dtype, device=boxes.device)
    away = (rows + 0.5) * step_y - y  # (N, h)
    across, along = _crossing(cos, away * sin, w / 2), _crossing(-sin, away * cos, h / 2)
    entry, leaving = torch.maximum(across[0], along[0]), torch.minimum(across[1], along[1])
    left = ((x + entry) / step_x - 0.5).ceil().clamp(0, width)
    right = ((x + leaving) / step_x - 0.5).floor().clamp(-1, width - 1) + 1
    cells = (right - left).clamp(min=0).sum(1, keepdim=True)

    # Boxes without a cell centre: too small, or only their edge is inside the image
    half_x, half_y = ((w * cos).abs() + (h * sin).abs()) / 2, ((w * sin).abs() + (h * cos).abs()) / 2
    inside = (x + half_x >= 0) & (x - half_x <= input_size[1]) & (y + half_y >= 0) & (y - half_y <= input_size[0])
    alone = (cells == 0) & inside & (w >= 0) & (h >= 0)
    column = (x / step_x).floor().clamp(0, width - 1)
    here = alone & (rows == (y / step_y).floor().clamp(0, height - 1))
    left, right = torch.where(here, column, left), torch.where(here, column + 1, right)
    cells = torch.where(alone, 1.0, cells)

    covered = (right > left) & torch.isfinite(boxes).all(1, keepdim=True)
    share = torch.where(covered, _UNIT / cells, 0.0).round().long()
    left, right = (torch.where(covered, edge, 0.0).long() for edge in (left, right))
    first = (batch_index[:, None] * height + rows.long()) * (width + 1)  # one extra column for ends at the border
    table = torch.zeros(batch_size * height * (width + 1), dtype=torch.long, device=boxes.device)
    table.index_add_(0, torch.cat([first + left, first + right]).flatten(), torch.cat([share, -share]).flatten())
    table = table.view(batch_size, 1, height, width + 1).cumsum(3)
    return (1.0 + table[..., :width] / _UNIT).float()


def _crossing(slope: torch.Tensor, offset: torch.Tensor, half: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the interval of t (N, h) with |slope * t + offset| <= half. Empty intervals are inverted."""
    level = slope.abs() < 1e-9  # radians: 1e-5 pixels over 10,000 pixels
    slope = torch.where(level, 1.0, slope)
    middle, reach = -offset / slope, half / slope.abs()
    always = torch.where(offset.abs() <= half, -torch.inf, torch.inf)
    return torch.where(level, always, middle - reach), torch.where(level, -always, middle + reach)
