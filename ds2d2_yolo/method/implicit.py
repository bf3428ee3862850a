"""Implicit terms: differences of features as a frozen head sees them, that is, as differences of predictions.

Two shapes of prediction exist: dense ones (one prediction per anchor: YOLO, RetinaNet) and those of regions of interest
(Faster R-CNN). All functions take tensors and return scalars; running the head is the caller's business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F

from ds2d2_yolo.method.wavelet import at_least_float32

# The reference guards its normalisers with the float32 machine epsilon, and its unions and hulls with 1e-6.
_EPSILON = torch.finfo(torch.float32).eps
_AREA_EPSILON = 1e-6


Similarity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""How much pairs of decoded boxes (..., K) are alike: values (...), 1 where they are the same."""


class DensePredictions(NamedTuple):
    """What a dense head says of every anchor: class `logits` (B, A, C) and decoded `boxes` (B, A, K).

    What boxes consist of is between the head and the `Similarity` that compares them; for `generalized_iou` they are
    (B, A, 4), xyxy pixels, and never inverted.
    """

    logits: torch.Tensor
    boxes: torch.Tensor


class RegionPredictions(NamedTuple):
    """What a region head says of every RoI: `logits` (R, C + 1), background last, and `deltas` (R, C, 4) per class."""

    logits: torch.Tensor
    deltas: torch.Tensor


_PredictionsT = TypeVar("_PredictionsT", DensePredictions, RegionPredictions)


def quality_focal_loss(
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    avg_factor: torch.Tensor | float,
    label_weights: torch.Tensor | None = None,
    beta: float = 1.0,
) -> torch.Tensor:
    """Return the sum over anchors and classes of BCE(z_s, sigmoid(z_t)) * |sigmoid(z_s) - sigmoid(z_t)|^beta.

    Args:
        student_logits (torch.Tensor): Class logits (..., C).
        teacher_logits (torch.Tensor): Class logits of the teacher (..., C); no gradient flows to them.
        avg_factor (torch.Tensor | float): What the sum is divided by: the number of positive anchors.
        label_weights (torch.Tensor | None): Weight per anchor (...); None counts every anchor.
        beta (float): Exponent of the modulating factor.

    Returns:
        (torch.Tensor): Scalar, float32 (float64 for float64 logits).

    Source:
        `KD_QualityFocalLoss` of the reference, after arXiv 2006.04388.

    Example:
        >>> quality_focal_loss(torch.zeros(2, 3), torch.zeros(2, 3), 1.0).item()
        0.0
    """
    loss = _quality_focal(student_logits, teacher_logits, beta)
    if label_weights is not None:
        loss = loss * label_weights.unsqueeze(-1)
    return loss.sum() / (avg_factor + _EPSILON)


def generalized_iou(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the generalised intersection over union of pairs of boxes; finite for empty and inverted ones too.

    Of inverted boxes, whose hull may be smaller than they are, it has no bound, as in the reference: a loss of them
    could be lowered for ever. So families decode proper ones.

    `torchvision.ops` has one with another guard against empty unions, and it waits for the device to index a mask.

    Args:
        first (torch.Tensor): Boxes (..., 4) as xyxy.
        second (torch.Tensor): Boxes (..., 4) as xyxy.

    Returns:
        (torch.Tensor): Values (...), in [-1, 1] for proper boxes.

    Source:
        `GIoULoss(eps=1e-6)` as the reference calls it, after arXiv 1902.09630.

    Example:
        >>> box = torch.tensor([0.0, 0.0, 2.0, 2.0])
        >>> generalized_iou(box, box).item()
        1.0
    """
    first_min, first_max = first[..., :2], first[..., 2:]
    second_min, second_max = second[..., :2], second[..., 2:]
    overlap = (torch.minimum(first_max, second_max) - torch.maximum(first_min, second_min)).clamp(min=0).prod(-1)
    union = (first_max - first_min).prod(-1) + (second_max - second_min).prod(-1) - overlap
    hull = (torch.maximum(first_max, second_max) - torch.minimum(first_min, second_min)).clamp(min=0).prod(-1)
    union, hull = union.clamp(min=_AREA_EPSILON), hull.clamp(min=_AREA_EPSILON)
    return overlap / union - (hull - union) / hull


def similarity_loss(
    student_boxes: torch.Tensor,
    teacher_boxes: torch.Tensor,
    weights: torch.Tensor,
    avg_factor: torch.Tensor | float,
    similarity: Similarity = generalized_iou,
) -> torch.Tensor:
    """Return the weighted sum of 1 - similarity over pairs of boxes, divided by `avg_factor`.

    Args:
        student_boxes (torch.Tensor): Decoded boxes (..., K), such as xyxy pixels.
        teacher_boxes (torch.Tensor): Decoded boxes of the teacher (..., K); no gradient flows to them.
        weights (torch.Tensor): Weight per pair (...).
        avg_factor (torch.Tensor | float): What the sum is divided by: the number of positive anchors.
        similarity (Similarity): How boxes are compared.

    Returns:
        (torch.Tensor): Scalar, float32 (float64 for float64 boxes).

    Source:
        `GIoULoss` as called by `implicit` in `mmdet/models/distillation/ds2d2_retinanet.py` of the reference.

    Example:
        >>> box = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        >>> similarity_loss(box, box, torch.ones(1), 1.0).item()
        0.0
    """
    return (_dissimilarity(student_boxes, teacher_boxes.detach(), similarity) * weights).sum() / (avg_factor + _EPSILON)


def dense_implicit_terms(
    student: DensePredictions,
    teacher: DensePredictions,
    avg_factor: torch.Tensor | float,
    label_weights: torch.Tensor | None = None,
    similarity: Similarity = generalized_iou,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compare dense predictions from student and teacher features through one frozen head.

    Boxes of all anchors are compared, weighted by the teacher's highest class probability; classes of those anchors
    that `label_weights` counts.

    Args:
        student (DensePredictions): Predictions from the student's features.
        teacher (DensePredictions): Predictions from the teacher's features, of the same shapes.
        avg_factor (torch.Tensor | float): Number of positive anchors (at least one per image) under the student's own
            assigner.
        label_weights (torch.Tensor | None): Weight per anchor (B, A) of the class term: 0 for anchors that the assigner
            ignores; None counts all.
        similarity (Similarity): How boxes are compared.

    Returns:
        classes (torch.Tensor): Quality focal loss, a scalar.
        boxes (torch.Tensor): Loss of the boxes' similarity, a scalar.

    Raises:
        ValueError: If the shapes of the two predictions differ.

    Source:
        Section "Implicit terms" of DS2D2 (doi 10.1109/TGRS.2025.3600098); `implicit` in
        `mmdet/models/distillation/ds2d2_retinanet.py` of the reference.

    Example:
        >>> same = DensePredictions(torch.zeros(1, 2, 3), torch.tensor([[[0.0, 0.0, 2.0, 2.0], [1.0, 1.0, 4.0, 4.0]]]))
        >>> [term.item() for term in dense_implicit_terms(same, same, 1.0)]
        [0.0, 0.0]
    """
    _check_shapes("dense_implicit_terms", student, teacher)
    confidence = at_least_float32(teacher.logits.detach()).amax(-1).sigmoid()
    classes = quality_focal_loss(student.logits, teacher.logits, avg_factor, label_weights)
    return classes, similarity_loss(student.boxes, teacher.boxes, confidence, avg_factor, similarity)


def dense_differences(
    student: DensePredictions, teacher: DensePredictions, similarity: Similarity = generalized_iou
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the dense implicit terms are sums of, anchor by anchor.

    Args:
        student (DensePredictions): Predictions from the student's features.
        teacher (DensePredictions): Predictions from the teacher's features, of the same shapes.
        similarity (Similarity): How boxes are compared.

    Returns:
        classes (torch.Tensor): Quality focal loss summed over the classes (B, A).
        boxes (torch.Tensor): 1 - similarity times the teacher's highest class probability (B, A).

    Example:
        >>> same = DensePredictions(torch.zeros(1, 2, 3), torch.tensor([[[0.0, 0.0, 2.0, 2.0], [1.0, 1.0, 4.0, 4.0]]]))
        >>> [difference.sum().item() for difference in dense_differences(same, same)]
        [0.0, 0.0]
    """
    confidence = at_least_float32(teacher.logits).amax(-1).sigmoid()
    boxes = _dissimilarity(student.boxes, teacher.boxes, similarity)
    return _quality_focal(student.logits, teacher.logits, 1.0).sum(-1), boxes * confidence


def region_differences(student: RegionPredictions, teacher: RegionPredictions) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the implicit terms of regions are sums of, region by region.

    Args:
        student (RegionPredictions): Predictions from RoIs pooled from the student's features.
        teacher (RegionPredictions): Predictions from the same RoIs pooled from the teacher's features.

    Returns:
        classes (torch.Tensor): KL divergence at temperature 3 (R,).
        boxes (torch.Tensor): Mean absolute difference of the deltas of the teacher's most probable foreground class,
            times that probability (R,).

    Example:
        >>> same = RegionPredictions(torch.zeros(2, 4), torch.zeros(2, 3, 4))
        >>> [difference.tolist() for difference in region_differences(same, same)]
        [[0.0, 0.0], [0.0, 0.0]]
    """
    weights, distance = _region_distance(student, teacher)
    return kl_divergence(student.logits, teacher.logits), weights * distance.mean(1)


def kl_divergence(student_logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float = 3.0) -> torch.Tensor:
    """Return KL(softmax(teacher / T) || softmax(student / T)) * T^2 of every row.

    Args:
        student_logits (torch.Tensor): Class logits (R, C).
        teacher_logits (torch.Tensor): Class logits of the teacher (R, C); no gradient flows to them.
        temperature (float): T.

    Returns:
        (torch.Tensor): Divergences (R,), float32 (float64 for float64 logits).

    Source:
        `KD_KLDivLoss` of the reference, after arXiv 1503.02531.

    Example:
        >>> kl_divergence(torch.zeros(2, 3), torch.zeros(2, 3)).tolist()
        [0.0, 0.0]
    """
    student_log = F.log_softmax(at_least_float32(student_logits) / temperature, dim=1)
    teacher_log = F.log_softmax(at_least_float32(teacher_logits.detach()) / temperature, dim=1)
    divergence = F.kl_div(student_log, teacher_log, reduction="none", log_target=True).sum(1)
    return divergence * temperature**2


def region_implicit_terms(
    student: RegionPredictions,
    teacher: RegionPredictions,
    temperature: float = 3.0,
    class_factor: torch.Tensor | float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compare the predictions of a frozen region head for the same RoIs pooled from student and teacher features.

    classes = 0.5 * class_factor * mean over RoIs of the KL divergence; boxes = L1 between the deltas of the teacher's
    most probable foreground class, weighted by that probability and divided by four times the sum of the weights.

    Args:
        student (RegionPredictions): Predictions from RoIs pooled from the student's features.
        teacher (RegionPredictions): Predictions from the same RoIs pooled from the teacher's features.
        temperature (float): T of the class term.
        class_factor (torch.Tensor | float): Factor of the class term. 1 gives a mean over RoIs. The reference passes
            its normaliser in the place of a weight and so computes a sum: for its coefficients, pass the number of
            sampled RoIs, counting at least one positive and one negative per image.

    Returns:
        classes (torch.Tensor): Scalar.
        boxes (torch.Tensor): Scalar.

    Raises:
        ValueError: If the shapes of the two predictions differ.

    Source:
        Section "Implicit terms" of DS2D2 (doi 10.1109/TGRS.2025.3600098); `implicit` in
        `mmdet/models/distillation/ds2d2_faster_rcnn.py` of the reference.

    Example:
        >>> same = RegionPredictions(torch.zeros(2, 4), torch.zeros(2, 3, 4))
        >>> [term.item() for term in region_implicit_terms(same, same)]
        [0.0, 0.0]
    """
    _check_shapes("region_implicit_terms", student, teacher)
    count = max(student.logits.shape[0], 1)
    classes = 0.5 * class_factor * kl_divergence(student.logits, teacher.logits, temperature).sum() / count

    weights, distance = _region_distance(student, teacher)
    boxes = (distance * weights[:, None]).sum() / (4 * weights.sum() + _EPSILON)
    return classes, boxes


def _check_shapes(function: str, student: _PredictionsT, teacher: _PredictionsT) -> None:
    pairs = {name: (getattr(student, name).shape, getattr(teacher, name).shape) for name in student._fields}
    if any(first != second for first, second in pairs.values()):
        shapes = ", ".join(f"{name} {tuple(first)} and {tuple(second)}" for name, (first, second) in pairs.items())
        raise ValueError(f"{function} expects predictions of one shape, got {shapes}")


def _quality_focal(student_logits: torch.Tensor, teacher_logits: torch.Tensor, beta: float) -> torch.Tensor:
    """Return the quality focal loss of every anchor and class, of the logits' shape."""
    # In float32 at least: sums over 10^5 anchors of values near 1e-4 vanish in half precision.
    student_logits, target = at_least_float32(student_logits), at_least_float32(teacher_logits.detach()).sigmoid()
    entropy = F.binary_cross_entropy_with_logits(student_logits, target, reduction="none")
    distance = (student_logits.sigmoid() - target).abs()
    return entropy * (distance if beta == 1.0 else distance.pow(beta))


def _dissimilarity(student: torch.Tensor, teacher: torch.Tensor, similarity: Similarity) -> torch.Tensor:
    """Return 1 - similarity of pairs of boxes (..., K)."""
    # In float32 at least: bfloat16 knows pixel coordinates beyond 256 to 2 px only.
    return 1 - similarity(at_least_float32(student), at_least_float32(teacher))


def _region_distance(student: RegionPredictions, teacher: RegionPredictions) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the teacher's highest foreground probability (R,), and how that class's deltas differ (R, 4)."""
    probabilities = at_least_float32(teacher.logits.detach()).softmax(1)[:, :-1]
    weights, best = probabilities.max(1)
    chosen = best[:, None, None].expand(-1, 1, 4)
    distance = at_least_float32(student.deltas).gather(1, chosen) - teacher.deltas.detach().gather(1, chosen)
    return weights, distance.abs().squeeze(1)
