"""Reads a finished comparison from its folder, which may have been moved."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict, cast

from ultralytics.utils import DEFAULT_CFG_DICT

from ds2d2_yolo.comparison.methods import Comparison, Distil, Method
from ds2d2_yolo.comparison.records import EvaluationRecord, Results, RunRecord, training_seconds
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.loading.fingerprint import fingerprint_of_inputs
from ds2d2_yolo.training.amplifier import read_amplifier

COMPARISON_TABLE = "comparison.csv"
"""A file that only the folder of a finished comparison has."""

# Neither shared nor a difference between methods: the seed, and arguments of the teacher's and the amplifier's training
_STAGES = {"seed", "teacher", "teacher_epochs", "amplifier", "amplifier_epochs", "distill_model"}


class CocoEvaluation(TypedDict):
    """The parts of an evaluation's `coco.json` that are used: number of images and objects, arguments."""

    images: int
    objects: int
    settings: dict[str, object]


def read_comparison(folder: Path) -> tuple[Comparison, Results]:
    """Read a finished comparison and its results.

    The folder may have been moved, and may hold records of other runs. `comparison.csv` lists those that belong to it.

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
            raise DS2D2Error(f"run={folder}: {COMPARISON_TABLE} lists no runs; run the same 'ds2d2 compare' again")
        runs = [cast(RunRecord, _read(folder / "runs" / f"{name}.json")) for name in names]
        teacher = _teacher_of(folder, runs)
        results = Results(teacher, _stages_of(teacher, runs), runs)
        first_runs = {name: results.runs_of(name)[0] for name in results.methods}
        arguments = _arguments_by_method(first_runs)
        shared = _shared(list(arguments.values()))
        methods = [
            Method(
                name,
                cast(Distil, run["inputs"]["distil"]),
                {key: value for key, value in arguments[name].items() if key not in shared},
            )
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
    """Return the folder of a run, even if the folder of the comparison was moved."""
    return folder / "runs" / Path(run["weights"]).parent.parent.name


def folder_of_teacher(results: Results, folder: Path) -> Path:
    """Return the folder of the teacher's evaluation, even if the folder of the comparison was moved."""
    return folder / "runs" / f"teacher-{fingerprint_of_inputs(results.teacher['inputs'])[:8]}"


def coco_evaluation(folder: Path, run: RunRecord) -> CocoEvaluation | None:
    """Return the saved COCO evaluation of a run. If it is missing, that of a teacher is returned, or None."""
    names = [folder_of(run, folder).name, *(path.stem for path in _records_of_teachers(folder))]
    files = [path for name in names if (path := folder / "runs" / name / "coco" / "coco.json").is_file()]
    return cast(CocoEvaluation, _read(files[0])) if files else None


def _read(path: Path) -> dict[str, object]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise DS2D2Error(f"{path}: cannot be read, {error}; run the same 'ds2d2 compare' again") from error


def _arguments_by_method(runs: Mapping[str, RunRecord]) -> dict[str, dict[str, object]]:
    """Return the arguments of the methods' students. Without unlabelled images, `unlabeled` is left out."""
    left_out = _STAGES | (set() if any(run["arguments"].get("unlabeled") for run in runs.values()) else {"unlabeled"})
    return {
        name: {key: value for key, value in run["arguments"].items() if key not in left_out}
        for name, run in runs.items()
    }


def _shared(arguments: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Return the arguments that have the same value in all methods."""
    first, *others = arguments
    return {key: value for key, value in first.items() if all(key in o and o[key] == value for o in others)}


def _teacher_of(folder: Path, runs: Sequence[RunRecord]) -> EvaluationRecord:
    """Return the latest record of a teacher of the runs on their data. Methods may have several teachers."""
    wanted = [run["inputs"]["teacher"] for run in runs if "teacher" in run["inputs"]]
    records = [
        record
        for record in _records_of_teachers(folder).values()
        if record["inputs"]["data"] == runs[0]["inputs"]["data"]
    ]
    if not records:
        raise DS2D2Error(f"run={folder}: has no record of the teacher; run the same 'ds2d2 compare' again")
    return max(records, key=lambda record: (record["inputs"]["teacher"] in wanted, record["date"]))


def _records_of_teachers(folder: Path) -> dict[Path, EvaluationRecord]:
    """Return the records of teachers by file. Those of a method such as `teacher-assignment` have similar names."""
    records = {path: _read(path) for path in sorted((folder / "runs").glob("teacher-*.json"))}
    return {path: cast(EvaluationRecord, record) for path, record in records.items() if "method" not in record}


def _stages_of(teacher: EvaluationRecord, runs: Sequence[RunRecord]) -> dict[str, float | None]:
    """Return the training times of the teacher and of every amplifier, in seconds."""
    usual = cast(Mapping[str, object], teacher["inputs"]["settings"])["imgsz"]
    stages = {"teacher": training_seconds(teacher["weights"])}
    for run in runs:
        arguments = run["arguments"]
        size = arguments.get("teacher_imgsz") or arguments.get("imgsz", DEFAULT_CFG_DICT["imgsz"])
        for role in ("teacher", "amplifier"):
            path = Path(str(arguments.get(role)))
            if path.is_file() and str(path) != teacher["weights"]:
                what = role if role == "teacher" else f"{role} {read_amplifier(path)['wavelet']}"
                stages[what if size == usual else f"{what} at {size}"] = training_seconds(str(path))
    return stages
