"""Masks and keypoints in `compare`, `val` and `report`: their metrics are shown everywhere beside those of boxes."""

import csv
import json
from pathlib import Path

import pytest
from pages import Page
from PIL import Image
from training_helpers import lively_model, save_checkpoint, short, small_yolo, write_data
from ultralytics import YOLO

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.cli import main
from ds2d2_yolo.comparison import jobs as engine
from ds2d2_yolo.comparison.plan import plan_comparison
from ds2d2_yolo.comparison.work import execute
from ds2d2_yolo.report.comparison_tables import report_lines, save_comparison

FIGURES = {
    "segment": ("metrics/mAP50(M)", "metrics/mAP50-95(M)"),
    "pose": ("metrics/mAP50(P)", "metrics/mAP50-95(P)"),
}


@pytest.fixture(scope="module", params=FIGURES)
def compared(request, tmp_path_factory):
    """A comparison of all kinds of methods, made in this process to save time, with its results and metrics."""
    folder = tmp_path_factory.mktemp(request.param)
    data = write_data(folder / "set", train=8, val=3, task=request.param)
    teacher = save_checkpoint(lively_model(small_yolo(folder, "big", 32, request.param), seed=1), folder / "teacher.pt")
    given = {"teacher": str(teacher), "student": str(small_yolo(folder, task=request.param)), "data": str(data)}
    given |= {"methods": "plain,builtin,ds2d2", "seeds": "0", "project": str(folder / "runs")}
    given |= short(lr0=0.01)
    messages = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            engine,
            "run_jobs",
            lambda jobs, worker, done, cluster, watch: [(execute(job, DS2D2Trainer), done(job)) for job in jobs],
        )
        patch.setattr(engine.LOGGER, "info", messages.append)
        comparison = plan_comparison(given)
        results = engine.run_comparison(comparison)
    save_comparison(comparison, results)
    return comparison, results, FIGURES[request.param], messages


def test_records_have_ultralytics_own_figures(compared):
    comparison, results, figures, messages = compared
    assert [run["method"] for run in results.runs] == ["plain", "builtin", "ds2d2"]
    for record in (results.teacher, *results.runs):
        validated = YOLO(record["weights"]).val(
            data=comparison.arguments["data"], imgsz=64, batch=8, device="cpu", workers=0, plots=False, verbose=False
        )
        names = {"AP50": "metrics/mAP50(B)", "AP50-95": "metrics/mAP50-95(B)", **dict.fromkeys(figures)}
        assert {name: record[name] for name in names} == {
            name: validated.results_dict[other or name] for name, other in names.items()
        }
        assert record["coco"].keys() == {"AP", "AP50", "AP75", "APs", "APm", "APl"}
    for run in results.runs:
        (epoch,) = run["curve"]
        assert epoch.keys() == {"epoch", "seconds", "AP50", "AP50-95", *figures}
        header = (Path(run["weights"]).parents[1] / "results.csv").read_text().splitlines()[0]
        assert ("train/dis_loss" in header) == (run["method"] == "builtin")
        assert ("train/im_high_loss" in header) == (run["method"] == "ds2d2")
    short = figures[1].removeprefix("metrics/")
    assert sum(f", {short} " in str(line) for line in messages) == 4


def test_table_and_files_tell_them(compared):
    comparison, results, figures, _ = compared
    short = [name.removeprefix("metrics/") for name in figures]
    lines = report_lines(comparison, results)
    header = next(line for line in lines if line.startswith("  ") and "APs" in line)
    assert header.split() == ["AP50", "AP50-95", *short, "APs", "APm", "APl", "minutes"]
    markdown = (comparison.folder / "comparison.md").read_text()
    for expected in (*(f"{name} - plain" for name in short), f"{short[1]} at equal time", f"gap closed, {short[1]}"):
        assert expected in "\n".join(lines)
        assert expected in markdown
    for file, count in (("comparison.csv", 3), ("summary.csv", 5)):  # it also has lines for teacher and amplifier
        with (comparison.folder / file).open(newline="") as table:
            rows = list(csv.DictReader(table))
        assert len(rows) == count
        for name in figures:
            assert [row[name] != "" for row in rows] == [True] * min(count, 4) + [False] * (count - min(count, 4))
            assert f"{name} at equal time" in rows[0]


def test_the_picture_has_masks_or_keypoints_below_the_boxes(compared):
    comparison, _, _, _ = compared
    with Image.open(comparison.folder / "comparison.png") as picture:
        width, height = picture.size
    assert height > width  # with boxes alone it is wider than high


def test_the_page_of_the_comparison_and_of_a_run_tell_them(compared):
    comparison, results, figures, _ = compared
    short = figures[1].removeprefix("metrics/")
    assert main(["report", str(comparison.folder), "conf=0.1", "exist_ok=True"]) == 0
    text = Page(comparison.folder / "report" / "report.html").text
    assert f"{short} at equal time" in text
    assert "Images that changed most" in text
    run = Path(results.runs[-1]["weights"]).parents[1]
    assert main(["report", str(run), "conf=0.1", "device=cpu", "exist_ok=True"]) == 0
    text = Page(run / "report" / "report.html").text
    assert f"{short}, by Ultralytics" in text
    assert "Average precision" in text


def test_the_command_evaluates_them(compared, tmp_path, capsys):
    comparison, results, figures, _ = compared
    words = {"model": results.teacher["weights"], "data": comparison.arguments["data"], "imgsz": 64, "batch": 8}
    words |= {"device": "cpu", "plots": False, "project": tmp_path, "name": "run"}
    assert main(["val", *(f"{key}={value}" for key, value in words.items())]) == 0
    numbers = json.loads((tmp_path / "run" / "coco.json").read_text())
    assert numbers["figures"] == {name: results.teacher[name] for name in figures}
    assert f"{figures[0].removeprefix('metrics/')} {results.teacher[figures[0]]:.3f}" in capsys.readouterr().out
