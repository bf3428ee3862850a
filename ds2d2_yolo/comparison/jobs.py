"""The stages and runs of a comparison, each in a process of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ultralytics.utils import LOGGER, colorstr
from ultralytics.utils.callbacks import get_default_callbacks

from ds2d2_yolo.comparison.plan import Comparison
from ds2d2_yolo.comparison.processes import run_jobs, take_job
from ds2d2_yolo.comparison.records import (
    _CHECKS,
    _MODELS,
    Results,
    _write_record,
    fingerprint_of_student,
    read_curve,
    read_record,
    shaping_arguments,
    training_seconds,
)
from ds2d2_yolo.detectors import Detector
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.evaluation import AP_COLUMNS, evaluate, figures_beside_boxes
from ds2d2_yolo.loading.fingerprint import (
    fingerprint_of_data,
    fingerprint_of_file,
    fingerprint_of_inputs,
    fingerprint_of_model,
)
from ds2d2_yolo.loading.models import load_model
from ds2d2_yolo.training.amplifier import read_amplifier
from ds2d2_yolo.training.arguments import DEFAULTS, check_arguments
from ds2d2_yolo.training.pipeline import plan
from ds2d2_yolo.training.protocols import Callbacks
from ds2d2_yolo.training.resume import complete_checkpoints
from ds2d2_yolo.training.stages import folder_lock, training_state, without_student_start
from ds2d2_yolo.training.student import StudentTrainer
from ds2d2_yolo.training.trainer import PlainTrainer

WORKER = ("-m", "ds2d2_yolo.commands.compare")
"""Arguments of Python that start a process for one job."""
_RESUMABLE = ("data", "device", "workers", "cache", "plots")  # what Ultralytics lets a resumed run change


# --------------------------------------------------------------------------------------------------------- runs


def run_comparison(comparison: Comparison, worker: Sequence[str] = WORKER) -> Results:
    """Make the stages and the runs that are missing, and return what all of them found.

    Args:
        comparison (Comparison): What `plan_comparison` returned.
        worker (Sequence[str]): Arguments of Python that start a process which calls `work`. Runs of another worker than
            the default are not mixed with those of the default.

    Returns:
        (Results): Everything that tables and pictures are made of.

    Raises:
        DS2D2Error: If a run fails.
    """
    jobs = _Jobs(comparison, worker)
    teacher, seconds = jobs.make_teacher()
    detector, _ = load_model("teacher", teacher)
    stages = {"teacher": seconds}
    amplifiers = jobs.make_amplifiers(teacher)
    for path in dict.fromkeys(path for path in amplifiers.values() if path):
        stages[f"amplifier {read_amplifier(path)['wavelet']}"] = training_seconds(path)
    records = jobs.make_runs(teacher, detector, amplifiers)
    return Results(records[0], stages, records[1:])


class _Jobs:
    """The jobs of a comparison."""

    def __init__(self, comparison: Comparison, worker: Sequence[str]) -> None:
        self.comparison = comparison
        self.worker = worker
        self.inputs = {
            "data": fingerprint_of_data(comparison.data),
            **({} if tuple(worker) == WORKER else {"worker": [Path(word).name for word in worker]}),
        }

    def make_teacher(self) -> tuple[str, float | None]:
        """Return the teacher's checkpoint and how long it was trained."""
        teacher = self.comparison.arguments["teacher"]
        if Path(teacher).suffix != ".pt":
            arguments = self._stage_arguments({"teacher": teacher})
            planned = plan(arguments, "teacher")
            if not planned.is_ready:
                self._run([self._stage_job("teacher", "teacher", arguments)])
            teacher = planned.arguments.teacher
        return teacher, training_seconds(teacher)

    def make_amplifiers(self, teacher: str) -> dict[str, str | None]:
        """Return the amplifier of every method that has one."""
        amplifiers: dict[str, str | None] = {}
        given = self.comparison.arguments["amplifier"]
        by_wavelet: dict[str, str] = {} if given in {None, "auto"} else {read_amplifier(given)["wavelet"]: given}
        jobs = []
        for method in self.comparison.methods:
            amplifiers[method.name] = None
            if method.distil != "ds2d2":
                continue
            of_stage = {key: value for key, value in method.arguments.items() if key != "epochs"}
            arguments = self._stage_arguments({**of_stage, "teacher": teacher})
            args = check_arguments(arguments)
            if not args.gains.im_high:
                continue
            if args.wavelet not in by_wavelet:
                arguments["amplifier"] = "auto"  # the one given, if any, is of another wavelet
                planned = plan(arguments, "amplifier")
                by_wavelet[args.wavelet] = str(planned.arguments.amplifier)
                if not planned.is_ready:
                    jobs.append(self._stage_job("amplifier", f"amplifier of {method.name}", arguments))
            amplifiers[method.name] = by_wavelet[args.wavelet]
        self._run(jobs)
        return amplifiers

    def make_runs(self, teacher: str, detector: Detector, amplifiers: Mapping[str, str | None]) -> list[dict[str, Any]]:
        """Return the records of the teacher's evaluation and of every run."""
        comparison = self.comparison
        student, _ = load_model("student", comparison.arguments["model"], comparison.data)
        of_teacher = fingerprint_of_model(detector.model)
        args = check_arguments(comparison.arguments)
        settings = {name: getattr(args, name) for name in ("imgsz", "batch", "split", "single_cls", "iou", "max_det")}
        jobs = [
            self._job("evaluation", "teacher", {**self.inputs, "teacher": of_teacher, "settings": settings})
            | {"arguments": {**comparison.arguments, "model": teacher}}
        ]
        of_student = fingerprint_of_student(args, student)
        hashes = {path: fingerprint_of_file(Path(path)) for path in set(amplifiers.values()) if path}
        for seed in comparison.seeds:
            for method in comparison.methods:
                amplifier = amplifiers[method.name]
                arguments = comparison.arguments_of(method, teacher, amplifier) | {"seed": seed}
                complete = check_arguments(arguments)
                inputs = {**self.inputs, "distil": method.distil, "student": of_student, "seed": seed}
                inputs |= {"epochs": complete.epochs, "arguments": shaping_arguments(complete)}
                if method.distil != "none":
                    inputs["teacher"] = of_teacher
                if method.distil == "ds2d2":
                    # Defaults, too: a run made with other ones is another run
                    own = sorted(set(DEFAULTS) - _MODELS - _CHECKS)
                    inputs["distillation"] = {name: getattr(complete, name) for name in own}
                    inputs["amplifier"] = hashes.get(str(amplifier))
                job = self._job("run", f"{method.name}-{seed}", inputs)
                job |= {"method": method.name, "seed": seed, "distil": method.distil, "arguments": arguments}
                jobs.append(job)
        self._run([job for job in jobs if read_record(Path(job["record"]), job["inputs"]) is None])
        return [_record_of(job) for job in jobs]

    def _job(self, kind: str, title: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        inputs = json.loads(json.dumps(inputs, default=str))
        folder = self.comparison.runs / f"{title}-{fingerprint_of_inputs(inputs)[:8]}"
        files = {"record": f"{folder}.json", "log": f"{folder}.log", "folder": str(folder)}
        return {"kind": kind, "title": title, "inputs": inputs, **files}

    def _stage_arguments(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        shared = {key: value for key, value in self.comparison.arguments.items() if key not in {"model", "dis"}}
        return without_student_start({**shared, **changes})

    def _stage_job(self, kind: str, title: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        log = self.comparison.runs / f"{title.replace(' ', '-')}.log"
        return {"kind": kind, "title": title, "log": str(log), "arguments": dict(arguments)}

    def _run(self, jobs: list[dict[str, Any]]) -> None:
        if jobs:
            titles = ", ".join(job["title"] for job in jobs)
            LOGGER.info(f"{colorstr('DS2D2:')} to do: {titles}; output in {self.comparison.runs}")
        run_jobs(jobs, self.worker, lambda job: LOGGER.info(f"  {_outcome(job)}"), self.comparison.cluster)


def _outcome(job: Mapping[str, Any]) -> str:
    """Return what a finished job came to, for a person."""
    if "record" not in job:
        return f"{job['title']}: trained"
    record = _record_of(job)
    minutes = f", {record['seconds'] / 60:.1f} minutes" if record.get("seconds") is not None else ""
    figures = {name: record[name] for name in ("AP50", "AP50-95")} | figures_beside_boxes(record)
    told = ", ".join(f"{name.removeprefix('metrics/')} {value:.3f}" for name, value in figures.items())
    return f"{job['title']}: {told}{minutes}"


def _record_of(job: Mapping[str, Any]) -> dict[str, Any]:
    record = read_record(Path(job["record"]), job["inputs"])
    if record is None:
        raise DS2D2Error(f"{job['record']}: is missing or damaged, run the same command again")
    return record


# -------------------------------------------------------------------------------------------------- inside of a job


def work(distiller: type[StudentTrainer], callbacks: Callbacks | None = None) -> int:
    """Do the job that this process was started for.

    Args:
        distiller (type[StudentTrainer]): The trainer of distilled students.
        callbacks (dict[str, list] | None): Callbacks of Ultralytics by event, for the trainings.

    Returns:
        (int): Exit code.
    """
    try:
        execute(take_job(), distiller, callbacks)
    except DS2D2Error as error:
        print(f"ds2d2: error: {error}", flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        print("ds2d2: interrupted", flush=True)
        return 130
    return 0


def execute(job: Mapping[str, Any], distiller: type[StudentTrainer], callbacks: Callbacks | None = None) -> None:
    """Do a job in this process.

    Args:
        job (Mapping[str, Any]): What `run_comparison` made of a stage, an evaluation or a run.
        distiller (type[StudentTrainer]): The trainer of distilled students.
        callbacks (dict[str, list] | None): Callbacks of Ultralytics by event, for the trainings.
    """
    if job["kind"] in {"teacher", "amplifier"}:
        plan(job["arguments"], job["kind"]).run(callbacks)
    else:
        with folder_lock(Path(job["folder"]), job["title"]):
            if read_record(Path(job["record"]), job["inputs"]) is None:  # none was made while this process waited
                content = _evaluate(job) if job["kind"] == "evaluation" else _train(job, distiller, callbacks)
                _write_record(job, content)


def _train(job: Mapping[str, Any], distiller: type[StudentTrainer], callbacks: Callbacks | None) -> dict[str, Any]:
    """Train a student, from where an interrupted run stopped, and return what there is to know about it."""
    folder, arguments = Path(job["folder"]), dict(job["arguments"])
    weights, starts = folder / "weights", folder / "starts.txt"
    callbacks = {event: list(functions) for event, functions in (callbacks or get_default_callbacks()).items()}
    callbacks["on_train_start"] += [_start_measuring, partial(_note_start, starts)]
    callbacks["on_train_epoch_end"].append(partial(_check_batch, int(check_arguments(arguments).batch)))
    trainer_class = distiller if job["distil"] == "ds2d2" else PlainTrainer
    state, memory = training_state(weights), None
    if state == "trained":
        complete_checkpoints(weights)
    else:
        overrides = {**arguments, "save_dir": str(folder), "exist_ok": True}
        if state == "resumable":
            overrides = {key: overrides[key] for key in _RESUMABLE if key in overrides}
            overrides |= {"resume": str(weights / "last.pt"), "save_dir": str(folder)}
        else:
            starts.unlink(missing_ok=True)
        trainer: Any = trainer_class(overrides=overrides, _callbacks=callbacks)
        trainer.train()
        memory = _peak_memory(trainer)
    curve = read_curve(folder / "results.csv")
    evaluation = _evaluate({**job, "arguments": {**arguments, "model": str(weights / "best.pt")}})
    started = starts.read_text().split() if starts.is_file() else []
    return evaluation | {
        "method": job["method"],
        "seed": job["seed"],
        "seconds": curve[-1]["seconds"],
        "seconds_per_epoch": curve[-1]["seconds"] / len(curve),
        "peak_bytes": memory,
        "curve": curve,
        "continued_after": [int(epoch) for epoch in started if epoch != "0"],
        "arguments": arguments,
    }


def _evaluate(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return the AP of a detector, by Ultralytics and, of boxes, by COCO."""
    args = check_arguments({key: value for key, value in job["arguments"].items() if key not in DEFAULTS})
    settings = {name: getattr(args, name) for name in ("imgsz", "device", "workers", "split", "single_cls", "iou")}
    # Twice the batch: as the validation at the end of a training, whose rectangles depend on it
    settings |= {"batch": 2 * args.batch, "max_det": args.max_det, "plots": False}
    evaluation = evaluate(args.model, args.data, save_dir=str(Path(job["folder"]) / "coco"), **settings)
    return {
        "AP50": evaluation.mAP50,
        "AP50-95": evaluation.mAP50_95,
        **evaluation.figures,
        "coco": {name: getattr(evaluation, name) for name in AP_COLUMNS},
        "classes": {name: asdict(scores) for name, scores in evaluation.classes.items()},
        "weights": str(args.model),
    }


def _start_measuring(trainer: Any) -> None:
    """Callback: memory that was taken for checks, before the training, does not count."""
    if trainer.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(trainer.device)
    else:
        with suppress(OSError):  # Linux has such a file
            Path("/proc/self/clear_refs").write_text("5")


def _peak_memory(trainer: Any) -> int | None:
    """Return the most bytes that the training held, on the GPU or in this process; None if other processes did."""
    if trainer.world_size > 1:
        return None
    if trainer.device.type == "cuda":
        return torch.cuda.max_memory_allocated(trainer.device)
    status = Path("/proc/self/status")
    if status.is_file():  # not `ru_maxrss`, which a process inherits from the one that started it
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _note_start(path: Path, trainer: Any) -> None:
    """Callback: add a line that says after how many epochs this start of the run was."""
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{trainer.start_epoch}\n")


def _check_batch(batch: int, trainer: Any) -> None:
    """Callback: stop where Ultralytics, out of memory, went on with a smaller batch than the other methods have."""
    if trainer.batch_size != batch:
        raise DS2D2Error(
            f"out of memory: Ultralytics went on with batch={trainer.batch_size}, which would not compare with the "
            f"other methods; pass batch={trainer.batch_size} for all"
        )
