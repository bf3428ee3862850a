"""The stages and runs of a comparison: missing ones are made, each in its own process."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

from ultralytics.utils import LOGGER, TQDM, colorstr

from ds2d2_yolo.comparison.inputs import (
    decisive_arguments,
    distillation_arguments,
    fingerprint_of_student,
    unlabeled_inputs,
)
from ds2d2_yolo.comparison.methods import Distil, Method
from ds2d2_yolo.comparison.plan import ComparisonPlan, has_teacher, student_of
from ds2d2_yolo.comparison.processes import Job, run_jobs
from ds2d2_yolo.comparison.records import EvaluationRecord, Results, RunRecord, read_curve, training_seconds
from ds2d2_yolo.comparison.statistics import BOX_METRICS, metric_title
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.evaluation import mask_and_keypoint_metrics
from ds2d2_yolo.loading.fingerprint import (
    fingerprint_of_data,
    fingerprint_of_file,
    fingerprint_of_inputs,
    fingerprint_of_model,
)
from ds2d2_yolo.loading.models import load_model
from ds2d2_yolo.loading.unlabeled import is_set_file
from ds2d2_yolo.training.amplifier import read_amplifier
from ds2d2_yolo.training.arguments import check_arguments
from ds2d2_yolo.training.pipeline import plan
from ds2d2_yolo.training.records import read_record
from ds2d2_yolo.training.stages import StageKind, without_student_start

WORKER = ("-m", "ds2d2_yolo.commands.compare")
"""Arguments of Python that start the process of a job."""


class StageJob(Job):
    """Training of a teacher or an amplifier, or pseudo-labelling of images by the teacher, which has 0 epochs."""

    kind: StageKind
    folder: str
    epochs: int
    arguments: dict[str, object]


class RecordedJob(Job):
    """A job that leaves a record.

    Attributes:
        inputs (dict[str, object]): Everything that determines the record, as JSON values.
        record (str): File of the record.
        folder (str): Folder of all other files.
        arguments (dict[str, object]): Train arguments.
    """

    inputs: dict[str, object]
    record: str
    folder: str
    arguments: dict[str, object]


class EvaluationJob(RecordedJob):
    """Evaluation of a teacher: `model` in the arguments."""

    kind: Literal["evaluation"]


class RunJob(RecordedJob):
    """Training and evaluation of a student."""

    kind: Literal["run"]
    epochs: int
    method: str
    seed: int
    distil: Distil


AnyJob = StageJob | EvaluationJob | RunJob
"""Any job of a comparison."""


def run_comparison(planned: ComparisonPlan, worker: Sequence[str] = WORKER) -> Results:
    """Make the missing stages and runs, and return the results of all.

    Args:
        planned (ComparisonPlan): What `plan_comparison` returned.
        worker (Sequence[str]): Arguments of Python that start a process which calls `work`. Records of different
            workers are not mixed.

    Returns:
        (Results): The results, for tables and pictures.

    Raises:
        DS2D2Error: If a run fails.
    """
    jobs = _Jobs(planned, worker)
    teachers = jobs.make_teachers()
    amplifiers = jobs.make_amplifiers(teachers)
    stages = {jobs.title("teacher", size): training_seconds(path) for size, path in teachers.items()}
    for name, path in amplifiers.items():
        title = jobs.title(f"amplifier {read_amplifier(path)['wavelet']}", jobs.sizes[name])
        stages[title] = training_seconds(path)
    first, *runs = jobs.make_runs(teachers, amplifiers, jobs.make_labels(teachers))
    return Results(cast(EvaluationRecord, first), stages, cast(list[RunRecord], runs))


class _Jobs:
    """The jobs of a comparison. Each method needs the results of the method above it.

    Attributes:
        size (int): Image size of the teacher, from the arguments of the comparison, in pixels.
        sizes (dict[str, int]): The same for each method. A teacher that is not given is trained at each size.
    """

    def __init__(self, planned: ComparisonPlan, worker: Sequence[str]) -> None:
        self.planned = planned
        self.worker = worker
        self.size = planned.run.arguments.teacher_size
        self.sizes = {method.name: self._size_of(method) for method in planned.methods if method.distil != "none"}
        of_data = fingerprint_of_data(planned.run.data, planned.run.arguments.split)
        self.inputs: dict[str, object] = {"data": of_data}
        if tuple(worker) != WORKER:
            self.inputs["worker"] = [Path(word).name for word in worker]

    def title(self, what: str, size: int) -> str:
        """Return the name of a stage, with its image size if it is not that of the comparison."""
        return what if size == self.size else f"{what} at {size}"

    def make_teachers(self) -> dict[int, str]:
        """Return the teacher's checkpoints by image size, the comparison's first. A given teacher is the only one."""
        if has_teacher(self.planned.run):
            return {self.size: self.planned.teacher}
        teachers, jobs = {}, []
        for size in dict.fromkeys([self.size, *self.sizes.values()]):
            arguments = self._stage_arguments(teacher=self.planned.teacher, **self._at(size))
            stage = plan(arguments, "teacher")
            teachers[size] = stage.arguments.teacher
            if not stage.is_ready:
                jobs.append(self._stage_job("teacher", self.title("teacher", size), teachers[size], arguments))
        self._run(jobs)
        return teachers

    def make_amplifiers(self, teachers: Mapping[int, str]) -> dict[str, str]:
        """Return the amplifiers by the names of the methods that use one."""
        given = self.planned.arguments["amplifier"]
        given = None if given in {None, "auto"} else str(given)
        wavelet = None if given is None else read_amplifier(given)["wavelet"]
        amplifiers: dict[str, str] = {}
        stages: dict[tuple[str, int | None, int], str] = {}  # a method sets nothing else that amplifiers depend on
        jobs = []
        for method in self.planned.methods:
            if method.distil != "ds2d2":
                continue
            settings = {key: value for key, value in method.arguments.items() if key not in {"epochs", "close_distill"}}
            size = self.sizes[method.name]
            teacher = teachers.get(size, teachers[self.size])
            arguments = self._stage_arguments(**settings, teacher=teacher, teacher_epochs=None)
            complete = check_arguments(arguments)
            if not complete.gains.im_high:
                continue
            if given is not None and wavelet == complete.wavelet and size == self.size:
                amplifiers[method.name] = given
                continue
            key = complete.wavelet, complete.amplifier_epochs, size
            if key not in stages:
                arguments["amplifier"] = "auto"  # a given amplifier is for another wavelet or size
                stage = plan(arguments, "amplifier")
                stages[key] = str(stage.arguments.amplifier)
                if not stage.is_ready:
                    title = f"amplifier of {method.name}"
                    jobs.append(self._stage_job("amplifier", title, stages[key], arguments))
            amplifiers[method.name] = stages[key]
        self._run(jobs)
        return amplifiers

    def make_labels(self, teachers: Mapping[int, str]) -> dict[str, str]:
        """Return the sets of pseudo-labelled images, by the names of the methods that use them."""
        sets: dict[str, str] = {}
        given = self.planned.arguments["unlabeled"]
        for method in self.planned.methods:
            if not given or not method.takes_unlabeled:
                continue
            if is_set_file(given):
                sets[method.name] = str(given)
                continue
            size = self.sizes.get(method.name, self.size)
            teacher = teachers.get(size, teachers[self.size])
            own = {name: value for name, value in method.arguments.items() if name == "unlabeled_precision"}
            own |= self._at(size)
            arguments = self._stage_arguments(**own, teacher=teacher, teacher_epochs=None, amplifier=None)
            stage = plan(arguments, "unlabeled")
            if not stage.is_ready:
                title = self.title("labels for unlabelled images", size)
                self._run([self._stage_job("unlabeled", title, teacher, arguments)])
                stage = plan(arguments, "unlabeled")
            sets[method.name] = str(stage.arguments.unlabeled)
        return sets

    def make_runs(
        self, teachers: Mapping[int, str], amplifiers: Mapping[str, str], unlabeled: Mapping[str, str]
    ) -> list[dict[str, object]]:
        """Return the records of the teacher's evaluation and of every run."""
        of_teachers = {path: fingerprint_of_model(load_model("teacher", path)[0].model) for path in teachers.values()}
        first = teachers[self.size]
        of_student = fingerprint_of_student(self.planned.run.arguments, student_of(self.planned.run))
        of_amplifiers = {path: fingerprint_of_file(Path(path)) for path in set(amplifiers.values())}
        jobs: list[EvaluationJob | RunJob] = [self._evaluation_job(first, of_teachers[first])]
        for seed in self.planned.seeds:
            for method in self.planned.methods:
                amplifier = amplifiers.get(method.name)
                teacher = teachers.get(self.sizes.get(method.name, self.size), first)
                inputs = {**self.inputs, "distil": method.distil, "student": of_student, "seed": seed}
                if method.distil != "none":
                    inputs["teacher"] = of_teachers[teacher]
                if method.distil == "ds2d2":
                    inputs["amplifier"] = of_amplifiers[amplifier] if amplifier else None
                labels = unlabeled.get(method.name)
                arguments = self.planned.arguments_of(method, teacher, amplifier, labels) | {"seed": seed}
                jobs.append(self._run_job(method, seed, arguments, inputs))
        self._run([job for job in jobs if read_record(Path(job["record"]), job["inputs"]) is None])
        return [_record_of(job) for job in jobs]

    def _evaluation_job(self, teacher: str, of_teacher: str) -> EvaluationJob:
        complete = check_arguments(self.planned.arguments)
        names = ("batch", "split", "single_cls", "iou", "max_det")
        settings = {"imgsz": self.size, **{name: getattr(complete, name) for name in names}}
        settings |= {} if complete.classes is None else {"classes": complete.classes}
        inputs = _json({**self.inputs, "teacher": of_teacher, "settings": settings})
        arguments = {**self.planned.arguments, "model": teacher, "imgsz": self.size}
        return EvaluationJob(kind="evaluation", **self._recorded("teacher", inputs, arguments))

    def _run_job(self, method: Method, seed: int, arguments: dict[str, object], inputs: Mapping[str, object]) -> RunJob:
        complete = check_arguments(arguments)
        decisive: dict[str, object] = {"epochs": complete.epochs, "arguments": decisive_arguments(complete)}
        if method.distil == "ds2d2":
            decisive["distillation"] = distillation_arguments(complete)
        decisive |= unlabeled_inputs(complete)
        return RunJob(
            kind="run",
            method=method.name,
            seed=seed,
            distil=method.distil,
            epochs=complete.epochs,
            **self._recorded(f"{method.name}-{seed}", _json({**inputs, **decisive}), arguments),
        )

    def _recorded(self, title: str, inputs: dict[str, object], arguments: dict[str, object]) -> RecordedJob:
        """Return a job. The names of its files have a fingerprint of its inputs."""
        folder = str(self.planned.runs / f"{title}-{fingerprint_of_inputs(inputs)[:8]}")
        return {
            "title": title,
            "log": f"{folder}.log",
            "inputs": inputs,
            "record": f"{folder}.json",
            "folder": folder,
            "arguments": arguments,
        }

    def _size_of(self, method: Method) -> int:
        """Return the image size of a method's teacher. Ultralytics' own distillation has one size for both."""
        arguments = self.planned.run.arguments
        own = method.arguments.get("teacher_imgsz", arguments.teacher_imgsz) if method.distil == "ds2d2" else None
        return arguments.imgsz if own is None else int(str(own))

    def _at(self, size: int) -> dict[str, object]:
        """Return the arguments for training a stage at a size that is not the comparison's."""
        return {} if size == self.size else {"teacher_imgsz": size}

    def _stage_arguments(self, **changes: object) -> dict[str, object]:
        shared = {key: value for key, value in self.planned.arguments.items() if key not in {"model", "dis"}}
        return without_student_start({**shared, **changes})

    def _stage_job(self, kind: StageKind, title: str, weights: str, arguments: dict[str, object]) -> StageJob:
        return {
            "kind": kind,
            "title": title,
            "log": str(self.planned.runs / f"{title.replace(' ', '-')}.log"),
            "folder": str(Path(weights).parent.parent),
            "epochs": 0 if kind == "unlabeled" else check_arguments(arguments).epochs_of(kind),
            "arguments": arguments,
        }

    def _run(self, jobs: Sequence[AnyJob]) -> None:
        if jobs:
            titles = ", ".join(job["title"] for job in jobs)
            LOGGER.info(f"{colorstr('DS2D2:')} to do: {titles}; output in {self.planned.runs}")
        progress = _Progress()
        run_jobs(jobs, self.worker, progress.end, self.planned.cluster, progress.look)


class _Progress:
    """A progress bar of the running job, by the epochs in its `results.csv`. At the end it prints the result."""

    def __init__(self) -> None:
        self._bar: TQDM | None = None

    def look(self, job: AnyJob) -> None:
        """Update the bar to the epochs that a job has finished."""
        if job["kind"] == "evaluation" or job["kind"] == "unlabeled":
            return
        try:
            done = len(read_curve(Path(job["folder"]) / "results.csv"))
        except DS2D2Error:  # the first epoch is not finished
            done = 0
        if self._bar is None:  # epochs before an interruption do not count for the rate
            self._bar = TQDM(total=job["epochs"], initial=done, desc=f"  {job['title']}", unit="epoch")
        if done > self._bar.n:  # an update without a new epoch would distort the rate
            if not self._bar.last_rate:  # the bar would smooth the first rate with 0, and show 3.3 times the time left
                self._bar.last_rate = (done - self._bar.n) / max(time.time() - self._bar.start_t, 0.001)
            self._bar.update(done - self._bar.n)

    def end(self, job: AnyJob) -> None:
        """Print the result of a job."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        LOGGER.info(f"  {_outcome(job)}")


def _json(inputs: Mapping[str, object]) -> dict[str, object]:
    """Return inputs as they are read from a record, so that both can be compared."""
    return dict(json.loads(json.dumps(inputs, default=str)))


def _outcome(job: AnyJob) -> str:
    """Return the result of a finished job as a line to print."""
    if job["kind"] == "unlabeled":
        return f"{job['title']}: made"
    if job["kind"] == "teacher" or job["kind"] == "amplifier":
        return f"{job['title']}: trained"
    record = cast(RunRecord, _record_of(job))
    minutes = f", {record['seconds'] / 60:.1f} minutes" if job["kind"] == "run" else ""
    numbers = cast(Mapping[str, float], record)
    figures = {name: numbers[name] for name in BOX_METRICS} | mask_and_keypoint_metrics(numbers)
    text = ", ".join(f"{metric_title(name)} {value:.3f}" for name, value in figures.items())
    return f"{job['title']}: {text}{minutes}"


def _record_of(job: EvaluationJob | RunJob) -> dict[str, object]:
    record = read_record(Path(job["record"]), job["inputs"])
    if record is None:
        raise DS2D2Error(f"{job['record']}: is missing or damaged; run the same command again")
    return record
