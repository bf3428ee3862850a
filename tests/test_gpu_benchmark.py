"""benchmarks/gpu.py: its small form on any machine, and what it does where time or memory end."""

import importlib
import json
import math
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_helpers import small_yolo

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def gpu():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("gpu")


@pytest.fixture
def steps(gpu, tmp_path):
    """A part that measures the steps of tiny models."""
    part = gpu.parts_of(True, "cpu")[0]
    student, teacher = str(small_yolo(tmp_path)), str(small_yolo(tmp_path, "big", 32))
    return replace(part, settings={**part.settings, "student": student, "teacher": teacher})


def gather(gpu, part, folder):
    """What a part yields, measured in this process."""
    results = {}
    for fragment in gpu.KINDS[part.kind](part.settings, folder, time.time() + 60):
        results |= json.loads(json.dumps(fragment))
    return results


@pytest.mark.slow
def test_the_small_form_measures_everything(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--small", "--out", str(tmp_path / "out")]
    subprocess.run(command, check=True, capture_output=True)
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    page = (tmp_path / "out" / "results.md").read_text()
    assert content["machine"]["torch"] == torch.__version__
    parts = {name.split(":")[0]: part for name, part in reversed(content["parts"].items())}
    assert {name: part["status"] for name, part in parts.items()} == dict.fromkeys(parts, "done")
    steps, training, resume = (parts[name]["results"] for name in ("steps", "training", "resume"))
    assert steps["failed"] == {}
    assert {"plain", "builtin", "ds2d2", "preset balanced", "preset paper", "preset fast", "without im_full"} <= steps[
        "seconds"
    ].keys()
    assert all(value > 0 for values in steps["seconds"].values() for value in values)
    assert steps["teacher"] == ["torch.bfloat16"]
    assert all(run["losses finite"] and run["with loading"] >= run["step"] for run in training["times"].values())
    assert training["times"].keys() == {"plain", "builtin", "ds2d2"}
    assert all(math.isfinite(gain) and gain > 0 for gain in training["gains"].values())
    assert resume["again"]["differing"] == resume["interrupted"]["differing"] == 0
    assert resume["interrupted"]["results.csv equal"]
    assert parts["AutoBatch"]["results"]["batch"] == 16
    assert "| Ultralytics' own distillation |" in page
    assert "| preset fast, average |" in page
    assert "## Bars" in page


def test_what_runs_out_of_memory_is_listed(gpu, steps, tmp_path, monkeypatch):
    """The others are measured; so is what fails later, when the steps of all methods are timed."""
    begin, run = gpu.begin, gpu.run

    def limited(method, batch, options):
        if method == "builtin":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        step, memory = begin(method, batch, options)
        return ("too much" if method == "without im_full" else step), memory

    def limited_run(step, batch, options):
        if step == "too much":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return run(step, batch, options)

    monkeypatch.setattr(gpu, "begin", limited)
    monkeypatch.setattr(gpu, "run", limited_run)
    results = gather(gpu, steps, tmp_path)
    assert results["failed"] == {"builtin": "out of memory", "without im_full": "out of memory"}
    assert {"plain", "ds2d2"} <= {name for name, values in results["seconds"].items() if values}
    page = gpu.page(
        {"machine": {}, "parts": {"x": {"name": "x", "kind": "steps", "status": "done", "results": results}}}
    )
    assert "| Ultralytics' own distillation | out of memory |" in page
    assert "Bars" not in page


def test_parts_for_which_no_time_is_left_are_listed(gpu, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--small", "--minutes", "0", "--out", str(tmp_path)])
    gpu.main()
    content = json.loads((tmp_path / "results.json").read_text())
    assert [part["name"] for part in content["parts"].values()] == [part.name for part in gpu.parts_of(True, "cpu")]
    assert {part["status"] for part in content["parts"].values()} >= {"not run: 0 s were left, it needs 25"}
    assert "| resume: an interrupted run | not run: 0 s were left, it needs 40 |" in capsys.readouterr().out


def test_a_part_that_takes_too_long_is_ended(gpu, steps, tmp_path):
    entries = []
    gpu.do(replace(steps, most=0.3), tmp_path, time.time() + 60, lambda entry: entries.append(dict(entry)))
    assert entries[-1]["status"] == "ended: no time was left"


def test_bars_are_those_of_the_default(gpu):
    results = {
        "seconds": {
            "plain": [1.0, 1.0],
            "builtin": [2.0, 4.0],
            "ds2d2": [2.0, 4.0],
            "preset fast": [1.5, 1.5],
        },
        "memory": {"builtin": 100.0, "ds2d2": 130.0},
    }
    part = {"name": "steps: n from l", "kind": "steps", "status": "done", "results": results}
    page = gpu.page({"machine": {}, "parts": {"n": part}})
    assert "| n from l | 1.00, reached | 1.30, not reached |" in page
    assert "| preset fast, average | 1250.0 |" in page


def test_memory_that_cannot_be_measured_is_not_known(gpu, steps, tmp_path, monkeypatch):
    """Where the peak of a process cannot be reset, a small step does not raise it."""
    monkeypatch.setattr(gpu, "forget_peak", lambda options: None)
    monkeypatch.setattr(gpu, "memory_peak", lambda options: 1000.0)
    results = gather(gpu, steps, tmp_path)
    assert results["memory"] == {}
    assert results["failed"] == {}
    page = gpu.page(
        {"machine": {}, "parts": {"x": {"name": "x", "kind": "steps", "status": "done", "results": results}}}
    )
    assert "reached | not known |" in page


def test_two_processes_need_two_gpus(gpu):
    part = gpu.Part("two", "processes", 1, 1, {})
    missing = torch.cuda.device_count() < 2
    assert gpu.reason_against(part, 60) == ("needs two GPUs" if missing else None)


def test_the_whole_form_has_every_pair(gpu):
    parts = gpu.parts_of(False, "cuda:0")
    names = [part.name for part in parts]
    assert len(set(names)) == len(names)
    measured = {
        (p.settings["student"], p.settings["batch"], p.settings["channels_last"]) for p in parts if p.kind == "steps"
    }
    for student, batches in (
        ("yolo11n", (16, 64)),
        ("yolo11s", (16, 64)),
        ("retinanet_r18", (16,)),
        ("fasterrcnn_r18", (16,)),
    ):
        for batch in batches:
            assert {(f"{student}.yaml", batch, True), (f"{student}.yaml", batch, False)} <= measured
