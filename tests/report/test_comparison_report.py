"""What a comparison says: statistics against scipy and by hand, tables, files and the picture."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from ds2d2_yolo.comparison.plan import Comparison, Method
from ds2d2_yolo.comparison.processes import Cluster
from ds2d2_yolo.comparison.records import Results
from ds2d2_yolo.comparison.statistics import (
    best_by,
    finishing_times,
    gap_closed,
    late_rise,
    mean_interval,
    paired_differences,
    summarise,
    warnings_of,
)
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.report.comparison import draw_comparison, report_lines, save_report

SHARES = st.floats(0, 1)


def curve_of(values, pace=10.0):
    """A curve of AP50-95 per epoch; AP50 is twice that."""
    return [
        {"epoch": number, "seconds": number * pace, "AP50": 2 * value, "AP50-95": value}
        for number, value in enumerate(values, start=1)
    ]


def run_of(method, seed, values, pace=10.0, **changes):
    curve = curve_of(values, pace)
    return {
        **{"method": method, "seed": seed, "curve": curve, "AP50": 2 * max(values), "AP50-95": max(values)},
        **{"coco": {"APs": max(values) / 2, "APm": max(values), "APl": None}},
        **{"classes": {"ship": {"AP": max(values)}, "vehicle": {"AP": None}}, "weights": f"{method}-{seed}.pt"},
        **{"seconds": curve[-1]["seconds"], "seconds_per_epoch": pace, "peak_bytes": 300 * 2**20},
        **{"continued_after": [], "versions": {"torch": "2.14.1"}},
        **changes,
    }


FLAT = (0.1, 0.2, 0.2, 0.2, 0.2)  # a student that has learnt what it can
TEACHER = {"AP50": 0.8, "AP50-95": 0.4, "coco": {"APs": 0.2, "APm": 0.4, "APl": None}}


def results_of(seeds=(0, 1), **changes):
    runs = []
    for seed in seeds:
        runs.append(run_of("plain", seed, [value + 0.01 * seed for value in FLAT]))
        runs.append(run_of("builtin", seed, [0.05, 0.1, 0.15, 0.2, 0.25 - 0.01 * seed], pace=15.0))
        runs.append(run_of("ds2d2", seed, [0.01, 0.05, 0.1, 0.2, 0.26 + 0.03 * seed], pace=25.0))
    return Results(
        **{"teacher": TEACHER, "stages": {"teacher": 600.0, "amplifier haar": None}, "runs": runs, **changes}
    )


def comparison_of(folder=Path("nowhere"), seeds=(0, 1), cluster=None):
    methods = [
        Method("plain", "none", {}),
        Method("builtin", "ultralytics", {}),
        Method("ds2d2", "ds2d2", {"im_full": 3}),
    ]
    arguments = {"teacher": "t.pt", "model": "s.yaml", "data": "d.yaml", "epochs": 5, "amplifier": None}
    return Comparison(folder, methods, list(seeds), arguments, {}, cluster)


# --------------------------------------------------------------------------------------------------- statistics


@given(st.lists(SHARES, min_size=2, max_size=12), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_intervals_are_those_of_scipys_t_test(values, confidence):
    interval = mean_interval(values, confidence)
    assert interval.count == len(values)
    assert interval.mean == pytest.approx(np.mean(values))
    if len(set(values)) == 1:
        assert (interval.low, interval.high) == (interval.mean, interval.mean)
        return
    expected = stats.ttest_1samp(values, 0).confidence_interval(confidence)
    assert interval.low == pytest.approx(expected.low, abs=1e-9)
    assert interval.high == pytest.approx(expected.high, abs=1e-9)


@given(st.dictionaries(st.integers(0, 9), st.tuples(SHARES, SHARES), min_size=2))
def test_paired_differences_give_the_paired_t_test(pairs):
    ours = {seed: pair[0] for seed, pair in pairs.items()}
    theirs = {seed: pair[1] for seed, pair in pairs.items()}
    differences = paired_differences(ours, theirs)
    assert differences == [ours[seed] - theirs[seed] for seed in sorted(pairs)]
    if len({round(value, 9) for value in differences}) > 1:
        order = sorted(pairs)
        expected = stats.ttest_rel([ours[seed] for seed in order], [theirs[seed] for seed in order])
        interval = mean_interval(differences)
        assert interval.low == pytest.approx(expected.confidence_interval(0.95).low, abs=1e-9)
        assert (interval.low <= 0 <= interval.high) == (expected.pvalue >= 0.05) or math.isclose(
            expected.pvalue, 0.05, rel_tol=1e-6
        )


def test_the_interval_of_two_values_by_hand():
    # Half a width of t(0.975, 1) = tan(0.475 pi) = 12.7062 standard errors; that of 1 and 3 is 1
    interval = mean_interval([1.0, 3.0])
    assert (interval.mean, interval.count) == (2, 2)
    assert interval.high - interval.mean == pytest.approx(math.tan(0.475 * math.pi))


def test_one_value_has_no_interval_and_none_no_mean():
    assert (mean_interval([0.3]).mean, mean_interval([0.3]).low, mean_interval([0.3]).high) == (0.3, None, None)
    assert math.isnan(mean_interval([]).mean)
    assert mean_interval([0.3, math.nan]).count == 1


def test_seeds_that_only_one_of_two_methods_has_do_not_count():
    assert paired_differences({0: 3, 1: 5, 4: 1}, {4: 2, 1: 4, 2: 9}) == [1, -1]
    assert paired_differences({0: 3}, {1: 4}) == []


@given(SHARES, SHARES, SHARES)
def test_the_closed_gap_is_0_at_plain_and_1_at_the_teacher(method, plain, teacher):
    if teacher > plain:
        assert gap_closed(plain, plain, teacher) == 0
        assert gap_closed(teacher, plain, teacher) == 1
        assert gap_closed(method, plain, teacher) == pytest.approx((method - plain) / (teacher - plain))
    else:
        assert gap_closed(method, plain, teacher) is None


@given(st.lists(SHARES, min_size=1, max_size=30), st.floats(0, 400))
def test_the_best_epoch_so_far_is_done_and_the_best(values, seconds):
    curve = curve_of(values)
    epoch = best_by(curve, seconds)
    done = [other for other in curve if other["seconds"] <= seconds]
    assert (epoch is None) == (not done)
    if done:
        assert epoch in done
        assert epoch["AP50-95"] == max(other["AP50-95"] for other in done)


@given(st.lists(SHARES, min_size=1, max_size=30))
def test_the_late_rise_is_a_share(values):
    assert 0 <= late_rise(curve_of(values)) <= 1


def test_the_late_rise_by_hand():
    assert late_rise(curve_of([0.1, 0.2, 0.3, 0.4, 0.4])) == 0  # the best came before
    assert late_rise(curve_of([0.1, 0.2, 0.3, 0.3, 0.4])) == pytest.approx(0.25)
    assert late_rise(curve_of([0.1] * 8 + [0.15, 0.2])) == pytest.approx(0.5)  # two of ten epochs are late
    assert late_rise(curve_of([0.4])) == 1  # nothing came before
    assert late_rise(curve_of([0.0, 0.0])) == 0


# ------------------------------------------------------------------------------------------------------- report


def test_a_summary_by_hand():
    plain, builtin, ds2d2 = summarise(results_of())
    assert [summary.method for summary in (plain, builtin, ds2d2)] == ["plain", "builtin", "ds2d2"]
    assert plain.values["AP50-95"].mean == pytest.approx(0.205)
    assert plain.gaps_closed == {"AP50-95": None}
    assert plain.differences.keys() == {"builtin"}
    # 0.26 - 0.20 and 0.29 - 0.21
    to_plain = ds2d2.differences["plain"]["AP50-95"]
    assert to_plain.mean == pytest.approx(0.07)
    assert to_plain.high - 0.07 == pytest.approx(0.01 * math.tan(0.475 * math.pi))
    assert ds2d2.differences["builtin"]["AP50-95"].mean == pytest.approx(0.03)
    assert ds2d2.gaps_closed == {"AP50-95": pytest.approx(0.07 / (0.4 - 0.205))}
    # Plain is done after 50 s: the others have done three epochs of 15 s and two of 25 s by then
    assert finishing_times(results_of().runs) == {0: 50, 1: 50}
    assert plain.equal_time["AP50-95"].mean == pytest.approx(0.205)
    assert builtin.equal_time["AP50-95"].mean == pytest.approx(0.15)
    assert ds2d2.equal_time["AP50"].mean == pytest.approx(0.1)
    assert (ds2d2.seconds, ds2d2.seconds_per_epoch) == (125, 25)
    assert math.isnan(ds2d2.values["APl"].mean)


def test_equal_time_is_that_of_the_plain_student():
    results = results_of(seeds=[0])
    results.runs.append(run_of("short", 0, [0.1, 0.22], pace=20.0))
    *_, short = summaries = summarise(results)
    assert finishing_times(results.runs) == {0: 50}
    assert [summary.epochs for summary in summaries] == [5, 5, 5, 2]
    assert short.equal_time["AP50-95"].mean == short.values["AP50-95"].mean == 0.22
    results.runs[:] = [run for run in results.runs if run["method"] != "plain"]
    assert finishing_times(results.runs) == {0: 40}


def masked(figures, values):
    """Add mask AP, of which AP50 is twice AP50-95, to what has box AP."""
    return {**figures, "metrics/mAP50(M)": 2 * values, "metrics/mAP50-95(M)": values}


def test_masks_are_summarised_and_count_for_the_fitness():
    # Boxes are best in the second epoch; with their masks, the third is
    rows = [(0.1, 0.05), (0.3, 0.05), (0.25, 0.17)]
    curve = [masked(epoch, mask) for epoch, (_, mask) in zip(curve_of([box for box, _ in rows]), rows, strict=True)]
    assert best_by(curve, 25)["epoch"] == 2
    assert best_by(curve, 35)["epoch"] == 3
    assert late_rise(curve) == pytest.approx(0.07 / 0.42)
    runs = [masked(run_of("plain", 0, [0.25]), 0.15), masked(run_of("ds2d2", 0, [0.25]), 0.2)]
    for run in runs:
        run |= {"curve": curve, "seconds": 30}
    results = Results(masked(TEACHER, 0.25), {}, runs)
    plain, ds2d2 = summarise(results)
    assert ds2d2.differences["plain"]["metrics/mAP50-95(M)"].mean == pytest.approx(0.05)
    assert ds2d2.gaps_closed == {"AP50-95": 0, "metrics/mAP50-95(M)": pytest.approx(0.5)}
    assert plain.equal_time["metrics/mAP50-95(M)"].mean == 0.17
    text = "\n".join(report_lines(comparison_of(seeds=[0]), results))
    assert "teacher  80.0     40.0      50.0         25.0" in text
    assert "brought 17% of its AP50-95 + mAP50-95(M)." in text


def test_the_table_says_it_all_in_percent():
    text = "\n".join(report_lines(comparison_of(), results_of()))
    assert "Accuracy in percent, mean of 2 seeds" in text
    assert "teacher  80.0     40.0  20.0  40.0    -" in text
    assert "+7.0 [-5.7, +19.7]" in text
    assert "36%" in text
    assert "teacher 10.0 minutes, amplifier haar unknown" in text
    assert "WARNING" not in text
    assert max(map(len, text.splitlines())) <= 120


def test_one_seed_has_no_interval_and_says_so():
    comparison, results = comparison_of(seeds=[0]), results_of(seeds=[0])
    text = "\n".join(report_lines(comparison, results))
    assert "[" not in text
    assert "+6.0" in text
    assert "WARNING: One seed: there is no interval" in text


def test_without_plain_runs_there_is_nothing_to_compare_with():
    results = results_of()
    results.runs[:] = [run for run in results.runs if run["method"] == "ds2d2"]
    (summary,) = summarise(results)
    assert summary.differences == {}
    assert summary.gaps_closed == {"AP50-95": None}
    assert not any("Differences" in line for line in report_lines(comparison_of(), results))


def test_warnings_name_what_a_reader_must_know():
    assert warnings_of(comparison_of(), results_of()) == []
    rising = results_of(runs=[run_of("plain", seed, [0.1, 0.15, 0.2, 0.25, 0.3]) for seed in (0, 1)])
    (warning,) = warnings_of(comparison_of(), rising)
    assert warning.startswith(
        "The plain student is still rising: its last fifth of the epochs brought 17% of its AP50-95"
    )
    (warning,) = warnings_of(comparison_of(), results_of(teacher={**TEACHER, "AP50-95": 0.1}))
    assert "no gap to close" in warning
    runs = [run_of("plain", 0, FLAT, continued_after=[2, 4]), run_of("plain", 1, FLAT, versions={"torch": "2.4.0"})]
    interrupted, mixed = warnings_of(comparison_of(), results_of(runs=runs))
    assert "plain, seed 0, was interrupted and went on after epoch 2, 4" in interrupted
    assert "different versions" in mixed
    (warning,) = warnings_of(comparison_of(cluster=Cluster("local")), results_of())
    assert "shared machines" in warning


def test_all_files_are_written(tmp_path):
    save_report(comparison_of(tmp_path / "new"), results_of())
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


def test_what_cannot_be_written_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DS2D2Error, match="cannot save the results"):
        save_report(comparison_of(tmp_path / "file"), results_of())


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
@pytest.mark.parametrize(
    "methods", [["plain"], ["ds2d2"], ["plain", "ds2d2"], None, list("abcdefghijklmnopqrstuvwxyz")]
)
def test_the_picture_is_drawn_for_any_set_of_methods(methods, seeds, tmp_path):
    results = results_of(seeds)
    if methods is not None:
        results.runs[:] = [run_of(name, seed, FLAT) for seed in seeds for name in methods]
    path = draw_comparison(results, tmp_path / "picture.png")
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("L"))
    assert pixels.shape[1] > 1000
    assert (pixels < 128).mean() > 0.002  # not blank
