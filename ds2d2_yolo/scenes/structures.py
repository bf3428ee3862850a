"""Storage tanks, piers and bridges, drawn from above."""

from __future__ import annotations

import itertools

import numpy as np

from ds2d2_yolo.scenes.canvas import SOLID, WATER, Canvas, Level
from ds2d2_yolo.scenes.craft import BLACK, LINE_WHITE, WHITE, draw_ship
from ds2d2_yolo.scenes.geometry import Pose, across, along, dashes, ellipse, rectangle
from ds2d2_yolo.scenes.texture import Colour, palette, pick, shaded

_TANK_PAINT = palette("f0efe9 e9e8e2 dedcd4 cfccc2 b8b6ae a9aca8 c9b79a 8d9a90 9fb0b4")
_TANK_RUST = palette("8a5a3e 7a4c38")


def draw_storage_tank(canvas: Canvas, x: float, y: float, diameter: float, kind: str, paint: Colour) -> None:
    """Draw and label a storage tank if there is room.

    Args:
        canvas (Canvas): The scene.
        x (float): Metres.
        y (float): Metres.
        diameter (float): Metres.
        kind (str): `cone` (fixed roof), `floating` (roof sunk into the shell) or `dome`.
        paint (Colour): Colour of the roof.
    """
    rng = canvas.rng
    height = min(18.0, diameter * rng.uniform(0.4, 0.75))
    base = ellipse(diameter, diameter, x, y, count=40)
    shift = canvas.lean * height
    middle = canvas.upright(x + shift[0] / 2, y + shift[1] / 2)
    if not canvas.resolves(middle, diameter, diameter):
        return
    walls = canvas.walls(base, height)
    if not canvas.claim(walls):
        return
    extent = np.ptp(canvas.to_image(walls), axis=0) * canvas.resolution
    canvas.label("storagetank", middle, float(extent[0]), float(extent[1]))
    rust = rng.random() < 0.25
    stairs = rng.uniform(0, 2 * np.pi)
    depth = rng.uniform(0.1, 0.6) * height

    def paint_tank() -> None:
        canvas.polygon(walls, shaded(paint, 0.62))
        top = Pose(x + shift[0], y + shift[1])
        canvas.polygon(top.points(ellipse(diameter, diameter, count=40)), shaded(paint, 0.92))
        if kind == "floating":
            _paint_floating_roof(canvas, top, diameter, depth, paint)
        else:
            _paint_fixed_roof(canvas, top, diameter, paint, kind == "dome", rust)
        spiral = top.points(ellipse(1.01 * diameter, 1.01 * diameter, start=stairs, end=stairs + 1.2, count=12))
        canvas.line(spiral, shaded(paint, 0.5), 0.5, 0.8)

    canvas.add(Level.HIGH, paint_tank, [canvas.extruded(base, height)])


def _paint_fixed_roof(canvas: Canvas, top: Pose, diameter: float, paint: Colour, dome: bool, rust: bool) -> None:
    away = np.arctan2(canvas.sun[1], canvas.sun[0])
    steps = 0 if dome else 6 if diameter * canvas.scale > 40 else 3
    for step in range(steps):
        # A cone is painted in sectors: the sector away from the sun is the darkest.
        turn = np.pi / steps
        shade = 0.8 + 0.24 * (1 - np.cos((step + 0.5) * turn)) / 2
        for start in (away + step * turn, away - (step + 1) * turn):
            rim = ellipse(0.94 * diameter, 0.94 * diameter, start=start, end=start + turn, count=7)
            canvas.polygon(top.points(np.concatenate([[(0.0, 0.0)], rim])), shaded(paint, shade))
    if dome:
        for share in np.linspace(0.94, 0.1, 6):
            place = -canvas.sun / np.linalg.norm(canvas.sun) * diameter * 0.22 * (1 - share)
            canvas.circle(top.moved(*place), share * diameter / 2, shaded(paint, 1.12 - 0.26 * share))
    if rust:
        canvas.circle(top.moved(0.15 * diameter, -0.1 * diameter), 0.2 * diameter, _TANK_RUST[0], 0.25)
    canvas.circle(top, max(0.5, 0.035 * diameter), shaded(paint, 0.6))
    canvas.circle(top.moved(0.36 * diameter, 0.0), max(0.4, 0.025 * diameter), shaded(paint, 0.55))


def _paint_floating_roof(canvas: Canvas, top: Pose, diameter: float, depth: float, paint: Colour) -> None:
    inner = 0.93 * diameter
    floor = canvas.lean * -depth
    canvas.circle(top, inner / 2, shaded(paint, 0.5))
    canvas.circle(top.moved(*(0.5 * floor)), 0.48 * inner, shaded(paint, 0.88))
    reach = canvas.sun * depth
    length = float(np.hypot(*reach))
    if length < 0.9 * inner:
        # The wall shades the floor between its outline and the same outline moved along the shadow.
        angle = np.arctan2(reach[1], reach[0])
        rim = ellipse(inner, inner, start=angle + np.pi / 2, end=angle + 1.5 * np.pi, count=20)
        moved = ellipse(inner - 0.02, inner, start=angle + np.pi / 2, end=angle + 1.5 * np.pi, count=20) + reach
        inside = np.hypot(moved[:, 0], moved[:, 1]) <= inner / 2
        moved[~inside] *= (inner / 2 / np.hypot(moved[~inside, 0], moved[~inside, 1]))[:, None]
        canvas.polygon(top.points(np.concatenate([rim, moved[::-1]])), BLACK, 0.5)
    canvas.line(top.points(ellipse(inner * 0.8, inner * 0.8)), shaded(paint, 0.7), 0.4, 0.7, closed=True)
    canvas.line(top.points([(0.0, 0.0), (0.46 * inner, 0.0)]), shaded(paint, 0.5), 0.8)


def tank_paint(rng: np.random.Generator) -> Colour:
    """Choose the colour of the tanks of one tank farm."""
    return pick(rng, _TANK_PAINT, 8)


_PIER_PAINT = palette("b9b4a8 a8a49a c6c2b6 9a968c 8f7c64 a08c70")


def draw_marina_pier(canvas: Canvas, pose: Pose, length: float, boat: float) -> None:
    """Draw and label a pier: a walkway and fingers with boats between them.

    Args:
        canvas (Canvas): The scene.
        pose (Pose): Start of the walkway at the shore, and its direction.
        length (float): Length of the walkway, metres.
        boat (float): Typical length of a boat, metres.
    """
    rng = canvas.rng
    walk, finger, slot = rng.uniform(2.2, 3.4), 0.85 * boat, boat / 2.9 + 0.8
    pitch = 2 * slot + 0.9
    count = int((length - 2.0) // pitch)
    width = walk + 2 * finger
    middle = pose.moved(length / 2, 0.0)
    outline = middle.points(rectangle(length, width))
    if count < 2 or not canvas.resolves(middle, length, width):
        return
    canvas.label("harbor", middle, length, width)
    wood = pick(rng, _PIER_PAINT, 8)
    places = [1.5 + pitch * (index + 1) for index in range(count)]
    canvas.polygon(middle.points(rectangle(length, walk)) + canvas.sun * 0.8, BLACK, 0.4)
    for side in (-1, 1):
        fingers = pose.points(across(places, 0.0, side * width / 2))
        canvas.lines(fingers + canvas.sun * 0.7, BLACK, 1.0, 0.35)
        canvas.lines(fingers, wood, 1.0)
    canvas.polygon(middle.points(rectangle(length, walk)), wood)
    planks = across(np.arange(1.0, length, 2.0), -walk / 2, walk / 2)
    canvas.lines(pose.points(planks), shaded(wood, 0.82), 0.25, 0.6)
    canvas.polygon(pose.points(rectangle(2.4, width * 0.55, length - 1.2)), wood)
    fill = rng.uniform(0.45, 0.95)
    for x in places:
        for side in (-1, 1):
            for offset in (-slot / 2 - 0.25, -1.5 * slot - 0.5):
                if rng.random() < fill:
                    size = boat * rng.uniform(0.72, 1.02)
                    out = bool(rng.random() < 0.75)
                    berth = pose.moved(
                        x + offset, side * (walk / 2 + 0.6 + size / 2), side * np.pi / 2 + (0.0 if out else np.pi)
                    )
                    draw_ship(canvas, berth, str(rng.choice(["motorboat", "sailboat"])), size)
    canvas.occupy(outline, SOLID)


def draw_jetty(canvas: Canvas, pose: Pose, length: float, width: float) -> bool:
    """Draw and label a solid jetty of concrete that runs forward from the shore. Return whether there was room."""
    rng = canvas.rng
    middle = pose.moved(length / 2, 0.0)
    outline = middle.points(rectangle(length, width))
    over_water = middle.points(rectangle(0.9 * length, width + 1.0, 0.05 * length))
    if not canvas.resolves(middle, length, width) or not canvas.claim(over_water, inside=WATER):
        return False
    canvas.label("harbor", middle, length, width)
    concrete = pick(rng, _PIER_PAINT[:4], 9)
    canvas.polygon(canvas.extruded(outline, 2.5), BLACK, 0.45)
    canvas.polygon(outline, shaded(concrete, 0.75))
    canvas.polygon(middle.points(rectangle(length - 1.2, width - 1.8)), concrete)
    joints = across(np.arange(6.0, length, 8.0), -width / 2, width / 2)
    canvas.lines(pose.points(joints), shaded(concrete, 0.8), 0.25, 0.7)
    for side in (-1, 1):
        bollards = dashes(np.arange(4.0, length, 9.0), 0.7, side * 0.45 * width)
        canvas.lines(pose.points(bollards), BLACK, 0.7, 0.7)
    if width > 9.0:
        rails = along((-0.3 * width, -0.16 * width), 2.0, length - 4.0)
        canvas.lines(pose.points(rails), shaded(concrete, 0.6), 0.3, 0.7)
    return True


def draw_bridge(canvas: Canvas, pose: Pose, span: float, width: float, kind: str) -> None:
    """Draw and label a bridge over water. The caller draws its traffic before the bridge is occupied.

    Args:
        canvas (Canvas): The scene.
        pose (Pose): Centre of the span, heading along the deck.
        span (float): Length from bank to bank, metres.
        width (float): Width of the deck, metres.
        kind (str): `beam`, `arch`, `truss` or `cable`.
    """
    rng = canvas.rng
    if not canvas.resolves(pose, span, width):
        return
    canvas.label("bridge", pose, span, width)
    deck = pose.points(rectangle(span, width))
    asphalt = pick(rng, palette("7c7c7a 8a8984 9a978f 6c6d6e b0aca2"), 6)
    height = rng.uniform(4.0, 10.0)
    piers = [
        pose.points(rectangle(2.2, width + 1.6, x)) for x in np.linspace(-span / 2, span / 2, int(span // 24) + 2)[1:-1]
    ]

    def paint_bridge() -> None:
        for pier in piers:
            canvas.polygon(pier, palette("8c8a84")[0])
        canvas.polygon(deck, asphalt)
        _paint_deck_lines(canvas, pose, span, width, asphalt)
        _paint_superstructure(canvas, pose, span, width, kind)

    canvas.add(Level.DECK, paint_bridge, [deck + canvas.sun * height])


def _paint_deck_lines(canvas: Canvas, pose: Pose, span: float, width: float, asphalt: Colour) -> None:
    for side in (-1, 1):
        rail = pose.points([(-span / 2, side * (width / 2 - 0.4)), (span / 2, side * (width / 2 - 0.4))])
        canvas.line(rail, shaded(asphalt, 1.38), 0.8)
        edge = pose.points([(-span / 2, side * (width / 2 - 2.0)), (span / 2, side * (width / 2 - 2.0))])
        canvas.line(edge, LINE_WHITE, 0.2, 0.6)
    canvas.lines(pose.points(dashes(np.arange(-span / 2, span / 2 - 3.0, 7.0), 3.0)), LINE_WHITE, 0.22, 0.85)
    joints = across(np.linspace(-span / 2, span / 2, int(span // 24) + 2), -width / 2, width / 2)
    canvas.lines(pose.points(joints), shaded(asphalt, 0.6), 0.4, 0.7)


def _paint_superstructure(canvas: Canvas, pose: Pose, span: float, width: float, kind: str) -> None:
    steel = palette("c4c2ba 6f8a7c 8f4a3c 9aa0a2")[int(span * 10) % 4]
    if kind == "truss":
        count = max(3, int(span // 9))
        places = np.linspace(-span / 2, span / 2, count + 1)
        side = width / 2 - 0.5
        braces = [pose.points([(a, -side), (b, side)]) for a, b in itertools.pairwise(places)]
        braces += [pose.points([(a, side), (b, -side)]) for a, b in itertools.pairwise(places)]
        canvas.lines(np.array(braces) + canvas.sun * 1.5, BLACK, 0.5, 0.3)
        canvas.lines(np.array(braces), steel, 0.5)
    elif kind == "arch":
        for side in (-1, 1):
            y = side * (width / 2 - 0.3)
            bow = [(x, y) for x in np.linspace(-0.4 * span, 0.4 * span, 12)]
            lift = np.sin(np.linspace(0, np.pi, 12))[:, None] * 0.14 * span
            canvas.line(pose.points(bow) + canvas.sun * lift, BLACK, 0.9, 0.35)
            canvas.line(canvas.raised(pose.points(bow), lift), steel, 1.1)
    elif kind == "cable":
        for tower in (-0.24 * span, 0.24 * span):
            foot = pose.points([(tower, -width / 2 - 0.5), (tower, width / 2 + 0.5)])
            canvas.polygon(np.concatenate([foot, (foot + canvas.sun * 0.3 * span)[::-1]]), BLACK, 0.22)
            for y in (-width / 2 + 0.4, width / 2 - 0.4):
                stays = [pose.points([(tower, y), (tower + x * span, y)]) for x in (-0.22, 0.22)]
                canvas.lines(np.array(stays), steel, 0.5)
            canvas.line(foot, shaded(WHITE, 0.88), 1.6)
