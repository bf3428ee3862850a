"""Vehicles, airplanes and ships, drawn from above in their own coordinates (metres, x forward, y to the right)."""

from __future__ import annotations

import itertools

import numpy as np

from ds2d2_yolo.scenes.canvas import WATER, Canvas, Level
from ds2d2_yolo.scenes.geometry import Array, Pose, across, dashes, ellipse, mirrored, rectangle, rounded
from ds2d2_yolo.scenes.terrain import chance
from ds2d2_yolo.scenes.texture import Colour, palette, pick, shaded

WHITE, BLACK = palette("f2f1ec 161616")
GLASS = palette("2b3238 343c44 20262b")
LINE_WHITE, LINE_YELLOW = palette("e4e2d8 c9a83c")
CAR_PAINT = palette(
    "eeeeea eeeeea e6e6e2 dcdcd8 c4c6c8 c4c6c8 b4b7ba b4b7ba 9a9da0 85888b 6c6f73 5c5f63 3c3e41 242628 242628 202226 "
    "34415c 2f4468 3d5a80 7e3431 94403a 5a2a26 4c5a44 b8a98a 7a6a54 a89c5c"
)
TRUCK_PAINT = palette("e8e8e4 e8e8e4 d9d9d4 97443c 4a6388 6b6f72 b8a45c 55755c")
HULLS = palette("2c3138 3d2a28 6d2e2a 24364f 585c60 2f4a3e 8a3b30")
DECKS = palette("8a4a3c 7d5346 5f7565 6c7a80 94928a a5674f 4f6873 b3a98f")
CONTAINERS = palette("a4492f 8c3a2c 2f5d8f 3c7a9c 4c7f5c c08a3a b9b9b4 d8d6cf 6c7074 7a2f3c 2b4a6b c7673a")
BOAT_HULLS = palette("f4f3ef f4f3ef ecebe6 dcdcd8 c7cdd2 2d405e 7c2f2c e6dcc4")


def draw_vehicle(canvas: Canvas, pose: Pose, kind: str | None = None) -> None:
    """Draw and label a motor vehicle if there is room.

    Args:
        canvas (Canvas): The scene.
        pose (Pose): Centre of the vehicle and its direction.
        kind (str | None): `car`, `van`, `pickup`, `truck` or `bus`; drawn at random if None.
    """
    rng = canvas.rng
    kind = kind or str(rng.choice(["car", "van", "pickup", "truck", "bus"], p=[0.64, 0.13, 0.09, 0.1, 0.04]))
    low, high, broad, tall = {
        "car": (3.9, 4.9, 1.9, 1.5),
        "van": (4.9, 6.2, 2.1, 2.3),
        "pickup": (5.2, 5.9, 2.05, 1.8),
        "truck": (8.0, 16.5, 2.6, 3.8),
        "bus": (10.5, 14.0, 2.6, 3.2),
    }[kind]
    length, width = rng.uniform(low, high), broad * rng.uniform(0.95, 1.07)
    outline = pose.points(rectangle(length, width))
    if not canvas.resolves(pose, length, width) or not canvas.claim(outline):
        return
    canvas.label("vehicle", pose, length, width)
    painter = {"car": _paint_car, "van": _paint_van, "pickup": _paint_pickup, "truck": _paint_truck, "bus": _paint_bus}
    colour = pick(rng, TRUCK_PAINT if kind in ("truck", "bus") else CAR_PAINT, 8)
    canvas.add(Level.LOW, lambda: painter[kind](canvas, pose, length, width, colour), [canvas.extruded(outline, tall)])


def _paint_car(canvas: Canvas, pose: Pose, length: float, width: float, colour: Colour) -> None:
    glass = GLASS[int(length * 100) % len(GLASS)]
    canvas.polygon(pose.points(rounded(length, width, 0.18 * width)), colour)
    canvas.polygon(pose.points(rounded(0.56 * length, 0.84 * width, 0.2 * width, -0.05 * length)), glass)
    canvas.polygon(pose.points(rectangle(0.3 * length, 0.72 * width, -0.07 * length)), shaded(colour, 1.07))


def _paint_van(canvas: Canvas, pose: Pose, length: float, width: float, colour: Colour) -> None:
    canvas.polygon(pose.points(rounded(length, width, 0.12 * width)), colour)
    canvas.polygon(pose.points(rectangle(0.12 * length, 0.82 * width, 0.27 * length)), GLASS[0])
    canvas.polygon(pose.points(rectangle(0.6 * length, 0.78 * width, -0.12 * length)), shaded(colour, 1.06))


def _paint_pickup(canvas: Canvas, pose: Pose, length: float, width: float, colour: Colour) -> None:
    canvas.polygon(pose.points(rounded(length, width, 0.15 * width)), colour)
    canvas.polygon(pose.points(rectangle(0.36 * length, 0.84 * width, 0.06 * length)), GLASS[1])
    canvas.polygon(pose.points(rectangle(0.2 * length, 0.74 * width, 0.04 * length)), shaded(colour, 1.05))
    canvas.polygon(pose.points(rectangle(0.32 * length, 0.76 * width, -0.3 * length)), shaded(colour, 0.5))


def _paint_truck(canvas: Canvas, pose: Pose, length: float, width: float, colour: Colour) -> None:
    cab, cargo = 2.3, length - 2.9
    box = CONTAINERS[int(length * 100) % len(CONTAINERS)] if length > 12 else shaded(WHITE, 0.94)
    canvas.polygon(pose.points(rectangle(length - 0.6, 0.5 * width)), BLACK)
    canvas.polygon(pose.points(rounded(cab, 0.94 * width, 0.3, (length - cab) / 2)), colour)
    canvas.polygon(pose.points(rectangle(0.45, 0.8 * width, length / 2 - 0.45)), GLASS[0])
    canvas.polygon(pose.points(rectangle(cargo, width, (cargo - length) / 2)), box)
    ribs = np.arange((cargo - length) / 2 - cargo / 2 + 1.0, (cargo - length) / 2 + cargo / 2, 1.6)
    canvas.lines(pose.points(across(ribs, -width / 2, width / 2)), shaded(box, 0.8), 0.2, 0.6)


def _paint_bus(canvas: Canvas, pose: Pose, length: float, width: float, colour: Colour) -> None:
    canvas.polygon(pose.points(rounded(length, width, 0.35)), colour)
    canvas.polygon(pose.points(rectangle(0.5, 0.86 * width, length / 2 - 0.5)), GLASS[0])
    for place in (-0.28, 0.14):
        canvas.polygon(pose.points(rectangle(0.16 * length, 0.56 * width, place * length)), shaded(colour, 0.72))


_FUSELAGE = mirrored(
    [
        (0.5, 0.0),
        (0.488, 0.018),
        (0.455, 0.036),
        (0.40, 0.046),
        (-0.18, 0.047),
        (-0.34, 0.032),
        (-0.44, 0.016),
        (-0.5, 0.006),
    ]
)
_SWEPT_WING = np.array([(0.135, 0.03), (-0.1, 1.0), (-0.145, 1.0), (-0.075, 0.37), (-0.095, 0.03)])
_STRAIGHT_WING = np.array([(0.10, 0.03), (0.065, 1.0), (0.0, 1.0), (-0.05, 0.03)])
_DELTA_WING = np.array([(0.22, 0.05), (0.08, 0.16), (-0.24, 0.94), (-0.33, 1.0), (-0.36, 0.3), (-0.38, 0.05)])
_TAILPLANE = np.array([(-0.355, 0.02), (-0.445, 0.185), (-0.49, 0.185), (-0.462, 0.015)])
_PLANE_PAINT = palette("f4f4f2 f4f4f2 ecedee e2e4e6 d4d7da")
_MILITARY_PAINT = palette("8d9496 767d80 9ca19c 6f746c")
_LIVERIES = palette("23457f b0312c 1f6f63 d08a2c 5a3a80 2c2f36 3f8fbf 2b6b3a")


def draw_airplane(canvas: Canvas, pose: Pose, kind: str, span: float) -> None:
    """Draw and label an airplane if there is room.

    Args:
        canvas (Canvas): The scene.
        pose (Pose): Centre of the airplane and the direction of its nose.
        kind (str): `airliner` (two engines), `jumbo` (four), `turboprop`, `light` (one propeller) or `fighter`.
        span (float): From wing tip to wing tip, metres.
    """
    rng = canvas.rng
    length = span * {"airliner": 1.06, "jumbo": 1.08, "turboprop": 0.92, "light": 0.74, "fighter": 1.5}[kind]
    outline = pose.points(rectangle(length, span))
    if not canvas.resolves(pose, length, span) or not canvas.claim(outline):
        return
    canvas.label("airplane", pose, length, span)
    wing = {"turboprop": _STRAIGHT_WING, "light": _STRAIGHT_WING, "fighter": _DELTA_WING}.get(kind, _SWEPT_WING)
    half = wing * (length, span / 2)
    wings = [pose.points(half), pose.points(half * (1, -1))]
    tail = _TAILPLANE * (length, max(length, 0.9 * span))
    tails = [pose.points(tail), pose.points(tail * (1, -1))]
    thickness = 1.25 if kind in ("light", "turboprop") else 1.6 if kind == "fighter" else 1.0
    fuselage = pose.points(_FUSELAGE * (length, length * thickness))
    paint = pick(rng, _MILITARY_PAINT if kind == "fighter" or rng.random() < 0.08 else _PLANE_PAINT, 7)
    livery = pick(rng, _LIVERIES, 14) if kind != "fighter" and rng.random() < 0.75 else shaded(paint, 0.78)
    engines = _engine_places(kind, length, span)

    def paint_airplane() -> None:
        for outline in tails + wings:
            canvas.polygon(outline, shaded(paint, 0.9))
        _paint_wing_details(canvas, pose, half, paint, livery)
        for forward, right in engines:
            _paint_engine(canvas, pose.moved(forward, right), kind, length, paint)
        _paint_fuselage(canvas, pose, fuselage, length, thickness, paint, livery)

    height = 0.09 * length + 0.6
    canvas.add(Level.LOW, paint_airplane, [part + canvas.sun * height for part in (*wings, *tails, fuselage)])


def _engine_places(kind: str, length: float, span: float) -> list[tuple[float, float]]:
    right_side = {
        "airliner": [(0.075, 0.165)],
        "jumbo": [(0.08, 0.15), (0.01, 0.29)],
        "turboprop": [(0.13, 0.16)],
        "light": [],
        "fighter": [],
    }[kind]
    return [(x * length, side * y * span) for x, y in right_side for side in (1, -1)]


def _paint_engine(canvas: Canvas, pose: Pose, kind: str, length: float, paint: Colour) -> None:
    if kind == "turboprop":
        canvas.polygon(pose.points(ellipse(0.17 * length, 0.05 * length)), shaded(paint, 0.75))
        canvas.line(pose.points([(0.09 * length, -0.07 * length), (0.09 * length, 0.07 * length)]), BLACK, 0.3, 0.6)
        return
    canvas.polygon(pose.points(ellipse(0.1 * length, 0.046 * length)), shaded(paint, 0.72))
    canvas.polygon(pose.points(ellipse(0.03 * length, 0.04 * length, 0.04 * length)), shaded(paint, 0.4))


def _paint_wing_details(canvas: Canvas, pose: Pose, half: Array, paint: Colour, livery: Colour) -> None:
    for side in (1, -1):
        leading, trailing = half[0] * (1, side), half[-1] * (1, side)
        tip_leading, tip_trailing = half[1] * (1, side), half[2] * (1, side)
        canvas.line(pose.points([leading, tip_leading]), shaded(paint, 1.06), 0.3)
        flap = [0.8 * trailing + 0.2 * leading, 0.75 * tip_trailing + 0.25 * tip_leading]
        canvas.line(pose.points(flap), shaded(paint, 0.68), 0.3, 0.8)
        canvas.line(pose.points([tip_leading, tip_trailing]), livery, 0.5)


def _paint_fuselage(
    canvas: Canvas, pose: Pose, outline: Array, length: float, thickness: float, paint: Colour, livery: Colour
) -> None:
    canvas.polygon(outline, paint)
    girth = 0.047 * length * thickness
    # The side away from the sun is dark: so the outline looks like a tube.
    away = float(np.dot(canvas.sun, (-np.sin(pose.heading), np.cos(pose.heading)))) > 0
    side = girth * (0.62 if away else -0.62)
    canvas.line(pose.points([(0.42 * length, side), (-0.3 * length, side)]), shaded(paint, 0.74), 0.6 * girth)
    canvas.polygon(pose.points(mirrored([(0.475, 0.0), (0.468, 0.02), (0.45, 0.026), (0.452, 0.0)]) * length), GLASS[0])
    fin = mirrored([(-0.3, 0.0), (-0.42, 0.012), (-0.5, 0.009)]) * length
    canvas.polygon(pose.points(fin), livery)


_SHIP_HULL = mirrored(
    [(0.5, 0.0), (0.475, 0.16), (0.43, 0.32), (0.37, 0.44), (0.30, 0.5), (-0.42, 0.5), (-0.47, 0.45), (-0.5, 0.34)]
)
_BOAT_HULL = mirrored([(0.5, 0.0), (0.42, 0.17), (0.28, 0.35), (0.1, 0.47), (-0.15, 0.5), (-0.46, 0.44), (-0.5, 0.38)])
_SLIMNESS = {"container": 6.2, "bulker": 5.6, "tanker": 5.4, "ferry": 4.7, "naval": 7.6}
_SLIMNESS |= {"fishing": 3.2, "motorboat": 2.8, "sailboat": 3.1, "barge": 5.0}


def ship_beam(kind: str, length: float) -> float:
    """Return the width of a ship of a kind and length, metres."""
    return length / _SLIMNESS[kind]


def draw_ship(canvas: Canvas, pose: Pose, kind: str, length: float, moving: bool = False) -> bool:
    """Draw and label a ship if the water is free. Return whether it was.

    Args:
        canvas (Canvas): The scene.
        pose (Pose): Centre of the hull and the direction of the bow.
        kind (str): `container`, `bulker`, `tanker`, `ferry`, `naval`, `fishing`, `motorboat`, `sailboat` or `barge`.
        length (float): Metres.
        moving (bool): Whether it has a wake.
    """
    rng = canvas.rng
    width = ship_beam(kind, length) * rng.uniform(0.9, 1.0)
    if not canvas.resolves(pose, length, width):
        return False
    shape = _BOAT_HULL if kind in ("fishing", "motorboat", "sailboat") else _SHIP_HULL
    outline = pose.points(shape * (length, width))
    if not canvas.claim(outline, inside=WATER):
        return False
    canvas.label("ship", pose, length, width)
    hull = pick(rng, BOAT_HULLS if shape is _BOAT_HULL else HULLS, 9)
    deck = pick(rng, DECKS, 9)
    seed = int(rng.integers(1 << 30))
    if moving:
        _draw_wake(canvas, pose, length, width)
    painter = {
        "container": _paint_container_ship,
        "bulker": _paint_bulker,
        "tanker": _paint_tanker,
        "ferry": _paint_ferry,
        "naval": _paint_naval,
        "fishing": _paint_fishing_boat,
        "motorboat": _paint_motorboat,
        "sailboat": _paint_sailboat,
        "barge": _paint_barge,
    }[kind]

    def paint_ship() -> None:
        canvas.polygon(outline, hull)
        painter(canvas, pose, length, width, shape, deck if shape is _SHIP_HULL else hull, np.random.default_rng(seed))

    canvas.add(Level.LOW, paint_ship, [canvas.extruded(outline, 0.03 * length + 0.6)])
    return True


def _draw_wake(canvas: Canvas, pose: Pose, length: float, width: float) -> None:
    """Draw the foam of a moving ship: a turbulent wake, two arms behind the bow, and the bow wave."""
    rng = canvas.rng
    reach, opening = length * rng.uniform(0.8, 3.0), rng.uniform(0.1, 0.26)
    bend = rng.normal(0.0, 0.05) / length
    steps = np.linspace(1.0, 0.0, 15)
    for far, near in itertools.pairwise(steps):
        for side in (-1, 1):
            ends = 0.4 * length - np.array([near, far]) * (length + 0.7 * reach)
            crest = side * (0.3 * width + (0.4 * length - ends) * opening) + bend * (0.4 * length - ends) ** 2
            broad = 0.06 * width + 0.12 + 0.05 * width * np.array([near, far])
            if rng.random() < 0.85:
                arm = [(ends[0], crest[0] - broad[0]), (ends[0], crest[0] + broad[0])]
                arm += [(ends[1], crest[1] + broad[1]), (ends[1], crest[1] - broad[1])]
                canvas.foam(pose.points(arm), 0.6 * (1 - far) ** 1.3 + 0.05)
        x = -0.4 * length - np.array([near, far]) * reach
        half = (0.36 + 0.3 * np.array([near, far])) * width
        middle = bend * (0.4 * length - x) ** 2
        trail = [(x[0], middle[0] - half[0]), (x[0], middle[0] + half[0])]
        trail += [(x[1], middle[1] + half[1]), (x[1], middle[1] - half[1])]
        canvas.foam(pose.points(trail), 0.85 * (1 - far) ** 1.6 + 0.04)
    bow = [(0.52, 0.0), (0.42, 0.5), (0.22, 0.85), (0.3, 0.4)]
    canvas.foam(pose.points(np.array(bow) * (length, width)), 0.8)
    canvas.foam(pose.points(np.array(bow) * (length, -width)), 0.8)


def _paint_deckhouse(canvas: Canvas, pose: Pose, length: float, width: float, colour: Colour = WHITE) -> None:
    """Draw a superstructure with its shadow on the deck, a darker top and a funnel."""
    outline = pose.points(rectangle(length, width))
    canvas.polygon(canvas.extruded(outline, 0.35 * width), BLACK, 0.4)
    canvas.polygon(outline, colour)
    canvas.polygon(pose.points(rectangle(0.5 * length, 0.6 * width, -0.15 * length)), shaded(colour, 0.86))


def _paint_container_ship(
    canvas: Canvas, pose: Pose, length: float, width: float, shape: Array, deck: Colour, rng: np.random.Generator
) -> None:
    canvas.polygon(pose.points(shape * (0.95 * length, 0.86 * width)), shaded(deck, 0.8))
    columns, bays = max(3, round(width / 2.6)), max(4, round(0.78 * length / 6.6))
    cell, lane = 0.76 * length / bays, 0.84 * width / columns
    house = round(bays * rng.uniform(0.12, 0.3))
    for bay in range(bays):
        x = -0.42 * length + (bay + 0.5) * cell
        if abs(bay - house) <= max(0, round(0.04 * bays)):
            continue
        taper = 1.0 if x < 0.26 * length else 0.66
        for column in range(columns):
            y = ((column + 0.5) / columns - 0.5) * 0.84 * width
            if abs(y) < 0.42 * width * taper and rng.random() < 0.9:
                canvas.polygon(pose.points(rectangle(0.9 * cell, 0.92 * lane, x, y)), pick(rng, CONTAINERS, 10))
    _paint_deckhouse(canvas, pose.moved(-0.42 * length + (house + 0.5) * cell, 0.0), cell * 1.1, 0.96 * width)


def _paint_bulker(
    canvas: Canvas, pose: Pose, length: float, width: float, shape: Array, deck: Colour, rng: np.random.Generator
) -> None:
    canvas.polygon(pose.points(shape * (0.96 * length, 0.88 * width)), deck)
    hatches = int(rng.integers(4, 8))
    cover = shaded(deck, float(rng.choice([0.72, 1.25])))
    for hatch in range(hatches):
        x = -0.26 * length + 0.66 * length * (hatch + 0.5) / hatches
        canvas.polygon(pose.points(rectangle(0.46 * length / hatches, 0.56 * width, x)), cover)
        canvas.line(pose.points([(x, -0.28 * width), (x, 0.28 * width)]), shaded(cover, 0.75), 0.5)
    _paint_deckhouse(canvas, pose.moved(-0.38 * length, 0.0), 0.1 * length, 0.9 * width)
    canvas.polygon(pose.points(rectangle(0.04 * length, 0.24 * width, -0.45 * length)), pick(rng, _LIVERIES))


def _paint_tanker(
    canvas: Canvas, pose: Pose, length: float, width: float, shape: Array, deck: Colour, rng: np.random.Generator
) -> None:
    canvas.polygon(pose.points(shape * (0.96 * length, 0.88 * width)), deck)
    pipe = shaded(deck, 1.35)
    for y in (-0.05, 0.05):
        canvas.line(pose.points([(-0.28 * length, y * width), (0.4 * length, y * width)]), pipe, 0.05 * width)
    for x in (-0.12, 0.02, 0.07, 0.24):
        canvas.line(pose.points([(x * length, -0.38 * width), (x * length, 0.38 * width)]), pipe, 0.04 * width, 0.8)
    _paint_deckhouse(canvas, pose.moved(-0.37 * length, 0.0), 0.1 * length, 0.86 * width)
    canvas.polygon(pose.points(rectangle(0.05 * length, 0.26 * width, -0.45 * length)), pick(rng, _LIVERIES))


def _paint_ferry(
    canvas: Canvas, pose: Pose, length: float, width: float, shape: Array, deck: Colour, rng: np.random.Generator
) -> None:
    canvas.polygon(pose.points(shape * (0.97 * length, 0.92 * width)), WHITE)
    canvas.polygon(pose.points(rounded(0.62 * length, 0.66 * width, 0.1 * width, -0.04 * length)), deck)
    _paint_deckhouse(canvas, pose.moved(0.18 * length, 0.0), 0.16 * length, 0.8 * width)
    canvas.polygon(pose.points(ellipse(0.08 * length, 0.24 * width, -0.16 * length)), pick(rng, _LIVERIES))
    for y in (-0.43, 0.43):
        boats = dashes(np.array([-0.2, -0.1, 0.0, 0.1]) * length, 0.05 * length, y * width)
        canvas.lines(pose.points(boats), palette("d2702c")[0], 0.1 * width, 0.9)


def _paint_naval(
    canvas: Canvas, pose: Pose, length: float, width: float, shape: Array, deck: Colour, rng: np.random.Generator
) -> None:
    grey = pick(rng, palette("868d90 7a8285 949a9b"), 6)
    canvas.polygon(pose.points(shape * (length, width)), shaded(grey, 0.75))
    canvas.polygon(pose.points(shape * (0.96 * length, 0.84 * width)), grey)
    _paint_deckhouse(canvas, pose.moved(0.08 * length, 0.0), 0.2 * length, 0.62 * width, shaded(grey, 1.12))
    _paint_deckhouse(canvas, pose.moved(-0.14 * length, 0.0), 0.12 * length, 0.5 * width, shaded(grey, 1.1))
    canvas.circle(pose.moved(0.3 * length, 0.0), 0.16 * width, shaded(grey, 0.7))
    pad = pose.points(rectangle(0.16 * length, 0.66 * width, -0.37 * length))
    canvas.polygon(pad, shaded(grey, 0.6))
    canvas.line(pose.points(ellipse(0.08 * length, 0.4 * width, -0.37 * length)), LINE_WHITE, 0.5, 0.7, closed=True)


def _paint_fishing_boat(
    canvas: Canvas, pose: Pose, length: float, width: float, shape: Array, deck: Colour, rng: np.random.Generator
) -> None:
    canvas.polygon(pose.points(shape * (0.9 * length, 0.76 * width)), pick(rng, DECKS, 12))
    _paint_deckhouse(canvas, pose.moved(rng.choice([-0.24, 0.16]) * length, 0.0), 0.2 * length, 0.52 * width)
    canvas.line(pose.points([(-0.1 * length, 0.0), (0.3 * length, 0.0)]), shaded(WHITE, 0.8), 0.25, 0.7)
    for x in (-0.02, 0.06):
        gear = pose.moved(x * length, rng.uniform(-0.2, 0.2) * width)
        canvas.circle(gear, 0.12 * width, pick(rng, CONTAINERS))


def _paint_motorboat(
    canvas: Canvas, pose: Pose, length: float, width: float, shape: Array, deck: Colour, rng: np.random.Generator
) -> None:
    cockpit = pick(rng, palette("b08a5c 8f9498 c9b48f 5c6268"), 10)
    canvas.polygon(pose.points(rounded(0.34 * length, 0.62 * width, 0.1 * width, -0.26 * length)), cockpit)
    shield = [(0.16, 0.0), (0.08, 0.3), (-0.06, 0.36), (-0.02, 0.0)]
    canvas.polygon(pose.points(mirrored(shield) * (length, width)), GLASS[1])
    canvas.polygon(pose.points(mirrored([(0.3, 0.0), (0.2, 0.16), (0.14, 0.0)]) * (length, width)), shaded(deck, 0.86))


def _paint_sailboat(
    canvas: Canvas, pose: Pose, length: float, width: float, shape: Array, deck: Colour, rng: np.random.Generator
) -> None:
    canvas.polygon(pose.points(shape * (0.9 * length, 0.78 * width)), pick(rng, palette("cfc4ae b79b72 e6e4dd"), 8))
    canvas.polygon(pose.points(rounded(0.3 * length, 0.42 * width, 0.08 * width, 0.06 * length)), WHITE)
    canvas.polygon(pose.points(rounded(0.24 * length, 0.44 * width, 0.08 * width, -0.3 * length)), GLASS[1])
    sail = pick(rng, palette("26406e e8e6de 2f5a4c 7c2f2c"), 6)
    canvas.line(pose.points([(0.1 * length, 0.0), (-0.34 * length, 0.0)]), sail, 0.45)
    mast = np.array([pose.points([(0.1 * length, 0.0)])[0]])
    canvas.line(np.concatenate([mast, mast + canvas.sun * 0.9 * length]), BLACK, 0.25, 0.45)


def _paint_barge(
    canvas: Canvas, pose: Pose, length: float, width: float, shape: Array, deck: Colour, rng: np.random.Generator
) -> None:
    canvas.polygon(pose.points(rounded(0.72 * length, 0.72 * width, 0.06 * width, 0.06 * length)), shaded(deck, 0.55))
    load = pick(rng, palette("3a3733 a88a62 7d7f80 6b4a3a"), 8)
    for hold in range(3):
        x = (-0.18 + 0.24 * hold) * length
        canvas.polygon(pose.points(ellipse(0.22 * length, 0.56 * width, x)), shaded(load, rng.uniform(0.9, 1.15)))
    _paint_deckhouse(canvas, pose.moved(-0.39 * length, 0.0), 0.09 * length, 0.6 * width)


def choose_ship(canvas: Canvas) -> tuple[str, float]:
    """Choose a kind of ship and a length for the resolution: no small boats from far, no large ships from near."""
    rng = canvas.rng
    lengths = {
        "container": (120, 290),
        "bulker": (100, 230),
        "tanker": (90, 240),
        "ferry": (45, 150),
        "naval": (70, 150),
        "barge": (60, 110),
        "fishing": (12, 40),
        "motorboat": (8, 24),
        "sailboat": (9, 20),
    }
    pixels = rng.uniform(12, 110) if chance(canvas, 0.5) else rng.uniform(14, 34)
    length = float(pixels * canvas.resolution)
    fitting = [kind for kind, (low, high) in lengths.items() if low <= length <= high]
    if not fitting:
        fitting = ["motorboat"] if length < 12 else ["tanker", "bulker", "container"]
    return str(rng.choice(fitting)), length
