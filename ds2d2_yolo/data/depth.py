"""Images with more than 8 bits, as from satellites: recognised by their headers, and stretched to 8 bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageFile
from ultralytics.utils import LOGGER, colorstr

from ds2d2_yolo.errors import DS2D2Error

_SAMPLE = 36  # headers that are read before a training; takes milliseconds
_SUFFIXES = {".png", ".tif", ".tiff", ".jp2"}
_EXAMPLES = "stretch=2,98 (percentiles of each band) or stretch=0:2047 (a range of values)"


@dataclass(frozen=True)
class Stretch:
    """Maps values with more than 8 bits to 0 to 255.

    Attributes:
        low (float): Becomes 0: a percentile of each band of each image, or a value.
        high (float): Becomes 255.
        percentiles (bool): Whether `low` and `high` are percentiles.

    Example:
        >>> Stretch(0, 2047, percentiles=False)(np.array([[0, 1024, 2047, 9000]], np.uint16)).tolist()
        [[0, 128, 255, 255]]
    """

    low: float
    high: float
    percentiles: bool

    @classmethod
    def of(cls, value: object) -> Stretch:
        """Parse the user's text: `2,98` or `0:2047`.

        Raises:
            DS2D2Error: If it has neither form.

        Example:
            >>> Stretch.of("0:2047")
            Stretch(low=0.0, high=2047.0, percentiles=False)
            >>> str(Stretch.of((2, 98)))
            '2,98'
        """
        text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        percentiles = ":" not in text
        try:
            low, high = map(float, text.split("," if percentiles else ":"))
        except ValueError:
            raise DS2D2Error(f"stretch={text}: expected {_EXAMPLES}", 2) from None
        if not -math.inf < low < high < math.inf or (percentiles and not 0 <= low < high <= 100):
            kind = "percentiles from 0 to 100" if percentiles else "values"
            raise DS2D2Error(f"stretch={text}: expected two {kind}, the lower one first, such as {_EXAMPLES}", 2)
        return cls(low, high, percentiles)

    def __str__(self) -> str:
        """Return the text that `of` parses."""
        return f"{self.low:g}{',' if self.percentiles else ':'}{self.high:g}"

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Stretch an image. Zeros do not count for percentiles: they are no-data.

        Args:
            pixels (np.ndarray): (H, W) or (H, W, C), whole numbers or floats.

        Returns:
            (np.ndarray): The same shape, uint8.
        """
        bands = pixels.reshape(*pixels.shape[:2], -1)
        result = np.empty(bands.shape, np.uint8)
        for number in range(bands.shape[2]):
            band = np.ascontiguousarray(bands[..., number])
            if band.dtype == np.uint16:
                # With a table: as floats, an image of 20,000 x 20,000 pixels would need gigabytes.
                table = self._scaled(np.arange(1 << 16, dtype=np.float64), *self._limits_of_histogram(band))
                result[..., number] = table[band]
            else:
                result[..., number] = self._scaled(np.nan_to_num(band.astype(np.float64)), *self._limits(band))
        return result.reshape(pixels.shape)

    def _limits_of_histogram(self, band: np.ndarray) -> tuple[float, float]:
        if not self.percentiles:
            return self.low, self.high
        counts = cv2.calcHist([band], [0], None, [1 << 16], [0, 1 << 16]).ravel().astype(np.float64)
        counts[0] = 0
        low, high = np.searchsorted(counts.cumsum(), np.array([self.low, self.high]) / 100 * max(counts.sum(), 1))
        return float(low), float(high)

    def _limits(self, band: np.ndarray) -> tuple[float, float]:
        if not self.percentiles:
            return self.low, self.high
        values = band[np.isfinite(band) & (band != 0)]
        low, high = np.percentile(values, [self.low, self.high]) if values.size else (0.0, 1.0)
        return float(low), float(high)

    @staticmethod
    def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
        return np.asarray(np.clip((values - low) / max(high - low, 1e-9) * 255, 0, 255).round(), dtype=np.uint8)


def is_deep(image: Image.Image) -> bool:
    """Whether an image has more than 8 bits per value, judged by its header.

    Args:
        image (Image.Image): The opened image. Its pixels are not read.
    """
    if not isinstance(image, ImageFile.ImageFile):
        return False
    if image.format == "JPEG2000":
        return image.mode.startswith("I;16") or _bits_of_jpeg2000(image) > 8
    modes = [str(tile.args[0] if isinstance(tile.args, tuple) and tile.args else tile.args) for tile in image.tile]
    return any("16" in mode for mode in modes)


def _bits_of_jpeg2000(image: ImageFile.ImageFile) -> int:
    """Return the bits per value, which Pillow does not give for colour. Source: ISO/IEC 15444-1, A.5.1."""
    if image.fp is None:
        return 0
    position = image.fp.tell()
    image.fp.seek(0)
    _, _, size = image.fp.read(1 << 20).partition(b"\xff\x4f\xff\x51")  # the markers SOC and SIZ
    image.fp.seek(position)
    return (size[38] & 0x7F) + 1 if len(size) > 38 else 0


def warn_of_depth(data: str, images: Sequence[Path]) -> None:
    """Warn before a training that would read 8 of 16 bits. Only a few headers are read.

    Args:
        data (str): The data YAML, for the message.
        images (Sequence[Path]): The images.
    """
    candidates = [path for path in images if path.suffix.lower() in _SUFFIXES]
    sample = candidates[:: max(1, len(candidates) // _SAMPLE)][:_SAMPLE]
    deep = [path for path in sample if _is_deep_file(path)]
    if deep:
        LOGGER.warning(
            f"{colorstr('DS2D2:')} {data}: {len(deep)} of {len(sample)} images looked at have 16 bits: {deep[0]}, ... "
            f"Training reads the upper 8 bits: images that use 11 are almost black. 'ds2d2 check data={data}' shows "
            f"what is left. 'ds2d2 convert' stretches them with {_EXAMPLES}. If the data set is in YOLO's format "
            "already, replace its images with 8-bit images of the same names"
        )


def _is_deep_file(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return is_deep(image)
    except Exception:  # a dozen kinds; the loader reports the error
        return False
