"""DISW, the density-independent scale weight: every object pulls equally, whatever its size or its neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

# Shares are added up as whole numbers of 2**-40: the sums are exact, hence the same in any order and on any device,
# without the float cumulative sum that has no deterministic CUDA kernel. Room for 8 million objects on one cell.
_UNIT = 2.0**40


def density_independent_scale_weight(
    boxes: torch.Tensor,
    batch_index: torch.Tensor,
    batch_size: int,
    input_size: tuple[int, int],
    grid_sizes: Sequence[tuple[int, int]],
) -> list[torch.Tensor]:
    """Build the density-independent scale weight of a batch on the low-frequency grid of every level.

    On a grid of h x w cells a box covers the columns i0..i1 and the rows j0..j1, both ends inclusive, with
    i0 = max(0, floor(x1 * w / W_in)) and i1 = min(w - 1, ceil(x2 * w / W_in)), rows alike. The weight is 1 everywhere;
    every box adds 1 / (number of its cells) to each of its cells, and overlapping boxes add up: so each object adds
    one in total. A box that covers no cell (outside the image, inverted, not a number) adds nothing.

    Boxes are painted at their corners alone and spread by two cumulative sums (a summed-area table run backwards), so
    the cost hardly depends on their number and not at all on the number of channels.

    Args:
        boxes (torch.Tensor): Ground-truth boxes (N, 4) of the whole batch, as x1, y1, x2, y2 in pixels of the padded
            input; any dtype, N may be 0.
        batch_index (torch.Tensor): Index of the image of every box (N,).
        batch_size (int): Number of images B.
        input_size (tuple[int, int]): Height and width of the padded input, in pixels.
        grid_sizes (Sequence[tuple[int, int]]): Height and width of the grid of every level, in cells.

    Returns:
        (list[torch.Tensor]): One float32 weight (B, 1, h, w) per level, on the device of `boxes`.

    Raises:
        ValueError: If `boxes` and `batch_index` are not (N, 4) and (N,).

    Source:
        Section "Density-independent scale weight" of DS2D2 (doi 10.1109/TGRS.2025.3600098); `transform_bboxes` in
        `mmdet/models/distillation/ds2d2_retinanet.py` of the reference, without its rounding to float16.

    Example:
        >>> box = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
        >>> (weight,) = density_independent_scale_weight(box, torch.tensor([0]), 1, (64, 64), [(4, 4)])
        >>> weight[0, 0].tolist()
        [[1.25, 1.25, 1.0, 1.0], [1.25, 1.25, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]]
    """
    if boxes.dim() != 2 or boxes.shape[1] != 4 or batch_index.shape != boxes.shape[:1]:
        raise ValueError(
            "density_independent_scale_weight expects boxes (N, 4) and batch_index (N,), "
            f"got {tuple(boxes.shape)} and {tuple(batch_index.shape)}"
        )
    # Cell borders are found in float64, as the reference finds them: in float32 a box that ends on a border may round
    # into the next cell. Apple's GPUs have no float64.
    boxes = boxes.detach().to(torch.float32 if boxes.device.type == "mps" else torch.float64)
    batch_index = batch_index.long()
    return [_paint(boxes, batch_index, batch_size, input_size, size) for size in grid_sizes]


def focus_weight(weight: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
    """Focus a weight on the cells where the teacher is confident of an object.

    DISW alone is close to 1 nearly everywhere, and background outnumbers objects: an average under it is one over
    background. Multiplied by the confidence it becomes an average over what the teacher sees as objects.

    Args:
        weight (torch.Tensor): Weight (B, 1, h, w).
        confidence (torch.Tensor): The teacher's confidence (B, 1, H, W) in [0, 1], on a grid of any size.

    Returns:
        (torch.Tensor): Weight (B, 1, h, w): `weight` times the highest confidence within each cell.

    Raises:
        ValueError: If the shapes do not fit together.

    Source:
        Not part of the paper; weights by the teacher's class scores are common in feature distillation, Ultralytics'
        own among them.

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
    # The highest, not the mean: the one sure cell of a small object must not be averaged away. Blocks of 2 x 2 are
    # those of the transform, the last ones of odd sides included; longer wavelets have a few cells more at the rim.
    blocks = F.max_pool2d(confidence.detach().float(), 2, ceil_mode=True)
    return weight * (blocks if blocks.shape == weight.shape else F.adaptive_max_pool2d(blocks, weight.shape[2:]))


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
    covered = (columns > 0) & (rows > 0)  # False also where a coordinate is not a number
    share = torch.where(covered, _UNIT / (columns * rows), 0.0).round().long()
    left, right, top, bottom = (torch.where(covered, edge, 0.0).long() for edge in (left, right, top, bottom))

    # One row and one column more than the grid: there the far corners of boxes that reach its end are put.
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
