"""`ds2d2 report` about a comparison: one page from what its folder holds, nothing is measured again."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from functools import reduce
from html import escape
from operator import getitem
from pathlib import Path
from statistics import fmean
from typing import Any

from ultralytics.data.utils import check_det_dataset
from ultralytics.utils import YAML

from ds2d2_yolo.comparison.plan import PLAIN, Comparison, Method
from ds2d2_yolo.comparison.records import Results, training_seconds
from ds2d2_yolo.comparison.statistics import Interval, mean_interval, metrics_of, warnings_of
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.method import TERMS
from ds2d2_yolo.options import new_folder, option_defaults
from ds2d2_yolo.report import html
from ds2d2_yolo.report.changes import Pairing, show_changes
from ds2d2_yolo.report.charts import draw_changes, draw_curves
from ds2d2_yolo.report.comparison import METHOD_COLOURS, comparison_png, points_interval, stages_line, tables_of
from ds2d2_yolo.report.html import Section
from ds2d2_yolo.report.progress import LOGARITHMIC, curves_of_terms
from ds2d2_yolo.report.text import model_name, percent
from ds2d2_yolo.training.amplifier import read_amplifier
from ds2d2_yolo.training.results import read_columns

COMPARISON_TABLE = "comparison.csv"
"""What a finished comparison has in its folder, and a run has not."""

_OWN_PAGE = {"run", "data", "conf", "out", "exist_ok"}  # options that are about a comparison, too
_SIZES = {"APs": "small", "APm": "medium", "APl": "large", "AP": "all"}
_DISTILS = {"none": "none", "ultralytics": "Ultralytics'", "ds2d2": "DS2D2"}
_READING = (
    "Differences are means of those between runs of one seed, with the 95 % interval of Student's t: an interval that "
    "holds 0 is no finding. Gap closed: the share of the way from the plain student's mean to the teacher. At equal "
    "time: the best epoch so far when the plain student, or without it the fastest method, was done."
)


def report_comparison(folder: Path, options: Mapping[str, Any]) -> int:
    """Write `report.html` about a comparison.

    Args:
        folder (Path): Folder of a finished comparison.
        options (Mapping[str, Any]): Options of `cfg/report.yaml`; those about measuring must be at their defaults.

    Returns:
        (int): Exit code 0.

    Raises:
        DS2D2Error: If an option is about runs alone, or something in the folder is missing or damaged.

    Example:
        >>> report_comparison(Path("runs/detect/compare-yolo11n-a8279e04"), {"out": None})  # doctest: +SKIP
        0
    """
    for name, default in option_defaults("report").items():
        if name not in _OWN_PAGE and options[name] != default:
            raise DS2D2Error(
                f"{name}={options[name]}: is about single runs; a comparison was measured already, leave it out",
                2,
            )
    comparison, results = read_comparison(folder)
    out = new_folder("report", options["out"] or folder / "report", options["exist_ok"])
    compared = [method for method in comparison.methods if method.name != PLAIN]
    # The one whose changes are in sight: the first of this package's
    compared.sort(key=lambda method: method.distil != "ds2d2")
    has_plain = any(method.name == PLAIN for method in comparison.methods)
    sections = [
        _summary(comparison, results),
        _methods(comparison, results),
        _numbers(comparison, results),
        _curves(comparison, results),
        _changes(results, compared if has_plain else []),
        _images(results, compared if has_plain else [], options),
    ]
    arguments = comparison.arguments
    title = f"{model_name(arguments['model'])} learning from {model_name(arguments['teacher'])}: a comparison"
    text = html.page(title, str(folder.resolve()), sections)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.html").write_text(text, encoding="utf-8")
    except OSError as error:
        raise DS2D2Error(f"out={out}: cannot write here ({error.strerror or error}), choose another folder") from error
    print(f"Saved as {out / 'report.html'}")
    return 0


def read_comparison(folder: Path) -> tuple[Comparison, Results]:
    """Read what a finished comparison was and what it found.

    The folder may have been moved, and may hold records of other runs: `comparison.csv` says which ones belong to it.

    Args:
        folder (Path): The folder.

    Returns:
        comparison (Comparison): The comparison, without a place for runs to be made.
        results (Results): The records of the teacher and of all runs.

    Raises:
        DS2D2Error: If a file is missing or damaged.
    """
    try:
        with (folder / COMPARISON_TABLE).open(newline="", encoding="utf-8") as file:
            names = [Path(row["weights"]).parent.parent.name for row in csv.DictReader(file)]
        if not names:
            raise DS2D2Error(f"run={folder}: {COMPARISON_TABLE} names no runs")
        runs = [_read(folder / "runs" / f"{name}.json") for name in names]
        methods = list(dict.fromkeys(run["method"] for run in runs))
        of_method = {name: next(run for run in runs if run["method"] == name) for name in methods}
        shared = _shared([run["arguments"] for run in of_method.values()])
        teacher = _teacher_of(folder, runs)
    except (KeyError, TypeError, IndexError) as error:
        raise DS2D2Error(f"run={folder}: {COMPARISON_TABLE} or a record is damaged ({error!r})") from error
    arguments = {**shared, "teacher": teacher["weights"]}
    amplifiers = dict.fromkeys(run["arguments"].get("amplifier") for run in runs)
    stages = {"teacher": training_seconds(teacher["weights"])}
    for path in amplifiers:
        if path and Path(path).is_file():
            stages[f"amplifier {read_amplifier(path)['wavelet']}"] = training_seconds(path)
    own = [Method(name, run["inputs"]["distil"], _own(run["arguments"], shared)) for name, run in of_method.items()]
    seeds = list(dict.fromkeys(run["seed"] for run in runs))
    return Comparison(folder, own, seeds, arguments, {}, None), Results(teacher, stages, runs)


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise DS2D2Error(f"{path}: cannot be read, {error}; run the same 'ds2d2 compare' again") from error


def _shared(arguments: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the arguments that all methods have, with one value."""
    first, *others = arguments
    return {key: value for key, value in first.items() if all(key in o and o[key] == value for o in others)}


def _own(arguments: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    """Return in what a method differs, but for the files and schedules of the stages before it."""
    stages = {"seed", "teacher", "teacher_epochs", "amplifier", "amplifier_epochs", "distill_model"}
    return {key: value for key, value in arguments.items() if key not in shared and key not in stages}


def _teacher_of(folder: Path, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the latest record of the teacher that the runs had, on their data."""
    wanted = next((run["inputs"]["teacher"] for run in runs if "teacher" in run["inputs"]), None)
    records = [_read(path) for path in sorted((folder / "runs").glob("teacher-*.json"))]
    records = [
        record
        for record in records
        if record["inputs"]["data"] == runs[0]["inputs"]["data"] and wanted in {None, record["inputs"]["teacher"]}
    ]
    if not records:
        raise DS2D2Error(f"run={folder}: holds no record of the teacher; run the same 'ds2d2 compare' again")
    return max(records, key=lambda record: str(record["date"]))


# ------------------------------------------------------------------------------------------------ sections


def _summary(comparison: Comparison, results: Results) -> Section:
    arguments = comparison.arguments
    sizes = _evaluation_of(results.teacher, comparison.folder) or {}
    seen = f"{sizes['images']} images with {sizes['objects']} objects" if sizes else "unknown"
    versions = sorted({", ".join(f"{k} {v}" for k, v in run["versions"].items()) for run in results.runs})
    values: dict[str, object] = {
        "student": arguments["model"],
        "teacher": arguments["teacher"],
        "data": arguments.get("data"),
        "measured on": seen,
        "image size, batch, epochs": ", ".join(
            str(arguments.get(name, "those of the method")) for name in ("imgsz", "batch", "epochs")
        ),
        "seeds": ", ".join(map(str, comparison.seeds)),
        "training before that": stages_line(results).removeprefix("Training before that, once for all runs: "),
        "versions": "; ".join(versions),
    }
    told = [html.paragraph(f"Note: {warning}") for warning in warnings_of(comparison, results)]
    settings = {key: value for key, value in arguments.items() if key not in {"model", "teacher", "data"}}
    return Section(
        "Summary", html.facts(values) + "".join(told) + html.folded("Arguments of all runs", html.facts(settings))
    )


def _methods(comparison: Comparison, results: Results) -> Section:
    rows = []
    for method in comparison.methods:
        gains = [_gains(run, comparison.folder) for run in results.runs if run["method"] == method.name]
        means = {name: [own[name] for own in gains if name in own] for name in TERMS}
        settings = ", ".join(f"{key}={value}" for key, value in method.arguments.items())
        cells = [f"{fmean(means[name]):.3g}" if means[name] else "" for name in TERMS]
        rows.append([method.name, _DISTILS[method.distil], *cells, settings])
    header = ["method", "distillation", *(f"gain {name}" for name in TERMS), "settings"]
    if not any(row[-1] for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]
    note = html.paragraph("Gains are means over the seeds; found ones differ a little from run to run.", note=True)
    return Section("Methods", html.table(header, rows, text_columns=(len(TERMS) + 2,)) + note)


def _numbers(comparison: Comparison, results: Results) -> Section:
    parts = []
    for title, (header, *rows) in tables_of(comparison, results).items():
        parts += [f"<h3>{escape(title)}</h3>", html.table(header, rows)]
    alt = "AP of every run, differences to plain, AP over time"
    parts += [html.paragraph(_READING, note=True), html.picture(comparison_png(results), alt)]
    return Section("Results", "\n".join(parts))


def _curves(comparison: Comparison, results: Results) -> Section:
    names = [method.name for method in comparison.methods]
    curves = {name: [run["curve"] for run in results.runs if run["method"] == name] for name in names}
    steps = [float(epoch["epoch"]) for epoch in max((run["curve"] for run in results.runs), key=len)]
    groups = {
        f"{metric.removeprefix('metrics/')} in percent, mean of the seeds": {
            name: [  # methods may have fewer epochs than others
                100 * fmean(curve[i][metric] for curve in own) if all(i < len(curve) for curve in own) else math.nan
                for i in range(len(steps))
            ]
            for name, own in curves.items()
        }
        for metric in metrics_of(results)
    }
    parts = [html.picture(draw_curves(groups, steps, colours=METHOD_COLOURS).png(), "AP by epoch and method")]
    for method in comparison.methods:
        if method.distil != "ds2d2":
            continue
        tables = [
            read_columns(path)
            for run in results.runs
            if run["method"] == method.name and (path := _folder(run, comparison.folder) / "results.csv").is_file()
        ]
        if terms := curves_of_terms(_mean_columns(tables)):
            length = len(next(iter(next(iter(terms.values())).values())))
            canvas = draw_curves(terms, range(1, length + 1), logarithmic=LOGARITHMIC)
            caption = f"{method.name}, mean of {len(tables)} seeds. Numbers are those of the last epoch."
            parts.append(html.picture(canvas.png(), f"Terms of {method.name} by epoch", caption))
    return Section("Curves", "\n".join(parts))


def _changes(results: Results, compared: Sequence[Method]) -> Section:
    parts = []
    for index, method in enumerate(compared):
        pairs = _pairs(results, method.name)
        if not pairs:
            continue
        new, old = zip(*pairs.values(), strict=True)
        by_size = {text: _difference(pairs, "coco", name) for name, text in _SIZES.items()}
        classes = list(new[0]["classes"])
        by_class = {name: _difference(pairs, "classes", name, "AP") for name in classes}
        objects = {name: f"{new[0]['classes'][name]['objects']:,}" for name in classes}
        rows = [
            [
                name,
                objects[name],
                *(percent(fmean(_known(run["classes"][name]["AP"]) for run in side)) for side in (old, new)),
                points_interval(by_class[name]),
            ]
            for name in sorted(classes, key=lambda name: -_sortable(by_class[name].mean))
        ]
        header = ["class", "objects", f"AP {PLAIN}", f"AP {method.name}", "change"]
        body = (
            _bars(by_size, {}, f"Change of AP by size, {method.name}", "By size of the objects.")
            + _bars(by_class, objects, f"Change of AP by class, {method.name}", "By class, with its objects.")
            + html.table(header, rows)
        )
        heading = f"{method.name} against {PLAIN}"
        parts.append(f"<h3>{escape(heading)}</h3>{body}" if index == 0 else html.folded(heading, body))
    if parts:
        note = "COCO's AP in percentage points; means of the seeds, lines are 95 % intervals where there are several."
        parts.insert(0, html.paragraph(note, note=True))
    return Section(f"Change against {PLAIN}", "\n".join(parts))


def _images(results: Results, compared: Sequence[Method], options: Mapping[str, Any]) -> Section:
    title = "Images that changed most"
    if not compared:
        return Section(title, "")
    folder, method = Path(options["run"]), compared[0]
    pairings = []
    for seed, pair in _pairs(results, method.name).items():
        new, old = (_folder(run, folder) / "coco" for run in pair)
        if all((side / name).is_file() for side in (new, old) for name in ("ground_truth.json", "predictions.json")):
            pairings.append(Pairing.of_folders(f"seed {seed}", new, old))
    settings = (_evaluation_of(results.runs[0], folder) or {}).get("settings", {})
    data = options["data"] or settings.get("data")
    if not pairings or not data:
        return Section(title, html.paragraph("The runs' detections are not in the folder any more.", note=True))
    try:
        root = Path(check_det_dataset(data, autodownload=False)["path"])
        single = bool(settings.get("single_cls"))
        body = show_changes(pairings, (PLAIN, method.name), float(options["conf"]), root, single)
    except (DS2D2Error, OSError, SyntaxError, RuntimeError) as error:
        if options["data"]:
            raise DS2D2Error(f"data={data}: {error}") from error
        body = html.paragraph(f"The images are not where they were, pass data= to see them ({error}).", note=True)
    return Section(title, body)


# ------------------------------------------------------------------------------------------------- helpers


def _folder(run: Mapping[str, Any], folder: Path) -> Path:
    """Return the folder of a run, wherever the comparison's is now."""
    return folder / "runs" / Path(run["weights"]).parent.parent.name


def _gains(run: Mapping[str, Any], folder: Path) -> dict[str, float]:
    """Return the gains that a run has found or was given."""
    path = _folder(run, folder) / "args.yaml"
    arguments = YAML.load(path) if path.is_file() else {}
    return {name: arguments[name] for name in TERMS if isinstance(arguments.get(name), (int, float))}


def _evaluation_of(record: Mapping[str, Any], folder: Path) -> dict[str, Any] | None:
    """Return what COCO's evaluation of a run or of the teacher has saved."""
    names = [_folder(record, folder).name] if "method" in record else []
    names += [path.stem for path in sorted((folder / "runs").glob("teacher-*.json"))]
    files = [path for name in names if (path := folder / "runs" / name / "coco" / "coco.json").is_file()]
    return _read(files[0]) if files else None


def _pairs(results: Results, name: str) -> dict[int, tuple[dict[str, Any], dict[str, Any]]]:
    """Return a method's record and the plain student's, by seed."""
    by_seed = {
        method: {run["seed"]: run for run in results.runs if run["method"] == method} for method in (name, PLAIN)
    }
    return {seed: (run, by_seed[PLAIN][seed]) for seed, run in by_seed[name].items() if seed in by_seed[PLAIN]}


def _difference(pairs: Mapping[int, tuple[Mapping[str, Any], Mapping[str, Any]]], *keys: str) -> Interval:
    """Return the mean difference, with its interval, of what all pairs of records have under these keys."""
    return mean_interval(
        _known(reduce(getitem, keys, new)) - _known(reduce(getitem, keys, old)) for new, old in pairs.values()
    )


def _known(value: Any) -> float:
    """Return a value out of JSON, which has None in place of NaN."""
    return math.nan if value is None else float(value)


def _sortable(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _mean_columns(tables: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, list[float]]:
    """Return the means of the columns that several tables have, over as many epochs as all of them have."""
    if not tables:
        return {}
    length = min(len(values) for table in tables for values in table.values())
    names = [name for name in tables[0] if all(name in table for table in tables)]
    return {name: [fmean(table[name][row] for table in tables) for row in range(length)] for name in names}


def _bars(changes: Mapping[str, Interval], notes: Mapping[str, str], alt: str, caption: str) -> str:
    intervals = {
        name: (100 * own.low, 100 * own.high)
        for name, own in changes.items()
        if own.low is not None and own.high is not None
    }
    means = {name: 100 * own.mean for name, own in changes.items()}
    canvas = draw_changes(means, "change of AP, percentage points", notes, intervals)
    return html.picture(canvas.png(), alt, caption)
