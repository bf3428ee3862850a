"""Files of strangers: refused before they are loaded where they hold, or name, anything that could run code."""

from __future__ import annotations

import ast
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
import torchvision
from torch import nn
from ultralytics.data.utils import img2label_paths
from ultralytics.nn import tasks
from ultralytics.nn.tasks import torch_safe_load, yaml_model_load
from ultralytics.utils import SETTINGS
from ultralytics.utils.checks import check_model_file_from_stem, check_yolov5u_filename
from ultralytics.utils.files import get_latest_run

from ds2d2_yolo.errors import DS2D2Error, message_of
from ds2d2_yolo.loading.fingerprint import images_of_split
from ds2d2_yolo.resources import own_file

_NAMED = {"teacher", "model", "pretrained", "amplifier", "distill_model"}
"""Arguments stored in a checkpoint that name files, which a resumed run loads."""

_IN_CACHES = {
    *(("numpy", name) for name in ("ndarray", "dtype")),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    *((f"pathlib{part}", f"{kind}Path") for part in ("", "._local") for kind in ("", "Posix", "Windows")),
}
"""What a labels.cache of Ultralytics holds besides plain values: arrays, and perhaps paths."""


class _ForeignError(Exception):
    """A pickle names something that no labels.cache holds."""


class _PlainUnpickler(pickle.Unpickler):
    """Reads what a labels.cache may hold, and refuses the rest."""

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the classes and functions that only make arrays and paths."""
        if (module, name) not in _IN_CACHES:
            raise _ForeignError(f"{module}.{name}")
        return super().find_class(module, name)


def refuse_unsafe_caches(path: str, data: Mapping[str, Any]) -> None:
    """Refuse a data set with a labels.cache that could run code when Ultralytics reads it, with `safe=True` or without.

    Args:
        path (str): The data YAML, for messages.
        data (Mapping[str, Any]): The data set as Ultralytics describes it.

    Raises:
        DS2D2Error: If a cache holds more than plain values and arrays.
    """
    images: list[str | Path] = [
        image for split in ("train", "val", "test") for image in images_of_split(data.get(split))
    ]
    for folder in sorted({Path(label).parent for label in img2label_paths(images)}):
        cache = folder.with_suffix(".cache")
        try:
            with cache.open("rb") as file:
                _to_pickle(file)
                _PlainUnpickler(file).load()
        except _ForeignError as error:
            raise DS2D2Error(
                f"data={path}: {cache} could run code when it is read, it holds {message_of(error)}; delete this file, "
                "Ultralytics writes it anew"
            ) from error
        except Exception:  # missing or damaged: NumPy, which reads the same bytes in the same order, gets no further
            continue


def _to_pickle(file: BinaryIO) -> None:
    """Move to where NumPy unpickles: behind the header of its format, or at the begin of any other file."""
    head = file.read(8)
    is_numpy = head.startswith(np.lib.format.MAGIC_PREFIX)
    width = 2 if head[6:7] == b"\1" else 4
    file.seek(8 + width + int.from_bytes(file.read(width), "little") if is_numpy else 0)


def check_safety(files: Mapping[str, object]) -> None:
    """Refuse model files that could run code: what is going to be loaded counts, however it is spelt.

    A checkpoint may hold tensors and classes of torch and Ultralytics. The activation of its model, and that of a model
    YAML, must be a class of `torch.nn` with literal arguments, as Ultralytics evaluates the text. Its layers must be
    modules, as Ultralytics calls whatever function a layer names. Of a run to be resumed, the checkpoint beside it and
    the files that its stored arguments name are looked into, too.

    Args:
        files (Mapping[str, object]): Values of arguments by name. Those that name no file, as True or None, are passed
            over, and so are names of public weights that are still to be downloaded; `resume=True` is the last run.

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
    try:
        file = _as_loaded(value)
        if Path(file).suffix.lower() in {".yaml", ".yml"}:
            _check_config(yaml_model_load(own_file(file, "cfg", "models")))
            return None
        # As Ultralytics looks for a name: here, then in its folder of weights. Suffixes are no concern of its loader.
        places = (Path(file), Path(SETTINGS["weights_dir"]) / file)
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
                _check_config(config)
        return content
    except FileNotFoundError:  # a YAML that is missing: whoever loads it says so
        return None
    except Exception as error:  # truncated, foreign classes, other formats: torch raises many kinds
        raise DS2D2Error(
            f"{name}={value}: refused by safe=True, {message_of(error)}; leave safe= out only if you trust this file"
        ) from error


def _as_loaded(value: str | Path) -> str:
    """Return a name as Ultralytics reads it: without quotes, of a newer release, with its suffix.

    Raises:
        TypeError: If it is an address: nothing can look into that file before it is loaded.
    """
    name = str(value).strip().replace("'", "")
    if re.match(r"[a-z]+:/", name, re.IGNORECASE):
        raise TypeError("an address, download the file and pass its path")
    return str(check_model_file_from_stem(check_yolov5u_filename(name, verbose=False)))


def _is_plain(path: Path) -> bool:
    """Return whether a file holds tensors and plain values alone, as an amplifier does."""
    try:
        return not torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except ValueError:  # not of torch's own format
        return False


def _check_config(config: Mapping[str, Any]) -> None:
    """Refuse a model YAML of which Ultralytics would run more than constructors of layers."""
    _check_activation(config)
    for layers in (config.get("backbone"), config.get("head")):
        for layer in layers if isinstance(layers, (list, tuple)) else ():
            name = str(layer[2]) if isinstance(layer, (list, tuple)) and len(layer) > 2 else ""
            if not _is_layer(name):
                raise TypeError(f"its layer {name[:100]} is no module of torch or Ultralytics")


def _is_layer(name: str) -> bool:
    """Return whether a layer's name, looked up as Ultralytics does, is that of a module that only computes."""
    scopes = (("torchvision.ops.", torchvision.ops), ("nn.", nn), ("", tasks))
    prefix, scope = next(pair for pair in scopes if name.startswith(pair[0]))
    found = getattr(scope, name.removeprefix(prefix), None)
    # Not whole models, such as `DetectionModel`, which are built from another YAML.
    known = ("torch.nn.", "torchvision.ops.", "ultralytics.nn.modules.")
    return isinstance(found, type) and issubclass(found, nn.Module) and found.__module__.startswith(known)


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
