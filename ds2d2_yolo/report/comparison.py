"""`ds2d2 compare`: what the runs of a comparison say, as a table, files and a picture."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from scipy.special import stdtrit

from ds2d2_yolo.engine.comparison import BUILTIN, PLAIN, WORKER, Comparison, Results, plan_comparison, run_comparison
from ds2d2_yolo.engine.evaluation import figures_beside_boxes
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.report.text import percent

BOX_METRICS = ("AP50", "AP50-95")
"""Ultralytics' AP of boxes, which every task has."""

_SIZE_METRICS = ("APs", "APm", "APl")  # COCO's, of boxes
_LATE_SHARE = 0.2  # of the epochs, at the end
_LATE_RISE = 0.1  # of the AP: what the last epochs may have brought before a warning is due
_MIB = 2**20
_THIN_LINES = 6  # methods up to which the curve of every run is drawn

# Okabe and Ito's colours, which people with any colour vision tell apart; with the line styles, 24 methods differ
METHOD_COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
"""Colours of the methods, in their order."""
_LINES = ("-", "--", ":")
_MARKERS = ("o", "s", "^")


def run_compare(given: Mapping[str, Any], worker: Sequence[str] = WORKER) -> int:
    """Compare methods of training a student: the mode `ds2d2 compare`.

    The comparison's folder gets `comparison.md`, `comparison.png`, `summary.csv` (a line per method) and
    `comparison.csv` (a line per run); the table is printed, too.

    Args:
        given (Mapping[str, Any]): `teacher`, `student`, `data`, the options of `cfg/compare.yaml`, and train arguments
            of ds2d2 and Ultralytics.
        worker (Sequence[str]): Arguments of Python that start the process of a run, see `run_comparison`.

    Returns:
        (int): Exit code 0.

    Raises:
        DS2D2Error: If the comparison cannot be run, or a run fails.

    Example:
        >>> run_compare({"teacher": "yolo11s.yaml", "student": "yolo11n.yaml", "data": "scenes.yaml"})  # doctest: +SKIP
        0
    """
    comparison = plan_comparison(given)
    results = run_comparison(comparison, worker)
    lines = report_lines(comparison, results)
    print("\n".join(["", *lines]))
    save_report(comparison, results)
    print(f"saved in {comparison.folder}: comparison.md, comparison.png, summary.csv, comparison.csv")
    print(f"'ds2d2 report {comparison.folder}' makes a page of it, with the images that changed most")
    return 0


# --------------------------------------------------------------------------------------------------- statistics


@dataclass(frozen=True)
class Interval:
    """A mean and the confidence interval of Student's t distribution around it.

    Attributes:
        mean (float): The mean; NaN of no values.
        low (float | None): Lower end; None where fewer than two values have no spread to tell it from.
        high (float | None): Upper end.
        count (int): Number of values.
    """

    mean: float
    low: float | None
    high: float | None
    count: int


@dataclass(frozen=True)
class Summary:
    """What all runs of one method came to.

    Attributes:
        method (str): Its name.
        seeds (list[int]): Its runs.
        values (dict[str, Interval]): By metric, as shares of 1.
        differences (dict[str, dict[str, Interval]]): By reference method, then by metric: mean of the differences to
            the run of the reference with the same seed.
        gaps_closed (dict[str, float | None]): By metric, AP50-95 of boxes and what else the task finds: share of the
            distance from the plain student to the teacher; None without plain runs, or where the teacher is not better.
        equal_time (dict[str, Interval]): By metric of Ultralytics: that of the best epoch that was done when the
            plain student was, or without it the fastest method.
        epochs (int): Epochs of the longest run.
        seconds (float): Mean time of training.
        seconds_per_epoch (float): Mean time of an epoch.
        peak_bytes (float | None): Mean of the most memory that the runs held.
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


def mean_interval(values: Iterable[float], confidence: float = 0.95) -> Interval:
    """Return the mean of values with its confidence interval, for values that are independent and about normal.

    Args:
        values (Iterable[float]): The values; NaN are left out.
        confidence (float): How often such intervals hold the true mean.

    Returns:
        (Interval): The interval.

    Example:
        >>> interval = mean_interval([0.31, 0.33, 0.35])
        >>> f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
        '0.330 [0.280, 0.380]'
    """
    known = [value for value in values if not math.isnan(value)]
    count = len(known)
    mean = fmean(known) if known else math.nan
    if count < 2:
        return Interval(mean, None, None, count)
    half = float(stdtrit(count - 1, (1 + confidence) / 2)) * stdev(known) / math.sqrt(count)
    return Interval(mean, mean - half, mean + half, count)


def paired_differences(values: Mapping[int, float], reference: Mapping[int, float]) -> list[float]:
    """Return the differences between runs that have the seed, so data order and initialisation, in common.

    Args:
        values (Mapping[int, float]): A method's values by seed.
        reference (Mapping[int, float]): Those of the method that it is compared with.

    Returns:
        (list[float]): By seed.

    Example:
        >>> paired_differences({0: 3.0, 1: 5.0}, {1: 4.0, 2: 9.0})
        [1.0]
    """
    return [values[seed] - reference[seed] for seed in sorted(values.keys() & reference.keys())]


def gap_closed(method: float, plain: float, teacher: float) -> float | None:
    """Return which share of the distance from the plain student to the teacher a method covers.

    Args:
        method (float): Mean AP of the method.
        plain (float): Mean AP of the plain students.
        teacher (float): AP of the teacher.

    Returns:
        (float | None): 0 as good as plain, 1 as good as the teacher; None where the teacher is not better than plain.

    Example:
        >>> gap_closed(0.3, 0.2, 0.6)
        0.25
    """
    return (method - plain) / (teacher - plain) if teacher > plain else None


def metrics_of(results: Results) -> tuple[str, ...]:
    """Return what Ultralytics measures of the task: AP50 and AP50-95 of boxes, and of masks or keypoints by its names.

    Args:
        results (Results): All runs.

    Returns:
        (tuple[str, ...]): Metrics that records and curves have, such as `AP50-95` and `metrics/mAP50-95(M)`.

    Example:
        >>> metrics_of(Results({"AP50": 0.5, "AP50-95": 0.3, "metrics/mAP50(P)": 0.4}, {}, []))
        ('AP50', 'AP50-95', 'metrics/mAP50(P)')
    """
    return (*BOX_METRICS, *figures_beside_boxes(results.teacher))


def main_metrics(results: Results) -> tuple[str, ...]:
    """Return those metrics whose sum is Ultralytics' fitness, by which it keeps the best checkpoint.

    Example:
        >>> main_metrics(Results({"metrics/mAP50(P)": 0.4, "metrics/mAP50-95(P)": 0.2}, {}, []))
        ('AP50-95', 'metrics/mAP50-95(P)')
    """
    return tuple(name for name in metrics_of(results) if _is_main(name))


def fitness_of(figures: Mapping[str, Any]) -> float:
    """Return Ultralytics' fitness: AP50-95 of boxes, plus that of masks or keypoints where there are such.

    Args:
        figures (Mapping[str, Any]): A record, or an epoch as `read_curve` returns it.

    Returns:
        (float): From 0 to 1 or 2.

    Example:
        >>> fitness_of({"epoch": 1, "AP50": 0.75, "AP50-95": 0.5, "metrics/mAP50-95(M)": 0.25})
        0.75
    """
    return sum(float(value) for name, value in figures.items() if _is_main(name))


def _is_main(metric: str) -> bool:
    return metric == "AP50-95" or metric.startswith("metrics/mAP50-95(")


def best_by(curve: Sequence[Mapping[str, float]], seconds: float) -> Mapping[str, float] | None:
    """Return the best epoch, by Ultralytics' fitness, that a training had done by then, or None.

    Args:
        curve (Sequence[Mapping[str, float]]): Epochs, as `read_curve` returns them.
        seconds (float): Time since the start of the training.

    Returns:
        (Mapping[str, float] | None): The epoch.

    Example:
        >>> curve = [{"epoch": 1, "seconds": 5, "AP50-95": 0.1}, {"epoch": 2, "seconds": 9, "AP50-95": 0.2}]
        >>> best_by(curve, 7)["epoch"]
        1
    """
    return max((epoch for epoch in curve if epoch["seconds"] <= seconds), key=fitness_of, default=None)


def late_rise(curve: Sequence[Mapping[str, float]]) -> float:
    """Return which share of its best fitness a training gained in the last fifth of its epochs.

    Args:
        curve (Sequence[Mapping[str, float]]): Epochs, as `read_curve` returns them.

    Returns:
        (float): From 0, the best epoch came before, to 1, there was nothing before.

    Example:
        >>> late_rise([{"AP50-95": value} for value in (0.1, 0.2, 0.3, 0.36, 0.4)])  # doctest: +ELLIPSIS
        0.1...
    """
    values = [fitness_of(epoch) for epoch in curve]
    early = values[: len(values) - max(1, round(_LATE_SHARE * len(values)))]
    best = max(values, default=0.0)
    return (best - max(early, default=0.0)) / best if best > 0 and best > max(early, default=0.0) else 0.0


def finishing_times(runs: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """Return the seconds after which the plain student was done, or else the fastest method, by seed."""
    plain = {run["seed"]: run["seconds"] for run in runs if run["method"] == PLAIN}
    return {
        seed: plain.get(seed, min(run["seconds"] for run in runs if run["seed"] == seed))
        for seed in dict.fromkeys(run["seed"] for run in runs)
    }


def summarise(results: Results) -> list[Summary]:
    """Return what the runs of every method came to.

    Args:
        results (Results): All runs.

    Returns:
        (list[Summary]): In the order of the methods.
    """
    names = list(dict.fromkeys(run["method"] for run in results.runs))
    metrics = (*metrics_of(results), *_SIZE_METRICS)
    values = {
        name: {metric: {run["seed"]: _metric(run, metric) for run in _of(results, name)} for metric in metrics}
        for name in names
    }
    times = finishing_times(results.runs)
    summaries = []
    for name in names:
        runs = _of(results, name)
        reached = [best_by(run["curve"], times[run["seed"]]) for run in runs]
        memory = [run["peak_bytes"] for run in runs if run["peak_bytes"] is not None]
        means = {metric: mean_interval(values[name][metric].values()) for metric in metrics}
        gaps: dict[str, float | None] = dict.fromkeys(main_metrics(results))
        for metric in gaps if PLAIN in names and name != PLAIN else ():
            plain = fmean(values[PLAIN][metric].values())
            gaps[metric] = gap_closed(means[metric].mean, plain, results.teacher[metric])
        summaries.append(
            Summary(
                method=name,
                seeds=[run["seed"] for run in runs],
                values=means,
                differences={
                    reference: {
                        metric: mean_interval(paired_differences(values[name][metric], values[reference][metric]))
                        for metric in metrics
                    }
                    for reference in (PLAIN, BUILTIN)
                    if reference in names and reference != name
                },
                gaps_closed=gaps,
                equal_time={
                    metric: mean_interval(math.nan if epoch is None else epoch[metric] for epoch in reached)
                    for metric in metrics_of(results)
                },
                epochs=max(len(run["curve"]) for run in runs),
                seconds=fmean(run["seconds"] for run in runs),
                seconds_per_epoch=fmean(run["seconds_per_epoch"] for run in runs),
                peak_bytes=fmean(memory) if memory else None,
            )
        )
    return summaries


def warnings_of(comparison: Comparison, results: Results) -> list[str]:
    """Return what a reader of the numbers must know, one sentence or two each.

    Args:
        comparison (Comparison): What was compared.
        results (Results): All runs.

    Returns:
        (list[str]): The warnings.
    """
    found = []
    if len(comparison.seeds) == 1:
        found.append("One seed: there is no interval, and no telling a difference from chance. Pass seeds=0,1,2,3,4.")
    plain = _of(results, PLAIN)
    if plain and (rise := fmean(late_rise(run["curve"]) for run in plain)) > _LATE_RISE:
        found.append(
            f"The plain student is still rising: its last fifth of the epochs brought {rise:.0%} of its "
            f"{' + '.join(map(_title, main_metrics(results)))}. What "
            "distillation gains may be what a longer schedule gains without it; compare with more epochs."
        )
    if plain and fitness_of(results.teacher) <= fmean(map(fitness_of, plain)):
        found.append("The teacher is no better than the plain student: there is no gap to close.")
    for run in results.runs:
        if after := run["continued_after"]:
            epochs = ", ".join(map(str, after))
            found.append(
                f"{run['method']}, seed {run['seed']}, was interrupted and went on after epoch {epochs}: from there on "
                "its data come in another order than those of the other methods."
            )
    if len({tuple(sorted(run["versions"].items())) for run in results.runs}) > 1:
        found.append("The runs were made by different versions of ds2d2-yolo, Ultralytics or torch, see their records.")
    if comparison.cluster is not None:
        found.append("Runs shared machines: their times are those of a machine that is busy with other runs, too.")
    return found


def _of(results: Results, name: str) -> list[dict[str, Any]]:
    return [run for run in results.runs if run["method"] == name]


def _metric(record: Mapping[str, Any], metric: str) -> float:
    """Return a metric of a record; COCO's are NaN where there is no object of the size."""
    value = record[metric] if metric in record else record["coco"][metric]
    return math.nan if value is None else float(value)


def _title(metric: str) -> str:
    """Return what a metric is called in tables and pictures."""
    return metric.removeprefix("metrics/")


# -------------------------------------------------------------------------------------------------------- tables


def report_lines(comparison: Comparison, results: Results) -> list[str]:
    """Return the tables that `ds2d2 compare` prints, and its warnings.

    Args:
        comparison (Comparison): What was compared.
        results (Results): All runs.

    Returns:
        (list[str]): Lines.
    """
    lines = []
    for title, table in tables_of(comparison, results).items():
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines.append(title)
        for row in table:
            first, *rest = (
                cell.ljust(width) if index == 0 else cell.rjust(width)
                for index, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            lines.append("  ".join([f"  {first}", *rest]).rstrip())
        lines.append("")
    lines += [stages_line(results), *(f"WARNING: {warning}" for warning in warnings_of(comparison, results))]
    return lines


def markdown_lines(comparison: Comparison, results: Results) -> list[str]:
    """Return `comparison.md`: what was compared, tables, warnings, how to read them; arguments as `report_lines`."""
    arguments = {key: value for key, value in comparison.arguments.items() if value is not None}
    names = ("teacher", "model", "data")
    settings = ", ".join(f"`{key}={value}`" for key, value in sorted(arguments.items()) if key not in names)
    versions = sorted({", ".join(f"{k} {v}" for k, v in run["versions"].items()) for run in results.runs})
    lines = [
        "# Comparison",
        "",
        *(f"- {'student' if name == 'model' else name}: `{arguments[name]}`" for name in names),
        f"- {settings}",
        f"- seeds {', '.join(map(str, comparison.seeds))}; {'; '.join(versions)}",
        "",
    ]
    for method in comparison.methods:
        settings = ", ".join(f"`{key}={value}`" for key, value in method.arguments.items())
        who = {"none": "no distillation", "ultralytics": "Ultralytics' own distillation", "ds2d2": "DS2D2"}
        lines.append(f"- **{method.name}**: {who[method.distil]}{', ' if settings else ''}{settings}")
    lines.append("")
    for title, (header, *rows) in tables_of(comparison, results).items():
        lines += [f"## {title}", "", f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        lines.append("")
    lines += [stages_line(results), "", *(f"**Warning:** {text}\n" for text in warnings_of(comparison, results))]
    lines += [
        "![AP of every run, differences to plain, AP over time](comparison.png)",
        "",
        "AP50 and AP50-95 are Ultralytics', of the checkpoint that it keeps as best; APs, APm and APl are COCO's. All "
        "of them are of boxes; mAP50(M), mAP50-95(M) are Ultralytics' of masks, (P) of keypoints. "
        "Differences are means of those between runs of one seed, with the 95 % interval of Student's t: an interval "
        "that holds 0 is no finding. Gap closed: the share of the way from the plain student's mean to the teacher. "
        "At equal time: the best epoch so far when the plain student, or without it the fastest method, was done, by "
        "seed. Peak memory is that of the training process, on a GPU what PyTorch allocated there.",
    ]
    return lines


def save_report(comparison: Comparison, results: Results) -> None:
    """Write `comparison.md`, `comparison.png`, `summary.csv` and `comparison.csv` into the comparison's folder.

    Args:
        comparison (Comparison): What was compared.
        results (Results): All runs.

    Raises:
        DS2D2Error: If nothing can be written there.
    """
    folder = comparison.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        contents = {
            "comparison.csv": _csv(_run_rows(results)),
            "summary.csv": _csv(_summary_rows(results)),
            "comparison.md": "\n".join(markdown_lines(comparison, results)) + "\n",
        }
        for name, content in contents.items():
            (folder / name).write_text(content, encoding="utf-8")
        draw_comparison(results, folder / "comparison.png")
    except OSError as error:
        raise DS2D2Error(f"{folder}: cannot save the results, {error.strerror or error}") from error


def tables_of(comparison: Comparison, results: Results) -> dict[str, list[list[str]]]:
    """Return the tables for people by title, the first row of each its header; arguments as `report_lines`."""
    summaries = summarise(results)
    references = [name for name in (PLAIN, BUILTIN) if any(name in summary.differences for summary in summaries)]
    teacher = results.teacher
    measured, main = metrics_of(results), main_metrics(results)
    metrics = (*measured, *_SIZE_METRICS)
    accuracy = [["", *map(_title, metrics)]]
    accuracy.append(["teacher", *(percent(_metric(teacher, metric)) for metric in metrics)])
    accuracy += [[s.method, *(percent(s.values[metric].mean) for metric in metrics)] for s in summaries]
    tables = {f"Accuracy in percent, mean of {_count(len(comparison.seeds), 'seed')}": accuracy}
    if references:
        what = [(metric, reference) for reference in references for metric in measured]
        rows = [["", *(f"{_title(metric)} - {reference}" for metric, reference in what), *map(_gap_title, main)]]
        for summary in summaries:
            cells = [points_interval(summary.differences.get(reference, {}).get(metric)) for metric, reference in what]
            gaps = ["" if gap is None else f"{gap:.0%}" for gap in summary.gaps_closed.values()]
            if any(cells):
                rows.append([summary.method, *cells, *gaps])
        interval = " and 95 % interval" if len(comparison.seeds) > 1 else ""
        tables[f"Differences in percentage points, mean{interval}"] = rows
    at_equal_time = (f"{_title(metric)} at equal time" for metric in measured)
    cost = [["", "epochs", "minutes", "s per epoch", "peak MiB", *at_equal_time]]
    for summary in summaries:
        peak = "" if summary.peak_bytes is None else f"{summary.peak_bytes / _MIB:,.0f}"
        reached = [percent(summary.equal_time[metric].mean) for metric in measured]
        times = (f"{summary.seconds / 60:.1f}", f"{summary.seconds_per_epoch:.1f}")
        cost.append([summary.method, str(summary.epochs), *times, peak, *reached])
    first = PLAIN if any(summary.method == PLAIN for summary in summaries) else "the fastest method"
    tables[f"Cost of training the student, and what is reached when {first} is done"] = cost
    return tables


def stages_line(results: Results) -> str:
    """Return how long teacher and amplifiers were trained, as a sentence."""
    parts = [
        f"{name} {'unknown' if seconds is None else f'{seconds / 60:.1f} minutes'}"
        for name, seconds in results.stages.items()
    ]
    return f"Training before that, once for all runs: {', '.join(parts)}."


def points_interval(interval: Interval | None) -> str:
    """Return a difference in percentage points with its interval, where there is one; empty where nothing is known."""
    if interval is None or math.isnan(interval.mean):
        return ""
    mean = f"{100 * interval.mean:+.1f}"
    if interval.low is None or interval.high is None:
        return mean
    return f"{mean} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"


def _gap_title(metric: str) -> str:
    return "gap closed" if metric in BOX_METRICS else f"gap closed, {_title(metric)}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _run_rows(results: Results) -> list[dict[str, Any]]:
    times = finishing_times(results.runs)
    measured = metrics_of(results)
    rows = []
    for run in results.runs:
        reached: Mapping[str, float] = best_by(run["curve"], times[run["seed"]]) or {}
        peak = run["peak_bytes"]
        rows.append(
            {
                **{"method": run["method"], "seed": run["seed"]},
                **{metric: _metric(run, metric) for metric in (*measured, *_SIZE_METRICS)},
                **{f"{metric} at equal time": reached.get(metric) for metric in measured},
                **{"epochs": len(run["curve"]), "seconds": run["seconds"], "s per epoch": run["seconds_per_epoch"]},
                **{"peak MiB": None if peak is None else peak / _MIB, "weights": run["weights"]},
                "continued after": " ".join(map(str, run["continued_after"])),
                **{f"AP {name}": scores["AP"] for name, scores in run["classes"].items()},
            }
        )
    return rows


def _summary_rows(results: Results) -> list[dict[str, Any]]:
    measured = metrics_of(results)
    metrics = (*measured, *_SIZE_METRICS)
    rows: list[dict[str, Any]] = [
        {"method": "teacher", **{metric: _metric(results.teacher, metric) for metric in metrics}}
    ]
    for summary in summarise(results):
        row: dict[str, Any] = {"method": summary.method, "seeds": len(summary.seeds)}
        row |= {metric: summary.values[metric].mean for metric in metrics}
        for reference in (PLAIN, BUILTIN):
            for metric in metrics:
                interval = summary.differences.get(reference, {}).get(metric)
                name = f"{metric} - {reference}"
                row[name] = interval and interval.mean
                row[f"{name}, low"], row[f"{name}, high"] = (interval.low, interval.high) if interval else (None, None)
        row |= {_gap_title(metric): gap for metric, gap in summary.gaps_closed.items()}
        row |= {f"{metric} at equal time": summary.equal_time[metric].mean for metric in measured}
        row |= {"epochs": summary.epochs, "seconds": summary.seconds, "s per epoch": summary.seconds_per_epoch}
        row["peak MiB"] = None if summary.peak_bytes is None else summary.peak_bytes / _MIB
        rows.append(row)
    for name, seconds in results.stages.items():
        if name == "teacher":
            rows[0]["seconds"] = seconds
        else:
            rows.append({"method": name, "seconds": seconds})
    return rows


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV; what is unknown is empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = io.StringIO()
    writer = csv.DictWriter(table, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        unknown = {name for name, value in row.items() if isinstance(value, float) and math.isnan(value)}
        writer.writerow({name: "" if name in unknown else value for name, value in row.items()})
    return table.getvalue()


# ------------------------------------------------------------------------------------------------------- picture


def draw_comparison(results: Results, path: Path) -> Path:
    """Draw AP50-95 of every run, differences to the plain student, and AP50-95 over the time of training.

    Masks and keypoints have the same below what is said of boxes.

    Args:
        results (Results): All runs.
        path (Path): Picture to write.

    Returns:
        (Path): `path`.
    """
    path.write_bytes(comparison_png(results))
    return path


def comparison_png(results: Results) -> bytes:
    """Return the same picture, as a PNG."""
    summaries = summarise(results)
    names = [summary.method for summary in summaries]
    compared = [summary for summary in summaries if PLAIN in summary.differences]
    main = main_metrics(results)
    heights = (1.6 + 0.34 * len(names), 4.4)
    figure = Figure(figsize=(11, len(main) * sum(heights)), dpi=120, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    places: list[list[Any]] = []
    for metric in main:
        places.append([f"runs {metric}", f"{'differences' if compared else 'runs'} {metric}"])
        places.append([f"curves {metric}"] * 2)
    axes = figure.subplot_mosaic(places, height_ratios=heights * len(main))
    for metric in main:
        _draw_runs(axes[f"runs {metric}"], results, names, metric)
        if compared:
            _draw_differences(axes[f"differences {metric}"], compared, names, metric)
        _draw_curves(axes[f"curves {metric}"], results, names, metric)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw_runs(axes: Axes, results: Results, names: Sequence[str], metric: str) -> None:
    for row, name in enumerate(names):
        values = [run[metric] for run in _of(results, name)]
        axes.scatter(values, [row] * len(values), s=26, facecolor="none", edgecolor=_colour(row), zorder=2)
        axes.scatter(fmean(values), row, s=190, marker="|", color=_colour(row), linewidth=2.4, zorder=3)
    axes.axvline(results.teacher[metric], color="0.45", linestyle="--", linewidth=1.2)
    axes.annotate(
        "teacher",
        (results.teacher[metric], 1),
        xycoords=("data", "axes fraction"),
        xytext=(-4, -4),
        textcoords="offset points",
        ha="right",
        va="top",
        color="0.35",
        fontsize=9,
    )
    _finish_rows(axes, names, f"{_title(metric)} of every run, and their mean")


def _draw_differences(axes: Axes, summaries: Sequence[Summary], names: Sequence[str], metric: str) -> None:
    for summary in summaries:
        row, interval = names.index(summary.method), summary.differences[PLAIN][metric]
        if interval.low is not None and interval.high is not None:
            axes.plot([interval.low, interval.high], [row, row], color=_colour(row), linewidth=2.2)
        axes.scatter(interval.mean, row, s=42, color=_colour(row), zorder=3)
    axes.axvline(0, color="0.45", linewidth=1)
    single = all(summary.differences[PLAIN][metric].low is None for summary in summaries)
    interval_text = "one seed, no interval" if single else "95 % interval"
    _finish_rows(axes, names, f"{_title(metric)} minus that of plain, same seed ({interval_text})")


def _finish_rows(axes: Axes, names: Sequence[str], title: str) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_title(title, fontsize=10, loc="left")
    axes.xaxis.set_major_formatter(FuncFormatter(_percent_mark))
    axes.set_xlabel("percent" if "minus" not in title else "percentage points", fontsize=9)
    _plain_look(axes, "x")


def _draw_curves(axes: Axes, results: Results, names: Sequence[str], metric: str) -> None:
    for row, name in enumerate(names):
        runs = _of(results, name)
        for run in runs if len(names) <= _THIN_LINES else []:
            best = _running_best(run["curve"], metric)
            axes.plot(
                [epoch["seconds"] / 60 for epoch in run["curve"]], best, color=_colour(row), linewidth=0.7, alpha=0.35
            )
        length = min(len(run["curve"]) for run in runs)
        mean_time = [fmean(run["curve"][index]["seconds"] / 60 for run in runs) for index in range(length)]
        mean_best = [fmean(_running_best(run["curve"], metric)[index] for run in runs) for index in range(length)]
        style = row // len(METHOD_COLOURS) % len(_LINES)
        axes.plot(
            mean_time,
            mean_best,
            color=_colour(row),
            linestyle=_LINES[style],
            marker=_MARKERS[row % len(_MARKERS)],
            markevery=max(1, length // 12),
            markersize=4.5,
            linewidth=2,
            label=name,
        )
    thin = ", and thin every run" if len(names) <= _THIN_LINES else ""
    axes.set_title(f"Best {_title(metric)} so far over the time of training: mean{thin}", fontsize=10, loc="left")
    axes.set_xlabel("minutes", fontsize=9)
    axes.set_ylabel("percent", fontsize=9)
    axes.yaxis.set_major_formatter(FuncFormatter(_percent_mark))
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5))
    _plain_look(axes, "both")


def _plain_look(axes: Axes, grid: Any) -> None:
    axes.grid(axis=grid, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def _running_best(curve: Sequence[Mapping[str, float]], metric: str) -> list[float]:
    best, values = 0.0, []
    for epoch in curve:
        best = max(best, epoch[metric])
        values.append(best)
    return values


def _percent_mark(value: float, position: int | None = None) -> str:
    return f"{100 * value:.4g}"


def _colour(row: int) -> str:
    return METHOD_COLOURS[row % len(METHOD_COLOURS)]
