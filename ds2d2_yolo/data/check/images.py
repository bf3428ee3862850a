"""Checks image files as Ultralytics' loader does."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from ultralytics.data.utils import IMG_FORMATS, exif_size
from ultralytics.utils.patches import imread

from ds2d2_yolo.data.check.findings import KINDS
from ds2d2_yolo.data.check.settings import ImageCheck
from ds2d2_yolo.data.depth import is_deep

_JPEG = ("jpg", "jpeg")


@dataclass(frozen=True)
class ImageFacts:
    """Result of the check of an image file.

    Attributes:
        size (tuple[int, int] | None): Width and height in pixels.
        kind (str | None): Kind of the problem, one of `KINDS`.
        detail (str): Details of the problem for the table.
        form (str): Format of the file, lower case.
        deep (bool): Whether its values have 16 bits.
    """

    size: tuple[int, int] | None = None
    kind: str | None = None
    detail: str = ""
    form: str = ""
    deep: bool = False

    @property
    def rejected(self) -> bool:
        """Whether Ultralytics leaves out the image, or stops at it."""
        return self.kind is not None and KINDS[self.kind].error


def image_facts(path: Path, channels: int, images: ImageCheck = "full") -> ImageFacts:
    """Check an image as Ultralytics' `check_image` does, but without repairing it. Optionally decode it.

    Args:
        path (Path): The image.
        channels (int): Its channels, as in the data YAML.
        images (ImageCheck): What is checked, as in `Settings`.

    Returns:
        (ImageFacts): Its size, and what is wrong with it.
    """
    if not path.is_file():
        return ImageFacts(kind="missing_image")
    if images == "none":
        return ImageFacts()
    header = _header_facts(path)
    if header.kind is not None:
        return header
    unfinished = header.form in _JPEG and not ends_as_jpeg(path)
    full = images == "full"
    try:
        # Pillow's decoder reports missing pixels. `verify` and some releases of OpenCV do not. It is not needed for
        # PNGs, which `verify` reads completely, and for JPEGs with an end marker, which OpenCV decodes.
        if unfinished or (full and header.form not in {*_JPEG, "png"}):
            with Image.open(path) as image:
                image.load()
    except Exception as error:
        return ImageFacts(kind="truncated_image", detail=_first_line(error))
    if full and (fault := _decoding_fault(path, channels)):
        return ImageFacts(kind="undecodable_image", detail=fault)
    if header.deep:
        return ImageFacts(header.size, "deep_image", _brightest(path, channels) if full else "", header.form, deep=True)
    return ImageFacts(header.size, "unfinished_jpeg" if unfinished else None, form=header.form)


def decoder_flag(channels: int) -> int:
    """Return the flag with which Ultralytics lets OpenCV decode images of a number of channels."""
    return {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR}.get(channels, cv2.IMREAD_UNCHANGED)


def ends_as_jpeg(path: Path) -> bool:
    """Return whether a file ends with the end marker of a JPEG. Truncated ones do not."""
    with path.open("rb") as file:
        file.seek(-2, os.SEEK_END)
        return file.read() == b"\xff\xd9"


def _header_facts(path: Path) -> ImageFacts:
    """Return format and size of an image, or the reason why Ultralytics refuses it."""
    try:
        # Checked first: Ultralytics' `Image.open` tries to install a package for formats that Pillow does not know.
        readable = path.suffix.lower() in {".avif", ".heic", ".heif"} or cv2.haveImageReader(str(path))
        if not readable and str(path).isascii():  # on Windows, OpenCV cannot open other paths
            return _unreadable("no known image format" if path.stat().st_size else "empty")
        with Image.open(path) as image:
            form = str(image.format).lower()
            deep = form in {"png", "tiff", "jpeg2000"} and is_deep(image)
            image.verify()
            width, height = exif_size(image)
    except Exception as error:  # a dozen kinds, depending on the format
        return _unreadable(_first_line(error))
    if min(width, height) < 10:
        return _unreadable(f"{width} x {height} pixels, must be at least 10")
    if form not in IMG_FORMATS | {"jpeg2000"}:
        return _unreadable(f"is a {form} file, which Ultralytics does not read")
    return ImageFacts((width, height), form=form, deep=deep)


def _brightest(path: Path, channels: int) -> str:
    """Return the largest value of a 16-bit image before and after its conversion to 8 bits, as text."""
    stored = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    used = imread(str(path), decoder_flag(channels))
    return "" if stored is None or used is None else f"values up to {stored.max()}, which become {used.max()} of 255"


def _unreadable(detail: str) -> ImageFacts:
    return ImageFacts(kind="unreadable_image", detail=detail)


def _decoding_fault(path: Path, channels: int) -> str:
    """Return why OpenCV cannot decode an image as needed by Ultralytics; empty if it can."""
    try:
        decoded = imread(str(path), decoder_flag(channels))
    except cv2.error as error:
        return _first_line(error)
    if decoded is None:
        return "Pillow reads it, OpenCV does not"
    if decoded.dtype != np.uint8:
        return f"its values are {decoded.dtype}, not of 8 or 16 bits"
    return "" if decoded.shape[2] == channels else f"has {decoded.shape[2]} channels, the data YAML has {channels}"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__
