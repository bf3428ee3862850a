"""Implicit terms: against the reference, and the behaviour of each loss."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ds2d2_yolo.method import (
    DensePredictions,
    RegionPredictions,
    dense_implicit_terms,
    generalized_iou,
    kl_divergence,
    quality_focal_loss,
    region_implicit_terms,
    similarity_loss,
)


def close(actual, expected, rtol=1e-5, atol=1e-6):
    torch.testing.assert_close(actual.detach(), expected, rtol=rtol, atol=atol)


def test_quality_focal_loss_agrees_with_the_reference(golden):
    arrays = golden("losses")
    student = arrays["qfl_pred_logits"].requires_grad_()
    loss = quality_focal_loss(student, arrays["qfl_tea_logits"], 7.0, arrays["qfl_weight"])
    loss.backward()
    close(loss, arrays["qfl_as_called_avg7_loss"])
    close(student.grad, arrays["qfl_as_called_avg7_grad_pred"], rtol=1e-4)


def test_quality_focal_loss_sums_the_reference_elements(golden):
    arrays = golden("losses")
    loss = quality_focal_loss(arrays["qfl_pred_logits"], arrays["qfl_tea_logits"], 1.0)
    close(loss, arrays["qfl_elementwise_beta1"].sum())


def test_kl_divergence_agrees_with_the_reference(golden):
    arrays = golden("losses")
    student = arrays["kl_pred_logits"].requires_grad_()
    divergence = kl_divergence(student, arrays["kl_tea_logits"])
    close(divergence, arrays["kl_per_roi"])
    (0.5 * divergence.sum()).backward()  # the reference computes this because of a misplaced argument
    close(0.5 * divergence.sum(), arrays["kl_third_positional_48_loss"])
    close(student.grad, arrays["kl_third_positional_48_grad_pred"], rtol=1e-4)
    close(0.5 * divergence.mean(), arrays["kl_avg_factor_keyword_48_loss"])


def test_generalized_iou_agrees_with_the_reference(golden):
    arrays = golden("losses")
    student, teacher = arrays["giou_pred_xyxy"].requires_grad_(), arrays["giou_tea_xyxy"]
    close(1 - generalized_iou(student, teacher), arrays["giou_elementwise"])
    loss = similarity_loss(student, teacher, arrays["giou_weight"], 9.0)
    loss.backward()
    close(loss, arrays["giou_as_called_avg9_loss"])
    close(student.grad, arrays["giou_as_called_avg9_grad_pred"], rtol=1e-4)
    assert similarity_loss(student, teacher, torch.zeros(40), 9.0).item() == arrays.scalar("giou_all_weights_zero_loss")


@pytest.mark.parametrize("level", [2, 3, 4])
@pytest.mark.parametrize("case", ["A", "Z"])
def test_dense_terms_agree_with_the_reference(golden, case, level):
    arrays = golden("implicit_retina")

    def predictions(side):
        logits = arrays[f"{side}_cls_l{level}"]
        # (B, 9 * 5, H, W), channel = anchor * 5 + class; anchors in the order y, x, anchor
        logits = logits.permute(0, 2, 3, 1).reshape(2, -1, 5)
        return DensePredictions(logits, arrays[f"decoded_{side}_xyxy_l{level}"].reshape(2, -1, 4))

    student, teacher = predictions("stu"), predictions("tea")
    student.logits.requires_grad_()
    labels = arrays[f"label_weights_{case}_l{level}"]
    classes, boxes = dense_implicit_terms(student, teacher, arrays.scalar(f"avg_factor_{case}"), labels)
    close(classes, arrays[f"implicit_cls_per_level_{case}"][level])
    close(boxes, arrays[f"implicit_reg_per_level_{case}"][level])
    close(teacher.logits.amax(-1).sigmoid().flatten(), arrays[f"reg_weights_l{level}"])
    if case == "A":
        classes.backward()
        gradient = arrays[f"grad_total_A_wrt_stu_cls_l{level}"].permute(0, 2, 3, 1).reshape(2, -1, 5)
        close(student.logits.grad, gradient, rtol=1e-4)


@pytest.mark.parametrize("path", ["full", "high"])
def test_region_terms_agree_with_the_reference(golden, path):
    arrays = golden("implicit_frcnn")

    def predictions(side):
        deltas = arrays[f"{path}_A_{side}_reg"].reshape(128, 5, 4)
        return RegionPredictions(arrays[f"{path}_A_{side}_cls"], deltas)

    student, teacher = predictions("stu"), predictions("tea")
    student.logits.requires_grad_()
    student.deltas.requires_grad_()
    factor = arrays.scalar(f"{path}_A_avg_factor_given_as_kl_weight")
    classes, boxes = region_implicit_terms(student, teacher, class_factor=factor)
    close(classes, arrays[f"{path}_A_loss_cls"])
    close(boxes, arrays[f"{path}_A_loss_reg"])
    (classes + boxes).backward()
    close(student.logits.grad, arrays[f"{path}_A_grad_total_wrt_stu_cls"], rtol=1e-4)
    close(student.deltas.grad.flatten(1), arrays[f"{path}_A_grad_total_wrt_stu_reg"], rtol=1e-4)
    mean, _ = region_implicit_terms(student, teacher)
    close(mean * factor, arrays[f"{path}_A_loss_cls"])


coordinates = st.floats(-1e4, 1e4, width=32)
box = st.tuples(coordinates, coordinates, coordinates, coordinates)


@given(first=box, second=box)
@settings(max_examples=100)
def test_generalized_iou_is_finite_and_bounded_for_proper_boxes(first, second):
    a, b = torch.tensor(first), torch.tensor(second)
    assert torch.isfinite(generalized_iou(a, b))
    proper = [torch.cat([torch.minimum(x[:2], x[2:]), torch.maximum(x[:2], x[2:])]).double() for x in (a, b)]
    value = generalized_iou(*proper)
    assert -1 - 1e-6 <= value <= 1 + 1e-6
    torch.testing.assert_close(value, generalized_iou(*reversed(proper)))


def test_gradcheck():
    student = torch.randn(1, 6, 3, dtype=torch.float64, requires_grad=True)
    corners = torch.rand(2, 1, 6, 4, dtype=torch.float64)
    corners[..., 2:] += corners[..., :2]
    boxes = corners[0].clone().requires_grad_()
    teacher = DensePredictions(torch.randn(1, 6, 3, dtype=torch.float64), corners[1])
    assert torch.autograd.gradcheck(
        lambda logits, xyxy: dense_implicit_terms(DensePredictions(logits, xyxy), teacher, 2.0), (student, boxes)
    )
    deltas = torch.randn(6, 2, 4, dtype=torch.float64, requires_grad=True)
    logits = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    known = RegionPredictions(torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 2, 4, dtype=torch.float64))
    assert torch.autograd.gradcheck(
        lambda z, d: region_implicit_terms(RegionPredictions(z, d), known), (logits, deltas)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    logits = torch.full((1, 50000, 2), -9.0, dtype=dtype, requires_grad=True)
    boxes = torch.tensor([400.0, 400.0, 401.0, 401.0], dtype=torch.float32).expand(1, 50000, 4)
    student = DensePredictions(logits, boxes)
    teacher = DensePredictions(torch.full((1, 50000, 2), -8.0, dtype=dtype), boxes)
    with torch.autocast("cpu", torch.bfloat16):
        classes, _ = dense_implicit_terms(student, teacher, 1.0)
    classes.backward()
    exact, _ = dense_implicit_terms(
        DensePredictions(logits.detach().double(), boxes), DensePredictions(teacher.logits.double(), boxes), 1.0
    )
    assert classes.dtype == torch.float32
    assert classes.item() == pytest.approx(exact.item(), rel=1e-4)
    assert torch.isfinite(logits.grad).all()


def of_any_scale(generator, *shape):
    """Values with a scale from 0.1 to 10, at most 20."""
    scale = 10 ** (2 * torch.rand(1, generator=generator) - 1)
    return (scale * torch.randn(*shape, generator=generator)).clamp(-20, 20)


def boxes_of_any_size(generator):
    corners = 600 * torch.rand(1, 84, 2, generator=generator)
    return torch.cat([corners, corners + 2 + 200 * torch.rand(1, 84, 2, generator=generator)], -1)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 2e-3), (torch.float16, 3e-4)])
def test_half_precision_predictions_give_nearly_the_same_terms(dtype, bound):
    """1,000 inputs with logits up to 20: the terms differ only because predictions are rounded.

    They equal the terms of the rounded predictions in float64, up to float32's rounding. Compared with predictions that
    are not rounded, they are within 0.2 % for bfloat16 and 0.03 % for float16. The L1 term of regions is within 3 %: it
    jumps if two classes have almost the same probability and rounding exchanges their order.
    """
    generator = torch.Generator().manual_seed(0)
    for _ in range(500):
        logits = [of_any_scale(generator, 1, 84, 5) for _ in range(2)]
        boxes = [boxes_of_any_size(generator) for _ in range(2)]
        exact = dense_implicit_terms(*map(DensePredictions, logits, boxes), 4.0)
        rounded = [value.to(dtype) for value in logits]
        with torch.autocast("cpu", dtype):
            terms = dense_implicit_terms(*map(DensePredictions, rounded, boxes), 4.0)
        wide = ([value.double() for value in values] for values in (rounded, boxes))
        known = dense_implicit_terms(*map(DensePredictions, *wide), 4.0)
        for value, same, near in zip(terms, known, exact, strict=True):
            assert value.dtype is torch.float32
            assert value.item() == pytest.approx(same.item(), rel=1e-4)
            assert value.item() == pytest.approx(near.item(), rel=bound)
    for _ in range(500):
        predictions = [[of_any_scale(generator, 64, *shape) for _ in range(2)] for shape in ((6,), (5, 4))]
        exact = region_implicit_terms(*map(RegionPredictions, *predictions))
        rounded = [[value.to(dtype) for value in pair] for pair in predictions]
        with torch.autocast("cpu", dtype):
            terms = region_implicit_terms(*map(RegionPredictions, *rounded))
        wide = ([value.double() for value in values] for values in rounded)
        known = region_implicit_terms(*map(RegionPredictions, *wide))
        for value, same, near, limit in zip(terms, known, exact, (bound, 3e-2), strict=True):
            assert value.dtype is torch.float32
            assert value.item() == pytest.approx(same.item(), rel=1e-4)
            assert value.item() == pytest.approx(near.item(), rel=limit)


def test_no_regions_give_zero():
    empty = RegionPredictions(torch.empty(0, 4), torch.empty(0, 3, 4))
    assert [term.item() for term in region_implicit_terms(empty, empty)] == [0.0, 0.0]


def test_compiles_to_one_graph():
    student = DensePredictions(torch.randn(1, 6, 3), torch.rand(1, 6, 4))
    teacher = DensePredictions(torch.randn(1, 6, 3), torch.rand(1, 6, 4))
    compiled = torch.compile(dense_implicit_terms, fullgraph=True, backend="aot_eager")
    for value, expected in zip(
        compiled(student, teacher, 2.0), dense_implicit_terms(student, teacher, 2.0), strict=True
    ):
        torch.testing.assert_close(value, expected)


def test_refuses_shapes_that_do_not_fit():
    one = DensePredictions(torch.zeros(1, 2, 3), torch.zeros(1, 2, 4))
    other = DensePredictions(torch.zeros(1, 2, 4), torch.zeros(1, 2, 4))
    with pytest.raises(ValueError, match=r"logits \(1, 2, 3\) and \(1, 2, 4\)"):
        dense_implicit_terms(one, other, 1.0)
    first = RegionPredictions(torch.zeros(2, 4), torch.zeros(2, 3, 4))
    second = RegionPredictions(torch.zeros(3, 4), torch.zeros(3, 3, 4))
    with pytest.raises(ValueError, match=r"logits \(2, 4\) and \(3, 4\)"):
        region_implicit_terms(first, second)
