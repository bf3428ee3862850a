"""Scenes of farmland and of rivers with bridges."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from ds2d2_yolo.scenes.buildings import draw_building, draw_glasshouse, draw_house
from ds2d2_yolo.scenes.canvas import PAVED, SOLID, SUPERSAMPLING, WATER, Canvas
from ds2d2_yolo.scenes.clutter import SAND, draw_silo, plant_row, scatter_trees
from ds2d2_yolo.scenes.craft import BLACK, WHITE, choose_ship, draw_ship, draw_vehicle
from ds2d2_yolo.scenes.geometry import Array, Pose, along, ellipse, facing, rectangle
from ds2d2_yolo.scenes.roads import ASPHALT, CONCRETE, draw_parking, draw_road, drive_along
from ds2d2_yolo.scenes.structures import draw_bridge
from ds2d2_yolo.scenes.terrain import (
    RIVERS,
    SEAS,
    Climate,
    chance,
    flood_grass,
    flood_water,
    frame_of,
    grow_wood,
    subdivide,
)
from ds2d2_yolo.scenes.texture import palette, pick, shaded


def draw_farmland(canvas: Canvas, climate: Climate) -> None:
    """Draw parcels with rows, hedges, tracks, a farm and, often, a river with bridges."""
    rng = canvas.rng
    flood_grass(canvas, climate, 0.3)
    reach = 1.1 * canvas.radius
    parcels = subdivide(rng, -reach, -reach, reach, reach, rng.uniform(55, 110) * max(0.8, canvas.resolution))
    styles = [_draw_parcel(canvas, climate, parcel) for parcel in parcels]
    if canvas.resolution > 0.7 and chance(canvas, 0.25):
        _draw_pivot(canvas, climate)
    roads = _draw_crossings(canvas, int(rng.integers(1, 3)), 0.62, (6.0, 10.0))
    if chance(canvas, 0.7):
        _draw_river_with_bridges(canvas, roads, rng.uniform(14, 45) * max(0.7, canvas.resolution), climate)
    else:
        for x, width in roads:
            _draw_country_road(canvas, x, width)
    for _ in range(int(rng.integers(1, 3))):
        _draw_farmstead(canvas, canvas.random_pose(np.pi / 2 * int(rng.integers(4)), border=0.1 * canvas.size))
    for parcel, style in zip(parcels, styles, strict=True):
        _furnish_parcel(canvas, parcel, style)
        left, top, right, bottom = parcel
        if chance(canvas, 0.3):
            end = (right, top) if chance(canvas, 0.5) else (left, bottom)
            plant_row(canvas, np.array([left, top]), np.array(end), rng.uniform(5, 9), rng.uniform(2.2, 3.6))
    scatter_trees(canvas, int(rng.integers(5, 30)), 3.2)
    if chance(canvas, 0.4):
        grow_wood(canvas, rng.uniform(0.05, 0.2))


def _draw_parcel(canvas: Canvas, climate: Climate, parcel: tuple[float, float, float, float]) -> str:
    """Draw the ground of a parcel and return its use: `rows`, `meadow`, `orchard` or `glass`."""
    rng = canvas.rng
    pose, length, width = frame_of(parcel)
    style = str(rng.choice(["rows", "meadow", "orchard", "glass"], p=[0.62, 0.25, 0.08, 0.05]))
    outline = pose.points(rectangle(length - rng.uniform(0.5, 4), width - rng.uniform(0.5, 4)))
    crop = pick(rng, climate.crops, 9)
    heading = 0.0 if chance(canvas, 0.5) else np.pi / 2
    if style == "rows":
        period = max(rng.uniform(1.5, 7.0), 2.4 * canvas.resolution)
        dark, bright = shaded(crop, rng.uniform(0.78, 0.95)), shaded(crop, 1.08)
        canvas.striped_polygon(outline, dark, bright, heading, period, rng.uniform(0.35, 0.8))
        if chance(canvas, 0.5):
            reach, breadth = (length, width) if heading == 0.0 else (width, length)
            trams = along(np.arange(-0.45 * breadth, 0.45 * breadth, 22.0), 2 - reach / 2, reach / 2 - 2)
            canvas.lines(Pose(pose.x, pose.y, heading).points(trams), shaded(crop, 0.76), 0.8, 0.5)
    elif style == "meadow":
        shades = [shaded(crop, 0.85), crop, shaded(crop, 1.1)]
        canvas.textured_polygon(outline, canvas.texture(shades, canvas.mixture(0.5, 0.4, 0.4)))
    return style


def _furnish_parcel(canvas: Canvas, parcel: tuple[float, float, float, float], style: str) -> None:
    """Draw the trees or greenhouses of a parcel, after rivers, roads and farms."""
    rng = canvas.rng
    pose, length, width = frame_of(parcel)
    if style == "orchard":
        spacing = rng.uniform(6.0, 9.0) * max(1.0, canvas.resolution)
        for x in np.arange(-length / 2 + 4, length / 2 - 3, spacing):
            for y in np.arange(-width / 2 + 4, width / 2 - 3, spacing):
                if canvas.sees(pose.moved(x, y), 5.0) and chance(canvas, 0.93):
                    canvas.plant(pose.x + x, pose.y + y, 0.32 * spacing)
    elif style == "glass":
        for y in np.arange(-0.4 * width, 0.4 * width, 14.0):
            draw_glasshouse(canvas, pose.moved(0.0, y), 0.82 * length, 9.0)
    elif style == "meadow" and chance(canvas, 0.35):
        radius = max(0.9, 1.1 * canvas.resolution)
        for _ in range(14):
            bale = pose.moved(rng.uniform(-0.45, 0.45) * length, rng.uniform(-0.45, 0.45) * width)
            if not canvas.holds(bale, SOLID | PAVED | WATER):
                canvas.circle(Pose(bale.x + canvas.sun[0], bale.y + canvas.sun[1]), radius, BLACK, 0.3)
                canvas.circle(bale, radius, palette("c9b57c")[0])


def _draw_pivot(canvas: Canvas, climate: Climate) -> None:
    """Draw a field with centre-pivot irrigation: a large disc."""
    rng = canvas.rng
    place, radius = canvas.random_pose(), rng.uniform(50, 90) * canvas.resolution
    crop = pick(rng, climate.crops, 9)
    canvas.circle(place, radius, crop)
    for share in np.arange(0.1, 1.0, 0.12):
        ring = ellipse(2 * share * radius, 2 * share * radius, place.x, place.y, count=60)
        canvas.line(ring, shaded(crop, 0.82), 1.2, 0.7, closed=True)
    canvas.line(
        np.array([(place.x, place.y), place.moved(0, 0, rng.uniform(0, 6)).points([(radius, 0)])[0]]), WHITE, 0.8, 0.8
    )


def _draw_country_road(canvas: Canvas, x: float, width: float) -> None:
    line = np.array([(x, -1.1 * canvas.radius), (x, 1.1 * canvas.radius)])
    paved = chance(canvas, 0.7)
    colour = pick(canvas.rng, ASPHALT if paved else SAND, 7)
    draw_road(canvas, line, width, colour, marked=paved)
    drive_along(canvas, line[0], line[1], width, 45.0)


def _draw_farmstead(canvas: Canvas, pose: Pose) -> None:
    rng = canvas.rng
    yard = rng.uniform(24, 40)
    if not canvas.claim(pose.points(rectangle(2.0 * yard, 1.2 * yard)), SOLID | PAVED | WATER, mark=0):
        return
    canvas.polygon(pose.points(rectangle(1.3 * yard, yard)), pick(rng, palette("a89878 988970"), 8), 0.85)
    for side in (-1, 1):
        draw_building(
            canvas,
            pose.moved(0.0, side * 0.42 * yard),
            0.9 * yard,
            rng.uniform(10, 15),
            str(rng.choice(["gable", "hall", "cross"])),
            rng.uniform(6, 10),
        )
    draw_house(canvas, pose.moved(0.75 * yard, 0.0, np.pi / 2))
    for index in range(int(rng.integers(0, 5))):
        x, y = pose.points([(-0.8 * yard, (index - 1) * 8.0)])[0]
        draw_silo(canvas, x, y, rng.uniform(5, 8))
    for _ in range(int(rng.integers(0, 4))):
        draw_vehicle(
            canvas, pose.moved(rng.uniform(-0.4, 0.4) * yard, rng.uniform(-0.15, 0.15) * yard, rng.uniform(0, 6))
        )
    for _ in range(8):
        x, y = rng.normal((pose.x, pose.y), 0.9 * yard)
        canvas.plant(x, y, rng.uniform(2.2, 4.2))


def _draw_crossings(canvas: Canvas, count: int, reach: float, widths: tuple[float, float]) -> list[tuple[float, float]]:
    """Choose positions (x in metres) and widths of at most `count` parallel roads, far from each other."""
    rng = canvas.rng
    places = np.sort(rng.uniform(-reach, reach, count)) * canvas.radius
    apart = [x for index, x in enumerate(places) if index == 0 or x - places[index - 1] > 45 * canvas.resolution]
    return [(float(x), max(float(rng.uniform(*widths)), 4.5 * canvas.resolution)) for x in apart]


def _draw_river_with_bridges(
    canvas: Canvas, roads: list[tuple[float, float]], width: float, climate: Climate
) -> Callable[[Array], Array]:
    """Draw a river along x and roads that cross it on bridges; return the river's middle, y as a function of x."""
    rng = canvas.rng
    bend = rng.uniform(0.0, 0.12) * canvas.radius
    length = rng.uniform(1.6, 3.0) * canvas.radius
    phase, offset = rng.uniform(0, 2 * np.pi), rng.uniform(-0.25, 0.25) * canvas.radius
    x, y = canvas.ground_grid()

    def middle(place: Array) -> Array:
        return np.asarray(offset + bend * np.sin(2 * np.pi * place / length + phase))

    steps = slice(None, None, SUPERSAMPLING)
    coves = (canvas.coarse[steps, steps].astype(np.float32) - 128) * np.float32(0.0016 * width)
    crags = (canvas.medium[steps, steps].astype(np.float32) - 128) * np.float32(0.0006 * width + 0.01)
    distance = canvas.enlarge(np.abs(y - middle(x).astype(np.float32)) + coves + crags)
    bank = np.where(distance < width / 2 + rng.uniform(1.5, 4.5), np.uint8(255), np.uint8(0))
    canvas.flood(canvas.texture([shaded(c, 0.9) for c in climate.soil], canvas.mixture(0.3, 0.5, 0.4)), bank)
    canvas.flood_occupancy(bank, PAVED)
    mask = np.where(distance < width / 2, np.uint8(255), np.uint8(0))
    colours = (*RIVERS, SEAS[3])[int(rng.integers(4))]
    flood_water(canvas, mask, colours, rng.uniform(0.1, 0.35))
    # Near the banks the bed is visible.
    shallow = np.where(mask > 0, np.clip(distance * np.float32(1.8 / width) - np.float32(0.5), 0, np.float32(0.4)), 0)
    canvas.blend(np.full_like(canvas.pixels, shaded(colours[-1], 1.25)), shallow)
    for place, broad in roads:
        colour = pick(rng, ASPHALT, 6)
        centre = float(middle(np.array(place)))
        slope = float(bend * 2 * np.pi / length * np.cos(2 * np.pi * place / length + phase))
        pose = Pose(place, centre, np.pi / 2 - 0.4 * float(np.arctan(slope)))
        span = width / float(np.cos(0.6 * np.arctan(slope))) + rng.uniform(4, 10)
        far = pose.points([(-2.2 * canvas.radius, 0.0), (-span / 2, 0.0), (span / 2, 0.0), (2.2 * canvas.radius, 0.0)])
        draw_road(canvas, far[:2], broad, colour)
        draw_road(canvas, far[2:], broad, colour)
        deck = broad + rng.uniform(1.5, 3.5)
        kinds = ["beam", "arch", "truss", "cable"]
        chances = [0.55, 0.15, 0.15, 0.15] if span > 60 else [0.8, 0.1, 0.1, 0.0]
        draw_bridge(canvas, pose, span, deck, str(rng.choice(kinds, p=chances)))
        drive_along(canvas, far[0], far[3], broad, 28.0)
        canvas.occupy(pose.points(rectangle(span, deck)), SOLID)
    return middle


def draw_river(canvas: Canvas, climate: Climate) -> None:
    """Draw a wide river with bridges and boats between banks of fields, or of streets with houses and sheds."""
    rng = canvas.rng
    flood_grass(canvas, climate, 0.25)
    reach = 1.1 * canvas.radius
    urban = chance(canvas, 0.6)
    parcels = subdivide(rng, -reach, -reach, reach, reach, 85 * max(0.8, canvas.resolution)) if not urban else []
    styles = [_draw_parcel(canvas, climate, parcel) for parcel in parcels]
    width = rng.uniform(38, 130) * canvas.resolution
    roads = _draw_crossings(canvas, int(rng.choice([1, 2, 3], p=[0.35, 0.42, 0.23])), 0.72, (8.0, 19.0))
    middle = _draw_river_with_bridges(canvas, roads, width, climate)
    if urban:
        _build_banks(canvas, middle, width)
    for parcel, style in zip(parcels, styles, strict=True):
        _furnish_parcel(canvas, parcel, style)
    for _ in range(int(rng.integers(1, 9))):
        kind, length = choose_ship(canvas)
        heading = np.pi * int(rng.integers(2)) + rng.normal(0, 0.12)
        draw_ship(canvas, canvas.random_pose(heading), kind, min(length, 0.8 * width), chance(canvas, 0.6))
    scatter_trees(canvas, int(rng.integers(20, 90)), 3.4)
    if chance(canvas, 0.4):
        grow_wood(canvas, rng.uniform(0.05, 0.25))


def _build_banks(canvas: Canvas, middle: Callable[[Array], Array], width: float) -> None:
    """Draw streets along both banks of the river, with houses, sheds and car parks."""
    rng = canvas.rng
    grey, pavement = pick(rng, ASPHALT, 6), pick(rng, CONCRETE, 6)
    depth = rng.uniform(46, 66)
    large = canvas.resolution > 0.75 and chance(canvas, 0.7)
    course = np.linspace(-1.15 * canvas.radius, 1.15 * canvas.radius, 13)
    for side in (-1, 1):
        for row in range(int(1.6 * canvas.radius // depth) + 1):
            shift = side * (width / 2 + 15 + row * depth)
            line = np.stack([course, middle(course) + shift], axis=1)
            draw_road(canvas, line, 7.0, grey, verge=pavement)
            for start, end in itertools.pairwise(line):
                if row < 2:
                    drive_along(canvas, start, end, 7.0, 45.0)
                _build_along(canvas, start, end, side, depth, large)


def _build_along(canvas: Canvas, start: Array, end: Array, side: int, depth: float, large: bool) -> None:
    """Draw buildings on the side of a street away from the river, and back to back with the next street."""
    rng = canvas.rng
    street = facing(start, end)
    x, length = 0.0, float(np.hypot(*(end - start)))
    if not canvas.sees(street.moved(length / 2, side * depth / 2), length + depth):
        return
    while x < length:
        style = rng.random()
        if style < 0.1:
            lot = street.moved(x + 16, side * depth / 2)
            if canvas.claim(lot.points(rectangle(32, depth - 14)), SOLID | PAVED | WATER, mark=PAVED):
                draw_parking(canvas, lot, 30, depth - 16, rng.uniform(0.3, 0.9))
            x += 34
        elif large and style < 0.75:
            size = rng.uniform(22, 44)
            kind = str(rng.choice(["flat", "hall"]))
            draw_building(
                canvas, street.moved(x + size / 2, side * depth / 2), size, 0.5 * depth, kind, rng.uniform(6, 15)
            )
            x += size + rng.uniform(3, 9)
        else:
            for offset in (13.0, depth - 13.0):
                draw_house(canvas, street.moved(x + 9, side * offset, np.pi / 2 * int(rng.integers(2))))
            x += rng.uniform(17, 24)
