"""Things in a scene that are not labelled: trees, and things that look like objects of the classes."""

from __future__ import annotations

import numpy as np

from ds2d2_yolo.scenes.canvas import PAVED, SOLID, WATER, Canvas, Level
from ds2d2_yolo.scenes.craft import BLACK, CONTAINERS, GLASS, LINE_WHITE, LINE_YELLOW, WHITE
from ds2d2_yolo.scenes.geometry import Array, Pose, ellipse, facing, rectangle, rounded
from ds2d2_yolo.scenes.roads import CONCRETE
from ds2d2_yolo.scenes.texture import Colour, palette, pick, shaded

SAND = palette("cdbb93 d8c8a4 bfa981")


def plant_row(canvas: Canvas, start: Array, end: Array, spacing: float, radius: float) -> None:
    """Plant trees from one place on the ground to another, with gaps."""
    rng = canvas.rng
    for share in np.arange(0.0, 1.0, spacing / max(spacing, float(np.hypot(*(end - start))))):
        if rng.random() < 0.8:
            x, y = start + (end - start) * share + rng.normal(0.0, 0.15 * radius, 2)
            canvas.plant(float(x), float(y), radius * rng.uniform(0.7, 1.2))


def scatter_trees(canvas: Canvas, count: int, radius: float) -> None:
    """Plant single trees and groups of them anywhere in view."""
    rng = canvas.rng
    while count > 0:
        middle = canvas.random_pose(border=-0.05 * canvas.size)
        group = int(rng.choice([1, 1, 2, 4, 9]))
        for _ in range(group):
            x, y = rng.normal((middle.x, middle.y), radius * np.sqrt(group))
            canvas.plant(x, y, radius * rng.uniform(0.6, 1.3))
        count -= group


def draw_container_stack(canvas: Canvas, pose: Pose, rows: int, columns: int, fill: float) -> None:
    """Draw rows of shipping containers along the heading. They resemble vehicles and are not labelled."""
    rng = canvas.rng
    long, broad = 12.4, 2.75
    for row in range(rows):
        for column in range(columns):
            if rng.random() > fill:
                continue
            place = pose.moved((row - (rows - 1) / 2) * (long + 0.5), (column - (columns - 1) / 2) * broad)
            if not canvas.sees(place, long):
                continue
            if rng.random() < 0.16:
                for end in (-1, 1):
                    _add_container(canvas, place.moved(end * long / 4, 0.0), 6.0, pick(rng, CONTAINERS, 9), 1)
            else:
                _add_container(canvas, place, long - 0.2, pick(rng, CONTAINERS, 9), int(rng.integers(1, 4)))


def _add_container(canvas: Canvas, pose: Pose, length: float, colour: Colour, layers: int) -> None:
    outline = pose.points(rectangle(length, 2.5))
    if not canvas.claim(outline, SOLID | WATER):
        return
    top = canvas.raised(outline, 2.6 * layers)

    def paint_container() -> None:
        canvas.polygon(canvas.walls(outline, 2.6 * layers), shaded(colour, 0.6))
        canvas.polygon(top, shaded(colour, 0.86 + 0.07 * layers))
        if canvas.scale > 2.5:
            for share in (0.25, 0.5, 0.75):
                across = np.array([top[0] * share + top[3] * (1 - share), top[1] * share + top[2] * (1 - share)])
                canvas.line(across, shaded(colour, 0.75), 0.25, 0.6)

    canvas.add(Level.LOW, paint_container, [canvas.extruded(outline, 2.6 * layers)])


def draw_pile(canvas: Canvas, pose: Pose, radius: float) -> None:
    """Draw a heap of sand, coal or scrap, lit on one side."""
    rng = canvas.rng
    outline = pose.points(ellipse(2 * radius, 1.5 * radius, count=12) * rng.uniform(0.85, 1.15, (12, 1)))
    if not canvas.claim(outline, SOLID | PAVED | WATER):
        return
    colour = pick(rng, palette("b09a70 4c4844 8a8680 7a5a44 c4b694"), 9)
    canvas.polygon(canvas.extruded(outline, 0.5 * radius), BLACK, 0.35)
    canvas.polygon(outline, shaded(colour, 0.78))
    lit = 0.55 * (outline - (pose.x, pose.y)) + (pose.x, pose.y)
    canvas.polygon(lit - canvas.sun / np.linalg.norm(canvas.sun) * 0.3 * radius, shaded(colour, 1.08))


def draw_silo(canvas: Canvas, x: float, y: float, diameter: float) -> None:
    """Draw a grain silo if it fits: a steep cone with ribs and a dark cap, not a storage tank."""
    rng = canvas.rng
    base = ellipse(diameter, diameter, x, y, count=28)
    height = 2.2 * diameter
    walls = canvas.walls(base, height)
    if not canvas.claim(walls, SOLID | PAVED | WATER):
        return
    paint = pick(rng, palette("a9adb0 8d9194 b8b4aa"), 8)
    top = Pose(x + canvas.lean[0] * height, y + canvas.lean[1] * height)
    away = float(np.arctan2(canvas.sun[1], canvas.sun[0]))

    def paint_silo() -> None:
        canvas.polygon(walls, shaded(paint, 0.5))
        for start in np.arange(16) * np.pi / 8:
            sector = np.concatenate(
                [[(0.0, 0.0)], ellipse(diameter, diameter, start=start, end=start + np.pi / 8, count=4)]
            )
            shade = 0.9 - 0.3 * np.cos(start + np.pi / 16 - away) + (0.08 if round(start * 8 / np.pi) % 2 else -0.08)
            canvas.polygon(top.points(sector), shaded(paint, shade))
        canvas.circle(top, 0.14 * diameter, shaded(paint, 0.4))

    canvas.add(Level.HIGH, paint_silo, [canvas.extruded(base, height)])


def draw_cooling_tower(canvas: Canvas, x: float, y: float, diameter: float) -> None:
    """Draw a cooling tower if it fits: a thick ring around a dark opening."""
    base = ellipse(diameter, diameter, x, y, count=32)
    walls = canvas.walls(base, 0.9 * diameter)
    if not canvas.claim(walls, SOLID | PAVED | WATER):
        return
    paint = pick(canvas.rng, CONCRETE, 8)
    top = Pose(x + canvas.lean[0] * 0.9 * diameter, y + canvas.lean[1] * 0.9 * diameter)

    def paint_tower() -> None:
        canvas.polygon(walls, shaded(paint, 0.66))
        canvas.circle(top, 0.4 * diameter, shaded(paint, 1.1))
        canvas.circle(top, 0.34 * diameter, shaded(paint, 0.35))
        canvas.circle(top.moved(0.06 * diameter, 0.0), 0.24 * diameter, shaded(paint, 0.5))

    canvas.add(Level.HIGH, paint_tower, [canvas.extruded(base, 0.9 * diameter)])


def draw_pool(canvas: Canvas, pose: Pose) -> None:
    """Draw a private swimming pool."""
    rng = canvas.rng
    length, width = rng.uniform(6, 11), rng.uniform(3.2, 5.0)
    if canvas.claim(pose.points(rectangle(length + 2, width + 2)), SOLID | PAVED | WATER):
        canvas.polygon(pose.points(rectangle(length + 2.4, width + 2.4)), pick(rng, CONCRETE))
        canvas.polygon(pose.points(rounded(length, width, 0.8)), pick(rng, palette("4fb0c4 3f9cc0 6cc0c8"), 8))
        edge = pose.points(rectangle(length, width))[:2]
        canvas.line(edge + canvas.sun * 0.3, palette("2f7f9c")[0], 0.5, 0.6)


def draw_fenced_lot(canvas: Canvas, pose: Pose, length: float, width: float) -> None:
    """Draw a fenced yard with worn lines: as large as a court, but without its markings."""
    rng = canvas.rng
    paint = pick(rng, palette("7f807e 94785a 6f8068 a09a8c 8a5a48 5c7a94"), 8)
    canvas.polygon(pose.points(rectangle(length, width)), paint)
    canvas.occupy(pose.points(rectangle(length, width)), PAVED)
    canvas.line(pose.points(rectangle(length - 1.5, width - 1.5)), LINE_WHITE, 0.2, rng.uniform(0.2, 0.7), closed=True)
    style = rng.random()
    if style < 0.35:
        canvas.line(pose.points([(0.0, -width / 2), (0.0, width / 2)]), LINE_WHITE, 0.2, 0.5)
    elif style < 0.6:
        for _ in range(4):
            spot = pose.moved(rng.uniform(-0.4, 0.4) * length, rng.uniform(-0.4, 0.4) * width)
            canvas.polygon(spot.points(rectangle(rng.uniform(1, 3), rng.uniform(1, 3))), pick(rng, CONTAINERS, 9))
    canvas.line(pose.points(rectangle(length, width)), palette("5c6058")[0], 0.25, 0.8, closed=True)


def draw_roof_cross(canvas: Canvas, pose: Pose, reach: float) -> None:
    """Draw a white cross on the ground, as on a closed runway or a helipad."""
    for turn in (np.pi / 4, -np.pi / 4):
        canvas.polygon(pose.moved(0.0, 0.0, turn).points(rectangle(reach, 0.18 * reach)), shaded(WHITE, 0.9), 0.85)


def draw_helipad(canvas: Canvas, pose: Pose, radius: float) -> None:
    """Draw a helipad: a ring and an H."""
    canvas.circle(pose, radius, palette("8a8c8a")[0])
    canvas.line(pose.points(ellipse(1.7 * radius, 1.7 * radius)), LINE_YELLOW, 0.5, 0.9, closed=True)
    for y in (-0.3, 0.3):
        canvas.line(pose.points([(-0.4 * radius, y * radius), (0.4 * radius, y * radius)]), WHITE, 0.7, 0.9)
    canvas.line(pose.points([(0.0, -0.3 * radius), (0.0, 0.3 * radius)]), WHITE, 0.7, 0.9)
    canvas.occupy(pose.points(ellipse(2 * radius, 2 * radius)), PAVED)


def draw_gantry_crane(canvas: Canvas, pose: Pose, reach: float) -> None:
    """Draw a quay crane: a frame on rails and a boom over the water."""
    paint = pick(canvas.rng, palette("b0402f 3f6fa0 d0a030 8f9698"), 8)
    parts = [
        np.array([(-14.0, 0.0), (reach, 0.0)]),
        np.array([(-6.0, -8.0), (-6.0, 8.0)]),
        np.array([(6.0, -8.0), (6.0, 8.0)]),
        np.array([(-6.0, -7.0), (6.0, -7.0)]),
        np.array([(-6.0, 7.0), (6.0, 7.0)]),
    ]

    def paint_crane() -> None:
        for part in parts:
            canvas.line(pose.points(part) + canvas.sun * 16.0, BLACK, 1.2, 0.35)
        for part in parts[1:]:
            canvas.line(pose.points(part), shaded(paint, 0.8), 1.2)
        canvas.line(canvas.raised(pose.points(parts[0]), 14.0), paint, 2.0)
        canvas.polygon(canvas.raised(pose.moved(-8.0, 0.0).points(rectangle(6.0, 4.0)), 14.0), shaded(paint, 1.15))

    canvas.add(Level.HIGH, paint_crane)


def draw_buoy(canvas: Canvas, x: float, y: float) -> None:
    """Draw a buoy with a speck of foam."""
    canvas.circle(Pose(x, y), 1.6 * canvas.resolution, WHITE, 0.35)
    canvas.circle(Pose(x, y), 0.9 * canvas.resolution, pick(canvas.rng, palette("c8402f d8b23c 3f7a4c"), 9))


def draw_rock(canvas: Canvas, x: float, y: float, radius: float) -> None:
    """Draw an irregular dark rock in the surf, with foam around it."""
    rng = canvas.rng
    angles = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    reach = 1 + 0.22 * np.cos(2 * angles + rng.uniform(0, 6)) + 0.14 * np.cos(5 * angles + rng.uniform(0, 6))
    shape = np.stack([np.cos(angles), rng.uniform(0.45, 1.0) * np.sin(angles)], 1) * reach[:, None] * radius
    pose = Pose(x, y, rng.uniform(0, 2 * np.pi))
    canvas.foam(pose.moved(0.25 * radius, 0.0).points(1.25 * shape), 0.55)
    outline = pose.points(shape)
    stone = pick(rng, palette("54504a 66625a 47443f"), 8)

    def paint_rock() -> None:
        canvas.polygon(outline, stone)
        canvas.polygon(outline * 0.62 + 0.38 * np.array((x, y)) - canvas.sun * 0.12 * radius, shaded(stone, 1.3), 0.8)

    canvas.add(Level.DECK, paint_rock)
    canvas.occupy(outline, SOLID)


def draw_fish_cages(canvas: Canvas, pose: Pose, diameter: float) -> None:
    """Draw two rows of fish cages: thin rings on the water, round like storage tanks."""
    rng = canvas.rng
    rim = pick(rng, palette("3a3f42 c9ccc8 5c6468"), 8)
    for row in range(2):
        for column in range(int(rng.integers(2, 5))):
            x, y = pose.points([(column * 1.4 * diameter, row * 1.4 * diameter)])[0]
            ring = ellipse(diameter, diameter, x, y, count=32)
            if canvas.claim(ring, inside=WATER):
                canvas.polygon(ring, palette("24343a")[0], 0.3)
                canvas.line(ring, rim, 0.09 * diameter, 0.9, closed=True)
                canvas.line(ellipse(0.8 * diameter, 0.8 * diameter, x, y), rim, 0.3, 0.5, closed=True)


def draw_jet_bridge(canvas: Canvas, start: Array, end: Array) -> None:
    """Draw a passenger bridge from a terminal (start) to an airplane's door (end), with its rotunda."""
    paint = pick(canvas.rng, palette("b4b6b6 9a9ea0 c8c6c0"), 6)
    canvas.line(np.array([start, end]) + canvas.sun * 4.0, BLACK, 3.0, 0.35)
    canvas.line(np.array([start, end]), paint, 3.0)
    canvas.circle(facing(start, end), 3.0, shaded(paint, 0.9))
    canvas.polygon(facing(end, start).points(rectangle(3.6, 3.6)), GLASS[0])
