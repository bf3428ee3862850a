"""Makes a page about a comparison from the files in its folder. Nothing is measured again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from ultralytics.data.utils import check_det_dataset
from ultralytics.utils import DEFAULT_CFG_DICT, YAML

from ds2d2_yolo.comparison.finished import coco_evaluation, folder_of, folder_of_teacher, read_comparison
from ds2d2_yolo.comparison.methods import PLAIN, Comparison, Method
from ds2d2_yolo.comparison.records import Results, RunRecord, number
from ds2d2_yolo.comparison.statistics import Interval, mean_interval, metric_title, task_metrics, warnings_of
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.method import TERMS
from ds2d2_yolo.report.changes import Pairing, read_detections, show_changes, show_detections
from ds2d2_yolo.report.charts import draw_changes, draw_curves
from ds2d2_yolo.report.comparison_plot import comparison_png
from ds2d2_yolo.report.comparison_tables import READING, points_interval, stages_text, tables_of, versions_of
from ds2d2_yolo.report.page import Folded, Heading, Paragraph, Part, Picture, Section, Table, facts, render_page
from ds2d2_yolo.report.palette import METHODS
from ds2d2_yolo.report.progress import LOGARITHMIC, curves_of_terms
from ds2d2_yolo.report.text import SIZES, model_name, percent
from ds2d2_yolo.tables import counted
from ds2d2_yolo.training.results import read_columns

_DISTILS = {"none": "none", "ultralytics": "Ultralytics'", "ds2d2": "DS2D2"}

Pairs = dict[int, tuple[RunRecord, RunRecord]]
"""Records of a method and of the plain student, by seed."""


def comparison_page(folder: Path, data: str | None = None, confidence: float = 0.25) -> str:
    """Return a page about a finished comparison, from the files in its folder.

    Args:
        folder (Path): Folder of a finished comparison.
        data (str | None): Data YAML whose images are shown; None takes that of the evaluation, if it still exists.
        confidence (float): Lowest confidence of the detections that are compared image by image.

    Returns:
        (str): HTML.

    Raises:
        DS2D2Error: If a file in the folder is missing or damaged, or `data` cannot be used.

    Example:
        >>> comparison_page(Path("runs/detect/compare-yolo11n-a8279e04"))  # doctest: +SKIP
    """
    comparison, results = read_comparison(folder)
    compared = [method for method in comparison.methods if method.name != PLAIN]
    # The method whose detections are shown: the first one of this package
    compared.sort(key=lambda method: method.distil != "ds2d2")
    has_plain = any(method.name == PLAIN for method in comparison.methods)
    sections = [
        _summary(comparison, results),
        _methods(comparison, results),
        _numbers(comparison, results),
        _curves(comparison, results),
        _changes(results, compared if has_plain else []),
        *_images(results, compared[0] if has_plain and compared else None, folder, data, confidence),
    ]
    arguments = comparison.arguments
    title = f"{model_name(arguments['model'])} learning from {model_name(arguments['teacher'])}: a comparison"
    return render_page(title, str(folder.resolve()), sections)


# ------------------------------------------------------------------------------------------------ sections


def _summary(comparison: Comparison, results: Results) -> Section:
    arguments = comparison.arguments
    evaluation = coco_evaluation(comparison.folder, results.runs[0])  # the folder may hold teachers of other data
    measured_on = f"{evaluation['images']} images with {evaluation['objects']} objects" if evaluation else "unknown"
    values: dict[str, object] = {
        "student": arguments["model"],
        "teacher": arguments["teacher"],
        "data": arguments.get("data"),
        "measured on": measured_on,
        "image size, batch, epochs": ", ".join(
            "those of the method"
            if any(name in method.arguments for method in comparison.methods)
            else str(arguments.get(name, DEFAULT_CFG_DICT[name]))
            for name in ("imgsz", "batch", "epochs")
        ),
        "seeds": ", ".join(map(str, comparison.seeds)),
        "training time of other models": f"{stages_text(results)}.",
        "versions": "; ".join(versions_of(results)),
    }
    notes = [Paragraph(f"Note: {warning}") for warning in warnings_of(comparison, results)]
    settings = {key: value for key, value in arguments.items() if key not in {"model", "teacher", "data"}}
    return Section("Summary", [facts(values), *notes, Folded("Arguments of all runs", [facts(settings)])])


def _methods(comparison: Comparison, results: Results) -> Section:
    rows = []
    for method in comparison.methods:
        gains = [_gains(run, comparison.folder) for run in results.runs_of(method.name)]
        means = {name: [of_run[name] for of_run in gains if name in of_run] for name in TERMS}
        settings = ", ".join(f"{key}={value}" for key, value in method.arguments.items())
        cells = [f"{fmean(means[name]):.3g}" if means[name] else "" for name in TERMS]
        rows.append([method.name, _DISTILS[method.distil], *cells, settings])
    header = ["method", "distillation", *(f"gain {name}" for name in TERMS), "settings"]
    if not any(row[-1] for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]
    note = Paragraph("Gains are means over the seeds. Calibrated gains differ a little between runs.", note=True)
    return Section("Methods", [Table(header, rows, text_columns=(len(TERMS) + 2,)), note])


def _numbers(comparison: Comparison, results: Results) -> Section:
    parts: list[Part] = []
    for title, (header, *rows) in tables_of(comparison, results).items():
        parts += [Heading(title), Table(header, rows)]
    alt = "AP of every run, differences to plain, AP over time"
    parts += [Paragraph(f"{READING}.", note=True), Picture(comparison_png(results), alt)]
    return Section("Results", parts)


def _curves(comparison: Comparison, results: Results) -> Section:
    names = [method.name for method in comparison.methods]
    curves = {name: [run["curve"] for run in results.runs_of(name)] for name in names}
    steps = [float(epoch["epoch"]) for epoch in max((run["curve"] for run in results.runs), key=len)]
    groups = {
        f"{metric_title(metric)} in percent, mean over the seeds": {
            name: [  # methods may have different numbers of epochs
                100 * fmean(curve[i][metric] for curve in runs) if all(i < len(curve) for curve in runs) else math.nan
                for i in range(len(steps))
            ]
            for name, runs in curves.items()
        }
        for metric in task_metrics(results)
    }
    parts: list[Part] = [Picture(draw_curves(groups, steps, colours=METHODS).png(), "AP by epoch and method")]
    for method in comparison.methods:
        if method.distil != "ds2d2":
            continue
        tables = [
            read_columns(path)
            for run in results.runs_of(method.name)
            if (path := folder_of(run, comparison.folder) / "results.csv").is_file()
        ]
        if terms := curves_of_terms(_mean_columns(tables)):
            length = len(next(iter(next(iter(terms.values())).values())))
            canvas = draw_curves(terms, range(1, length + 1), logarithmic=LOGARITHMIC)
            caption = f"{method.name}, mean over {counted(len(tables), 'seed')}. Numbers are those of the last epoch."
            parts.append(Picture(canvas.png(), f"Terms of {method.name} by epoch", caption))
    return Section("Curves", parts)


def _changes(results: Results, compared: Sequence[Method]) -> Section:
    parts: list[Part] = []
    for method in compared:
        pairs = _pairs(results, method.name)
        if not pairs:
            continue
        new, old = zip(*pairs.values(), strict=True)
        by_size, by_class = _differences(pairs, _ap_by_size), _differences(pairs, _ap_by_class)
        objects = {name: f"{new[0]['classes'][name]['objects']:,}" for name in by_class}
        rows = [
            [
                name,
                objects[name],
                *(percent(fmean(_ap_by_class(run)[name] for run in side)) for side in (old, new)),
                points_interval(by_class[name]),
            ]
            for name in sorted(by_class, key=lambda name: -_sortable(by_class[name].mean))
        ]
        header = ["class", "objects", f"AP {PLAIN}", f"AP {method.name}", "change"]
        body: list[Part] = [
            _bars(by_size, {}, f"Change of AP by size, {method.name}", "By size of the objects."),
            _bars(by_class, objects, f"Change of AP by class, {method.name}", "By class, with the number of objects."),
            Table(header, rows),
        ]
        heading = f"{method.name} against {PLAIN}"
        parts += [Heading(heading), *body] if method is compared[0] else [Folded(heading, body)]
    if parts:
        note = "COCO's AP in percentage points, mean over the seeds. With several seeds, lines are 95 % intervals."
        parts.insert(0, Paragraph(note, note=True))
    return Section(f"Change against {PLAIN}", parts)


def _images(
    results: Results, method: Method | None, folder: Path, data: str | None, confidence: float
) -> list[Section]:
    """Return the detections of teacher, plain student and a method in a few images, and the largest changes."""
    title = "Images that changed most"
    if method is None:
        return []
    pairings = []
    for seed, pair in _pairs(results, method.name).items():
        new, old = (folder_of(run, folder) / "coco" for run in pair)
        if all((side / name).is_file() for side in (new, old) for name in ("ground_truth.json", "predictions.json")):
            pairings.append(Pairing.of_folders(f"seed {seed}", new, old, confidence))
    evaluation = coco_evaluation(folder, results.runs[0])
    settings = evaluation["settings"] if evaluation else {}
    measured_on = data or str(settings.get("data") or "")
    if not pairings or not measured_on:
        note = "The runs' detections are no longer in the folder. Run the same 'ds2d2 compare' again to see them."
        return [Section(title, [Paragraph(note, note=True)])]
    found = {PLAIN: pairings[0].old, method.name: pairings[0].new}
    if (of_teacher := folder_of_teacher(results, folder) / "coco" / "predictions.json").is_file():
        found = {"teacher": read_detections(of_teacher, confidence), **found}
    try:
        root = Path(check_det_dataset(measured_on, autodownload=False)["path"])
        return [
            Section("Detections", show_detections(pairings[0].truth, found, confidence, root)),
            Section(title, show_changes(pairings, (PLAIN, method.name), confidence, root)),
        ]
    except (DS2D2Error, OSError, SyntaxError, RuntimeError) as error:
        if data:
            raise DS2D2Error(f"data={data}: {error}") from error
        note = f"The images were not found ({error}). Pass data= to see them."
        return [Section(title, [Paragraph(note, note=True)])]


# ------------------------------------------------------------------------------------------------- helpers


def _gains(run: RunRecord, folder: Path) -> dict[str, float]:
    """Return the calibrated or given gains of a run."""
    path = folder_of(run, folder) / "args.yaml"
    arguments = YAML.load(path) if path.is_file() else {}
    return {name: arguments[name] for name in TERMS if isinstance(arguments.get(name), (int, float))}


def _pairs(results: Results, name: str) -> Pairs:
    """Return the records of a method and of the plain student, by seed."""
    plain = {run["seed"]: run for run in results.runs_of(PLAIN)}
    return {run["seed"]: (run, plain[run["seed"]]) for run in results.runs_of(name) if run["seed"] in plain}


def _ap_by_size(record: RunRecord) -> dict[str, float]:
    return {text: number(record["coco"][name]) for name, text in {**SIZES, "AP": "all"}.items()}


def _ap_by_class(record: RunRecord) -> dict[str, float]:
    return {name: number(scores["AP"]) for name, scores in record["classes"].items()}


def _differences(pairs: Pairs, values: Callable[[RunRecord], dict[str, float]]) -> dict[str, Interval]:
    """Return the mean difference with its interval, for each value that all pairs of records have."""
    both = [(values(new), values(old)) for new, old in pairs.values()]
    return {name: mean_interval(new[name] - old[name] for new, old in both) for name in both[0][0]}


def _sortable(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _mean_columns(tables: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, list[float]]:
    """Return the means of the columns that several tables share, over the epochs that all of them have."""
    if not tables:
        return {}
    length = min((len(values) for table in tables for values in table.values()), default=0)
    names = [name for name in tables[0] if all(name in table for table in tables)]
    return {name: [fmean(table[name][row] for table in tables) for row in range(length)] for name in names}


def _bars(changes: Mapping[str, Interval], notes: Mapping[str, str], alt: str, caption: str) -> Picture:
    intervals = {
        name: (100 * change.low, 100 * change.high)
        for name, change in changes.items()
        if change.low is not None and change.high is not None
    }
    means = {name: 100 * change.mean for name, change in changes.items()}
    canvas = draw_changes(means, notes, intervals)
    return Picture(canvas.png(), alt, caption)
