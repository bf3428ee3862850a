"""What can be found in a data set, and where it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

PLACES_KEPT = 1000
"""How many places of one kind of finding are kept per split; all are counted."""

VANISHING = 2.0
"""Pixels: `RandomPerspective.box_candidates` drops what is not wider and higher."""


class Kind(NamedTuple):
    """A kind of finding.

    Attributes:
        error (bool): Whether training would stop, or lose images or labels without stopping.
        title (str): Name for people, in the plural.
        consequence (str): What Ultralytics does about it.
    """

    error: bool
    title: str
    consequence: str


KINDS: Mapping[str, Kind] = {
    "no_images": Kind(True, "splits without images", "training stops"),
    "no_usable_images": Kind(True, "splits without a usable image", "training stops"),
    "no_label_files": Kind(True, "training splits without label files", "training stops"),
    "no_objects": Kind(True, "training splits without an object", "training stops"),
    "class_name_twice": Kind(True, "class names that occur twice", "'ds2d2 train' and 'ds2d2 val' stop"),
    "undecodable_image": Kind(True, "images that OpenCV cannot decode", "training stops when it comes to them"),
    "box_instead_of_polygon": Kind(True, "files of boxes without corners", "training with task=obb stops"),
    "missing_image": Kind(True, "listed images that do not exist", "left out"),
    "unreadable_image": Kind(True, "unreadable images", "left out with all their labels"),
    "truncated_image": Kind(True, "truncated images", "left out, trained on in part, or training stops, by format"),
    "unreadable_label": Kind(True, "unreadable label files", "left out with their images"),
    "malformed_label": Kind(True, "malformed label lines", "each costs its whole image with all labels"),
    "unknown_class": Kind(True, "labels of unknown classes", "each costs its whole image with all labels"),
    "label_without_image": Kind(True, "label files without image", "never read"),
    "label_beside_image": Kind(True, "label files beside images in a folder images", "never read"),
    "box_without_area": Kind(True, "boxes without area", "dropped by augmentation"),
    "box_outside": Kind(True, "boxes outside the image", "dropped by augmentation"),
    "unfinished_jpeg": Kind(False, "JPEGs without end marker at their end", "rewritten in place, in the data set"),
    "deep_image": Kind(False, "images of 16 bits", "read as 8 bits: values are divided by 256"),
    "shared_label": Kind(False, "images that share a label file", "trained on with the same labels"),
    "image_without_label": Kind(False, "images without label file", "trained on as background"),
    "duplicate_label": Kind(False, "duplicate labels", "removed"),
    "ambiguous_box": Kind(False, "boxes labelled with several classes", "kept, and contradict each other"),
    "near_duplicate": Kind(False, "boxes over 80 % the same as another of their class", "kept; one object, twice?"),
    "box_beyond_edge": Kind(False, "boxes reaching out of the image", "cut at the edge"),
    "vanishing_box": Kind(False, f"boxes not over {VANISHING:g} px wide and high", "mostly dropped by augmentation"),
    "class_without_object": Kind(False, "classes without object", "nothing to learn or to measure"),
    "missing_split": Kind(False, "missing files of splits beyond train and val", "validating on them stops"),
    "identical_images": Kind(False, "identical images in two splits", "metrics look better than they are"),
}
"""All kinds of findings; errors first."""


class Place(NamedTuple):
    """Where something was found: the file (may be empty), its line from 1 (or None), and what is there."""

    file: str
    line: int | None
    detail: str

    def __str__(self) -> str:
        """Return `file:line: detail`."""
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{where}: {self.detail}" if where and self.detail else where or self.detail


@dataclass
class Finding:
    """How often something was found, and the first `PLACES_KEPT` places."""

    count: int = 0
    places: list[Place] = field(default_factory=list)

    def add(self, place: Place) -> None:
        """Count one more."""
        self.count += 1
        if len(self.places) < PLACES_KEPT:
            self.places.append(place)


def shown_path(path: Path, root: Path | None) -> str:
    """Return a path, with forward slashes, relative to the root of the data set where it lies below it."""
    return (path.relative_to(root) if root is not None and path.is_relative_to(root) else path).as_posix()
