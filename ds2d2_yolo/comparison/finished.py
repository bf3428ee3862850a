"""A finished comparison, read back from its folder, wherever that is now."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict, cast

from ds2d2_yolo.comparison.methods import Comparison, Distil, Method
from ds2d2_yolo.comparison.records import EvaluationRecord, Results, RunRecord, training_seconds
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.loading.fingerprint import fingerprint_of_inputs
from ds2d2_yolo.training.amplifier import read_amplifier

COMPARISON_TABLE = "comparison.csv"
"""What a finished comparison has in its folder, and a run has not."""

# What the files and schedules of the stages before a run differ in is no difference between methods
_STAGES = {"seed", "teacher", "teacher_epochs", "amplifier", "amplifier_epochs", "distill_model"}


class CocoEvaluation(TypedDict):
    """What is needed of the `coco.json` of an evaluation: how many images and objects, and its arguments."""

    images: int
    objects: int
    settings: dict[str, object]


def read_comparison(folder: Path) -> tuple[Comparison, Results]:
    """Read what a finished comparison was and what it found.

    The folder may have been moved, and may hold records of other runs: `comparison.csv` says which ones belong to it.

    Args:
        folder (Path): The folder.

    Returns:
        comparison (Comparison): What was compared.
        results (Results): The records of the teacher and of all runs.

    Raises:
        DS2D2Error: If a file is missing or damaged.
    """
    try:
        with (folder / COMPARISON_TABLE).open(newline="", encoding="utf-8") as file:
            names = [Path(row["weights"]).parent.parent.name for row in csv.DictReader(file)]
        if not names:
            raise DS2D2Error(f"run={folder}: {COMPARISON_TABLE} names no runs; run the same 'ds2d2 compare' again")
        runs = [cast(RunRecord, _read(folder / "runs" / f"{name}.json")) for name in names]
        teacher = _teacher_of(folder, runs)
        results = Results(teacher, _stages_of(teacher, runs), runs)
        first_runs = {name: results.runs_of(name)[0] for name in results.methods}
        shared = _shared([run["arguments"] for run in first_runs.values()])
        methods = [
            Method(name, cast(Distil, run["inputs"]["distil"]), _differing(run["arguments"], shared))
            for name, run in first_runs.items()
        ]
        seeds = list(dict.fromkeys(run["seed"] for run in runs))
        comparison = Comparison(folder, methods, seeds, {**shared, "teacher": teacher["weights"]})
    except (KeyError, TypeError, IndexError) as error:
        raise DS2D2Error(
            f"run={folder}: {COMPARISON_TABLE} or a record is damaged ({error!r}); run the same 'ds2d2 compare' again"
        ) from error
    return comparison, results


def folder_of(run: RunRecord, folder: Path) -> Path:
    """Return the folder of a run in the folder of its comparison, which may have been moved."""
    return folder / "runs" / Path(run["weights"]).parent.parent.name


def folder_of_teacher(results: Results, folder: Path) -> Path:
    """Return the folder of the teacher's evaluation in the folder of its comparison, which may have been moved."""
    return folder / "runs" / f"teacher-{fingerprint_of_inputs(results.teacher['inputs'])[:8]}"


def coco_evaluation(folder: Path, run: RunRecord | None = None) -> CocoEvaluation | None:
    """Return what COCO's evaluation of a run, or else of the teacher, has saved; None where its file is gone."""
    names = [] if run is None else [folder_of(run, folder).name]
    names += [path.stem for path in sorted((folder / "runs").glob("teacher-*.json"))]
    files = [path for name in names if (path := folder / "runs" / name / "coco" / "coco.json").is_file()]
    return cast(CocoEvaluation, _read(files[0])) if files else None


def _read(path: Path) -> dict[str, object]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise DS2D2Error(f"{path}: cannot be read, {error}; run the same 'ds2d2 compare' again") from error


def _shared(arguments: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Return the arguments that all methods have, with one value."""
    first, *others = arguments
    return {key: value for key, value in first.items() if all(key in o and o[key] == value for o in others)}


def _differing(arguments: Mapping[str, object], shared: Mapping[str, object]) -> dict[str, object]:
    """Return in what a method differs from the others."""
    return {key: value for key, value in arguments.items() if key not in shared and key not in _STAGES}


def _teacher_of(folder: Path, runs: Sequence[RunRecord]) -> EvaluationRecord:
    """Return the latest record of the teacher that the runs had, on their data."""
    wanted = next((run["inputs"]["teacher"] for run in runs if "teacher" in run["inputs"]), None)
    paths = sorted((folder / "runs").glob("teacher-*.json"))
    records = [
        record
        for record in (cast(EvaluationRecord, _read(path)) for path in paths)
        if record["inputs"]["data"] == runs[0]["inputs"]["data"] and wanted in {None, record["inputs"]["teacher"]}
    ]
    if not records:
        raise DS2D2Error(f"run={folder}: holds no record of the teacher; run the same 'ds2d2 compare' again")
    return max(records, key=lambda record: record["date"])


def _stages_of(teacher: EvaluationRecord, runs: Sequence[RunRecord]) -> dict[str, float | None]:
    """Return for how many seconds the teacher and every amplifier were trained."""
    stages = {"teacher": training_seconds(teacher["weights"])}
    for path in dict.fromkeys(run["arguments"].get("amplifier") for run in runs):
        if path and Path(str(path)).is_file():
            stages[f"amplifier {read_amplifier(str(path))['wavelet']}"] = training_seconds(str(path))
    return stages
