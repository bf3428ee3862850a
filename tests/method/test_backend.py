"""The transform of pytorch-wavelets: against our Haar, in full precision, and imported with any setuptools or none."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ds2d2_yolo.method import decompose, filter_bank
from ds2d2_yolo.method.backend import analyse


@given(height=st.integers(1, 13), width=st.integers(1, 13), dtype=st.sampled_from([torch.float32, torch.float64]))
@settings(max_examples=30, deadline=None)
def test_both_backends_agree(height, width, dtype):
    x = torch.randn(2, 3, height, width, dtype=dtype, requires_grad=True)
    ours = decompose(x)
    ll, detail = analyse(x, filter_bank("haar"))
    torch.testing.assert_close(ours.ll, ll)
    torch.testing.assert_close(torch.stack(ours[1:], 2), detail)
    cotangent = torch.randn_like(torch.stack(ours))
    gradients = [torch.autograd.grad(torch.stack(b), x, cotangent)[0] for b in (ours, (ll, *detail.unbind(2)))]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_under_autocast_are_exact(dtype):
    x = torch.randn(2, 4, 9, 8, requires_grad=True)
    bands = torch.stack(decompose(x, "sym4"))
    with torch.autocast("cpu", dtype):
        (gradient,) = torch.autograd.grad(bands.square().sum(), x, retain_graph=True)
    torch.testing.assert_close(gradient, torch.autograd.grad(bands.square().sum(), x)[0], rtol=0, atol=0)


def test_filters_first_used_in_inference_can_be_trained_with():
    x = torch.randn(1, 1, 8, 8, requires_grad=True)
    with torch.inference_mode():
        decompose(x, "db7")
    decompose(x, "db7").ll.sum().backward()
    assert x.grad.any()


def test_it_is_a_break_in_a_compiled_graph():
    x = torch.randn(2, 3, 7, 8)
    compiled = torch.compile(lambda t: decompose(2 * t, "db2").hh + 1, backend="aot_eager")
    torch.testing.assert_close(compiled(x), decompose(2 * x, "db2").hh + 1)


HIDE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name in {hidden}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hidden())
"""
USE = """
import torch
from ds2d2_yolo.method import decompose

assert decompose(torch.ones(1, 1, 4, 4)).ll.sum() == 8
assert "pytorch_wavelets" not in sys.modules and "ds2d2_yolo.method.backend" not in sys.modules
decompose(torch.ones(1, 1, 4, 4), "sym4")
print("pkg_resources" in sys.modules)
from pytorch_wavelets import DTCWTForward  # what reads a file by the function that was supplied

DTCWTForward(J=2)(torch.ones(1, 1, 8, 8))
"""
OLD = """
import warnings
from importlib.resources import files

warnings.warn("pkg_resources is deprecated as an API", UserWarning, stacklevel=2)

def resource_stream(package, name):
    return files(package).joinpath(name).open("rb")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setuptools", "hidden"),
    [("old", ()), ("new", ("pkg_resources",)), ("absent", ("pkg_resources", "setuptools", "_distutils_hack"))],
)
def test_any_setuptools_or_none(setuptools, hidden, tmp_path):
    if setuptools == "old":
        (tmp_path / "pkg_resources.py").write_text(OLD)
    start = f"import sys; sys.path.insert(0, {str(tmp_path)!r})" + HIDE.format(hidden=hidden)
    result = subprocess.run([sys.executable, "-c", start + USE], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{setuptools == 'old'}\n"


@pytest.mark.slow
def test_a_damaged_installation_leaves_nothing_behind(tmp_path):
    (tmp_path / "pytorch_wavelets.py").write_text("raise ImportError('damaged')")
    start = f"import sys; sys.path.insert(0, {str(tmp_path)!r})" + HIDE.format(hidden=("pkg_resources",))
    code = """
try:
    import ds2d2_yolo.method.backend
except ImportError as error:
    print(error, "pkg_resources" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, check=False)
    assert result.stdout == "damaged False\n", result.stderr
