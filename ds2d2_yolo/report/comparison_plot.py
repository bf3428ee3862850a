"""Draws the picture of a comparison: every run, differences to the plain student, and AP over the training time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from statistics import fmean
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from ds2d2_yolo.comparison.methods import PLAIN
from ds2d2_yolo.comparison.records import Results, value_of
from ds2d2_yolo.comparison.statistics import Summary, main_metrics, metric_title, summarise
from ds2d2_yolo.report.figures import plain_figure, png_of, tidy
from ds2d2_yolo.report.palette import METHODS

if TYPE_CHECKING:
    from matplotlib.typing import HashableList  # since 3.8

_THIN_LINES = 6  # with more methods, the curves of single runs are not drawn
_LINES = ("-", "--", ":")  # together with the colours, for 24 methods
_MARKERS = ("o", "s", "^")


def comparison_png(results: Results) -> bytes:
    """Draw AP50-95 of every run, differences to the plain student, and AP50-95 over the training time.

    The same panels for masks or keypoints are below those for boxes.

    Args:
        results (Results): All runs.

    Returns:
        (bytes): The picture, as a PNG.
    """
    summaries = summarise(results)
    names = results.methods
    compared = [summary for summary in summaries if PLAIN in summary.differences]
    main = main_metrics(results)
    heights = (1.6 + 0.34 * len(names), 4.4)
    figure = plain_figure(11, len(main) * sum(heights), dpi=120)
    places: list[HashableList[str]] = []
    for metric in main:
        places.append([f"runs {metric}", f"{'differences' if compared else 'runs'} {metric}"])
        places.append([f"curves {metric}"] * 2)
    axes = figure.subplot_mosaic(places, height_ratios=heights * len(main))
    for metric in main:
        _draw_runs(axes[f"runs {metric}"], results, names, metric)
        if compared:
            _draw_differences(axes[f"differences {metric}"], compared, names, metric)
        _draw_curves(axes[f"curves {metric}"], results, names, metric)
    return png_of(figure)


def _draw_runs(axes: Axes, results: Results, names: Sequence[str], metric: str) -> None:
    for row, name in enumerate(names):
        values = [value_of(run, metric) for run in results.runs_of(name)]
        axes.scatter(values, [row] * len(values), s=26, facecolor="none", edgecolor=_colour(row), zorder=2)
        axes.scatter(fmean(values), row, s=190, marker="|", color=_colour(row), linewidth=2.4, zorder=3)
    axes.axvline(value_of(results.teacher, metric), color="0.45", linestyle="--", linewidth=1.2)
    axes.annotate(
        "teacher",
        (value_of(results.teacher, metric), 1),
        xycoords=("data", "axes fraction"),
        xytext=(-4, -4),
        textcoords="offset points",
        ha="right",
        va="top",
        color="0.35",
        fontsize=9,
    )
    _finish_rows(axes, names, f"{metric_title(metric)} of every run, and their mean")


def _draw_differences(axes: Axes, summaries: Sequence[Summary], names: Sequence[str], metric: str) -> None:
    for summary in summaries:
        row, interval = names.index(summary.method), summary.differences[PLAIN][metric]
        if interval.low is not None and interval.high is not None:
            axes.plot([interval.low, interval.high], [row, row], color=_colour(row), linewidth=2.2)
        axes.scatter(interval.mean, row, s=42, color=_colour(row), zorder=3)
    axes.axvline(0, color="0.45", linewidth=1)
    single = all(summary.differences[PLAIN][metric].low is None for summary in summaries)
    interval_text = "one seed, no interval" if single else "95 % interval"
    _finish_rows(axes, names, f"{metric_title(metric)} minus that of plain, same seed ({interval_text})")


def _finish_rows(axes: Axes, names: Sequence[str], title: str) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_title(title, fontsize=10, loc="left")
    axes.xaxis.set_major_formatter(FuncFormatter(_percent_mark))
    axes.set_xlabel("percent" if "minus" not in title else "percentage points", fontsize=9)
    tidy(axes, "x", labels=9, lines="black")


def _draw_curves(axes: Axes, results: Results, names: Sequence[str], metric: str) -> None:
    for row, name in enumerate(names):
        runs = results.runs_of(name)
        times = [[epoch["seconds"] / 60 for epoch in run["curve"]] for run in runs]
        bests = [list(accumulate((epoch[metric] for epoch in run["curve"]), max)) for run in runs]
        for time, best in zip(times, bests, strict=True) if len(names) <= _THIN_LINES else []:
            axes.plot(time, best, color=_colour(row), linewidth=0.7, alpha=0.35)
        # Epochs that all runs have
        mean_time, mean_best = ([*map(fmean, zip(*of_runs, strict=False))] for of_runs in (times, bests))
        style = row // len(METHODS) % len(_LINES)
        axes.plot(
            mean_time,
            mean_best,
            color=_colour(row),
            linestyle=_LINES[style],
            marker=_MARKERS[row % len(_MARKERS)],
            markevery=max(1, len(mean_best) // 12),
            markersize=4.5,
            linewidth=2,
            label=name,
        )
    thin = "; thin lines: every run" if len(names) <= _THIN_LINES else ""
    axes.set_title(f"Best {metric_title(metric)} so far over the training time: mean{thin}", fontsize=10, loc="left")
    axes.set_xlabel("minutes", fontsize=9)
    axes.set_ylabel("percent", fontsize=9)
    axes.yaxis.set_major_formatter(FuncFormatter(_percent_mark))
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5))
    tidy(axes, "both", labels=9, lines="black")


def _percent_mark(value: float, position: int | None = None) -> str:
    return f"{100 * value:.4g}"


def _colour(row: int) -> str:
    return METHODS[row % len(METHODS)]
