"""Decomposition and high-frequency map: against the reference and PyWavelets."""

import numpy as np
import pytest
import pywt
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ds2d2_yolo.method import band_size, decompose, filter_length, high_frequency_map

WAVELETS = ["haar", "db1", "db2", "sym4", "coif1", "dmey"]
SIZES = st.integers(1, 13)


@given(height=SIZES, width=SIZES, wavelet=st.sampled_from(WAVELETS), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_agrees_with_pywavelets(height, width, wavelet, seed):
    x = torch.randn(2, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    ll, (lh, hl, hh) = pywt.dwt2(x.numpy(), wavelet, mode="zero")
    for band, expected in zip(decompose(x, wavelet), (ll, lh, hl, hh), strict=True):
        np.testing.assert_allclose(band.numpy(), expected, atol=1e-12)
        assert tuple(band.shape[-2:]) == band_size(height, width, wavelet)


@pytest.mark.parametrize("level", [2, 3, 4])
def test_agrees_with_the_reference(golden, level):
    arrays = golden("explicit_retina")
    bands = decompose(arrays[f"tea_feat_l{level}"])
    torch.testing.assert_close(bands.ll, arrays[f"dwt_cL_tea_l{level}"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.stack(bands[1:], 2), arrays[f"dwt_cH_tea_l{level}"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("level", [2, 3, 4])
def test_high_frequency_map_and_gradient_match_the_reference(golden, level):
    arrays = golden("explicit_retina")
    x = arrays[f"stu_feat_l{level}"].requires_grad_()
    detail = high_frequency_map(x)
    torch.testing.assert_close(detail, arrays[f"high_freq_stu_l{level}"], rtol=1e-5, atol=1e-6)
    detail.backward(arrays[f"high_freq_cotangent_l{level}"])
    torch.testing.assert_close(x.grad, arrays[f"grad_high_freq_wrt_stu_feat_l{level}"], rtol=1e-4, atol=1e-5)


def test_high_frequency_map_depends_on_the_top_left_of_blocks():
    x = torch.randn(1, 2, 8, 8, dtype=torch.float64)
    detail = 2 * (x[..., ::2, ::2] - F.avg_pool2d(x, 2))
    expected = F.interpolate(detail, size=(8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(high_frequency_map(x), expected)


@pytest.mark.parametrize("wavelet", ["haar", "db2"])
def test_is_orthonormal(wavelet):
    # with zeros around the map, the longer filters do not wrap around its edge
    x = F.pad(torch.randn(2, 3, 8, 8, dtype=torch.float64), (8, 8, 8, 8))
    energy = sum(band.square().sum() for band in decompose(x, wavelet))
    torch.testing.assert_close(energy, x.square().sum())


@given(height=SIZES, width=SIZES)
@settings(max_examples=15)
def test_is_linear(height, width):
    first, second = torch.randn(2, 1, 2, height, width, dtype=torch.float64)
    for total, left, right in zip(decompose(first - 3 * second), decompose(first), decompose(second), strict=True):
        torch.testing.assert_close(total, left - 3 * right)


@pytest.mark.parametrize("wavelet", ["haar", "db2"])
@pytest.mark.parametrize("size", [(4, 6), (3, 5)])
def test_gradients(wavelet, size):
    x = torch.randn(1, 2, *size, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: tuple(decompose(t, wavelet)), x)
    assert torch.autograd.gradgradcheck(lambda t: high_frequency_map(t, wavelet), x)


@pytest.mark.parametrize("wavelet", ["haar", "db2"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_under_autocast(wavelet, dtype):
    x = torch.randn(2, 4, 9, 8).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        bands = decompose(x, wavelet)
        detail = high_frequency_map(x, wavelet)
    assert {band.dtype for band in bands} == {torch.float32}
    assert detail.dtype == dtype
    for band, expected in zip(bands, decompose(x.detach().float(), wavelet), strict=True):
        torch.testing.assert_close(band, expected)
    detail.float().sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("wavelet", ["haar", "db2"])
def test_memory_layout_does_not_matter(wavelet):
    x = torch.randn(2, 4, 7, 8)
    bands = decompose(x, wavelet), decompose(x.to(memory_format=torch.channels_last), wavelet)
    for plain, last in zip(*bands, strict=True):
        torch.testing.assert_close(plain, last)


def test_matrices_first_used_in_inference_can_be_trained_with():
    x = torch.randn(1, 1, 8, 8, requires_grad=True)
    with torch.inference_mode():
        decompose(x, "db7")
    decompose(x, "db7").ll.sum().backward()
    assert x.grad.any()


def test_other_bases_are_a_break_in_a_compiled_graph():
    x = torch.randn(2, 3, 7, 8)
    compiled = torch.compile(lambda t: decompose(2 * t, "db2").hh + 1, backend="aot_eager")
    torch.testing.assert_close(compiled(x), decompose(2 * x, "db2").hh + 1)


def test_haar_compiles_to_one_graph():
    x = torch.randn(2, 3, 7, 8)
    compiled = torch.compile(high_frequency_map, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), high_frequency_map(x))


@pytest.mark.parametrize(("wavelet", "hint"), [("harr", "haar"), ("bior2.2", "not orthogonal"), ("", "haar, db2")])
def test_refuses_other_wavelets(wavelet, hint):
    with pytest.raises(ValueError, match=hint):
        filter_length(wavelet)


def test_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"got shape \(3, 4\)"):
        decompose(torch.zeros(3, 4))
