"""What a data set is inspected for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Task = Literal["detect", "obb"]
ImageCheck = Literal["full", "header", "none"]


@dataclass(frozen=True)
class Split:
    """One split of a data set: its image files, and those entries of the data YAML that are folders."""

    images: Sequence[Path]
    folders: Sequence[Path] = ()


@dataclass(frozen=True)
class Settings:
    """What a data set is inspected for.

    Attributes:
        names (Sequence[str]): Class names.
        task (Task): `detect` (sizes of boxes or hulls) or `obb` (sizes of the smallest rectangles around polygons).
        imgsz (int): Training size in pixels: the longer side of an image is scaled to it, the shorter one padded.
        strides (Sequence[int]): Strides of the levels, in pixels; each divides `imgsz`.
        images (ImageCheck): `full`: decode all images; `header`: check them without decoding, as Ultralytics' scan
            does; `none`: do not open them, so that sizes and densities stay unknown.
        channels (int): Channels of the images, as in the data YAML.
        keypoints (tuple[int, int]): Number of keypoints and of numbers for each in pose labels; Ultralytics passes
            over these for detection. (0, 0) where the labels hold none.
    """

    names: Sequence[str]
    task: Task = "detect"
    imgsz: int = 640
    strides: Sequence[int] = (8, 16, 32)
    images: ImageCheck = "full"
    channels: int = 3
    keypoints: tuple[int, int] = (0, 0)
