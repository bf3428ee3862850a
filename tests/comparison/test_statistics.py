"""Statistics of a comparison: against scipy, and by hand."""

import math

import numpy as np
import pytest
from comparison_records import FLAT, TEACHER, comparison_of, curve_of, masked, results_of, run_of
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from ultralytics.utils.metrics import Metric, PoseMetrics, SegmentMetrics

from ds2d2_yolo.comparison.processes import Cluster
from ds2d2_yolo.comparison.records import Results
from ds2d2_yolo.comparison.statistics import (
    best_by,
    finishing_times,
    fitness_of,
    gap_closed,
    late_rise,
    mean_interval,
    paired_differences,
    summarise,
    warnings_of,
)
from ds2d2_yolo.evaluation import mask_and_keypoint_metrics

SHARES = st.floats(0, 1)


@given(st.lists(SHARES, min_size=2, max_size=12))
def test_intervals_are_those_of_scipys_t_test(values):
    interval = mean_interval(values)
    assert interval.count == len(values)
    assert interval.mean == pytest.approx(np.mean(values))
    if len(set(values)) == 1:
        assert (interval.low, interval.high) == (interval.mean, interval.mean)
        return
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert interval.low == pytest.approx(expected.low, abs=1e-9)
    assert interval.high == pytest.approx(expected.high, abs=1e-9)


@given(st.dictionaries(st.integers(0, 9), st.tuples(SHARES, SHARES), min_size=2))
def test_paired_differences_give_the_paired_t_test(pairs):
    values = {seed: pair[0] for seed, pair in pairs.items()}
    reference = {seed: pair[1] for seed, pair in pairs.items()}
    differences = paired_differences(values, reference)
    assert differences == [values[seed] - reference[seed] for seed in sorted(pairs)]
    if len({round(value, 9) for value in differences}) > 1:
        order = sorted(pairs)
        expected = stats.ttest_rel([values[seed] for seed in order], [reference[seed] for seed in order])
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
    # Plain is finished after 50 s: by then the others have finished three epochs of 15 s and two of 25 s
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


def test_masks_are_summarised_and_count_for_the_fitness():
    # Boxes are best in the second epoch, boxes and masks together in the third
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
    (warning,) = (text for text in warnings_of(comparison_of(), results) if "rising" in text)
    assert "brought 17% of its AP50-95 + mAP50-95(M)." in warning


def test_warnings_name_what_a_reader_must_know():
    assert warnings_of(comparison_of(), results_of()) == []
    rising = results_of(runs=[run_of("plain", seed, [0.1, 0.15, 0.2, 0.25, 0.3]) for seed in (0, 1)])
    (warning,) = warnings_of(comparison_of(), rising)
    assert warning.startswith(
        "The plain student is still rising: its last fifth of the epochs brought 17% of its AP50-95"
    )
    (warning,) = warnings_of(comparison_of(), results_of(teacher={**TEACHER, "AP50-95": 0.1}))
    assert "Pass a better one" in warning
    nothing = results_of(runs=[run_of(method, 0, [0.0, 0.004, 0.004]) for method in ("plain", "ds2d2")])
    (warning,) = warnings_of(comparison_of(), nothing)
    assert warning.startswith("No student detects anything yet: no AP50-95 reaches 1%")
    runs = [run_of("plain", 0, FLAT, continued_after=[2, 4]), run_of("plain", 1, FLAT, versions={"torch": "2.4.0"})]
    interrupted, mixed = warnings_of(comparison_of(), results_of(runs=runs))
    assert "plain, seed 0, was interrupted and went on after epoch 2, 4" in interrupted
    assert "different versions" in mixed
    (warning,) = warnings_of(comparison_of(cluster=Cluster("local")), results_of())
    assert "shared machines" in warning


def test_fitness_is_the_sum_of_ap50_95_as_equal_time_has_it():
    metric = Metric()
    metric.p = metric.r = np.array([0.3])
    metric.all_ap = np.linspace(0.9, 0.0, 10)[None]
    assert metric.fitness() == pytest.approx(metric.map) != metric.map50
    for kind, part in ((SegmentMetrics, "seg"), (PoseMetrics, "pose")):
        metrics = kind()
        metrics.box = metric
        setattr(metrics, part, metric)
        figures = {"AP50": metric.map50, "AP50-95": metric.map, **mask_and_keypoint_metrics(metrics.results_dict)}
        assert fitness_of(figures) == pytest.approx(metrics.fitness) == pytest.approx(2 * metric.map)
