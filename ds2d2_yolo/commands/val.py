"""`ds2d2 val`: AP by COCO's definition of a detector on a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ultralytics.utils import DEFAULT_CFG_DICT

from ds2d2_yolo.commands.words import parse_arguments
from ds2d2_yolo.errors import DS2D2Error, did_you_mean
from ds2d2_yolo.evaluation.average_precision import evaluate, table_lines
from ds2d2_yolo.options import complete_options, option_defaults


def run_val(given: Mapping[str, Any]) -> int:
    """Evaluate a detector and print what came out: the mode `ds2d2 val`.

    Args:
        given (Mapping[str, Any]): `model`, `data`, the options of `cfg/val.yaml` and Ultralytics' val arguments.

    Returns:
        (int): Exit code 0.

    Raises:
        DS2D2Error: As `evaluate` does, and if an argument is unknown or missing.
    """
    own = option_defaults("val")
    known = [*own, *DEFAULT_CFG_DICT, "save_dir"]
    for name, value in given.items():
        if name not in known:
            hint = did_you_mean(name, known, "see 'ds2d2 cfg val' for all options")
            raise DS2D2Error(f"{name}={value}: 'ds2d2 val' has no such option, {hint}", 2)
    for name, example in (("model", "path/to/best.pt"), ("data", "path/to/data.yaml")):
        if not given.get(name):
            raise DS2D2Error(f"{name}= is missing, for example {name}={example}", 2)
    options = complete_options("val", {name: value for name, value in given.items() if name in own})
    print("\n".join(table_lines(evaluate(**{**given, **options}))))
    return 0


def run(arguments: Sequence[str]) -> int:
    """Run the command with the words after its name."""
    return run_val(parse_arguments(arguments))
