"""Files of strangers: refused before they are loaded where they hold, or name, anything that could run code."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ultralytics.nn.tasks import torch_safe_load, yaml_model_load
from ultralytics.utils import SETTINGS
from ultralytics.utils.files import get_latest_run

from ds2d2_yolo.errors import DS2D2Error, message_of
from ds2d2_yolo.resources import own_file

_NAMED = {"teacher", "model", "pretrained", "amplifier", "distill_model"}
"""Arguments stored in a checkpoint that name files, which a resumed run loads."""


def check_safety(files: Mapping[str, object]) -> None:
    """Refuse model files that could run code: what is going to be loaded counts, however it is spelt.

    A checkpoint may hold tensors and classes of torch and Ultralytics. The activation of its model, and that of a model
    YAML, must be a class of `torch.nn` with literal arguments, as Ultralytics evaluates the text. Of a run to be
    resumed, the checkpoint beside it and the files that its stored arguments name are looked into, too.

    Args:
        files (Mapping[str, object]): Values of arguments by name. Those that name no file, as True or None, are passed
            over, and so are names that are still to be downloaded; `resume=True` is the last run.

    Raises:
        DS2D2Error: If one of them could run code, or this torch cannot tell.

    Example:
        >>> check_safety({"teacher": "yolo11n.yaml", "pretrained": True})
    """
    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):
        raise DS2D2Error(
            f"safe=True: needs torch 2.6 or newer, this is {torch.__version__}; run 'pip install -U torch torchvision'",
            2,
        )
    for name, value in files.items():
        if name == "resume" and value:
            _check_run(Path(str(get_latest_run() if value is True else value)))
        elif isinstance(value, (str, Path)):
            _check_file(name, value)


def _check_run(last: Path) -> None:
    content = _check_file("resume", last)
    if last.with_name("best.pt").is_file():  # it is completed where the training had ended
        _check_file("resume", last.with_name("best.pt"))
    arguments = (content or {}).get("train_args")
    for name, value in arguments.items() if isinstance(arguments, dict) else ():
        if name in _NAMED and isinstance(value, (str, Path)):
            _check_file(f"resume={last}: {name}", value)


def _check_file(name: str, value: str | Path) -> dict[str, Any] | None:
    """Refuse one file, or return the content of a checkpoint."""
    suffix = Path(value).suffix.lower()
    try:
        if suffix in {".yaml", ".yml"}:
            _check_activation(yaml_model_load(own_file(str(value), "cfg", "models")))
            return None
        # As Ultralytics looks for a name: here, then in its folder of weights. Suffixes are no concern of its loader.
        places = (Path(value), Path(SETTINGS["weights_dir"]) / str(value))
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            return None
        content: dict[str, Any]
        if _is_plain(path):
            content = torch.load(path, map_location="cpu", weights_only=True)
        else:
            content = dict(torch_safe_load(path, safe_only=True)[0] or {})
        for key in ("ema", "model"):
            config = getattr(content.get(key), "yaml", None)
            if isinstance(config, dict):
                _check_activation(config)
        return content
    except FileNotFoundError:  # a YAML that is missing: whoever loads it says so
        return None
    except Exception as error:  # truncated, foreign classes, other formats: torch raises many kinds
        raise DS2D2Error(
            f"{name}={value}: refused by safe=True, {message_of(error)}; leave safe= out only if you trust this file"
        ) from error


def _is_plain(path: Path) -> bool:
    """Return whether a file holds tensors and plain values alone, as an amplifier does."""
    try:
        return not torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except ValueError:  # not of torch's own format
        return False


def _check_activation(config: Mapping[str, Any]) -> None:
    """Refuse the activation of a model unless it is a class of `torch.nn` with literal arguments."""
    text = config.get("activation")
    if text is None:
        return
    try:
        call = ast.parse(str(text).strip(), mode="eval").body
        assert isinstance(call, ast.Call)
        scope, _, name = ast.unparse(call.func).rpartition(".")
        known = scope in {"nn", "torch.nn"} and issubclass(getattr(torch.nn, name), torch.nn.Module)
        for argument in (*call.args, *(keyword.value for keyword in call.keywords)):
            ast.literal_eval(argument)
    except (SyntaxError, ValueError, AttributeError, TypeError, AssertionError):
        known = False
    if not known:
        raise TypeError(f"its activation is code: {text}")
