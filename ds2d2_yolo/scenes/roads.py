"""Roads, railways and car parks, with their traffic."""

from __future__ import annotations

import itertools

import numpy as np

from ds2d2_yolo.scenes.canvas import PAVED, SOLID, Canvas
from ds2d2_yolo.scenes.craft import BLACK, LINE_WHITE, WHITE, draw_vehicle
from ds2d2_yolo.scenes.geometry import Array, Pose, across, dashes, ellipse, facing, rectangle
from ds2d2_yolo.scenes.texture import Colour, palette, pick, shaded

ASPHALT = palette("6f6f6e 7b7b79 848381 626364 8f8d89")
CONCRETE = palette("b5b2a9 a7a49c c3c0b7 9b9992")


def draw_roundabout(canvas: Canvas, x: float, y: float, radius: float) -> None:
    """Draw a roundabout with a planted island: round like a storage tank, but flat."""
    rng = canvas.rng
    canvas.circle(Pose(x, y), radius, pick(rng, ASPHALT, 6))
    canvas.circle(Pose(x, y), 0.52 * radius, shaded(WHITE, 0.78))
    canvas.circle(Pose(x, y), 0.48 * radius, pick(rng, palette("6f8a4c 8a9060 7a6a50"), 8))
    canvas.occupy(ellipse(2 * radius, 2 * radius, x, y), PAVED)
    canvas.occupy(ellipse(1.1 * radius, 1.1 * radius, x, y), SOLID)
    for _ in range(3):
        shrub = Pose(x + rng.normal(0, 0.15 * radius), y + rng.normal(0, 0.15 * radius))
        canvas.circle(shrub, 0.12 * radius, palette("3f5a34")[0])


def draw_rails(canvas: Canvas, start: Array, end: Array, tracks: int) -> None:
    """Draw parallel railway tracks on ballast, most of them with trains. Wagons are not labelled as vehicles."""
    rng = canvas.rng
    length = float(np.hypot(*(end - start)))
    middle = facing(start, end).moved(length / 2, 0.0)
    width = 4.6 * tracks + 2.0
    canvas.polygon(middle.points(rectangle(length, width)), pick(rng, palette("8f887c 7d766c 9a9488"), 6))
    canvas.occupy(middle.points(rectangle(length, width)), PAVED)
    for track in range(tracks):
        y = (track - (tracks - 1) / 2) * 4.6
        canvas.line(middle.points([(-length / 2, y), (length / 2, y)]), palette("6a6158")[0], 2.4, 0.55)
        for rail in (-0.75, 0.75):
            canvas.line(middle.points([(-length / 2, y + rail), (length / 2, y + rail)]), palette("4a4644")[0], 0.22)
        if rng.random() < 0.7:
            _draw_train(canvas, middle, y, length)


def _draw_train(canvas: Canvas, middle: Pose, y: float, length: float) -> None:
    rng = canvas.rng
    wagon = rng.uniform(13.0, 19.0)
    colours = palette("5a4a42 6f7476 7a4a38 44525c 8a867c 6a5c3c")
    paint = colours[int(rng.integers(len(colours)))]
    x = rng.uniform(-0.5, 0.0) * length
    for _ in range(int(rng.integers(4, 24))):
        place = middle.moved(x, y)
        x += wagon + 1.2
        if not canvas.sees(place, wagon):
            continue
        outline = place.points(rectangle(wagon, 3.0))
        canvas.polygon(canvas.extruded(outline, 3.4), BLACK, 0.45)
        colour = pick(rng, (paint,), 8)
        canvas.polygon(outline, colour)
        canvas.polygon(place.points(rectangle(wagon - 1.0, 1.5)), shaded(colour, 1.22))
        canvas.occupy(outline, SOLID)


def draw_road(
    canvas: Canvas, points: Array, width: float, colour: Colour, *, verge: Colour | None = None, marked: bool = True
) -> None:
    """Draw a road along a line (N, 2), metres, and keep buildings and trees off it.

    Args:
        canvas (Canvas): The scene.
        points (Array): Centre line.
        width (float): Metres.
        colour (Colour): Colour of the surface.
        verge (Colour | None): Colour of the strips along both sides, such as pavements; none if None.
        marked (bool): Whether lane lines are painted.
    """
    if verge is not None:
        canvas.line(points, verge, width + 4.4)
    canvas.line(points, colour, width)
    canvas.line(points, shaded(colour, 0.9), 0.5 * width, 0.35)
    for start, end in itertools.pairwise(points):
        length = float(np.hypot(*(end - start)))
        pose = facing(start, end).moved(length / 2, 0.0)
        canvas.occupy(pose.points(rectangle(length, width + (4.4 if verge is not None else 0.5))), PAVED)
        if not marked:
            continue
        canvas.lines(pose.points(dashes(np.arange(-length / 2, length / 2 - 3.0, 8.0), 3.0)), LINE_WHITE, 0.22, 0.8)
        if width > 9.5:
            for side in (-1, 1):
                edge = side * (width / 2 - 0.6)
                canvas.line(pose.points([(-length / 2, edge), (length / 2, edge)]), LINE_WHITE, 0.18, 0.6)


def drive_along(canvas: Canvas, start: Array, end: Array, width: float, spacing: float) -> None:
    """Draw moving vehicles on the right side of a straight road, about one per lane every `spacing` metres."""
    rng = canvas.rng
    length = float(np.hypot(*(end - start)))
    road = facing(start, end)
    lanes = max(1, int(width // 6.4))
    for lane in range(lanes):
        offset = width / 2 * (lane + 0.5) / lanes
        for side, turn in ((1, 0.0), (-1, np.pi)):
            x = rng.exponential(spacing)
            while x < length:
                place = road.moved(x, side * offset + rng.normal(0, 0.2), turn + rng.normal(0, 0.02))
                if canvas.sees(place, 8.0):
                    draw_vehicle(canvas, place)
                x += 6.0 + rng.exponential(spacing)


def park_along(canvas: Canvas, start: Array, end: Array, offset: float, fill: float) -> None:
    """Draw parked vehicles along a kerb, `offset` metres to the right of a straight line."""
    rng = canvas.rng
    length = float(np.hypot(*(end - start)))
    kerb = facing(start, end)
    for x in np.arange(8.0, length - 6.0, 6.2):
        if rng.random() < fill:
            place = kerb.moved(x + rng.normal(0, 0.3), offset + rng.normal(0, 0.12), np.pi * int(rng.integers(2)))
            draw_vehicle(canvas, place, str(rng.choice(["car", "van", "pickup"], p=[0.8, 0.13, 0.07])))


def draw_parking(canvas: Canvas, pose: Pose, length: float, width: float, fill: float, *, trucks: bool = False) -> None:
    """Draw a car park: slots in rows along the heading, aisles between them, and vehicles in some of the slots.

    Args:
        canvas (Canvas): The scene.
        pose (Pose): Centre and heading.
        length (float): Metres.
        width (float): Metres.
        fill (float): Share of occupied slots.
        trucks (bool): Whether it is a yard for trucks and buses.
    """
    rng = canvas.rng
    if not canvas.sees(pose, (length + width) / 2):
        return
    outline = pose.points(rectangle(length, width))
    canvas.polygon(outline, pick(rng, CONCRETE if rng.random() < 0.2 else ASPHALT, 7))
    canvas.occupy(outline, PAVED)
    slot, depth, aisle = (3.9, 17.5, 14.0) if trucks else (2.55, 5.2, 6.2)
    wear = rng.uniform(0.4, 0.95)
    y = -width / 2 + 0.6
    facing = -1
    while y + depth < width / 2:
        places = np.arange(-length / 2 + 1.0, length / 2 - slot, slot)
        canvas.lines(pose.points(across(places, y, y + depth)), LINE_WHITE, 0.16, wear)
        for x in places[:-1]:
            if rng.random() < fill:
                turn = (facing if rng.random() < 0.72 else -facing) * np.pi / 2
                place = pose.moved(
                    x + slot / 2 + rng.normal(0, 0.1), y + depth / 2 + rng.normal(0, 0.25), turn + rng.normal(0, 0.03)
                )
                kind = str(rng.choice(["truck", "bus"], p=[0.85, 0.15])) if trucks else _parked_kind(rng)
                draw_vehicle(canvas, place, kind)
        y += depth + (aisle if facing < 0 else 0.0)
        facing = -facing


def _parked_kind(rng: np.random.Generator) -> str:
    return str(rng.choice(["car", "van", "pickup"], p=[0.82, 0.1, 0.08]))
