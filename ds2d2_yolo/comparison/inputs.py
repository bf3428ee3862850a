"""What determines the result of a run. Its record is found by these inputs alone."""

from __future__ import annotations

from pathlib import Path

from ultralytics.utils import DEFAULT_CFG_DICT

from ds2d2_yolo.detectors import Detector
from ds2d2_yolo.loading.fingerprint import effective_arguments, fingerprint_of_file, fingerprint_of_model
from ds2d2_yolo.loading.unlabeled import read_pseudo_set
from ds2d2_yolo.training.arguments import DEFAULTS, UNLABELED, Arguments
from ds2d2_yolo.training.stages import architecture_of

_MODELS = {"teacher", "amplifier", "distill_model", "teacher_epochs", "amplifier_epochs", "pretrained", *UNLABELED}
_CHECKS = {"val", "val_kd", "safe", "preset"}  # the arguments that a preset sets are listed themselves


def decisive_arguments(arguments: Arguments) -> dict[str, object]:
    """Return the arguments that determine a student, without models and unlabelled images: those have fingerprints."""
    settings = {key: value for key, value in vars(arguments).items() if key not in _MODELS | _CHECKS}
    return effective_arguments(settings, DEFAULT_CFG_DICT | DEFAULTS)


def distillation_arguments(arguments: Arguments) -> dict[str, object]:
    """Return the arguments of this package that determine a student, with defaults: a new default is a new run."""
    return {name: vars(arguments)[name] for name in sorted(set(DEFAULTS) - _MODELS - _CHECKS)}


def unlabeled_inputs(arguments: Arguments) -> dict[str, object]:
    """Return fingerprint, ratio and weight of a run's unlabelled images; empty without such images."""
    if not arguments.unlabeled:
        return {}
    settings = {"ratio": arguments.unlabeled_ratio, "weight": arguments.unlabeled_weight}
    return {"unlabeled": {"labels": read_pseudo_set(str(arguments.unlabeled)).fingerprint, **settings}}


def fingerprint_of_student(arguments: Arguments, student: Detector) -> object:
    """Return a fingerprint of the student before training: of its weights or architecture, and of `pretrained`.

    Ultralytics replaces the weights of a checkpoint, too, unless `pretrained` is True.
    """
    start: object = arguments.pretrained
    if isinstance(start, (str, Path)):
        start = fingerprint_of_file(Path(start)) if Path(start).is_file() else str(start)
    if Path(arguments.model).suffix.lower() != ".pt":
        return [architecture_of(arguments.model), start]
    weights = fingerprint_of_model(student.model)
    return weights if start is True else [weights, start]
