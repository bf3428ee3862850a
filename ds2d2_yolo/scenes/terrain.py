"""Climate, land and water, and the division of the ground."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ds2d2_yolo.scenes.canvas import PAVED, SOLID, WATER, Canvas
from ds2d2_yolo.scenes.geometry import Array, Pose, rectangle
from ds2d2_yolo.scenes.texture import Colour, palette, value_noise


@dataclass(frozen=True)
class Climate:
    """Colours of a landscape, each a range from dark to light."""

    grass: tuple[Colour, ...]
    soil: tuple[Colour, ...]
    leaves: tuple[Colour, ...]
    crops: tuple[Colour, ...]


_CLIMATES = (
    Climate(
        palette("3f5230 5a6e40 6f8250 8a9562"),
        palette("6e5a44 8a7358 a38c6c b5a184"),
        palette("101a10 1f3019 34492a 4c6438 6d8550"),
        palette("5f7a40 7a9050 98a060 c0ac6c a3885c 84694c 47642f b8b078"),
    ),
    Climate(
        palette("7a7350 958a62 a99e74 bdb189"),
        palette("94805e b09a74 c4ae88 d4c29c"),
        palette("1a2014 2e3820 48502e 646a42 858a5e"),
        palette("b49c68 c9b481 a8865a 8f7a50 7f8a4c d2c294 9a6a48 6a8248"),
    ),
    Climate(
        palette("4c5638 6a6c44 85805a 9a9068"),
        palette("5c4c3c 7a6650 92805f a8977c"),
        palette("1e1a12 3a3020 5c4828 7c6034 9a7c48"),
        palette("8a7a50 6a5a44 7d8a4c a89868 5a4a3c b8a878 94804c 6f7a44"),
    ),
    Climate(
        palette("2f4a2c 44653a 5a7c48 76935a"),
        palette("7a4a34 96604a ac785c c09074"),
        palette("0c180e 16291a 26402a 3c5c38 5c7e4c"),
        palette("4c7438 6a8c44 86a056 5a8048 9c6a4c 35582c a8b068 7a5a40"),
    ),
)
SEAS = (
    palette("16283a 1f3648 2a4658 3a5a6c"),
    palette("15302f 1f4242 2c5554 3f6a66"),
    palette("1b2c44 26405c 345474 486c8a"),
    palette("2a3a3a 3a4c4a 4c5f5a 61746c"),
    palette("123c50 1c5268 2c6c80 46889a"),
)
RIVERS = (
    palette("3a4438 4a5646 5a6652 6c7660"),
    palette("4c4834 5f5a42 726c52 868064"),
    palette("20343a 2c444a 3a565a 4c6a6a"),
)


def draw_climate(rng: np.random.Generator) -> Climate:
    """Choose the climate of one scene."""
    return _CLIMATES[int(rng.choice(len(_CLIMATES), p=[0.4, 0.22, 0.13, 0.25]))]


def flood_grass(canvas: Canvas, climate: Climate, bare: float = 0.25) -> None:
    """Cover everything with grass, and about the share `bare` of it with bare soil."""
    canvas.flood(canvas.texture(climate.grass, canvas.mixture(0.5, 0.5, 0.4)))
    field = cv2.addWeighted(canvas.coarse, 0.75, canvas.medium, 0.25, 0.0)
    ramp = np.clip((np.arange(256, dtype=np.float32) - (165 - 90 * bare)) / 34, 0, 0.85)
    canvas.blend(canvas.texture(climate.soil, canvas.mixture(0.3, 0.5, 0.4)), cv2.LUT(field, ramp))


def water_texture(canvas: Canvas, colours: tuple[Colour, ...], roughness: float) -> Array:
    """Return water for the whole canvas: swell in one direction, ripples and slow changes of colour."""
    swell = value_noise(canvas.rng, canvas.side, canvas.rng.uniform(5.0, 10.0), 3, stretch=canvas.rng.uniform(2.0, 5.0))
    turn = cv2.getRotationMatrix2D((canvas.side / 2, canvas.side / 2), canvas.rng.uniform(0, 360), 1.45)
    swell = np.asarray(
        cv2.warpAffine(swell, turn, (canvas.side, canvas.side), borderMode=cv2.BORDER_REFLECT), dtype=np.uint8
    )
    field = cv2.addWeighted(swell, 0.5 * roughness, canvas.coarse, 0.5, 128 * (0.5 - 0.5 * roughness))
    field = cv2.addWeighted(field, 1.0, canvas.fine, 0.25 * roughness, -32 * roughness)
    water = canvas.texture(colours, field)
    if roughness > 0.9:
        # Whitecaps: only the steepest crests, divided by fine noise, so that they look like small boats.
        crest = cv2.addWeighted(swell, 0.75, canvas.fine, 0.25, 0.0)
        limit = canvas.rng.uniform(212, 228)
        water[crest > limit] = palette("ccd8d8")[0]
    return water


def flood_water(canvas: Canvas, mask: Array, colours: tuple[Colour, ...], roughness: float) -> None:
    """Cover the non-zero part of a canvas mask (side, side) with water."""
    canvas.flood(water_texture(canvas, colours, roughness), mask)
    canvas.flood_occupancy(mask, WATER)


def polygon_mask(canvas: Canvas, points: Array) -> Array:
    """Return the mask (side, side) uint8 of a polygon (N, 2), metres."""
    mask = np.zeros((canvas.side, canvas.side), np.uint8)
    corners = np.rint(canvas.to_image(points) * (canvas.side / canvas.size)).astype(np.int32)
    cv2.fillPoly(mask, [corners], 255)
    return mask


def chance(canvas: Canvas, probability: float) -> bool:
    """Return True with the given probability."""
    return bool(canvas.rng.random() < probability)


def grow_wood(canvas: Canvas, share: float) -> None:
    """Cover about `share` of the dry and free ground with forest."""
    field = cv2.addWeighted(canvas.coarse, 0.8, canvas.medium, 0.2, 0.0)
    limit = float(np.quantile(field[::8, ::8], 1 - share))
    mask = np.where(field > limit, np.uint8(255), np.uint8(0))
    mask[canvas.taken() > 0] = 0
    canvas.forest(mask, crown=3.2)


def find_place(canvas: Canvas, length: float, width: float, *, mark: int = SOLID, attempts: int = 12) -> Pose | None:
    """Find free ground for a rectangle with its centre in view. Mark it as occupied and return its pose."""
    for _ in range(attempts):
        pose = canvas.random_pose(np.pi / 2 * int(canvas.rng.integers(4)), border=0.04 * canvas.size)
        if canvas.claim(pose.points(rectangle(length, width)), SOLID | PAVED | WATER, mark=mark):
            return pose
    return None


def subdivide(
    rng: np.random.Generator, left: float, top: float, right: float, bottom: float, largest: float
) -> list[tuple[float, float, float, float]]:
    """Divide a rectangle of ground until no side is much longer than `largest` metres."""
    width, height = right - left, bottom - top
    if max(width, height) < largest * rng.uniform(0.8, 1.5):
        return [(left, top, right, bottom)]
    share = rng.uniform(0.35, 0.65)
    if width > height:
        cut = left + share * width
        return [*subdivide(rng, left, top, cut, bottom, largest), *subdivide(rng, cut, top, right, bottom, largest)]
    cut = top + share * height
    return [*subdivide(rng, left, top, right, cut, largest), *subdivide(rng, left, cut, right, bottom, largest)]


def random_steps(rng: np.random.Generator, low: float, high: float, shortest: float, longest: float) -> list[float]:
    """Return increasing places from about `low` to beyond `high`, with random distances between them."""
    places = [low - rng.uniform(0.0, shortest)]
    while places[-1] < high:
        places.append(places[-1] + rng.uniform(shortest, longest))
    return places


def frame_of(parcel: tuple[float, float, float, float]) -> tuple[Pose, float, float]:
    """Return the centre, the length and the width of a rectangle of ground (left, top, right, bottom)."""
    left, top, right, bottom = parcel
    return Pose((left + right) / 2, (top + bottom) / 2), right - left, bottom - top
