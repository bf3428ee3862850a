"""What tests and doctests run in: no network, no settings of the user, files in temporary folders only."""

import os
import tempfile

os.environ.update(
    YOLO_OFFLINE="1",
    YOLO_AUTOINSTALL="false",
    YOLO_CONFIG_DIR=tempfile.mkdtemp(prefix="ds2d2-tests-"),
    MPLBACKEND="agg",
)
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # one process per core; more threads would slow each other down

import pytest
import torch
from hypothesis import HealthCheck, settings

# A busy machine is no mistake of ours.
settings.register_profile("ours", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ours")
# `python -m pytest --hypothesis-profile=long tests/test_mistakes.py` looks for mistakes much longer.
settings.register_profile("long", max_examples=20_000)


# Doctests are in modules; pytest would import every conftest.py by the same name to look for some there.
collect_ignore_glob = ["*conftest.py"]
# The example there needs torch 2.6, as safe=True does.
can_check = hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint")
collect_ignore = [] if can_check else ["ds2d2_yolo/loading/safety.py"]


def pytest_addoption(parser):
    parser.addoption("--cases", default="few", choices=["few", "all"], help="cases of tests/test_fuzzing.py")


@pytest.fixture
def fresh_machine(tmp_path, monkeypatch):
    """Run in an empty folder, with Ultralytics' and torch's folders below it, and without a network."""
    from ultralytics import utils
    from ultralytics.data import utils as data_utils

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for module in (utils, data_utils):
        monkeypatch.setattr(module, "DATASETS_DIR", tmp_path / "datasets")
    for name in ("datasets_dir", "weights_dir"):
        monkeypatch.setitem(utils.SETTINGS, name, str(tmp_path / name.removesuffix("_dir")))
    return tmp_path


@pytest.fixture(autouse=True)
def _doctests_run_on_a_fresh_machine(request, monkeypatch):
    if isinstance(request.node, pytest.DoctestItem):
        folder = request.getfixturevalue("fresh_machine")
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
