"""`ds2d2 report`: the page of a run, the comparison with a baseline, and mistakes."""

import re
import shutil

import pytest
from pages import Page, assert_self_contained, browse, needs_browser
from training_helpers import lively_model, save_checkpoint
from ultralytics.utils import YAML

from ds2d2_yolo.cli import main
from ds2d2_yolo.commands.report import run_report
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.method import TERMS
from ds2d2_yolo.report.run_page import read_run


@pytest.fixture(scope="module")
def reported(distilled):
    words = [f"run={distilled.run}", f"baseline={distilled.plain}", "device=cpu", "conf=0.05"]
    assert main(["report", *words]) == 0
    return distilled.run / "report"


def test_the_page_shows_everything_about_a_run(reported, distilled):
    page = Page(reported / "report.html")
    assert_self_contained(page)
    gains = YAML.load(distilled.run / "args.yaml")
    for expected in (
        *("Summary", "Pair", "Curves", "Average precision", "Change against the baseline", "Images that changed most"),
        *(", ".join(f"{name} {gains[name]:g}" for name in TERMS), "2 of 2", "yolo11s, DFL, 16 bins", "ship, vehicle"),
        *("ds2d2_bands_0.png", "ds2d2_terms.png", "results.png", "by Ultralytics", "args.yaml", str(distilled.teacher)),
    ):
        assert expected in page.text
    assert "3 images of 'val' with 6 objects" in page.text
    assert re.search(r"teacher on the validation set, by Ultralytics\s*AP50 0\.\d{3}, AP50-95 0\.\d{3}", page.text)


@needs_browser
def test_a_browser_shows_the_page_without_complaint(reported, tmp_path):
    assert browse(reported / "report.html", tmp_path).std() > 10


def test_a_second_report_leaves_the_first_alone(reported, distilled):
    before = (reported / "report.html").stat().st_mtime_ns
    run_report({"run": str(distilled.run), "val": False})
    assert (reported / "report.html").stat().st_mtime_ns == before
    page = Page(distilled.run / "report-2" / "report.html")
    assert "Average precision" not in page.text
    shutil.rmtree(distilled.run / "report-2")


def test_only_the_classes_of_the_run_are_measured(distilled, tmp_path):
    run = shutil.copytree(distilled.run, tmp_path / "run", ignore=shutil.ignore_patterns("report*"))
    YAML.save(run / "args.yaml", {**YAML.load(run / "args.yaml"), "classes": [0]})
    run_report({"run": str(run), "device": "cpu"})
    assert "3 images of 'val' with 3 objects" in Page(run / "report" / "report.html").text  # of 6


def test_an_unfinished_run_is_reported_from_its_files(distilled, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("args.yaml", "results.csv"):
        shutil.copy(distilled.run / name, run)
    run_report({"run": str(run), "val": False})
    assert "No pair.json in this run" in Page(run / "report" / "report.html").text


MISTAKES = [
    ({"run": None}, 2, "run= is missing"),
    ({"run": "{folder}/nowhere"}, 2, "nowhere: no such folder; pass the folder of a training"),
    ({"run": "{folder}/set"}, 2, "has no args.yaml; pass the folder of a training or of a comparison"),
    ({"baseline": "{folder}/nowhere"}, 2, "nowhere: no such file or folder"),
    ({"baseline": "{folder}/set"}, 2, "set: has no weights/best.pt"),
    ({"baseline": "{folder}/plain.pt", "val": False}, 2, "val=False was passed"),
    ({"data": "{folder}/missing.yaml"}, 1, "missing.yaml"),
    ({"split": "test"}, 1, "split=test"),
    ({"conf": -1}, 2, "conf=-1: expected a number from 0 to 1"),
]


@pytest.mark.parametrize(("changes", "code", "message"), MISTAKES, ids=[str(i) for i in range(len(MISTAKES))])
def test_a_mistake_gets_one_line_and_writes_nothing(changes, code, message, distilled, tmp_path):
    given = {"run": str(distilled.run), "out": str(tmp_path / "out"), "device": "cpu", **changes}
    given = {
        key: value.format(folder=distilled.folder) if isinstance(value, str) else value for key, value in given.items()
    }
    with pytest.raises(DS2D2Error) as caught:
        run_report({key: value for key, value in given.items() if value is not None})
    assert message in str(caught.value)
    assert caught.value.exit_code == code
    assert list(tmp_path.iterdir()) == []


def test_a_baseline_of_other_classes_is_refused_as_such(distilled, tmp_path):
    baseline = save_checkpoint(lively_model("yolo11n.yaml", classes=3), tmp_path / "other.pt")
    with pytest.raises(DS2D2Error, match=r"baseline=.*other\.pt: has 3 classes, the student has 2; pass a baseline"):
        run_report({"run": str(distilled.run), "baseline": str(baseline), "out": str(tmp_path / "out")})
    assert not (tmp_path / "out").exists()


def test_a_run_without_epochs_or_with_damaged_files_is_refused(distilled, tmp_path):
    (tmp_path / "args.yaml").write_text("model: x\n")
    (tmp_path / "results.csv").write_text("epoch,time\n")
    with pytest.raises(DS2D2Error, match="has no epochs yet"):
        read_run(tmp_path)
    shutil.copy(distilled.run / "results.csv", tmp_path)
    (tmp_path / "pair.json").write_text("{")
    with pytest.raises(DS2D2Error, match=r"args\.yaml, pair\.json or teacher\.json is damaged"):
        read_run(tmp_path)
