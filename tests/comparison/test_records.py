"""Curves of runs, read from Ultralytics' results.csv."""

import csv

import pytest

from ds2d2_yolo.comparison.records import read_curve, training_seconds
from ds2d2_yolo.errors import DS2D2Error


def write_curve(path, rows):
    columns = ["epoch", "time", "metrics/mAP50(B)", "metrics/mAP50-95(B)"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([columns, *rows])
    return path


def test_of_an_epoch_that_was_run_twice_the_second_counts(tmp_path):
    rows = [(1, 10, 0.1, 0.05), (2, 20, 0.2, 0.1), (2, 21, 0.25, 0.15), (3, 30, 0.3, 0.2)]
    curve = read_curve(write_curve(tmp_path / "results.csv", rows))
    assert [epoch["seconds"] for epoch in curve] == [10, 21, 30]
    assert [epoch["AP50"] for epoch in curve] == [0.1, 0.25, 0.3]
    weights = tmp_path / "weights" / "best.pt"
    assert training_seconds(weights) == 30
    assert training_seconds(tmp_path / "best.pt") is None


def test_curves_have_what_ultralytics_measures_beside_boxes(tmp_path):
    path = tmp_path / "results.csv"
    names = ["metrics/recall(B)", "metrics/mAP50(B)", "metrics/mAP50-95(B)", "metrics/recall(P)", "metrics/mAP50(P)"]
    path.write_text(f"epoch,time,{','.join(names)},  metrics/mAP50-95(P)\n1,10,0.5,0.4,0.3,0.6,0.2,0.1\n")
    figures = {"AP50": 0.4, "AP50-95": 0.3, "metrics/mAP50(P)": 0.2, "metrics/mAP50-95(P)": 0.1}
    assert read_curve(path) == [{"epoch": 1, "seconds": 10, **figures}]


@pytest.mark.parametrize("content", [None, "", "epoch,time\n", "epoch,time\n1,2\n", "epoch,time\n1\n", "a,b\nx,y\n"])
def test_a_damaged_curve_is_reported_in_one_line(content, tmp_path):
    path = tmp_path / "results.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DS2D2Error, match=r"results\.csv: (cannot be read|has no epochs)"):
        read_curve(path)
