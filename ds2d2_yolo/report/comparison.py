"""Tables and pictures of a comparison."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ds2d2_yolo.comparison.plan import BUILTIN, PLAIN, Comparison
from ds2d2_yolo.comparison.records import Results
from ds2d2_yolo.comparison.statistics import (
    _SIZE_METRICS,
    BOX_METRICS,
    Interval,
    Summary,
    _metric,
    _of,
    _title,
    best_by,
    finishing_times,
    main_metrics,
    metrics_of,
    summarise,
    warnings_of,
)
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.report.text import percent
from ds2d2_yolo.tables import text_table

_MIB = 2**20
_THIN_LINES = 6  # methods up to which the curve of every run is drawn

# Okabe and Ito's colours, which people with any colour vision tell apart; with the line styles, 24 methods differ
METHOD_COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
"""Colours of the methods, in their order."""
_LINES = ("-", "--", ":")
_MARKERS = ("o", "s", "^")


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
        lines += [title, *text_table(table, indent="  "), ""]
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
