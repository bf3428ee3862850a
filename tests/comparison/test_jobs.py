"""Small real comparisons: parts are made once, recorded, reused and continued."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from training_helpers import lively_model, save_checkpoint, write_data
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel, load_checkpoint
from ultralytics.utils import YAML

from ds2d2_yolo.comparison.finished import read_comparison
from ds2d2_yolo.comparison.jobs import _Progress, run_comparison
from ds2d2_yolo.comparison.plan import plan_comparison
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.loading.fingerprint import fingerprint_of_model
from ds2d2_yolo.report.comparison_tables import save_comparison
from ds2d2_yolo.training.amplifier import read_amplifier
from ds2d2_yolo.training.arguments import DEFAULTS
from ds2d2_yolo.training.pipeline import plan


@pytest.fixture(scope="module")
def finished(request_of, models, tmp_path_factory):
    """A comparison of four methods with an untrained teacher, and its results."""
    project = str(tmp_path_factory.mktemp("compare"))
    given = request_of(
        project=project, methods="plain,builtin,explicit,db2", seeds=0, teacher=str(models[0]), amplifier="-"
    )
    comparison = plan_comparison(given)
    return given, comparison, run_comparison(comparison)


def test_records_have_the_results_of_the_runs(finished):
    _, comparison, results = finished
    methods = [method.name for method in comparison.methods]
    assert [(run["method"], run["seed"]) for run in results.runs] == [(name, 0) for name in methods]
    for record in (results.teacher, *results.runs):
        figures = YOLO(record["weights"]).val(
            data=comparison.arguments["data"], imgsz=64, batch=8, device="cpu", workers=0, plots=False, verbose=False
        )
        assert record["AP50"] == figures.box.map50
        assert record["AP50-95"] == figures.box.map
        assert set(record["classes"]) == {"ship", "vehicle"}
        assert record["coco"].keys() == {"AP", "AP50", "AP75", "APs", "APm", "APl"}
    for run in results.runs:
        assert type(load_checkpoint(run["weights"])[0]) is DetectionModel
        assert [epoch["epoch"] for epoch in run["curve"]] == [1, 2]
        assert run["seconds"] == run["curve"][-1]["seconds"] > run["curve"][0]["seconds"] > 0
        assert run["seconds_per_epoch"] == run["seconds"] / 2
        assert 100 * 2**20 < run["peak_bytes"] < 100 * 2**30
        assert run["continued_after"] == []
        assert run["arguments"]["project"] == str(comparison.folder.parent)


def test_missing_stages_are_made_once_amplifiers_per_wavelet(finished):
    _, comparison, results = finished
    folders = sorted(path.name.rsplit("-", 1)[0] for path in comparison.folder.parent.iterdir())
    assert folders == ["amplifier-big", "compare-small", "teacher-big"]
    explicit, db2 = (run["arguments"] for run in results.runs if run["method"] in {"explicit", "db2"})
    assert explicit["teacher"] == db2["teacher"] == results.teacher["weights"]
    assert explicit["amplifier"] is None
    assert read_amplifier(db2["amplifier"])["wavelet"] == "db2"
    assert results.stages.keys() == {"teacher", "amplifier db2"}
    assert all(seconds > 0 for seconds in results.stages.values())


def test_a_second_command_reuses_what_it_shares(finished):
    given, comparison, results = finished

    def files():
        return {path: path.stat().st_mtime_ns for path in comparison.runs.rglob("*") if path.is_file()}

    before = files()
    again = plan_comparison(dict(reversed(given.items())))
    assert again.folder == comparison.folder
    assert run_comparison(again) == results
    assert files() == before

    more = plan_comparison({**given, "methods": "plain", "seeds": [0, 1]})
    assert more.folder == comparison.folder
    runs = run_comparison(more).runs
    assert runs[0] == results.runs[0]
    assert (runs[1]["method"], runs[1]["seed"]) == ("plain", 1)
    assert {path for path in files() if path.suffix == ".json" and path.parent == comparison.runs} - set(before) == {
        comparison.runs / f"{Path(runs[1]['weights']).parent.parent.name}.json"
    }
    other = plan_comparison({**given, "lr0": 0.002})
    assert other.folder.parent == comparison.folder.parent
    assert other.folder != comparison.folder


def test_a_run_made_with_other_defaults_is_another_run(finished, monkeypatch):
    given, _, _ = finished
    monkeypatch.setitem(DEFAULTS, "shares", [0.5, 0.5, 0.5, 0.5, 0.5])
    to_do = []
    monkeypatch.setattr("ds2d2_yolo.comparison.jobs.run_jobs", lambda jobs, *_: to_do.extend(jobs))
    with pytest.raises(DS2D2Error, match="explicit-0"):  # nothing has made its record
        run_comparison(plan_comparison(given))
    assert [job["title"] for job in to_do] == ["explicit-0", "db2-0"]


SIZES = "same: {im_high: 0}\nlarger: {im_high: 0, teacher_imgsz: 128}\n"


def test_a_teacher_is_trained_at_the_sizes_of_the_methods(request_of, models, tmp_path, monkeypatch):
    (tmp_path / "sizes.yaml").write_text(SIZES)
    methods = f"plain,builtin,{tmp_path / 'sizes.yaml'}"
    given = request_of(project=str(tmp_path / "runs"), methods=methods, teacher=str(models[0]), amplifier="-")
    to_do = []
    monkeypatch.setattr("ds2d2_yolo.comparison.jobs.run_jobs", lambda jobs, *_: to_do.extend(jobs))
    for size, titles in ((64, ["teacher", "teacher at 128"]), (128, ["teacher", "teacher at 64"])):
        to_do.clear()
        with pytest.raises(DS2D2Error):  # as nothing has trained it
            run_comparison(plan_comparison({**given, "teacher_imgsz": size}))
        assert [job["title"] for job in to_do] == titles
        sides = [plan(job["arguments"], "teacher").teacher_stage.overrides["imgsz"] for job in to_do]
        assert sides == [size, 192 - size]


def test_images_are_labelled_at_the_sizes_of_the_methods(request_of, tmp_path, monkeypatch):
    (tmp_path / "sizes.yaml").write_text(SIZES)
    images = write_data(tmp_path / "other", train=2, val=1, size=80).parent / "images" / "train"
    given = request_of(project=str(tmp_path / "runs"), methods=str(tmp_path / "sizes.yaml"), unlabeled=str(images))
    to_do = []
    monkeypatch.setattr("ds2d2_yolo.comparison.jobs.run_jobs", lambda jobs, *_: to_do.extend(jobs))
    with pytest.raises(DS2D2Error):  # as nothing has labelled them
        run_comparison(plan_comparison(given))
    assert [job["title"] for job in to_do] == [f"labels for unlabelled images{size}" for size in ("", " at 128")]
    assert [job["arguments"].get("teacher_imgsz") for job in to_do] == [None, 128]


@pytest.mark.slow
def test_methods_compare_one_teacher_at_two_sizes(request_of, tmp_path):
    (tmp_path / "sizes.yaml").write_text(SIZES)
    given = request_of(project=str(tmp_path / "runs"), methods=str(tmp_path / "sizes.yaml"), seeds=0, epochs=1)
    planned = plan_comparison(given)
    results = run_comparison(planned)
    same, larger = results.runs
    assert [run["arguments"].get("teacher_imgsz") for run in results.runs] == [None, 128]
    assert same["inputs"]["teacher"] == larger["inputs"]["teacher"] == results.teacher["inputs"]["teacher"]
    assert results.teacher["inputs"]["settings"]["imgsz"] == 64
    save_comparison(planned, results)
    comparison, again = read_comparison(planned.folder)
    assert [method.arguments for method in comparison.methods] == [{}, {"teacher_imgsz": 128}]
    assert again.stages.keys() == results.stages.keys() == {"teacher"}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")
def test_after_a_kill_nothing_runs_on_and_the_command_continues(request_of, tmp_path):
    given = request_of(project=str(tmp_path), name="comparison", methods="plain", seeds=0, epochs=900, amplifier="-")
    words = [f"{key}={value}" for key, value in given.items()]
    # If tests run in the background, they and their child processes ignore the signal.
    script = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
    script += "from ds2d2_yolo.cli import main; sys.exit(main())"
    done = 0
    for number in (signal.SIGKILL, signal.SIGINT):
        process = subprocess.Popen(
            [sys.executable, "-c", script, "compare", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        epochs = done
        while epochs < done + 2:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
            files = list(tmp_path.glob("comparison/runs/plain-0-*/results.csv"))
            epochs = len(files[0].read_text().splitlines()) - 1 if files else done
        children = psutil.Process(process.pid).children()
        assert len(children) == 1
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        psutil.wait_procs(children, timeout=60)
        assert not any(child.is_running() for child in children)
        if number == signal.SIGINT:
            assert process.returncode == 130
            assert errors.decode().endswith("ds2d2: interrupted; to continue, run it again\n")
        done = len(files[0].read_text().splitlines()) - 1
    assert 4 <= done < 900
    assert not list(tmp_path.glob("comparison/runs/plain-*.json"))
    # The rest would take too long for a test: the checkpoint shows where it would continue.
    (last,) = tmp_path.glob("comparison/runs/plain-0-*/weights/last.pt")
    saved = torch.load(last, weights_only=False)["epoch"] + 1
    starts = (last.parents[1] / "starts.txt").read_text().split()
    assert len(starts) == 2
    assert starts[0] == "0"
    assert 1 <= int(starts[1]) < saved <= done


def test_a_failed_run_is_reported_in_one_line_with_its_output(request_of, tmp_path):
    comparison = plan_comparison(request_of(project=str(tmp_path), methods="plain", seeds=0))
    worker = ("-c", "import sys; sys.stdin.readline(); print('ds2d2: error: no luck'); sys.exit(1)")
    with pytest.raises(DS2D2Error, match=r"^teacher failed: no luck; see .*teacher-\w+\.log, then run the same"):
        run_comparison(comparison, worker)
    worker = ("-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(DS2D2Error, match=r"^teacher failed: killed by signal 9;"):
        run_comparison(comparison, worker)


def test_a_given_amplifier_serves_only_methods_of_its_wavelet(request_of, tmp_path):
    worker = ("-c", "import sys; sys.exit(3)")
    for methods, title in (("ds2d2,haar", "teacher"), ("ds2d2,db2", "amplifier of db2")):  # the first job
        comparison = plan_comparison(request_of(project=str(tmp_path), methods=methods, seeds=0))
        with pytest.raises(DS2D2Error, match=f"^{title} failed: exit code 3;"):
            run_comparison(comparison, worker)


@pytest.mark.slow
def test_stages_do_not_start_from_the_students_checkpoint(request_of, models, tmp_path):
    start = save_checkpoint(lively_model(str(models[1]), seed=5), tmp_path / "student.pt")
    given = {"teacher": str(models[0]), "amplifier": "-", "project": str(tmp_path / "project"), "seeds": 0}
    results = run_comparison(plan_comparison(request_of(methods="db2", pretrained=str(start), **given)))
    (record,) = results.runs
    assert record["arguments"]["pretrained"] == str(start)
    stages = sorted((tmp_path / "project").glob("*/stage.json"))
    assert [path.parent.name.split("-")[0] for path in stages] == ["amplifier", "teacher"]
    for path in stages:
        assert YAML.load(path.with_name("args.yaml"))["pretrained"] is True


@pytest.mark.slow
def test_on_a_ray_cluster_runs_come_to_the_same(finished, request_of, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_worker_niceness", "0")  # with its default of 15 it gets no time beside other work
    _, _, results = finished
    here = next(run for run in results.runs if run["method"] == "db2")
    files = {name: here["arguments"][name] for name in ("teacher", "amplifier")}
    given = request_of(project=str(tmp_path), methods="db2", seeds=0, ray="local", **files)
    comparison = plan_comparison(given)
    assert (comparison.cluster.cpus, comparison.cluster.gpus) == (1, 0)
    on_ray = run_comparison(comparison)
    (run,) = on_ray.runs
    assert run["inputs"] == here["inputs"]
    weights = [fingerprint_of_model(load_checkpoint(record["weights"])[0]) for record in (run, here)]
    assert weights[0] == weights[1]
    # Records do not depend on where they were made
    alone = plan_comparison({name: value for name, value in given.items() if name != "ray"})
    assert alone.folder == comparison.folder
    assert run_comparison(alone) == on_ray
    failing = ("-c", "import sys; sys.stdin.readline(); print('no luck'); sys.exit(1)")
    with pytest.raises(DS2D2Error, match="failed: no luck"):
        run_comparison(comparison, failing)


def test_time_left_is_right_from_the_first_epoch_on(tmp_path, monkeypatch, capsys):
    clock = [1000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    job = {"kind": "teacher", "title": "teacher", "folder": str(tmp_path), "epochs": 10}
    progress = _Progress()
    progress.look(job)
    for epoch in (1, 2):
        clock[0] += 120.0
        rows = "".join(f"{number},{number},0,0\n" for number in range(1, epoch + 1))
        (tmp_path / "results.csv").write_text("epoch,time,metrics/mAP50(B),metrics/mAP50-95(B)\n" + rows)
        progress.look(job)
        shown = capsys.readouterr()
        assert f"{epoch}/10 120.0s/epoch" in shown.err + shown.out
        assert f"<{(10 - epoch) * 2}:00" in shown.err + shown.out
