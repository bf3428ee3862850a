"""Settings of a check of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ds2d2_yolo.data.annotations import Task

ImageCheck = Literal["full", "header", "none"]

UNLABELED_SPLIT = "unlabeled"
"""Name of the split of images without labels."""


@dataclass(frozen=True)
class Split:
    """One split of a data set: its image files, and the folders that the data YAML names."""

    images: Sequence[Path]
    folders: Sequence[Path] = ()


@dataclass(frozen=True)
class Settings:
    """Settings of a check of a data set.

    Attributes:
        names (Sequence[str]): Class names.
        task (Task): `detect` (sizes of boxes or hulls) or `obb` (sizes of the smallest rectangles around polygons).
        imgsz (int): Training size in pixels: the longer side of an image is scaled to it, the shorter side is padded.
        strides (Sequence[int]): Strides of the levels, in pixels; each divides `imgsz`.
        images (ImageCheck): `full`: decode all images. `header`: check them without decoding, like Ultralytics' scan.
            `none`: do not open them; then sizes and densities are unknown.
        channels (int): Channels of the images, as in the data YAML.
        keypoints (tuple[int, int]): In pose labels: number of keypoints, and of values per keypoint. Ultralytics skips
            them for detection. (0, 0) without keypoints.
    """

    names: Sequence[str]
    task: Task = "detect"
    imgsz: int = 640
    strides: Sequence[int] = (8, 16, 32)
    images: ImageCheck = "full"
    channels: int = 3
    keypoints: tuple[int, int] = (0, 0)
