"""`ds2d2 report`: makes a page about a run and its changes against a baseline, or about a comparison."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ultralytics.data.utils import check_det_dataset

from ds2d2_yolo.commands.words import parse_arguments
from ds2d2_yolo.comparison.finished import COMPARISON_TABLE
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.evaluation import Evaluation, evaluate
from ds2d2_yolo.files import report_full_disk
from ds2d2_yolo.loading.classes import class_difference
from ds2d2_yolo.loading.models import load_model
from ds2d2_yolo.loading.safety import check_safety
from ds2d2_yolo.options import check_confidence, complete_options, new_folder, option_defaults, usable_path
from ds2d2_yolo.report.comparison_page import comparison_page
from ds2d2_yolo.report.run_page import Run, read_run, run_page

_COMPARISON_OPTIONS = {"run", "data", "conf", "out", "exist_ok", "safe"}  # options that also work for a comparison


def run_report(given: Mapping[str, Any]) -> None:
    """Write `report.html` about a run, or about a comparison.

    Args:
        given (Mapping[str, Any]): Options that replace those of `cfg/report.yaml`; `run` is required.

    Raises:
        DS2D2Error: If an option is wrong, the folder is not a run, or a model or the data cannot be used.

    Example:
        >>> run_report({"run": "runs/detect/train"})  # doctest: +SKIP
    """
    options = complete_options("report", given, required=("run",))
    check_confidence(options["conf"])
    folder = usable_path("run", str(options["run"]))
    if (folder / COMPARISON_TABLE).is_file():
        _report_comparison(folder, options)
        return
    run = read_run(folder)
    baseline = _weights_of(options["baseline"]) if options["baseline"] else None
    if options["safe"]:
        check_safety({"run": run.weights, "baseline": baseline})
    if options["val"] and run.weights is None:
        raise DS2D2Error(f"run={run.folder}: has no weights/best.pt to evaluate; pass val=False")
    if baseline is not None and not options["val"]:
        raise DS2D2Error("baseline= needs an evaluation, but val=False was passed; leave val= out", 2)
    if baseline is not None:
        _check_baseline(baseline, run)
    out = new_folder("report", options["out"] or run.folder / "report", options["exist_ok"])
    with report_full_disk(out), _removed_on_error(out):
        measured = _measure(run, baseline, out, options) if options["val"] else {}
        root = Path()
        if baseline is not None:
            root = Path(check_det_dataset(measured["student"].settings["data"], autodownload=False)["path"])
        _save(out, run_page(run, measured.get("student"), measured.get("baseline"), float(options["conf"]), root))


def run(arguments: Sequence[str]) -> None:
    """Run the command with the words after its name."""
    first, *rest = arguments or [""]
    if first and "=" not in first and not (rest and rest[0].startswith("=")):  # the folder without `run=`
        arguments = [f"run={first}", *rest]
    run_report(parse_arguments(arguments))


@contextmanager
def _removed_on_error(folder: Path) -> Iterator[None]:
    """Remove a new folder if the block fails: an evaluation of one model alone is not a report."""
    is_new = not folder.exists()
    try:
        yield
    except DS2D2Error:
        if is_new:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _report_comparison(folder: Path, options: Mapping[str, Any]) -> None:
    for name, default in option_defaults("report").items():
        if name not in _COMPARISON_OPTIONS and options[name] != default:
            raise DS2D2Error(
                f"{name}={options[name]}: is for single runs, a comparison is evaluated already; leave {name}= out", 2
            )
    out = new_folder("report", options["out"] or folder / "report", options["exist_ok"])
    with report_full_disk(out):
        _save(out, comparison_page(folder, options["data"], float(options["conf"])))


def _save(folder: Path, page: str) -> None:
    """Write the page and print its path."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.html").write_text(page, encoding="utf-8")
    except OSError as error:
        raise DS2D2Error(f"out={folder}: cannot write here ({error.strerror or error}); pass another out=") from error
    print(f"Saved as {folder / 'report.html'}")


def _weights_of(baseline: str | Path) -> Path:
    path = usable_path("baseline", str(baseline))
    if path.is_dir():
        found = path / "weights" / "best.pt"
        if not found.is_file():
            raise DS2D2Error(f"baseline={path}: has no weights/best.pt; pass the folder of a run, or a .pt", 2)
        return found
    if path.suffix != ".pt" or not path.is_file():
        raise DS2D2Error(f"baseline={path}: no such file or folder; pass the folder of a run, or a .pt", 2)
    return path


def _check_baseline(baseline: Path, run: Run) -> None:
    """Refuse a baseline with another number of classes, before the student is evaluated."""
    ours, theirs = (
        load_model(role, path)[0].class_names for role, path in (("run", str(run.weights)), ("baseline", baseline))
    )
    if len(ours) != len(theirs) and not run.args.get("single_cls"):
        raise DS2D2Error(
            f"baseline={baseline}: {class_difference(theirs, ours, 'the student')}; pass a baseline with the student's "
            "classes"
        )


def _measure(run: Run, baseline: Path | None, out: Path, options: Mapping[str, Any]) -> dict[str, Evaluation]:
    """Return the evaluations of the student and, if given, of the baseline, by role."""
    arguments: dict[str, Any] = {
        "split": options["split"],
        "imgsz": options["imgsz"] or run.args.get("imgsz", 640),
        "single_cls": bool(run.args.get("single_cls")),
        "classes": run.args.get("classes"),
        "device": options["device"],
        "plots": False,
    }
    data = options["data"] or run.args.get("data")
    if not data:
        raise DS2D2Error(f"run={run.folder}: its args.yaml names no data; pass data=path/to/data.yaml", 2)
    return {
        name: evaluate(weights, data, project=str(out.absolute()), name=name, exist_ok=True, **arguments)
        for name, weights in {"student": run.weights, "baseline": baseline}.items()
        if weights is not None
    }
