"""Checks of untrusted files before they are loaded: files that could run code are refused."""

from __future__ import annotations

import ast
import pickle
import re
from collections.abc import Iterable, Mapping
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
from ds2d2_yolo.loading.images import images_of_split
from ds2d2_yolo.resources import own_file

_NAMED = {"teacher", "model", "pretrained", "amplifier", "distill_model"}
"""Arguments in a checkpoint that name files. A resumed run loads these files."""

_IN_CACHES = {
    *(("numpy", name) for name in ("ndarray", "dtype")),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    *((f"pathlib{part}", f"{kind}Path") for part in ("", "._local") for kind in ("", "Posix", "Windows")),
}
"""Types in a labels.cache of Ultralytics besides plain values: arrays, and sometimes paths."""


class _UnsafeTypeError(Exception):
    """A pickle contains a type that a labels.cache must not have."""


class _PlainUnpickler(pickle.Unpickler):
    """Reads a labels.cache, and refuses types that it must not have."""

    def find_class(self, module: str, name: str) -> Any:
        """Return an allowed class or function. They only create arrays and paths."""
        if (module, name) not in _IN_CACHES:
            raise _UnsafeTypeError(f"{module}.{name}")
        return super().find_class(module, name)


def refuse_unsafe_caches(named: str, splits: Iterable[str | Iterable[str] | None]) -> None:
    """Refuse images with a labels.cache that could run code. This check does not depend on `safe`.

    Args:
        named (str): The argument that names the images, for the message, such as `data=DIOR.yaml`.
        splits (Iterable[str | Iterable[str] | None]): Entries of a checked data YAML: folders and lists of images.

    Raises:
        DS2D2Error: If a cache holds more than plain values and arrays.
    """
    images: list[str | Path] = [image for split in splits for image in images_of_split(split)]
    folders = {Path(label).parent for label in img2label_paths(images)}
    for folder in sorted(folder for folder in folders if folder.name):  # images in no folder have no cache
        cache = folder.with_suffix(".cache")
        try:
            with cache.open("rb") as file:
                _to_pickle(file)
                _PlainUnpickler(file).load()
        except _UnsafeTypeError as error:
            raise DS2D2Error(
                f"{named}: {cache} could run code, it holds {message_of(error)}; delete this file, Ultralytics "
                "writes it again"
            ) from error
        except Exception:  # missing or damaged: NumPy reads the same bytes and fails at the same place
            continue


def _to_pickle(file: BinaryIO) -> None:
    """Move to the start of the pickle: after the header of a NumPy file, or to the start of any other file."""
    head = file.read(8)
    is_numpy = head.startswith(np.lib.format.MAGIC_PREFIX)
    width = 2 if head[6:7] == b"\1" else 4
    file.seek(8 + width + int.from_bytes(file.read(width), "little") if is_numpy else 0)


def check_safety(files: Mapping[str, object]) -> None:
    """Refuse model files that could run code. Names are resolved as Ultralytics does before loading.

    - A checkpoint may contain only tensors and classes of torch and Ultralytics.
    - The activation of a model must be a class of `torch.nn` with literal arguments, as Ultralytics evaluates its text.
    - The layers of a model must be modules, as Ultralytics calls any function that a layer names.
    - For a resumed run, this also checks the other checkpoint and the files that the stored arguments name.

    Args:
        files (Mapping[str, object]): Values of arguments by name. Values that name no file, such as True or None, are
            skipped, and so are public weights that are not downloaded yet. `resume=True` is the last run.

    Raises:
        DS2D2Error: If a file could run code, or this version of torch cannot check it.

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
    if last.with_name("best.pt").is_file():  # it is loaded if the training had already ended
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
        # Ultralytics' search order: the working folder, then its weights folder, with any suffix.
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
    except FileNotFoundError:  # a missing YAML: loading it reports that
        return None
    except Exception as error:  # truncated, unsafe classes, other formats: torch raises many types
        raise DS2D2Error(
            f"{name}={value}: refused by safe=True, {message_of(error)}; leave safe= out only if you trust this file"
        ) from error


def _as_loaded(value: str | Path) -> str:
    """Return a name as Ultralytics resolves it: without quotes, with its current name and with its suffix.

    Raises:
        TypeError: If it is an address, because that file cannot be checked before it is loaded.
    """
    name = str(value).strip().replace("'", "")
    if re.match(r"[a-z]+:/", name, re.IGNORECASE):
        raise TypeError("an address, download the file and pass its path")
    return str(check_model_file_from_stem(check_yolov5u_filename(name, verbose=False)))


def _is_plain(path: Path) -> bool:
    """Return whether a file contains only tensors and plain values, as an amplifier file does."""
    try:
        return not torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except ValueError:  # not in torch's own format
        return False


def _check_config(config: Mapping[str, Any]) -> None:
    """Refuse a model YAML that makes Ultralytics run other code than constructors of layers."""
    _check_activation(config)
    for layers in (config.get("backbone"), config.get("head")):
        for layer in layers if isinstance(layers, (list, tuple)) else ():
            name = str(layer[2]) if isinstance(layer, (list, tuple)) and len(layer) > 2 else ""
            if not _is_layer(name):
                raise TypeError(f"its layer {name[:100]} is not a module of torch or Ultralytics")


def _is_layer(name: str) -> bool:
    """Return whether a layer's name, resolved as Ultralytics does, is that of a module without side effects."""
    scopes = (("torchvision.ops.", torchvision.ops), ("nn.", nn), ("", tasks))
    prefix, scope = next(pair for pair in scopes if name.startswith(pair[0]))
    found = getattr(scope, name.removeprefix(prefix), None)
    # Not complete models, such as `DetectionModel`, as they read another YAML.
    known = ("torch.nn.", "torchvision.ops.", "ultralytics.nn.modules.")
    return isinstance(found, type) and issubclass(found, nn.Module) and found.__module__.startswith(known)


def _check_activation(config: Mapping[str, Any]) -> None:
    """Refuse the activation of a model unless it is a class of `torch.nn` with literal arguments."""
    text = config.get("activation")
    if text is None:
        return
    try:
        call: Any = ast.parse(str(text).strip(), mode="eval").body  # others than calls have no `func`
        scope, _, name = ast.unparse(call.func).rpartition(".")
        known = scope in {"nn", "torch.nn"} and issubclass(getattr(torch.nn, name), torch.nn.Module)
        for argument in (*call.args, *(keyword.value for keyword in call.keywords)):
            ast.literal_eval(argument)
    except (SyntaxError, ValueError, AttributeError, TypeError):
        known = False
    if not known:
        raise TypeError(f"its activation is code: {text}")
