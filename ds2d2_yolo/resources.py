"""Where the files that ship with the package are: `cfg/` and `datasets/`."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def resource_folder(name: str) -> Path:
    """Return the folder of shipped files called `name`.

    In a wheel it lies inside the package; in a checkout (also one installed with `pip install -e`) at its top level.

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
