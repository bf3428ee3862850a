"""Killed and resumed runs give the same bits as uninterrupted ones. Checkpoints are always complete."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from training_helpers import Killed, lively_model, save_checkpoint, short, small_yolo, stop_at, write_data
from ultralytics.data.utils import check_det_dataset
from ultralytics.nn.tasks import load_checkpoint

from ds2d2_yolo import AmplifierTrainer, DS2D2Trainer
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.loading.caches import outdated_caches
from ds2d2_yolo.training.random_numbers import own_random_numbers
from ds2d2_yolo.training.resume import load_state, whole_files
from ds2d2_yolo.training.trainer import PlainTrainer

pytestmark = pytest.mark.slow  # nearly all of them train

# Two batches per epoch and a step after every third: gradients are kept across epochs. Mosaics come first.
SETTINGS = short(nbs=12, epochs=4, warmup_epochs=1, close_mosaic=2, lr0=0.01, seed=3)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "set", train=7, val=2)


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return str(small_yolo(tmp_path_factory.mktemp("student")))


@pytest.fixture(scope="module")
def one_to_one(tmp_path_factory):
    """A student with the head and the loss of YOLO26."""
    path = small_yolo(tmp_path_factory.mktemp("one_to_one"))
    path.write_text(f"end2end: True\nreg_max: 1\n{path.read_text()}")
    return str(path)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    return save_checkpoint(lively_model(small_yolo(folder, "big", 32), seed=1), folder / "teacher.pt")


@pytest.fixture(scope="module")
def amplifier(teacher, data, tmp_path_factory):
    project = str(tmp_path_factory.mktemp("amplifier"))
    overrides = {**SETTINGS, "epochs": 1, "teacher": str(teacher), "data": str(data), "project": project}
    trainer = AmplifierTrainer(overrides=overrides)
    trainer.train()
    return trainer.amplifier


def rows(path):
    with Path(path).open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "time"} for row in csv.DictReader(file)]


def assert_same_result(trainer, expected):
    for name in ("best.pt", "last.pt"):
        ours, theirs = (load_checkpoint(folder / name)[0].state_dict() for folder in (trainer.wdir, expected.wdir))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name
    assert rows(trainer.csv) == rows(expected.csv)
    left = {path.name for path in trainer.wdir.iterdir()} - {"amplifier.pt", "adapters.pt"}
    assert left == {"best.pt", "last.pt"}


MOMENTS = [
    stop_at("on_train_batch_end", 1, batch=0),  # while a step is due
    stop_at("on_fit_epoch_end", 1),  # mosaics are closed next
    stop_at("on_fit_epoch_end", 2),  # mosaics were closed
]
RUNS = {
    "as it comes": (DS2D2Trainer, {}),
    "one-to-one": (DS2D2Trainer, {"optimizer": "auto", "fraction": 0.6, "assignment": "teacher"}),
    "cheap": (DS2D2Trainer, {"distill_every": 2, "close_distill": 2, "gains": "running"}),
    "larger": (DS2D2Trainer, {"teacher_imgsz": 128}),
    "amplifier": (AmplifierTrainer, {"optimizer": "MuSGD"}),
    "teacher": (PlainTrainer, {"cache": "ram"}),
}


@pytest.mark.parametrize("kind", RUNS)
def test_an_interrupted_run_ends_as_an_uninterrupted_one(kind, teacher, amplifier, student, one_to_one, data, tmp_path):
    trainer_class, changes = RUNS[kind]
    overrides = {**SETTINGS, "data": str(data), "project": str(tmp_path), **changes}
    if trainer_class is not PlainTrainer:
        overrides["teacher"] = str(teacher)
    if trainer_class is DS2D2Trainer:
        overrides["amplifier"] = str(amplifier)
    if trainer_class is not AmplifierTrainer:
        overrides["model"] = one_to_one if kind == "one-to-one" else student
    expected = trainer_class(overrides={**overrides, "name": "uninterrupted"})
    expected.train()
    trainer = trainer_class(overrides={**overrides, "name": "interrupted"})
    for event, stop in MOMENTS if trainer_class is DS2D2Trainer else MOMENTS[::2]:
        trainer.add_callback(event, stop)
        with pytest.raises(Killed):
            trainer.train()
        trainer = trainer_class(overrides={"resume": str(trainer.last)})
    trainer.train()
    assert_same_result(trainer, expected)


def test_a_run_killed_while_it_saves_keeps_whole_checkpoints(teacher, amplifier, student, data, tmp_path):
    overrides = {**SETTINGS, "epochs": 3, "teacher": str(teacher), "amplifier": str(amplifier), "data": str(data)}
    overrides |= {"student": student, "project": str(tmp_path), "save_period": 1}
    expected = DS2D2Trainer(overrides={**overrides, "name": "uninterrupted"})
    expected.train()
    script = """
import json, os, pathlib, signal, sys
from ds2d2_yolo import DS2D2Trainer
writes, write = [], pathlib.Path.write_bytes
def write_half(path, content):
    writes.append(path.name)
    if writes.count("last.pt") == 2:  # the second epoch's
        write(path, content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    return write(path, content)
pathlib.Path.write_bytes = write_half
DS2D2Trainer(overrides=json.loads(sys.argv[1])).train()
"""
    words = [sys.executable, "-c", script, json.dumps({**overrides, "name": "killed"})]
    killed = subprocess.run(words, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    weights = tmp_path / "killed" / "weights"
    assert (weights / ".partial" / "last.pt").stat().st_size > 0  # the incomplete file
    for name in ("best.pt", "last.pt", "epoch0.pt"):
        assert load_checkpoint(weights / name)[1]["epoch"] == 0
    trainer = DS2D2Trainer(overrides={"resume": str(weights / "last.pt")})
    trainer.train()
    for path in (*trainer.wdir.glob("epoch*.pt"), *expected.wdir.glob("epoch*.pt")):
        path.unlink()
    assert_same_result(trainer, expected)


def test_without_exact_state_a_run_resumes_as_ultralytics_does(teacher, student, data, tmp_path):
    overrides = {**SETTINGS, "teacher": str(teacher), "data": str(data), "student": student, "im_high": 0}
    trainer = DS2D2Trainer(overrides={**overrides, "epochs": 2, "project": str(tmp_path)})
    trainer.add_callback(*stop_at("on_fit_epoch_end", 0))
    with pytest.raises(Killed):
        trainer.train()
    (state,) = trainer.wdir.glob("state*.pt")
    for content in (b"damaged", None):
        state.write_bytes(content) if content else state.unlink()
        assert load_state(trainer.last, 0) is None
    resumed = DS2D2Trainer(overrides={"resume": str(trainer.last)})
    resumed.train()
    assert [row["epoch"] for row in rows(resumed.csv)] == ["1", "2"]


def test_data_that_change_during_a_run_are_noticed(teacher, student, tmp_path, warnings, monkeypatch):
    data = write_data(tmp_path / "set", train=4, val=2)
    label = data.parent / "labels" / "val" / "0.txt"
    overrides = {**SETTINGS, "teacher": str(teacher), "data": str(data), "student": student, "im_high": 0}
    trainer = DS2D2Trainer(overrides={**overrides, "epochs": 2, "project": str(tmp_path)})
    trainer.add_callback(*stop_at("on_fit_epoch_end", 0))
    with pytest.raises(Killed):
        trainer.train()
    label.unlink()  # between the parts of the run
    for number in (2, 3):  # of these four, three are in the buffer for mosaics
        (data.parent / "images" / "train" / f"{number}.png").unlink()
    resumed = DS2D2Trainer(overrides={"resume": str(trainer.last)})
    resumed.add_callback("on_train_epoch_end", lambda t: label.write_text("1 0.4 0.5 0.2 0.2\n"))  # and within
    resumed.train()
    assert sum("changed since the run began" in message for message in warnings()) == 2


def test_cached_pixels_of_replaced_images_are_noticed(teacher, student, tmp_path, warnings, monkeypatch):
    path = write_data(tmp_path / "set", train=2, val=2)
    image = tmp_path / "set" / "images" / "train" / "0.png"
    data = check_det_dataset(str(path))

    def train(**changes):
        overrides = {**SETTINGS, "epochs": 1, "teacher": str(teacher), "data": str(path), "student": student}
        trainer = DS2D2Trainer(overrides={**overrides, "im_high": 0, "cache": "disk", **changes})
        before = len(warnings())
        trainer.train()
        used = trainer.train_loader.dataset.load_image(0)[0]
        heard = [text for text in warnings()[before:] if "differs from its" in text]
        return np.array_equal(used, cv2.imread(str(image))), heard

    assert train(project=str(tmp_path)) == (True, [])
    cv2.imwrite(str(image), 255 - cv2.imread(str(image)))
    assert outdated_caches(data, "val") == []  # it has a later date, which Ultralytics checks
    os.utime(image, (1, 1))  # as unpacked from an archive
    assert outdated_caches(data, "val") == [image.with_suffix(".npy")]
    other = image.with_name("1.png")
    cv2.imwrite(str(other), 255 - cv2.imread(str(other)))
    os.utime(other, (1, 1))
    assert outdated_caches(data, "val") == [image.with_suffix(".npy"), other.with_suffix(".npy")]
    with monkeypatch.context() as patched:
        patched.setattr("ds2d2_yolo.loading.caches._COMPARED", 1)
        assert outdated_caches(data, "val") == [image.with_suffix(".npy")]
    same, (warning,) = train(project=str(tmp_path))
    assert not same
    assert f"{image.with_suffix('.npy')} (and 1 more): this file of cache=disk differs from its image" in warning
    with pytest.raises(DS2D2Error, match="differs from its image"):
        train(project=str(tmp_path / "other"), teacher="yolov8n.yaml")  # a stage is found by the images of its training
    assert not (tmp_path / "other").exists()
    image.with_suffix(".npy").write_bytes(b"damaged")
    os.utime(image, (1, 1))
    assert outdated_caches(data, "val") == [other.with_suffix(".npy")]  # Ultralytics removes the damaged one


def test_own_random_numbers_leave_all_others_alone(monkeypatch):
    """There is no GPU here: what torch would seed there is written down."""
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    torch.manual_seed(7)
    expected, before = torch.rand(3), torch.get_rng_state()
    assert seeded == [7]
    with own_random_numbers(7):
        assert torch.equal(torch.rand(3), expected)
    assert torch.equal(torch.get_rng_state(), before)
    assert seeded == [7]


def test_a_run_that_had_stopped_early_is_completed(teacher, student, data, tmp_path):
    overrides = {**SETTINGS, "teacher": str(teacher), "data": str(data), "student": student, "im_high": 0}
    trainer = DS2D2Trainer(overrides={**overrides, "project": str(tmp_path)})
    trainer.add_callback("on_train_epoch_end", lambda t: setattr(t, "stop", True))
    trainer.add_callback(*stop_at("on_fit_epoch_end", 0))
    with pytest.raises(Killed):
        trainer.train()
    DS2D2Trainer(overrides={"resume": str(trainer.last)}).train()
    assert {path.name for path in trainer.wdir.iterdir()} == {"adapters.pt", "best.pt", "last.pt"}
    assert load_checkpoint(trainer.best)[1]["epoch"] == -1


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_damaged_checkpoint_is_called_damaged(content, teacher, tmp_path):
    last = tmp_path / "last.pt"
    last.write_bytes(teacher.read_bytes()[: teacher.stat().st_size // 2] if content is None else content)
    with pytest.raises(DS2D2Error, match=r"last.pt: cannot be loaded, .*truncated or corrupted") as error:
        DS2D2Trainer(overrides={"resume": str(last)})
    assert "\n" not in str(error.value)


def test_files_whose_writing_fails_do_not_appear(tmp_path):
    (tmp_path / "last.pt").write_text("old")

    def write_half():
        with whole_files(tmp_path) as partial:
            (partial / "last.pt").write_text("ne")
            raise Killed

    with pytest.raises(Killed):
        write_half()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
    with whole_files(tmp_path) as partial:
        for name in ("last.pt", "best.pt"):
            (partial / name).write_text("new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"last.pt": "new", "best.pt": "new"}
