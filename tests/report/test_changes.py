"""Changes between two detectors, image by image."""

import pytest

from ds2d2_yolo.report.changes import changes_by_image


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
    baseline = [item(1, 0, 0.9), item(1, 50, 0.1), item(2, 0, 0.9), item(3, 0, 0.9)]
    changes = dict(changes_by_image(truth, student, baseline, 0.25))
    assert changes == pytest.approx({"better.png": 1 - 2 / 3, "same.png": 0, "alarm.png": 0, "worse.png": -1})
    assert next(iter(changes)) == "better.png"
    assert list(changes)[-1] == "worse.png"
