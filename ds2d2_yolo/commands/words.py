"""Parses words of the command line with Ultralytics' syntax, and prints the result of a command."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ultralytics.cfg import merge_equals_args, parse_key_value_pair
from ultralytics.utils import DEFAULT_CFG_DICT, YAML

from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.resources import own_file
from ds2d2_yolo.training.arguments import DEFAULTS

_TEXTS = {"src", "out", "predictions", "source", "run", "baseline"}  # a folder named 2026_01 is not a number


def parse_arguments(arguments: Sequence[str]) -> dict[str, Any]:
    """Parse `key=value` words as Ultralytics does.

    Args:
        arguments (Sequence[str]): Words of the command line. `cfg=file.yaml` adds the arguments in the file; the other
            words override them.

    Returns:
        (dict[str, Any]): Arguments by name.

    Raises:
        DS2D2Error: If a word is not a `key=value` pair, or the file of `cfg=` cannot be read.

    Example:
        >>> parse_arguments(["epochs=3", "amplifier=none", "layers=[15,18,21]"])
        {'epochs': 3, 'amplifier': None, 'layers': [15, 18, 21]}
    """
    try:
        words = merge_equals_args(list(arguments))
    except (SyntaxError, IndexError) as error:
        raise DS2D2Error(str(error), 2) from error
    given: dict[str, Any] = {}
    from_file: dict[str, Any] = {}
    for word in words:
        word = word.removeprefix("--").removesuffix(",")
        if "=" not in word:
            if isinstance(DEFAULT_CFG_DICT.get(word), bool):
                given[word] = True  # as in Ultralytics, a name without a value means true
                continue
            key = word if word in {*DEFAULT_CFG_DICT, *DEFAULTS, "student"} else "key"
            raise DS2D2Error(f"'{word}': expected {key}=value, see 'ds2d2 help'", 2)
        try:
            key, value = parse_key_value_pair(word)
            if key in _TEXTS:
                value = word.split("=", 1)[1].strip()
        except (AssertionError, ValueError, SyntaxError) as error:
            raise DS2D2Error(f"'{word}': {error}", 2) from error
        if key == "cfg":
            from_file |= _read_configuration(value)
        else:
            given[key] = value
    if {"student", "model"} & given.keys():  # two names of one argument: each replaces the other
        from_file = {key: value for key, value in from_file.items() if key not in {"student", "model"}}
    return from_file | given


def announce(path: Path, what: str) -> None:
    """Print the path of the result."""
    print(f"ds2d2: {what} saved as {shorter(path)}")


def shorter(path: Path) -> str:
    """Return a path relative to the working folder if that is shorter, quoted if a shell needs it."""
    relative = os.path.relpath(path)
    return shlex.quote(relative if len(relative) < len(str(path)) else str(path))


def _read_configuration(path: Any) -> dict[str, Any]:
    """Return the arguments in a YAML file."""
    try:
        content = YAML.load(own_file(str(path), "cfg", "recipes"))
    except Exception as error:  # missing, a folder, not YAML, wrong suffix: all mistakes of the user
        raise DS2D2Error(f"cfg={path}: cannot be read, {error}; pass a YAML file of arguments", 2) from error
    # The args.yaml of an earlier run has the path of its folder, which must not be overwritten.
    return {key: value for key, value in content.items() if key not in {"cfg", "save_dir"}}
