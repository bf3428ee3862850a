"""Checks of what this package relies on inside Ultralytics: they hold, and a failing one is reported.

All other tests of the package follow from the checks.
"""

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import ultralytics
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.nn.modules.head import Detect

from ds2d2_yolo import compatibility
from ds2d2_yolo.cli import main
from ds2d2_yolo.loading.models import load_model
from ds2d2_yolo.training.contract import CHECKS


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_what_is_relied_on_holds(check, tmp_path):
    check(tmp_path)


def test_every_check_says_what_holds_and_what_fails():
    for check in CHECKS:
        assert re.fullmatch(r".+\.\n\n +Without it: .+\.\n +", check.__doc__, re.DOTALL), check.__name__


@pytest.fixture
def newer(monkeypatch):
    """An untested release, about which this process has not warned yet."""
    monkeypatch.setattr(ultralytics, "__version__", "8.4.9999")
    monkeypatch.setenv(compatibility._WARNED, "")


def test_checks_tell_versions_and_leave_nothing_behind(newer, capsys, fresh_machine):
    assert main(["--help"]) == 0
    assert main(["checks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"Ultralytics  {version('ultralytics')}" in lines
    assert sum(line.startswith("holds ") for line in lines) == len(CHECKS)
    assert lines[-1].endswith(f"the newest fully tested release is {compatibility.NEWEST}")
    assert "is newer than" not in str(lines)
    assert "Scanning" not in str(lines)  # progress bars of Ultralytics
    assert not list(fresh_machine.iterdir())


def test_a_failed_check_is_reported_with_its_consequence(capsys, monkeypatch):
    monkeypatch.delattr(BaseTrainer, "optimizer_step")
    monkeypatch.delattr(Detect, "forward_head")
    monkeypatch.setattr(BaseTrainer, "_do_train", lambda self: self.model(None))
    assert main(["checks"]) == 1
    lines = capsys.readouterr().out.splitlines()
    broken = [place for place, line in enumerate(lines) if line.startswith("DOES NOT HOLD ")]
    told = {
        lines[place].removeprefix("DOES NOT HOLD").strip().split(",")[0]: lines[place + 1 : place + 3]
        for place in broken
    }
    assert "DetectionTrainer.optimizer_step" in str(
        told["Methods of trainers and validators that this package extends exist"]
    )
    found, without = told["A head's one-to-many branch predicts boxes and classes from any feature maps."]
    assert "AttributeError" in found
    assert "amplifiers" in without
    assert f"{len(CHECKS) - len(broken)} of {len(CHECKS)} hold" in str(lines)
    assert f"pip install 'ultralytics=={compatibility.NEWEST}'" in lines[-1]


def test_the_supported_range_is_that_of_the_package():
    pyproject = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert f'"ultralytics>={compatibility.OLDEST},<{compatibility.BELOW}"' in pyproject


@pytest.mark.slow
@pytest.mark.parametrize("room", ["training", "loading"])
def test_an_old_release_is_refused_in_one_line(room):
    script = f"import ultralytics; ultralytics.__version__ = '8.3.0'\nimport ds2d2_yolo.{room}"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "ultralytics 8.3.0 is too old for ds2d2-yolo" in result.stderr.splitlines()[-1]


def test_a_newer_release_is_reported_once_per_run(newer, monkeypatch):
    told = []
    monkeypatch.setattr(compatibility.LOGGER, "warning", told.append)
    for _ in range(2):
        load_model("teacher", "yolo11n.yaml")
    assert told == [
        f"Ultralytics 8.4.9999 is newer than the newest tested one, {compatibility.NEWEST}: "
        "run 'ds2d2 checks' to see whether it works"
    ]


@pytest.mark.slow
def test_processes_of_a_run_do_not_tell_it_again(newer):
    load_model("teacher", "yolo11n.yaml")
    script = "import ultralytics; ultralytics.__version__ = '8.4.9999'\n"
    script += "from ds2d2_yolo.compatibility import warn_of_untested_release; warn_of_untested_release()"
    for inherited, times in ((os.environ, 0), ({**os.environ, compatibility._WARNED: ""}, 1)):
        result = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=inherited
        )
        assert (result.stdout + result.stderr).count("newest tested") == times
