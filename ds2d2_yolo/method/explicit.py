"""Explicit terms: weighted differences of student and teacher features, separately for low and high frequencies."""

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
    """Return the low-frequency and the high-frequency explicit term of one level.

    - low = mean over (B, C, h, w) of (LL(student) - LL(teacher))^2 * weight
    - high = mean over (B, C, 3, h, w) of (H(student) - H(teacher))^2 * weight, where H are the three detail bands

    The transform is linear, so the difference is transformed once. With weight 1, Haar and even sides, low + 3 * high
    is four times the mean squared error.

    Args:
        student (torch.Tensor): Adapted student features (B, C, H, W).
        teacher (torch.Tensor): Teacher features (B, C, H, W).
        weight (torch.Tensor): Density-independent scale weight (B, 1, h, w) on the grid of the bands.
        wavelet (str): Name of an orthogonal wavelet of PyWavelets.
        avg_factor (torch.Tensor | float | None): Divisor of the weighted sum over cells. None means the number of
            cells, B * h * w. The sum of the weights gives a weighted mean.

    Returns:
        low (torch.Tensor): Scalar, float32 (float64 for float64 features).
        high (torch.Tensor): Scalar of the same dtype.

    Raises:
        ValueError: If the shapes do not match.

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
    # The channels are averaged first, which saves a product of shape (B, C, h, w).
    cells = low.numel() if avg_factor is None else avg_factor
    return (low * weight).sum() / cells, (high * weight).sum() / cells


def explicit_errors(
    student: torch.Tensor, teacher: torch.Tensor, wavelet: str = "haar"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the squared differences of one level for every cell. The explicit terms are their weighted means.

    Args:
        student (torch.Tensor): Adapted student features (B, C, H, W).
        teacher (torch.Tensor): Teacher features (B, C, H, W).
        wavelet (str): Name of an orthogonal wavelet of PyWavelets.

    Returns:
        low (torch.Tensor): Mean over the channels of (LL(student) - LL(teacher))^2, (B, 1, h, w), float32 (float64 for
            float64 features).
        high (torch.Tensor): Mean over the channels and the three detail bands, of the same shape and dtype.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> low, high = explicit_errors(torch.ones(1, 4, 8, 8), torch.zeros(1, 4, 8, 8))
        >>> tuple(low.shape), low.max().item(), high.max().item()
        ((1, 1, 4, 4), 4.0, 0.0)
    """
    if student.shape != teacher.shape:
        raise ValueError(
            "expected student and teacher features of the same shape, "
            f"got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    # At least float32: half precision overflows if a difference above 256 is squared.
    ll, lh, hl, hh = decompose(at_least_float32(student) - at_least_float32(teacher), wavelet)
    detail = lh.square() + hl.square() + hh.square()
    return ll.square().mean(1, keepdim=True), detail.mean(1, keepdim=True) / 3
