"""Makes a page about a run and its changes against a baseline, from its files and measured numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics.utils import YAML

from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.evaluation import AGREEMENT, AP_COLUMNS, Evaluation, mask_and_keypoint_metrics
from ds2d2_yolo.explanation.progress import PairContent
from ds2d2_yolo.method import TERMS
from ds2d2_yolo.report.changes import Pairing, show_changes
from ds2d2_yolo.report.charts import draw_changes, draw_curves
from ds2d2_yolo.report.page import Folded, Grid, Paragraph, Part, Picture, Section, Table, facts, render_page
from ds2d2_yolo.report.progress import BANDS_PICTURE, LOGARITHMIC, TERMS_PICTURE, curves_of_terms
from ds2d2_yolo.report.text import SIZES, model_name, percent, points
from ds2d2_yolo.training.results import PAIR_FILE, TEACHER_FILE, read_columns

_METRICS = {"mAP50(B)": "AP50", "mAP50-95(B)": "AP50-95"}


@dataclass(frozen=True)
class Run:
    """The content of a run's folder.

    Attributes:
        folder (Path): The folder.
        args (dict[str, Any]): Content of args.yaml. Any: Ultralytics' arguments have many types.
        columns (dict[str, list[float]]): Content of results.csv, by column.
        pair (PairContent | None): Content of pair.json; None if the run was made without plots.
        weights (Path | None): best.pt, or last.pt if it is missing; None without both.
        teacher (dict[str, float] | None): Content of teacher.json, the AP of the teacher; None if it is missing.
    """

    folder: Path
    args: dict[str, Any]
    columns: dict[str, list[float]]
    pair: PairContent | None
    weights: Path | None
    teacher: dict[str, float] | None = None


def read_run(folder: Path) -> Run:
    """Read the folder of a student's run.

    Args:
        folder (Path): The folder.

    Returns:
        (Run): Its content.

    Raises:
        DS2D2Error: If args.yaml or results.csv is missing or damaged.
    """
    if not folder.is_dir():
        raise DS2D2Error(f"run={folder}: no such folder; pass the folder of a training or of a comparison", 2)
    for name in ("args.yaml", "results.csv"):
        if not (folder / name).is_file():
            raise DS2D2Error(f"run={folder}: has no {name}; pass the folder of a training or of a comparison", 2)
    try:
        args = YAML.load(folder / "args.yaml")
        pair, teacher = (
            json.loads((folder / name).read_text("utf-8")) if (folder / name).is_file() else None
            for name in (PAIR_FILE, TEACHER_FILE)
        )
    except Exception as error:  # YAML and JSON syntax, encodings: the same for the user
        raise DS2D2Error(
            f"run={folder}: args.yaml, {PAIR_FILE} or {TEACHER_FILE} is damaged ({error}); restore it, or pass another "
            "run"
        ) from error
    columns = read_columns(folder / "results.csv")
    if not columns:
        raise DS2D2Error(f"run={folder}: results.csv has no epochs yet; wait for the first one")
    weights = [path for name in ("best.pt", "last.pt") if (path := folder / "weights" / name).is_file()]
    return Run(folder, args, columns, pair, weights[0] if weights else None, teacher)


def run_page(run: Run, student: Evaluation | None, baseline: Evaluation | None, confidence: float, root: Path) -> str:
    """Return a page about a run and its changes against a baseline.

    Args:
        run (Run): The run.
        student (Evaluation | None): Evaluation of its student, if there is one.
        baseline (Evaluation | None): Evaluation of the baseline on the same images, if there is one.
        confidence (float): Lowest confidence of the detections that are compared image by image.
        root (Path): Folder of the data set of the evaluation.

    Returns:
        (str): HTML.

    Raises:
        DS2D2Error: If a shown image cannot be read.
    """
    sections = [
        _summary(run),
        _pair(run),
        _unlabeled(run),
        _curves(run),
        _scores(student, baseline),
        _changes(student, baseline),
        _images(student, baseline, confidence, root),
        _pictures(run),
        _arguments(run),
    ]
    student_name, teacher_name = (model_name(run.args.get(role)) for role in ("model", "teacher"))
    title = f"{run.folder.name}: {student_name} learning from {teacher_name}"
    return render_page(title, str(run.folder.resolve()), sections)


# ------------------------------------------------------------------------------------------------ sections


def _summary(run: Run) -> Section:
    args, columns = run.args, run.columns
    epochs = [int(epoch) for epoch in columns["epoch"]]
    values: dict[str, object] = {
        "student": args.get("model"),
        "teacher": args.get("teacher"),
        "amplifier": args.get("amplifier") or "none",
        "data": args.get("data"),
        "gains": ", ".join(f"{name} {args[name]:g}" for name in TERMS if isinstance(args.get(name), (int, float))),
        "image size, batch, seed": f"{args.get('imgsz')}, {args.get('batch')}, {args.get('seed')}",
        "image size of the teacher": args.get("teacher_imgsz") or args.get("imgsz"),
        "epochs": f"{epochs[-1]} of {args.get('epochs')}",
    }
    if run.teacher is not None:
        scores = (f"{title} {run.teacher[name]:.3f}" for name, title in (("mAP50", "AP50"), ("mAP50-95", "AP50-95")))
        values["teacher on the validation set, by Ultralytics"] = ", ".join(scores)
    titles = {f"metrics/{key}": title for key, title in _METRICS.items()}
    others = mask_and_keypoint_metrics({name: series[-1] for name, series in columns.items()})
    titles |= {name: name.removeprefix("metrics/") for name in others}
    for key, title in titles.items():
        series = columns.get(key)
        if series and np.isfinite(series).any():
            best = int(np.nanargmax(series))
            values[f"{title}, by Ultralytics"] = (
                f"{series[-1]:.3f} at the end, at most {series[best]:.3f} in epoch {epochs[best]}"
            )
    if "time" in columns:
        values["time"] = f"{columns['time'][-1] / 60:.0f} minutes"
    return Section("Summary", [facts(values)])


def _pair(run: Run) -> Section:
    if run.pair is None:
        return Section("Pair", [Paragraph(f"No {PAIR_FILE} in this run: it was made with plots=False.", note=True)])
    rows = [
        [
            f"{level['stride']:g}",
            level["student_layer"],
            level["student_channels"],
            level["teacher_layer"],
            level["teacher_channels"],
            ", ".join(kind for kind in ("explicit", "implicit") if level[kind]),
        ]
        for level in run.pair["levels"]
    ]
    models = {"student": run.pair["student"], "teacher": run.pair["teacher"]}
    values = {role: f"{model['model']}, {model['box_coding']}" for role, model in models.items()}
    header = ["stride", "student layer", "channels", "teacher layer", "channels", "compared by"]
    classes = ", ".join(run.pair["classes"])
    return Section("Pair", [facts({**values, "wavelet": run.pair["wavelet"], "classes": classes}), Table(header, rows)])


def _unlabeled(run: Run) -> Section:
    """Return a section about the run's unlabelled images, and the quality of their pseudo-labels."""
    value, title = run.args.get("unlabeled"), "Unlabelled images"
    if not value:
        return Section(title, [])
    try:
        content = json.loads(Path(str(value)).read_text("utf-8"))
        rows = [
            [name, *(_figure(entry[key]) for key in ("confidence", "precision", "recall")), f"{entry['boxes']:,}"]
            for name, entry in content["thresholds"].items()
        ]
        values: dict[str, object] = {
            "images": f"{content['images']:,}, of these {content['without_boxes']:,} without a box",
            "boxes": f"{content['boxes']:,}",
            "left out": ", ".join(f"{number:,} {why}" for why, number in content["left_out"].items()) or "none",
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Section(
            title, [Paragraph(f"{value} is missing or damaged: it has the numbers of pseudo-labels.", note=True)]
        )
    values |= {
        "most per labelled image": run.args.get("unlabeled_ratio"),
        "weight": run.args.get("unlabeled_weight"),
    }
    last = {name: series[-1] for name, series in run.columns.items()}
    for kind, name in (("labeled", "labelled"), ("unlabeled", "unlabelled")):
        if f"{kind}/images" in last:
            counts = f"{last[f'{kind}/images']:,.0f} images with {last[f'{kind}/boxes']:.1f} boxes each"
            values[f"{name}, last epoch"] = f"{counts}; class loss {last[f'{kind}/cls']:.3f}"
    note = "Precision and recall are those of detections on the validation set with at least this confidence."
    header = ["class", "lowest confidence", "precision", "recall", "boxes"]
    return Section(title, [facts(values), Table(header, rows), Paragraph(note, note=True)])


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _curves(run: Run) -> Section:
    columns = run.columns
    groups: dict[str, dict[str, Sequence[float]]] = {}
    for split in ("train", "val"):
        losses: dict[str, Sequence[float]] = {
            name.removeprefix(f"{split}/").removesuffix("_loss"): values
            for name, values in columns.items()
            if name.startswith(f"{split}/") and name.removeprefix(f"{split}/").removesuffix("_loss") not in TERMS
        }
        if losses:
            groups[f"detection losses, {split}"] = losses
    kinds = [name for name in ("labeled", "unlabeled") if f"{name}/cls" in columns]
    groups["class loss by kind of image"] = {name: columns[f"{name}/cls"] for name in kinds}
    groups |= curves_of_terms(columns)
    metrics = {name.removeprefix("metrics/"): v for name, v in columns.items() if name.startswith("metrics/")}
    groups["metrics, by Ultralytics"] = {
        _METRICS.get(name, name.removesuffix("(B)")): values
        for name, values in metrics.items()
        if f"metrics/{name}" not in AGREEMENT
    }
    groups["agreement with the teacher"] = {
        name.replace("_", ", "): values for name, values in metrics.items() if f"metrics/{name}" in AGREEMENT
    }
    groups = {title: curves for title, curves in groups.items() if curves}
    canvas = draw_curves(groups, columns["epoch"], logarithmic=LOGARITHMIC)
    caption = (
        "Numbers are those of the last epoch. Terms and gains have logarithmic axes. The gradient of a term, times its "
        "gain, is relative to the gradient of the detection loss, for all levels together and for each."
    )
    return Section("Curves", [Picture(canvas.png(), "Losses, terms and metrics by epoch", caption)])


def _scores(student: Evaluation | None, baseline: Evaluation | None) -> Section:
    if student is None:
        return Section("Average precision", [])
    sides = {"student": student} | ({"baseline": baseline} if baseline else {})
    values = {
        side: {name: getattr(scores, name) for name in AP_COLUMNS} | scores.figures for side, scores in sides.items()
    }
    rows = [[side, *map(percent, figures.values())] for side, figures in values.items()]
    if baseline:
        changes = (value - values["baseline"][name] for name, value in values["student"].items())
        rows.append(["change", *map(points, changes)])
    sizes = ", ".join(f"{count} {name}" for name, count in student.sizes.items())
    split = student.settings["split"]
    measured = f"{student.images} images of '{split}' with {student.objects} objects: {sizes}"
    beside = ", of masks (M) or keypoints (P) by Ultralytics" if student.figures else ""
    note = f"Percent, of boxes by COCO's definition{beside}, on {measured}."
    classes = [
        [
            name,
            scores.objects,
            *(percent(side.classes[name].AP50) for side in sides.values()),
            *(percent(side.classes[name].AP) for side in sides.values()),
        ]
        for name, scores in student.classes.items()
    ]
    header = ["class", "objects", *(f"AP50 {side}" for side in sides), *(f"AP {side}" for side in sides)]
    means = Table(["", *(name.removeprefix("metrics/") for name in values["student"])], rows)
    return Section("Average precision", [means, Paragraph(note, note=True), Table(header, classes)])


def _changes(student: Evaluation | None, baseline: Evaluation | None) -> Section:
    if student is None or baseline is None:
        return Section("Change against the baseline", [])
    by_class = {name: 100 * (scores.AP - baseline.classes[name].AP) for name, scores in student.classes.items()}
    counts = {name: f"{scores.objects:,}" for name, scores in student.classes.items()}
    by_size = {text: 100 * (getattr(student, name) - getattr(baseline, name)) for name, text in SIZES.items()}
    by_size["all"] = 100 * (student.AP - baseline.AP)
    sizes = {**{name: f"{count:,}" for name, count in student.sizes.items()}, "all": f"{student.objects:,}"}
    class_bars, size_bars = draw_changes(by_class, counts), draw_changes(by_size, sizes)
    parts: list[Part] = [
        Picture(class_bars.png(), "Change of AP by class", "By class, with the number of objects."),
        Picture(size_bars.png(), "Change of AP by size", "By size of the objects."),
        Paragraph("One run each: another seed also changes AP. Compare several seeds to judge a small change.", True),
    ]
    return Section("Change against the baseline", parts)


def _images(student: Evaluation | None, baseline: Evaluation | None, confidence: float, root: Path) -> Section:
    title = "Images that changed most"
    if student is None or baseline is None:
        return Section(title, [])
    pairing = Pairing.of_folders("", student.folder, baseline.folder, confidence)
    return Section(title, show_changes([pairing], ("baseline", "student"), confidence, root))


def _pictures(run: Run) -> Section:
    first = [
        run.folder / TERMS_PICTURE,
        *sorted(run.folder.glob(BANDS_PICTURE.format("*"))),
        run.folder / "results.png",
    ]
    first = [path for path in first if path.is_file()]
    others = sorted(path for kind in ("png", "jpg") for path in run.folder.glob(f"*.{kind}") if path not in first)
    parts: list[Part] = [Picture(path, path.stem, path.name) for path in first]
    if others:
        pictures = Grid([Picture(path, path.stem, path.name) for path in others])
        parts.append(Folded(f"{len(others)} pictures by Ultralytics", [pictures]))
    return Section("Pictures of the run", parts)


def _arguments(run: Run) -> Section:
    return Section("Arguments", [Folded("args.yaml", [facts(run.args)])])
