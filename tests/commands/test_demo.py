"""`ds2d2 demo`: runs completely, continues after an interruption, and refuses mistakes."""

import pytest
from pages import Page, assert_self_contained
from training_helpers import small_yolo, write_data

from ds2d2_yolo.cli import main
from ds2d2_yolo.commands.demo import comparison_of_demo
from ds2d2_yolo.comparison.plan import plan_comparison


@pytest.mark.slow
def test_demo_compares_students_on_a_page_and_goes_on(tmp_path, capsys, caplog):
    data, model = write_data(tmp_path / "set", task="obb"), small_yolo(tmp_path, task="obb")
    words = ["demo", "task=obb", f"data={data}", f"teacher={model}", f"student={model}", "imgsz=64", "batch=4"]
    words += ["teacher_epochs=1", "epochs=1", "amplifier=none", "device=cpu", f"project={tmp_path / 'runs'}"]
    with caplog.at_level("INFO", logger="ultralytics"):
        assert main(words) == 0
        assert any("to do: teacher, plain-0, ds2d2-0" in message for message in caplog.messages)
        caplog.clear()
        lines = capsys.readouterr().out.splitlines()
        page = tmp_path / "runs" / "demo" / "report" / "report.html"
        assert lines[-1] == f"Saved as {page}"
        assert sum(line.startswith(("  ds2d2 check data=", "  ds2d2 train teacher=")) for line in lines) == 2
        header = next(line for line in lines if "AP50" in line).split()
        assert header[-1] == "minutes"
        shown = Page(page)
        assert_self_contained(shown)
        assert any(alt.startswith("Detections of teacher, plain, ds2d2 in") for alt in shown.alts)

        assert main(words) == 0  # everything exists
        assert not any("to do" in message for message in caplog.messages)


@pytest.mark.parametrize("task", ["detect", "obb"])
def test_demo_knows_a_pair_for_each_task(task, tmp_path):
    data = write_data(tmp_path / "set", task=task)
    planned = plan_comparison(comparison_of_demo({"task": task, "data": str(data), "project": str(tmp_path)}))
    assert [method.name for method in planned.methods] == ["plain", "ds2d2"]
    assert planned.run.arguments.task == task
    assert planned.folder == tmp_path / "demo"


def test_demo_refuses_a_mismatched_pair_before_training(tmp_path, capsys):
    data = write_data(tmp_path / "set")
    words = [f"data={data}", "teacher=yolo11n.yaml", "student=yolov8n-p6.yaml", "imgsz=128", "device=cpu"]
    assert main(["demo", *words, f"project={tmp_path / 'runs'}"]) == 1
    assert "has 3 levels, student yolov8n-p6 has 4" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
