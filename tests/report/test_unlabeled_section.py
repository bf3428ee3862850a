"""What the page about a run says of images without labels."""

import json

import pytest

from ds2d2_yolo.report.run_page import Run, run_page

COLUMNS = {
    "epoch": [1.0, 2.0],
    "train/box_loss": [2.0, 1.0],
    "labeled/images": [6.0, 6.0],
    "labeled/boxes": [2.5, 2.5],
    "labeled/cls": [1.5, 1.25],
    "unlabeled/images": [3.0, 3.0],
    "unlabeled/boxes": [1.5, 1.5],
    "unlabeled/cls": [1.75, 1.375],
    "metrics/mAP50(B)": [0.1, 0.2],
}


@pytest.fixture
def reported_run(tmp_path):
    thresholds = {
        "ship": {"confidence": 0.412, "precision": 0.874, "recall": 0.803, "boxes": 4120},
        "plane": {"confidence": None, "precision": 0.0, "recall": 0.0, "boxes": 0},
    }
    content = {"images": 2000, "without_boxes": 41, "boxes": 4120, "left_out": {"also in val": 12}}
    path = tmp_path / "unlabeled.json"
    path.write_text(json.dumps(content | {"thresholds": thresholds}))
    args = {"unlabeled": str(path), "unlabeled_ratio": 0.5, "unlabeled_weight": 0.3, "epochs": 2}
    return Run(tmp_path, args, COLUMNS, None, None)


def page(run):
    return run_page(run, None, None, 0.25, run.folder)


def test_numbers_of_both_kinds_are_shown(reported_run):
    text = page(reported_run)
    for part in ("2,000, of these 41 without a box", "12 also in val", "0.412", "0.874", "4,120"):
        assert part in text
    assert "6 images with 2.5 boxes each; class loss 1.250" in text
    assert "3 images with 1.5 boxes each; class loss 1.375" in text


def test_a_run_without_such_images_has_no_section(reported_run):
    args = reported_run.args | {"unlabeled": None}
    columns = {name: values for name, values in COLUMNS.items() if "labeled/" not in name}
    assert "Unlabelled" not in page(Run(reported_run.folder, args, columns, None, None))


@pytest.mark.parametrize("content", ["", "[]", '{"images": 3}'])
def test_a_damaged_file_is_said_to_be(reported_run, content):
    (reported_run.folder / "unlabeled.json").write_text(content)
    assert "unlabeled.json is missing or damaged" in page(reported_run)
