"""Draws the results of `ds2d2 check`: classes, sizes and crowding of the objects, by split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter

from ds2d2_yolo.data.check import SIZE_BANDS, SIZE_EDGES, Inspection, Settings, SplitReport
from ds2d2_yolo.report.figures import plain_figure, png_of, tidy
from ds2d2_yolo.report.palette import CROWDING, SPLIT_COLORS

# Splits also differ in marker and line style, not only in colour
_MARKERS = {"train": "o", "val": "D", "test": "s", "minival": "^"}
_LINES = {"train": "-", "val": "--", "test": "-.", "minival": ":"}
_DPI = 130
_LOOK: dict[str, Any] = {"labels": 10, "lines": "black"}  # axes on a white background


def draw_plots(inspection: Inspection, settings: Settings, folder: Path) -> None:
    """Draw `classes.png` and, if the sizes of the images were read, `sizes.png` and `density.png`.

    Args:
        inspection (Inspection): The results.
        settings (Settings): Settings of the check.
        folder (Path): Existing folder to write to.
    """
    reports = {name: report for name, report in inspection.splits.items() if report.objects}
    if not reports:
        return
    _draw_classes(reports, settings, folder / "classes.png")
    if all(report.measured for report in reports.values()):
        _draw_sizes(reports, settings, folder / "sizes.png")
        _draw_density(reports, settings, folder / "density.png")


def _draw_classes(reports: Mapping[str, SplitReport], settings: Settings, path: Path) -> None:
    """Draw one row per class, the most frequent on top. Dots, because bars have no meaning on a logarithmic axis."""
    order = np.argsort(-next(iter(reports.values())).class_counts, kind="stable")
    figure = plain_figure(7.5, 1.5 + 0.24 * len(order), _DPI)
    axes = figure.subplots()
    rows = np.arange(len(order))
    counts = {name: report.class_counts[order] for name, report in reports.items()}
    table = np.stack(list(counts.values()))
    axes.hlines(rows, table.min(0), table.max(0), color="0.75", linewidth=1.2, zorder=1)
    for position, (name, values) in enumerate(counts.items()):
        label = f"{name}: {values.sum():,} objects"
        style: dict[str, Any] = {"color": SPLIT_COLORS[name], "marker": _MARKERS[name], "zorder": 2, "clip_on": False}
        axes.scatter(values, rows, s=56 / 1.6**position, label=label, **style)
    axes.set_xscale("symlog", linthresh=1, linscale=0.3)
    axes.set_xlim(0, table.max() * 1.6)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_yticks(rows, [settings.names[index] for index in order])
    axes.set_ylim(len(order) - 0.5, -0.5)
    axes.set_xlabel("objects (logarithmic; 0 at the left edge)")
    tidy(axes, "x", **_LOOK)
    figure.legend(loc="outside upper center", ncols=len(counts), frameon=False)
    path.write_bytes(png_of(figure))


def _draw_sizes(reports: Mapping[str, SplitReport], settings: Settings, path: Path) -> None:
    """Draw a histogram on a logarithmic axis, with the limits of the bands and each split's share in every band."""
    figure = plain_figure(8.5, 4.6, _DPI)
    axes = figure.subplots()
    filled = np.flatnonzero(np.sum([report.sizes for report in reports.values()], axis=0))
    low = min(SIZE_EDGES[filled[0]], 4.0)
    high = max(SIZE_EDGES[filled[-1] + 1], 192.0)
    for name, report in reports.items():
        shares = report.sizes / report.objects
        axes.stairs(shares, SIZE_EDGES, color=SPLIT_COLORS[name], linewidth=1.8, linestyle=_LINES[name], label=name)
        axes.stairs(shares, SIZE_EDGES, color=SPLIT_COLORS[name], fill=True, alpha=0.10)
    axes.set_xscale("log", base=2)
    axes.set_xlim(low, high)
    top = max((report.sizes / report.objects).max() for report in reports.values())
    axes.set_ylim(0, top * (1.22 + 0.09 * len(reports)))
    axes.vlines(SIZE_BANDS, 0, 1, transform=axes.get_xaxis_transform(), color="0.45", linewidth=0.9, linestyle=":")
    borders = [low, *SIZE_BANDS, high]
    for coco, start, end in (("small", low, 32.0), ("medium", 32.0, 96.0), ("large", 96.0, high)):
        middle = float(np.sqrt(start * end))
        axes.text(middle, 0.975, coco, transform=axes.get_xaxis_transform(), ha="center", va="top", color="0.25")
    for index in range(len(SIZE_BANDS) + 1):
        middle = float(np.sqrt(borders[index] * borders[index + 1]))
        for row, (name, report) in enumerate(reports.items()):
            share = report.size_bands[index] / report.objects
            height = 0.91 - 0.058 * row
            place: dict[str, Any] = {
                "transform": axes.get_xaxis_transform(),
                "ha": "center",
                "va": "top",
                "fontsize": 9,
            }
            back = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
            axes.text(middle, height, f"{share:.1%}", color=SPLIT_COLORS[name], bbox=back, **place)
    ticks = [tick for tick in (1, 2, 4, 8, 16, 32, 64, 96, 128, 256, 512, 1024, 2048) if low <= tick <= high]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel(f"square root of the area, in pixels at imgsz={settings.imgsz} (logarithmic)")
    axes.set_ylabel("share of objects per quarter octave")
    tidy(axes, "y", **_LOOK)
    figure.legend(loc="outside upper center", ncols=len(reports), frameon=False)
    path.write_bytes(png_of(figure))


def _draw_density(reports: Mapping[str, SplitReport], settings: Settings, path: Path) -> None:
    """Draw objects per image as a cumulative share of images, and centres per LL cell as stacked shares."""
    bars = len(reports) * len(settings.strides)
    figure = plain_figure(10.5, max(4.2, 1.9 + 0.34 * bars), _DPI)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
    for name, report in reports.items():
        numbers, images = np.array(sorted(report.objects_per_image.items())).T
        at_least = images[::-1].cumsum()[::-1] / images.sum()
        label = f"{name}: median {report.median_objects():g}, most {report.most_objects():,}"
        style: dict[str, Any] = {"color": SPLIT_COLORS[name], "linestyle": _LINES[name], "drawstyle": "steps-pre"}
        left.plot([0, *numbers], [1.0, *at_least], label=label, **style)
    left.set_xscale("symlog", linthresh=1, linscale=0.3)
    left.set_xlim(0, None)
    left.set_ylim(0, 1.02)
    left.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    left.yaxis.set_major_formatter(PercentFormatter(1.0))
    left.set_xlabel("objects in an image (logarithmic)")
    left.set_ylabel("images with at least this many objects")
    left.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False, fontsize=9)
    tidy(left, "both", **_LOOK)

    labels, row = [], 0.0
    for stride in settings.strides:
        for name, report in reports.items():
            _draw_occupancy(right, row, report, stride)
            labels.append((row, f"stride {stride}, {name}"))
            row += 1
        row += 0.6
    right.set_yticks([position for position, _ in labels], [text for _, text in labels])
    right.set_ylim(row - 1, -0.7)
    right.set_xlim(0, 1)
    right.xaxis.set_major_formatter(PercentFormatter(1.0))
    right.set_xlabel("objects by the number of centres in their LL cell")
    handles = [right.barh(0, 0, color=colour, label=text) for text, colour in CROWDING.items()]
    right.legend(
        handles=handles, ncols=len(handles), loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False, fontsize=9
    )
    tidy(right, None, **_LOOK)
    path.write_bytes(png_of(figure))


def _draw_occupancy(axes: Axes, row: float, report: SplitReport, stride: int) -> None:
    counts = report.cells[stride]
    groups = [0, 0, 0, 0]
    for number, objects in counts.items():
        groups[0 if number == 1 else 1 if number == 2 else 2 if number <= 4 else 3] += objects
    start = 0.0
    for objects, colour in zip(groups, CROWDING.values(), strict=True):
        share = objects / max(counts.total(), 1)
        axes.barh(row, share, left=start, height=0.82, color=colour)
        start += share
    axes.text(1.01, row, f"{report.crowded_share(stride):.1%} share a cell", va="center", fontsize=9, color="0.1")
