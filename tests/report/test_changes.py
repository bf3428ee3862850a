"""Changes between two detectors, image by image."""

import json
import tracemalloc

import pytest
from PIL import Image

from ds2d2_yolo.report.changes import Pairing, changes_by_image, show_changes, show_detections
from ds2d2_yolo.report.page import Section, render_page


def test_images_are_ranked_by_the_change_of_their_f1_score():
    def item(image, x, score=None, category=1):
        box = {"image_id": image, "category_id": category, "bbox": [x, 0, 10, 10]}
        return box if score is None else {**box, "score": score}

    names = {1: "better.png", 2: "worse.png", 3: "same.png", 4: "alarm.png", 5: "nothing.png"}
    truth = {
        "images": [{"id": number, "file_name": name} for number, name in names.items()],
        "annotations": [item(1, 0), item(1, 50), item(2, 0), item(3, 0)],
    }
    student = [item(1, 0, 0.9), item(1, 50, 0.8), item(2, 0, 0.9, category=2), item(3, 0, 0.9), item(4, 0, 0.9)]
    baseline = [item(1, 0, 0.9), item(2, 0, 0.9), item(3, 0, 0.9)]
    changes = dict(changes_by_image(truth, student, baseline))
    assert changes == pytest.approx({"better.png": 1 - 2 / 3, "same.png": 0, "alarm.png": 0, "worse.png": -1})
    assert next(iter(changes)) == "better.png"
    assert list(changes)[-1] == "worse.png"


def test_only_evaluated_objects_are_drawn(tmp_path):
    """The ground truth of an evaluation with `classes=` has some of the objects of its label files."""
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "images/a.png")
    item = {"image_id": 1, "category_id": 1, "bbox": [4, 4, 8, 8]}
    truth = {
        "images": [{"id": 1, "file_name": "images/a.png"}],
        "annotations": [item],
        "categories": [{"id": 1, "name": "ship"}, {"id": 2, "name": "vehicle"}],
    }
    found = [{**item, "score": 0.9}]
    shown = []
    for labels in ("0 0.25 0.25 0.25 0.25\n", "0 0.25 0.25 0.25 0.25\n1 0.7 0.7 0.2 0.2\n"):
        (tmp_path / "labels/a.txt").write_text(labels)
        parts = show_changes([Pairing("", truth, found, [])], ("plain", "ds2d2"), 0.25, tmp_path)
        shown.append(
            render_page("", "", [Section("", [*parts, *show_detections(truth, {"a": found}, 0.25, tmp_path)])])
        )
    assert shown[0].count("<img") == 2
    assert shown[0] == shown[1]


def test_detections_that_do_not_count_fill_no_memory(tmp_path):
    unlikely = [{"image_id": 1, "category_id": 1, "bbox": [0.5] * 4, "score": 0.1}] * 20_000
    certain = {**unlikely[0], "score": 0.25}
    contents = {"predictions": [*unlikely, certain], "ground_truth": {"images": [], "annotations": []}}
    for name, content in contents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    tracemalloc.start()
    pairing = Pairing.of_folders("seed 0", tmp_path, tmp_path, 0.25)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert pairing.new == pairing.old == [certain]
    assert peak < 2.5 * (tmp_path / "predictions.json").stat().st_size  # the text, twice while it is decoded
