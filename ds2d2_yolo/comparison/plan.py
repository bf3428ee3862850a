"""The plan of a comparison, after all checks. Nothing is written or trained here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import torch
from ultralytics.utils import DEFAULT_CFG_DICT

from ds2d2_yolo.comparison.inputs import decisive_arguments, fingerprint_of_student
from ds2d2_yolo.comparison.methods import Comparison, Method, listed, read_methods
from ds2d2_yolo.comparison.processes import Cluster
from ds2d2_yolo.detectors import Detector
from ds2d2_yolo.errors import DS2D2Error, did_you_mean
from ds2d2_yolo.loading.fingerprint import fingerprint_of_data, fingerprint_of_inputs, fingerprint_of_model
from ds2d2_yolo.loading.unlabeled import fingerprint_of_unlabeled, read_pseudo_set
from ds2d2_yolo.method import TERMS
from ds2d2_yolo.options import complete_options, option_defaults
from ds2d2_yolo.training.amplifier import load_amplifier, read_amplifier
from ds2d2_yolo.training.arguments import DEFAULTS, KEYS, UNLABELED, Arguments, check_arguments
from ds2d2_yolo.training.checks import complete_student, with_task
from ds2d2_yolo.training.pair import check_pair
from ds2d2_yolo.training.pipeline import Plan, plan
from ds2d2_yolo.training.stages import architecture_of

# Arguments that would make runs impossible to compare or continue, with the reason.
_REFUSED = {
    "resume": "the same command continues its runs; leave resume= out",
    "seed": "a comparison has several seeds; leave seed= out and pass seeds=",
    "time": "schedules would depend on the load of the machine; leave time= out and pass epochs=",
    "save": "the best epochs are compared; leave save= out",
    "val": "the best epochs are compared; leave val= out",
}
_PLACES = {"student", "name", "save_dir", "project"}  # differ between runs, or have another name there
_NO_TERMS = dict.fromkeys(TERMS, 0) | {"assignment": DEFAULTS["assignment"]}
_FILES = ("model", "data", "teacher", "amplifier", "pretrained")


@dataclass(frozen=True, kw_only=True)
class ComparisonPlan(Comparison):
    """A checked comparison, ready to run. The paths in its arguments are absolute.

    Attributes:
        run (Plan): The plan of a distilled run with the arguments of the comparison: its data and models.
    """

    run: Plan

    def arguments_of(
        self, method: Method, teacher: str, amplifier: str | None, unlabeled: str | None = None
    ) -> dict[str, object]:
        """Return the train arguments of a method, without the seed. `unlabeled` is the file of its pseudo-labels."""
        distilling = set(DEFAULTS) - {"lr_steps"}  # the schedule is the same for every student
        leave_out = {"teacher", "dis"} | (distilling if method.distil != "ds2d2" else set())
        arguments = {key: value for key, value in self.arguments.items() if key not in leave_out}
        if (steps := self.run.arguments.lr_steps) and "epochs" in method.arguments:
            epochs = check_arguments(method.arguments).epochs
            arguments["lr_steps"] = [step * epochs / self.run.arguments.epochs for step in steps]
        arguments |= method.arguments
        if method.distil == "ultralytics":
            dis = {"dis": self.arguments["dis"]} if "dis" in self.arguments else {}
            return dis | arguments | {"distill_model": teacher}
        # With teacher_epochs the finished teacher would be fine-tuned again
        models = {"teacher": teacher, "teacher_epochs": None, "amplifier": amplifier}
        images = {name: self.arguments[name] for name in UNLABELED if name in self.arguments} if unlabeled else {}
        images |= {name: method.arguments[name] for name in UNLABELED if name in method.arguments}
        images["unlabeled"] = unlabeled or False  # not those of the data YAML
        return arguments | (models if method.distil == "ds2d2" else {}) | images


def plan_comparison(given: Mapping[str, object]) -> ComparisonPlan:
    """Check whether a comparison can be run, before anything is written or trained.

    Args:
        given (Mapping[str, object]): `teacher`, `student`, `data`, the options of `cfg/compare.yaml`, and train
            arguments of ds2d2 and Ultralytics.

    Returns:
        (ComparisonPlan): The plan.

    Raises:
        DS2D2Error: If it cannot be run.
    """
    names = option_defaults("compare")
    options = complete_options("compare", {name: value for name, value in given.items() if name in names})
    asked = {name: value for name, value in given.items() if name not in names}
    _check_names(asked, names)
    _check_refused(asked)
    methods, seeds = read_methods(options["methods"]), _seeds(options["seeds"])
    arguments = check_arguments(asked)
    if arguments.batch < 1 or arguments.batch != int(arguments.batch):
        raise DS2D2Error(
            f"batch={arguments.batch}: methods would get different batches; pass a whole number, such as batch=16", 2
        )
    cluster = _cluster(options, arguments)
    arguments_by_method = {method.name: _arguments_of(method, asked) for method in methods}

    run = plan(_arguments_to_plan(asked, arguments, methods))
    _check_unlabeled(methods, run)
    _check_families(run, arguments)
    for method in methods:
        _check_method(method, arguments_by_method[method.name], run)
    _check_amplifier(arguments, run)

    folder = _folder(arguments, run)
    shared = _shared_arguments(asked, arguments, run) | {"project": str(folder.parent)}  # the stages go there, too
    return ComparisonPlan(folder, methods, seeds, shared, cluster, run=run)


# ---------------------------------------------------------------------------------------------------- arguments


def _check_names(asked: Mapping[str, object], options: Iterable[str]) -> None:
    """Refuse unknown names before `check_arguments`, which knows no options of a comparison."""
    for name in (name for name in asked if name not in KEYS):
        known = [word for word in (*options, *KEYS) if word not in _REFUSED]
        hint = did_you_mean(name, known, "see 'ds2d2 cfg compare' and 'ds2d2 cfg' for all arguments")
        raise DS2D2Error(f"{name}={asked[name]}: no such argument, {hint}", 2)


def _check_refused(asked: Mapping[str, object]) -> None:
    for name, value in asked.items():
        if name in _REFUSED and value != DEFAULT_CFG_DICT[name]:
            raise DS2D2Error(f"{name}={value}: {_REFUSED[name]}", 2)


def _seeds(chosen: object) -> list[int]:
    seeds: list[int] = []
    for seed in listed(chosen):
        try:
            number = int(seed) if isinstance(seed, str) else seed
        except ValueError:
            number = None
        # `type` rather than `isinstance`: True is an int
        if type(number) is not int or not 0 <= number < 2**32:
            raise DS2D2Error(f"seeds={chosen}: '{seed}' is no seed; pass whole numbers, such as seeds=0,1,2", 2)
        if number in seeds:
            raise DS2D2Error(f"seeds={chosen}: seed {number} is named twice; leave one out", 2)
        seeds.append(number)
    if not seeds:
        raise DS2D2Error("seeds= names no seed; pass for example seeds=0,1,2", 2)
    return seeds


def _arguments_to_plan(
    asked: Mapping[str, object], arguments: Arguments, methods: Sequence[Method]
) -> dict[str, object]:
    """Return the arguments of the run whose plan all methods share."""
    planned = dict(asked)
    if _has_amplifier(arguments):
        planned["amplifier"] = "auto"
    if all(method.distil == "none" for method in methods):  # nothing is compared: teacher and student need not match
        planned |= _NO_TERMS
    return planned


def _cluster(options: Mapping[str, object], arguments: Arguments) -> Cluster | None:
    on_cpu = str(arguments.device).startswith(("cpu", "mps")) or not torch.cuda.is_available()
    cpus = options["ray_cpus"]
    gpus = (0 if on_cpu else 1) if options["ray_gpus"] is None else options["ray_gpus"]
    if not _is_number(cpus) or cpus <= 0:
        raise DS2D2Error(f"ray_cpus={cpus}: expected a number of CPU cores above 0, such as ray_cpus=1", 2)
    if not _is_number(gpus) or gpus < 0:
        raise DS2D2Error(f"ray_gpus={gpus}: expected a number of GPUs, at least 0, such as ray_gpus=0.5", 2)
    address = options["ray"]
    return None if address is None else Cluster(str(address), float(cpus), float(gpus))


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _arguments_of(method: Method, asked: Mapping[str, object]) -> Arguments:
    """Return the complete arguments of a method. Its name is added to error messages."""
    distilling = set() if method.distil == "ds2d2" else set(DEFAULTS)
    shared = {name: value for name, value in asked.items() if name not in distilling}
    try:
        return check_arguments({**shared, **method.arguments})
    except DS2D2Error as error:
        raise DS2D2Error(f"method {method.name}: {error}", error.exit_code) from error


# ------------------------------------------------------------------------------------------------------ models


def student_of(run: Plan) -> Detector:
    """Return the student of a planned run."""
    assert run.student is not None
    return run.student


def has_teacher(run: Plan) -> bool:
    """Return whether a trained teacher was given, not a YAML or a checkpoint to fine-tune."""
    return run.states.get("teacher") == "given"


def _has_amplifier(arguments: Arguments) -> bool:
    """Return whether an amplifier was given. It may fit the wavelet of only one method."""
    return arguments.amplifier not in {None, "auto"}


def _check_families(run: Plan, arguments: Arguments) -> None:
    """Refuse families whose AP is not comparable."""
    models = {"teacher": (arguments.teacher, run.teacher), "student": (arguments.model, student_of(run))}
    for role, (path, detector) in models.items():
        if detector.explicit_only:
            raise DS2D2Error(
                f"{role}={path}: is an {detector.family}, whose AP is not compared here; pass a YOLO as {role}="
            )


def _check_method(method: Method, arguments: Arguments, run: Plan) -> None:
    """Refuse a method that cannot train these models."""
    if method.distil == "ultralytics" and run.teacher.family != "YOLO":
        raise DS2D2Error(
            f"methods={method.name}: Ultralytics' own distillation is for YOLO models, and {run.teacher.title} is a "
            f"{run.teacher.family}; leave {method.name} out of methods="
        )
    try:
        arguments = with_task(arguments, run.teacher)
        if method.distil == "ds2d2":
            complete_student(arguments, run.teacher, student_of(run))
            check_pair(run.teacher, student_of(run), arguments.imgsz, arguments.layers, arguments.teacher_imgsz)
    except DS2D2Error as error:
        raise DS2D2Error(
            f"method {method.name}: {error}, or leave {method.name} out of methods=", error.exit_code
        ) from error


def _check_unlabeled(methods: Sequence[Method], run: Plan) -> None:
    """Refuse a method for unlabelled images if there are none."""
    for method in methods:
        given = [method.arguments[name] for name in UNLABELED if name in method.arguments]
        if any(value is not None and value is not False for value in given) and not run.arguments.unlabeled:
            raise DS2D2Error(
                f"methods={method.name}: learns from images without labels; pass unlabeled=path/to/images, or leave it "
                "out of methods=",
                2,
            )


def _check_amplifier(arguments: Arguments, run: Plan) -> None:
    """Refuse a given amplifier that is for another teacher."""
    if not _has_amplifier(arguments):
        return
    path = str(arguments.amplifier)
    if not has_teacher(run):
        raise DS2D2Error(
            f"amplifier={path}: belongs to a trained teacher, and {arguments.teacher} is still to be trained; leave "
            "amplifier= out"
        )
    load_amplifier(path, run.teacher, read_amplifier(path)["wavelet"])


# -------------------------------------------------------------------------------------------- folders and files


def _folder(arguments: Arguments, run: Plan) -> Path:
    """Return the folder of the comparison. Without `name=`, its name has a fingerprint of the arguments of all runs."""
    name, student = arguments.name, student_of(run)
    if not name:
        # With no distilled method the plan has no terms: with one more method the folder must stay the same
        own = {name: vars(arguments)[name] for name in _NO_TERMS} if not run.arguments.needs_teacher else {}
        inputs: dict[str, object] = {
            "teacher": _fingerprint_of_teacher(arguments, run),
            "student": fingerprint_of_student(run.arguments, student),
            "data": fingerprint_of_data(run.data, run.arguments.split),
            "epochs": [arguments.epochs, arguments.teacher_epochs, arguments.amplifier_epochs],
            "arguments": decisive_arguments(run.arguments.replace(**own)),
        }
        if run.entries:
            inputs["unlabeled"] = fingerprint_of_unlabeled(run.entries)
        elif run.arguments.unlabeled:
            inputs["unlabeled"] = read_pseudo_set(str(run.arguments.unlabeled)).fingerprint
        name = f"compare-{student.title}-{fingerprint_of_inputs(inputs)[:8]}"
    # The same command continues in the same folder
    return run.arguments.replace(name=name, exist_ok=True).run_folder


def _fingerprint_of_teacher(arguments: Arguments, run: Plan) -> object:
    """Return a fingerprint of the teacher: of its weights, of those it starts from, or of its architecture."""
    if has_teacher(run):
        return fingerprint_of_model(run.teacher.model)
    start = run.teacher_stage.inputs.get("start") if run.teacher_stage else None
    return start or architecture_of(arguments.teacher)


def _shared_arguments(asked: Mapping[str, object], arguments: Arguments, run: Plan) -> dict[str, object]:
    """Return the given arguments as those of all runs: without folders, with absolute paths of files."""
    shared = {key: value for key, value in asked.items() if key not in _PLACES}
    shared |= {"model": arguments.model, "data": run.data.get("yaml_file", run.arguments.data)}
    shared |= {"teacher": run.arguments.teacher if has_teacher(run) else arguments.teacher}
    if run.teacher_stage and "start" in run.teacher_stage.inputs:
        shared["teacher"] = run.teacher_stage.overrides["model"]  # the path at which Ultralytics found the file
    # Absolute paths: the working folder of a worker may be another one
    unlabeled = [str(Path(entry).resolve()) for entry in run.entries] or run.arguments.unlabeled or False
    shared |= {"amplifier": arguments.amplifier, "unlabeled": unlabeled}
    for name in _FILES:
        value = shared.get(name)
        if isinstance(value, (str, Path)) and Path(value).exists():
            shared[name] = str(Path(value).resolve())
    return shared
