"""Teachers with other classes than the data: fine-tuning, refusals, and reused weights."""

import json
import shutil

import pytest
import torch
from training_helpers import (
    NAMES,
    lively_model,
    make_stage,
    save_checkpoint,
    short,
    small_yolo,
    tiny_yaml,
    write_data,
)
from ultralytics import YOLO
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import YAML

from ds2d2_yolo import DS2D2Trainer, plan
from ds2d2_yolo.cli import main
from ds2d2_yolo.comparison.plan import plan_comparison
from ds2d2_yolo.detectors import build_model
from ds2d2_yolo.errors import DS2D2Error

MANY = 5  # classes of a checkpoint "of somebody else"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "set", train=4, val=2)


def checkpoint(folder, names=None):
    """A trained model of five convolutions with these classes."""
    names = names or {index: f"thing {index}" for index in range(MANY)}
    model = lively_model(small_yolo(folder, "elsewhere", 24), classes=len(names), seed=7)
    model.names = names
    return save_checkpoint(model, folder / "elsewhere.pt")


def asked(teacher, data, folder, **changes):
    return short(teacher=str(teacher), data=str(data), project=str(folder / "runs"), **changes)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["yolo11n.yaml", "yolo26n.yaml", "yolo11n-obb.yaml", "yolo11n-seg.yaml"])
def test_matching_weights_of_a_checkpoint_are_used(architecture, tmp_path):
    task = {"obb": "obb", "seg": "segment"}.get(architecture.removesuffix(".yaml")[-3:], "detect")
    data = write_data(tmp_path / "set", train=2, val=2, task=task)
    source = lively_model(architecture, classes=80, seed=3)
    teacher = save_checkpoint(source, tmp_path / "pretrained.pt")
    given = asked(teacher, data, tmp_path, lr0=1e-9)
    planned = plan(given, "teacher")
    assert "pretrained.pt has 80 classes" in planned.start
    assert "fine-tuned on 2 classes (ship, vehicle) for 1 epoch;" in planned.start
    model, _ = load_checkpoint(make_stage(given))
    assert model.names == NAMES
    before, after = source.state_dict(), model.state_dict()
    moved = [name for name, value in after.items() if name.endswith("conv.weight") and "cv3" not in name]
    assert any(name.startswith("model.0.") for name in moved)
    assert any(".cv2." in name for name in moved)  # the box branch
    for name in moved:
        torch.testing.assert_close(after[name], before[name].float(), atol=2e-3, rtol=0)


@pytest.mark.parametrize("family", ["RetinaNet", "FasterRCNN"])
def test_class_layers_of_torchvision_models_are_new(family, data, tmp_path):
    torch.manual_seed(0)
    source = build_model(str(tiny_yaml(tmp_path, family)), nc=MANY)
    source.names = {index: f"thing {index}" for index in range(MANY)}
    teacher = save_checkpoint(source, tmp_path / "pretrained.pt")
    planned = plan(asked(teacher, data, tmp_path), "teacher")
    total = len(source.state_dict())
    carried = int(planned.start.rsplit("epoch; ")[1].split(" of ")[0])
    assert total - 6 <= carried < total
    state = planned.teacher.model.state_dict()
    torch.testing.assert_close(state["model.0.0.weight"], source.state_dict()["model.0.0.weight"])


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ({0: "Ship", 1: "vehicle"}, r"class 0 is 'Ship', in the data set 'ship' \(only the spelling differs\)"),
        ({0: "vehicle", 1: "ship"}, r"class 1 'ship', 'vehicle' \(the same names in another order\)"),
        ({0: "ship", 1: "tree"}, "class 1 is 'tree', in the data set 'vehicle'. If they are the same classes"),
    ],
)
def test_as_many_classes_of_other_names_are_refused(names, text, data, tmp_path):
    given = asked(checkpoint(tmp_path, names), data, tmp_path, epochs=7)
    for goal in ("teacher", "amplifier", "student"):
        changes = {"student": "yolo11n.yaml"} if goal == "student" else {}
        with pytest.raises(DS2D2Error, match=text) as refused:
            plan(given | changes, goal)
        assert "write the teacher's names into the data YAML" in str(refused.value)
        assert "teacher_epochs=7" in str(refused.value)  # following the advice helps:
    assert plan({**given, "teacher_epochs": 7}, "teacher").states == {"teacher": "to be trained"}


def test_epochs_fine_tune_a_teacher_of_these_classes_further(data, tmp_path):
    given = asked(checkpoint(tmp_path, NAMES), data, tmp_path)
    assert plan(given, "amplifier").states["teacher"] == "given"
    assert plan({**given, "teacher_epochs": 0}, "amplifier").states["teacher"] == "given"
    further = plan({**given, "teacher_epochs": 3}, "teacher")
    assert further.states == {"teacher": "to be trained"}
    assert further.teacher_stage.inputs["epochs"] == 3
    with pytest.raises(DS2D2Error, match="to fine-tune it further, pass teacher_ep"):
        plan(given, "teacher")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "has 5 classes, the data set has 2; leave teacher_epochs= out"),
        ({"teacher": "yolo11n.yaml"}, "teacher_epochs=0: teacher=yolo11n.yaml must be trained first"),
    ],
)
def test_no_epochs_are_refused_where_some_are_needed(changes, message, data, tmp_path):
    with pytest.raises(DS2D2Error, match=message):
        plan({**asked(checkpoint(tmp_path), data, tmp_path, teacher_epochs=0), **changes}, "teacher")


def test_it_is_decided_before_data_are_rendered(fresh_machine, tmp_path):
    names = {index: f"thing {index}" for index in range(8)}
    teacher = checkpoint(tmp_path, names)
    given = asked(teacher, "scenes-close.yaml", tmp_path, student="yolo11n.yaml", teacher_epochs=0)
    with pytest.raises(DS2D2Error, match=r"thing 0|has 8 classes"):
        plan(given)
    assert not list(fresh_machine.rglob("*.jpg")) + list(fresh_machine.rglob("*.png"))


@pytest.mark.slow
def test_one_command_from_two_pretrained_checkpoints(data, tmp_path, capsys):
    teacher = checkpoint(tmp_path)
    student = save_checkpoint(lively_model(small_yolo(tmp_path), classes=80, seed=5), tmp_path / "student.pt")
    given = asked(teacher, data, tmp_path, student=str(student), teacher_epochs=2, name="student")
    words = [f"{name}={value}" for name, value in given.items()]
    assert main(["train", *words]) == 0
    *_, saved, predict, report = capsys.readouterr().out.splitlines()
    assert saved.startswith("ds2d2: student saved as ")
    assert predict.split()[:3] == ["yolo", "predict", f"model={saved.split()[-1]}"]
    assert main(report.split("#")[0].split()[1:]) == 0  # the advised next command works
    runs = {path.name.split("-")[0]: path for path in (tmp_path / "runs").iterdir()}
    assert sorted(runs) == ["amplifier", "student", "teacher"]
    model, _ = load_checkpoint(runs["student"] / "weights" / "best.pt")
    assert model.names == NAMES
    arguments = YAML.load(runs["student"] / "args.yaml")
    assert arguments["teacher"] == str(runs["teacher"] / "weights" / "best.pt")
    assert arguments["teacher_epochs"] is None  # otherwise a user of these arguments would fine-tune it again
    again = DS2D2Trainer(overrides={**given, "name": "again"})
    assert again.plan.states == {"teacher": "reused", "amplifier": "reused"}
    assert again.args.teacher == arguments["teacher"]
    follow_up = plan({**arguments, "student": str(student), "save_dir": None, "name": None, "model": None})
    assert follow_up.states == {"teacher": "given", "amplifier": "given"}


def test_a_missing_bare_name_says_where_the_file_belongs(data, tmp_path):
    with pytest.raises(DS2D2Error, match=r"teacher=no-such-model\.pt: cannot be loaded, .*; put the file into "):
        plan(asked("no-such-model.pt", data, tmp_path), "amplifier")


@pytest.mark.slow
def test_ultralytics_own_way_of_training_follows_the_rule(data, tmp_path):
    student = save_checkpoint(lively_model(small_yolo(tmp_path), classes=80, seed=5), tmp_path / "student.pt")
    given = asked(checkpoint(tmp_path), data, tmp_path)
    model = YOLO(str(student))
    model.train(trainer=DS2D2Trainer, **given)
    assert model.trainer.plan.states == {"teacher": "reused", "amplifier": "reused"}
    assert model.names == NAMES
    assert "teacher-elsewhere-" in model.trainer.args.teacher


@pytest.mark.slow
def test_all_methods_of_a_comparison_get_the_same_teacher(data, tmp_path, capsys):
    given = asked(checkpoint(tmp_path), data, tmp_path, student=str(small_yolo(tmp_path)), teacher_epochs=2)
    words = [f"{name}={value}" for name, value in given.items()] + ["methods=builtin,ds2d2,db2", "seeds=0"]
    assert main(["compare", *words]) == 0
    assert capsys.readouterr().out.startswith("3 methods with 1 seed each: 3 runs, in ")
    folders = [path.name for path in (tmp_path / "runs").iterdir()]
    assert sorted(name.split("-")[0] for name in folders) == ["amplifier", "amplifier", "compare", "teacher"]
    (teacher,) = (path for path in (tmp_path / "runs").iterdir() if path.name.startswith("teacher"))
    (comparison,) = (path for path in (tmp_path / "runs").iterdir() if path.name.startswith("compare"))
    records = [json.loads(path.read_text()) for path in (comparison / "runs").glob("*-0-*.json")]
    assert len(records) == 3
    for record in records:
        arguments = record["arguments"]
        assert arguments.get("teacher", arguments.get("distill_model")) == str(teacher / "weights" / "best.pt")
    assert main(["compare", *words]) == 0  # the same command finds everything
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == sorted(folders)


def test_a_comparison_without_terms_of_its_own_knows_the_start(data, tmp_path):
    nothing = dict.fromkeys(("ex_low", "ex_high", "im_full", "im_high", "response"), 0)
    given = asked(checkpoint(tmp_path), data, tmp_path, student=str(small_yolo(tmp_path)), methods="plain,builtin")
    assert "teacher" not in plan({key: value for key, value in given.items() if key != "methods"} | nothing).states
    assert plan_comparison(given | nothing).teacher == str(tmp_path / "elsewhere.pt")


def test_classes_of_an_archive_are_compared_too(fresh_machine, tmp_path):
    write_data(tmp_path / "packed", train=2, val=2)
    archive = shutil.make_archive(str(tmp_path / "archive"), "zip", tmp_path, "packed")
    given = asked(checkpoint(tmp_path), archive, tmp_path)
    assert "has 5 classes" in plan(given, "teacher").start
    with pytest.raises(DS2D2Error, match="has 5 classes, the data set has 2"):
        plan({**given, "teacher_epochs": 0}, "teacher")
