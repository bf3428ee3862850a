"""The tables and the picture of a comparison: printed texts and contents of files."""

import csv
from io import BytesIO

import numpy as np
import pytest
from comparison_records import FLAT, TEACHER, comparison_of, masked, results_of, run_of
from PIL import Image

from ds2d2_yolo.comparison.records import Results
from ds2d2_yolo.comparison.statistics import summarise
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.report.comparison_plot import comparison_png
from ds2d2_yolo.report.comparison_tables import report_lines, save_comparison


def test_the_table_says_it_all_in_percent():
    text = "\n".join(report_lines(comparison_of(), results_of()))
    assert "Accuracy in percent, mean over 2 seeds" in text
    assert "teacher  80.0     40.0  20.0  40.0    -" in text
    assert "+7.0 [-5.7, +19.7]" in text
    assert "36%" in text
    assert "teacher 10.0 minutes, amplifier haar (time not recorded)" in text
    assert "WARNING" not in text
    assert max(map(len, text.splitlines())) <= 120


def test_masks_have_columns_of_their_own():
    runs = [masked(run_of(name, 0, [0.25]), 0.15) for name in ("plain", "ds2d2")]
    for run in runs:
        run["curve"] = [masked(epoch, 0.15) for epoch in run["curve"]]
    text = "\n".join(report_lines(comparison_of(seeds=[0]), Results(masked(TEACHER, 0.25), {}, runs)))
    assert "teacher  80.0     40.0      50.0         25.0" in text


def test_one_seed_has_no_interval_and_says_so():
    comparison, results = comparison_of(seeds=[0]), results_of(seeds=[0])
    text = "\n".join(report_lines(comparison, results))
    assert "[" not in text
    assert "+6.0" in text
    assert "WARNING: One seed gives no interval" in text


def test_without_plain_runs_there_is_nothing_to_compare_with():
    results = results_of()
    results.runs[:] = [run for run in results.runs if run["method"] == "ds2d2"]
    (summary,) = summarise(results)
    assert summary.differences == {}
    assert summary.gaps_closed == {"AP50-95": None}
    assert not any("Differences" in line for line in report_lines(comparison_of(), results))


def test_all_files_are_written(tmp_path):
    save_comparison(comparison_of(tmp_path / "new"), results_of())
    folder = tmp_path / "new"
    assert sorted(path.name for path in folder.iterdir()) == [
        "comparison.csv",
        "comparison.md",
        "comparison.png",
        "summary.csv",
    ]
    with (folder / "comparison.csv").open(newline="") as file:
        runs = list(csv.DictReader(file))
    assert len(runs) == 6
    assert (runs[2]["method"], runs[2]["seed"], runs[2]["AP50-95"], runs[2]["APl"]) == ("ds2d2", "0", "0.26", "")
    assert (runs[2]["AP ship"], runs[2]["AP vehicle"], runs[2]["peak MiB"]) == ("0.26", "", "300.0")
    with (folder / "summary.csv").open(newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["teacher", "plain", "builtin", "ds2d2", "amplifier haar"]
    assert (rows["teacher"]["seconds"], rows["teacher"]["AP50"]) == ("600.0", "0.8")
    assert float(rows["ds2d2"]["AP50-95 - plain, low"]) < 0 < float(rows["ds2d2"]["AP50-95 - plain, high"])
    assert rows["plain"]["AP50-95 - plain"] == ""
    text = (folder / "comparison.md").read_text()
    assert "| ds2d2 | " in text
    assert "**ds2d2**: DS2D2, `im_full=3`" in text
    assert "![" in text


def test_an_unwritable_folder_is_reported_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DS2D2Error, match="cannot save the results"):
        save_comparison(comparison_of(tmp_path / "file"), results_of())


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
@pytest.mark.parametrize(
    "methods", [["plain"], ["ds2d2"], ["plain", "ds2d2"], None, list("abcdefghijklmnopqrstuvwxyz")]
)
def test_the_picture_is_drawn_for_any_set_of_methods(methods, seeds):
    results = results_of(seeds)
    if methods is not None:
        results.runs[:] = [run_of(name, seed, FLAT) for seed in seeds for name in methods]
    with Image.open(BytesIO(comparison_png(results))) as picture:
        pixels = np.asarray(picture.convert("L"))
    assert pixels.shape[1] > 1000
    assert (pixels < 128).mean() > 0.002  # not blank
