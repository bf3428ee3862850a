"""Options of the modes without training, such as `convert` and `check`: types and defaults come from a YAML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ultralytics.cfg import get_save_dir
from ultralytics.utils import YAML
from ultralytics.utils.files import increment_path

from ds2d2_yolo.errors import DS2D2Error, did_you_mean
from ds2d2_yolo.files import refuse_unwritable
from ds2d2_yolo.resources import resource_folder

_LISTS = {"device", "stretch"}  # options that take a list: 0,1 and 2,98


def option_defaults(mode: str) -> dict[str, Any]:
    """Return the options of a mode and their defaults, from `cfg/<mode>.yaml`.

    Args:
        mode (str): Name of the mode, such as `convert`.

    Returns:
        (dict[str, Any]): Defaults by name. None for options that are required or have no default.

    Example:
        >>> option_defaults("convert")["on_error"]
        'stop'
    """
    return dict(YAML.load(resource_folder("cfg") / f"{mode}.yaml"))


def complete_options(mode: str, given: Mapping[str, object], required: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return all options of a mode, after checks of their names and types.

    Args:
        mode (str): Name of the mode.
        given (Mapping[str, object]): The user's options.
        required (tuple[str, ...]): Options that must be given.

    Returns:
        (dict[str, Any]): Every option by name.

    Raises:
        DS2D2Error: If an option is unknown, missing, or has another type than its default: number, boolean or text.

    Example:
        >>> complete_options("convert", {"src": "DIOR", "out": "new"})["copy"]
        False
    """
    defaults = option_defaults(mode)
    for name, value in given.items():
        if name not in defaults:
            hint = did_you_mean(name, defaults, f"see 'ds2d2 cfg {mode}' for all options")
            raise DS2D2Error(f"{name}={value}: 'ds2d2 {mode}' has no such option; {hint}", 2)
        expected = defaults[name]
        if expected is None and isinstance(value, (dict, list, set, tuple)) and name not in _LISTS:
            raise DS2D2Error(f"{name}={value}: expected one word or number, see 'ds2d2 cfg {mode}'", 2)
        if expected is not None and not _same_type(value, expected):
            raise DS2D2Error(f"{name}={value}: expected {_kind_of(expected)}, such as {name}={expected}", 2)
    options = defaults | dict(given)
    for name in required:
        if options[name] is None or options[name] == "":
            raise DS2D2Error(f"{name}= is missing; see 'ds2d2 cfg {mode}'", 2)
    return options


def check_confidence(value: float) -> None:
    """Refuse a value of the option `conf` that is no confidence.

    Args:
        value (float): The value.

    Raises:
        DS2D2Error: If it is not from 0 to 1.
    """
    if not 0 <= value <= 1:
        raise DS2D2Error(f"conf={value}: expected a number from 0 to 1, such as conf=0.25", 2)


def usable_path(name: str, value: Path | str) -> Path:
    """Return an option's value as a path. The path need not exist.

    Args:
        name (str): Name of the option, for the message.
        value (Path | str): Its value. `~` is the user's home folder.

    Returns:
        (Path): The path, relative if the value is.

    Raises:
        DS2D2Error: If no file can have this path, for example because a name is too long or a user unknown.

    Example:
        >>> usable_path("out", "/data/new").name
        'new'
    """
    try:
        path = Path(value).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DS2D2Error(f"{name}={value}: is not a usable path ({reason}); pass another one", 2) from None
    return path


def new_folder(mode: str, out: Path | str | None, exist_ok: bool, task: str = "detect") -> Path:
    """Return the output folder of a mode. It is not created yet.

    Args:
        mode (str): Name of the mode, and default name of the folder.
        out (Path | str | None): The user's value. None means a folder in Ultralytics' runs folder.
        exist_ok (bool): Whether to write into an existing folder, instead of into `out-2`, `out-3`, ...
        task (str): Task, which is part of the path in Ultralytics' runs folder.

    Returns:
        (Path): The folder, absolute.

    Raises:
        DS2D2Error: If the folder cannot be created or is not writable.

    Example:
        >>> new_folder("explain", "/tmp/no/such/folder", False).name
        'folder'
    """
    if out:
        folder = increment_path(usable_path("out", str(out)).absolute(), exist_ok)
    else:
        run = {"mode": mode, "task": task, "exist_ok": exist_ok, "project": None, "name": None}
        folder = Path(get_save_dir(SimpleNamespace(**run))).absolute()
    refuse_unwritable("out", folder, folder)
    return folder


def _same_type(value: object, default: object) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, (int, float)):
        return isinstance(value, (int, float))
    return isinstance(value, type(default)) or isinstance(default, str)


def _kind_of(default: object) -> str:
    if isinstance(default, bool):
        return "True or False"
    return "a number" if isinstance(default, (int, float)) else f"a {type(default).__name__}"
