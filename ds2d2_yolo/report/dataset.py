"""What `ds2d2 check` found in a data set, as a table, as JSON and as pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter

from ds2d2_yolo.data.check import (
    KINDS,
    SIZE_BANDS,
    SIZE_EDGES,
    Finding,
    Inspection,
    Settings,
    SplitReport,
)

_SPLITS = ("train", "val", "test", "minival")  # those that Ultralytics resolves
_BAND_NAMES = ("under 8 px", "8 to 16 px", "16 to 32 px", "32 to 96 px", "96 px and more")
_COCO_NAMES = ("small", "small", "small", "medium", "large")
_EXAMPLES = 3  # places shown on screen for each kind of finding; check.json has more
_CLASSES_SHOWN = 100
_NAME_WIDTH, _COLUMN_WIDTH = 32, 16

# Okabe and Ito's colours, which people with any colour vision tell apart; a marker and a line style of its own, too
_STYLES = dict(
    zip(
        _SPLITS,
        (("#0072B2", "o", "-"), ("#D55E00", "D", "--"), ("#009E73", "s", "-."), ("#CC79A7", "^", ":")),
        strict=True,
    )
)
_OCCUPANCY = (("#E8EEF2", "alone"), ("#9CC9E3", "2"), ("#3E8FC4", "3 to 4"), ("#0B3C5D", "5 or more"))


# ---------------------------------------------------------------------------------------------------- table


def report_lines(
    inspection: Inspection, settings: Settings, title: str, missing: Mapping[str, str] | None = None
) -> list[str]:
    """Return the table that `ds2d2 check` prints, at most 100 columns wide but for paths.

    Args:
        inspection (Inspection): What was found.
        settings (Settings): What was looked for.
        title (str): The data YAML.
        missing (Mapping[str, str] | None): Paths that are missing, by split.

    Returns:
        (list[str]): Lines.
    """
    reports = inspection.splits
    how = {"full": "decoded", "header": "checked but not decoded", "none": "not opened"}[settings.images]
    lines = [
        f"Data set {title}",
        f"task={settings.task}, {len(settings.names)} classes, imgsz={settings.imgsz}, images {how}",
        "",
        _line("", reports),
        _line("images", _each(reports, lambda report: f"{report.images:,}")),
        _line("  used by Ultralytics", _each(reports, lambda report: f"{report.kept:,}")),
        _line("  of these without object", _each(reports, lambda report: f"{report.background:,}")),
        _line("objects", _each(reports, lambda report: f"{report.objects:,}")),
        _line("  lost", _each(reports, lambda report: f"{report.lost_objects:,}")),
        _line("  per image, median", _each(reports, lambda report: f"{report.median_objects():g}")),
        _line("  per image, most", _each(reports, lambda report: f"{report.most_objects():,}")),
        "",
        "Classes",
    ]
    for index, name in islice(enumerate(settings.names), _CLASSES_SHOWN):
        counts = [_with_share(report.class_counts[index], report.objects) for report in reports.values()]
        lines.append(_line(f"  {index:>2} {name}", counts))
    if len(settings.names) > _CLASSES_SHOWN:
        lines.append(f"  ... {len(settings.names) - _CLASSES_SHOWN} more in check.json")
    if any(report.measured for report in reports.values()):
        lines += ["", *_size_lines(reports, settings), "", *_cell_lines(reports, settings)]
    else:
        lines += ["", "Sizes, densities and identical images are unknown, as images=none does not open the images."]
    return [*lines, "", *_finding_lines(inspection, missing or {})]


def _size_lines(reports: Mapping[str, SplitReport], settings: Settings) -> Iterator[str]:
    what = "smallest rectangle" if settings.task == "obb" else "box"
    yield f"Sizes: square root of the area of the {what}, in pixels of the image scaled to imgsz={settings.imgsz}"
    for index, (name, coco) in enumerate(zip(_BAND_NAMES, _COCO_NAMES, strict=True)):
        counts = [_with_share(report.size_bands[index], report.objects) for report in reports.values()]
        yield _line(f"  {name:<16}{coco}", counts)


def _cell_lines(reports: Mapping[str, SplitReport], settings: Settings) -> Iterator[str]:
    yield "Crowding: objects whose LL cell, DISW's unit, holds another one's centre, too (most in one cell)"
    for stride in settings.strides:
        cells = [f"{report.together(stride):.1%} ({report.most_together(stride)})" for report in reports.values()]
        yield _line(f"  stride {stride:<4} cells of {_cell(settings, stride):g} px", cells)


def _finding_lines(inspection: Inspection, missing: Mapping[str, str]) -> Iterator[str]:
    reports = inspection.splits
    found = [kind for kind in KINDS if any(report.findings[kind].count for report in reports.values())]
    if not found and not inspection.shared and not missing:
        yield "Findings: none"
        return
    yield _line("Findings", reports)
    for kind in found:
        findings = [report.findings[kind] for report in reports.values()]
        severity = "ERROR  " if KINDS[kind].error else "warning"
        yield f"{severity} {KINDS[kind].title}: {KINDS[kind].consequence}"
        yield _line("", [f"{finding.count:,}" for finding in findings])
        yield from _example_lines(findings)
    for pair, finding in inspection.shared.items():
        yield f"warning {KINDS['identical_images'].title}: {KINDS['identical_images'].consequence}"
        yield f"        {pair[0]} and {pair[1]} share {finding.count:,}"
        yield from _example_lines([finding])
    for name, path in missing.items():
        yield f"warning {KINDS['missing_split'].title}: {KINDS['missing_split'].consequence}"
        yield f"        {name}: {path}"


def _example_lines(findings: Sequence[Finding]) -> Iterator[str]:
    places = [place for finding in findings for place in finding.places]
    for place in places[:_EXAMPLES]:
        yield f"        {place}"
    rest = sum(finding.count for finding in findings) - min(len(places), _EXAMPLES)
    if rest:
        yield f"        ... and {rest:,} more, see check.json"


def _line(name: str, cells: Sequence[str] | Mapping[str, Any]) -> str:
    name = name if len(name) <= _NAME_WIDTH else name[: _NAME_WIDTH - 3] + "..."
    return (f"{name:<{_NAME_WIDTH}}" + "".join(f"{cell:>{_COLUMN_WIDTH}}" for cell in cells)).rstrip()


def _each(reports: Mapping[str, SplitReport], entry: Callable[[SplitReport], str]) -> list[str]:
    return [entry(report) for report in reports.values()]


def _with_share(count: int, total: int) -> str:
    return f"{count:,}{count / max(total, 1):>8.1%}"


def _cell(settings: Settings, stride: int) -> float:
    """Return the side of an LL cell in pixels."""
    return settings.imgsz / ((settings.imgsz // stride + 1) // 2)


# ----------------------------------------------------------------------------------------------------- JSON


def report_content(
    inspection: Inspection, settings: Settings, title: str, missing: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return everything that was found as plain JSON values; see `report_lines` for the arguments."""
    return {
        "data": title,
        "task": settings.task,
        "imgsz": settings.imgsz,
        "images": settings.images,
        "classes": list(settings.names),
        "exit_code": int(inspection.has_errors),
        "splits": {name: _split_content(report, settings) for name, report in inspection.splits.items()},
        "shared_images": [
            {"splits": list(pair), **_finding_content("identical_images", finding)}
            for pair, finding in inspection.shared.items()
        ],
        "missing_splits": dict(missing or {}),
    }


def _split_content(report: SplitReport, settings: Settings) -> dict[str, Any]:
    content: dict[str, Any] = {
        "images": report.images,
        "used_images": report.kept,
        "images_without_object": report.background,
        "objects": report.objects,
        "lost_objects": report.lost_objects,
        "objects_per_class": report.class_counts.tolist(),
        "objects_per_image": {
            "median": report.median_objects(),
            "most": report.most_objects(),
            "images_by_objects": {str(number): images for number, images in sorted(report.objects_per_image.items())},
        },
        "sizes": None,
        "cells": None,
        "findings": {kind: _finding_content(kind, item) for kind in KINDS if (item := report.findings[kind]).count},
    }
    if report.measured:
        content["sizes"] = {
            "unit": f"square root of the area in pixels at imgsz={settings.imgsz}",
            "band_borders": list(SIZE_BANDS),
            "objects_per_band": report.size_bands.tolist(),
            "histogram_edges": SIZE_EDGES.tolist(),
            "histogram": report.sizes.tolist(),
        }
        content["cells"] = {
            str(stride): {
                "pixels": _cell(settings, stride),
                "share_with_others": report.together(stride),
                "most": report.most_together(stride),
                "objects_by_centres_in_cell": {str(number): count for number, count in sorted(counts.items())},
            }
            for stride, counts in report.cells.items()
        }
    return content


def _finding_content(kind: str, finding: Finding) -> dict[str, Any]:
    return {
        "severity": "error" if KINDS[kind].error else "warning",
        "title": KINDS[kind].title,
        "consequence": KINDS[kind].consequence,
        "count": finding.count,
        "places": [place._asdict() for place in finding.places],
    }


# ---------------------------------------------------------------------------------------------------- plots


def draw_plots(inspection: Inspection, settings: Settings, folder: Path) -> list[Path]:
    """Draw `classes.png`, and where the sizes of the images are known `sizes.png` and `density.png`.

    Args:
        inspection (Inspection): What was found.
        settings (Settings): What was looked for.
        folder (Path): Existing folder to write to.

    Returns:
        (list[Path]): The pictures.
    """
    reports = {name: report for name, report in inspection.splits.items() if report.objects}
    if not reports:
        return []
    paths = [_draw_classes(reports, settings, folder / "classes.png")]
    if all(report.measured for report in reports.values()):
        paths.append(_draw_sizes(reports, settings, folder / "sizes.png"))
        paths.append(_draw_density(reports, settings, folder / "density.png"))
    return paths


def _draw_classes(reports: Mapping[str, SplitReport], settings: Settings, path: Path) -> Path:
    """One row per class, the most frequent on top; dots, as bars have no meaningful length on a logarithmic axis."""
    order = np.argsort(-next(iter(reports.values())).class_counts, kind="stable")
    figure = _figure(7.5, 1.5 + 0.24 * len(order))
    axes = figure.subplots()
    rows = np.arange(len(order))
    counts = {name: report.class_counts[order] for name, report in reports.items()}
    table = np.stack(list(counts.values()))
    axes.hlines(rows, table.min(0), table.max(0), color="0.75", linewidth=1.2, zorder=1)
    for position, (name, values) in enumerate(counts.items()):
        colour, marker, _ = _STYLES[name]
        label = f"{name}: {values.sum():,} objects"
        axes.scatter(
            values, rows, color=colour, marker=marker, s=56 / 1.6**position, label=label, zorder=2, clip_on=False
        )
    axes.set_xscale("symlog", linthresh=1, linscale=0.3)
    axes.set_xlim(0, table.max() * 1.6)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_yticks(rows, [settings.names[index] for index in order])
    axes.set_ylim(len(order) - 0.5, -0.5)
    axes.set_xlabel("objects (logarithmic; 0 at the left edge)")
    _tidy(axes, grid="x")
    figure.legend(loc="outside upper center", ncols=len(counts), frameon=False)
    return _save(figure, path)


def _draw_sizes(reports: Mapping[str, SplitReport], settings: Settings, path: Path) -> Path:
    """Histogram over a logarithmic axis, with the borders of the bands and each split's share in every band."""
    figure = _figure(8.5, 4.6)
    axes = figure.subplots()
    filled = np.flatnonzero(np.sum([report.sizes for report in reports.values()], axis=0))
    low = min(SIZE_EDGES[filled[0]], 4.0)
    high = max(SIZE_EDGES[filled[-1] + 1], 192.0)
    for name, report in reports.items():
        colour, _, line = _STYLES[name]
        shares = report.sizes / report.objects
        axes.stairs(shares, SIZE_EDGES, color=colour, linewidth=1.8, linestyle=line, label=name)
        axes.stairs(shares, SIZE_EDGES, color=colour, fill=True, alpha=0.10)
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
            axes.text(middle, height, f"{share:.1%}", color=_STYLES[name][0], bbox=back, **place)
    ticks = [tick for tick in (1, 2, 4, 8, 16, 32, 64, 96, 128, 256, 512, 1024, 2048) if low <= tick <= high]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel(f"square root of the area, in pixels at imgsz={settings.imgsz} (logarithmic)")
    axes.set_ylabel("share of objects per quarter octave")
    _tidy(axes, grid="y")
    figure.legend(loc="outside upper center", ncols=len(reports), frameon=False)
    return _save(figure, path)


def _draw_density(reports: Mapping[str, SplitReport], settings: Settings, path: Path) -> Path:
    """Objects per image as the share of images with at least so many; centres per LL cell as stacked shares."""
    bars = len(reports) * len(settings.strides)
    figure = _figure(10.5, max(4.2, 1.9 + 0.34 * bars))
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
    for name, report in reports.items():
        colour, _, line = _STYLES[name]
        numbers, images = np.array(sorted(report.objects_per_image.items())).T
        at_least = images[::-1].cumsum()[::-1] / images.sum()
        label = f"{name}: median {report.median_objects():g}, most {report.most_objects():,}"
        left.plot([0, *numbers], [1.0, *at_least], drawstyle="steps-pre", color=colour, linestyle=line, label=label)
    left.set_xscale("symlog", linthresh=1, linscale=0.3)
    left.set_xlim(0, None)
    left.set_ylim(0, 1.02)
    left.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    left.yaxis.set_major_formatter(PercentFormatter(1.0))
    left.set_xlabel("objects in an image (logarithmic)")
    left.set_ylabel("images with at least so many objects")
    left.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False, fontsize=9)
    _tidy(left, grid="both")

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
    handles = [right.barh(0, 0, color=colour, label=text) for colour, text in _OCCUPANCY]
    right.legend(
        handles=handles, ncols=len(handles), loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False, fontsize=9
    )
    _tidy(right)
    return _save(figure, path)


def _draw_occupancy(axes: Axes, row: float, report: SplitReport, stride: int) -> None:
    counts = report.cells[stride]
    groups = [0, 0, 0, 0]
    for number, objects in counts.items():
        groups[0 if number == 1 else 1 if number == 2 else 2 if number <= 4 else 3] += objects
    start = 0.0
    for objects, (colour, _) in zip(groups, _OCCUPANCY, strict=True):
        share = objects / max(counts.total(), 1)
        axes.barh(row, share, left=start, height=0.82, color=colour)
        start += share
    axes.text(1.01, row, f"{report.together(stride):.1%} not alone", va="center", fontsize=9, color="0.1")


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=130, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _tidy(axes: Axes, grid: Literal["x", "y", "both"] | None = None) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(axis=grid, color="0.9")


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path)
    return path
