"""The arguments of a run: Ultralytics' arguments and those of distillation, with all checks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_args

from ultralytics.cfg import cfg2dict, get_cfg, get_save_dir
from ultralytics.utils import DEFAULT_CFG_DICT, YAML

from ds2d2_yolo.detectors import TASKS
from ds2d2_yolo.errors import DS2D2Error, did_you_mean
from ds2d2_yolo.method import TERMS, WEIGHTS, Gains, filter_length
from ds2d2_yolo.resources import own_file, resource_folder
from ds2d2_yolo.training.types import Configuration

DEFAULTS: dict[str, Any] = YAML.load(resource_folder("cfg") / "default.yaml")
"""The arguments of ds2d2 and their defaults, from `cfg/default.yaml`."""

KEYS = (*DEFAULT_CFG_DICT, *DEFAULTS, "student", "save_dir", "augmentations", "session")
"""Names of all arguments of a run: Ultralytics' and ours."""

PRESETS: dict[str, dict[str, Any]] = YAML.load(resource_folder("cfg") / "presets.yaml")
"""The arguments that each `preset` sets, from `cfg/presets.yaml`."""

FOOTPRINTS = ("rotated", "hull")
"""Cells that an oriented object covers, for its weight: those in its own box, or those in its axis-aligned hull."""

_CHOICES: dict[str, tuple[str | None, ...]] = {
    "preset": (None, *PRESETS),
    "adapters": ("fitted", "random"),  # weights at the start
    "gains": ("auto", "running", "reference"),  # by calibration, by calibration with updates, or the authors' gains
    "weight": (None, *WEIGHTS),
    "footprint": (None, *FOOTPRINTS),
    "assignment": ("student", "teacher"),
}
_FILES = {"teacher": "yolo11l.pt", "model": "yolo11n.yaml", "amplifier": "amplifier.pt", "data": "scenes.yaml"}
"""Arguments that are paths, with an example of each."""

_OPTIMIZERS = ("auto", "SGD", "MuSGD", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSProp")

UNLABELED = ("unlabeled", "unlabeled_ratio", "unlabeled_weight", "unlabeled_precision")
"""Arguments about images without labels. In a method of a comparison, `unlabeled` states whether it uses them."""

Goal = Literal["teacher", "amplifier", "unlabeled", "student"]
"""The last stage of a run. Each stage needs the stages before it, but `unlabeled` needs no amplifier."""

LayerPairs = tuple[tuple[int, ...], tuple[int, ...]]
"""Layers of the student and of the teacher. Entries at the same position are a pair."""


class Arguments:
    """The complete, checked and immutable arguments of a run: Ultralytics' and those of `cfg/default.yaml`.

    Every argument is an attribute and an entry of `vars(arguments)`. For `gains`, `shares` and `layers`, the entry is
    the user's value and the attribute is the result that also considers other arguments.

    Args:
        values (Mapping[str, Any]): All arguments by name.

    Raises:
        AttributeError: If an attribute is set. `replace` returns changed arguments.

    Example:
        >>> arguments = check_arguments({"teacher": "yolo11s.pt", "student": "yolo11n.yaml", "im_full": 3})
        >>> arguments.gains.im_full, arguments.replace(im_full=0).gains.im_full
        (3.0, 0.0)
    """

    # The arguments that this package reads. Any: those to which Ultralytics gives several types.
    adapters: str
    amp: bool | str
    amplifier: str | Path | None
    amplifier_epochs: int | None
    assignment: str
    batch: int | float
    classes: int | list[int] | None
    close_distill: float
    compile: bool | str
    data: str
    device: Any
    distill_every: int
    distill_model: str | None
    epochs: int
    exist_ok: bool
    footprint: str | None
    freeze: int | list[int] | None
    im_every: int
    imgsz: int
    iou: float
    lr_steps: list[float] | None
    max_det: int
    model: str
    name: str | None
    optimizer: str
    plots: bool
    preset: str | None
    pretrained: bool | str | Path
    project: str | None
    quantize: Any
    rect: bool
    resume: bool | str | Path | None
    safe: bool
    save_dir: str | None
    seed: int
    single_cls: bool
    split: str
    sum_regions: bool | None
    task: str
    teacher: str
    teacher_epochs: int | None
    teacher_imgsz: int | None
    time: float | None
    unlabeled: str | Path | bool | list[str] | None
    unlabeled_precision: float | None
    unlabeled_ratio: float
    unlabeled_weight: float
    val_kd: bool
    wavelet: str
    weight: str | None
    workers: int

    def __init__(self, values: Mapping[str, Any]) -> None:
        vars(self).update(values)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"arguments are immutable: use replace({name}=...)")

    def replace(self, **changes: object) -> Arguments:
        """Return a copy with changed arguments."""
        return Arguments(vars(self) | changes)

    @property
    def gains(self) -> Gains:
        """The gains of the terms. Without an amplifier, im_high is 0.

        For gains that calibration sets, the value is the term's share: not 0 if the term is on.
        """
        entries = vars(self)
        gains = {
            name: share if entries[name] is None else float(entries[name]) for name, share in self._all_shares.items()
        }
        if self.amplifier is None:
            gains["im_high"] = 0.0
        return Gains(**gains)

    @property
    def shares(self) -> dict[str, float]:
        """The shares of the terms whose gains are set by calibration."""
        active = self.gains.active
        return {name: share for name, share in self._all_shares.items() if vars(self)[name] is None and name in active}

    @property
    def _all_shares(self) -> dict[str, float]:
        return dict(zip(TERMS, map(float, vars(self)["shares"]), strict=True))

    @property
    def has_running_gains(self) -> bool:
        """Whether gains from calibration are updated during training."""
        return vars(self)["gains"] == "running"

    @property
    def layers(self) -> LayerPairs | None:
        """The layers for the explicit terms, of the student and of the teacher. None means the default.

        Raises:
            DS2D2Error: If the value is neither a list of layers nor two lists of equal length.
        """
        layers = vars(self)["layers"]
        if layers is None:
            return None
        if isinstance(layers, (list, tuple)) and layers:
            pair = layers if isinstance(layers[0], (list, tuple)) else [layers, layers]
            if len(pair) == 2 and all(map(_are_layers, pair)) and len(pair[0]) == len(pair[1]):
                student, teacher = map(tuple, pair)
                if len(set(zip(student, teacher, strict=True))) == len(student):
                    return student, teacher
        raise DS2D2Error(
            f"layers={layers}: expected layer numbers such as [15,18,21], or a list for the student and one of equal "
            "length for the teacher, such as [[15,18,21],[16,19,22]]",
            2,
        )

    @property
    def run_folder(self) -> Path:
        """The folder of a new run with these arguments, as Ultralytics chooses it."""
        return get_save_dir(SimpleNamespace(**vars(self)))

    @property
    def teacher_size(self) -> int:
        """Side of the teacher's images, in pixels; also in the stages that train it and its amplifier."""
        return self.imgsz if self.teacher_imgsz is None else self.teacher_imgsz

    def epochs_of(self, stage: str) -> int:
        """Return the number of epochs of a stage.

        Args:
            stage (str): `teacher` or `amplifier`.

        Example:
            >>> check_arguments({"epochs": 100}).epochs_of("amplifier")
            34
        """
        if stage == "teacher":
            return self.teacher_epochs or self.epochs
        # A longer training improves the amplifier, but not its students: docs/results/parts.md
        return self.amplifier_epochs or math.ceil(self.epochs / 3)

    @property
    def size_ratio(self) -> int:
        """Side of the images that a student's training loads, in sides of the student's; 1 without a teacher."""
        return self.teacher_size // self.imgsz if self.needs_teacher else 1

    @property
    def needs_teacher(self) -> bool:
        """Whether the run uses its teacher: for a term, or for the assignment of objects."""
        return bool(self.gains.active) or self.assignment == "teacher"

    def is_plain(self, epoch: int, epochs: int | None = None) -> bool:
        """Return whether an epoch is one of the last ones, which `close_distill` trains without distillation.

        Args:
            epoch (int): The epoch, from 0.
            epochs (int | None): Number of epochs. None means the argument `epochs`. With `time=` the number changes.
        """
        epochs = epochs or self.epochs
        plain = self.plain_epochs(epochs)
        return plain > 0 and epoch >= epochs - plain

    def plain_epochs(self, epochs: int) -> int:
        """Return the number of epochs without distillation at the end of a run.

        Args:
            epochs (int): Number of epochs of the run. `close_distill` below 1 is a share of them, rounded down.

        Example:
            >>> check_arguments({"close_distill": 0.5}).plain_epochs(25)
            12
        """
        share = self.close_distill
        return int(share * epochs) if share < 1 else int(share)


def preset_arguments(preset: str | None) -> dict[str, Any]:
    """Return the arguments that a preset in `cfg/presets.yaml` sets, by name. None sets nothing.

    Example:
        >>> preset_arguments("fast")
        {'im_full': 0, 'im_high': 0, 'close_distill': 0.5}
    """
    return dict(PRESETS[preset]) if preset else {}


def complete_configuration(cfg: Configuration) -> dict[str, Any]:
    """Return an Ultralytics configuration with the arguments of ds2d2.

    Ultralytics refuses keys that its configuration lacks. So its trainers get a complete configuration, and its global
    defaults stay unchanged for other trainings of the process and their DDP workers.

    Args:
        cfg (Configuration): Path, mapping or namespace, as for Ultralytics' trainers. What it omits is the default.

    Returns:
        (dict[str, Any]): All arguments by name. `amplifier: none` in a YAML file becomes None, as on the command line.

    Raises:
        DS2D2Error: If a key is unknown.

    Example:
        >>> complete_configuration({"epochs": 3})["wavelet"]
        'haar'
    """
    given = dict(cfg2dict(dict(cfg) if isinstance(cfg, Mapping) else cfg))
    check_keys(given)
    if "student" in given:
        given["model"] = given.pop("student")
    return _without_none_strings(DEFAULT_CFG_DICT | DEFAULTS | given)


def check_arguments(
    overrides: Mapping[str, Any], cfg: Configuration | None = None, goal: Goal | None = None
) -> Arguments:
    """Return the complete arguments of a run, after all checks that need no models or data.

    Args:
        overrides (Mapping[str, Any]): The user's arguments. `student` is another name for `model`.
        cfg (Configuration | None): Base configuration. None means Ultralytics' defaults.
        goal (str | None): The last stage of the run, for checks of required and unsupported arguments. None skips
            them.

    Returns:
        (Arguments): The arguments.

    Raises:
        DS2D2Error: If a key is unknown, a value has the wrong type or is out of range, or two arguments exclude each
            other.

    Example:
        >>> check_arguments({"teacher": "yolo11s.pt", "student": "yolo11n.yaml", "im_full": 3}).model
        'yolo11n.yaml'
    """
    overrides = _without_none_strings(overrides)
    if (student := overrides.pop("student", None)) is not None:
        if overrides.get("model") not in (None, student):  # a tuple: lists have no hash
            raise DS2D2Error(
                f"student={student} and model={overrides['model']}: they are one argument; leave model= out", 2
            )
        overrides["model"] = student
    check_keys(overrides)
    cfg = DEFAULT_CFG_DICT if cfg is None else cfg
    try:
        given = {*overrides, *cfg2dict(dict(cfg) if isinstance(cfg, Mapping) else cfg)}
        values = dict(vars(get_cfg(complete_configuration(cfg), overrides)))
    except (TypeError, ValueError, SyntaxError, FileNotFoundError) as error:
        raise DS2D2Error(str(error), 2) from error
    _check_choices(values)
    preset = preset_arguments(values["preset"])
    values |= {name: value for name, value in preset.items() if name not in given}
    _check_numbers(values)
    _check_folders(values)
    try:
        filter_length(str(values["wavelet"]))
    except ValueError as error:
        raise DS2D2Error(str(error), 2) from error
    _check_steps(values)
    for name in ("teacher", "model"):  # bare names of models that ship with ds2d2
        if str(values[name]).endswith((".yaml", ".yml")):
            values[name] = own_file(str(values[name]), "cfg", "models")
    if values["data"]:
        values["data"] = own_file(str(values["data"]), "datasets")
    arguments = Arguments(values)
    _ = arguments.layers  # raises an error if they are malformed
    if goal is not None:
        _check_goal(arguments, goal)
    return arguments


def _check_goal(arguments: Arguments, goal: Goal) -> None:
    """Refuse an unknown goal, missing arguments, and arguments that the goal or distillation does not support."""
    if goal not in get_args(Goal):
        raise DS2D2Error(f"goal={goal}: no such stage; pass one of {', '.join(get_args(Goal))}", 2)
    if not arguments.teacher:
        raise DS2D2Error("teacher= is missing: pass a .pt or a model .yaml, such as teacher=yolo11l.yaml", 2)
    if goal == "student" and not arguments.model:
        raise DS2D2Error("student= is missing: pass a model .yaml or a .pt, such as student=yolo11n.yaml", 2)
    for name in ("name", "model", "resume") if goal != "student" else ():
        if value := getattr(arguments, name):
            raise DS2D2Error(
                f"{name}={value}: a stage has no {name}=, it is identified by its fingerprint; leave {name}= out", 2
            )
    if not arguments.data:
        raise DS2D2Error("data= is missing: pass a data YAML, such as data=scenes.yaml", 2)
    if arguments.distill_model is not None:
        raise DS2D2Error(
            f"distill_model={arguments.distill_model}: is Ultralytics' own distillation; leave distill_model= out", 2
        )
    if arguments.compile:
        raise DS2D2Error(
            f"compile={arguments.compile}: not available here, a compiled model has no layers to tap; leave compile= "
            "out",
            2,
        )
    if arguments.task not in TASKS:
        raise DS2D2Error(f"task={arguments.task}: only {', '.join(TASKS)} can be distilled; leave task= out", 2)
    if arguments.quantize == 8 and find_spec("modelopt") is None:
        raise DS2D2Error("quantize=8: needs NVIDIA ModelOpt; run 'pip install nvidia-modelopt'", 2)
    if goal == "amplifier" and isinstance(arguments.pretrained, (str, Path)):
        raise DS2D2Error(
            f"pretrained={arguments.pretrained}: an amplifier starts from its teacher's head; leave pretrained= out, "
            "or pass it to 'ds2d2 teacher' first",
            2,
        )


def check_keys(overrides: Mapping[str, Any]) -> None:
    """Refuse unknown keys, and suggest similar valid ones.

    Args:
        overrides (Mapping[str, Any]): Arguments by name.

    Raises:
        DS2D2Error: If a name is not an argument of Ultralytics or of ds2d2.
    """
    for key in overrides:
        if key not in KEYS:
            hint = did_you_mean(key, KEYS, "see 'ds2d2 cfg' for all arguments")
            raise DS2D2Error(f"{key}={overrides[key]}: no such argument, {hint}", 2)


def _are_layers(side: object) -> bool:
    return isinstance(side, (list, tuple)) and bool(side) and all(type(i) is int and i >= 0 for i in side)


def _check_numbers(values: Mapping[str, Any]) -> None:
    for name in TERMS:
        _check_number(name, values[name], minimum=0)
    _check_number("teacher_epochs", values["teacher_epochs"], minimum=0, whole=True)
    _check_number("amplifier_epochs", values["amplifier_epochs"], minimum=1, whole=True)
    _check_number("teacher_imgsz", values["teacher_imgsz"], minimum=1, whole=True)
    for name in ("distill_every", "im_every"):
        _check_number(name, values[name], minimum=1, whole=True, optional=False)
    _check_number("unlabeled_ratio", values["unlabeled_ratio"], minimum=0, optional=False)
    if not values["unlabeled_ratio"]:
        raise DS2D2Error("unlabeled_ratio=0: no unlabelled image would be used; pass unlabeled=False", 2)
    _check_number("unlabeled_weight", values["unlabeled_weight"], minimum=0, optional=False)
    _check_number("unlabeled_precision", values["unlabeled_precision"], minimum=0)
    if (values["unlabeled_precision"] or 0) > 1:
        raise DS2D2Error(f"unlabeled_precision={values['unlabeled_precision']}: expected a number from 0 to 1", 2)
    closed, epochs = values["close_distill"], values["epochs"]
    _check_number("close_distill", closed, minimum=0, optional=False)
    if closed > 1 and closed != int(closed):
        raise DS2D2Error(f"close_distill={closed}: expected a whole number of epochs, or a share of them below 1", 2)
    if closed >= max(epochs, 1):
        raise DS2D2Error(
            f"close_distill={closed}: no epoch would be distilled, as epochs={epochs}; "
            + (f"pass close_distill={epochs - 1} or less" if epochs > 1 else "leave close_distill= out"),
            2,
        )
    shares = values["shares"]
    listed = isinstance(shares, (list, tuple)) and len(shares) == len(TERMS)
    # `type` instead of `isinstance`: True is an int
    if not listed or not all(type(share) in {int, float} and 0 <= share < float("inf") for share in shares):
        raise DS2D2Error(f"shares={shares}: expected numbers >= 0 for {', '.join(TERMS)}, such as [0.1,0.1,1,0.5,1]", 2)


def _check_number(name: str, value: object, minimum: float, whole: bool = False, optional: bool = True) -> None:
    if value is None and optional:
        return
    kinds = (int,) if whole else (int, float)
    # `not value >= minimum` instead of `value < minimum`: this also refuses NaN
    if isinstance(value, bool) or not isinstance(value, kinds) or not value >= minimum or value == float("inf"):
        kind = "a whole number" if whole else "a number"
        raise DS2D2Error(f"{name}={value}: expected {kind} of at least {minimum}", 2)


def _check_folders(values: dict[str, Any]) -> None:
    """Convert numbers such as 2026 to names of folders, and refuse other types."""
    for name in ("project", "name", "save_dir"):
        value = values.get(name)
        if type(value) in {int, float}:
            values[name] = str(value)
        elif value is not None and not isinstance(value, (str, Path)):
            raise DS2D2Error(f"{name}={value}: expected the name of a folder", 2)


def _check_choices(values: Mapping[str, Any]) -> None:
    for name, choices in _CHOICES.items():
        if values[name] not in choices:
            raise DS2D2Error(f"{name}={values[name]}: expected {' or '.join(filter(None, choices))}", 2)
    for name, example in _FILES.items():
        value = values[name]
        if value is not None and not isinstance(value, (str, Path)):
            # The text of a model has hundreds of lines
            shown = value if type(value).__module__ == "builtins" else f"a {type(value).__name__} object"
            raise DS2D2Error(f"{name}={shown}: expected the path of a file, such as {name}={example}", 2)
    for name, truths in (("sum_regions", (None, True, False)), ("safe", (True, False)), ("val_kd", (True, False))):
        if not any(values[name] is truth for truth in truths):  # `is`, as 1 == True
            raise DS2D2Error(f"{name}={values[name]}: expected True or False", 2)
    if str(values["optimizer"]).lower() not in {name.lower() for name in _OPTIMIZERS}:
        raise DS2D2Error(f"optimizer={values['optimizer']}: no such optimiser; pass one of {', '.join(_OPTIMIZERS)}", 2)


def _check_steps(values: Mapping[str, Any]) -> None:
    steps = values["lr_steps"]
    if steps is None:
        return
    listed = isinstance(steps, (list, tuple)) and len(steps) > 0
    # `type` instead of `isinstance`: True is an int
    if not listed or not all(type(step) in {int, float} and step > 0 for step in steps) or list(steps) != sorted(steps):
        raise DS2D2Error(f"lr_steps={steps}: expected epochs in ascending order, such as lr_steps=[16,22]", 2)
    if values["cos_lr"]:
        raise DS2D2Error(f"lr_steps={steps} and cos_lr=True: two schedules; leave cos_lr= out", 2)


def _without_none_strings(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments with `amplifier: none`, from YAML or Python, converted to None."""
    arguments = dict(arguments)
    if str(arguments.get("amplifier", "")).lower() == "none":
        arguments["amplifier"] = None
    return arguments
