"""Sport grounds with their markings: tennis, basketball, baseball, running tracks and soccer."""

from __future__ import annotations

import numpy as np

from ds2d2_yolo.scenes.canvas import PAVED, SOLID, Canvas
from ds2d2_yolo.scenes.craft import BLACK, LINE_WHITE, WHITE
from ds2d2_yolo.scenes.geometry import Array, Pose, ellipse, rectangle, rounded
from ds2d2_yolo.scenes.texture import Colour, palette, pick, shaded

_COURT_PADS = palette("3f6b4e 4f7a58 2f5f86 3a6fa0 8a4a3c 9c5a44 6a7a6c 7d7f80 48506e")
_COURT_FLOORS = palette("3f7a55 2f6aa6 3d7fb8 a3573f b56c48 5a4f80 55606c 4a8a5e")
_BASKET_FLOORS = palette("b98a58 a8764c 6f7274 808385 3f6f9c 4a7f5c 9c4a3e 5f6f86 8a8c8a")
_TRACK_PAINT = palette("96503f a35a45 8a4838 94604f 4a6a8a 6a6f72 a87058")
TURF = palette("5d7f42 54763c 6b8a4a 4c7040 7c9250")
_CLAY = palette("b58058 a8714c c09068 9c6a4a")


def _wear(rng: np.random.Generator) -> float:
    """Choose how much paint of the lines is left, 0 to 1."""
    return float(rng.uniform(0.45, 1.0))


def _court_line(canvas: Canvas, pose: Pose, points: Array, opacity: float, closed: bool = False) -> None:
    canvas.line(pose.points(points), LINE_WHITE, 0.14, opacity, closed)


def draw_tennis_court(canvas: Canvas, pose: Pose, floor: Colour, wear: float) -> None:
    """Draw and label the lines of a tennis court (23.8 m by 11 m). The caller draws the ground around it."""
    length, width, singles, service = 23.77, 10.97, 8.23, 12.8
    if not canvas.resolves(pose, length, width):
        return
    canvas.label("tenniscourt", pose, length, width)
    canvas.occupy(pose.points(rectangle(length, width)), SOLID)
    canvas.polygon(pose.points(rectangle(length, width)), floor)
    _court_line(canvas, pose, rectangle(length, width), wear, closed=True)
    _court_line(canvas, pose, rectangle(service, singles), wear, closed=True)
    for side in (-1, 1):
        _court_line(canvas, pose, np.array([(-length / 2, side * singles / 2), (length / 2, side * singles / 2)]), wear)
    _court_line(canvas, pose, np.array([(-service / 2, 0.0), (service / 2, 0.0)]), wear)
    net = pose.points([(0.0, -width / 2 - 0.9), (0.0, width / 2 + 0.9)])
    canvas.line(net + canvas.sun * 0.5, BLACK, 0.5, 0.35)
    canvas.line(net, shaded(WHITE, 0.8), 0.12, 0.9)


def draw_tennis_block(canvas: Canvas, pose: Pose, courts: int) -> None:
    """Draw some tennis courts side by side on one fenced ground, 36 m long."""
    rng = canvas.rng
    length, pitch = 36.0, rng.uniform(15.5, 18.0)
    width = courts * pitch + 2.0
    pad, floor = pick(rng, _COURT_PADS, 8), pick(rng, _COURT_FLOORS, 8)
    if rng.random() < 0.3:
        pad = floor = pick(rng, _CLAY, 8)
    canvas.polygon(pose.points(rectangle(length, width)), pad)
    canvas.occupy(pose.points(rectangle(length, width)), PAVED)
    wear = _wear(rng)
    for court in range(courts):
        draw_tennis_court(canvas, pose.moved(0.0, (court - (courts - 1) / 2) * pitch), floor, wear)
    _paint_fence(canvas, pose, length, width)


def _paint_fence(canvas: Canvas, pose: Pose, length: float, width: float) -> None:
    outline = pose.points(rectangle(length, width))
    canvas.line(outline + canvas.sun * 2.0, BLACK, 0.3, 0.25, closed=True)
    canvas.line(outline, palette("5c6058")[0], 0.25, 0.7, closed=True)


def draw_basketball_court(canvas: Canvas, pose: Pose) -> None:
    """Draw and label a basketball court (about 28 m by 15 m) with a margin of up to 3 m around it."""
    rng = canvas.rng
    scale = rng.uniform(0.85, 1.05)
    length, width = 28.0 * scale, 15.0 * scale
    rim = rng.uniform(1.0, 3.0)
    pad = (length + 2 * rim, width + 2 * rim)
    if not canvas.resolves(pose, length, width):
        return
    canvas.label("basketballcourt", pose, length, width)
    floor = pick(rng, _BASKET_FLOORS, 9)
    key = pick(rng, _BASKET_FLOORS, 9) if rng.random() < 0.65 else floor
    border = pick(rng, _BASKET_FLOORS, 9) if rng.random() < 0.6 else floor
    wear = _wear(rng)
    canvas.polygon(pose.points(rectangle(*pad)), border)
    canvas.occupy(pose.points(rectangle(*pad)), SOLID | PAVED)
    canvas.polygon(pose.points(rectangle(length, width)), floor)
    _court_line(canvas, pose, rectangle(length, width), wear, closed=True)
    _court_line(canvas, pose, np.array([(0.0, -width / 2), (0.0, width / 2)]), wear)
    _court_line(canvas, pose, ellipse(3.6 * scale, 3.6 * scale), wear, closed=True)
    for end in (pose, pose.moved(0.0, 0.0, np.pi)):
        _paint_basket(canvas, end, length, scale, key, wear)


def _paint_basket(canvas: Canvas, pose: Pose, length: float, scale: float, key: Colour, wear: float) -> None:
    zone, depth = 4.9 * scale, 5.8 * scale
    middle = length / 2 - depth / 2
    canvas.polygon(pose.points(rectangle(depth, zone, middle)), key)
    _court_line(canvas, pose, rectangle(depth, zone, middle), wear, closed=True)
    _court_line(canvas, pose, ellipse(zone * 0.73, zone * 0.73, length / 2 - depth, 0.0, np.pi / 2, 1.5 * np.pi), wear)
    arc = ellipse(13.5 * scale, 13.5 * scale, length / 2 - 1.6 * scale, 0.0, np.pi / 2, 1.5 * np.pi)
    three_points = np.concatenate([[(length / 2, 6.75 * scale)], arc, [(length / 2, -6.75 * scale)]])
    _court_line(canvas, pose, three_points, wear)
    board = pose.points([(length / 2 - 1.2, -0.9), (length / 2 - 1.2, 0.9)])
    canvas.line(board + canvas.sun * 3.0, BLACK, 0.4, 0.45)
    canvas.line(board, WHITE, 0.3)


def draw_baseball_field(canvas: Canvas, pose: Pose, reach: float) -> None:
    """Draw and label a baseball field. The caller has occupied its square.

    Args:
        canvas (Canvas): The scene.
        pose (Pose): Centre of the square around the field. Home plate is in its rear left corner.
        reach (float): From home plate to the outfield fence, metres.
    """
    rng = canvas.rng
    apron = 0.09 * reach
    side = reach + apron
    if not canvas.resolves(pose, side, side):
        return
    canvas.label("baseballfield", pose, side, side)
    home = pose.moved(-side / 2 + apron, -side / 2 + apron)
    turf, clay = pick(rng, TURF, 9), pick(rng, _CLAY, 9)
    base = min(27.4, 0.34 * reach)
    outer = np.concatenate([[(-apron, -apron)], _quarter(reach, -apron)])
    canvas.polygon(home.points(outer), clay if rng.random() < 0.6 else shaded(turf, 0.85))
    outfield = np.concatenate([[(-0.5 * apron, -0.5 * apron)], _quarter(0.95 * reach, -0.5 * apron)])
    mown = shaded(turf, rng.uniform(1.06, 1.18))
    canvas.striped_polygon(home.points(outfield), turf, mown, pose.heading + rng.uniform(0, np.pi), 0.12 * reach + 3)
    _paint_infield(canvas, home, base, turf, clay, skinned=bool(rng.random() < 0.3))
    wear = _wear(rng)
    for end in ((reach * 0.97, 0.0), (0.0, reach * 0.97)):
        canvas.line(home.points([(0.0, 0.0), end]), LINE_WHITE, 0.2, wear)
    fence = home.points(_quarter(reach, -apron))
    canvas.line(fence + canvas.sun * 2.0, BLACK, 0.5, 0.35)
    canvas.line(fence, palette("46604a 8a8c88 2f3f5c")[int(rng.integers(3))], 0.5)
    _paint_backstop(canvas, home, apron, base)


def _quarter(radius: float, start: float) -> Array:
    """Return a quarter of a circle (26, 2) from the first foul line to the third, with `start` at both ends."""
    rim = ellipse(2 * radius, 2 * radius, 0.0, 0.0, 0.0, np.pi / 2)
    return np.concatenate([[(radius, start)], rim, [(start, radius)]])


def _paint_infield(canvas: Canvas, home: Pose, base: float, turf: Colour, clay: Colour, skinned: bool) -> None:
    mound = base / 2, base / 2
    # The clay ends in an arc around the mound and at the foul lines.
    angles = np.linspace(-0.62 * np.pi + np.pi / 4, 0.62 * np.pi + np.pi / 4, 30)
    arc = np.array(mound) + 1.02 * base * np.stack([np.cos(angles), np.sin(angles)], 1)
    arc = np.maximum(arc, -0.08 * base)
    canvas.polygon(home.points(np.concatenate([[(-0.08 * base, -0.08 * base)], arc])), clay)
    if not skinned:
        inner = rounded(0.8 * base, 0.8 * base, 0.1 * base) + np.array(mound)
        canvas.polygon(home.points(inner), turf)
        canvas.circle(home.moved(*mound), max(1.6, 0.1 * base), clay)
    canvas.circle(home, max(2.4, 0.15 * base), clay)
    for corner in ((0.0, 0.0), (base, 0.0), (base, base), (0.0, base)):
        canvas.polygon(home.moved(*corner).points(rectangle(0.7, 0.7)), WHITE)


def _paint_backstop(canvas: Canvas, home: Pose, apron: float, base: float) -> None:
    stop = home.points([(0.3 * base, -apron), (-apron * 0.9, -apron * 0.9), (-apron, 0.3 * base)])
    canvas.line(stop + canvas.sun * 4.0, BLACK, 0.6, 0.3)
    canvas.line(stop, palette("8f918c")[0], 0.5)
    for place in ((0.5 * base, -0.7 * apron), (-0.7 * apron, 0.5 * base)):
        turn = 0.0 if place[0] > 0 else np.pi / 2
        dugout = home.moved(*place, turn).points(rectangle(0.4 * base, 0.35 * apron))
        canvas.polygon(canvas.extruded(dugout, 2.5), BLACK, 0.4)
        canvas.polygon(dugout, palette("9a9c98")[0])


def draw_track_field(canvas: Canvas, pose: Pose, scale: float) -> None:
    """Draw and label a running track with its infield, 176.9 m by 92.5 m at scale 1."""
    rng = canvas.rng
    straight, inner, lane, lanes = 84.39 * scale, 36.5 * scale, 1.22 * scale, 8
    outer = inner + lane * lanes
    length, width = straight + 2 * outer, 2 * outer
    if not canvas.resolves(pose, length, width):
        return
    canvas.label("groundtrackfield", pose, length, width)
    track, turf = pick(rng, _TRACK_PAINT, 9), pick(rng, TURF, 10)
    canvas.polygon(pose.points(_stadium(straight, outer)), track)
    canvas.occupy(pose.points(_stadium(straight, outer)), SOLID)
    chute = rectangle(0.9 * straight, lane * lanes, 0.25 * straight, outer - lane * lanes / 2)
    canvas.polygon(pose.points(chute * (1, rng.choice([-1, 1]))), track)
    wear = 0.6 * _wear(rng)
    spacing = lane if lane * canvas.scale > 1.6 else 2 * lane
    for radius in np.arange(inner, outer + 0.01, spacing):
        canvas.line(pose.points(_stadium(straight, float(radius))), LINE_WHITE, 0.12, wear, closed=True)
    zone = track if rng.random() < 0.6 else turf
    canvas.polygon(pose.points(_stadium(straight, inner - 0.3)), zone)
    pitch = (min(1.22 * straight, straight + inner), 1.74 * inner) if zone == turf else (1.12 * straight, 1.72 * inner)
    canvas.striped_polygon(
        pose.points(rectangle(*pitch)),
        turf,
        shaded(turf, rng.uniform(1.05, 1.2)),
        pose.heading + np.pi / 2,
        0.22 * straight,
    )
    _paint_soccer_lines(canvas, pose, 0.94 * pitch[0], 0.88 * pitch[1], 0.8 * wear)
    for place in (0.66, -0.66):
        canvas.circle(pose.moved(place * length * 0.62, 0.3 * inner), 2.2 * scale, shaded(track, 0.8))
    finish = 0.5 * straight * float(rng.choice([-1, 1]))
    canvas.line(pose.points([(finish, inner), (finish, outer)]), LINE_WHITE, 0.5)


def _stadium(straight: float, radius: float) -> Array:
    """Return the outline (42, 2) of two half discs connected by straight lines."""
    front = ellipse(2 * radius, 2 * radius, straight / 2, 0.0, -np.pi / 2, np.pi / 2, 21)
    rear = ellipse(2 * radius, 2 * radius, -straight / 2, 0.0, np.pi / 2, 1.5 * np.pi, 21)
    return np.concatenate([front, rear])


def _paint_soccer_lines(canvas: Canvas, pose: Pose, length: float, width: float, wear: float) -> None:
    canvas.line(pose.points(rectangle(length, width)), LINE_WHITE, 0.2, wear, closed=True)
    canvas.line(pose.points([(0.0, -width / 2), (0.0, width / 2)]), LINE_WHITE, 0.2, wear)
    canvas.line(pose.points(ellipse(0.17 * length, 0.17 * length)), LINE_WHITE, 0.2, wear, closed=True)
    for side in (-1, 1):
        for area in (
            rectangle(0.16 * length, 0.6 * width, side * 0.42 * length),
            rectangle(0.05 * length, 0.27 * width, side * 0.475 * length),
        ):
            canvas.line(pose.points(area), LINE_WHITE, 0.2, wear, closed=True)


def draw_soccer_pitch(canvas: Canvas, pose: Pose, length: float) -> None:
    """Draw a soccer pitch without a track. It is not labelled."""
    rng = canvas.rng
    width = 0.64 * length
    turf = pick(rng, TURF, 10)
    mown = shaded(turf, rng.uniform(1.03, 1.16))
    canvas.striped_polygon(pose.points(rectangle(length, width)), turf, mown, pose.heading + np.pi / 2, 0.18 * length)
    _paint_soccer_lines(canvas, pose, 0.94 * length, 0.9 * width, 0.9 * _wear(rng))
