"""The arguments that distillation adds to Ultralytics', and the checks that Ultralytics does not make of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ultralytics.cfg import cfg2dict, get_cfg
from ultralytics.utils import DEFAULT_CFG_DICT, YAML

from ds2d2_yolo.errors import DS2D2Error, did_you_mean
from ds2d2_yolo.method import TERMS, WEIGHTS, Gains, filter_bank
from ds2d2_yolo.resources import own_file, resource_folder

DEFAULTS: dict[str, Any] = YAML.load(resource_folder("cfg") / "default.yaml")
"""Own arguments and their defaults, from `cfg/default.yaml`."""

GAINS = ("auto", "reference")
"""Where gains come from that are not given as numbers: calibration, or the paper's authors."""

FOOTPRINTS = ("rotated", "hull")
"""What an oriented object covers, for its weight: the cells in its own box, or those of its upright hull."""

ASSIGNMENTS = ("student", "teacher")
"""Whose predictions assign the objects in the student's own loss."""

_OPTIMIZERS = ("auto", "SGD", "MuSGD", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSProp")


def complete_configuration(cfg: Any) -> dict[str, Any]:
    """Return an Ultralytics configuration together with the own arguments.

    Ultralytics refuses keys that its configuration lacks. Handing the trainers a complete one keeps its global defaults
    as they are: other trainings of the process, and their DDP workers, never see our names.

    Args:
        cfg (Any): Path, mapping or namespace, as Ultralytics' trainers take it.

    Returns:
        (dict[str, Any]): All arguments by name; `amplifier: none` of a YAML file becomes None, as on the command line.

    Example:
        >>> complete_configuration({"epochs": 3})["wavelet"]
        'haar'
    """
    return _without_none_strings(DEFAULTS | cfg2dict(cfg))


def check_arguments(overrides: Mapping[str, Any], cfg: Any = None) -> SimpleNamespace:
    """Return the complete arguments of a run, after every check that needs the arguments alone.

    Args:
        overrides (Mapping[str, Any]): What the user asked for; `student` is another name for `model`.
        cfg (Any): Configuration that the overrides change; None takes Ultralytics' defaults.

    Returns:
        (SimpleNamespace): All arguments, Ultralytics' and own.

    Raises:
        DS2D2Error: If a key is unknown, a value has the wrong type or is out of range, or two arguments exclude each
            other.

    Example:
        >>> check_arguments({"teacher": "yolo11s.pt", "student": "yolo11n.yaml", "im_full": 3}).im_full
        3
    """
    overrides = _without_none_strings(overrides)
    if (student := overrides.pop("student", None)) is not None:
        if overrides.get("model") not in (None, student):  # a tuple: lists have no hash
            raise DS2D2Error(
                f"student={student} and model={overrides['model']}: they are one argument, give one of them", 2
            )
        overrides["model"] = student
    check_keys(overrides)
    try:
        args = get_cfg(complete_configuration(DEFAULT_CFG_DICT if cfg is None else cfg), overrides)
    except (TypeError, ValueError, SyntaxError, FileNotFoundError) as error:
        raise DS2D2Error(str(error), 2) from error
    for name in TERMS:
        _check_number(args, name, minimum=0, optional=True)
    _check_shares(args)
    choices = {"gains": GAINS, "weight": (None, *WEIGHTS), "disw": (None, *FOOTPRINTS), "assignment": ASSIGNMENTS}
    for name, known in choices.items():
        if getattr(args, name) not in known:
            raise DS2D2Error(f"{name}={getattr(args, name)}: expected {' or '.join(filter(None, known))}", 2)
    for name in ("teacher_epochs", "amplifier_epochs"):
        _check_number(args, name, minimum=1, whole=True, optional=True)
    for name in ("teacher", "amplifier"):
        value = getattr(args, name)
        if value is not None and not isinstance(value, (str, Path)):
            raise DS2D2Error(f"{name}={value}: expected the path of a file", 2)
    for name, values in (("sum_regions", (None, True, False)), *((name, (True, False)) for name in ("safe", "val_kd"))):
        # `is`, as 1 == True
        if not any(getattr(args, name) is value for value in values):
            raise DS2D2Error(f"{name}={getattr(args, name)}: expected True or False", 2)
    if str(args.optimizer).lower() not in {name.lower() for name in _OPTIMIZERS}:
        raise DS2D2Error(f"optimizer={args.optimizer}: no such optimiser, take one of {', '.join(_OPTIMIZERS)}", 2)
    try:
        filter_bank(str(args.wavelet))
    except ValueError as error:
        raise DS2D2Error(str(error), 2) from error
    layers_of(args)
    _check_steps(args)
    for name in ("teacher", "model"):  # bare names of models that ship with ds2d2
        if getattr(args, name) and str(getattr(args, name)).endswith((".yaml", ".yml")):
            setattr(args, name, own_file(str(getattr(args, name)), "cfg", "models"))
    return args


def check_keys(overrides: Mapping[str, Any]) -> None:
    """Refuse unknown keys, with the closest known ones.

    Args:
        overrides (Mapping[str, Any]): Arguments by name.

    Raises:
        DS2D2Error: If a name is not an argument of Ultralytics or of ds2d2.
    """
    known = [*DEFAULT_CFG_DICT, *DEFAULTS, "student", "save_dir", "augmentations", "session"]
    for key in overrides:
        if key not in known:
            hint = did_you_mean(key, known, "see 'ds2d2 cfg' for all arguments")
            raise DS2D2Error(f"{key}={overrides[key]}: no such argument, {hint}", 2)


def gains_of(args: Any) -> Gains:
    """Return the gains that `args` asks for; without an amplifier the term im_high is off.

    A gain that is still to be found by calibration is represented by the term's share: 0 where the term is off.
    """
    gains = {name: getattr(args, name) for name in TERMS}
    gains = {name: share if gains[name] is None else float(gains[name]) for name, share in _shares(args).items()}
    if args.amplifier is None:
        gains["im_high"] = 0.0
    return Gains(**gains)


def needs_teacher(args: Any) -> bool:
    """Return whether a run asks its teacher anything: for a term, or for the assignment of objects."""
    return bool(gains_of(args).active) or args.assignment == "teacher"


def shares_of(args: Any) -> dict[str, float]:
    """Return the shares of the terms whose gains are to be found by calibration."""
    active = gains_of(args).active
    return {name: share for name, share in _shares(args).items() if getattr(args, name) is None and name in active}


def take_reference_gains(args: Any, family: str, reference: Gains | None) -> None:
    """Complete the arguments of a run with `gains=reference`: what the user gave stays.

    Args:
        args (Any): Arguments of the run.
        family (str): Name of the detector family.
        reference (Gains | None): The authors' gains for it.

    Raises:
        DS2D2Error: If the authors have none.
    """
    if args.gains != "reference":
        return
    if reference is None:
        raise DS2D2Error(f"gains=reference: the paper's authors have none for {family}, use gains=auto", 2)
    for name in TERMS:
        if getattr(args, name) is None:
            setattr(args, name, getattr(reference, name))
    if args.sum_regions is None:
        args.sum_regions = True  # their coefficients go with sums; families without regions take no notice
    args.weight = args.weight or "disw"


def _shares(args: Any) -> dict[str, float]:
    return dict(zip(TERMS, map(float, args.shares), strict=True))


def layers_of(args: Any) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return the layers that `args` names, (student's, teacher's), or None where the default applies."""
    layers = args.layers
    if layers is None:
        return None
    if isinstance(layers, (list, tuple)) and layers:
        pair = layers if isinstance(layers[0], (list, tuple)) else [layers, layers]
        whole = all(isinstance(side, (list, tuple)) and all(type(i) is int and i >= 0 for i in side) for side in pair)
        if len(pair) == 2 and whole and pair[0] and len(pair[0]) == len(pair[1]) == len(set(zip(*pair, strict=True))):
            return tuple(pair[0]), tuple(pair[1])
    raise DS2D2Error(
        f"layers={layers}: expected layer numbers such as [15,18,21], or as many for each side, "
        "student's first, such as [[15,18,21],[16,19,22]]",
        2,
    )


def _check_number(args: Any, name: str, minimum: float, whole: bool = False, optional: bool = False) -> None:
    value = getattr(args, name)
    if value is None and optional:
        return
    kinds = (int,) if whole else (int, float)
    # `not value >= minimum` rather than `value < minimum`: it refuses NaN too
    if isinstance(value, bool) or not isinstance(value, kinds) or not value >= minimum or value == float("inf"):
        kind = "a whole number" if whole else "a number"
        raise DS2D2Error(f"{name}={value}: expected {kind} of at least {minimum}", 2)


def _check_shares(args: Any) -> None:
    shares = args.shares
    listed = isinstance(shares, (list, tuple)) and len(shares) == len(TERMS)
    # `type` rather than `isinstance`: True is an int
    if not listed or not all(type(share) in {int, float} and 0 <= share < float("inf") for share in shares):
        raise DS2D2Error(f"shares={shares}: expected numbers >= 0 for {', '.join(TERMS)}, such as [0.1,0.1,1,0.5,1]", 2)


def _check_steps(args: Any) -> None:
    steps = args.lr_steps
    if steps is None:
        return
    listed = isinstance(steps, (list, tuple)) and len(steps) > 0
    # `type` rather than `isinstance`: True is an int
    if not listed or not all(type(step) in {int, float} and step > 0 for step in steps) or list(steps) != sorted(steps):
        raise DS2D2Error(f"lr_steps={steps}: expected epochs in ascending order, such as lr_steps=[16,22]", 2)
    if args.cos_lr:
        raise DS2D2Error(f"lr_steps={steps} and cos_lr=True: two schedules, choose one", 2)


def _without_none_strings(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments with `amplifier: none`, as YAML and Python give it, turned into None."""
    arguments = dict(arguments)
    if str(arguments.get("amplifier")).lower() == "none" and "amplifier" in arguments:
        arguments["amplifier"] = None
    return arguments
