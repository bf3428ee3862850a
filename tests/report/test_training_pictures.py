"""What a distillation leaves in its run folder, and what loggers are told."""

import json

import numpy as np
import pytest
from engine_helpers import lively_model, save_checkpoint, write_data
from PIL import Image
from ultralytics.nn.tasks import load_checkpoint

from ds2d2_yolo.engine import DS2D2Trainer
from ds2d2_yolo.engine.adapters import find_adapters
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.report.training import curves_of_terms, read_columns
from ds2d2_yolo.spectral import TERMS

OURS = ["ds2d2_bands_0.png", "ds2d2_bands_1.png", "ds2d2_terms.png", "pair.json"]


def test_a_run_with_plots_has_the_pictures_and_hands_them_to_loggers(distilled):
    for name in (*OURS[:3], "results.png"):
        with Image.open(distilled.run / name) as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 20
    assert {path.name for path in distilled.trainer.plots} >= {*OURS[:3], "results.png"}


def test_a_run_with_pictures_opens_no_connection(distilled):
    assert distilled.connections == []


def test_loggers_are_told_every_term_of_every_epoch(distilled):
    assert len(distilled.logged) == 2
    for items in distilled.logged:
        assert {f"train/{name}_loss" for name in TERMS} <= set(items)


def test_what_was_compared_stands_beside_the_arguments(distilled):
    content = json.loads((distilled.run / "pair.json").read_text())
    assert (content["student"]["model"], content["teacher"]["model"]) == ("yolo11n", "yolo11s")
    assert content["gains"] == dict.fromkeys(TERMS, "auto")
    assert content["shares"].keys() == set(TERMS)
    assert content["weight"] == "confidence"
    assert [level["stride"] for level in content["levels"]] == [8, 16, 32]
    assert all(level["explicit"] and level["implicit"] for level in content["levels"])


def test_adapters_are_kept_beside_both_checkpoints_of_the_student(distilled):
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


def test_a_run_without_plots_has_none(short):
    trainer = DS2D2Trainer(overrides={**short, "plots": False})
    trainer.train()
    assert not {path.name for path in trainer.save_dir.iterdir()} & set(OURS)
    assert (trainer.wdir / "adapters.pt").is_file()


def test_a_picture_that_cannot_be_written_does_not_end_the_training(short, caplog):
    trainer = DS2D2Trainer(overrides={**short, "plots": True})
    (trainer.save_dir / "ds2d2_terms.png").mkdir(parents=True)
    with caplog.at_level("WARNING", logger="ultralytics"):
        trainer.train()
    assert trainer.best.is_file()
    assert sum("pictures of the training: IsADirectoryError" in message for message in caplog.messages) == 1


def test_columns_are_grouped_by_what_they_say_of_a_term():
    columns = {
        "epoch": [1.0],
        "train/ex_low_loss": [2.0],
        "share/im_full": [0.1],
        "train/box_loss": [1.0],
        "lr/pg0": [1.0],
    }
    assert curves_of_terms(columns) == {"terms, times gain": {"ex_low": [2.0]}, "share": {"im_full": [0.1]}}


def test_a_damaged_table_is_told_with_its_path(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("epoch,x\n1,\n2,3\n")
    columns = read_columns(path)
    assert np.isnan(columns["x"][0])
    assert columns["x"][1] == 3
    path.write_text("epoch,x\n1,many\n")
    with pytest.raises(DS2D2Error, match=r"results\.csv: cannot be read as a table"):
        read_columns(path)
