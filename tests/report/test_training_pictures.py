"""Files of a distillation in its run folder, and values for loggers."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from training_helpers import lively_model, save_checkpoint, write_data
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import YAML
from ultralytics.utils.plotting import plot_results

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.evaluation import AGREEMENT
from ds2d2_yolo.method import TERMS
from ds2d2_yolo.report.progress import curves_of_terms, draw_progress
from ds2d2_yolo.training.adapters import find_adapters
from ds2d2_yolo.training.results import read_columns

OURS = ["ds2d2_bands_0.png", "ds2d2_bands_1.png", "ds2d2_terms.png", "pair.json"]


def test_a_run_with_plots_hands_its_pictures_to_loggers(distilled):
    for name in (*OURS[:3], "results.png"):
        with Image.open(distilled.run / name) as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 20
    assert {path.name for path in distilled.trainer.plots} >= {*OURS[:3], "results.png"}


def test_a_run_with_pictures_opens_no_connection(distilled):
    assert distilled.connections == []


def test_loggers_get_every_term_of_every_epoch(distilled):
    assert len(distilled.logged) == 2
    for items in distilled.logged:
        assert {f"train/{name}_loss" for name in TERMS} <= set(items)


def test_gains_and_shares_by_level_are_tabulated_and_logged(distilled):
    table = read_columns(distilled.run / "results.csv")
    levels = ("", "/8", "/16", "/32")
    columns = {*(f"gain/{name}" for name in TERMS), *(f"share/{name}{level}" for name in TERMS for level in levels)}
    assert {name for name in table if name.startswith(("gain/", "share/"))} == columns
    assert all(value > 0 for name in columns for value in table[name])
    for epoch, items in enumerate(distilled.logged):
        assert {name: items[name] for name in columns} == pytest.approx(
            {name: table[name][epoch] for name in columns}, rel=1e-4
        )
    arguments = YAML.load(distilled.run / "args.yaml")
    for name, share in zip(TERMS, arguments["shares"], strict=True):
        # Calibration gives each term its share. The first batch of the second epoch is about the same as before
        assert table[f"share/{name}"][1] == pytest.approx(share, rel=1)
        assert table[f"gain/{name}"][1] == pytest.approx(arguments[name], rel=1e-4)


def test_the_picture_of_the_results_has_a_panel_for_every_term(distilled, tmp_path, monkeypatch):
    shutil.copy(distilled.run / "results.csv", tmp_path)
    titles = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: titles.extend(a.get_title() for a in figure.axes))
    plot_results(tmp_path / "results.csv")
    assert {f"train/{name}_loss" for name in TERMS} <= set(titles)


@pytest.mark.slow
def test_images_are_recorded_at_start_middle_and_end(distilled, monkeypatch):
    drawn = []

    def keep(image, window, history):
        drawn.append(list(history))
        return draw_progress(image, window, history)

    monkeypatch.setattr("ds2d2_yolo.pictures.draw_progress", keep)
    arguments = {"teacher": distilled.teacher, "student": distilled.plain, "data": distilled.data, "epochs": 4}
    arguments |= {"amplifier": None, "imgsz": 64, "batch": 3, "device": "cpu", "workers": 0, "plots": True}
    arguments = {key: str(value) if isinstance(value, Path) else value for key, value in arguments.items()}
    DS2D2Trainer(overrides={**arguments, "project": str(distilled.folder / "looks")}).train()
    assert drawn == [["epoch 0", "epoch 2", "epoch 4"]] * 2


@pytest.mark.slow
def test_measuring_a_run_leaves_its_weights_bit_by_bit(short):
    def unmeasured(trainer):
        trainer.distiller.meter = None

    runs = []
    for callbacks in ({}, {"on_train_start": unmeasured}):
        trainer = DS2D2Trainer(overrides={**short, "epochs": 2, "plots": False})
        for event, callback in callbacks.items():
            trainer.add_callback(event, callback)
        trainer.train()
        runs.append(trainer)
    ours, theirs = (load_checkpoint(run.last)[0].state_dict() for run in runs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    more, fewer = (read_columns(run.csv) for run in runs)
    assert (
        {name for name in more if name not in fewer} == {n for n in more if n.startswith(("share/", "gain/"))} != set()
    )
    assert {name: more[name] for name in fewer if name != "time"} == {n: fewer[n] for n in fewer if n != "time"}


@pytest.mark.slow
def test_tensorboard_shows_terms_gains_shares_and_agreement(short):
    """In its own process: Ultralytics disables loggers in tests."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    script = f"""
from ultralytics.utils import SETTINGS
from ds2d2_yolo import DS2D2Trainer
SETTINGS.update(tensorboard=True)
DS2D2Trainer(overrides={ {**short, "val_kd": True, "plots": False, "project": short["project"] + "/board"}!r}).train()
"""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    environment["YOLO_CONFIG_DIR"] = short["project"]
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    events = EventAccumulator(f"{short['project']}/board/student").Reload()
    told = set(events.Tags()["scalars"])
    terms = [name for name in TERMS if name != "im_high"]
    assert {f"{split}/{name}_loss" for split in ("train", "val") for name in terms} <= told
    assert {f"gain/{name}" for name in terms} | {f"share/{name}/8" for name in terms} <= told
    assert set(AGREEMENT) <= told


def test_what_was_compared_stands_beside_the_arguments(distilled):
    content = json.loads((distilled.run / "pair.json").read_text())
    assert (content["student"]["model"], content["teacher"]["model"]) == ("yolo11n", "yolo11s")
    assert content["gains"] == dict.fromkeys(TERMS, "auto")
    assert content["shares"].keys() == set(TERMS)
    assert content["weight"] == "confidence"
    assert [level["stride"] for level in content["levels"]] == [8, 16, 32]
    assert all(level["explicit"] and level["implicit"] for level in content["levels"])
    assert json.loads((distilled.run / "teacher.json").read_text()).keys() == {"mAP50", "mAP50-95", "imgsz"}


def test_adapters_are_kept_beside_both_checkpoints(distilled):
    for name in ("best", "last"):
        student, _ = load_checkpoint(distilled.run / "weights" / f"{name}.pt")
        found = find_adapters(distilled.run / "weights" / "adapters.pt", student)
        assert {level: tuple(weight.shape) for level, weight in found.items()} == {
            0: (128, 64),
            1: (256, 128),
            2: (512, 256),
        }


@pytest.fixture
def short(tmp_path):
    data = write_data(tmp_path / "set", train=2, val=1)
    teacher = save_checkpoint(lively_model("yolo11n.yaml", seed=1), tmp_path / "teacher.pt")
    overrides = {
        "teacher": str(teacher),
        "student": "yolo11n.yaml",
        "data": str(data),
        "project": str(tmp_path / "runs"),
    }
    overrides |= {"name": "student", "epochs": 1, "amplifier": "none", "imgsz": 64, "batch": 2, "device": "cpu"}
    return overrides | {"workers": 0, "pretrained": False}


@pytest.mark.slow
def test_a_run_without_plots_has_none(short):
    trainer = DS2D2Trainer(overrides={**short, "plots": False})
    trainer.train()
    assert not {path.name for path in trainer.save_dir.iterdir()} & set(OURS)
    assert (trainer.wdir / "adapters.pt").is_file()


@pytest.mark.slow
def test_a_failing_picture_does_not_end_the_training(short, caplog):
    trainer = DS2D2Trainer(overrides={**short, "plots": True})
    (trainer.save_dir / "ds2d2_terms.png").mkdir(parents=True)
    with caplog.at_level("WARNING", logger="ultralytics"):
        trainer.train()
    assert trainer.best.is_file()
    assert (
        sum("could not be drawn, the training continues (IsADirectoryError" in message for message in caplog.messages)
        == 1
    )


def test_columns_are_grouped_by_what_they_say_of_a_term():
    columns = {
        "epoch": [1.0],
        "train/ex_low_loss": [2.0],
        "train/box_loss": [1.0],
        "gain/ex_low": [0.5],
        "share/im_full": [0.1],
        "share/im_full/16": [0.2],
        "val/ex_low_loss": [3.0],
        "lr/pg0": [1.0],
    }
    groups = curves_of_terms(columns)
    assert list(groups) == [
        "terms, times gain",
        "terms in validation, times gain",
        "gains",
        "gradient / detection loss",
        "gradient / detection loss, stride 16",
    ]
    assert groups["gradient / detection loss, stride 16"] == {"im_full": [0.2]}
