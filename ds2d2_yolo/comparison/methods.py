"""The compared methods of training a student, from `cfg/methods.yaml` or files of the user."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ultralytics.utils import DEFAULT_CFG_DICT, YAML

from ds2d2_yolo.comparison.processes import Cluster
from ds2d2_yolo.errors import DS2D2Error, did_you_mean
from ds2d2_yolo.resources import resource_folder
from ds2d2_yolo.training.arguments import DEFAULTS, UNLABELED

PLAIN, BUILTIN = "plain", "builtin"
"""Reference methods of the comparison."""

Distil = Literal["none", "ultralytics", "ds2d2"]
"""The distillation of a method: none, Ultralytics' own, or that of this package."""

# Arguments that methods of each kind may set. Others would change schedule, data or initial weights. `epochs` allows
# another length of the schedule, so that methods of different cost can be compared at equal time.
_ALLOWED: dict[Distil, frozenset[str]] = {
    "none": frozenset({"epochs", *UNLABELED}),
    "ultralytics": frozenset({"epochs", "dis"}),
    "ds2d2": frozenset(DEFAULTS) - {"teacher", "teacher_epochs", "amplifier", "lr_steps", "safe"} | {"epochs"},
}


@dataclass(frozen=True)
class Method:
    """A way to train the student.

    Attributes:
        name (str): Its name.
        distil (str): `none`, `ultralytics` or `ds2d2`.
        arguments (dict[str, object]): Arguments that differ from those of the comparison.
    """

    name: str
    distil: Distil
    arguments: dict[str, object] = field(default_factory=dict)

    @property
    def takes_unlabeled(self) -> bool:
        """Whether it uses the unlabelled images of the comparison, if there are any."""
        return bool(self.arguments.get("unlabeled", self.distil == "ds2d2"))


@dataclass(frozen=True)
class Comparison:
    """A comparison: planned, running or finished.

    Attributes:
        folder (Path): Folder of its runs and results.
        methods (list[Method]): The methods.
        seeds (list[int]): Every method is trained with every seed.
        arguments (dict[str, object]): Train arguments of all runs.
        cluster (Cluster | None): Ray cluster that runs several jobs at the same time.
    """

    folder: Path
    methods: list[Method]
    seeds: list[int]
    arguments: dict[str, object]
    cluster: Cluster | None = None

    @property
    def runs(self) -> Path:
        """Folder of the runs, their records and their output."""
        return self.folder / "runs"

    @property
    def teacher(self) -> str:
        """The teacher's checkpoint, or the YAML of an untrained teacher."""
        return str(self.arguments["teacher"])

    @property
    def student(self) -> str:
        """The checkpoint or YAML that all students start from."""
        return str(self.arguments["model"])


def read_methods(chosen: object) -> list[Method]:
    """Return the methods that `methods=` names.

    Args:
        chosen (object): Names from `cfg/methods.yaml` and paths of YAML files of the same form, as a list or a text
            with commas.

    Returns:
        (list[Method]): The methods, in the given order.

    Raises:
        DS2D2Error: If a method is unknown or named twice, a file has another form, or a method sets a wrong argument.

    Example:
        >>> [method.name for method in read_methods("plain,db2")], read_methods("db2")[0].arguments
        (['plain', 'db2'], {'wavelet': 'db2'})
    """
    shipped_file = str(resource_folder("cfg") / "methods.yaml")
    shipped: dict[str, object] = YAML.load(shipped_file)
    methods: list[Method] = []
    for word in map(str, listed(chosen)):
        is_file = Path(word).suffix in {".yaml", ".yml"}
        entries = _entries_of(word, shipped) if is_file else {word: shipped.get(word)}
        file = word if is_file else shipped_file
        methods += [_method(name, entry, file, shipped) for name, entry in entries.items()]
    names = [method.name for method in methods]
    if not names:
        raise DS2D2Error("methods= names no method; pass for example methods=plain,ds2d2", 2)
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DS2D2Error(f"methods: '{twice}' is named twice; leave one of them out", 2)
    return methods


def listed(value: object) -> list[object]:
    """Return the entries of a list that comes from the command line, a YAML file or Python.

    Example:
        >>> listed("0, 1"), listed((0, 1)), listed(0), listed(None)
        (['0', '1'], [0, 1], [0], [])
    """
    if isinstance(value, str):
        return [word.strip() for word in value.strip("[]() ").split(",") if word.strip()]
    if isinstance(value, (list, tuple)):
        return list(value)
    return [] if value is None else [value]


def _entries_of(file: str, shipped: Mapping[str, object]) -> dict[str, object]:
    """Return the entries of a user's file by method name. An empty entry stands for the shipped method."""
    try:
        content = YAML.load(file)
    except Exception as error:  # missing, a folder, not YAML: all mistakes of the user
        raise DS2D2Error(f"methods={file}: cannot be read, {error}; see 'ds2d2 cfg methods' for its form", 2) from error
    if not content:
        raise DS2D2Error(f"methods={file}: has no methods; see 'ds2d2 cfg methods' for its form", 2)
    return {str(name): shipped.get(str(name)) if entry is None else entry for name, entry in content.items()}


def _method(name: str, entry: object, file: str, shipped: Mapping[str, object]) -> Method:
    if entry is None:
        hint = did_you_mean(name, shipped, f"there are {', '.join(shipped)}", cutoff=0.4)
        raise DS2D2Error(f"methods={name}: no such method; {hint}", 2)
    if not isinstance(entry, dict):
        raise DS2D2Error(f"{file}: method {name} is {entry!r}, expected its arguments, such as {{im_high: 0}}", 2)
    if not re.fullmatch(r"[\w.+=-]+", name):
        better = re.sub(r"[^\w.+=-]+", "-", name) or "mine"
        raise DS2D2Error(f"{file}: '{name}': cannot be the name of a run's folder; choose another, such as {better}", 2)
    arguments: dict[str, object] = {str(key): value for key, value in entry.items()}
    _check_redefinition(name, arguments, file, shipped)
    word = str(arguments.pop("distil", "ds2d2")).lower()
    if word not in _ALLOWED:
        raise DS2D2Error(f"{file}: method {name}: distil={word}: expected none, ultralytics or ds2d2", 2)
    if not isinstance(arguments.get("unlabeled", True), bool):
        raise DS2D2Error(
            f"{file}: method {name}: unlabeled={arguments['unlabeled']}: expected True or False; pass the images on "
            "the command line",
            2,
        )
    for key, value in arguments.items():
        if key not in _ALLOWED[word]:
            raise DS2D2Error(f"{file}: method {name}: {key}={value}: {_reason_against(key, word)}", 2)
    return Method(name, word, arguments)


def _reason_against(key: str, distil: Distil) -> str:
    """Return why methods of a kind cannot set an argument, and what to do."""
    if kinds := [kind for kind, allowed in _ALLOWED.items() if key in allowed]:
        return f"only with distil={' or '.join(kinds)}, and this is distil={distil}; leave {key} out"
    if key in {*DEFAULT_CFG_DICT, *DEFAULTS, "student"}:
        return "all methods of a comparison share it; pass it on the command line"
    allowed = sorted(_ALLOWED[distil])
    return f"no such argument, {did_you_mean(key, allowed, 'set one of ' + ', '.join(allowed))}"


def _check_redefinition(name: str, arguments: Mapping[str, object], file: str, shipped: Mapping[str, object]) -> None:
    """Refuse a shipped method's name for other arguments: tables compare with `plain`, and readers know the others."""
    known = shipped.get(name)
    if not isinstance(known, dict) or arguments == known:
        return
    kept = {key: value for key, value in known.items() if key == "distil"}  # who forgets it would distil `plain`
    entry = ", ".join(f"{key}: {value}" for key, value in {**kept, **arguments}.items())
    raise DS2D2Error(
        f"{file}: {name}: is a shipped method with other arguments; choose another name, such as "
        f"{name}-2: {{ {entry} }}",
        2,
    )
