"""Small real runs: the stages and their files on disk, without anything of distillation in the checkpoints."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import nn
from training_helpers import (
    frozen_pair,
    lively_model,
    make_stage,
    save_checkpoint,
    short,
    short_of_memory,
    small_yolo,
    write_data,
)
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel, load_checkpoint
from ultralytics.utils import YAML
from ultralytics.utils.callbacks import get_default_callbacks

from ds2d2_yolo import AmplifierTrainer, DS2D2Trainer, plan
from ds2d2_yolo.detectors import detector_of
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.loading.fingerprint import fingerprint_of_file, fingerprint_of_model
from ds2d2_yolo.training.amplifier import load_amplifier, read_amplifier
from ds2d2_yolo.training.results import read_columns

pytestmark = pytest.mark.slow  # nearly all of them train

TERMS = ["ex_low_loss", "ex_high_loss", "im_full_loss", "im_high_loss", "response_loss"]
# A step after every batch, at the full learning rate: the few steps must change something.
SHORT = short(epochs=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return save_checkpoint(lively_model("yolov8s.yaml", seed=1), tmp_path_factory.mktemp("teacher") / "teacher.pt")


@pytest.fixture(scope="module")
def amplifier(teacher, data, tmp_path_factory):
    """A finished amplifier stage of `teacher`."""
    project = str(tmp_path_factory.mktemp("amplifier"))
    trainer = AmplifierTrainer(overrides={**SHORT, "teacher": str(teacher), "data": str(data), "project": project})
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def run(teacher, amplifier, data, tmp_path_factory):
    """A finished student of `teacher`, with plots."""
    project = str(tmp_path_factory.mktemp("student"))
    overrides = {**SHORT, "teacher": str(teacher), "amplifier": str(amplifier.amplifier), "student": "yolo11n.yaml"}
    trainer = DS2D2Trainer(overrides={**overrides, "data": str(data), "project": project, "plots": True})
    trainer.train()
    return trainer


def test_terms_are_logged_one_by_one(run):
    table = read_columns(run.csv)
    for name in TERMS:
        values = table[f"train/{name}"]
        assert len(values) == 2
        assert all(value > 0 for value in values)
        assert f"val/{name}" not in table
    assert "val/box_loss" in table
    assert (run.save_dir / "results.png").stat().st_size > 10_000


def test_calibrated_gains_are_kept_with_the_run(run):
    gains = asdict(run.distiller.loss.gains)
    assert run.distiller.calibration.finished
    assert run.distiller.calibration.batches == 2  # those of the first epoch
    assert all(gain not in {1.0, 0.0} for gain in gains.values())
    assert {name: YAML.load(run.save_dir / "args.yaml")[name] for name in gains} == gains


def test_the_student_is_a_plain_checkpoint(run):
    plain = DetectionModel("yolo11n.yaml", nc=2, verbose=False)
    for path in (run.best, run.last):
        model, checkpoint = load_checkpoint(path)
        assert type(model) is DetectionModel
        assert {k: v.shape for k, v in model.state_dict().items()} == {
            k: v.shape for k, v in plain.state_dict().items()
        }
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
        assert checkpoint["epoch"] == -1
    assert sorted(path.name for path in run.wdir.iterdir()) == ["adapters.pt", "best.pt", "last.pt"]


def test_the_student_works_where_ds2d2_is_not_installed(run, data, tmp_path):
    script = f"""
import sys
sys.modules["ds2d2_yolo"] = None  # importing it fails, as where it is not installed
from ultralytics import YOLO
model = YOLO({str(run.best)!r})
image = {str(data.parent / "images" / "val" / "0.png")!r}
assert model.predict(image, imgsz=64, save=False, device="cpu")[0].boxes is not None
model.val(data={str(data)!r}, imgsz=64, device="cpu", plots=False, workers=0, save_dir={str(tmp_path)!r})
print("exported", model.export(format="onnx", imgsz=64, simplify=False, device="cpu"))
model = YOLO({str(run.best)!r})
model.train(data={str(data)!r}, epochs=1, imgsz=64, batch=4, device="cpu", plots=False, project={str(tmp_path)!r})
assert not any(name.startswith("ds2d2") for name in sys.modules if name != "ds2d2_yolo")
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "exported" in result.stdout
    run.best.with_suffix(".onnx").unlink()


def test_teacher_and_amplifier_stay_frozen_and_apart(run, teacher, amplifier):
    names = [name for name, _ in run.model.named_modules()]
    assert [name for name in names if name.startswith("ds2d2") and "." not in name] == ["ds2d2_adapters"]
    trained = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    frozen_models = (run.distiller.teacher.model, run.distiller.amplifier)
    assert not trained & {id(p) for frozen in frozen_models for p in frozen.parameters()}
    assert {id(p) for p in run.distiller.loss.adapters.parameters()} <= trained
    for frozen, unused in zip(frozen_models, frozen_pair(teacher, amplifier.amplifier), strict=True):
        before, after = unused.state_dict(), frozen.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)


def test_adapters_are_trained(run):
    fresh = DS2D2Trainer(overrides=vars(run.args) | {"save_dir": None, "name": "fresh"})
    fresh.setup_model()
    fresh.set_model_attributes()
    for trained, initial in zip(run.distiller.loss.adapters, fresh.distiller.loss.adapters, strict=True):
        assert not torch.equal(trained.weight, initial.weight)


def test_amplifier_trains_the_head_alone(amplifier, teacher):
    before, _ = load_checkpoint(teacher)
    head = f"model.{len(before.model) - 1}."
    after = amplifier.model.state_dict()
    changed = {key for key, value in before.state_dict().items() if not torch.equal(value, after[key])}
    assert changed
    assert all(key.startswith(head) for key in changed)
    assert any("running_mean" in key for key in changed)


def test_amplifier_file_is_small_and_safe_to_load(amplifier, teacher):
    content = torch.load(amplifier.amplifier, weights_only=True)
    assert content["teacher"] == fingerprint_of_model(load_checkpoint(teacher)[0])
    assert content["wavelet"] == "haar"
    assert "metrics/mAP50(B)" in content["metrics"]
    assert amplifier.amplifier.stat().st_size < 0.6 * amplifier.best.stat().st_size
    assert "metrics/mAP50(B)" in read_columns(amplifier.csv)


def test_amplifier_is_validated_on_high_frequency_maps(amplifier, data):
    model, _ = load_checkpoint(amplifier.best)
    plain = type(model)(model.yaml, verbose=False).eval()
    plain.load_state_dict(model.state_dict())
    images = torch.rand(1, 3, 64, 64)
    assert not torch.allclose(model(images)[0], plain(images)[0])


def test_amplifier_of_another_teacher_is_refused(amplifier):
    other = detector_of(lively_model("yolov8s.yaml", seed=7))
    with pytest.raises(DS2D2Error, match="made for another teacher"):
        load_amplifier(amplifier.amplifier, other, "haar")


def test_amplifier_of_another_wavelet_is_refused(amplifier, teacher):
    with pytest.raises(DS2D2Error, match="made with wavelet=haar, this run has wavelet=db2"):
        load_amplifier(amplifier.amplifier, detector_of(load_checkpoint(teacher)[0]), "db2")


@pytest.mark.parametrize("content", [b"", b"not an archive", None])
def test_other_files_are_no_amplifier(content, tmp_path):
    path = tmp_path / "amplifier.pt"
    if content is None:
        torch.save({"format": "other"}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(DS2D2Error, match="not an amplifier file"):
        read_amplifier(path)


def test_zero_gains_equal_plain_training_bit_by_bit(teacher, data, tmp_path):
    overrides = {**SHORT, "model": "yolo11n.yaml", "data": str(data), "seed": 3}
    plain = DetectionTrainer(overrides={**overrides, "project": str(tmp_path / "plain")})
    plain.train()
    gains = dict.fromkeys(("ex_low", "ex_high", "im_full", "im_high", "response"), 0)
    overrides |= {"teacher": str(teacher), "close_distill": 0.5}
    zero = DS2D2Trainer(overrides={**overrides, **gains, "project": str(tmp_path / "zero")})
    zero.train()
    first, second = plain.model.state_dict(), zero.model.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    ours, theirs = read_columns(zero.csv), read_columns(plain.csv)
    assert ours.keys() == theirs.keys()
    assert all(ours[key] == theirs[key] for key in ours if key != "time")


def test_without_any_term_the_teacher_may_assign_objects(teacher, data, tmp_path):
    gains = dict.fromkeys(("ex_low", "ex_high", "im_full", "im_high", "response"), 0)
    overrides = {**SHORT, **gains, "student": str(small_yolo(tmp_path)), "data": str(data), "teacher": str(teacher)}
    runs = {}
    for who in ("student", "teacher"):
        runs[who] = DS2D2Trainer(overrides={**overrides, "assignment": who, "project": str(tmp_path), "name": who})
        runs[who].train()
    own, by_teacher = (read_columns(run.csv) for run in runs.values())
    assert own.keys() == by_teacher.keys()
    assert own["train/cls_loss"][0] != by_teacher["train/cls_loss"][0]
    assert YAML.load(runs["teacher"].save_dir / "args.yaml")["assignment"] == "teacher"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["student", "teacher"]  # no stages


def test_the_student_starts_as_a_plain_one_does(run, data, tmp_path):
    overrides = {**SHORT, "model": "yolo11n.yaml", "data": str(data), "epochs": 1, "project": str(tmp_path)}
    seen = {}

    def keep(trainer, name):
        seen[name] = [v.clone() for v in trainer.model.model.state_dict().values()]

    def first_loss(trainer, name):
        own = [value.item() for key, value in trainer.loss_items.items() if key not in TERMS]
        seen.setdefault(name, own)

    plain = DetectionTrainer(overrides={**overrides, "name": "plain"})
    plain.add_callback("on_train_start", lambda t: keep(t, "plain"))
    plain.add_callback("on_train_batch_end", lambda t: first_loss(t, "plain loss"))
    plain.train()
    arguments = {"teacher": run.args.teacher, "amplifier": run.args.amplifier}
    distilled = DS2D2Trainer(overrides={**overrides, **arguments, "name": "distilled"})
    distilled.add_callback("on_train_start", lambda t: keep(t, "distilled"))
    distilled.add_callback("on_train_batch_end", lambda t: first_loss(t, "distilled loss"))
    distilled.train()
    assert all(torch.equal(a, b) for a, b in zip(seen["plain"], seen["distilled"], strict=True))
    # the first batch is before any step: its loss is exactly the same
    assert seen["plain loss"] == seen["distilled loss"]


def test_an_interrupted_student_resumes_with_its_adapters(teacher, amplifier, data, tmp_path):
    overrides = {**SHORT, "teacher": str(teacher), "amplifier": str(amplifier.amplifier), "student": "yolo11n.yaml"}
    overrides |= {"data": str(data), "project": str(tmp_path), "epochs": 3}
    trainer = DS2D2Trainer(overrides=overrides)

    def stop(t):
        if t.epoch == 1:
            raise KeyboardInterrupt

    trainer.add_callback("on_fit_epoch_end", stop)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert not any(m._forward_hooks for m in trainer.model.modules())
    saved = torch.load(trainer.last, weights_only=False)
    assert {type(m).__module__.split(".")[0] for m in saved["ema"].modules()} <= {"torch", "ultralytics"}
    assert hasattr(saved["ema"], "ds2d2_adapters")
    adapters = trainer.distiller.loss.adapters

    resumed = DS2D2Trainer(overrides={"resume": str(trainer.last)})
    loaded = []
    resumed.add_callback(
        "on_train_start", lambda t: loaded.extend(p.clone() for p in t.distiller.loss.adapters.parameters())
    )
    resumed.train()
    assert resumed.distiller.calibration is None
    assert resumed.distiller.loss.gains == trainer.distiller.loss.gains
    assert all(torch.equal(a, b) for a, b in zip(loaded, adapters.parameters(), strict=True))
    assert resumed.save_dir == trainer.save_dir
    assert len(read_columns(resumed.csv)["epoch"]) == 3
    assert all(value > 0 for name in TERMS for value in read_columns(resumed.csv)[f"train/{name}"])
    assert not hasattr(load_checkpoint(resumed.best)[0], "ds2d2_adapters")
    with pytest.raises(DS2D2Error, match="finished; start a new one"):
        DS2D2Trainer(overrides={"resume": str(resumed.last)})


def test_recovery_from_nan_keeps_the_adapters(teacher, amplifier, data, tmp_path):
    overrides = {**SHORT, "teacher": str(teacher), "amplifier": str(amplifier.amplifier), "student": "yolo11n.yaml"}
    trainer = DS2D2Trainer(overrides={**overrides, "data": str(data), "project": str(tmp_path), "epochs": 3})
    broken = []

    def break_weights(t):
        if t.epoch == 1 and not broken:
            broken.append(True)
            with torch.no_grad():
                t.distiller.loss.adapters[0].weight.fill_(float("nan"))

    trainer.add_callback("on_train_epoch_start", break_weights)
    trainer.train()
    assert broken
    assert torch.isfinite(trainer.distiller.loss.adapters[0].weight).all()
    assert trainer.model.ds2d2_adapters is trainer.distiller.loss.adapters
    assert len(read_columns(trainer.csv)["epoch"]) == 3


def test_yolo_api_trains_twice_in_one_process(run, data, tmp_path):
    for name in ("first", "second"):
        model = YOLO("yolo11n.yaml")
        model.train(
            trainer=DS2D2Trainer,
            teacher=run.args.teacher,
            amplifier=run.args.amplifier,
            data=str(data),
            **{**SHORT, "epochs": 1},
            project=str(tmp_path),
            name=name,
        )
        assert type(model.model) is DetectionModel
    first, second = (read_columns(tmp_path / name / "results.csv") for name in ("first", "second"))
    assert {k: v for k, v in first.items() if k != "time"} == {k: v for k, v in second.items() if k != "time"}
    model.train(data=str(data), **{**SHORT, "epochs": 1}, project=str(tmp_path), name="plain")
    assert not any(name in read_columns(tmp_path / "plain" / "results.csv") for name in TERMS)


def test_a_pretrained_student_keeps_its_weights(run, data, tmp_path):
    student = save_checkpoint(lively_model("yolo11n.yaml", seed=5), tmp_path / "student.pt")
    before = load_checkpoint(student)[0].state_dict()
    arguments = {"teacher": run.args.teacher, "amplifier": run.args.amplifier, "data": str(data)}
    model = YOLO(str(student))
    model.train(trainer=DS2D2Trainer, **SHORT | arguments | {"epochs": 1, "lr0": 1e-9}, project=str(tmp_path))
    after = model.model.state_dict()
    key = "model.0.conv.weight"
    torch.testing.assert_close(after[key].float(), before[key].float(), atol=2e-3, rtol=0)


def test_a_pretrained_student_may_know_other_classes(run, data, tmp_path):
    student = save_checkpoint(lively_model("yolo11n.yaml", classes=5), tmp_path / "student.pt")
    arguments = {
        "teacher": run.args.teacher,
        "amplifier": run.args.amplifier,
        "data": str(data),
        "student": str(student),
    }
    trainer = DS2D2Trainer(overrides={**SHORT, **arguments, "epochs": 1, "project": str(tmp_path)})
    trainer.train()
    assert load_checkpoint(trainer.best)[0].names == {0: "ship", 1: "vehicle"}
    assert all(read_columns(trainer.csv)[f"train/{name}"][0] > 0 for name in TERMS)


def test_running_out_of_memory_early_halves_the_batch(run, data, tmp_path):
    arguments = {
        "teacher": run.args.teacher,
        "amplifier": run.args.amplifier,
        "data": str(data),
        "student": "yolo11n.yaml",
    }
    trainer = DS2D2Trainer(overrides={**SHORT, **arguments, "epochs": 1, "project": str(tmp_path)})
    trainer.add_callback(*short_of_memory(layer=20))
    trainer.train()
    assert trainer.batch_size == 2
    assert all(read_columns(trainer.csv)[f"train/{name}"][0] > 0 for name in TERMS)


def test_images_that_are_left_out_are_counted_before_a_training(tmp_path, log):
    """Ultralytics leaves out an image if one line of its labels is wrong, and goes on with a line per image."""
    labels = write_data(tmp_path / "set").parent / "labels" / "train"
    small = str(small_yolo(tmp_path))
    overrides = {**SHORT, "teacher": small, "data": str(tmp_path / "set" / "data.yaml"), "epochs": 1}
    (labels / "0.txt").write_text("9 0.5 0.5 0.2 0.2\n")
    make_stage({**overrides, "project": str(tmp_path / "one")}, "teacher")
    assert "1 of 8 training images cannot be used; run 'ds2d2 check data=" in log.text
    for number in range(1, 5):
        (labels / f"{number}.txt").write_text("9 0.5 0.5 0.2 0.2\n")
    with pytest.raises(DS2D2Error, match=r"data\.yaml: 5 of 8 training images cannot be used"):
        make_stage({**overrides, "project": str(tmp_path / "most")}, "teacher")
    assert not list((tmp_path / "most").rglob("*.csv"))


def test_one_command_makes_all_stages_and_reuses_them(data, tmp_path):
    architecture, project = small_yolo(tmp_path, "big", 32), tmp_path / "runs"
    overrides = {**SHORT, "teacher": str(architecture), "student": str(small_yolo(tmp_path)), "data": str(data)}
    overrides |= {"project": str(project), "name": "student", "epochs": 1, "teacher_epochs": 2}
    first = DS2D2Trainer(overrides=overrides)
    first.train()
    folders = sorted(path.name for path in project.iterdir())
    assert [name.rsplit("-", 1)[0] for name in folders] == ["amplifier-big", "student", "teacher-big"]
    teacher = project / folders[2] / "weights" / "best.pt"
    record = json.loads((project / folders[2] / "stage.json").read_text())
    assert record["inputs"]["epochs"] == 2
    assert record["sha256"] == fingerprint_of_file(teacher)
    assert Path(first.args.teacher) == teacher
    changed = [(path, path.stat().st_mtime_ns) for path in project.rglob("*") if "student" not in path.parts]

    second = DS2D2Trainer(overrides=overrides)
    second.train()
    assert second.save_dir.name == "student-2"
    assert [(path, path.stat().st_mtime_ns) for path, _ in changed] == changed
    assert len(list(project.iterdir())) == 4
    a, b = (read_columns(t.csv) for t in (first, second))
    assert {k: v for k, v in a.items() if k != "time"} == {k: v for k, v in b.items() if k != "time"}

    # another wavelet: the same teacher, another amplifier
    third = DS2D2Trainer(overrides={**overrides, "wavelet": "db2"})
    third.train()
    assert third.args.teacher == first.args.teacher
    assert third.args.amplifier != first.args.amplifier
    assert read_amplifier(third.args.amplifier)["wavelet"] == "db2"

    # another seed: the same stages
    fourth = DS2D2Trainer(overrides={**overrides, "seed": 5})
    assert (fourth.args.teacher, fourth.args.amplifier) == (first.args.teacher, first.args.amplifier)

    # a damaged or replaced file is made again
    other = save_checkpoint(lively_model(architecture, seed=3), tmp_path / "other.pt")
    for content in (b"damaged", other.read_bytes()):
        teacher.write_bytes(content)
        plan(overrides).run()
        assert teacher.read_bytes() != content
        assert fingerprint_of_file(teacher) == json.loads((project / folders[2] / "stage.json").read_text())["sha256"]


@pytest.mark.parametrize("moved", [False, True])
def test_an_interrupted_stage_continues_where_it_is(moved, data, tmp_path):
    project = tmp_path / "project"
    overrides = {**SHORT, "teacher": str(small_yolo(tmp_path)), "data": str(data), "epochs": 3, "project": str(project)}
    reached = []

    def stop(trainer):
        reached.append(trainer.epoch)
        if len(reached) == 2:
            raise KeyboardInterrupt

    callbacks = get_default_callbacks()
    callbacks["on_fit_epoch_end"].append(stop)
    with pytest.raises(KeyboardInterrupt):
        make_stage(overrides, callbacks=callbacks)
    (folder,) = project.iterdir()
    assert not (folder / "stage.json").exists()
    if moved:
        project = project.rename(tmp_path / "moved")
        overrides["project"] = str(project)
    weights = make_stage(overrides, callbacks=callbacks)
    assert reached[:3] == [0, 1, 2]
    assert weights == project / folder.name / "weights" / "best.pt"
    assert (project / folder.name / "stage.json").is_file()
    assert not moved or not (tmp_path / "project").exists()
    count = len(reached)
    assert make_stage(overrides, callbacks=callbacks) == weights
    assert len(reached) == count


def test_two_processes_make_a_stage_once(data, tmp_path):
    arguments = {**SHORT, "teacher": "yolo11n.yaml", "data": str(data), "epochs": 1, "project": str(tmp_path)}
    words = [f"{key}={value}" for key, value in arguments.items()]
    command = [sys.executable, "-m", "ds2d2_yolo.cli", "teacher", *words]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sum("teacher: training in" in output for output in outputs) == 1
    assert sum("teacher: reusing" in output for output in outputs) == 1


def test_equal_channels_need_no_adapter_for_implicit_terms(data, tmp_path):
    teacher = save_checkpoint(lively_model("yolov8n.yaml", seed=1), tmp_path / "teacher.pt")
    overrides = {**SHORT, "teacher": str(teacher), "student": "yolov8n.yaml", "data": str(data), "amplifier": None}
    trainer = DS2D2Trainer(overrides={**overrides, "ex_low": 0, "ex_high": 0, "project": str(tmp_path), "epochs": 1})
    trainer.train()
    assert all(isinstance(adapter, nn.Identity) for adapter in trainer.distiller.loss.adapters)
    assert read_columns(trainer.csv)["train/im_full_loss"][0] > 0
