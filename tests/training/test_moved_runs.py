"""Runs whose folder or teacher was moved before they resume."""

import shutil

import pytest
import torch
from training_helpers import interrupted_early, lively_model, make_stage, save_checkpoint, short, small_yolo, write_data

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.errors import DS2D2Error

pytestmark = pytest.mark.slow


@pytest.fixture
def stopped(tmp_path):
    """A run that was interrupted after the first of two epochs, with its own data, teacher and amplifier."""
    data = write_data(tmp_path / "set", train=4, val=2)
    teacher = save_checkpoint(lively_model(small_yolo(tmp_path, "big", 24)), tmp_path / "teacher.pt")
    given = short(teacher=str(teacher), data=str(data), project=str(tmp_path / "runs"), epochs=2)
    amplifier = shutil.move(make_stage({**given, "amplifier_epochs": 1}, "amplifier"), tmp_path / "amplifier.pt")

    given |= {"student": str(small_yolo(tmp_path)), "amplifier": str(amplifier), "name": "run"}
    trainer = DS2D2Trainer(overrides=given, _callbacks=interrupted_early())
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    return trainer


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_copy_of_a_run_resumes_in_its_own_folder(stopped, tmp_path):
    backup = shutil.copytree(stopped.save_dir, tmp_path / "backup")
    DS2D2Trainer(overrides={"resume": str(stopped.last)}).train()
    finished = contents(stopped.save_dir)
    again = DS2D2Trainer(overrides={"resume": str(backup / "weights" / "last.pt")})
    assert again.save_dir == backup
    again.train()
    assert contents(stopped.save_dir) == finished
    assert len((backup / "results.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("role", ["teacher", "amplifier"])
def test_a_run_does_not_go_on_with_another_teacher(role, stopped, tmp_path):
    """Where the fingerprint of the amplifier would be right, too."""
    before = contents(stopped.save_dir)
    if role == "teacher":
        save_checkpoint(lively_model(tmp_path / "big.yaml", seed=5), tmp_path / "teacher.pt")
    content = torch.load(tmp_path / "amplifier.pt", weights_only=True)
    content |= {"head": {name: value + 1 for name, value in content["head"].items()}}
    torch.save(content, tmp_path / "other.pt")
    given = {"resume": str(stopped.last)} | ({"amplifier": str(tmp_path / "other.pt")} if role == "amplifier" else {})
    advice = "run 'ds2d2" if role == "teacher" else f"leave amplifier= out, then it is {tmp_path / 'amplifier.pt'}"
    with pytest.raises(DS2D2Error, match=rf"{role}=.*\.pt: is not the one that this run began with; {advice}"):
        DS2D2Trainer(overrides=given)
    assert contents(stopped.save_dir) == before


def test_a_run_resumes_with_files_that_have_moved(stopped, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    places = {role: shutil.move(tmp_path / f"{role}.pt", elsewhere / f"{role}.pt") for role in ("teacher", "amplifier")}
    with pytest.raises(DS2D2Error, match=r"teacher=.*teacher\.pt: no such file, and the run needs it"):
        DS2D2Trainer(overrides={"resume": str(stopped.last)})
    for word in ("auto", "none"):  # not paths: the run keeps its own
        with pytest.raises(DS2D2Error, match=r"amplifier=.*amplifier\.pt: no such file, and the run needs it"):
            DS2D2Trainer(overrides={"resume": str(stopped.last), "teacher": str(places["teacher"]), "amplifier": word})
    resumed = DS2D2Trainer(
        overrides={"resume": str(stopped.last), **{role: str(path) for role, path in places.items()}}
    )
    resumed.train()
    assert resumed.args.teacher == str(elsewhere / "teacher.pt")
    assert len(resumed.csv.read_text().splitlines()) == 3


def test_the_command_of_a_run_resumes_it(stopped, tmp_path, warnings):
    """Its teacher and its images without labels, as the user named them, have become files of stages."""
    began, pictures = stopped.args.teacher, str(tmp_path / "set" / "images" / "val")
    given = {"resume": str(stopped.last), "teacher": "yolo11s.yaml", "unlabeled": pictures, "epochs": 2}
    resumed = DS2D2Trainer(overrides=given)
    assert (resumed.args.teacher, resumed.args.unlabeled) == (began, None)
    assert [text for text in warnings() if f"Resume ignores teacher=yolo11s.yaml, using {began}" in text]
    assert [text for text in warnings() if f"Resume ignores unlabeled={pictures}, using None" in text]
    resumed.train()
    assert len(resumed.csv.read_text().splitlines()) == 3


def test_a_run_does_not_go_on_with_other_data(stopped, tmp_path):
    """The same data in another folder are accepted."""
    before = contents(stopped.save_dir)
    other = write_data(tmp_path / "other", train=2, val=2)
    with pytest.raises(DS2D2Error, match=r"data=.*: its images or labels are not those that this run began with"):
        DS2D2Trainer(overrides={"resume": str(stopped.last), "data": str(other)})
    assert contents(stopped.save_dir) == before
    same = write_data(tmp_path / "same", train=4, val=2)
    DS2D2Trainer(overrides={"resume": str(stopped.last), "data": str(same)}).train()
    assert len((stopped.save_dir / "results.csv").read_text().splitlines()) == 3


def test_a_run_does_not_go_on_at_another_size(stopped):
    content = torch.load(stopped.last, weights_only=False)
    content["train_args"]["teacher_imgsz"] = 128
    torch.save(content, stopped.last)
    for size in (96, 128):
        with pytest.raises(DS2D2Error, match=rf"imgsz={size}: this run began with imgsz=64.*; leave imgsz= out"):
            DS2D2Trainer(overrides={"resume": str(stopped.last), "imgsz": size})


def test_another_student_of_a_resumed_run_is_ignored_aloud(stopped, warnings):
    began = stopped.args.model
    for given in ({"student": began}, {"model": str(stopped.last)}, {"student": "yolo11s.yaml"}):
        DS2D2Trainer(overrides={"resume": str(stopped.last), **given}).remove_untrained()  # unlocks its folder
    (warning,) = (text for text in warnings() if "student=" in text)
    assert "Resume ignores student=yolo11s.yaml" in warning
