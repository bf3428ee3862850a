"""Kinds of findings in a data set, and their places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

PLACES_KEPT = 1000
"""Number of places that are kept per kind of finding and split. All are counted."""

VANISHING = 2.0
"""Pixels: `RandomPerspective.box_candidates` drops boxes that are not wider and higher than this."""


class Kind(NamedTuple):
    """A kind of finding.

    Attributes:
        error (bool): Whether training would stop, or lose images or labels without stopping.
        title (str): Name in the table, in the plural.
        consequence (str): What Ultralytics does.
        advice (str): What the user can do.
    """

    error: bool
    title: str
    consequence: str
    advice: str


KINDS: Mapping[str, Kind] = {
    "no_images": Kind(
        True,
        "splits without images",
        "training stops",
        "put images there, or correct the line of the split in the data YAML",
    ),
    "no_usable_images": Kind(True, "splits without a usable image", "training stops", "correct the findings below"),
    "no_label_files": Kind(
        True,
        "training splits without label files",
        "training stops",
        "write label files; their path has labels in place of images",
    ),
    "no_objects": Kind(
        True,
        "training and validation splits without an object",
        "training stops",
        "label some objects, or put the label files where they are expected",
    ),
    "class_name_twice": Kind(
        True,
        "class names that occur twice",
        "'ds2d2 train' and 'ds2d2 val' stop",
        "rename one of them under 'names:' in the data YAML",
    ),
    "undecodable_image": Kind(
        True,
        "images that cannot be decoded as needed",
        "training stops at them",
        "save it again as PNG or JPEG of 8 bits, correct 'channels:', or remove it",
    ),
    "box_instead_of_polygon": Kind(
        True,
        "files of boxes without corners",
        "training with task=obb stops",
        "label the corners, or train with models for task=detect",
    ),
    "missing_image": Kind(
        True,
        "listed images that do not exist",
        "left out",
        "correct the line; begin it with ./ if the path counts from the list",
    ),
    "unreadable_image": Kind(
        True, "unreadable images", "left out, with their labels", "save it again as PNG or JPEG, or remove it"
    ),
    "truncated_image": Kind(
        True,
        "truncated images",
        "by format: left out, trained on in part, or training stops",
        "copy it again from its source, or remove it",
    ),
    "unreadable_label": Kind(True, "unreadable label files", "left out with their images", "save it again as UTF-8"),
    "malformed_label": Kind(
        True,
        "malformed label lines",
        "the whole image is left out with all its labels",
        "correct the line: class x y width height, from 0 to 1",
    ),
    "unknown_class": Kind(
        True,
        "labels of unknown classes",
        "the whole image is left out with all its labels",
        "correct the class, or add its name under 'names:' in the data YAML",
    ),
    "label_without_image": Kind(
        True, "label files without image", "never read", "add the image, or remove the label file"
    ),
    "label_beside_image": Kind(
        True,
        "label files beside images in a folder images",
        "never read",
        "move the label files to a folder labels beside images",
    ),
    "box_without_area": Kind(True, "boxes without area", "dropped by augmentation", "correct the line, or remove it"),
    "box_outside": Kind(True, "boxes outside the image", "dropped by augmentation", "correct the line, or remove it"),
    "unfinished_jpeg": Kind(
        False,
        "JPEGs without end marker at their end",
        "rewritten in place, in the data set",
        "keep a copy if the files must not change",
    ),
    "deep_image": Kind(
        False,
        "images of 16 bits",
        "read as 8 bits: values are divided by 256",
        "convert its source again with stretch=2,98, or save it with 8 bits",
    ),
    "listed_twice": Kind(
        False,
        "images listed more than once",
        "used several times in training and metrics",
        "remove the repeated lines of the list, or the folder that 'train:' or 'val:' has twice",
    ),
    "shared_label": Kind(
        False,
        "images that share a label file",
        "trained on with the same labels",
        "rename one image and give it its own label file",
    ),
    "image_without_label": Kind(
        False,
        "images without label file",
        "trained on as background",
        "nothing if it has no objects; otherwise write its label file",
    ),
    "duplicate_label": Kind(False, "duplicate labels", "removed", "nothing, or remove the line"),
    "ambiguous_box": Kind(
        False,
        "boxes labelled with several classes",
        "kept, and contradict each other",
        "remove the lines of the wrong classes",
    ),
    "near_duplicate": Kind(
        False,
        "boxes with an IoU over 0.8 with another of their class",
        "kept; probably one object labelled twice",
        "remove one of them if it is the same object",
    ),
    "box_beyond_edge": Kind(
        False, "boxes reaching out of the image", "cut at the edge", "nothing, or cut the box at the edge"
    ),
    "vanishing_box": Kind(
        False,
        f"boxes no wider or no higher than {VANISHING:g} px",
        "mostly dropped by augmentation",
        "train with a larger imgsz=, or on tiles: 'ds2d2 convert patch=1024'",
    ),
    "class_without_object": Kind(
        False,
        "classes without object",
        "nothing to learn or to measure",
        "label some, or remove the class from 'names:'",
    ),
    "missing_split": Kind(
        False,
        "missing files of splits other than train and val",
        "validating on them stops",
        "correct the line of the split in the data YAML, or remove it",
    ),
    "identical_images": Kind(
        False,
        "identical images in two splits",
        "metrics look better than they are",
        "remove them from one of the splits",
    ),
}
"""All kinds of findings, errors first."""


class Place(NamedTuple):
    """Place of a finding: the file (may be empty), its line from 1 (or None), and a detail."""

    file: str
    line: int | None
    detail: str

    def __str__(self) -> str:
        """Return `file:line: detail`."""
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{where}: {self.detail}" if where and self.detail else where or self.detail


@dataclass
class Finding:
    """Number of findings of one kind, and the first `PLACES_KEPT` places."""

    count: int = 0
    places: list[Place] = field(default_factory=list)

    def add(self, place: Place) -> None:
        """Count one more."""
        self.count += 1
        if len(self.places) < PLACES_KEPT:
            self.places.append(place)


def shown_path(path: Path, root: Path | str | None) -> str:
    """Return a path with forward slashes, relative to the root of the data set if it is below it."""
    return (path.relative_to(root) if root is not None and path.is_relative_to(root) else path).as_posix()
