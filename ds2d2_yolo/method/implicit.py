"""Implicit terms: a frozen head predicts from student and teacher features, and the predictions are compared.

There are two types of predictions: dense ones, one per anchor (YOLO, RetinaNet), and those for regions of interest
(Faster R-CNN). All functions take predictions. The caller runs the head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F

from ds2d2_yolo.method.wavelet import at_least_float32

# The reference adds the float32 machine epsilon to divisors, and 1e-6 is the minimum of unions and hulls.
_EPSILON = torch.finfo(torch.float32).eps
_AREA_EPSILON = 1e-6


Similarity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Similarity of pairs of decoded boxes (..., K): values (...), 1 for equal boxes."""


class DensePredictions(NamedTuple):
    """Predictions of a dense head for every anchor: class `logits` (B, A, C) and decoded `boxes` (B, A, K).

    The format of the boxes depends on the `Similarity`. `generalized_iou` needs boxes (B, A, 4) as xyxy in pixels that
    are never inverted.
    """

    logits: torch.Tensor
    boxes: torch.Tensor


class RegionPredictions(NamedTuple):
    """Predictions of a region head for every RoI: `logits` (R, C + 1), background last, and `deltas` (R, C, 4)."""

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
        teacher_logits (torch.Tensor): Class logits of the teacher (..., C), detached here.
        avg_factor (torch.Tensor | float): Divisor of the sum: the number of positive anchors.
        label_weights (torch.Tensor | None): Weight per anchor (...). None means 1 for all.
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
    """Return the generalised intersection over union of pairs of boxes. Empty and inverted boxes give finite values.

    For inverted boxes it has no upper bound, as in the reference, because their hull can be smaller than their union. A
    loss without lower bound would be the result. So families must decode boxes that are not inverted.

    The version in `torchvision.ops` handles empty unions differently and waits for the device.

    Args:
        first (torch.Tensor): Boxes (..., 4) as xyxy.
        second (torch.Tensor): Boxes (..., 4) as xyxy.

    Returns:
        (torch.Tensor): Values (...), in [-1, 1] for boxes that are not inverted.

    Source:
        `GIoULoss(eps=1e-6)` of the reference, after arXiv 1902.09630.

    Example:
        >>> box = torch.tensor([0.0, 0.0, 2.0, 2.0])
        >>> generalized_iou(box, box).item()
        1.0
    """
    first_min, first_max = first[..., :2], first[..., 2:]
    second_min, second_max = second[..., :2], second[..., 2:]
    overlap = _area((torch.minimum(first_max, second_max) - torch.maximum(first_min, second_min)).clamp(min=0))
    union = _area(first_max - first_min) + _area(second_max - second_min) - overlap
    hull = _area((torch.maximum(first_max, second_max) - torch.minimum(first_min, second_min)).clamp(min=0))
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
        student_boxes (torch.Tensor): Decoded boxes (..., K), such as xyxy in pixels.
        teacher_boxes (torch.Tensor): Decoded boxes of the teacher (..., K), detached here.
        weights (torch.Tensor): Weight per pair (...).
        avg_factor (torch.Tensor | float): Divisor of the sum: the number of positive anchors.
        similarity (Similarity): Similarity of two boxes.

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
    """Compare a frozen head's dense predictions from student features with those from teacher features.

    The box term compares all anchors, weighted by the teacher's highest class probability. The class term is weighted
    by `label_weights`.

    Args:
        student (DensePredictions): Predictions from the student's features.
        teacher (DensePredictions): Predictions from the teacher's features, of the same shapes.
        avg_factor (torch.Tensor | float): Number of positive anchors of the student's assigner, at least one per image.
        label_weights (torch.Tensor | None): Weight per anchor (B, A) of the class term: 0 for anchors that the assigner
            ignores. None means 1 for all.
        similarity (Similarity): Similarity of two boxes.

    Returns:
        classes (torch.Tensor): Quality focal loss, a scalar.
        boxes (torch.Tensor): Similarity loss, a scalar.

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
    """Return the dense implicit terms separately for every anchor.

    Args:
        student (DensePredictions): Predictions from the student's features.
        teacher (DensePredictions): Predictions from the teacher's features, of the same shapes.
        similarity (Similarity): Similarity of two boxes.

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
    """Return the implicit terms separately for every region.

    Args:
        student (RegionPredictions): Predictions from RoIs pooled from the student's features.
        teacher (RegionPredictions): Predictions from the same RoIs pooled from the teacher's features.

    Returns:
        classes (torch.Tensor): KL divergence at temperature 3 (R,).
        boxes (torch.Tensor): Mean absolute difference of the deltas (R,), for the teacher's most probable foreground
            class and multiplied by its probability.

    Example:
        >>> same = RegionPredictions(torch.zeros(2, 4), torch.zeros(2, 3, 4))
        >>> [difference.tolist() for difference in region_differences(same, same)]
        [[0.0, 0.0], [0.0, 0.0]]
    """
    weights, distance = _region_distance(student, teacher)
    return kl_divergence(student.logits, teacher.logits), weights * distance.mean(1)


def kl_divergence(student_logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float = 3.0) -> torch.Tensor:
    """Return KL(softmax(teacher / T) || softmax(student / T)) * T^2 for every row.

    Args:
        student_logits (torch.Tensor): Class logits (R, C).
        teacher_logits (torch.Tensor): Class logits of the teacher (R, C), detached here.
        temperature (float): Temperature T.

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

    - classes = 0.5 * class_factor * mean over RoIs of the KL divergence
    - boxes = weighted mean of the absolute differences of deltas. They are those of the teacher's most probable
      foreground class, and its probability is the weight.

    Args:
        student (RegionPredictions): Predictions from RoIs pooled from the student's features.
        teacher (RegionPredictions): Predictions from the same RoIs pooled from the teacher's features.
        temperature (float): Temperature of the class term.
        class_factor (torch.Tensor | float): Factor of the class term. 1 gives a mean over RoIs. The reference computes
            a sum. For its coefficients, pass the number of sampled RoIs, where each image counts at least one positive
            and one negative RoI.

    Returns:
        classes (torch.Tensor): Class term, a scalar.
        boxes (torch.Tensor): Box term, a scalar.

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


def _area(sides: torch.Tensor) -> torch.Tensor:
    """Return the products of two sides (..., 2)."""
    width, height = sides.unbind(-1)
    return width * height  # `prod` looks for zeros in its backward pass


def _check_shapes(function: str, student: _PredictionsT, teacher: _PredictionsT) -> None:
    pairs = [(first.shape, second.shape) for first, second in zip(student, teacher, strict=True)]
    if any(first != second for first, second in pairs):
        named = zip(student._fields, pairs, strict=True)
        shapes = ", ".join(f"{name} {tuple(first)} and {tuple(second)}" for name, (first, second) in named)
        raise ValueError(f"{function} expects predictions of the same shape, got {shapes}")


def _quality_focal(student_logits: torch.Tensor, teacher_logits: torch.Tensor, beta: float) -> torch.Tensor:
    """Return the quality focal loss of every anchor and class, with the shape of the logits."""
    # At least float32: half precision loses sums of 10^5 values near 1e-4.
    student_logits, target = at_least_float32(student_logits), at_least_float32(teacher_logits.detach()).sigmoid()
    entropy = F.binary_cross_entropy_with_logits(student_logits, target, reduction="none")
    distance = (student_logits.sigmoid() - target).abs()
    return entropy * (distance if beta == 1.0 else distance.pow(beta))


def _dissimilarity(student: torch.Tensor, teacher: torch.Tensor, similarity: Similarity) -> torch.Tensor:
    """Return 1 - similarity of pairs of boxes (..., K)."""
    # At least float32: bfloat16 rounds pixel coordinates above 256 to 2 px.
    return 1 - similarity(at_least_float32(student), at_least_float32(teacher))


def _region_distance(student: RegionPredictions, teacher: RegionPredictions) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the teacher's highest foreground probability (R,), and the delta differences of its class (R, 4)."""
    probabilities = at_least_float32(teacher.logits.detach()).softmax(1)[:, :-1]
    weights, best = probabilities.max(1)
    chosen = best[:, None, None].expand(-1, 1, 4)
    distance = at_least_float32(student.deltas).gather(1, chosen) - teacher.deltas.detach().gather(1, chosen)
    return weights, distance.abs().squeeze(1)
