"""`ds2d2 demo`: that the whole of it runs, and the mistakes it answers."""

import numpy as np
import pytest
from PIL import Image
from training_helpers import tiny_yaml, write_data
from ultralytics.utils import YAML

from ds2d2_yolo.cli import main

pytestmark = pytest.mark.slow  # nearly all of them train


def test_demo_compares_all_models_and_draws_them(tmp_path, caplog):
    data = write_data(tmp_path / "set")
    words = [f"data={data}", "teacher=yolo11n.yaml", "imgsz=64", "batch=4", "epochs=1", "teacher_epochs=1"]
    with caplog.at_level("INFO", logger="ultralytics"):
        assert main(["demo", *words, "amplifier_epochs=1", "device=cpu", f"project={tmp_path / 'runs'}"]) == 0
    folders = {path.name.rsplit("-", 1)[0] for path in (tmp_path / "runs").iterdir()}
    assert folders == {"amplifier-yolo11n", "demo", "teacher-yolo11n"}
    for title in ("teacher", "plain student", "DS2D2 student"):
        assert sum(message.split("  ")[0] == title for message in caplog.messages) == 1
    with Image.open(tmp_path / "runs" / "demo" / "detections.png") as picture:
        assert picture.width > 1000
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50


def test_demo_trains_two_students_of_any_family_by_one_schedule(tmp_path):
    data = write_data(tmp_path / "set", train=4, val=2)
    model = tiny_yaml(tmp_path, "RetinaNet")
    words = [f"data={data}", f"teacher={model}", f"student={model}", "pretrained=False", "imgsz=64", "batch=4"]
    words += ["teacher_epochs=1", "epochs=1", "lr_steps=[1]", "amplifier=none", "device=cpu", f"project={tmp_path}"]
    assert main(["demo", *words]) == 0
    for name in ("demo-plain", "demo-ds2d2"):
        assert YAML.load(tmp_path / name / "args.yaml")["lr_steps"] == [1]


def test_demo_refuses_a_mismatched_pair_before_training(tmp_path, capsys):
    data = write_data(tmp_path / "set")
    words = [f"data={data}", "teacher=yolo11n.yaml", "student=yolov8n-p6.yaml", "imgsz=128", "device=cpu"]
    assert main(["demo", *words, f"project={tmp_path / 'runs'}"]) == 1
    assert "has 3 levels, student yolov8n-p6 4" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("words", [["epochs=many"], ["techer=x"], ["data=missing.yaml"]])
def test_demo_answers_mistakes_in_one_line(words, tmp_path, capsys):
    assert main(["demo", *words, f"project={tmp_path}"]) in {1, 2}
    assert len([line for line in capsys.readouterr().err.splitlines() if line.startswith("ds2d2: error:")]) == 1
    assert list(tmp_path.iterdir()) == []
