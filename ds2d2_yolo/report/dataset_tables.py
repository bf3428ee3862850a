"""Formats the results of `ds2d2 check`: as a table and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice

from ds2d2_yolo.data.check import (
    KINDS,
    SIZE_BANDS,
    SIZE_EDGES,
    UNLABELED_SPLIT,
    Finding,
    Inspection,
    Settings,
    SplitReport,
)
from ds2d2_yolo.tables import counted

_BAND_NAMES = ("under 8 px", "8 to 16 px", "16 to 32 px", "32 to 96 px", "96 px and more")
_COCO_NAMES = ("small", "small", "small", "medium", "large")
_EXAMPLES = 3  # places shown in the table for each kind of finding; check.json has more
_CLASSES_SHOWN = 100
_NAME_WIDTH, _COLUMN_WIDTH = 32, 16


def report_lines(
    inspection: Inspection, settings: Settings, title: str, missing: Mapping[str, str] | None = None
) -> list[str]:
    """Return the table that `ds2d2 check` prints: at most 100 columns wide, except for paths.

    Args:
        inspection (Inspection): The results.
        settings (Settings): Settings of the check.
        title (str): The data YAML.
        missing (Mapping[str, str] | None): Paths that are missing, by split.

    Returns:
        (list[str]): Lines.
    """
    reports = inspection.splits
    how = {"full": "decoded", "header": "checked but not decoded", "none": "not opened"}[settings.images]
    classes = counted(len(settings.names), "class", "classes")
    lines = [
        f"Data set {title}",
        f"task={settings.task}, {classes}, imgsz={settings.imgsz}, images {how}",
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
        lines += [
            "",
            "Sizes, densities and identical images were not checked: images=none opens no images. Pass images=header.",
        ]
    return [*lines, "", *_finding_lines(inspection, missing or {})]


def _size_lines(reports: Mapping[str, SplitReport], settings: Settings) -> Iterator[str]:
    what = "smallest rectangle" if settings.task == "obb" else "box"
    yield f"Sizes: square root of the area of the {what}, in pixels of the image scaled to imgsz={settings.imgsz}"
    for index, (name, coco) in enumerate(zip(_BAND_NAMES, _COCO_NAMES, strict=True)):
        counts = [_with_share(report.size_bands[index], report.objects) for report in reports.values()]
        yield _line(f"  {name:<16}{coco}", counts)


def _cell_lines(reports: Mapping[str, SplitReport], settings: Settings) -> Iterator[str]:
    yield "Crowding: objects that share an LL cell (the unit of DISW) with another centre (most in one cell)"
    for stride in settings.strides:
        cells = [f"{report.crowded_share(stride):.1%} ({report.most_in_cell(stride)})" for report in reports.values()]
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
        yield f"        what to do: {KINDS[kind].advice}"
        yield _line("", [f"{finding.count:,}" for finding in findings])
        yield from _example_lines(findings)
    for pair, finding in inspection.shared.items():
        if UNLABELED_SPLIT in pair:
            yield f"warning {KINDS['identical_images'].title}: left out of the unlabelled images in training"
        else:
            yield f"warning {KINDS['identical_images'].title}: {KINDS['identical_images'].consequence}"
            yield f"        what to do: {KINDS['identical_images'].advice}"
        yield f"        {pair[0]} and {pair[1]} share {finding.count:,}"
        yield from _example_lines([finding])
    for name, path in missing.items():
        yield f"warning {KINDS['missing_split'].title}: {KINDS['missing_split'].consequence}"
        yield f"        what to do: {KINDS['missing_split'].advice}"
        yield f"        {name}: {path}"


def _example_lines(findings: Sequence[Finding]) -> Iterator[str]:
    places = [place for finding in findings for place in finding.places]
    for place in places[:_EXAMPLES]:
        yield f"        {place}"
    rest = sum(finding.count for finding in findings) - min(len(places), _EXAMPLES)
    if rest:
        yield f"        ... and {rest:,} more, see check.json"


def _line(name: str, cells: Iterable[str]) -> str:
    name = name if len(name) <= _NAME_WIDTH else name[: _NAME_WIDTH - 3] + "..."
    return (f"{name:<{_NAME_WIDTH}}" + "".join(f"{cell:>{_COLUMN_WIDTH}}" for cell in cells)).rstrip()


def _each(reports: Mapping[str, SplitReport], entry: Callable[[SplitReport], str]) -> list[str]:
    return [entry(report) for report in reports.values()]


def _with_share(count: int, total: int) -> str:
    return f"{count:,}{count / max(total, 1):>8.1%}"


def _cell(settings: Settings, stride: int) -> float:
    """Return the side of an LL cell in pixels."""
    return settings.imgsz / ((settings.imgsz // stride + 1) // 2)


def report_content(
    inspection: Inspection, settings: Settings, title: str, missing: Mapping[str, str] | None = None
) -> dict[str, object]:
    """Return all results as plain JSON values. Arguments are those of `report_lines`."""
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


def _split_content(report: SplitReport, settings: Settings) -> dict[str, object]:
    content: dict[str, object] = {
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
                "share_with_others": report.crowded_share(stride),
                "most": report.most_in_cell(stride),
                "objects_by_centres_in_cell": {str(number): count for number, count in sorted(counts.items())},
            }
            for stride, counts in report.cells.items()
        }
    return content


def _finding_content(kind: str, finding: Finding) -> dict[str, object]:
    return {
        "severity": "error" if KINDS[kind].error else "warning",
        "title": KINDS[kind].title,
        "consequence": KINDS[kind].consequence,
        "advice": KINDS[kind].advice,
        "count": finding.count,
        "places": [place._asdict() for place in finding.places],
    }
