"""The canvas of a scene: paint, shadows, labels and the use of the ground.

There are two coordinate systems. Ground coordinates are in metres, x to the right and y down before the scene is
rotated. Image coordinates are continuous pixels: the image covers [0, size] in both axes. Everything is drawn on a
canvas that is `SUPERSAMPLING` times finer than the image. At the end it is reduced by area.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import IntEnum

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ds2d2_yolo.scenes.geometry import (
    CLASS_NAMES,
    Array,
    Pose,
    SceneObject,
    ellipse,
    rectangle,
    visible_part,
)
from ds2d2_yolo.scenes.texture import Colour, value_noise

SUPERSAMPLING = 2
MINIMUM_SIDE = 4.0  # pixels; an object with a shorter side is neither drawn nor labelled
MINIMUM_VISIBLE = 0.4  # share of the area inside the image; below it an object is drawn but not labelled
MAXIMUM_COVER = 0.3  # share of a labelled object that trees may hide
SOLID, PAVED, WATER = 1, 2, 4  # use of a pixel of the ground
_FRACTION_BITS = 4  # OpenCV's fixed point: sixteenths of a canvas pixel
_COVER_GRID = np.stack(np.meshgrid((np.arange(8) + 0.5) / 8 - 0.5, (np.arange(4) + 0.5) / 4 - 0.5), -1).reshape(-1, 2)


class Level(IntEnum):
    """The order in which things on the ground are painted. Shadows of a level fall on all levels before it."""

    DECK = 0
    LOW = 1
    HIGH = 2


class Canvas:
    """A scene while it is drawn.

    Args:
        rng (np.random.Generator): The only source of randomness.
        size (int): Side of the image, pixels.
        resolution (float): Ground resolution, metres per pixel of the image.

    Attributes:
        radius (float): Half the diagonal of the image, metres: nothing beyond this distance from (0, 0) is visible.
        sun (Array): Shadow on the ground of a pole one metre high, metres, (2,).
        lean (Array): Displacement of the top of a pole one metre high by the slanting view, metres, (2,).
        objects (list[SceneObject]): The labelled objects so far.
    """

    def __init__(self, rng: np.random.Generator, size: int, resolution: float) -> None:
        self.rng = rng
        self.size = size
        self.resolution = resolution
        self.side = size * SUPERSAMPLING
        self.radius = size * resolution * math.sqrt(0.5)
        self.scale = SUPERSAMPLING / resolution  # canvas pixels per metre
        rotation = rng.uniform(0.0, 2 * np.pi)
        cosine, sine = math.cos(rotation), math.sin(rotation)
        self.rotation = rotation
        self._cosine, self._sine = cosine, sine
        self._turn = np.array([[cosine, sine], [-sine, cosine]])
        azimuth, tilt_azimuth = rng.uniform(0.0, 2 * np.pi, 2)
        self.sun = rng.uniform(0.3, 1.05) * np.array([np.cos(azimuth), np.sin(azimuth)])
        self.lean = rng.uniform(0.0, 0.22) * np.array([np.cos(tilt_azimuth), np.sin(tilt_azimuth)])
        self.shadow_strength = rng.uniform(0.4, 0.68)
        self.pixels: Array = np.zeros((self.side, self.side, 3), np.uint8)
        self.objects: list[SceneObject] = []
        self.fine = value_noise(rng, self.side, 3.0, 1)
        self.medium = value_noise(rng, self.side, 28.0, 3)
        self.coarse = value_noise(rng, self.side, 220.0, 3)
        self._ground: Array = np.zeros((size, size), np.uint8)  # SOLID, PAVED, WATER
        self._foam: Array = np.zeros((self.side, self.side), np.uint8)
        self._canopy: Array = np.zeros((self.side, self.side), np.uint8)  # height of the tree crowns, 0 without a tree
        self._trees: list[tuple[float, float, float]] = []
        self._samples = np.zeros((0, len(_COVER_GRID), 2))
        self._covered = np.zeros((0, len(_COVER_GRID)), bool)
        self._items: dict[Level, list[tuple[Callable[[], None], Sequence[Array]]]] = {level: [] for level in Level}

    # ------------------------------------------------------------------------------------------- coordinates

    def to_image(self, points: ArrayLike) -> Array:
        """Return points on the ground (N, 2), metres, as continuous pixels of the image."""
        return np.asarray(points, dtype=np.float64) @ self._turn / self.resolution + self.size / 2

    def to_ground(self, points: ArrayLike) -> Array:
        """Return continuous pixels of the image (N, 2) as points on the ground, metres."""
        return (np.asarray(points, dtype=np.float64) - self.size / 2) * self.resolution @ self._turn.T

    def ground_grid(self) -> tuple[Array, Array]:
        """Return x and y of every pixel of the image, metres, both (size, size) float32."""
        steps = ((np.arange(self.size) + 0.5 - self.size / 2) * self.resolution).astype(np.float32)
        turn = self._turn.astype(np.float32)
        return (
            steps[None, :] * turn[0, 0] + steps[:, None] * turn[0, 1],
            steps[None, :] * turn[1, 0] + steps[:, None] * turn[1, 1],
        )

    def enlarge(self, field: Array) -> Array:
        """Return a field of the image (size, size), interpolated to the canvas (side, side)."""
        return np.asarray(cv2.resize(field, (self.side, self.side), interpolation=cv2.INTER_LINEAR))

    def sees(self, pose: Pose, reach: float) -> bool:
        """Return whether something at the pose with radius `reach` (metres) could be in the image."""
        column, row = self._pixel(pose.x, pose.y)
        margin = reach / self.resolution
        return -margin < column < self.size + margin and -margin < row < self.size + margin

    def _pixel(self, x: float, y: float) -> tuple[float, float]:
        """Return a place on the ground in pixels of the image: `to_image` for one point, without arrays."""
        cosine, sine = self._cosine / self.resolution, self._sine / self.resolution
        return x * cosine - y * sine + self.size / 2, x * sine + y * cosine + self.size / 2

    def random_pose(self, heading: float = 0.0, border: float = 0.0) -> Pose:
        """Choose a random place inside the image, at least `border` pixels from its edge."""
        ((x, y),) = self.to_ground(self.rng.uniform(border, self.size - border, (1, 2)))
        return Pose(float(x), float(y), heading)

    def _fixed(self, points: Array) -> NDArray[np.int32]:
        canvas = points @ self._turn * self.scale + (self.side / 2 - 0.5)
        return np.rint(canvas * 2**_FRACTION_BITS).astype(np.int32)

    def _window(self, fixed: NDArray[np.int32], margin: int = 1) -> tuple[int, int, int, int] | None:
        x, y, width, height = cv2.boundingRect(fixed)
        left, top = max((x >> _FRACTION_BITS) - margin, 0), max((y >> _FRACTION_BITS) - margin, 0)
        right = min(((x + width) >> _FRACTION_BITS) + margin + 2, self.side)
        bottom = min(((y + height) >> _FRACTION_BITS) + margin + 2, self.side)
        return (left, top, right, bottom) if left < right and top < bottom else None

    # ------------------------------------------------------------------------------------------------ paint

    def _over(
        self, points: Array, margin: int, opacity: float, draw: Callable[[Array, NDArray[np.int32]], object]
    ) -> None:
        """Let `draw` paint points (N, 2), metres, on the picture around them, with an opacity."""
        fixed = self._fixed(points)
        window = self._window(fixed, margin)
        if window is None:
            return
        left, top, right, bottom = window
        below = self.pixels[top:bottom, left:right]
        above = below if opacity >= 1.0 else below.copy()
        draw(above, fixed - (np.array([left, top], np.int32) << _FRACTION_BITS))
        if opacity < 1.0:
            below[:] = cv2.addWeighted(above, opacity, below, 1.0 - opacity, 0.0)

    def polygon(self, points: Array, colour: Colour, opacity: float = 1.0) -> None:
        """Fill a polygon (N, 2), metres, with antialiased edges."""
        self._over(points, 1, opacity, lambda part, at: cv2.fillPoly(part, [at], colour, cv2.LINE_AA, _FRACTION_BITS))

    def line(self, points: ArrayLike, colour: Colour, width: float, opacity: float = 1.0, closed: bool = False) -> None:
        """Draw an open or closed line (N, 2), `width` metres wide. A line thinner than a pixel becomes faint."""
        self.lines(np.asarray(points)[None], colour, width, opacity, closed)

    def lines(self, segments: Array, colour: Colour, width: float, opacity: float = 1.0, closed: bool = False) -> None:
        """Draw many separate lines (M, N, 2) at once, as `line` does."""
        if not len(segments):
            return
        thickness = width * self.scale
        whole = max(1, round(thickness))

        def draw(part: Array, at: NDArray[np.int32]) -> None:
            strokes = list(at.reshape(len(segments), -1, 2))
            cv2.polylines(part, strokes, closed, colour, whole, cv2.LINE_AA, _FRACTION_BITS)

        self._over(segments.reshape(-1, 2), whole, opacity * min(1.0, max(thickness, 0.3)), draw)

    def circle(self, middle: Pose, radius: float, colour: Colour, opacity: float = 1.0) -> None:
        """Fill a circle of `radius` metres."""
        count = 32 if radius * self.scale > 12 else 16
        self.polygon(middle.points(ellipse(2 * radius, 2 * radius, count=count)), colour, opacity)

    def texture(self, colours: Sequence[Colour], field: Array) -> Array:
        """Map a field of noise (H, W) uint8 to colours (H, W, 3): from the first for 0 to the last for 255."""
        stops = np.linspace(0.0, 255.0, len(colours))
        table = np.stack([np.interp(np.arange(256), stops, [c[channel] for c in colours]) for channel in range(3)], -1)
        # Not `applyColorMap`: it is overloaded, and OpenCV crashes if Ctrl-C arrives while it tries the first form.
        return np.asarray(cv2.LUT(cv2.cvtColor(field, cv2.COLOR_GRAY2BGR), table.astype(np.uint8)[None]))

    def mixture(self, coarse: float, medium: float, fine: float) -> Array:
        """Return a weighted mixture of the three noise fields of the scene, (side, side) uint8 around 128."""
        mixed = cv2.addWeighted(self.coarse, coarse, self.medium, medium, 128.0 * (1.0 - coarse - medium - fine))
        return np.asarray(cv2.addWeighted(mixed, 1.0, self.fine, fine, 0.0))

    def flood(self, texture: Array, mask: Array | None = None) -> None:
        """Paint a texture (side, side, 3) everywhere, or only where the mask (side, side) uint8 is not zero."""
        if mask is None:
            self.pixels[:] = texture
        else:
            cv2.copyTo(texture, mask, self.pixels)

    def textured_polygon(self, points: Array, texture: Array) -> None:
        """Fill a polygon (N, 2), metres, from a texture (side, side, 3) of the whole canvas."""
        window = self._window(self._fixed(points))
        if window is not None:
            left, top, right, bottom = window
            self._fill_window(points, window, texture[top:bottom, left:right])

    def _fill_window(self, points: Array, window: tuple[int, int, int, int], texture: Array) -> None:
        left, top, right, bottom = window
        mask = np.zeros((bottom - top, right - left), np.uint8)
        outline = self._fixed(points) - (np.array([left, top], np.int32) << _FRACTION_BITS)
        cv2.fillPoly(mask, [outline], 255, cv2.LINE_8, _FRACTION_BITS)
        cv2.copyTo(texture, mask, self.pixels[top:bottom, left:right])

    def striped_polygon(
        self, points: Array, first: Colour, second: Colour, heading: float, period: float, roughness: float = 0.35
    ) -> None:
        """Fill a polygon with soft stripes, such as rows of a crop or traces of a mower.

        Args:
            points (Array): Outline (N, 2), metres.
            first (Colour): Colour of every other stripe.
            second (Colour): Colour between.
            heading (float): Direction of the stripes on the ground, radians.
            period (float): Distance between two stripes of the same colour, metres.
            roughness (float): Strength of the noise in the stripes, 0 to 1.
        """
        window = self._window(self._fixed(points))
        if window is None:
            return
        left, top, right, bottom = window
        across = self._turn.T @ np.array([-np.sin(heading), np.cos(heading)]) * (2 * np.pi / (period * self.scale))
        columns, rows = np.arange(left, right, dtype=np.float32), np.arange(top, bottom, dtype=np.float32)
        phase = columns[None, :] * np.float32(across[0]) + rows[:, None] * np.float32(across[1])
        wave = np.sin(phase) * np.float32(100 * (1 - roughness))
        noise = cv2.addWeighted(self.medium[top:bottom, left:right], 0.6, self.fine[top:bottom, left:right], 0.4, 0.0)
        field = np.clip(wave + (noise.astype(np.float32) - 128.0) * np.float32(2 * roughness) + 128.0, 0, 255)
        self._fill_window(points, window, self.texture((first, second), field.astype(np.uint8)))

    def foam(self, points: Array, strength: float) -> None:
        """Draw foam on a polygon (N, 2) of the water with `strength` from 0 to 1. `develop` adds its structure."""
        cv2.fillPoly(self._foam, [self._fixed(points)], round(255 * strength), cv2.LINE_AA, _FRACTION_BITS)

    def blend(self, texture: Array, weight: Array) -> None:
        """Mix a texture (side, side, 3) into the picture with weights (side, side) from 0 to 1."""
        weight = weight.astype(np.float32, copy=False)
        self.pixels = np.asarray(cv2.blendLinear(texture, self.pixels, weight, 1 - weight))

    # ----------------------------------------------------------------------------------- use of the ground

    def _stamp(self, points: Array) -> tuple[Array, Array] | None:
        image = self.to_image(points)
        left, top = np.maximum(np.floor(image.min(axis=0)), 0).astype(int)
        right, bottom = np.minimum(np.ceil(image.max(axis=0)) + 1, self.size).astype(int)
        if left >= right or top >= bottom:
            return None
        mask = np.zeros((bottom - top, right - left), np.uint8)
        fixed = np.rint((image - (left + 0.5, top + 0.5)) * 2**_FRACTION_BITS).astype(np.int32)
        cv2.fillPoly(mask, [fixed], 1, cv2.LINE_8, _FRACTION_BITS)
        return self._ground[top:bottom, left:right], mask

    def occupy(self, points: Array, what: int) -> None:
        """Record that `what` (SOLID, PAVED, WATER or a sum) covers a polygon (N, 2) of the ground."""
        stamp = self._stamp(points)
        if stamp is not None:
            ground, mask = stamp
            ground |= mask * np.uint8(what)

    def flood_occupancy(self, mask: Array, what: int) -> None:
        """Record that `what` covers the non-zero part of a canvas mask (side, side)."""
        small = cv2.resize(mask, (self.size, self.size), interpolation=cv2.INTER_NEAREST)
        self._ground |= np.where(small > 0, np.uint8(what), np.uint8(0))

    def taken(self) -> Array:
        """Return the use of the ground, (side, side) uint8: a sum of SOLID, PAVED and WATER, 0 for free ground."""
        return np.asarray(cv2.resize(self._ground, (self.side, self.side), interpolation=cv2.INTER_NEAREST))

    def holds(self, pose: Pose, what: int) -> bool:
        """Return whether one of `what` (a sum of SOLID, PAVED and WATER) is at a place inside the image."""
        column, row = map(math.floor, self._pixel(pose.x, pose.y))
        inside = 0 <= column < self.size and 0 <= row < self.size
        return bool(inside and self._ground[row, column] & what)

    def claim(self, points: Array, avoid: int = SOLID, inside: int = 0, mark: int = SOLID) -> bool:
        """Occupy a polygon of the ground if it is free. Return whether it was.

        Args:
            points (Array): Outline (N, 2), metres. Nothing outside the image is in the way.
            avoid (int): Sum of the uses that the polygon must not have.
            inside (int): Use that the whole polygon must have (WATER for a ship), or 0.
            mark (int): Its new use.
        """
        stamp = self._stamp(points)
        if stamp is None:
            return True
        ground, mask = stamp
        here = ground[mask > 0]
        if np.any(here & avoid) or (inside and not np.all(here & inside)):
            return False
        ground |= mask * np.uint8(mark)
        return True

    def resolves(self, pose: Pose, length: float, width: float) -> bool:
        """Return whether an oriented rectangle, metres, is in view and large enough for an object to be drawn."""
        return min(length, width) >= MINIMUM_SIDE * self.resolution and self.sees(pose, (length + width) / 2)

    def label(self, name: str, pose: Pose, length: float, width: float) -> None:
        """Label a drawn object, unless too little of it is inside the image.

        Args:
            name (str): One of `CLASS_NAMES`.
            pose (Pose): Centre and heading of the oriented rectangle.
            length (float): Extent along the heading, metres.
            width (float): Extent across it, metres.
        """
        corners = self.to_image(pose.points(rectangle(length, width)))
        visible = visible_part(corners, self.size)
        if visible.area < MINIMUM_VISIBLE * length * width / self.resolution**2:
            return
        left, top, right, bottom = visible.bounds
        if min(right - left, bottom - top) < MINIMUM_SIDE:
            return
        self.objects.append(SceneObject(CLASS_NAMES.index(name), corners, self.size))
        samples = pose.points(_COVER_GRID * (length, width))
        self._samples = np.concatenate([self._samples, samples[None]])
        self._covered = np.concatenate([self._covered, np.zeros((1, len(_COVER_GRID)), bool)])

    def upright(self, x: float, y: float) -> Pose:
        """Return the pose of a round thing at a place: its heading is to the right of the image."""
        return Pose(x, y, -self.rotation)

    # --------------------------------------------------------------------------------- things with shadows

    def extruded(self, outline: Array, height: float) -> Array:
        """Return the shadow (M, 2) of a convex block (N, 2) that is `height` metres high."""
        both = np.concatenate([outline, outline + self.sun * height]).astype(np.float32)
        return cv2.convexHull(both)[:, 0].astype(np.float64)

    def raised(self, outline: Array, height: float | Array) -> Array:
        """Return where the slanting view shows points (N, 2) at `height` metres (N, 1) above the ground."""
        return outline + self.lean * height

    def walls(self, outline: Array, height: float) -> Array:
        """Return the convex silhouette (M, 2) of a block: its outline on the ground joined with its raised top."""
        both = np.concatenate([outline, self.raised(outline, height)]).astype(np.float32)
        return cv2.convexHull(both)[:, 0].astype(np.float64)

    def add(self, level: Level, paint: Callable[[], None], shadows: Sequence[Array] = ()) -> None:
        """Put something on a level. `develop` paints it after the shadows (polygons, metres) of its level."""
        self._items[level].append((paint, shadows))

    def plant(self, x: float, y: float, radius: float) -> None:
        """Plant a tree. `develop` draws it if the ground is then still free."""
        self._trees.append((x, y, radius))

    def _grow_tree(self, x: float, y: float, radius: float) -> None:
        """Draw a tree, unless its trunk is on occupied ground or its crown would hide too much of a labelled object."""
        if self.holds(Pose(x, y), SOLID | PAVED | WATER):
            return
        near = np.nonzero(np.hypot(*(self._samples - (x, y)).transpose(2, 0, 1)) < radius)
        if len(near[0]):
            covered = self._covered.copy()
            covered[near] = True
            if covered[np.unique(near[0])].mean(axis=1).max() > MAXIMUM_COVER:
                return
            self._covered = covered
        for _ in range(3):
            shift, reach = self.rng.normal(0.0, 0.25 * radius, 2), radius * self.rng.uniform(0.6, 0.85)
            self._stamp_crown(x + shift[0], y + shift[1], reach)

    def _stamp_crown(self, x: float, y: float, radius: float) -> None:
        column, row = (round(SUPERSAMPLING * value - 0.5) for value in self._pixel(x, y))
        reach = max(1, round(radius * self.scale))
        left, top = max(column - reach, 0), max(row - reach, 0)
        right, bottom = min(column + reach + 1, self.side), min(row + reach + 1, self.side)
        if left >= right or top >= bottom:
            return
        horizontal = np.arange(left - column, right - column, dtype=np.float32) / (reach + 0.5)
        vertical = np.arange(top - row, bottom - row, dtype=np.float32) / (reach + 0.5)
        dome = 1.0 - horizontal[None, :] ** 2 - vertical[:, None] ** 2
        height = np.where(dome > 0, 60 + 195 * np.sqrt(np.maximum(dome, 0)), 0).astype(np.uint8)
        crown = self._canopy[top:bottom, left:right]
        np.maximum(crown, height, out=crown)

    def forest(self, mask: Array, crown: float) -> None:
        """Cover the non-zero part of a canvas mask (side, side) with crowns of about `crown` metres radius."""
        reach = max(3, round(1.2 * crown * self.scale)) | 1
        solid = cv2.morphologyEx(mask, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
        height = value_noise(self.rng, self.side, max(3.0, 1.6 * crown * self.scale), 2)
        height = np.maximum(height, 40)
        height[solid == 0] = 0
        self._hide_objects_from(height)
        np.maximum(self._canopy, height, out=self._canopy)

    def _hide_objects_from(self, height: Array) -> None:
        for item in self.objects:
            outline = np.rint(item.corners * SUPERSAMPLING).astype(np.int32)
            cv2.fillPoly(height, [outline], 0)

    # ------------------------------------------------------------------------------------------ the picture

    def weather(self, strength: float) -> None:
        """Vary the brightness of the picture so far by about `strength`, like worn surfaces."""
        field = self.mixture(0.35, 0.4, 0.35)
        gain = cv2.LUT(
            field, np.clip(255 * 0.8 * (1 + strength * (np.arange(256) - 128) / 42), 0, 255).astype(np.uint8)
        )
        self.pixels = np.asarray(cv2.multiply(self.pixels, cv2.merge([gain, gain, gain]), scale=1 / (255 * 0.8)))

    def darken(self, mask: Array) -> None:
        """Draw shadow where a canvas mask (side, side) is bright. Light from the sky makes it bluish."""
        soft = cv2.blur(mask, (3, 3))
        tables = [255 - np.arange(256) * (self.shadow_strength * share) for share in (0.86, 0.97, 1.0)]
        gains = [cv2.LUT(soft, np.rint(table).astype(np.uint8)) for table in tables]
        self.pixels = np.asarray(cv2.multiply(self.pixels, cv2.merge(gains), scale=1 / 255))

    def develop(self, tree_height: float, leaves: Sequence[Colour]) -> Array:
        """Paint everything on the ground, level by level, and return the image (size, size, 3) BGR uint8.

        Args:
            tree_height (float): Metres; determines the length of the trees' shadows.
            leaves (Sequence[Colour]): Colours of the tree crowns, from shade to light.
        """
        for x, y, radius in self._trees:
            self._grow_tree(x, y, radius)
        if self._foam.any():
            self._paint_foam()
        for level in Level:
            mask = np.zeros((self.side, self.side), np.uint8)
            for _, shadows in self._items[level]:
                for shadow in shadows:
                    cv2.fillPoly(mask, [self._fixed(shadow)], 255, cv2.LINE_AA, _FRACTION_BITS)
            wooded = level is Level.HIGH and bool(self._canopy.any())
            if wooded:
                self._add_tree_shadows(mask, tree_height)
            if mask.any():
                self.darken(mask)
            if wooded:
                self._paint_canopy(leaves)
            for paint, _ in self._items[level]:
                paint()
        return np.asarray(cv2.resize(self.pixels, (self.size, self.size), interpolation=cv2.INTER_AREA))

    def _paint_foam(self) -> None:
        soft = cv2.GaussianBlur(self._foam, (0, 0), 1.6).astype(np.float32) / 255
        broken = np.clip((self.mixture(0.0, 0.55, 0.75).astype(np.float32) - 90) / 80, 0.12, 1)
        wet = self.taken() & np.uint8(WATER) > 0
        self.blend(np.full_like(self.pixels, 226), soft * broken * wet)

    def _add_tree_shadows(self, mask: Array, tree_height: float) -> None:
        crowns = np.where(self._canopy > 0, np.uint8(255), np.uint8(0))
        direction = self._turn.T @ self.sun * (tree_height * self.scale)
        for share in (0.25, 0.5, 0.75, 1.0):
            shift = np.array([[1, 0, direction[0] * share], [0, 1, direction[1] * share]])
            moved = cv2.warpAffine(crowns, shift, (self.side, self.side), flags=cv2.INTER_NEAREST)
            np.maximum(mask, moved, out=mask)

    def _paint_canopy(self, leaves: Sequence[Colour]) -> None:
        toward_sun = -(self._turn.T @ self.sun) / np.linalg.norm(self.sun)
        kernel = np.array([[-1, 0, 1]], np.float32)
        slope = cv2.filter2D(self._canopy, cv2.CV_32F, -kernel) * np.float32(toward_sun[0])
        slope += cv2.filter2D(self._canopy, cv2.CV_32F, -kernel.T) * np.float32(toward_sun[1])
        light = np.clip(slope * np.float32(0.55), -75, 75) + (self.mixture(0.3, 0.25, 0.45).astype(np.float32) + 4)
        self.flood(self.texture(leaves, np.clip(light, 0, 255).astype(np.uint8)), self._canopy)
