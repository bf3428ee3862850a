"""Comparisons, small but real: what is paired, recorded, reused, interrupted and refused."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from training_helpers import lively_model, save_checkpoint, short, small_yolo, tiny_yaml, write_data
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel, load_checkpoint
from ultralytics.utils import YAML
from ultralytics.utils.callbacks import get_default_callbacks
from ultralytics.utils.metrics import Metric, PoseMetrics, SegmentMetrics
from ultralytics.utils.torch_utils import unwrap_model

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.comparison.jobs import WORKER, run_comparison
from ds2d2_yolo.comparison.methods import read_methods
from ds2d2_yolo.comparison.plan import plan_comparison
from ds2d2_yolo.comparison.records import read_curve, training_seconds
from ds2d2_yolo.comparison.statistics import fitness_of
from ds2d2_yolo.comparison.work import execute
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.evaluation import figures_beside_boxes
from ds2d2_yolo.loading.fingerprint import fingerprint_of_model
from ds2d2_yolo.options import option_defaults
from ds2d2_yolo.resources import resource_folder
from ds2d2_yolo.training.amplifier import AmplifierTrainer, read_amplifier
from ds2d2_yolo.training.arguments import DEFAULTS, check_arguments

SHORT = short(epochs=2)
KINDS = ("none", "ultralytics", "ds2d2")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Model YAMLs of a teacher and a student."""
    folder = tmp_path_factory.mktemp("models")
    return small_yolo(folder, "big", 32), small_yolo(folder)


@pytest.fixture(scope="module")
def teacher(models, tmp_path_factory):
    return save_checkpoint(lively_model(models[0], seed=1), tmp_path_factory.mktemp("teacher") / "teacher.pt")


@pytest.fixture(scope="module")
def amplifier(teacher, data, tmp_path_factory):
    project = str(tmp_path_factory.mktemp("amplifier"))
    overrides = {**SHORT, "epochs": 1, "teacher": str(teacher), "data": str(data), "project": project}
    trainer = AmplifierTrainer(overrides=overrides)
    trainer.train()
    return trainer.amplifier


@pytest.fixture(scope="module")
def request_of(models, teacher, amplifier, data):
    """Return what a user would ask for."""

    def build(**changes):
        given = {**SHORT, "teacher": str(teacher), "student": str(models[1]), "data": str(data)}
        given |= {"amplifier": str(amplifier), **changes}
        return {name: value for name, value in given.items() if value != "-"}

    return build


@pytest.fixture(scope="module")
def finished(request_of, models, tmp_path_factory):
    """A comparison of four methods, its teacher and amplifier untrained yet, and what it found."""
    project = str(tmp_path_factory.mktemp("compare"))
    given = request_of(
        project=project, methods="plain,builtin,explicit,db2", seeds=0, teacher=str(models[0]), amplifier="-"
    )
    comparison = plan_comparison(given)
    return given, comparison, run_comparison(comparison)


@pytest.fixture
def job_of(models, teacher, amplifier, data, tmp_path):
    """Return the job of one run."""

    def build(distil, name="run", **changes):
        arguments = {**SHORT, "model": str(models[1]), "data": str(data), "seed": 3, **changes}
        if distil == "ultralytics":
            arguments["distill_model"] = str(teacher)
        if distil == "ds2d2":
            arguments |= {"teacher": str(teacher), "amplifier": str(amplifier)}
        files = {"folder": str(tmp_path / name), "record": str(tmp_path / f"{name}.json")}
        more = {"method": distil, "seed": 3, "distil": distil, "arguments": arguments, "inputs": {"name": name}}
        return {"kind": "run", "title": name, **files, **more}

    return build


def record_of(job):
    return json.loads(Path(job["record"]).read_text())


def student_of(trainer):
    model = unwrap_model(trainer.model)
    return getattr(model, "student_model", model)


# ----------------------------------------------------------------------------------------------------------- runs


@pytest.mark.slow
def test_methods_share_batches_and_initial_weights(job_of):
    seen = {}
    for distil in KINDS:
        starts, batches = [], []

        def watch(trainer, starts=starts, batches=batches):
            starts.append({key: value.clone() for key, value in student_of(trainer).state_dict().items()})
            prepare = trainer.preprocess_batch

            def note(batch):
                batches.append((batch["im_file"], batch["img"].clone(), batch["bboxes"].clone()))
                return prepare(batch)

            trainer.preprocess_batch = note

        callbacks = get_default_callbacks()
        callbacks["on_train_start"].append(watch)
        execute(job_of(distil, distil), DS2D2Trainer, callbacks)
        seen[distil] = starts[0], batches
    (weights, batches), *others = seen.values()
    assert len(batches) == 4  # two epochs of eight images
    assert not torch.equal(batches[0][1], batches[2][1])  # shuffled and augmented, so equality says something
    for other_weights, other_batches in others:
        for key, value in weights.items():
            # Ultralytics' own distillation passes an empty image through it, which counts
            assert key.endswith("num_batches_tracked") or torch.equal(value, other_weights[key])
        for ours, theirs in zip(batches, other_batches, strict=True):
            assert ours[0] == theirs[0]
            assert torch.equal(ours[1], theirs[1])
            assert torch.equal(ours[2], theirs[2])


def test_records_hold_what_the_runs_came_to(finished):
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
    with pytest.raises(DS2D2Error, match="explicit-0"):  # as nothing has made its record
        run_comparison(plan_comparison(given))
    assert [job["title"] for job in to_do] == ["explicit-0", "db2-0"]


@pytest.mark.slow
@pytest.mark.parametrize("distil", KINDS)
def test_an_interrupted_run_continues_where_it_was(distil, job_of):
    def weights_of(trainer):
        return {n: value.detach().clone() for n, value in unwrap_model(trainer.model).named_parameters()}

    def stop(trainer):
        if trainer.epoch == 1:
            left.update(weights_of(trainer))
            raise KeyboardInterrupt

    seen, left = [], {}
    job = job_of(distil, epochs=4)
    for event in ("on_train_epoch_start", "on_fit_epoch_end"):  # before an epoch is saved, and after
        callbacks = get_default_callbacks()
        callbacks[event].append(stop)
        with pytest.raises(KeyboardInterrupt):
            execute(job, DS2D2Trainer, callbacks)
        assert not Path(job["record"]).exists()
    callbacks = get_default_callbacks()

    def note(trainer):
        seen.append((trainer.start_epoch, weights_of(trainer)))
        moments = [state["momentum_buffer"] for state in trainer.optimizer.state.values()]
        seen.append(sum(float(moment.abs().sum()) for moment in moments))

    callbacks["on_train_start"].append(note)
    execute(job, DS2D2Trainer, callbacks)
    (start, weights), momentum = seen
    assert start == 2
    assert momentum > 0  # the optimiser goes on, it does not start anew
    assert {"none": False, "ultralytics": True, "ds2d2": True}[distil] == any(
        "projector" in name or "adapters" in name for name in weights
    )
    assert weights.keys() == left.keys()
    for name, value in left.items():
        assert torch.equal(weights[name], value), name
    record = record_of(job)
    assert [epoch["epoch"] for epoch in record["curve"]] == [1, 2, 3, 4]
    times = [epoch["seconds"] for epoch in record["curve"]]
    assert times == sorted(times)
    assert record["continued_after"] == [1, 2]
    model, checkpoint = load_checkpoint(record["weights"])
    assert type(model) is DetectionModel
    assert checkpoint["epoch"] == -1
    modified = Path(job["record"]).stat().st_mtime_ns
    execute(job, DS2D2Trainer)
    assert Path(job["record"]).stat().st_mtime_ns == modified


@pytest.mark.parametrize("distil", KINDS)
def test_a_run_killed_after_its_last_epoch_is_completed(distil, job_of):
    def kill(trainer):
        raise KeyboardInterrupt

    job = job_of(distil, epochs=1)
    callbacks = get_default_callbacks()
    callbacks["on_fit_epoch_end"].append(kill)
    with pytest.raises(KeyboardInterrupt):
        execute(job, DS2D2Trainer, callbacks)
    execute(job, DS2D2Trainer)
    record = record_of(job)
    assert len(record["curve"]) == 1
    assert record["peak_bytes"] is None
    model, checkpoint = load_checkpoint(record["weights"])
    assert type(model) is DetectionModel
    assert not hasattr(model, "ds2d2_adapters")
    assert checkpoint["optimizer"] is None


def test_a_damaged_checkpoint_starts_the_run_over(job_of):
    job = job_of("none", epochs=1)
    weights = Path(job["folder"]) / "weights"
    weights.mkdir(parents=True)
    (weights / "last.pt").write_bytes(b"cut short")
    (Path(job["folder"]) / "starts.txt").write_text("0\n1\n")
    execute(job, DS2D2Trainer)
    assert record_of(job)["continued_after"] == []


def test_a_batch_halved_for_lack_of_memory_is_an_error(job_of):
    failed = []

    def fail_once(module, inputs):
        if not failed and module.training:
            failed.append(True)
            raise RuntimeError("CUDA out of memory")

    callbacks = get_default_callbacks()
    callbacks["on_train_start"].append(lambda t: t.model.model[4].register_forward_pre_hook(fail_once))
    with pytest.raises(DS2D2Error, match=r"out of memory: Ultralytics went on with batch=2.*pass batch=2 for all"):
        execute(job_of("none"), DS2D2Trainer, callbacks)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")
def test_after_a_kill_nothing_runs_on_and_the_command_continues(request_of, tmp_path):
    given = request_of(project=str(tmp_path), name="comparison", methods="plain", seeds=0, epochs=900, amplifier="-")
    words = [f"{key}={value}" for key, value in given.items()]
    # The signal is ignored where tests run in the background, by what they start, too.
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
            assert errors.decode().endswith("ds2d2: interrupted; the same command continues it\n")
        done = len(files[0].read_text().splitlines()) - 1
    assert 4 <= done < 900
    assert not list(tmp_path.glob("comparison/runs/plain-*.json"))
    # What is left to do takes too long for a test: the checkpoint says where it would go on.
    (last,) = tmp_path.glob("comparison/runs/plain-0-*/weights/last.pt")
    saved = torch.load(last, weights_only=False)["epoch"] + 1
    starts = (last.parents[1] / "starts.txt").read_text().split()
    assert len(starts) == 2
    assert starts[0] == "0"
    assert 1 <= int(starts[1]) < saved <= done


def test_a_run_that_fails_is_told_in_one_line_with_its_output(request_of, tmp_path):
    comparison = plan_comparison(request_of(project=str(tmp_path), methods="plain", seeds=0))
    worker = ("-c", "import sys; sys.stdin.readline(); print('ds2d2: error: no luck'); sys.exit(1)")
    with pytest.raises(DS2D2Error, match=r"^teacher failed: no luck; its output is in .*teacher-\w+\.log; the same"):
        run_comparison(comparison, worker)
    worker = ("-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(DS2D2Error, match=r"^teacher failed: killed by signal 9;"):
        run_comparison(comparison, worker)


def test_a_given_amplifier_serves_only_methods_of_its_wavelet(request_of, tmp_path):
    worker = ("-c", "import sys; sys.exit(3)")
    for methods, title in (("ds2d2,haar", "teacher"), ("ds2d2,db2", "amplifier of db2")):  # the first job there is
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
    monkeypatch.setenv("RAY_worker_niceness", "0")  # its default of 15 starves where other work goes on
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
    # Records are the same wherever they were made
    alone = plan_comparison({name: value for name, value in given.items() if name != "ray"})
    assert alone.folder == comparison.folder
    assert run_comparison(alone) == on_ray
    failing = ("-c", "import sys; sys.stdin.readline(); print('no luck'); sys.exit(1)")
    with pytest.raises(DS2D2Error, match="failed: no luck"):
        run_comparison(comparison, failing)


# ----------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("changes", "message", "code"),
    [
        ({"methods": "plain,ds2d3"}, "methods=ds2d3: no such method, did you mean ds2d2", 2),
        ({"methods": "xyz"}, "methods=xyz: no such method, there are plain, builtin", 2),
        ({"methods": ""}, "methods= names no method", 2),
        ({"methods": "plain,ds2d2,plain"}, "'plain' is named twice", 2),
        ({"methods": "nowhere.yaml"}, "methods=nowhere.yaml: cannot be read", 2),
        ({"seeds": ""}, "seeds= names no seed", 2),
        ({"seeds": []}, "seeds= names no seed", 2),
        ({"seeds": (0, 1, 0)}, "seed 0 is named twice", 2),
        ({"seeds": "0,x"}, "'x' is no seed", 2),
        ({"seeds": -1}, "'-1' is no seed", 2),
        ({"seeds": True}, "seeds=True: expected", 2),
        ({"seed": 4}, "seed=4: pass seeds=", 2),
        ({"time": 1}, "time=1: schedules would depend on what else the machine does", 2),
        ({"val": False}, "val=False: what each epoch reached is compared", 2),
        ({"resume": "last.pt"}, "resume=last.pt: the same command continues", 2),
        ({"batch": -1}, "batch=-1: methods would get different batches", 2),
        ({"batch": 0.5}, "batch=0.5: methods would get different batches", 2),
        ({"seedz": 0}, "seedz=0: no such argument, did you mean", 2),
        ({"ray": "auto", "ray_cpus": 0}, "ray_cpus=0: expected a number", 2),
        ({"ray": "auto", "ray_gpus": -1}, "ray_gpus=-1: expected a number", 2),
        ({"distill_model": "x.pt"}, "distill_model=x.pt is Ultralytics' own distillation", 2),
        ({"wavelet": "nowave"}, "nowave", 2),
        ({"teacher": "-"}, "teacher= is missing", 2),
        ({"student": "-"}, "student= is missing", 2),
        ({"data": "-"}, "data= is missing", 2),
        ({"amplifier": "nowhere.pt"}, "amplifier=nowhere.pt: no such file", 1),
        ({"teacher": "yolov8n.yaml"}, "belongs to a trained teacher", 1),
    ],
)
def test_mistakes_are_told_before_anything_is_written(changes, message, code, request_of, tmp_path):
    given = request_of(**{"project": str(tmp_path / "project"), "methods": "plain,ds2d2", "seeds": 0, **changes})
    with pytest.raises(DS2D2Error) as raised:
        plan_comparison(given)
    assert message in str(raised.value)
    assert raised.value.exit_code == code
    assert not (tmp_path / "project").exists()


def test_data_without_validation_images_are_refused(request_of, data, tmp_path):
    path = tmp_path / "no_val.yaml"
    path.write_text(f"path: {data.parent}\ntrain: images/train\nnames: [ship, vehicle]\n")
    with pytest.raises(DS2D2Error, match="val"):
        plan_comparison(request_of(project=str(tmp_path / "project"), data=str(path)))
    assert not (tmp_path / "project").exists()


@pytest.mark.slow
def test_ultralytics_distillation_is_refused_where_it_fails(request_of, tmp_path):
    models = {"teacher": str(tiny_yaml(tmp_path, "RetinaNet", "big")), "student": str(tiny_yaml(tmp_path, "RetinaNet"))}
    given = request_of(project=str(tmp_path / "project"), amplifier="-", pretrained=False, **models)
    with pytest.raises(DS2D2Error, match=r"methods=builtin: Ultralytics' own distillation is for YOLO models, .*leave"):
        plan_comparison({**given, "methods": "plain,builtin,ds2d2"})
    assert [method.name for method in plan_comparison({**given, "methods": "plain,ds2d2"}).methods] == [
        "plain",
        "ds2d2",
    ]
    assert not (tmp_path / "project").exists()


def test_without_ray_one_line_says_how_to_get_it(request_of, tmp_path, monkeypatch):
    monkeypatch.setattr("ds2d2_yolo.comparison.processes.find_spec", lambda name: None)
    with pytest.raises(DS2D2Error, match=r"ray=auto: Ray is not installed, pip install 'ds2d2-yolo\[ray\]'"):
        plan_comparison(request_of(project=str(tmp_path), ray="auto"))


# ------------------------------------------------------------------------------------------------------ methods


def test_every_shipped_method_is_valid_and_documented():
    file = resource_folder("cfg") / "methods.yaml"
    methods = {method.name: method for method in read_methods(",".join(set(YAML.load(file)) - {"no-disw"}))}
    assert methods["plain"].distil == "none"
    assert methods["builtin"].distil == "ultralytics"
    assert methods["ds2d2"].arguments == {}
    terms = {"ex_low", "ex_high", "im_full", "im_high", "response"}
    for name in terms:
        assert methods[name].arguments == dict.fromkeys(terms - {name}, 0)
    assert methods["assignment"].arguments == {**dict.fromkeys(terms, 0), "assignment": "teacher"}
    for method in methods.values():
        check_arguments({"teacher": "t.pt", "model": "s.yaml", **method.arguments})
    assert YAML.load(file)["no-disw"] == {"weight": "none"}


def test_a_file_of_the_users_own_names_methods_like_ours(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("strong: {im_full: 10}\nds2d2:\nharder: {distil: ultralytics, dis: 12}\n")
    methods = read_methods(["plain", str(path)])
    assert [method.name for method in methods] == ["plain", "strong", "ds2d2", "harder"]
    assert methods[1].arguments == {"im_full": 10}
    assert methods[2].arguments == {}
    assert (methods[3].distil, methods[3].arguments) == ("ultralytics", {"dis": 12})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [1]\n", "method a is .* expected its arguments"),
        ("[a, b]\n", "cannot be read"),
        ("", "has no methods"),
        ("a: {\n", "cannot be read"),
        ("a: {distil: maybe}\n", "distil=maybe: expected none, ultralytics or ds2d2"),
        ("a: {lr0: 0.1}\n", "lr0=0.1: with distil=ds2d2 it may set amplifier_epochs"),
        ("a: {distil: none, im_full: 1}\n", "im_full=1: with distil=none it may set epochs"),
        ("a:\n", "methods=a: no such method"),
        ("plain: {distil: none}\nb: {teacher: x.pt}\n", "teacher=x.pt: with distil=ds2d2"),
    ],
)
def test_files_that_are_no_methods_are_refused(content, message, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(DS2D2Error, match=message):
        read_methods(str(path))


@pytest.mark.parametrize(
    ("argument", "message"),
    [("im_full: -1", "im_full=-1: expected a number"), ("epochs: 0", "'epochs=0' is an invalid value")],
)
def test_a_wrong_value_names_its_method(argument, message, request_of, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"mine: {{{argument}}}\n")
    with pytest.raises(DS2D2Error, match=f"method mine: {message}"):
        plan_comparison(request_of(project=str(tmp_path / "project"), methods=str(path)))


def test_a_method_with_its_own_epochs_has_a_whole_schedule(request_of, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("long: {distil: none, epochs: 12}\nshort: {epochs: 2, wavelet: db2}\n")
    given = request_of(project=str(tmp_path), methods=f"plain,builtin,{path}", epochs=8, lr_steps=[4, 6])
    comparison = plan_comparison(given)
    schedules = []
    for method in comparison.methods:
        arguments = comparison.arguments_of(method, "t.pt", None)
        schedules.append((arguments["epochs"], arguments["lr_steps"]))
    assert schedules == [(8, [4, 6]), (8, [4, 6]), (12, [6, 9]), (2, [1, 1.5])]


def test_every_option_is_documented():
    text = (resource_folder("cfg") / "compare.yaml").read_text()
    documented = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert {line.split(":")[0] for line in documented} == set(option_defaults("compare"))
    assert all("# (" in line for line in documented)
    assert WORKER[1] == "ds2d2_yolo.commands.compare"


# ------------------------------------------------------------------------------------------------------- curves


def write_curve(path, rows):
    columns = ["epoch", "time", "metrics/mAP50(B)", "metrics/mAP50-95(B)"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([columns, *rows])
    return path


def test_of_an_epoch_that_was_run_twice_the_second_counts(tmp_path):
    rows = [(1, 10, 0.1, 0.05), (2, 20, 0.2, 0.1), (2, 21, 0.25, 0.15), (3, 30, 0.3, 0.2)]
    curve = read_curve(write_curve(tmp_path / "results.csv", rows))
    assert [epoch["seconds"] for epoch in curve] == [10, 21, 30]
    assert [epoch["AP50"] for epoch in curve] == [0.1, 0.25, 0.3]
    weights = tmp_path / "weights" / "best.pt"
    assert training_seconds(weights) == 30
    assert training_seconds(tmp_path / "best.pt") is None


def test_curves_have_what_ultralytics_measures_beside_boxes(tmp_path):
    path = tmp_path / "results.csv"
    names = ["metrics/recall(B)", "metrics/mAP50(B)", "metrics/mAP50-95(B)", "metrics/recall(P)", "metrics/mAP50(P)"]
    path.write_text(f"epoch,time,{','.join(names)},  metrics/mAP50-95(P)\n1,10,0.5,0.4,0.3,0.6,0.2,0.1\n")
    figures = {"AP50": 0.4, "AP50-95": 0.3, "metrics/mAP50(P)": 0.2, "metrics/mAP50-95(P)": 0.1}
    assert read_curve(path) == [{"epoch": 1, "seconds": 10, **figures}]


@pytest.mark.parametrize("content", [None, "", "epoch,time\n", "epoch,time\n1,2\n", "epoch,time\n1\n", "a,b\nx,y\n"])
def test_a_damaged_curve_is_told_in_one_line(content, tmp_path):
    path = tmp_path / "results.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DS2D2Error, match=r"results\.csv: (cannot be read|has no epochs)"):
        read_curve(path)


def test_fitness_is_the_sum_of_ap50_95_as_equal_time_has_it():
    metric = Metric()
    metric.p = metric.r = np.array([0.3])
    metric.all_ap = np.linspace(0.9, 0.0, 10)[None]
    assert metric.fitness() == pytest.approx(metric.map) != metric.map50
    for kind, own in ((SegmentMetrics, "seg"), (PoseMetrics, "pose")):
        metrics = kind()
        metrics.box = metric
        setattr(metrics, own, metric)
        figures = {"AP50": metric.map50, "AP50-95": metric.map, **figures_beside_boxes(metrics.results_dict)}
        assert fitness_of(figures) == pytest.approx(metrics.fitness) == pytest.approx(2 * metric.map)
