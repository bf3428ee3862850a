"""Explicit terms: against the reference, and against mean squared error."""

import pytest
import torch
import torch.nn.functional as F

from ds2d2_yolo.method import (
    DS2D2Loss,
    Gains,
    LossInputs,
    TappedMaps,
    decompose,
    density_independent_scale_weight,
    explicit_terms,
)


def reference_loss(arrays, gains):
    """The loss with the reference's settings: five levels of 16 channels, one shared adapter."""
    loss = DS2D2Loss(TappedMaps.of_neck([16] * 5, [16] * 5), gains, shared_adapter=True)
    with torch.no_grad():
        loss.adapters[0].weight.copy_(arrays["conv_weight"])
    return loss


def run(arrays, loss, case):
    student = [arrays[f"stu_feat_l{level}"] for level in range(5)]
    teacher = [arrays[f"tea_feat_l{level}"] for level in range(5)]
    return loss(LossInputs(student, teacher, *arrays.boxes(case), (256, 320)))


@pytest.mark.parametrize("case", ["A", "Z"])
@pytest.mark.parametrize(("name", "letter"), [("ex_low", "L"), ("ex_high", "H")])
def test_agrees_with_the_reference(golden, case, name, letter):
    arrays = golden("explicit_retina")
    terms = run(arrays, reference_loss(arrays, Gains(**{name: 1.0})), case)
    assert list(terms) == [name]
    assert terms[name].item() == pytest.approx(arrays.scalar(f"derived_explicit_float64_c{letter}_{case}"), rel=1e-5)
    assert terms[name].item() == pytest.approx(arrays.scalar(f"explicit_c{letter}_{case}"), rel=5e-3)


@pytest.mark.parametrize(("index", "letter"), [(0, "L"), (1, "H")])
def test_gradients_agree_with_the_reference(golden, index, letter):
    arrays = golden("explicit_retina")
    kernel = arrays["conv_weight"].requires_grad_()
    student = [arrays[f"stu_feat_l{level}"].requires_grad_() for level in range(5)]
    # The reference's own weight, rounded to float16, so that only the terms can differ.
    terms = [
        explicit_terms(F.conv2d(x, kernel), arrays[f"tea_feat_l{level}"], arrays[f"fg_weight_A_l{level}"].unsqueeze(1))
        for level, x in enumerate(student)
    ]
    total = sum(pair[index] for pair in terms)
    total.backward()
    torch.testing.assert_close(total.detach(), arrays[f"explicit_c{letter}_A"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(kernel.grad, arrays[f"grad_c{letter}_A_wrt_conv_weight"], rtol=1e-4, atol=1e-5)
    for level in range(1, 5):
        expected = arrays[f"grad_c{letter}_A_wrt_stu_feat_l{level}"]
        torch.testing.assert_close(student[level].grad, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("name", "letter"), [("ex_low", "L"), ("ex_high", "H")])
def test_gradients_without_boxes_agree_closely(golden, name, letter):
    arrays = golden("explicit_retina")
    loss = reference_loss(arrays, Gains(**{name: 1.0}))
    terms = run(arrays, loss, "Z")
    terms[name].backward()
    expected = arrays[f"grad_c{letter}_Z_wrt_conv_weight"]
    torch.testing.assert_close(loss.adapters[0].weight.grad, expected, rtol=1e-4, atol=1e-6)


def test_one_transform_of_the_difference_equals_two_transforms():
    student, teacher = torch.randn(2, 2, 5, 9, 7, dtype=torch.float64)
    weight = 1 + torch.rand(2, 1, 5, 4, dtype=torch.float64)
    low, high = explicit_terms(student, teacher, weight)
    first, second = decompose(student), decompose(teacher)
    torch.testing.assert_close(low, ((first.ll - second.ll).square() * weight).mean())
    detail = torch.stack([a - b for a, b in zip(first[1:], second[1:], strict=True)], 2)
    torch.testing.assert_close(high, (detail.square() * weight.unsqueeze(2)).mean())


def test_both_terms_make_up_the_mean_squared_error():
    student, teacher = torch.randn(2, 2, 5, 8, 6, dtype=torch.float64)
    low, high = explicit_terms(student, teacher, torch.ones(2, 1, 4, 3, dtype=torch.float64))
    torch.testing.assert_close(low + 3 * high, 4 * F.mse_loss(student, teacher))


@pytest.mark.parametrize("wavelet", ["haar", "db2"])
def test_gradcheck(wavelet):
    student = torch.randn(2, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 2, 5, 4, dtype=torch.float64)
    grid = decompose(teacher, wavelet).ll.shape[-2:]
    weight = 1 + torch.rand(2, 1, *grid, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: explicit_terms(x, teacher, weight, wavelet), student)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_overflow(dtype):
    student = torch.full((1, 2, 4, 4), 600.0, dtype=dtype, requires_grad=True)
    low, high = explicit_terms(student, torch.zeros_like(student), torch.ones(1, 1, 2, 2))
    (low + high).backward()
    assert low.item() == pytest.approx(4 * 600.0**2, rel=1e-2)
    assert torch.isfinite(student.grad).all()


def test_compiles_to_one_graph():
    student, teacher = torch.randn(2, 2, 5, 9, 7)
    weight = density_independent_scale_weight(torch.rand(4, 4) * 64, torch.zeros(4), 2, (72, 56), [(5, 4)])[0]
    compiled = torch.compile(explicit_terms, fullgraph=True, backend="aot_eager")
    for value, expected in zip(
        compiled(student, teacher, weight), explicit_terms(student, teacher, weight), strict=True
    ):
        torch.testing.assert_close(value, expected)


def test_refuses_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"got \(1, 2, 4, 4\) and \(1, 3, 4, 4\)"):
        explicit_terms(torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 4, 4), torch.ones(1, 1, 2, 2))
    with pytest.raises(ValueError, match=r"weight of shape \(1, 1, 2, 2\), got \(1, 2, 2\)"):
        explicit_terms(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4), torch.ones(1, 2, 2))
