"""Colours and noise of surfaces."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]  # blue, green, red, as in OpenCV


def palette(text: str) -> tuple[Colour, ...]:
    """Parse a text of hexadecimal RRGGBB triples to colours in OpenCV's order."""
    return tuple((int(word[4:6], 16), int(word[2:4], 16), int(word[0:2], 16)) for word in text.split())


def pick(rng: np.random.Generator, colours: Sequence[Colour], spread: float = 10.0) -> Colour:
    """Choose one of the colours and vary it by about `spread` of 255, mostly in brightness."""
    blue, green, red = colours[int(rng.integers(len(colours)))]
    light, (b, g, r) = rng.normal(0.0, spread), rng.normal(0.0, spread / 3, 3).tolist()
    return _level(blue + light + b), _level(green + light + g), _level(red + light + r)


def shaded(colour: Colour, factor: float) -> Colour:
    """Return the colour, brighter or darker by a factor."""
    blue, green, red = colour
    return _level(blue * factor), _level(green * factor), _level(red * factor)


def _level(value: float) -> int:
    return min(255, max(0, round(value)))


def value_noise(
    rng: np.random.Generator, side: int, cell: float, octaves: int = 3, stretch: float = 1.0
) -> NDArray[np.uint8]:
    """Return multi-octave value noise, (side, side) uint8, mean about 128 and standard deviation about 42.

    Args:
        rng (np.random.Generator): Source of the noise.
        side (int): Side of the field, pixels.
        cell (float): Distance between the random values of the coarsest octave, pixels.
        octaves (int): How many times the cell is halved, each half as strong as the one before.
        stretch (float): How much longer than `cell` the features are in the first axis of the image (x).
    """
    # Smooth noise is summed on a smaller field. Its pixels are still finer than the finest octave.
    shrink = int(np.clip(cell / 2 ** (octaves - 1) / 3, 1, 8))
    work = -(-side // shrink)
    field = np.zeros((work, work), np.float32)
    for octave in range(octaves):
        rows = min(max(2, round(side / (cell / 2**octave)) + 1), work)
        columns = min(max(2, round(side / (cell * stretch / 2**octave)) + 1), work)
        grid = rng.random((rows, columns), dtype=np.float32) * np.float32(0.5**octave)
        field += cv2.resize(grid, (work, work), interpolation=cv2.INTER_CUBIC)
    mean, deviation = float(field.mean()), float(field.std())
    field = np.clip((field - mean) * (42.0 / max(deviation, 1e-6)) + 128.0, 0, 255).astype(np.uint8)
    return np.asarray(cv2.resize(field, (side, side), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
