"""Buildings: roofs, walls in a slanting view, greenhouses."""

from __future__ import annotations

import numpy as np

from ds2d2_yolo.scenes.canvas import PAVED, SOLID, WATER, Canvas, Level
from ds2d2_yolo.scenes.craft import BLACK
from ds2d2_yolo.scenes.geometry import Pose, across, along, rectangle
from ds2d2_yolo.scenes.texture import Colour, palette, pick, shaded

TILE_ROOFS = palette("a0583c 8f4f3a b06a48 7d4a3c 6f6660 5c5f63 7b7f82 8a7a68 4f4a48 94603f")
FLAT_ROOFS = palette("b9b7b0 a6a49e cfcdc6 8f8d88 dedcd6 7c7d7c c2b8a6 9aa2a4 b0a494")
METAL_ROOFS = palette("c9cccd b3b8ba dcdedd 8fa3ae 7f8f86 a8553f 93a7b5 e6e6e2 6b86a0 a49f94")


def draw_building(canvas: Canvas, pose: Pose, length: float, width: float, kind: str, height: float) -> bool:
    """Draw a building with its shadow and, in a slanting view, its walls. Return whether there was room.

    Args:
        canvas (Canvas): The scene.
        pose (Pose): Centre and heading.
        length (float): Metres.
        width (float): Metres.
        kind (str): `gable`, `hip`, `flat`, `hall` (a large metal roof) or `cross` (two gables at right angles).
        height (float): Metres.
    """
    rng = canvas.rng
    if not canvas.sees(pose, length + width + 2 * height):
        return False
    outlines = [pose.points(rectangle(length, width))]
    if kind == "cross":
        outlines.append(pose.points(rectangle(0.4 * width, 1.5 * width, 0.1 * length)))
    silhouettes = [canvas.walls(outline, height) for outline in outlines]
    if not all(canvas.claim(part, SOLID | PAVED | WATER) for part in silhouettes[:1]):
        return False
    for part in silhouettes[1:]:
        canvas.occupy(part, SOLID)
    colours = {"gable": TILE_ROOFS, "hip": TILE_ROOFS, "cross": TILE_ROOFS, "flat": FLAT_ROOFS, "hall": METAL_ROOFS}[
        kind
    ]
    roof = pick(rng, colours, 9)
    wall = pick(rng, palette("b8a890 cfc6b4 9c9488 a8735a"), 10)
    seed = int(rng.integers(1 << 30))
    top = Pose(pose.x + canvas.lean[0] * height, pose.y + canvas.lean[1] * height, pose.heading)
    painter = {
        "gable": _paint_gable,
        "hip": _paint_hip,
        "flat": _paint_flat,
        "hall": _paint_hall,
        "cross": _paint_cross,
    }

    def paint_building() -> None:
        for part in silhouettes:
            canvas.polygon(part, shaded(wall, 0.7))
        painter[kind](canvas, top, length, width, roof, np.random.default_rng(seed))

    canvas.add(Level.HIGH, paint_building, [canvas.extruded(outline, height) for outline in outlines])
    return True


def _light(canvas: Canvas, heading: float) -> float:
    """Return the brightness of a slope toward `heading` (radians): 1 for flat ground, less in shade."""
    sunward = -canvas.sun / np.linalg.norm(canvas.sun)
    return 1.0 + 0.2 * float(np.cos(heading) * sunward[0] + np.sin(heading) * sunward[1])


def _paint_gable(
    canvas: Canvas, top: Pose, length: float, width: float, roof: Colour, rng: np.random.Generator
) -> None:
    for side in (-1, 1):
        light = _light(canvas, top.heading + side * np.pi / 2)
        canvas.polygon(top.points(rectangle(length, width / 2, 0.0, side * width / 4)), shaded(roof, light))
        courses = np.arange(0.8, width / 2, 1.1) * side
        canvas.lines(top.points(along(courses, -length / 2, length / 2)), shaded(roof, 0.82 * light), 0.2, 0.6)
    canvas.line(top.points([(-length / 2, 0.0), (length / 2, 0.0)]), shaded(roof, 1.2), 0.3, 0.8)
    if rng.random() < 0.5:
        chimney = top.moved(rng.uniform(-0.3, 0.3) * length, 0.15 * width).points(rectangle(0.9, 0.9))
        canvas.polygon(canvas.extruded(chimney, 1.5), BLACK, 0.45)
        canvas.polygon(chimney, shaded(roof, 0.6))
    if rng.random() < 0.18:
        _paint_solar_panels(canvas, top.moved(0.0, -0.25 * width), 0.6 * length, 0.32 * width)


def _paint_hip(canvas: Canvas, top: Pose, length: float, width: float, roof: Colour, rng: np.random.Generator) -> None:
    half, side = length / 2, width / 2
    ridge = max(0.1, half - side)
    slopes = (
        ([(half, -side), (half, side), (ridge, 0.0)], 0.0),
        ([(half, side), (-half, side), (-ridge, 0.0), (ridge, 0.0)], np.pi / 2),
        ([(-half, side), (-half, -side), (-ridge, 0.0)], np.pi),
        ([(-half, -side), (half, -side), (ridge, 0.0), (-ridge, 0.0)], -np.pi / 2),
    )
    for outline, direction in slopes:
        canvas.polygon(top.points(outline), shaded(roof, _light(canvas, top.heading + direction)))
    for x, y in ((half, -side), (half, side), (-half, side), (-half, -side)):
        canvas.line(top.points([(x, y), (np.copysign(ridge, x), 0.0)]), shaded(roof, 1.18), 0.25, 0.6)
    if rng.random() < 0.3:
        canvas.polygon(top.moved(0.3 * ridge, 0.2 * side).points(rectangle(1.0, 0.8)), shaded(roof, 0.55))


def _paint_cross(
    canvas: Canvas, top: Pose, length: float, width: float, roof: Colour, rng: np.random.Generator
) -> None:
    _paint_gable(canvas, top, length, width, roof, rng)
    transept = top.moved(0.1 * length, 0.0, np.pi / 2)
    _paint_gable(canvas, transept, 1.5 * width, 0.4 * width, roof, rng)


def _paint_flat(canvas: Canvas, top: Pose, length: float, width: float, roof: Colour, rng: np.random.Generator) -> None:
    canvas.polygon(top.points(rectangle(length, width)), shaded(roof, 1.12))
    inside = top.points(rectangle(length - 1.2, width - 1.2))
    canvas.polygon(inside, shaded(roof, 0.72))
    canvas.polygon(inside + canvas.sun * 0.9 * min(1.0, 0.06 * width), roof)
    if rng.random() < 0.4:
        panels = top.moved(rng.uniform(-0.15, 0.15) * length, 0.0)
        _paint_solar_panels(canvas, panels, 0.5 * length, 0.5 * width)
    for _ in range(int(rng.integers(2, 3 + max(1, int(length * width / 120))))):
        place = top.moved(rng.uniform(-0.42, 0.42) * length, rng.uniform(-0.4, 0.4) * width)
        unit = place.points(rectangle(rng.uniform(1.2, 3.2), rng.uniform(1.2, 2.4)))
        canvas.polygon(canvas.extruded(unit, 1.6), BLACK, 0.4)
        canvas.polygon(unit, pick(rng, palette("d4d4d0 a8aaaa c0bdb4"), 8))
    if length > 16 and rng.random() < 0.5:
        house = top.moved(rng.uniform(-0.3, 0.3) * length, 0.0)
        block = house.points(rectangle(min(6.0, 0.3 * length), min(5.0, 0.5 * width)))
        canvas.polygon(canvas.extruded(block, 3.0), BLACK, 0.42)
        canvas.polygon(block, shaded(roof, 1.08))


def _paint_hall(canvas: Canvas, top: Pose, length: float, width: float, roof: Colour, rng: np.random.Generator) -> None:
    bays = max(1, round(width / rng.uniform(14, 26)))
    for bay in range(bays):
        middle = ((bay + 0.5) / bays - 0.5) * width
        for side in (-1, 1):
            light = 0.5 + 0.5 * _light(canvas, top.heading + side * np.pi / 2)
            slope = rectangle(length, width / bays / 2, 0.0, middle + side * width / bays / 4)
            canvas.polygon(top.points(slope), shaded(roof, light))
        canvas.line(top.points([(-length / 2, middle), (length / 2, middle)]), shaded(roof, 0.78), 0.5, 0.8)
    seams = across(np.arange(-length / 2, length / 2, 3.0), -width / 2, width / 2)
    canvas.lines(top.points(seams), shaded(roof, 0.86), 0.25, 0.7)
    style = rng.random()
    if style < 0.45:
        for y in ((np.arange(bays) + 0.5) / bays - 0.5) * width:
            lights = across(
                np.arange(-0.42 * length, 0.43 * length, 9.0), y - 0.32 * width / bays, y + 0.32 * width / bays
            )
            canvas.lines(top.points(lights), shaded(roof, 1.25 if style < 0.25 else 0.66), 1.1, 0.8)
    elif style < 0.7:
        for x in np.arange(-0.4 * length, 0.41 * length, 12.0):
            vent = top.moved(x, 0.0)
            canvas.polygon(vent.points(rectangle(1.8, 1.8)) + canvas.sun * 1.2, BLACK, 0.35)
            canvas.polygon(vent.points(rectangle(1.8, 1.8)), shaded(roof, 0.8))


def _paint_solar_panels(canvas: Canvas, pose: Pose, length: float, width: float) -> None:
    canvas.polygon(pose.points(rectangle(length, width)), palette("26324a")[0])
    grid = across(np.arange(-length / 2, length / 2, 2.0), -width / 2, width / 2)
    canvas.lines(pose.points(grid), palette("7f8ca0")[0], 0.2, 0.7)


def draw_house(canvas: Canvas, pose: Pose) -> None:
    """Draw a dwelling of random size and roof if there is room."""
    rng = canvas.rng
    length, width = rng.uniform(9, 17), rng.uniform(7.5, 10.5)
    kind = str(rng.choice(["gable", "hip", "flat", "cross"], p=[0.48, 0.34, 0.14, 0.04]))
    draw_building(canvas, pose, length, width, kind, rng.uniform(4.0, 8.0))


def draw_glasshouse(canvas: Canvas, pose: Pose, length: float, width: float) -> None:
    """Draw a greenhouse of glass or foil if there is room: bright parallel bows."""
    outline = pose.points(rectangle(length, width))
    if not canvas.claim(outline, SOLID | PAVED | WATER):
        return
    paint = pick(canvas.rng, palette("d6dcda c4ced0 e4e6e0 b4c4c0"), 7)

    def paint_glasshouse() -> None:
        canvas.polygon(outline, paint)
        bows = along(np.arange(-width / 2, width / 2, 4.0), -length / 2, length / 2)
        canvas.lines(pose.points(bows), shaded(paint, 0.7), 0.8, 0.7)
        ribs = across(np.arange(-length / 2, length / 2, 5.0), -width / 2, width / 2)
        canvas.lines(pose.points(ribs), shaded(paint, 0.85), 0.25, 0.6)

    canvas.add(Level.HIGH, paint_glasshouse, [canvas.extruded(outline, 4.0)])
