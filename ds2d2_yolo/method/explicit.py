"""Explicit terms: features of student and teacher, compared band by band under the density-independent scale weight."""

from __future__ import annotations

import torch

from ds2d2_yolo.method.wavelet import at_least_float32, decompose


def explicit_terms(
    student: torch.Tensor,
    teacher: torch.Tensor,
    weight: torch.Tensor,
    wavelet: str = "haar",
    avg_factor: torch.Tensor | float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the low- and the high-frequency explicit term of one level.

    low = mean over (B, C, h, w) of (LL(student) - LL(teacher))^2 * weight and high = mean over (B, C, 3, h, w) of
    (H(student) - H(teacher))^2 * weight, H being the three detail bands. The transform is linear, so one transform of
    the difference serves both. With weight 1, Haar and even sides, low + 3 * high is four times the mean squared error.

    Args:
        student (torch.Tensor): Adapted student features (B, C, H, W).
        teacher (torch.Tensor): Teacher features (B, C, H, W).
        weight (torch.Tensor): Density-independent scale weight (B, 1, h, w) on the grid of the bands.
        wavelet (str): Name of an orthogonal wavelet of PyWavelets.
        avg_factor (torch.Tensor | float | None): What the weighted sum over cells is divided by, in place of their
            number B * h * w. The sum of the weights makes it a weighted mean.

    Returns:
        low (torch.Tensor): Scalar, float32 (float64 for float64 features).
        high (torch.Tensor): Scalar of the same dtype.

    Raises:
        ValueError: If the shapes do not fit together.

    Source:
        Section "Explicit terms" of DS2D2 (doi 10.1109/TGRS.2025.3600098); `explicit` in
        `mmdet/models/distillation/ds2d2_retinanet.py` of the reference.

    Example:
        >>> student, teacher = torch.ones(1, 4, 8, 8), torch.zeros(1, 4, 8, 8)
        >>> low, high = explicit_terms(student, teacher, torch.ones(1, 1, 4, 4))
        >>> low.item(), high.item()
        (4.0, 0.0)
    """
    low, high = explicit_errors(student, teacher, wavelet)
    if weight.shape != low.shape:
        raise ValueError(f"explicit_terms expects a weight of shape {tuple(low.shape)}, got {tuple(weight.shape)}")
    # Channels are gone before the weight comes: it has none, and a (B, C, h, w) product less is read.
    cells = low.numel() if avg_factor is None else avg_factor
    return (low * weight).sum() / cells, (high * weight).sum() / cells


def explicit_errors(
    student: torch.Tensor, teacher: torch.Tensor, wavelet: str = "haar"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the explicit terms of one level are weighted means of: squared differences, cell by cell.

    Args:
        student (torch.Tensor): Adapted student features (B, C, H, W).
        teacher (torch.Tensor): Teacher features (B, C, H, W).
        wavelet (str): Name of an orthogonal wavelet of PyWavelets.

    Returns:
        low (torch.Tensor): Mean over the channels of (LL(student) - LL(teacher))^2, (B, 1, h, w), float32 (float64 for
            float64 features).
        high (torch.Tensor): Mean over the channels and the three detail bands, likewise.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> low, high = explicit_errors(torch.ones(1, 4, 8, 8), torch.zeros(1, 4, 8, 8))
        >>> tuple(low.shape), low.max().item(), high.max().item()
        ((1, 1, 4, 4), 4.0, 0.0)
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"expected student and teacher features of one shape, got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    # In float32 at least: half precision overflows where a difference beyond 256 is squared.
    ll, lh, hl, hh = decompose(at_least_float32(student) - at_least_float32(teacher), wavelet)
    detail = lh.square() + hl.square() + hh.square()
    return ll.square().mean(1, keepdim=True), detail.mean(1, keepdim=True) / 3
