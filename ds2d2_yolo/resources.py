"""Paths of the files that ship with the package, in `cfg/` and `datasets/`."""

from __future__ import annotations

from pathlib import Path

from ds2d2_yolo.files import refuse_unusable

_PACKAGE = Path(__file__).resolve().parent


def resource_folder(name: str) -> Path:
    """Return the folder `name` with files that ship with the package.

    In a wheel it is inside the package. In a checkout, also after `pip install -e`, it is at the top level.

    Args:
        name (str): `cfg` or `datasets`.

    Returns:
        (Path): The folder, absolute.

    Raises:
        FileNotFoundError: If the installation is incomplete.

    Example:
        >>> (resource_folder("cfg") / "default.yaml").is_file()
        True
    """
    for folder in (_PACKAGE / name, _PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"the folder '{name}' of ds2d2_yolo is missing: reinstall the package")


def is_shipped(path: str | Path) -> bool:
    """Return whether a file is a data YAML that ships with the package, whatever path leads to it.

    Example:
        >>> is_shipped(resource_folder("datasets") / "scenes.yaml"), is_shipped("scenes.yaml")
        (True, False)
    """
    return Path(path).is_file() and Path(path).resolve().parent == resource_folder("datasets")


def own_file(value: str, name: str, *folders: str) -> str:
    """Return the path of a shipped YAML if `value` is its bare name. Otherwise return `value`.

    Args:
        value (str): The user's value. A file of this name in the working folder is preferred.
        name (str): Top folder to search, `cfg` or `datasets`.
        *folders (str): Folders below it.

    Returns:
        (str): The path.

    Raises:
        DS2D2Error: If the path cannot be read, as for `refuse_unusable`.

    Example:
        >>> Path(own_file("retinanet_r18.yaml", "cfg", "models")).is_file()
        True
    """
    refuse_unusable(value)
    if Path(value).name == value and not Path(value).exists():
        own = resource_folder(name).joinpath(*folders, value)
        own = own if own.suffix in {".yaml", ".yml"} else own.with_name(f"{own.name}.yaml")  # DOTAv1.5-hbb has a dot
        if own.is_file():
            return str(own)
    return value
