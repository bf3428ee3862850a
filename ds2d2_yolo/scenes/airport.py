"""Scenes of airports: runways, aprons with airplanes, terminals and hangars."""

from __future__ import annotations

import numpy as np

from ds2d2_yolo.scenes.buildings import draw_building
from ds2d2_yolo.scenes.canvas import PAVED, Canvas
from ds2d2_yolo.scenes.clutter import draw_helipad, draw_jet_bridge, draw_roof_cross, scatter_trees
from ds2d2_yolo.scenes.craft import BLACK, LINE_WHITE, LINE_YELLOW, draw_airplane, draw_vehicle
from ds2d2_yolo.scenes.geometry import Pose, across, along, dashes, rectangle
from ds2d2_yolo.scenes.roads import ASPHALT, CONCRETE, draw_parking, draw_road, drive_along
from ds2d2_yolo.scenes.terrain import Climate, chance, flood_grass
from ds2d2_yolo.scenes.texture import Colour, pick, shaded


def draw_airport(canvas: Canvas, climate: Climate) -> None:
    """Draw an airport in strips: runway, taxiway, apron with airplanes, terminal or hangars, road and car park."""
    rng = canvas.rng
    flood_grass(canvas, climate, 0.2)
    light = canvas.resolution < 0.62 and chance(canvas, 0.75)
    span = rng.uniform(10, 14) if light else rng.uniform(28, 40)
    span = max(span, 13.0 * canvas.resolution)
    depth = float(span * rng.uniform(2.2, 3.6))
    top = rng.uniform(-0.75, -0.1) * canvas.radius
    _pave_apron(canvas, top, depth)
    _draw_runways(canvas, top + depth, 1.0 if not light else 0.5)
    if light:
        _draw_light_stands(canvas, top, depth, span)
    elif chance(canvas, 0.75):
        _draw_gates(canvas, top, depth, span)
    else:
        _draw_remote_stands(canvas, top, depth, span)
    _draw_airport_landside(canvas, top, light)
    canvas.weather(0.05)


def _pave_apron(canvas: Canvas, top: float, depth: float) -> None:
    rng = canvas.rng
    reach = 1.3 * canvas.radius
    outline = np.array([(-reach, top), (reach, top), (reach, top + depth), (-reach, top + depth)])
    base = pick(rng, CONCRETE, 8)
    canvas.textured_polygon(
        outline, canvas.texture([shaded(base, 0.82), base, shaded(base, 1.1)], canvas.mixture(0.3, 0.5, 0.3))
    )
    slab = rng.uniform(7, 12)
    joints = across(np.arange(-reach, reach, slab), top, top + depth)
    joints = np.concatenate([joints, along(np.arange(top, top + depth, slab), -reach, reach)])
    canvas.lines(joints, shaded(base, 0.78), 0.25, 0.55)
    # Seen from above, an apron has repaired slabs and stains of oil.
    for _ in range(40):
        x, y = rng.uniform(-reach, reach), rng.uniform(top, top + depth)
        if chance(canvas, 0.5):
            canvas.polygon(
                Pose(x, y).points(rectangle(slab, slab * rng.integers(1, 4))), shaded(base, rng.uniform(0.85, 1.1)), 0.6
            )
        else:
            canvas.circle(Pose(x, y), rng.uniform(0.8, 3.0), BLACK, 0.14)
    canvas.occupy(outline, PAVED)


def _draw_runways(canvas: Canvas, edge: float, scale: float) -> None:
    rng = canvas.rng
    reach = 1.3 * canvas.radius
    grey = pick(rng, ASPHALT, 6)
    taxi = edge + rng.uniform(18, 34) * scale
    width = 20.0 * scale
    links = [x for x in np.arange(-canvas.radius, canvas.radius, 150 * scale + 40) if chance(canvas, 0.7)]
    runway = taxi + rng.uniform(55, 90) * scale
    for x in links:
        slant = rng.choice([0.0, 40.0 * scale])
        canvas.line(np.array([(x, edge - 2), (x, taxi), (x + slant, runway)]), grey, width)
        canvas.line(np.array([(x, edge - 30 * scale), (x, taxi), (x + slant, runway)]), LINE_YELLOW, 0.5, 0.8)
        canvas.occupy(Pose(x, (edge + runway) / 2, np.pi / 2).points(rectangle(runway - edge, width + slant)), PAVED)
    canvas.line(np.array([(-reach, taxi), (reach, taxi)]), grey, width)
    canvas.line(np.array([(-reach, taxi), (reach, taxi)]), LINE_YELLOW, 0.5, 0.9)
    canvas.occupy(Pose(0.0, taxi).points(rectangle(2 * reach, width)), PAVED)
    _draw_runway(canvas, runway + 22 * scale, 45.0 * scale, shaded(grey, rng.uniform(0.75, 1.1)))
    if chance(canvas, 0.3):
        draw_roof_cross(canvas, Pose(rng.uniform(-0.5, 0.5) * canvas.radius, (taxi + runway) / 2), 18 * scale)
    if chance(canvas, 0.25):
        draw_helipad(canvas, Pose(rng.uniform(-0.5, 0.5) * canvas.radius, taxi + 26 * scale), 10.0)
    if canvas.rng.random() < 0.35:
        kind, span = ("light", 12.0) if scale < 1 else ("airliner", 34.0)
        x = rng.uniform(-0.6, 0.6) * canvas.radius
        draw_airplane(canvas, Pose(x, taxi, np.pi * int(rng.integers(2))), kind, max(span, 13 * canvas.resolution))


def _draw_runway(canvas: Canvas, y: float, width: float, grey: Colour) -> None:
    rng = canvas.rng
    reach = 1.3 * canvas.radius
    end = rng.uniform(-1.2, 0.6) * canvas.radius
    strip = Pose((end + reach) / 2, y)
    canvas.polygon(strip.points(rectangle(reach - end + 20, width + 8)), shaded(grey, 1.12))
    canvas.polygon(strip.points(rectangle(reach - end, width)), grey)
    canvas.occupy(strip.points(rectangle(reach - end, width)), PAVED)
    for side in (-1, 1):
        canvas.line(
            np.array([(end, y + side * (width / 2 - 1)), (reach, y + side * (width / 2 - 1))]), LINE_WHITE, 0.9, 0.9
        )
    canvas.lines(dashes(np.arange(end + 60, reach, 50), 30.0, y), LINE_WHITE, 0.9, 0.9)
    bars = y + width * np.array([-0.4, -0.3, -0.2, -0.1, 0.1, 0.2, 0.3, 0.4])
    canvas.lines(along(bars, end + 6, end + 36), LINE_WHITE, 0.045 * width, 0.9)
    for side in (-1, 1):
        canvas.polygon(Pose(end + 190, y + side * 0.22 * width).points(rectangle(45, 0.12 * width)), LINE_WHITE, 0.85)
    for _ in range(12):
        skid = rng.uniform(end + 80, end + 320), y + rng.normal(0, 0.09 * width)
        canvas.line(np.array([skid, (skid[0] + rng.uniform(20, 80), skid[1])]), BLACK, 1.2, 0.22)


def _draw_gates(canvas: Canvas, top: float, depth: float, span: float) -> None:
    """Draw airliners with their noses at a terminal, with jet bridges, and others in a second row."""
    rng = canvas.rng
    wall = top + 2.0
    x = -canvas.radius + rng.uniform(0, span)
    while x < canvas.radius:
        size = span * float(rng.choice([0.9, 1.0, 1.0, 1.35]))
        kind = "jumbo" if size > 1.2 * span else "airliner"
        length = 1.07 * size
        middle = x + size / 2
        nose = wall + 8.0
        _draw_lead_in(canvas, middle, nose, top + depth)
        if chance(canvas, 0.78):
            heading = -np.pi / 2 + rng.normal(0, 0.02)
            draw_jet_bridge(
                canvas,
                np.array([middle - 0.3 * size, wall - 3]),
                np.array([middle - 0.06 * size, nose + 0.16 * length]),
            )
            draw_airplane(canvas, Pose(middle, nose + length / 2, heading), kind, size)
            _serve(canvas, Pose(middle, nose + length / 2, heading), length)
        x += size * rng.uniform(1.12, 1.3)
    if depth > 2.6 * span:
        _draw_row(canvas, top + depth - 0.75 * span, span, "airliner", 0.5)
    terminal = max(26.0, 0.8 * span)
    for start in np.arange(-1.2 * canvas.radius, 1.2 * canvas.radius, 121.0):
        draw_building(
            canvas,
            Pose(start + 60, top - terminal / 2 - 2),
            120.0,
            terminal,
            str(rng.choice(["flat", "hall"])),
            rng.uniform(10, 16),
        )


def _draw_lead_in(canvas: Canvas, x: float, y: float, end: float) -> None:
    canvas.line(np.array([(x, y), (x, end)]), LINE_YELLOW, 0.45, 0.85)
    canvas.line(np.array([(x - 3, y), (x + 3, y)]), LINE_YELLOW, 0.45, 0.85)


def _serve(canvas: Canvas, airplane: Pose, length: float) -> None:
    """Draw fuel trucks, tugs and dollies around a parked airplane."""
    rng = canvas.rng
    for forward, right in ((0.28, 0.14), (-0.12, 0.2), (0.1, -0.2), (-0.3, 0.16)):
        if chance(canvas, 0.5):
            place = airplane.moved(
                forward * length, right * length * 1.6, np.pi / 2 * int(rng.integers(4)) + rng.normal(0, 0.1)
            )
            draw_vehicle(canvas, place, str(rng.choice(["van", "truck", "pickup"], p=[0.4, 0.4, 0.2])))


def _draw_row(canvas: Canvas, y: float, span: float, kind: str, fill: float, slant: float = 0.0) -> None:
    rng = canvas.rng
    heading = float(rng.choice([-1, 1])) * np.pi / 2 + slant
    for x in np.arange(-canvas.radius + rng.uniform(0, span), canvas.radius, 1.22 * span):
        canvas.line(np.array([(x, y - 0.7 * span), (x, y + 0.7 * span)]), LINE_YELLOW, 0.4, 0.7)
        if rng.random() < fill:
            draw_airplane(
                canvas,
                Pose(x, y + rng.normal(0, 0.5), heading + rng.normal(0, 0.03)),
                kind,
                span * rng.uniform(0.93, 1.05),
            )


def _draw_remote_stands(canvas: Canvas, top: float, depth: float, span: float) -> None:
    rng = canvas.rng
    kind = str(rng.choice(["airliner", "jumbo", "turboprop", "fighter"], p=[0.4, 0.2, 0.2, 0.2]))
    if kind == "fighter":
        span = max(11.0, 10 * canvas.resolution)
    slant = float(rng.choice([0.0, 0.5, -0.5]))
    pitch = 1.7 * span if kind != "fighter" else 2.2 * span
    for y in np.arange(top + 0.85 * span, top + depth - 0.5 * span, pitch):
        _draw_row(canvas, float(y), span, kind, rng.uniform(0.5, 0.95), slant)
    _draw_hangars(canvas, top, span)


def _draw_light_stands(canvas: Canvas, top: float, depth: float, span: float) -> None:
    rng = canvas.rng
    for y in np.arange(top + 0.9 * span, top + depth - 0.5 * span, rng.uniform(1.5, 2.1) * span):
        kind = str(rng.choice(["light", "light", "turboprop"]))
        _draw_row(
            canvas,
            float(y),
            span if kind == "light" else 1.25 * span,
            kind,
            rng.uniform(0.5, 0.9),
            float(rng.choice([0.0, 0.35])),
        )
    _draw_hangars(canvas, top, span)


def _draw_hangars(canvas: Canvas, top: float, span: float) -> None:
    rng = canvas.rng
    x = -canvas.radius
    while x < canvas.radius:
        length = span * rng.uniform(1.3, 3.0)
        if chance(canvas, 0.8):
            width = max(14.0, 1.25 * span)
            draw_building(canvas, Pose(x + length / 2, top - width / 2 - 3), length, width, "hall", rng.uniform(7, 14))
        x += length + rng.uniform(4, 14)


def _draw_airport_landside(canvas: Canvas, top: float, light: bool) -> None:
    rng = canvas.rng
    road = top - (52.0 if not light else 34.0)
    line = np.array([(-1.2 * canvas.radius, road), (1.2 * canvas.radius, road)])
    draw_road(canvas, line, 9.0, pick(rng, ASPHALT, 6))
    drive_along(canvas, line[0], line[1], 9.0, 30.0)
    x = -canvas.radius
    while x < canvas.radius:
        length = rng.uniform(50, 90)
        pose = Pose(x + length / 2, road - 36)
        if canvas.resolution < 0.46 and chance(canvas, 0.7):
            draw_parking(canvas, pose, length, 50, rng.uniform(0.4, 0.95))
        elif chance(canvas, 0.7):
            kind = str(rng.choice(["flat", "hall"]))
            draw_building(canvas, pose, rng.uniform(0.5, 0.9) * length, 28, kind, rng.uniform(6, 16))
        x += length + 8
    scatter_trees(canvas, 25, 3.2)
