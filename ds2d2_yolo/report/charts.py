"""Charts of several pages: curves with labels at their ends, and changes as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from ds2d2_yolo.report.figures import Canvas, tidy
from ds2d2_yolo.report.palette import BETTER, INK, SERIES, WORSE


def draw_curves(
    groups: Mapping[str, Mapping[str, Sequence[float]]],
    steps: Sequence[float],
    logarithmic: Sequence[str] = (),
    colours: Sequence[str] = SERIES,
) -> Canvas:
    """Draw curves, one panel per group and two per row, with labels at their ends instead of a legend.

    Args:
        groups (Mapping): Values by name of the curve, by title of the panel; NaN leaves a gap.
        steps (Sequence[float]): Epochs of the values.
        logarithmic (Sequence[str]): Titles of panels with a logarithmic axis.
        colours (Sequence[str]): Colours of the curves, in order. They repeat if there are more curves.

    Returns:
        (Canvas): The picture.
    """
    columns = min(2, len(groups))
    rows = -(-len(groups) // columns)
    width, height = 4.9, 2.9
    canvas = Canvas(columns * width + 0.1, rows * height + 0.1)
    for index, (title, curves) in enumerate(groups.items()):
        axes = canvas.axes(
            0.65 + index % columns * width, 0.38 + index // columns * height, width - 1.95, height - 0.95
        )
        ends = {}
        for colour, (name, values) in zip(cycle(colours), curves.items(), strict=False):
            points = np.array(values, float)
            axes.plot(steps, points, color=colour, linewidth=1.7, marker="o" if len(steps) < 3 else None, markersize=4)
            finite = points[np.isfinite(points)]
            if len(finite):
                ends[name] = (finite[-1], colour)
        everything = np.concatenate([np.array(values, float) for values in curves.values()])
        if title in logarithmic and (everything[np.isfinite(everything)] > 0).all():
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5), numticks=12))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        elif np.isfinite(everything).any():
            axes.set_ylim(bottom=min(0.0, float(np.nanmin(everything))))
        _label_ends(axes, ends)
        axes.set_title(title, fontsize=10, color=INK, loc="left")
        axes.set_xlabel("epoch", fontsize=8, color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))  # also of a single epoch
        tidy(axes, "y")
    return canvas


def draw_changes(
    changes: Mapping[str, float],
    notes: Mapping[str, str] | None = None,
    intervals: Mapping[str, tuple[float, float]] | None = None,
) -> Canvas:
    """Draw changes of AP as sorted bars, the largest gain on top.

    Args:
        changes (Mapping[str, float]): Change in percentage points by name; NaN is left out.
        notes (Mapping[str, str] | None): Text after each name, such as the number of objects.
        intervals (Mapping[str, tuple[float, float]] | None): Lower and upper ends of intervals, drawn as lines.

    Returns:
        (Canvas): The picture.
    """
    order = sorted((name for name in changes if np.isfinite(changes[name])), key=lambda name: -changes[name])
    height = 0.26 * max(len(order), 1)
    canvas = Canvas(8.2, 0.78 + height)
    axes = canvas.axes(2.6, 0.2, 4.9, height)
    values = [changes[name] for name in order]
    ends = [(intervals or {}).get(name, (changes[name], changes[name])) for name in order]
    reach = float(np.abs(ends).max(initial=0.0)) or 1.0
    axes.barh(range(len(order)), values, height=0.7, color=[BETTER if value >= 0 else WORSE for value in values])
    axes.axvline(0, color=INK, linewidth=0.8)
    for row, (value, interval) in enumerate(zip(values, ends, strict=True)):
        _annotate_bar(axes, row, value, interval, 0.02 * reach)
    axes.set_yticks(range(len(order)), [_bar_name(name, (notes or {}).get(name)) for name in order])
    axes.set_ylim(len(order) - 0.4, -0.6)
    low, high = np.min(ends, initial=0.0), np.max(ends, initial=0.0)
    axes.set_xlim(low - reach * (0.25 if low < 0 else 0.05), high + reach * (0.25 if high > 0 else 0.05))
    axes.set_xlabel("change of AP, percentage points", fontsize=8, color=INK)
    tidy(axes, "x")
    return canvas


def _bar_name(name: str, note: str | None) -> str:
    name = name if note is None else f"{name} ({note})"
    return name if len(name) < 34 else f"{name[:31]}..."


def _annotate_bar(axes: Axes, row: int, value: float, interval: tuple[float, float], gap: float) -> None:
    """Draw the interval of a bar, and write its value beside both."""
    lower, upper = interval
    if lower < upper:
        axes.plot([lower, upper], [row, row], color=INK, linewidth=1.1, marker="|", markersize=5)
    place, side = (max(value, upper) + gap, "left") if value >= 0 else (min(value, lower) - gap, "right")
    axes.text(place, row, f"{round(value, 1) + 0.0:+.1f}", va="center", ha=side, fontsize=8)


def _label_ends(axes: Axes, ends: Mapping[str, tuple[float, str]]) -> None:
    """Write the names of curves at their ends. Names that would overlap are moved."""
    if not ends:
        return
    places = {
        name: axes.transAxes.inverted().transform(axes.transData.transform((0, value)))[1]
        for name, (value, _) in ends.items()
    }
    spacing, below, above = 0.105, -np.inf, 1.0 + 0.105
    upwards = sorted(places, key=lambda name: places[name])
    moved = {}
    for name in upwards:
        below = moved[name] = max(places[name], below + spacing)
    for name in reversed(upwards):  # those above the panel push the others down
        above = moved[name] = min(moved[name], above - spacing)
    for name, (value, colour) in ends.items():
        axes.annotate(
            f"{name} {value:.3g}",
            (1.0, places[name]),
            xytext=(1.05, moved[name]),
            xycoords="axes fraction",
            textcoords="axes fraction",
            fontsize=7.5,
            color=colour,
            va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0},
            annotation_clip=False,
        )
