"""Places, headings and outlines on the ground, and the labelled objects."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely
from numpy.typing import ArrayLike

CLASS_NAMES: tuple[str, ...] = (
    "airplane",
    "ship",
    "vehicle",
    "storagetank",
    "tenniscourt",
    "basketballcourt",
    "baseballfield",
    "harbor",
    "bridge",
    "groundtrackfield",
)
Array = np.ndarray


@dataclass(frozen=True, eq=False)
class SceneObject:
    """One labelled object of a scene.

    Args:
        class_index (int): Position in `CLASS_NAMES`.
        corners (np.ndarray): Oriented rectangle, (4, 2) float64, in pixels of the image, clockwise on the screen: front
            left, front right, rear right, rear left. It is not clipped: corners of a truncated object are outside
            [0, size]. The front of a round storage tank is to the right.
        size (int): Side of the image, in pixels. `box` is clipped to it.

    Example:
        >>> SceneObject(2, np.array([[12.0, 4.0], [12.0, 8.0], [-2.0, 8.0], [-2.0, 4.0]]), 320).box
        (0.0, 4.0, 12.0, 8.0)
    """

    class_index: int
    corners: Array
    size: int

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Hull x1, y1, x2, y2 (pixels) of the part of the oriented rectangle inside the image."""
        left, top, right, bottom = visible_part(self.corners, self.size).bounds
        return left, top, right, bottom


@dataclass(frozen=True)
class Pose:
    """A place on the ground and a heading: the coordinates in which a thing is drawn (x forward, y to its right).

    Args:
        x (float): Metres.
        y (float): Metres.
        heading (float): Radians, clockwise on the screen.
    """

    x: float
    y: float
    heading: float = 0.0

    def points(self, local: ArrayLike) -> Array:
        """Return points (..., 2) of this frame as points on the ground, metres."""
        turn, origin = self._axes
        return np.asarray(local, dtype=np.float64) @ turn + origin

    @cached_property
    def _axes(self) -> tuple[Array, Array]:
        cosine, sine = math.cos(self.heading), math.sin(self.heading)
        return np.array([[cosine, sine], [-sine, cosine]]), np.array([self.x, self.y])

    def moved(self, forward: float, right: float, turn: float = 0.0) -> Pose:
        """Return the frame moved by `forward` and `right` metres, and rotated by `turn` radians."""
        cosine, sine = math.cos(self.heading), math.sin(self.heading)
        return Pose(
            self.x + cosine * forward - sine * right, self.y + sine * forward + cosine * right, self.heading + turn
        )


def facing(start: Array, end: Array) -> Pose:
    """Return the frame at one place on the ground, (2,), with its heading toward another place."""
    return Pose(float(start[0]), float(start[1]), float(np.arctan2(end[1] - start[1], end[0] - start[0])))


def rectangle(length: float, width: float, forward: float = 0.0, right: float = 0.0) -> Array:
    """Return the corners (4, 2) of a rectangle in a frame: front left, front right, rear right, rear left."""
    half, side = length / 2, width / 2
    return np.array([[half, -side], [half, side], [-half, side], [-half, -side]]) + np.array([forward, right])


def rounded(length: float, width: float, radius: float, forward: float = 0.0) -> Array:
    """Return a rectangle (8, 2) with corners cut off by `radius`, moved forward."""
    half, side = length / 2, width / 2
    outline = np.array(
        [
            [half - radius, -side],
            [half, radius - side],
            [half, side - radius],
            [half - radius, side],
            [radius - half, side],
            [-half, side - radius],
            [-half, radius - side],
            [radius - half, -side],
        ]
    )
    return outline + np.array([forward, 0.0])


def ellipse(
    length: float,
    width: float,
    forward: float = 0.0,
    right: float = 0.0,
    start: float = 0.0,
    end: float = 2 * np.pi,
    count: int = 24,
) -> Array:
    """Return `count` points (count, 2) on an ellipse with the given axes, from angle `start` to `end` (radians)."""
    angles = np.linspace(start, end, count, endpoint=end - start < 2 * np.pi - 1e-9)
    return np.stack([length / 2 * np.cos(angles) + forward, width / 2 * np.sin(angles) + right], axis=1)


def across(places: ArrayLike, low: float, high: float) -> Array:
    """Return segments (N, 2, 2) across a frame: one at every x in `places`, from y = `low` to `high`."""
    x = np.asarray(places, dtype=np.float64)
    return np.stack([np.stack([x, np.full_like(x, low)], 1), np.stack([x, np.full_like(x, high)], 1)], 1)


def along(places: ArrayLike, low: float, high: float) -> Array:
    """Return segments (N, 2, 2) along a frame: one at every y in `places`, from x = `low` to `high`."""
    return across(places, low, high)[:, :, ::-1]


def dashes(starts: ArrayLike, length: float, y: float = 0.0) -> Array:
    """Return segments (N, 2, 2) of a broken line along a frame, each beginning at an x in `starts`."""
    x = np.asarray(starts, dtype=np.float64)
    return np.stack([np.stack([x, np.full_like(x, y)], 1), np.stack([x + length, np.full_like(x, y)], 1)], 1)


def mirrored(half: ArrayLike) -> Array:
    """Return an outline from its right half (N, 2), given from the front to the rear."""
    right = np.asarray(half, dtype=np.float64)
    return np.concatenate([right, right[::-1] * (1, -1)])


def visible_part(corners: Array, size: float) -> shapely.Geometry:
    """Return the part of a convex polygon (N, 2) inside the square [0, size]."""
    return shapely.intersection(shapely.Polygon(corners), shapely.box(0, 0, size, size))
