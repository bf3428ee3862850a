"""The plan of a run: it checks everything and trains nothing. Running it makes missing stages, once."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from training_helpers import interrupted_early, lively_model, make_stage, save_checkpoint, short, small_yolo, write_data
from ultralytics import YOLO
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import YAML
from ultralytics.utils.callbacks import get_default_callbacks

from ds2d2_yolo import DS2D2Trainer, plan
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.method import TERMS
from ds2d2_yolo.training.arguments import check_arguments


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "set", train=4, val=2)


@pytest.fixture
def asked(data, tmp_path):
    """A run whose teacher, amplifier and student are not trained yet."""
    models = {"teacher": str(small_yolo(tmp_path, "big", 24)), "student": str(small_yolo(tmp_path))}
    return {**short(), **models, "data": str(data), "project": str(tmp_path / "runs")}


def weights_of(path):
    return load_checkpoint(path)[0].state_dict()


def test_a_plan_makes_no_file(asked, tmp_path):
    planned = plan(asked)
    assert planned.states == {"teacher": "to be trained", "amplifier": "to be trained"}
    assert not planned.is_ready
    assert not (tmp_path / "runs").exists()


def test_a_plan_tells_the_epochs_of_each_stage(asked):
    planned = plan({**asked, "epochs": 7, "teacher_epochs": 5})
    stages = "teacher (to be trained, 5 epochs), amplifier (to be trained, 3 epochs), student (7 epochs)"
    assert planned.summary()[-1] == f"  stages: {stages}"


def test_a_plan_counts_the_classes(asked):
    assert plan(asked).summary()[0].endswith(", 2 classes")
    assert plan({**asked, "single_cls": True}).summary()[0].endswith(", 1 class")


@pytest.mark.parametrize("off", [{"shares": [0] * 5}, dict.fromkeys(TERMS, 0)], ids=["shares", "gains"])
def test_a_plan_without_a_term_is_a_warning(off, asked):
    warning = "WARNING: all terms are off, so this trains the student alone"
    assert warning in "\n".join(plan({**asked, **off}).summary())
    assert warning not in "\n".join(plan({**asked, **off, "assignment": "teacher"}).summary())


@pytest.mark.slow
@pytest.mark.parametrize("goal", ["teacher", "amplifier"])
def test_a_plan_goes_as_far_as_its_goal(asked, goal):
    del asked["student"]
    done = plan(asked, goal).run()
    assert done.is_ready
    assert list(done.states) == ["teacher", "amplifier"][: ["teacher", "amplifier"].index(goal) + 1]
    assert set(plan(asked, goal).states.values()) == {"reused"}


@pytest.mark.slow
def test_running_a_plan_leaves_the_plan_as_it_was(asked):
    planned = plan(asked)
    before = vars(planned.arguments).copy()
    done = planned.run()
    assert vars(planned.arguments) == before
    assert planned.states["amplifier"] == "to be trained"
    assert done.arguments.amplifier.endswith("amplifier.pt")


@pytest.mark.slow
def test_an_interrupted_stage_is_planned_to_be_continued(asked):
    del asked["student"]
    asked["epochs"] = 2
    with pytest.raises(KeyboardInterrupt):
        make_stage(asked, callbacks=interrupted_early())
    assert plan(asked, "teacher").states == {"teacher": "to be continued"}


@pytest.mark.slow
@pytest.mark.parametrize(("goal", "split"), [("teacher", "test"), ("amplifier", "val")])
def test_a_stage_of_changed_data_is_never_recorded(goal, split, asked, tmp_path):
    path = write_data(tmp_path / "set", train=4, val=2)
    for kind in ("images", "labels"):
        shutil.copytree(path.parent / kind / "val", path.parent / kind / "test")
    path.write_text(path.read_text() + "test: images/test\n")
    label = path.parent / "labels" / split / "0.txt"
    before = label.read_text()
    if goal == "amplifier":
        asked["teacher"] = str(save_checkpoint(lively_model(asked["teacher"]), tmp_path / "teacher.pt"))
    asked |= {"student": None, "data": str(path), "split": split}
    callbacks = get_default_callbacks()
    callbacks["on_train_epoch_end"].append(lambda trainer: label.write_text("1 0.5 0.5 0.2 0.2\n"))
    for number in (1, 2):
        with pytest.raises(DS2D2Error, match=rf"labels changed during .* weights are now in .*-data-{number} and are"):
            make_stage(asked, goal, callbacks)
        label.write_text(before)
        assert plan(asked, goal).states[goal] == "to be trained"
    made = make_stage(asked, goal)
    assert all((made.parents[1] / f"weights-changed-data-{number}" / made.name).is_file() for number in (1, 2))


@pytest.mark.slow
def test_a_constructor_trains_nothing(asked, tmp_path, log):
    trainer = DS2D2Trainer(overrides={**asked, "name": "student"})
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"student", ".student.lock"}
    assert trainer.plan.states == {"teacher": "to be trained", "amplifier": "to be trained"}
    trainer.train()
    assert "teacher on the validation set: mAP50" in log.text  # of the teacher that this run has trained
    saved = YAML.load(trainer.save_dir / "args.yaml")
    assert saved["amplifier"] == trainer.args.amplifier == trainer.plan.arguments.amplifier
    measured = json.loads((trainer.save_dir / "teacher.json").read_text())
    assert measured == {
        **{name: trainer.plan.metrics[f"metrics/{name}(B)"] for name in ("mAP50", "mAP50-95")},
        "imgsz": trainer.args.imgsz,
    }
    before = trainer.best.read_bytes()
    with pytest.raises(DS2D2Error, match="this trainer has trained already; make a new DS2D2Trainer"):
        trainer.train()
    assert trainer.best.read_bytes() == before


@pytest.mark.slow
def test_an_earlier_run_in_the_folder_leaves_no_files(asked, tmp_path):
    folder = tmp_path / "runs" / "student"
    folder.mkdir(parents=True)
    own, other = [folder / name for name in ("teacher.json", "pair.json", "ds2d2_bands_0.png")], folder / "notes.png"
    for path in (*own, other):
        path.write_bytes(b"{}")
    DS2D2Trainer(overrides={**asked, "name": "student", "exist_ok": True, "shares": [0] * 5}).train()
    assert not any(path.exists() for path in own)
    assert other.exists()


@pytest.mark.slow
def test_a_student_is_the_same_whether_stages_are_new_or_reused(asked):
    students = []
    for name, is_ready in (("new", False), ("reused", True)):
        trainer = DS2D2Trainer(overrides={**asked, "name": name})
        assert trainer.plan.is_ready is is_ready
        trainer.train()
        students.append(weights_of(trainer.last))
    assert all(torch.equal(value, students[1][name]) for name, value in students[0].items())


def test_a_stage_that_fails_leaves_no_folder_of_its_student(asked, tmp_path):
    trainer = DS2D2Trainer(overrides={**asked, "name": "student", "teacher_epochs": 2})
    (tmp_path / "big.yaml").unlink()  # the teacher's stage cannot start
    with pytest.raises(FileNotFoundError):
        trainer.train()
    assert not trainer.save_dir.exists()


@pytest.mark.slow
def test_loggers_open_the_record_of_a_student_after_its_stages(asked):
    opened = []
    callbacks = get_default_callbacks()
    amplifiers = []
    callbacks["on_pretrain_routine_start"] += [
        lambda trainer: opened.append(trainer.save_dir.name),
        lambda trainer: amplifiers.append(Path(trainer.args.amplifier).name),
    ]
    trainer = DS2D2Trainer(overrides={**asked, "name": "student"}, _callbacks=callbacks)
    assert opened == []
    trainer.train()
    assert opened == ["student"]
    DS2D2Trainer(overrides={**asked, "name": "next"}, _callbacks=callbacks)
    assert opened == ["student", "next"]
    assert amplifiers == ["amplifier.pt"] * 2


@pytest.mark.slow
def test_a_given_teacher_is_loaded_at_most_twice(data, tmp_path, monkeypatch):
    teacher = save_checkpoint(lively_model(small_yolo(tmp_path, "big", 24)), tmp_path / "teacher.pt")
    asked = {**short(), "teacher": str(teacher), "student": str(small_yolo(tmp_path)), "data": str(data)}
    asked["project"] = str(tmp_path / "runs")
    asked["amplifier"] = make_stage({**asked, "student": None}, "amplifier")
    loaded, load = [], torch.load

    def count(file, *arguments, **named):
        loaded.append(str(file))
        return load(file, *arguments, **named)

    monkeypatch.setattr(torch, "load", count)
    DS2D2Trainer(overrides=asked).train()
    assert 1 <= loaded.count(str(teacher)) <= 2


def test_arguments_are_not_written_to():
    arguments = check_arguments({"teacher": "t.pt", "student": "s.yaml", "im_full": 2, "layers": [1, 2]})
    with pytest.raises(AttributeError, match=r"use replace\(im_full=\.\.\.\)"):
        arguments.im_full = 3
    changed = arguments.replace(im_full=0, amplifier=None)
    assert (arguments.gains.im_full, changed.gains.im_full, changed.gains.im_high) == (2.0, 0.0, 0.0)
    assert arguments.layers == ((1, 2), (1, 2))
    assert vars(arguments)["gains"] == "auto"
    assert arguments.needs_teacher
    nothing = dict.fromkeys(("ex_low", "ex_high", "im_full", "im_high", "response"), 0)
    assert not arguments.replace(**nothing).needs_teacher
    assert arguments.replace(**nothing, assignment="teacher").needs_teacher


def test_a_stage_has_no_name_of_its_own(asked):
    with pytest.raises(DS2D2Error, match="name=mine: a stage has no name="):
        plan({**asked, "student": None, "name": "mine"}, "teacher")


def test_an_unknown_goal_is_refused(asked):
    with pytest.raises(DS2D2Error, match="goal=amplifer: no such stage; pass one of teacher, amplifier, unlabeled"):
        plan({**asked, "student": None}, "amplifer")


@pytest.mark.parametrize("name", ["teacher", "student", "model", "amplifier", "data"])
def test_a_model_in_place_of_its_file_gets_one_line(name, asked, tmp_path):
    asked |= {"student": None} if name == "model" else {}
    model = YOLO(small_yolo(tmp_path, "object"))
    with pytest.raises(DS2D2Error, match=r"^\w+=a YOLO object: expected the path of a file, such as \w+=\w+\.\w+$"):
        DS2D2Trainer(overrides={**asked, name: model})
