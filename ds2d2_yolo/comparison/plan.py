"""What a comparison is going to run: methods, seeds and arguments, after every check."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ultralytics.utils import DEFAULT_CFG_DICT, YAML

from ds2d2_yolo.comparison.processes import Cluster
from ds2d2_yolo.comparison.records import fingerprint_of_student, shaping_arguments
from ds2d2_yolo.errors import DS2D2Error, did_you_mean
from ds2d2_yolo.loading.fingerprint import (
    fingerprint_of_data,
    fingerprint_of_inputs,
    fingerprint_of_model,
)
from ds2d2_yolo.options import complete_options, option_defaults
from ds2d2_yolo.resources import resource_folder
from ds2d2_yolo.training.amplifier import load_amplifier, read_amplifier
from ds2d2_yolo.training.arguments import DEFAULTS, Arguments, check_arguments
from ds2d2_yolo.training.checks import with_task
from ds2d2_yolo.training.pair import check_pair
from ds2d2_yolo.training.pipeline import plan
from ds2d2_yolo.training.stages import (
    architecture_of,
)

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
    asked = check_arguments(arguments)
    if asked.batch < 1 or asked.batch != int(asked.batch):
        raise DS2D2Error(f"batch={asked.batch}: methods would get different batches, pass a whole number", 2)
    cluster = _cluster(options, asked)
    complete = [_check_method(method, arguments) for method in methods]

    has_amplifier = asked.amplifier not in {None, "auto"}  # it may be for the wavelet of one method alone
    planned = plan({**arguments, "amplifier": "auto"} if has_amplifier else arguments)
    args, teacher, student = planned.arguments, planned.teacher, planned.student
    trained = planned.states.get("teacher") == "given"
    assert student is not None
    for role, path, detector in (("teacher", asked.teacher, teacher), ("student", args.model, student)):
        if detector.explicit_only:
            raise DS2D2Error(f"{role}={path}: is an {detector.family}, whose AP is not compared here; use a YOLO")
    for method, arguments_of_method in zip(methods, complete, strict=True):
        with_task(arguments_of_method, teacher)
        if method.distil == "ultralytics" and teacher.family != "YOLO":
            raise DS2D2Error(
                f"methods={method.name}: Ultralytics' own distillation is for YOLO models, {teacher.title} is a "
                f"{teacher.family}; leave {method.name} out"
            )
        if method.distil == "ds2d2" and arguments_of_method.layers != args.layers:
            check_pair(teacher, student, args.imgsz, arguments_of_method.layers)

    if has_amplifier:
        if not trained:
            raise DS2D2Error(
                f"amplifier={asked.amplifier}: belongs to a trained teacher, but {asked.teacher} is not yet"
            )
        load_amplifier(str(asked.amplifier), teacher, read_amplifier(str(asked.amplifier))["wavelet"])

    places = {"student", "name", "save_dir", "project"}
    arguments = {key: value for key, value in arguments.items() if key not in places}
    arguments |= {"model": args.model, "data": planned.data.get("yaml_file", args.data)}
    arguments |= {"teacher": args.teacher if trained else asked.teacher, "amplifier": asked.amplifier}
    for name in ("model", "data", "teacher", "amplifier", "pretrained"):  # a worker may have another working folder
        if name in arguments and isinstance(arguments[name], (str, Path)) and Path(arguments[name]).exists():
            arguments[name] = str(Path(arguments[name]).resolve())
    run_name = args.name
    if not run_name:
        inputs = {
            "teacher": fingerprint_of_model(teacher.model) if trained else architecture_of(asked.teacher),
            "student": fingerprint_of_student(args, student),
            "data": fingerprint_of_data(planned.data),
            "epochs": [args.epochs, asked.teacher_epochs, args.amplifier_epochs],
            "arguments": shaping_arguments(args),
        }
        run_name = f"compare-{student.title}-{fingerprint_of_inputs(inputs)[:8]}"
    folder = args.replace(name=run_name, exist_ok=True).run_folder  # the same command continues in the same folder
    arguments["project"] = str(folder.parent)  # where the stages go, and other comparisons find them
    return Comparison(folder, methods, seeds, arguments, planned.data, cluster)


def _method(name: str, entry: Any, file: str, shipped: Mapping[str, Any]) -> Method:
    if entry is None:
        hint = did_you_mean(name, shipped, f"there are {', '.join(shipped)}", cutoff=0.4)
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


def _check_method(method: Method, arguments: Mapping[str, Any]) -> Arguments:
    try:
        return check_arguments({**arguments, **method.arguments})
    except DS2D2Error as error:
        raise DS2D2Error(f"method {method.name}: {error}", error.exit_code) from error
