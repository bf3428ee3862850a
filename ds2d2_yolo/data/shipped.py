"""The data YAMLs that ship with the package: the folders of their images, and how to get these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ultralytics.utils import SETTINGS, YAML

from ds2d2_yolo.resources import is_shipped, resource_folder

_NAMES = {
    ("DIOR", "detect"): "DIOR",
    ("DIOR-R", "obb"): "DIOR-R",
    ("DOTA v1.0", "detect"): "DOTAv1-hbb",
    ("DOTA v1.5", "detect"): "DOTAv1.5-hbb",
    ("COCO", "detect"): "coco-folders",
}


def shipped_folder(layout: str, task: str, class_names: Sequence[str]) -> Path | None:
    """Return the folder in which a shipped data YAML expects its data set.

    Args:
        layout (str): Name of the layout, such as `DIOR`.
        task (str): `detect` or `obb`.
        class_names (Sequence[str]): Classes in the order of their numbers.

    Returns:
        (Path | None): The folder, absolute; None if no YAML ships for this layout, task and classes.

    Example:
        >>> shipped_folder("VOC", "detect", ["cat"]) is None
        True
    """
    name = _NAMES.get((layout, task))
    if name is None:
        return None
    content = YAML.load(resource_folder("datasets") / f"{name}.yaml")
    return _place_of(content) if list(content["names"].values()) == list(class_names) else None


def hint_for(path: Path | str) -> str | None:
    """Return a line with the download address and the command to convert, for a data YAML without its images.

    Args:
        path (Path | str): A data YAML.

    Returns:
        (str | None): The line; None if the YAML is not a shipped one with a conversion, or its images exist.

    Example:
        >>> hint_for(resource_folder("datasets") / "scenes.yaml") is None
        True
    """
    path = Path(path)
    if not is_shipped(path):
        return None
    content = YAML.load(path)
    folder = _place_of(content)
    if "convert" not in content or all((folder / content[split]).is_dir() for split in ("train", "val")):
        return None
    how = content["convert"]
    return (
        f"the images of {path.name} are not in {folder}: download the archive by hand from {how['archive']}, unpack "
        f"it, and run '{how['command']}'"
    )


def _place_of(content: Mapping[str, object]) -> Path:
    return Path(SETTINGS["datasets_dir"]) / str(content["path"])
