"""Makes the tables of a comparison: as lines of text, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence

from ds2d2_yolo.comparison.finished import COMPARISON_TABLE
from ds2d2_yolo.comparison.methods import BUILTIN, PLAIN, Comparison
from ds2d2_yolo.comparison.records import Epoch, Results, value_of
from ds2d2_yolo.comparison.statistics import (
    BOX_METRICS,
    Interval,
    Summary,
    all_metrics,
    best_by,
    finishing_times,
    main_metrics,
    metric_title,
    summarise,
    task_metrics,
    warnings_of,
)
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.files import without_nan
from ds2d2_yolo.report.comparison_plot import comparison_png
from ds2d2_yolo.report.text import percent
from ds2d2_yolo.tables import text_table

READING = (
    "Differences are means over the seeds, with the 95 % interval of Student's t. If the interval contains 0, the "
    "difference is not significant. Gap closed: the share of the gap between plain student and teacher. At equal time: "
    "the best epoch within the training time of the plain student, or of the fastest method without it"
)
"""How to read the tables."""

Table = list[list[str]]
"""Rows of cells, the header first."""

_DISTILS = {"none": "no distillation", "ultralytics": "Ultralytics' own distillation", "ds2d2": "DS2D2"}
_MIB = 2**20


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
    return [*lines, stages_line(results), *(f"WARNING: {text}" for text in warnings_of(comparison, results))]


def markdown_lines(comparison: Comparison, results: Results) -> list[str]:
    """Return `comparison.md`: models, methods, tables, warnings and notes. Arguments are those of `report_lines`."""
    arguments = {key: value for key, value in comparison.arguments.items() if value is not None}
    models = {"teacher": arguments.pop("teacher"), "student": arguments.pop("model"), "data": arguments.pop("data")}
    seeds = ", ".join(map(str, comparison.seeds))
    lines = [
        "# Comparison",
        "",
        *(f"- {name}: `{value}`" for name, value in models.items()),
        f"- {', '.join(_settings(dict(sorted(arguments.items()))))}",
        f"- seeds {seeds}; {'; '.join(versions_of(results))}",
        "",
        *(f"- **{m.name}**: {', '.join([_DISTILS[m.distil], *_settings(m.arguments)])}" for m in comparison.methods),
        "",
    ]
    for title, (header, *rows) in tables_of(comparison, results).items():
        lines += [f"## {title}", "", f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
        lines += [*(f"| {' | '.join(row)} |" for row in rows), ""]
    lines += [stages_line(results), "", *(f"**Warning:** {text}\n" for text in warnings_of(comparison, results))]
    return [
        *lines,
        "![AP of every run, differences to plain, AP over time](comparison.png)",
        "",
        "AP50 and AP50-95 are Ultralytics', of its best checkpoint. APs, APm and APl are COCO's. All of them are for "
        f"boxes. (M) marks Ultralytics' metrics for masks, (P) for keypoints. {READING}, by seed. Peak memory is that "
        "of the training process. On a GPU it is the memory that PyTorch allocated.",
    ]


def save_comparison(comparison: Comparison, results: Results) -> None:
    """Write `comparison.md`, `comparison.png`, `summary.csv` and `comparison.csv` into the comparison's folder.

    Args:
        comparison (Comparison): What was compared.
        results (Results): All runs.

    Raises:
        DS2D2Error: If the folder cannot be written.
    """
    folder = comparison.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        contents = {
            COMPARISON_TABLE: _csv(_run_rows(results)),
            "summary.csv": _csv(_summary_rows(results)),
            "comparison.md": "\n".join(markdown_lines(comparison, results)) + "\n",
        }
        for name, content in contents.items():
            (folder / name).write_text(content, encoding="utf-8")
        (folder / "comparison.png").write_bytes(comparison_png(results))
    except OSError as error:
        raise DS2D2Error(
            f"{folder}: cannot save the results ({error.strerror or error}); make room, then run the same command again"
        ) from error


# -------------------------------------------------------------------------------------------- text tables


def tables_of(comparison: Comparison, results: Results) -> dict[str, Table]:
    """Return the tables by title. Arguments are those of `report_lines`."""
    summaries, seeds = summarise(results), len(comparison.seeds)
    tables = {f"Accuracy in percent, mean over {seeds} seed{'' if seeds == 1 else 's'}": _accuracy(results, summaries)}
    if any(summary.differences for summary in summaries):
        interval = " and 95 % interval" if seeds > 1 else ""
        tables[f"Differences in percentage points, mean{interval}"] = _differences(results, summaries)
    first = PLAIN if PLAIN in results.methods else "the fastest method"
    title = f"Cost of training the student, and accuracy when {first} is finished"
    return tables | {title: _cost(results, summaries)}


def _accuracy(results: Results, summaries: Sequence[Summary]) -> Table:
    metrics, seconds = all_metrics(results), results.stages.get("teacher")
    minutes = "" if seconds is None else f"{seconds / 60:.1f}"
    return [
        ["", *map(metric_title, metrics), "minutes"],
        ["teacher", *(percent(value_of(results.teacher, metric)) for metric in metrics), minutes],
        *(
            [
                summary.method,
                *(percent(summary.values[metric].mean) for metric in metrics),
                f"{summary.seconds / 60:.1f}",
            ]
            for summary in summaries
        ),
    ]


def _differences(results: Results, summaries: Sequence[Summary]) -> Table:
    references = [name for name in (PLAIN, BUILTIN) if any(name in summary.differences for summary in summaries)]
    columns = [(metric, reference) for reference in references for metric in task_metrics(results)]
    names = [f"{metric_title(metric)} - {reference}" for metric, reference in columns]
    rows = [["", *names, *map(_gap_title, main_metrics(results))]]
    for summary in summaries:
        cells = [points_interval(summary.differences.get(reference, {}).get(metric)) for metric, reference in columns]
        gaps = ["" if gap is None else f"{gap:.0%}" for gap in summary.gaps_closed.values()]
        if any(cells):
            rows.append([summary.method, *cells, *gaps])
    return rows


def _cost(results: Results, summaries: Sequence[Summary]) -> Table:
    metrics = task_metrics(results)
    reached = [f"{metric_title(metric)} at equal time" for metric in metrics]
    return [
        ["", "epochs", "s per epoch", "peak MiB", *reached],
        *(
            [
                summary.method,
                str(summary.epochs),
                f"{summary.seconds_per_epoch:.1f}",
                "" if summary.peak_bytes is None else f"{summary.peak_bytes / _MIB:,.0f}",
                *(percent(summary.equal_time[metric].mean) for metric in metrics),
            ]
            for summary in summaries
        ),
    ]


def stages_line(results: Results) -> str:
    """Return the training times of teacher and amplifiers, as a sentence."""
    return f"Trained once for all runs: {stages_text(results)}."


def stages_text(results: Results) -> str:
    """Return the training times of teacher and amplifiers, as a text."""
    return ", ".join(
        f"{name} {'(time not recorded)' if seconds is None else f'{seconds / 60:.1f} minutes'}"
        for name, seconds in results.stages.items()
    )


def versions_of(results: Results) -> list[str]:
    """Return the versions of all packages that made the runs, as texts."""
    return sorted({", ".join(f"{name} {version}" for name, version in run["versions"].items()) for run in results.runs})


def points_interval(interval: Interval | None) -> str:
    """Return a difference in percentage points, with its interval if it has one. Empty without a difference."""
    if interval is None or math.isnan(interval.mean):
        return ""
    mean = f"{100 * interval.mean:+.1f}"
    if interval.low is None or interval.high is None:
        return mean
    return f"{mean} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"


def _gap_title(metric: str) -> str:
    return "gap closed" if metric in BOX_METRICS else f"gap closed, {metric_title(metric)}"


def _settings(arguments: Mapping[str, object]) -> list[str]:
    return [f"`{key}={value}`" for key, value in arguments.items()]


# ---------------------------------------------------------------------------------------------- CSV files


def _run_rows(results: Results) -> list[dict[str, object]]:
    times = finishing_times(results.runs)
    rows: list[dict[str, object]] = []
    for run in results.runs:
        reached: Epoch = best_by(run["curve"], times[run["seed"]]) or {}
        rows.append(
            {
                **{"method": run["method"], "seed": run["seed"]},
                **{metric: value_of(run, metric) for metric in all_metrics(results)},
                **{f"{metric} at equal time": reached.get(metric) for metric in task_metrics(results)},
                **{"epochs": len(run["curve"]), "seconds": run["seconds"], "s per epoch": run["seconds_per_epoch"]},
                **{"peak MiB": _mib(run["peak_bytes"]), "weights": run["weights"]},
                "continued after": " ".join(map(str, run["continued_after"])),
                **{f"AP {name}": scores["AP"] for name, scores in run["classes"].items()},
            }
        )
    return rows


def _summary_rows(results: Results) -> list[dict[str, object]]:
    teacher = {metric: value_of(results.teacher, metric) for metric in all_metrics(results)}
    rows: list[dict[str, object]] = [{"method": "teacher", **teacher, "seconds": results.stages.get("teacher")}]
    rows += [_summary_row(results, summary) for summary in summarise(results)]
    rows += [{"method": name, "seconds": seconds} for name, seconds in results.stages.items() if name != "teacher"]
    return rows


def _summary_row(results: Results, summary: Summary) -> dict[str, object]:
    row: dict[str, object] = {"method": summary.method, "seeds": len(summary.seeds)}
    row |= {metric: summary.values[metric].mean for metric in all_metrics(results)}
    for reference in (PLAIN, BUILTIN):
        for metric in all_metrics(results):
            interval = summary.differences.get(reference, {}).get(metric, Interval(math.nan, None, None, 0))
            name = f"{metric} - {reference}"
            row |= {name: interval.mean, f"{name}, low": interval.low, f"{name}, high": interval.high}
    row |= {_gap_title(metric): gap for metric, gap in summary.gaps_closed.items()}
    row |= {f"{metric} at equal time": summary.equal_time[metric].mean for metric in task_metrics(results)}
    row |= {"epochs": summary.epochs, "seconds": summary.seconds, "s per epoch": summary.seconds_per_epoch}
    return row | {"peak MiB": _mib(summary.peak_bytes)}


def _mib(size: float | None) -> float | None:
    return None if size is None else size / _MIB


def _csv(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows as CSV. Missing values are empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = io.StringIO()
    writer = csv.DictWriter(table, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(without_nan(dict(row)) for row in rows)
    return table.getvalue()
