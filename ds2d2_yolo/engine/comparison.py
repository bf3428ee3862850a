"""`ds2d2 compare`: one student trained by several methods with several seeds, in runs that differ in nothing else.

`plan_comparison` checks everything, `run_comparison` makes the stages and runs that are missing, each in a process of
its own, and returns the records of all. A record is keyed by everything that shapes its run, so that the same command
continues where it was interrupted, and another one reuses what it has in common with it.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from ultralytics import __version__ as ultralytics_version
from ultralytics.cfg import get_save_dir
from ultralytics.utils import DEFAULT_CFG_DICT, LOGGER, YAML, colorstr
from ultralytics.utils.callbacks import get_default_callbacks

from ds2d2_yolo import __version__
from ds2d2_yolo.detectors import Detector
from ds2d2_yolo.engine.amplifier import load_amplifier, read_amplifier
from ds2d2_yolo.engine.arguments import DEFAULTS, check_arguments, gains_of, layers_of
from ds2d2_yolo.engine.evaluation import AP_COLUMNS, evaluate, figures_beside_boxes
from ds2d2_yolo.engine.fingerprint import (
    effective_arguments,
    fingerprint_of_data,
    fingerprint_of_file,
    fingerprint_of_inputs,
    fingerprint_of_model,
)
from ds2d2_yolo.engine.preflight import check_pair, load_model, take_task
from ds2d2_yolo.engine.resume import complete_checkpoints
from ds2d2_yolo.engine.stages import (
    amplifier_stage,
    architecture_of,
    folder_lock,
    teacher_stage,
    train_amplifier,
    train_teacher,
    training_state,
    without_student_start,
)
from ds2d2_yolo.engine.student import DS2D2Trainer, check_run
from ds2d2_yolo.engine.trainer import OwnArgumentsTrainer
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.options import complete_options, option_defaults
from ds2d2_yolo.processes import Cluster, run_jobs, take_job
from ds2d2_yolo.resources import resource_folder

WORKER = ("-m", "ds2d2_yolo.engine.comparison")
"""Arguments of Python that start a process for one job."""

PLAIN, BUILTIN = "plain", "builtin"
"""Methods that the others are measured against."""

# What the methods of each kind may set; the rest would give them another schedule, other data or another start. Epochs
# are for a schedule that ends earlier, or later, so that methods of different cost can be compared at equal time.
_METHOD_ARGUMENTS = {
    "none": frozenset({"epochs"}),
    "ultralytics": frozenset({"epochs", "dis"}),
    "ds2d2": frozenset(DEFAULTS) - {"teacher", "teacher_epochs", "amplifier", "lr_steps"} | {"epochs"},
}
# Arguments with which runs could not be compared or continued, and why.
_REFUSED = {
    "resume": "the same command continues its runs",
    "seed": "pass seeds=",
    "time": "schedules would depend on what else the machine does; pass epochs=, of the methods, too, for equal time",
    "save": "what each epoch reached is compared, leave it out",
    "val": "what each epoch reached is compared, leave it out",
}
_MODELS = {"teacher", "amplifier", "distill_model", "teacher_epochs", "amplifier_epochs", "pretrained"}
_CHECKS = {"val", "val_kd", "safe"}
_RESUMABLE = ("data", "device", "workers", "cache", "plots")  # what Ultralytics lets a resumed run change


@dataclass(frozen=True)
class Method:
    """A way to train the student.

    Attributes:
        name (str): Its name.
        distil (str): Who distils: `none`, `ultralytics` or `ds2d2`.
        arguments (dict[str, Any]): In what it differs from the arguments of the comparison.
    """

    name: str
    distil: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """A comparison that can be run: all checks are behind it.

    Attributes:
        folder (Path): Where its runs and results go.
        methods (list[Method]): What is compared.
        seeds (list[int]): With which seeds.
        arguments (dict[str, Any]): Train arguments of all runs, with absolute paths.
        data (dict[str, Any]): The data set as Ultralytics describes it.
        cluster (Cluster | None): Where runs go at the same time.
    """

    folder: Path
    methods: list[Method]
    seeds: list[int]
    arguments: dict[str, Any]
    data: dict[str, Any]
    cluster: Cluster | None

    @property
    def runs(self) -> Path:
        """Folder of the runs, their records and their output."""
        return self.folder / "runs"

    def arguments_of(self, method: Method, teacher: Path | str, amplifier: Path | str | None) -> dict[str, Any]:
        """Return the train arguments of a method, but for the seed."""
        arguments = {key: value for key, value in self.arguments.items() if key not in {"teacher", "dis"}}
        if (steps := arguments.get("lr_steps")) and "epochs" in method.arguments:
            epochs = check_arguments(self.arguments).epochs
            arguments["lr_steps"] = [step * method.arguments["epochs"] / epochs for step in steps]
        if method.distil != "ds2d2":
            arguments = {key: value for key, value in arguments.items() if key not in DEFAULTS or key == "lr_steps"}
        if method.distil == "ultralytics":
            dis = {"dis": self.arguments["dis"]} if "dis" in self.arguments else {}
            return arguments | dis | method.arguments | {"distill_model": str(teacher)}
        if method.distil == "ds2d2":
            return arguments | method.arguments | {"teacher": str(teacher), "amplifier": amplifier and str(amplifier)}
        return arguments | method.arguments


@dataclass(frozen=True)
class Results:
    """What a comparison found.

    Attributes:
        teacher (dict[str, Any]): Record of the teacher's evaluation.
        stages (dict[str, float | None]): Seconds that the teacher and every amplifier were trained for; None where a
            given file does not tell.
        runs (list[dict[str, Any]]): Record of every run, by seed, then by method.
    """

    teacher: dict[str, Any]
    stages: dict[str, float | None]
    runs: list[dict[str, Any]]


# ------------------------------------------------------------------------------------------------------- checks


def read_methods(chosen: Any) -> list[Method]:
    """Return the methods that `methods=` names.

    Args:
        chosen (Any): Names out of `cfg/methods.yaml` and paths of YAML files of the same form: a list, or a text with
            commas between them.

    Returns:
        (list[Method]): In the order given.

    Raises:
        DS2D2Error: If a method is unknown or named twice, a file is none of methods, or a method sets an argument that
            it may not.

    Example:
        >>> [method.name for method in read_methods("plain,db2")], read_methods("db2")[0].arguments
        (['plain', 'db2'], {'wavelet': 'db2'})
    """
    shipped_file = resource_folder("cfg") / "methods.yaml"
    shipped: dict[str, Any] = YAML.load(shipped_file)
    methods: list[Method] = []
    for word in map(str, _listed(chosen)):
        if Path(word).suffix in {".yaml", ".yml"}:
            try:
                content = YAML.load(word)
            except Exception as error:  # missing, a folder, not YAML: all the user's to mend
                raise DS2D2Error(f"methods={word}: cannot be read, {error}", 2) from error
            if not content:
                raise DS2D2Error(f"methods={word}: has no methods, see 'ds2d2 cfg methods' for its form", 2)
            entries = {str(name): (shipped.get(name) if entry is None else entry) for name, entry in content.items()}
            methods += [_method(name, entry, word, shipped) for name, entry in entries.items()]
        else:
            methods.append(_method(word, shipped.get(word), str(shipped_file), shipped))
    names = [method.name for method in methods]
    if not names:
        raise DS2D2Error("methods= names no method, for example methods=plain,ds2d2", 2)
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DS2D2Error(f"methods: '{twice}' is named twice", 2)
    return methods


def plan_comparison(given: Mapping[str, Any]) -> Comparison:
    """Find out whether a comparison can be run, before anything is written or trained.

    Args:
        given (Mapping[str, Any]): `teacher`, `student`, `data`, the options of `cfg/compare.yaml`, and train arguments
            of ds2d2 and Ultralytics.

    Returns:
        (Comparison): The comparison.

    Raises:
        DS2D2Error: If it cannot.
    """
    own = option_defaults("compare")
    options = complete_options("compare", {name: value for name, value in given.items() if name in own})
    arguments = {name: value for name, value in given.items() if name not in own}
    for name, value in arguments.items():
        if name in _REFUSED and value != DEFAULT_CFG_DICT[name]:
            raise DS2D2Error(f"{name}={value}: {_REFUSED[name]}", 2)
    methods = read_methods(options["methods"])
    seeds = _seeds(options["seeds"])
    args = check_arguments(arguments)
    if args.batch < 1 or args.batch != int(args.batch):
        raise DS2D2Error(f"batch={args.batch}: methods would get different batches, pass a whole number", 2)
    cluster = _cluster(options, args)
    complete = [_check_method(method, arguments) for method in methods]

    data, teacher, trained, student, _ = check_run(args)
    for role, path, detector in (("teacher", args.teacher, teacher), ("student", args.model, student)):
        if detector.explicit_only:
            raise DS2D2Error(f"{role}={path}: is an {detector.family}, whose AP is not compared here; use a YOLO")
    for method, own_args in zip(methods, complete, strict=True):
        take_task(own_args, teacher)
        if method.distil == "ultralytics" and teacher.family != "YOLO":
            raise DS2D2Error(
                f"methods={method.name}: Ultralytics' own distillation is for YOLO models, {teacher.title} is a "
                f"{teacher.family}; leave {method.name} out"
            )
        if method.distil == "ds2d2" and own_args.layers != args.layers:
            check_pair(teacher, student, args.imgsz, layers_of(own_args))
    if args.amplifier not in {None, "auto"}:
        if not trained:
            raise DS2D2Error(f"amplifier={args.amplifier}: belongs to a trained teacher, but {args.teacher} is not yet")
        load_amplifier(args.amplifier, teacher, read_amplifier(args.amplifier)["wavelet"])

    places = {"student", "name", "save_dir", "project"}
    arguments = {key: value for key, value in arguments.items() if key not in places}
    arguments |= {"model": args.model, "data": data.get("yaml_file", args.data), "teacher": args.teacher}
    arguments["amplifier"] = args.amplifier
    for name in ("model", "data", "teacher", "amplifier", "pretrained"):  # a worker may have another working folder
        if name in arguments and isinstance(arguments[name], (str, Path)) and Path(arguments[name]).exists():
            arguments[name] = str(Path(arguments[name]).resolve())
    if trained:  # where Ultralytics found a bare name, its model knows
        arguments["teacher"] = str(Path(getattr(teacher.model, "pt_path", None) or args.teacher).resolve())
    args.exist_ok = True  # the same command continues in the same folder
    if not args.name:
        inputs = {
            "teacher": fingerprint_of_model(teacher.model) if trained else architecture_of(args.teacher),
            "student": _fingerprint_of_student(args, student),
            "data": fingerprint_of_data(data),
            "epochs": [args.epochs, args.teacher_epochs, args.amplifier_epochs],
            "arguments": _effective(args),
        }
        args.name = f"compare-{student.title}-{fingerprint_of_inputs(inputs)[:8]}"
    folder = get_save_dir(args)
    arguments["project"] = str(folder.parent)  # where the stages go, and other comparisons find them
    return Comparison(folder, methods, seeds, arguments, data, cluster)


def _method(name: str, entry: Any, file: str, shipped: Mapping[str, Any]) -> Method:
    if entry is None:
        close = get_close_matches(name, shipped, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(shipped)}"
        raise DS2D2Error(f"methods={name}: no such method, {hint}", 2)
    if not isinstance(entry, dict):
        raise DS2D2Error(f"{file}: method {name} is {entry!r}, expected its arguments, such as {{im_high: 0}}", 2)
    arguments = {str(key): value for key, value in entry.items()}
    distil = str(arguments.pop("distil", "ds2d2")).lower()
    if distil not in _METHOD_ARGUMENTS:
        raise DS2D2Error(f"{file}: method {name}: distil={distil}: expected none, ultralytics or ds2d2", 2)
    for key, value in arguments.items():
        if key not in _METHOD_ARGUMENTS[distil]:
            allowed = ", ".join(sorted(_METHOD_ARGUMENTS[distil])) or "no argument"
            raise DS2D2Error(f"{file}: method {name}: {key}={value}: with distil={distil} it may set {allowed}", 2)
    return Method(name, distil, arguments)


def _seeds(chosen: Any) -> list[int]:
    seeds = []
    for seed in _listed(chosen):
        try:
            number = int(seed) if isinstance(seed, str) else seed
        except ValueError:
            number = None
        if type(number) is not int or not 0 <= number < 2**32:
            raise DS2D2Error(f"seeds={chosen}: '{seed}' is no seed, expected whole numbers such as seeds=0,1,2", 2)
        if number in seeds:
            raise DS2D2Error(f"seeds={chosen}: seed {number} is named twice", 2)
        seeds.append(number)
    if not seeds:
        raise DS2D2Error("seeds= names no seed, for example seeds=0,1,2", 2)
    return seeds


def _listed(value: Any) -> list[Any]:
    """Return the entries of a list as the command line, a YAML file or Python give it."""
    if isinstance(value, str):
        return [word.strip() for word in value.strip("[]() ").split(",") if word.strip()]
    if isinstance(value, (list, tuple)):
        return list(value)
    return [] if value is None else [value]


def _cluster(options: Mapping[str, Any], args: Any) -> Cluster | None:
    gpus = options["ray_gpus"]
    if gpus is None:
        gpus = 0 if str(args.device).startswith(("cpu", "mps")) or not torch.cuda.is_available() else 1
    for name, value, least in (("ray_cpus", options["ray_cpus"], 0), ("ray_gpus", gpus, -1)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least < value < math.inf:
            raise DS2D2Error(f"{name}={value}: expected a number of cores, such as {name}=1", 2)
    address = options["ray"]
    return None if address is None else Cluster(str(address), float(options["ray_cpus"]), float(gpus))


def _check_method(method: Method, arguments: Mapping[str, Any]) -> SimpleNamespace:
    try:
        return check_arguments({**arguments, **method.arguments})
    except DS2D2Error as error:
        raise DS2D2Error(f"method {method.name}: {error}", error.exit_code) from error


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
    amplifiers = jobs.make_amplifiers(teacher, detector)
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
        comparison, teacher = self.comparison, self.comparison.arguments["teacher"]
        if Path(teacher).suffix != ".pt":
            arguments = self._stage_arguments({"teacher": teacher})
            detector, _ = load_model("teacher", teacher)
            stage = teacher_stage(check_arguments(arguments), comparison.data, detector.title)
            if not stage.is_finished():
                self._run([self._stage_job("teacher", "teacher", arguments)])
            teacher = str(stage.weights)
        return teacher, training_seconds(teacher)

    def make_amplifiers(self, teacher: str, detector: Detector) -> dict[str, str | None]:
        """Return the amplifier of every method that has one."""
        amplifiers: dict[str, str | None] = {}
        jobs: dict[Path, dict[str, Any]] = {}
        given = self.comparison.arguments["amplifier"]
        wavelet = None if given in {None, "auto"} else read_amplifier(given)["wavelet"]
        for method in self.comparison.methods:
            amplifiers[method.name] = None
            if method.distil != "ds2d2":
                continue
            of_stage = {key: value for key, value in method.arguments.items() if key != "epochs"}
            arguments = self._stage_arguments({**of_stage, "teacher": teacher})
            args = check_arguments(arguments)
            if not gains_of(args).im_high:
                continue
            if wavelet == args.wavelet:
                amplifiers[method.name] = given
                continue
            args.amplifier = arguments["amplifier"] = "auto"  # the one given, if any, is of another wavelet
            stage = amplifier_stage(args, self.comparison.data, detector)
            amplifiers[method.name] = str(stage.weights)
            if stage.folder not in jobs and not stage.is_finished():
                jobs[stage.folder] = self._stage_job("amplifier", f"amplifier of {method.name}", arguments)
        self._run(list(jobs.values()))
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
        of_student = _fingerprint_of_student(args, student)
        hashes = {path: fingerprint_of_file(Path(path)) for path in set(amplifiers.values()) if path}
        for seed in comparison.seeds:
            for method in comparison.methods:
                amplifier = amplifiers[method.name]
                arguments = comparison.arguments_of(method, teacher, amplifier) | {"seed": seed}
                complete = check_arguments(arguments)
                inputs = {**self.inputs, "distil": method.distil, "student": of_student, "seed": seed}
                inputs |= {"epochs": complete.epochs, "arguments": _effective(complete)}
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


def _effective(args: Any) -> dict[str, Any]:
    """Return the arguments that shape a student, but for its models, which are fingerprinted themselves."""
    settings = {key: value for key, value in vars(args).items() if key not in _MODELS | _CHECKS}
    return effective_arguments(settings, DEFAULT_CFG_DICT | DEFAULTS)


def _fingerprint_of_student(args: Any, student: Detector) -> Any:
    """Return what tells a student's start from another one's: its architecture, or its weights."""
    if str(args.model).endswith(".pt"):
        return fingerprint_of_model(student.model)
    start = args.pretrained
    if isinstance(start, (str, Path)):
        start = fingerprint_of_file(Path(start)) if Path(start).is_file() else str(start)
    return [architecture_of(args.model), start]


# -------------------------------------------------------------------------------------------------- inside of a job


def work(callbacks: dict[str, Any] | None = None) -> int:
    """Do the job that this process was started for.

    Args:
        callbacks (dict[str, list] | None): Callbacks of Ultralytics by event, for the trainings.

    Returns:
        (int): Exit code.
    """
    try:
        execute(take_job(), callbacks)
    except DS2D2Error as error:
        print(f"ds2d2: error: {error}", flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        print("ds2d2: interrupted", flush=True)
        return 130
    return 0


def execute(job: Mapping[str, Any], callbacks: dict[str, Any] | None = None) -> None:
    """Do a job in this process.

    Args:
        job (Mapping[str, Any]): What `run_comparison` made of a stage, an evaluation or a run.
        callbacks (dict[str, list] | None): Callbacks of Ultralytics by event, for the trainings.
    """
    if job["kind"] == "teacher":
        train_teacher(job["arguments"], callbacks)
    elif job["kind"] == "amplifier":
        train_amplifier(job["arguments"], callbacks)
    else:
        with folder_lock(Path(job["folder"]), job["title"]):
            if read_record(Path(job["record"]), job["inputs"]) is None:  # none was made while this process waited
                content = _evaluate(job) if job["kind"] == "evaluation" else _train(job, callbacks)
                _write_record(job, content)


def _train(job: Mapping[str, Any], callbacks: dict[str, Any] | None) -> dict[str, Any]:
    """Train a student, from where an interrupted run stopped, and return what there is to know about it."""
    folder, arguments = Path(job["folder"]), dict(job["arguments"])
    weights, starts = folder / "weights", folder / "starts.txt"
    callbacks = {event: list(functions) for event, functions in (callbacks or get_default_callbacks()).items()}
    callbacks["on_train_start"] += [_start_measuring, partial(_note_start, starts)]
    callbacks["on_train_epoch_end"].append(partial(_check_batch, check_arguments(arguments).batch))
    trainer_class = DS2D2Trainer if job["distil"] == "ds2d2" else OwnArgumentsTrainer
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


# -------------------------------------------------------------------------------------------------------- records


def read_record(path: Path, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the record of a finished run or evaluation with the same inputs, or None.

    Args:
        path (Path): Its file.
        inputs (Mapping[str, Any]): What shapes the result, as JSON values.

    Returns:
        (dict[str, Any] | None): The record; where COCO has no object to find, it has None.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return dict(record) if isinstance(record, dict) and record.get("inputs") == inputs else None


def _write_record(job: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    record = {
        **content,
        "inputs": job["inputs"],
        "date": datetime.now().astimezone().isoformat(),
        "versions": {"ds2d2_yolo": __version__, "ultralytics": ultralytics_version, "torch": torch.__version__},
    }
    path = Path(job["record"])
    unfinished = path.with_suffix(".partial")
    unfinished.write_text(json.dumps(_plain(record), indent=1, default=str) + "\n", encoding="utf-8")
    unfinished.replace(path)


def read_curve(path: Path) -> list[dict[str, float]]:
    """Return what a training reached after every epoch, and how long that took, from its `results.csv`.

    Args:
        path (Path): The file. Of an epoch that was run again after an interruption it has two lines; the second counts.

    Returns:
        (list[dict[str, float]]): By epoch: `epoch` (from 1), `seconds` (since the start, validation included), `AP50`,
            `AP50-95`, and Ultralytics' mAP of masks or keypoints by its names, such as `metrics/mAP50(M)`.

    Raises:
        DS2D2Error: If the file is missing, damaged or holds no epochs.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [{key.strip(): float(value) for key, value in row.items()} for row in csv.DictReader(file)]
        epochs = {
            int(row["epoch"]): {
                "epoch": int(row["epoch"]),
                "seconds": row["time"],
                "AP50": row["metrics/mAP50(B)"],
                "AP50-95": row["metrics/mAP50-95(B)"],
                **figures_beside_boxes(row),
            }
            for row in rows
        }
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise DS2D2Error(f"{path}: cannot be read, {type(error).__name__}: {error}") from error
    if not epochs:
        raise DS2D2Error(f"{path}: has no epochs")
    return [epochs[number] for number in sorted(epochs)]


def training_seconds(weights: str | Path) -> float | None:
    """Return how long the training took that made a file, or None where no `results.csv` beside it tells."""
    path = Path(weights).resolve().parent.parent / "results.csv"
    try:
        return read_curve(path)[-1]["seconds"]
    except DS2D2Error:
        return None


def _plain(value: Any) -> Any:
    """Return a value with None in place of NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value


if __name__ == "__main__":
    sys.exit(work())
