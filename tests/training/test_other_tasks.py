"""Small real runs for oriented boxes, masks and keypoints."""

import json
import subprocess
import sys
from dataclasses import asdict

import cloudpickle
import pytest
import torch
from training_helpers import (
    NAMES,
    batch_of,
    lively_model,
    make_stage,
    no_network,
    save_checkpoint,
    short,
    small_yolo,
    write_data,
)
from ultralytics.models.rtdetr.train import RTDETRTrainer
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.nn.tasks import PoseModel, load_checkpoint
from ultralytics.utils import DEFAULT_CFG
from ultralytics.utils.callbacks import get_default_callbacks

from ds2d2_yolo import AmplifierTrainer, DS2D2Trainer, plan
from ds2d2_yolo.cli import main
from ds2d2_yolo.comparison.methods import Method
from ds2d2_yolo.comparison.plan import plan_comparison
from ds2d2_yolo.comparison.work import execute
from ds2d2_yolo.detectors import Suppression, build_model, detector_of
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.evaluation import Agreement
from ds2d2_yolo.loading.fingerprint import fingerprint_of_data
from ds2d2_yolo.method import DS2D2Loss, Gains
from ds2d2_yolo.training.amplifier import load_amplifier
from ds2d2_yolo.training.arguments import check_arguments
from ds2d2_yolo.training.autobatch import DistillationStep
from ds2d2_yolo.training.pair import check_pair
from ds2d2_yolo.training.results import read_rows
from ds2d2_yolo.training.step import Distiller
from ds2d2_yolo.training.tasks import task_of, trainer_for
from ds2d2_yolo.training.trainer import PlainTrainer

PAIRS = {  # teacher, student
    "obb": ("yolov8n-obb", "yolo11n-obb"),
    "obb26": ("yolo26n-obb", "yolo26n-obb"),
    "segment": ("yolo26n-seg", "yolo11n-seg"),
    "pose": ("yolo11n-pose", "yolo26n-pose"),
}
SHORT = short()


@pytest.fixture(scope="module", params=PAIRS)
def trained(request, tmp_path_factory):
    """A student whose amplifier was trained with it, the teacher, and the data."""
    folder = tmp_path_factory.mktemp(request.param)
    teacher, student = PAIRS[request.param]
    data = write_data(folder / "set", train=4, val=2, task=request.param.removesuffix("26"))
    path = save_checkpoint(lively_model(f"{teacher}.yaml", seed=1), folder / "teacher.pt")
    overrides = {**SHORT, "teacher": str(path), "student": f"{student}.yaml", "data": str(data)}
    trainer = DS2D2Trainer(overrides={**overrides, "project": str(folder / "runs"), "name": "student"})
    trainer.train()
    return trainer, path, data


def test_every_term_is_computed(trained):
    trainer, _, _ = trained
    (row,) = read_rows(trainer.csv)
    for name in ("ex_low", "ex_high", "im_full", "im_high", "response"):
        assert 0 < row[f"train/{name}_loss"] < float("inf")
    assert {"obb": "train/angle_loss", "segment": "train/seg_loss", "pose": "train/pose_loss"}[trainer.args.task] in row
    assert all(gain not in {0.0, 1.0} for gain in asdict(trainer.distiller.loss.gains).values())


@pytest.mark.parametrize("trained", ["obb", "segment"], indirect=True)
def test_the_student_works_where_ds2d2_is_not_installed(trained, tmp_path):
    trainer, _, data = trained
    model, _ = load_checkpoint(trainer.best)
    assert type(model) is type(build_model(f"{detector_of(model).title}.yaml"))
    assert not [name for name, _ in model.named_modules() if "ds2d2" in name]
    script = f"""
import sys
sys.modules["ds2d2_yolo"] = None  # importing it fails, as where it is not installed
from ultralytics import YOLO
model = YOLO({str(trainer.best)!r})
assert model.task == {trainer.args.task!r}
model.predict({str(data.parent / "images" / "val" / "0.png")!r}, imgsz=64, save=False, device="cpu")
model.val(data={str(data)!r}, imgsz=64, device="cpu", plots=False, workers=0, save_dir={str(tmp_path)!r})
print("validated")
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "validated" in result.stdout


def test_the_amplifier_is_the_teachers_head_trained_further(trained):
    trainer, path, _ = trained
    teacher = detector_of(load_checkpoint(path)[0])
    before = teacher.head.state_dict()
    after = load_amplifier(trainer.args.amplifier, teacher, "haar").state_dict()
    assert set(after) <= set(before)
    assert any(not torch.equal(before[key], value) for key, value in after.items() if value.is_floating_point())


@pytest.mark.parametrize("trained", ["obb26", "pose"], indirect=True)
def test_an_interrupted_student_resumes(trained, tmp_path):
    trainer, teacher, data = trained
    overrides = {**SHORT, "epochs": 2, "teacher": str(teacher), "amplifier": trainer.args.amplifier}
    overrides |= {"student": str(trainer.args.model), "data": str(data), "project": str(tmp_path), "name": "student"}
    interrupted = DS2D2Trainer(overrides=overrides)

    def interrupt(trainer):
        raise KeyboardInterrupt

    interrupted.add_callback("on_model_save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        interrupted.train()
    resumed = DS2D2Trainer(overrides={"resume": str(interrupted.last)})
    assert resumed.args.task == trainer.args.task
    resumed.train()
    assert resumed.csv.read_text().count("\n") == 3
    assert load_checkpoint(resumed.best)[1]["epoch"] == -1


@pytest.mark.parametrize("trained", ["obb", "pose"], indirect=True)
def test_validation_compares_a_student_with_its_teacher(trained, tmp_path):
    trainer, teacher, data = trained
    overrides = {**SHORT, "teacher": str(teacher), "amplifier": trainer.args.amplifier, "val_kd": True}
    overrides |= {"student": str(trainer.args.model), "data": str(data), "project": str(tmp_path), "name": "student"}
    compared = DS2D2Trainer(overrides=overrides)
    compared.train()
    (row,), (plain,) = read_rows(compared.csv), read_rows(trainer.csv)
    assert all(row[f"val/{name}_loss"] > 0 for name in ("ex_low", "ex_high", "im_full", "im_high", "response"))
    assert 0 <= row["metrics/agreement"] <= 1
    assert row["metrics/mAP50(B)"] == plain["metrics/mAP50(B)"]


@pytest.mark.parametrize("name", ["yolo11n-obb.yaml", "yolo26n-obb.yaml"])
def test_what_a_teacher_finds_is_the_same_from_raw_predictions(name):
    detector = detector_of(lively_model(name, seed=1))
    detector.model.end2end = False
    images = torch.rand(2, 3, 64, 64)
    expected = detector.detect(images, confidence=0.1)
    detector.freeze()
    maps = [torch.zeros(2, 1, size, size) for size in (8, 4, 2)]
    with torch.no_grad():
        found = detector.detections_of(detector.forward_teacher(images), maps, Suppression(0.1))
    agreement = Agreement(confidence=0.1)
    for ours, theirs in zip(found, expected, strict=True):
        assert len(theirs) > 0
        assert ours.shape[1] == 7
        torch.testing.assert_close(ours[0, :6], theirs[0, :6], rtol=1e-3, atol=1e-3)  # the most confident
        agreement.update(theirs, theirs)
    # For boxes at the same place, the largest sum may pair different boxes
    assert agreement.results()["metrics/agreement"] == 1.0
    assert agreement.results()["metrics/agreement_iou"] > 0.99


@pytest.mark.slow
def test_the_command_makes_all_stages_of_oriented_boxes(fresh_machine, tmp_path, capsys):
    data = write_data(tmp_path / "set", train=4, val=2, task="obb")
    words = [f"{key}={value}" for key, value in SHORT.items()] + [f"project={tmp_path / 'runs'}", "name=student"]
    words += ["teacher=yolo11n-obb.yaml", "student=yolo26n-obb.yaml", f"data={data}", "footprint=hull", "weight=disw"]
    assert main(["train", *words]) == 0
    assert (tmp_path / "runs" / "student" / "weights" / "best.pt").is_file()
    stages = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/stage.json")]
    assert sorted(stage["inputs"]["stage"] for stage in stages) == ["amplifier", "teacher"]


@pytest.mark.slow
@pytest.mark.parametrize("distil", ["none", "ultralytics", "ds2d2"])
def test_methods_are_compared_on_oriented_boxes(distil, tmp_path):
    data = write_data(tmp_path / "set", train=4, val=2, task="obb")
    teacher = save_checkpoint(lively_model("yolov8n-obb.yaml", seed=1), tmp_path / "teacher.pt")
    given = {**SHORT, "teacher": str(teacher), "student": "yolo11n-obb.yaml", "data": str(data)}
    comparison = plan_comparison({**given, "project": str(tmp_path / "runs"), "amplifier": None})
    method = Method("own", distil, {"footprint": "hull"} if distil == "ds2d2" else {})
    arguments = comparison.arguments_of(method, teacher, None) | {"seed": 3}
    files = {"folder": str(tmp_path / "run"), "record": str(tmp_path / "run.json")}
    inputs = {"data": fingerprint_of_data(comparison.run.data, "val")}
    more = {"method": "own", "seed": 3, "distil": distil, "arguments": arguments, "inputs": inputs}
    callbacks, shapes = get_default_callbacks(), []

    def look(trainer):
        shapes.append(trainer.distiller.teacher.footprints(batch_of(task="obb")).shape)

    if distil == "ds2d2":
        callbacks["on_train_start"].append(look)
    execute({"kind": "run", "title": "run", **files, **more}, DS2D2Trainer, callbacks)
    assert shapes == ([(6, 4)] if distil == "ds2d2" else [])  # corners of hulls
    record = json.loads((tmp_path / "run.json").read_text())
    assert sorted(record["coco"]) == ["AP", "AP50", "AP75", "APl", "APm", "APs"]
    settings = json.loads((tmp_path / "run/coco/coco.json").read_text())["settings"]
    assert settings["task"] == "obb"
    header = (tmp_path / "run/results.csv").read_text().splitlines()[0]
    assert "train/angle_loss" in header
    assert ("train/dis_loss" in header) == (distil == "ultralytics")
    assert ("train/im_full_loss" in header) == (distil == "ds2d2")


def test_models_that_cannot_be_compared_fail_before_training(sets, tmp_path):
    given = {**SHORT, "teacher": "yolo11n.yaml", "student": "yolo11n.yaml", "data": sets["detect"]}
    (tmp_path / "methods.yaml").write_text("hulls: { footprint: hull }\n")
    given |= {"project": str(tmp_path / "runs"), "methods": str(tmp_path / "methods.yaml")}
    with pytest.raises(DS2D2Error, match="footprint=hull: is for oriented boxes"):
        plan_comparison(given)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("hulls", [False, True])
def test_objects_cover_in_the_terms_what_the_teacher_says(hulls):
    teacher, student = (detector_of(lively_model("yolo11n-obb.yaml", seed=seed)) for seed in (1, 2))
    pair = check_pair(teacher, student, 64)
    batch = batch_of(task="obb")
    teacher.configure(sum_regions=False, hulls=hulls)
    loss, seen = DS2D2Loss(pair.maps, Gains(ex_low=1.0)), []
    loss.register_forward_pre_hook(lambda _, values: seen.append(values[0].boxes))
    distiller = Distiller(teacher, None, loss, pair.student_layers, pair.teacher_layers)
    distiller.begin_step(student, batch)
    student.model.train()(batch)
    distiller.end_step()
    torch.testing.assert_close(seen, [teacher.footprints(batch)])
    assert seen[0].shape[1] == (4 if hulls else 5)


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_the_step_for_autobatch_has_objects_of_the_task(pair):
    teacher, student = (detector_of(lively_model(f"{name}.yaml", seed=seed)) for seed, name in enumerate(pair))
    layers = check_pair(teacher, student, 64)
    loss = DS2D2Loss(layers.maps, Gains(1.0, 1.0, 1.0))
    distiller = Distiller(teacher, None, loss, layers.student_layers, layers.teacher_layers)
    student.model.train()
    value = DistillationStep(student.model, distiller)(torch.rand(2, 3, 64, 64))
    assert torch.isfinite(value).all()
    assert sorted(distiller.warnings._values) == ["ex_high", "ex_low", "im_full"]


def test_trainers_take_the_task_of_their_model(tmp_path, warnings):
    path = save_checkpoint(lively_model("yolo11n-obb.yaml"), tmp_path / "model.pt")
    assert task_of({"model": str(path)}) == task_of({"model": str(path), "safe": True}) == "obb"
    assert task_of({"student": "yolo11n.yaml", "teacher": "yolo11s-seg.yaml"}) == "detect"
    assert task_of({"resume": str(path), "model": "yolo11n.yaml"}) == "obb"
    (tmp_path / "broken.pt").write_bytes(b"nothing")
    assert task_of({"model": str(tmp_path / "broken.pt")}) == "detect"
    for kind in (PlainTrainer, AmplifierTrainer, DS2D2Trainer):
        made = trainer_for(kind, {"model": "yolo11n-seg.yaml"})
        assert issubclass(made, kind)
        assert trainer_for(made, {"task": "segment"}) is made is trainer_for(kind, {"task": "segment"})
        assert trainer_for(kind, {"model": "retinanet_r18.yaml"}) is kind
    assert not warnings()  # Ultralytics cannot guess the task of a RetinaNet


@pytest.mark.parametrize("name", ["last.pt", "folder/last.pt"])
def test_a_missing_run_is_not_looked_for_in_the_network(name, tmp_path, monkeypatch, warnings):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "last.log").touch()
    message = f"resume={name}: no checkpoint there; pass the last.pt of a run"
    with no_network() as asked, pytest.raises(DS2D2Error, match=message):
        DS2D2Trainer(overrides={"resume": name})
    assert not asked
    assert not warnings()


def test_a_configuration_chooses_the_trainer_as_overrides_do():
    for model, base in (("yolo11n-obb.yaml", OBBTrainer), ("rtdetr-l.yaml", RTDETRTrainer)):
        cfg = {"teacher": "missing.pt", "model": model}
        for arguments in ({"cfg": cfg}, {"overrides": cfg}, {"cfg": cfg, "overrides": {"epochs": 2}}):
            assert isinstance(DS2D2Trainer.__new__(DS2D2Trainer, **arguments), base)
        assert not isinstance(DS2D2Trainer.__new__(DS2D2Trainer, cfg, {"student": "yolo11n.yaml"}), base)


def test_a_configuration_may_have_few_arguments(tmp_path):
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"nothing")
    for cfg in ({"resume": str(broken)}, {"teacher": str(broken), "model": "yolo11n.yaml", "data": "coco8.yaml"}):
        with pytest.raises(DS2D2Error, match=f"{next(iter(cfg))}={broken}: "):
            DS2D2Trainer(cfg=cfg)


def test_a_configuration_has_the_names_of_overrides():
    assert check_arguments({}, {"student": "yolo11n.yaml"}).model == "yolo11n.yaml"
    with pytest.raises(DS2D2Error, match="epohs=3: no such argument, did you mean epochs"):
        DS2D2Trainer(cfg={"epohs": 3})


@pytest.mark.slow
def test_trainers_of_tasks_reach_the_workers_of_several_gpus():
    script = (
        "import sys, pickle; kind = pickle.load(sys.stdin.buffer); "
        "print([base.__name__ for base in kind.__mro__[:5]], kind.__new__(kind, overrides={'task': 'obb'}).__class__)"
    )
    content = cloudpickle.dumps(trainer_for(DS2D2Trainer, {"task": "obb"}))
    result = subprocess.run([sys.executable, "-c", script], input=content, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr.decode()
    assert b"['DS2D2Trainer', 'DS2D2Trainer', 'StudentTrainer', 'PlainTrainer', 'OBBTrainer']" in result.stdout


MISTAKES = [
    ({"student": "yolo11n.yaml"}, "teacher yolo11n-obb is for task=obb, student yolo11n for task=detect"),
    ({"task": "segment"}, "task=segment: teacher yolo11n-obb is for task=obb"),
    ({"task": "classify"}, "task=classify: only detect, obb, segment, pose can be distilled"),
    ({"footprint": "round"}, "footprint=round: expected rotated or hull"),
    (
        {"footprint": "hull", "teacher": "yolo11n.yaml", "student": "yolo11n.yaml"},
        "footprint=hull: is for oriented boxes, but teacher yolo11n is for task=detect; leave footprint= out",
    ),
    (
        {"assignment": "teacher", "teacher": "yolo11n-seg.yaml", "student": "yolo11n-seg.yaml"},
        "assignment=teacher: yolo11n-seg cannot assign objects for yolo11n-seg, .*; leave assignment= out",
    ),
    ({"data": "detect"}, "holds boxes, task=obb needs the four corners of each object"),
    (
        {"teacher": "yolo11n-seg.yaml", "student": "yolo11n-seg.yaml", "data": "detect"},
        "holds boxes, task=segment needs the outline of each object",
    ),
    ({"teacher": "yolo11n-pose.yaml", "student": "yolo11n-pose.yaml"}, "the line 'kpt_shape:' is missing"),
    ({"gains": "reference"}, "gains=reference: the paper's authors have none for YOLO"),
    ({"student": "yolo11n-cls.yaml"}, "student=yolo11n-cls.yaml: "),
]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    return {task: str(write_data(folder / task, train=2, val=1, task=task)) for task in ("detect", "obb")}


def pose_model(yaml):
    model = PoseModel(str(yaml), nc=2, verbose=False)
    model.names, model.args, model.task = dict(NAMES), DEFAULT_CFG, "pose"
    return model


@pytest.mark.slow
def test_a_teacher_of_other_keypoints_is_fine_tuned_or_refused(tmp_path):
    teacher = save_checkpoint(pose_model("yolo11n-pose.yaml"), tmp_path / "seventeen.pt")
    data = write_data(tmp_path / "set", train=2, val=1, task="pose")
    given = {**SHORT, "teacher": str(teacher), "data": str(data), "project": str(tmp_path / "runs")}
    planned = plan({**given, "student": "yolo11n-pose.yaml"})
    assert planned.states["teacher"] == "to be trained"
    assert planned.teacher.keypoints == (4, 2)
    message = r"seventeen.pt: predicts keypoints of kpt_shape=\[17, 3\]; leave teacher_epochs= out"
    with pytest.raises(DS2D2Error, match=message):
        plan_comparison({**given, "student": "yolo11n-pose.yaml", "teacher_epochs": 0})
    with pytest.raises(DS2D2Error, match=message):
        make_stage({**given, "teacher_epochs": 0}, "amplifier")
    with pytest.raises(DS2D2Error, match=r"seventeen.pt: predicts keypoints of kpt_shape=\[17, 3\], the data set has"):
        AmplifierTrainer(overrides=given)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("shape", ["[4]", "[0, 2]", "[4, 5]", "[4, x]"])
def test_keypoints_that_make_no_sense_are_refused(shape, tmp_path):
    data = write_data(tmp_path / "set", train=2, val=1, task="pose")
    data.write_text(data.read_text().replace("[4, 2]", shape))
    given = {**SHORT, "teacher": "yolo11n-pose.yaml", "student": "yolo11n-pose.yaml", "data": str(data)}
    with pytest.raises(DS2D2Error, match=r"kpt_shape=.*expected the number of keypoints and of values"):
        DS2D2Trainer(overrides={**given, "project": str(tmp_path / "runs")})
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_student_of_other_keypoints_gets_those_of_the_data(tmp_path):
    teacher = save_checkpoint(lively_model(small_yolo(tmp_path, "four", task="pose"), seed=1), tmp_path / "four.pt")
    (tmp_path / "three.yaml").write_text((tmp_path / "four.yaml").read_text().replace("[4, 2]", "[3, 3]"))
    path = save_checkpoint(pose_model(tmp_path / "three.yaml"), tmp_path / "three.pt")
    data = write_data(tmp_path / "set", train=4, val=2, task="pose")
    given = {**SHORT, "teacher": str(teacher), "data": str(data), "amplifier": None, "project": str(tmp_path / "runs")}
    for student in (path, tmp_path / "three.yaml"):  # as in Ultralytics, whose models start like this
        trainer = DS2D2Trainer(overrides={**given, "student": str(student), "name": student.suffix[1:]})
        trainer.train()
        assert detector_of(load_checkpoint(trainer.best)[0]).keypoints == (4, 2)


@pytest.mark.parametrize(("changes", "message"), MISTAKES)
def test_mistakes_are_reported_before_anything_is_written(changes, message, sets, tmp_path):
    project = tmp_path / "runs"
    overrides = {**SHORT, "teacher": "yolo11n-obb.yaml", "student": "yolo11n-obb.yaml", "data": "obb", **changes}
    with pytest.raises(DS2D2Error, match=message):
        DS2D2Trainer(overrides={**overrides, "data": sets[overrides["data"]], "project": str(project)})
    assert not project.exists()


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_label_file_of_boxes_among_corners_is_one_line(split, tmp_path):
    data = write_data(tmp_path / "set", train=3, val=3, task="obb")
    (data.parent / "labels" / split / "2.txt").write_text("0 0.5 0.5 0.3 0.3\n")
    model = small_yolo(tmp_path, task="obb")
    trainer = PlainTrainer(overrides={**SHORT, "model": str(model), "data": str(data), "project": str(tmp_path)})
    with pytest.raises(DS2D2Error, match=r"equal numbers of boxes and segments.*'ds2d2 check data=.* task=obb' lists"):
        trainer.train()
