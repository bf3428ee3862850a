"""`ds2d2 report` about a comparison: the page, its sources, and mistakes."""

import csv
import json
import shutil

import pytest
from pages import Page, assert_self_contained, browse, needs_browser
from training_helpers import lively_model, save_checkpoint, short, write_data

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.cli import main
from ds2d2_yolo.commands.report import run_report
from ds2d2_yolo.comparison import jobs as engine
from ds2d2_yolo.comparison.finished import read_comparison
from ds2d2_yolo.comparison.plan import plan_comparison
from ds2d2_yolo.comparison.work import execute
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.method import TERMS
from ds2d2_yolo.report.changes import Pairing, changes_by_image, show_changes
from ds2d2_yolo.report.comparison_page import comparison_page
from ds2d2_yolo.report.comparison_tables import save_comparison
from ds2d2_yolo.report.page import Section, render_page


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """The folder of a comparison of four methods with two seeds, made in this process to save time."""
    folder = tmp_path_factory.mktemp("compared")
    data = write_data(folder / "set", train=4, val=3)
    teacher = save_checkpoint(lively_model("yolov8s.yaml", seed=1), folder / "teacher.pt")
    student = save_checkpoint(lively_model("yolov8n.yaml", seed=2), folder / "student.pt")
    given = {"teacher": str(teacher), "student": str(student), "data": str(data), "project": str(folder / "runs")}
    (folder / "long.yaml").write_text("long: {distil: none, epochs: 2}\n")
    given |= {"methods": f"plain,implicit,ds2d2,{folder / 'long.yaml'}", "seeds": "0,1", "amplifier": None}
    given |= short(lr0=0.01)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            engine, "run_jobs", lambda jobs, worker, done, cluster, watch: [execute(job, DS2D2Trainer) for job in jobs]
        )
        comparison = plan_comparison(given)
        save_comparison(comparison, engine.run_comparison(comparison))
    return comparison.folder


@pytest.fixture(scope="module")
def reported(compared):
    assert main(["report", str(compared), "conf=0.3"]) == 0
    return compared / "report"


@pytest.fixture
def copied(compared, tmp_path):
    """The same folder in another place, without its report."""
    return shutil.copytree(compared, tmp_path / "moved", ignore=shutil.ignore_patterns("report*"))


def test_the_page_shows_everything_about_a_comparison(reported):
    page = Page(reported / "report.html")
    assert_self_contained(page)
    for expected in (
        *("Summary", "Methods", "Results", "Curves", "Change against plain", "Images that changed most"),
        *("Accuracy in percent, mean over 2 seeds", "mean and 95 % interval", "implicit against plain", "gap closed"),
        *("3 images with 6 objects", "ds2d2, mean over 2 seeds", "or more, mean over 2 seeds.", "ship", "vehicle"),
        *(f"gain {name}" for name in TERMS),
    ):
        assert expected in page.text
    assert "Change of AP by class, ds2d2" in page.alts
    assert "Change of AP by size, implicit" in page.alts


@needs_browser
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_the_comparison_without_complaint(width, reported, tmp_path):
    pixels = browse(reported / "report.html", tmp_path, width=width)
    assert pixels.std() > 10
    assert (pixels[:, -8:] > 240).all()  # nothing crosses the margin: wide parts scroll in their place


def test_what_is_read_is_what_was_compared(compared):
    comparison, results = read_comparison(compared)
    assert [method.name for method in comparison.methods] == ["plain", "implicit", "ds2d2", "long"]
    assert [method.distil for method in comparison.methods] == ["none", "ds2d2", "ds2d2", "none"]
    assert comparison.methods[3].arguments == {"epochs": 2}
    assert comparison.methods[1].arguments == {"epochs": 1, "ex_low": 0, "ex_high": 0, "response": 0}
    assert comparison.methods[0].arguments == comparison.methods[2].arguments == {"epochs": 1}
    assert (comparison.seeds, comparison.arguments["imgsz"]) == ([0, 1], 64)
    assert not {"seed", "amplifier", "unlabeled"} & comparison.arguments.keys()
    assert [(run["method"], run["seed"]) for run in results.runs] == [
        (name, seed) for seed in (0, 1) for name in ("plain", "implicit", "ds2d2", "long")
    ]
    assert results.teacher["AP50"] >= 0


def test_records_of_other_runs_do_not_count(copied):
    record = next((copied / "runs").glob("plain-0-*.json"))
    other = json.loads(record.read_text()) | {"seed": 7}
    (copied / "runs" / "plain-7-00000000.json").write_text(json.dumps(other))
    assert read_comparison(copied)[0].seeds == [0, 1]


def test_images_are_counted_in_the_evaluation_of_a_run(copied):
    record, other = next((copied / "runs").glob("teacher-*.json")), copied / "runs" / "teacher-00000000"
    content = json.loads(record.read_text())
    other.with_suffix(".json").write_text(json.dumps(content | {"inputs": content["inputs"] | {"data": "another"}}))
    (other / "coco").mkdir(parents=True)
    (other / "coco" / "coco.json").write_text(json.dumps({"images": 77, "objects": 99, "settings": {}}))
    assert "3 images with 6 objects" in comparison_page(copied)


def test_a_method_may_be_called_like_the_teacher(copied):
    record = next((copied / "runs").glob("ds2d2-0-*.json"))  # younger than the teacher's record, on the same data
    teacher = read_comparison(copied)[1].teacher
    (copied / "runs" / "teacher-assignment-0-00000000.json").write_text(record.read_text())
    assert read_comparison(copied)[1].teacher == teacher


def test_a_folder_that_was_moved_is_reported_all_the_same(copied, tmp_path):
    run_report({"run": str(copied)})
    page = Page(copied / "report" / "report.html")
    assert "or more, mean over 2 seeds." in page.text
    assert str(copied) in page.text


def test_without_detections_or_images_the_page_says_so(copied, tmp_path):
    for file in (copied / "runs").rglob("coco/coco.json"):
        settings = json.loads(file.read_text())
        settings["settings"]["data"] = str(tmp_path / "gone.yaml")
        file.write_text(json.dumps(settings))
    run_report({"run": str(copied)})
    assert "Pass data= to see them" in Page(copied / "report" / "report.html").text
    for file in (copied / "runs").rglob("predictions.json"):
        file.unlink()
    run_report({"run": str(copied)})
    assert "detections are no longer in the folder" in Page(copied / "report-2" / "report.html").text


def test_without_a_plain_student_there_are_no_changes_to_show(copied):
    table = copied / "comparison.csv"
    with table.open(newline="") as file:
        header, *rows = list(csv.reader(file))
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([header, *(row for row in rows if row[0] != "plain")])
    run_report({"run": str(copied)})
    page = Page(copied / "report" / "report.html")
    assert "Change against plain" not in page.text
    assert "Images that changed most" not in page.text


def test_an_argument_that_no_run_was_given_has_its_default(copied):
    for path in (copied / "runs").glob("*.json"):
        record = json.loads(path.read_text())
        record.get("arguments", {}).pop("batch", None)
        path.write_text(json.dumps(record))
    run_report({"run": str(copied)})
    assert "64, 16, those of the method" in Page(copied / "report" / "report.html").text


def test_tables_without_epochs_have_no_curves(copied):
    for table in (copied / "runs").rglob("results.csv"):
        table.write_text(table.read_text().splitlines()[0] + "\n")
    run_report({"run": str(copied)})
    assert (copied / "report" / "report.html").is_file()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"baseline": "plain.pt"}, r"baseline=plain\.pt: is for single runs"),
        ({"val": False}, "val=False: is for single runs"),
        ({"imgsz": 64}, "imgsz=64: is for single runs"),
        ({"conf": 3}, "conf=3: expected a number from 0 to 1"),
        ({"data": "gone.yaml"}, r"data=gone\.yaml"),
    ],
)
def test_what_a_comparison_cannot_use_is_refused(given, message, compared, tmp_path):
    with pytest.raises(DS2D2Error, match=message):
        run_report({"run": str(compared), "out": str(tmp_path / "out"), **given})
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_comparison_is_reported_in_one_line(copied):
    records = sorted((copied / "runs").glob("*.json"))
    teachers = [path for path in records if path.name.startswith("teacher")]
    for path in teachers:
        path.rename(path.with_suffix(".away"))
    with pytest.raises(DS2D2Error, match="has no record of the teacher"):
        read_comparison(copied)
    for path in teachers:
        path.with_suffix(".away").rename(path)
    plain = next(path for path in records if path.name.startswith("plain-0"))
    content = plain.read_text()
    for damage, message in (("{", "cannot be read"), ("{}", "a record is damaged")):
        plain.write_text(damage)
        with pytest.raises(DS2D2Error, match=message):
            read_comparison(copied)
    plain.write_text(content)
    for damage, message in (("method,seed\n", "lists no runs"), ("method,seed\nplain,0\n", r"KeyError\('weights'\)")):
        (copied / "comparison.csv").write_text(damage)
        with pytest.raises(DS2D2Error, match=message):
            read_comparison(copied)


def test_images_are_ranked_by_mean_and_shown_by_typical_seed(tmp_path):
    from PIL import Image

    def item(image, score=None):
        box = {"image_id": image, "category_id": 1, "bbox": [0, 0, 10, 10]}
        return box if score is None else {**box, "score": score}

    for name in ("always.png", "once.png"):
        Image.new("RGB", (32, 32)).save(tmp_path / name)
    truth = {
        "images": [{"id": 1, "file_name": "once.png"}, {"id": 2, "file_name": "always.png"}],
        "annotations": [item(1), item(2)],
        "categories": [{"id": 1, "name": "ship"}],
    }
    both, second = [item(1, 0.9), item(2, 0.9)], [item(2, 0.9)]
    pairings = [
        Pairing("seed 0", truth, both, []),
        Pairing("seed 1", truth, second, []),
        Pairing("seed 2", truth, second, []),
    ]
    assert changes_by_image(truth, both, []) == [("once.png", 1.0), ("always.png", 1.0)]
    parts = show_changes(pairings, ("plain", "ds2d2"), 0.25, tmp_path)
    page = render_page("", "", [Section("Images that changed most", parts)])
    assert "ds2d2 is better than plain on 2 of 2 images, and worse on 0." in page
    assert "mean over 3 seeds." in page
    assert page.index("always.png: F1 +1.00; shown: seed 0, +1.00") < page.index(
        "once.png: F1 +0.33; shown: seed 1, +0.00"
    )
