"""Statistics of a comparison: means, intervals, paired differences, warnings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import cast

from scipy.special import stdtrit

from ds2d2_yolo.comparison.methods import BUILTIN, PLAIN, Comparison
from ds2d2_yolo.comparison.records import Epoch, Results, RunRecord, value_of
from ds2d2_yolo.evaluation import mask_and_keypoint_metrics

BOX_METRICS = ("AP50", "AP50-95")
"""Ultralytics' AP of boxes, which every task has."""

SIZE_METRICS = ("APs", "APm", "APl")
"""COCO's AP of small, medium and large boxes."""

_CONFIDENCE = 0.95  # level of all intervals
_LATE_SHARE = 0.2  # of the epochs, at the end
_NOTHING = 0.01  # AP of a student that detects nothing yet; differences of such students are 0 for any method
_LATE_RISE = 0.1  # of the best AP: a larger gain in the last epochs causes a warning


@dataclass(frozen=True)
class Interval:
    """A mean and the confidence interval of Student's t distribution around it.

    Attributes:
        mean (float): The mean; NaN of no values.
        low (float | None): Lower end; None for fewer than two values.
        high (float | None): Upper end.
        count (int): Number of values.
    """

    mean: float
    low: float | None
    high: float | None
    count: int


@dataclass(frozen=True)
class Summary:
    """Results of all runs of one method.

    Attributes:
        method (str): Its name.
        seeds (list[int]): The seeds of its runs.
        values (dict[str, Interval]): By metric, as shares of 1.
        differences (dict[str, dict[str, Interval]]): By reference method, then by metric: mean difference between
            runs with the same seed.
        gaps_closed (dict[str, float | None]): By main metric: closed share of the gap between plain student and
            teacher. None without plain runs, or if the teacher is not better.
        equal_time (dict[str, Interval]): By metric of Ultralytics: the best epoch within the training time of the
            plain student. Without plain runs, the fastest method's time counts.
        epochs (int): Epochs of the longest run.
        seconds (float): Mean time of training.
        seconds_per_epoch (float): Mean time of an epoch.
        peak_bytes (float | None): Mean peak memory of the runs.
    """

    method: str
    seeds: list[int]
    values: dict[str, Interval]
    differences: dict[str, dict[str, Interval]]
    gaps_closed: dict[str, float | None]
    equal_time: dict[str, Interval]
    epochs: int
    seconds: float
    seconds_per_epoch: float
    peak_bytes: float | None


# --------------------------------------------------------------------------------------------------- numbers


def mean_interval(values: Iterable[float]) -> Interval:
    """Return the mean with its confidence interval of 95 %. The values must be independent and roughly normal.

    Args:
        values (Iterable[float]): The values; NaN are ignored.

    Returns:
        (Interval): The interval.

    Example:
        >>> interval = mean_interval([0.31, 0.33, 0.35])
        >>> f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
        '0.330 [0.280, 0.380]'
    """
    numbers = [value for value in values if not math.isnan(value)]
    count = len(numbers)
    mean = fmean(numbers) if numbers else math.nan
    if count < 2:
        return Interval(mean, None, None, count)
    half = float(stdtrit(count - 1, (1 + _CONFIDENCE) / 2)) * stdev(numbers) / math.sqrt(count)
    return Interval(mean, mean - half, mean + half, count)


def paired_differences(values: Mapping[int, float], reference: Mapping[int, float]) -> list[float]:
    """Return the differences between runs with the same seed, so with the same data order and initialisation.

    Args:
        values (Mapping[int, float]): A method's values by seed.
        reference (Mapping[int, float]): Values of the reference method by seed.

    Returns:
        (list[float]): By seed.

    Example:
        >>> paired_differences({0: 3.0, 1: 5.0}, {1: 4.0, 2: 9.0})
        [1.0]
    """
    return [values[seed] - reference[seed] for seed in sorted(values.keys() & reference.keys())]


def gap_closed(method: float, plain: float, teacher: float) -> float | None:
    """Return the share of the gap between plain student and teacher that a method closes.

    Args:
        method (float): Mean AP of the method.
        plain (float): Mean AP of the plain students.
        teacher (float): AP of the teacher.

    Returns:
        (float | None): 0 is as good as plain, 1 as good as the teacher. None if the teacher is not better than plain.

    Example:
        >>> gap_closed(0.5, 0.25, 1.25)
        0.25
    """
    return (method - plain) / (teacher - plain) if teacher > plain else None


# ------------------------------------------------------------------------------------------ metrics and curves


def task_metrics(results: Results) -> tuple[str, ...]:
    """Return Ultralytics' metrics of the task: AP of boxes and, by its names, of masks or keypoints.

    Args:
        results (Results): All runs.

    Returns:
        (tuple[str, ...]): Metrics that records and curves have, such as `AP50-95` and `metrics/mAP50-95(M)`.

    Example:
        >>> task_metrics(Results({"AP50": 0.5, "AP50-95": 0.3, "metrics/mAP50(P)": 0.4}, {}, []))
        ('AP50', 'AP50-95', 'metrics/mAP50(P)')
    """
    record = cast(Mapping[str, float], results.teacher)  # masks and keypoints add keys
    return (*BOX_METRICS, *mask_and_keypoint_metrics(record))


def all_metrics(results: Results) -> tuple[str, ...]:
    """Return the metrics of the task, and COCO's AP by size."""
    return (*task_metrics(results), *SIZE_METRICS)


def main_metrics(results: Results) -> tuple[str, ...]:
    """Return the metrics whose sum is Ultralytics' fitness: the best checkpoint is chosen by it.

    Example:
        >>> main_metrics(Results({"metrics/mAP50(P)": 0.4, "metrics/mAP50-95(P)": 0.2}, {}, []))
        ('AP50-95', 'metrics/mAP50-95(P)')
    """
    return tuple(name for name in task_metrics(results) if _is_main(name))


def metric_title(metric: str) -> str:
    """Return the name of a metric in tables and pictures.

    Example:
        >>> metric_title("metrics/mAP50(M)")
        'mAP50(M)'
    """
    return metric.removeprefix("metrics/")


def fitness_of(figures: Mapping[str, object]) -> float:
    """Return Ultralytics' fitness: AP50-95 of boxes, plus that of masks or keypoints if the task has them.

    Args:
        figures (Mapping[str, object]): A record, or an epoch as `read_curve` returns it.

    Returns:
        (float): From 0 to 1 or 2.

    Example:
        >>> fitness_of({"epoch": 1, "AP50": 0.75, "AP50-95": 0.5, "metrics/mAP50-95(M)": 0.25})
        0.75
    """
    return sum(float(value) for name, value in figures.items() if _is_main(name) and isinstance(value, (int, float)))


def _is_main(metric: str) -> bool:
    return metric == "AP50-95" or metric.startswith("metrics/mAP50-95(")


def best_by(curve: Sequence[Epoch], seconds: float) -> Epoch | None:
    """Return the epoch with the best Ultralytics fitness among those finished in time, or None.

    Args:
        curve (Sequence[Epoch]): Epochs, as `read_curve` returns them.
        seconds (float): Time since the start of the training.

    Returns:
        (Epoch | None): The epoch.

    Example:
        >>> curve = [{"epoch": 1, "seconds": 5, "AP50-95": 0.1}, {"epoch": 2, "seconds": 9, "AP50-95": 0.2}]
        >>> best_by(curve, 7)["epoch"]
        1
    """
    return max((epoch for epoch in curve if epoch["seconds"] <= seconds), key=fitness_of, default=None)


def late_rise(curve: Sequence[Epoch]) -> float:
    """Return the share of its best fitness that a training gained in the last fifth of its epochs.

    Args:
        curve (Sequence[Epoch]): Epochs, as `read_curve` returns them.

    Returns:
        (float): 0 if the best epoch came before, 1 if the fitness before was 0.

    Example:
        >>> late_rise([{"AP50-95": value} for value in (0.1, 0.2, 0.3, 0.36, 0.4)])  # doctest: +ELLIPSIS
        0.1...
    """
    values = [fitness_of(epoch) for epoch in curve]
    early = values[: len(values) - max(1, round(_LATE_SHARE * len(values)))]
    best = max(values, default=0.0)
    return (best - max(early, default=0.0)) / best if best > 0 and best > max(early, default=0.0) else 0.0


def finishing_times(runs: Sequence[RunRecord]) -> dict[int, float]:
    """Return the training time of the plain student by seed, in seconds; without it, of the fastest method."""
    plain = {run["seed"]: run["seconds"] for run in runs if run["method"] == PLAIN}
    return {
        seed: plain.get(seed, min(run["seconds"] for run in runs if run["seed"] == seed))
        for seed in dict.fromkeys(run["seed"] for run in runs)
    }


# ------------------------------------------------------------------------------------------------ comparison


def summarise(results: Results) -> list[Summary]:
    """Return the results of every method.

    Args:
        results (Results): All runs.

    Returns:
        (list[Summary]): In the order of the methods.
    """
    values = {name: _values_by_seed(results, name) for name in results.methods}
    times = finishing_times(results.runs)
    summaries = []
    for name in results.methods:
        runs = results.runs_of(name)
        memory = [run["peak_bytes"] for run in runs if run["peak_bytes"] is not None]
        summaries.append(
            Summary(
                method=name,
                seeds=[run["seed"] for run in runs],
                values={metric: mean_interval(by_seed.values()) for metric, by_seed in values[name].items()},
                differences={
                    reference: _differences(values[name], values[reference])
                    for reference in (PLAIN, BUILTIN)
                    if reference in values and reference != name
                },
                gaps_closed=_gaps_closed(results, name),
                equal_time=_reached_by(runs, times, task_metrics(results)),
                epochs=max(len(run["curve"]) for run in runs),
                seconds=fmean(run["seconds"] for run in runs),
                seconds_per_epoch=fmean(run["seconds_per_epoch"] for run in runs),
                peak_bytes=fmean(memory) if memory else None,
            )
        )
    return summaries


def _values_by_seed(results: Results, method: str) -> dict[str, dict[int, float]]:
    """Return the values of a method's runs by metric, then by seed."""
    runs = results.runs_of(method)
    return {metric: {run["seed"]: value_of(run, metric) for run in runs} for metric in all_metrics(results)}


def _differences(
    values: Mapping[str, Mapping[int, float]], reference: Mapping[str, Mapping[int, float]]
) -> dict[str, Interval]:
    """Return the mean difference to a reference by metric."""
    return {metric: mean_interval(paired_differences(values[metric], reference[metric])) for metric in values}


def _gaps_closed(results: Results, method: str) -> dict[str, float | None]:
    """Return the share of the gap that a method closes, by main metric."""
    plain = results.runs_of(PLAIN)
    if not plain or method == PLAIN:
        return dict.fromkeys(main_metrics(results))

    gaps: dict[str, float | None] = {}
    for metric in main_metrics(results):
        mean, plain_mean = (fmean(value_of(run, metric) for run in runs) for runs in (results.runs_of(method), plain))
        gaps[metric] = gap_closed(mean, plain_mean, value_of(results.teacher, metric))
    return gaps


def _reached_by(runs: Sequence[RunRecord], times: Mapping[int, float], metrics: Sequence[str]) -> dict[str, Interval]:
    """Return the mean over the runs' best epochs within the time of their seed, by metric."""
    reached = [best_by(run["curve"], times[run["seed"]]) for run in runs]
    return {
        metric: mean_interval(math.nan if epoch is None else epoch[metric] for epoch in reached) for metric in metrics
    }


def warnings_of(comparison: Comparison, results: Results) -> list[str]:
    """Return what a reader of the results must know, in a few sentences each.

    Args:
        comparison (Comparison): What was compared.
        results (Results): All runs.

    Returns:
        (list[str]): The warnings.
    """
    warnings = []
    if len(comparison.seeds) == 1:
        warnings.append("One seed gives no interval, and any difference may be chance. Pass seeds=0,1,2,3,4.")
    if max(map(fitness_of, results.runs)) < _NOTHING:
        warnings.append(
            f"No student detects anything yet: no {' + '.join(map(metric_title, main_metrics(results)))} reaches "
            f"{_NOTHING:.0%}. An interval with 0 means nothing here. Compare again with more epochs=."
        )
    warnings += _warnings_of_plain(results)
    for run in results.runs:
        if after := run["continued_after"]:
            epochs = ", ".join(map(str, after))
            warnings.append(
                f"{run['method']}, seed {run['seed']}, was interrupted and went on after epoch {epochs}. Since then "
                "its images are in another order than those of the other methods."
            )
    if len({tuple(sorted(run["versions"].items())) for run in results.runs}) > 1:
        warnings.append(
            "The runs were made by different versions of ds2d2-yolo, Ultralytics or torch. Compare again in a new "
            "folder, with name=."
        )
    if comparison.cluster is not None:
        warnings.append("Runs shared machines, so their times are too long. Leave ray= out to measure time.")
    return warnings


def _warnings_of_plain(results: Results) -> list[str]:
    """Return warnings about the schedule and the teacher, from the plain student's runs."""
    plain, warnings = results.runs_of(PLAIN), []
    if plain and (rise := fmean(late_rise(run["curve"]) for run in plain)) > _LATE_RISE:
        warnings.append(
            f"The plain student is still rising: its last fifth of the epochs brought {rise:.0%} of its "
            f"{' + '.join(map(metric_title, main_metrics(results)))}. A "
            "longer schedule alone may gain as much as distillation. Compare again with more epochs=."
        )
    if plain and fitness_of(results.teacher) <= fmean(map(fitness_of, plain)):
        warnings.append(
            "The teacher is no better than the plain student. Pass a better one, or train it with more teacher_epochs=."
        )
    return warnings
