"""Adapters that start from a fit: by least squares over the first batches."""

import pytest
import torch
from torch import nn

from ds2d2_yolo.training.adapters import CELLS_PER_CHANNEL, AdapterFit, fit_adapters

CHANNELS = [(4, 6), (6, 6)]


def maps(seed, images=2, sizes=((8, 6), (4, 3))):
    """Maps of a student, and of a teacher that depends on them linearly, but for some noise."""
    generator = torch.Generator().manual_seed(seed)
    student = [
        torch.randn(images, own, *size, generator=generator) for (own, _), size in zip(CHANNELS, sizes, strict=True)
    ]
    mixing = torch.Generator().manual_seed(99)
    weights = [torch.randn(other, own, generator=mixing) for own, other in CHANNELS]
    teacher = [torch.einsum("oi,bihw->bohw", w, x) for w, x in zip(weights, student, strict=True)]
    return student, [x + 0.1 * torch.randn(x.shape, generator=generator) for x in teacher]


def adapters():
    return nn.ModuleList(nn.Conv2d(*pair, kernel_size=1, bias=False) for pair in CHANNELS)


def test_batches_add_up_to_the_fit_of_all_images():
    fitted = adapters()
    fit = AdapterFit(fitted)
    batches = [maps(seed) for seed in range(2)]
    for batch in batches:
        assert not fit.finished
        fit.observe(*batch)
    for adapter, expected in zip(fitted, fit_adapters(batches), strict=True):
        torch.testing.assert_close(adapter.weight.detach().squeeze(), expected)
    assert fit.finished  # 2 x 24 cells are 8 for each of 6 channels


def test_a_fit_ends_where_cells_are_scarce():
    fit = AdapterFit(adapters())
    batches = 0
    while not fit.finished:
        fit.observe(*maps(batches, images=1, sizes=((1, 1), (1, 1))))
        batches += 1
    assert batches == min(50, CELLS_PER_CHANNEL * 6)


def test_fine_levels_are_thinned():
    student, teacher = maps(0, images=1, sizes=((64, 63), (64, 63)))
    fitted = adapters()
    AdapterFit(fitted).observe(student, teacher)
    for adapter, expected in zip(fitted, fit_adapters([(student, teacher)]), strict=True):
        assert not torch.equal(adapter.weight.detach().squeeze(), expected)
        torch.testing.assert_close(adapter.weight.detach().squeeze(), expected, atol=0.1, rtol=0)


def test_levels_that_share_an_adapter_are_fitted_together():
    shared = nn.Conv2d(6, 6, 1, bias=False)
    generator = torch.Generator().manual_seed(0)
    student = [torch.randn(1, 6, 5, 5, generator=generator) for _ in range(2)]
    teacher = [torch.randn(1, 6, 5, 5, generator=generator) for _ in range(2)]
    AdapterFit(nn.ModuleList([shared, shared])).observe(student, teacher)
    (expected,) = fit_adapters([([student[0]], [teacher[0]]), ([student[1]], [teacher[1]])])
    torch.testing.assert_close(shared.weight.detach().squeeze(), expected)


def test_what_needs_no_adapter_is_left_alone():
    fit = AdapterFit(nn.ModuleList([nn.Identity(), nn.Identity()]))
    assert fit.finished


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_batch_that_is_not_finite_is_skipped(value):
    fitted = adapters()
    before = [adapter.weight.detach().clone() for adapter in fitted]
    fit = AdapterFit(fitted)
    student, teacher = maps(0)
    student[1][0, 0, 0, 0] = value
    fit.observe(student, teacher)
    for adapter, weight in zip(fitted, before, strict=True):
        assert torch.equal(adapter.weight, weight)
    fit.observe(*maps(1))
    for adapter, expected in zip(fitted, fit_adapters([maps(1)]), strict=True):
        torch.testing.assert_close(adapter.weight.detach().squeeze(), expected)


def test_half_precision_is_fitted_exactly():
    fitted = adapters()
    student, teacher = ([x.bfloat16() for x in pair] for pair in maps(0))
    AdapterFit(fitted).observe(student, teacher)
    for adapter, expected in zip(fitted, fit_adapters([(student, teacher)]), strict=True):
        torch.testing.assert_close(adapter.weight.detach().squeeze(), expected)
