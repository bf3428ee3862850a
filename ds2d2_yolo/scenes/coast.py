"""Scenes at the sea: open water, natural coasts and ports."""

from __future__ import annotations

import cv2
import numpy as np

from ds2d2_yolo.scenes.buildings import METAL_ROOFS, draw_building, draw_house
from ds2d2_yolo.scenes.canvas import WATER, Canvas
from ds2d2_yolo.scenes.clutter import (
    SAND,
    draw_buoy,
    draw_container_stack,
    draw_fish_cages,
    draw_gantry_crane,
    draw_rock,
    plant_row,
    scatter_trees,
)
from ds2d2_yolo.scenes.craft import BLACK, CONTAINERS, choose_ship, draw_ship, ship_beam
from ds2d2_yolo.scenes.geometry import Array, Pose, across, along, ellipse, rectangle
from ds2d2_yolo.scenes.industry import draw_tank_farm
from ds2d2_yolo.scenes.roads import ASPHALT, CONCRETE, draw_parking, draw_road, drive_along
from ds2d2_yolo.scenes.structures import draw_jetty, draw_marina_pier, tank_paint
from ds2d2_yolo.scenes.terrain import RIVERS, SEAS, Climate, chance, grow_wood, polygon_mask, water_texture
from ds2d2_yolo.scenes.texture import Colour, palette, pick, shaded, value_noise


def draw_sea(canvas: Canvas, climate: Climate) -> None:
    """Draw open water or a natural coast, with ships under way and at anchor."""
    rng = canvas.rng
    colours = SEAS[int(rng.integers(len(SEAS)))]
    roughness = rng.uniform(0.35, 1.15)
    canvas.flood(water_texture(canvas, colours, roughness))
    coast = chance(canvas, 0.6)
    land = _draw_coast(canvas, climate) if coast else np.zeros((canvas.side, canvas.side), np.uint8)
    canvas.flood_occupancy(cv2.bitwise_not(land), WATER)
    if coast:
        _settle_coast(canvas)
    _scatter_marine_clutter(canvas)
    _scatter_ships(canvas)
    if coast:
        grow_wood(canvas, rng.uniform(0.1, 0.5))


def _draw_coast(canvas: Canvas, climate: Climate) -> Array:
    """Draw shallow water, surf, beach and land from one height field. Return the mask of the land."""
    rng = canvas.rng
    x, y = canvas.ground_grid()
    angle, reach = rng.uniform(0, 2 * np.pi), canvas.radius
    slope = (x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))) / np.float32(reach)
    relief = value_noise(rng, canvas.size, rng.uniform(45, 130), 5).astype(np.float32) / 42 - np.float32(3.05)
    height = slope + relief * np.float32(rng.uniform(0.1, 0.3)) - np.float32(rng.uniform(-0.15, 0.6))
    if chance(canvas, 0.2):
        middle = (rng.uniform(-0.5, 0.5, 2) * reach).tolist()
        height = np.float32(0.35) - np.hypot(x - middle[0], y - middle[1]) / np.float32(reach)
        height += relief * np.float32(0.16)
    height = canvas.enlarge(height)
    beach = rng.uniform(0.02, 0.08)
    shallow = np.clip(1 + height / np.float32(rng.uniform(0.2, 0.5)), 0, 1) * np.float32(0.6)
    tint = pick(rng, palette("4f9094 5f8a80 6f8f84"), 6)
    canvas.blend(np.full_like(canvas.pixels, tint), shallow)
    foam = (height > -0.035) & (canvas.medium.astype(np.float32) + height * 2200 > 105)
    canvas.flood(np.full_like(canvas.pixels, 224), foam.astype(np.uint8))
    land = np.where(height > 0, np.uint8(255), np.uint8(0))
    sand = canvas.texture([shaded(colour, 0.92) for colour in SAND], canvas.mixture(0.2, 0.4, 0.5))
    canvas.flood(sand, land)
    wet = ((height > 0) & (height < 0.25 * beach)).astype(np.uint8)
    canvas.flood(cv2.convertScaleAbs(sand, alpha=0.78), wet)
    green = (height + (canvas.medium.astype(np.float32) - 128) / 2500 > beach).astype(np.uint8)
    canvas.flood(canvas.texture(climate.grass, canvas.mixture(0.45, 0.5, 0.4)), green)
    return land


def _settle_coast(canvas: Canvas) -> None:
    rng = canvas.rng
    heading = rng.uniform(0, np.pi)
    for _ in range(int(rng.integers(0, 14))):
        draw_house(canvas, canvas.random_pose(heading + rng.normal(0, 0.15)))
    for _ in range(int(rng.integers(0, 4))):
        root = _find_shore(canvas)
        if root is not None:
            reach = max(1.0, canvas.resolution)
            draw_jetty(canvas, root, rng.uniform(30, 70) * reach, rng.uniform(5, 9) * reach)
    scatter_trees(canvas, int(rng.integers(10, 60)), 3.4)


def _find_shore(canvas: Canvas) -> Pose | None:
    """Go from a random place on land in a random direction to the water. Return this point and the direction."""
    start = canvas.random_pose(float(canvas.rng.uniform(0, 2 * np.pi)), border=0.1 * canvas.size)
    if canvas.holds(start, WATER):
        return None
    for distance in np.arange(0.0, 0.7 * canvas.radius, canvas.resolution):
        place = start.moved(float(distance), 0.0)
        if canvas.holds(place, WATER):
            return place.moved(-2.0 * canvas.resolution, 0.0)
    return None


def _scatter_marine_clutter(canvas: Canvas) -> None:
    rng = canvas.rng
    for _ in range(int(rng.integers(0, 9))):
        place = canvas.random_pose()
        if canvas.holds(place, WATER):
            draw_buoy(canvas, place.x, place.y)
    if chance(canvas, 0.4):
        middle = canvas.random_pose()
        for _ in range(int(rng.integers(3, 18))):
            x, y = rng.normal((middle.x, middle.y), 0.12 * canvas.radius)
            if canvas.holds(Pose(x, y), WATER):
                draw_rock(canvas, x, y, canvas.resolution * float(rng.choice([1.5, 2.5, 4.0, 7.0])))
    if chance(canvas, 0.25):
        draw_fish_cages(canvas, canvas.random_pose(rng.uniform(0, np.pi)), rng.uniform(14, 26))


def _scatter_ships(canvas: Canvas) -> None:
    rng = canvas.rng
    lane = rng.uniform(0, 2 * np.pi)
    anchorage = rng.uniform(0, 2 * np.pi)
    for _ in range(int(rng.integers(3, 16))):
        kind, length = choose_ship(canvas)
        moving = chance(canvas, 0.6)
        course = lane + np.pi * int(rng.integers(2))
        heading = rng.normal(course, 0.4) if moving else rng.normal(anchorage, 0.15)
        draw_ship(canvas, canvas.random_pose(heading), kind, length, moving)
    if chance(canvas, 0.45):
        middle = canvas.random_pose(border=0.15 * canvas.size)
        for _ in range(int(rng.integers(4, 18))):
            x, y = rng.normal((middle.x, middle.y), 34.0 * canvas.resolution)
            kind = str(rng.choice(["fishing", "motorboat", "sailboat"]))
            size = max(rng.uniform(9, 22), rng.uniform(13.0, 20.0) * canvas.resolution)
            draw_ship(canvas, Pose(x, y, anchorage + rng.normal(0, 0.3)), kind, size)


def draw_harbour(canvas: Canvas, climate: Climate) -> None:
    """Draw a cargo port, a marina or a fishing port: water below the quay (y > 0), land above it."""
    rng = canvas.rng
    colours = (*SEAS, RIVERS[2])[int(rng.integers(len(SEAS) + 1))]
    quay = rng.uniform(-0.35, 0.15) * canvas.radius
    canvas.flood(water_texture(canvas, colours, rng.uniform(0.12, 0.4)))
    reach = 1.2 * canvas.radius
    land = np.array([(-reach, -reach), (reach, -reach), (reach, quay), (-reach, quay)])
    small = canvas.resolution < 0.62
    basin = not small and chance(canvas, 0.45)
    notch = (0.0, 0.0, quay)
    if basin:
        left = rng.uniform(-0.8, 0.2) * canvas.radius
        notch = (left, left + rng.uniform(0.35, 0.7) * canvas.radius, quay - rng.uniform(0.25, 0.5) * canvas.radius)
        rim = np.array([(notch[1], quay), (notch[1], notch[2]), (notch[0], notch[2]), (notch[0], quay)])
        land = np.insert(land, 3, rim, axis=0)
    mask = polygon_mask(canvas, land)
    canvas.flood_occupancy(cv2.bitwise_not(mask), WATER)
    base = pick(rng, CONCRETE, 8)
    apron = canvas.texture([shaded(base, 0.86), base, shaded(base, 1.08)], canvas.mixture(0.3, 0.4, 0.35))
    canvas.polygon(land + canvas.sun * 2.5, BLACK, 0.4)
    canvas.flood(apron, mask)
    _patch_pavement(canvas, mask, base)
    canvas.line(land[2:] if basin else land[2:4], palette("d0ccc0")[0], 1.6)
    canvas.line((land[2:] if basin else land[2:4]) - (0.0, 1.6), palette("4c4a46")[0], 0.8, 0.7)
    if small and chance(canvas, 0.75):
        _draw_marina(canvas, quay)
    elif small:
        _draw_fishing_port(canvas, quay)
    else:
        _draw_cargo_port(canvas, notch, quay)
    _scatter_harbour_traffic(canvas)
    canvas.weather(0.06)


def _patch_pavement(canvas: Canvas, mask: Array, base: Colour) -> None:
    """Draw repairs, joints and stains on a quay."""
    rng = canvas.rng
    quay = canvas.pixels.copy()
    for _ in range(26):
        place = canvas.random_pose(np.pi / 2 * int(rng.integers(2)))
        size = rng.uniform(6, 40, 2) * max(0.6, canvas.resolution)
        canvas.polygon(place.points(rectangle(size[0], size[1])), shaded(base, rng.uniform(0.78, 1.12)), 0.5)
    reach, slab = canvas.radius, rng.uniform(9, 16) * max(0.6, canvas.resolution)
    places = np.arange(-reach, reach, slab)
    joints = np.concatenate([across(places, -reach, reach), along(places, -reach, reach)])
    canvas.lines(joints, shaded(base, 0.8), 0.25, 0.4)
    canvas.flood(quay, cv2.bitwise_not(mask))


def _draw_marina(canvas: Canvas, quay: float) -> None:
    rng = canvas.rng
    boat = float(rng.uniform(max(8.5, 14.5 * canvas.resolution), max(13.0, 26 * canvas.resolution)))
    gap = 2 * boat + rng.uniform(10, 18)
    x = -canvas.radius + rng.uniform(0, gap)
    while x < canvas.radius:
        length = rng.uniform(0.22, 0.75) * canvas.radius
        draw_marina_pier(canvas, Pose(x, quay, np.pi / 2), length, boat)
        x += gap + boat * rng.uniform(0.0, 0.8)
    if chance(canvas, 0.5):
        _draw_breakwater(canvas, quay + rng.uniform(0.8, 1.2) * canvas.radius)
    road = quay - rng.uniform(9, 14)
    _draw_landside(canvas, road, parking=True)


def _draw_breakwater(canvas: Canvas, y: float) -> None:
    rng = canvas.rng
    line = np.array(
        [(x, y + rng.normal(0, 1.5)) for x in np.linspace(-canvas.radius, rng.uniform(0.2, 1) * canvas.radius, 9)]
    )
    canvas.line(line, palette("6a665e")[0], 9.0)
    for x in np.repeat(np.linspace(line[0, 0], line[-1, 0], 90), 2):
        middle = float(np.interp(x, line[:, 0], line[:, 1]))
        draw_rock(canvas, x + rng.normal(0, 1), middle + rng.normal(0, 3.0), rng.uniform(1.2, 2.6))


def _draw_fishing_port(canvas: Canvas, quay: float) -> None:
    rng = canvas.rng
    x = -canvas.radius
    length = rng.uniform(max(14, 16 * canvas.resolution), max(24, 40 * canvas.resolution))
    while x < canvas.radius:
        if chance(canvas, 0.25):
            reach = rng.uniform(0.18, 0.6) * canvas.radius
            width = rng.uniform(4, 11)
            draw_jetty(canvas, Pose(x + 10, quay - 1.0, np.pi / 2), reach, width)
            _moor_alongside(canvas, Pose(x + 10, quay, np.pi / 2), reach, width, length, ("fishing",), 0.75)
            x += 30
        _raft(canvas, Pose(x, quay, 0.0), length)
        x += length * rng.uniform(1.15, 1.6)
    _draw_landside(canvas, quay - rng.uniform(10, 16), parking=False)


def _raft(canvas: Canvas, quay: Pose, length: float) -> None:
    """Draw boats of a kind side by side, pointing away from a quay."""
    rng = canvas.rng
    right = 0.6
    for _ in range(int(rng.integers(0, 5))):
        size = length * rng.uniform(0.85, 1.05)
        width = ship_beam("fishing", size)
        pose = quay.moved(length / 2, right + width / 2, np.pi * int(rng.integers(2)))
        draw_ship(canvas, pose, "fishing", size)
        right += width + 0.9


def _moor_alongside(
    canvas: Canvas, root: Pose, reach: float, width: float, length: float, kinds: tuple[str, ...], busy: float
) -> None:
    """Draw ships of about `length` metres on both sides of a jetty, at the share `busy` of its berths."""
    rng = canvas.rng
    for side in (-1, 1):
        x = rng.uniform(2.0, 8.0)
        while x + length < reach + 0.3 * length:
            kind = str(rng.choice(kinds))
            size = length * rng.uniform(0.8, 1.1)
            if rng.random() < busy:
                offset = width / 2 + ship_beam(kind, size) / 2 + max(1.5, 1.2 * canvas.resolution)
                pose = root.moved(x + size / 2, side * offset, np.pi * int(rng.integers(2)))
                draw_ship(canvas, pose, kind, size)
            x += size * rng.uniform(1.08, 1.3)


def _draw_cargo_port(canvas: Canvas, notch: tuple[float, float, float], quay: float) -> None:
    """Draw jetties and berths along the shore, with large ships, and the yards behind.

    Args:
        canvas (Canvas): The scene.
        notch (tuple[float, float, float]): Left, right and top of a basin cut into the land, metres.
        quay (float): Edge of the land, y in metres.
    """
    rng = canvas.rng
    left, right, top = notch
    kinds = ("container", "bulker", "tanker", "barge", "ferry", "naval")
    length = max(float(rng.uniform(40, 110) * canvas.resolution), 55.0)
    busy = rng.uniform(0.6, 0.95)
    x = -canvas.radius + rng.uniform(0, 0.4) * canvas.radius
    while x < canvas.radius:
        shore = top if left < x < right else quay
        if chance(canvas, 0.6):
            reach, width = rng.uniform(0.2, 0.8) * canvas.radius, max(rng.uniform(8, 24), 7 * canvas.resolution)
            if draw_jetty(canvas, Pose(x, shore - 1.0, np.pi / 2), reach, width):
                root = Pose(x, shore, np.pi / 2)
                _moor_alongside(canvas, root, reach, width, length * rng.uniform(0.7, 1.0), kinds, busy)
                _equip_jetty(canvas, root, reach, width)
            x += width + length * rng.uniform(0.45, 0.8)
        else:
            size = length * rng.uniform(0.8, 1.5)
            kind = str(rng.choice(kinds))
            offset = ship_beam(kind, size) / 2 + max(2.0, 1.2 * canvas.resolution)
            pose = Pose(x + size / 2, shore + offset, np.pi * int(rng.integers(2)))
            if rng.random() < busy and draw_ship(canvas, pose, kind, size) and kind in ("container", "bulker"):
                for offset in (-0.25, 0.2):
                    crane = Pose(x + size / 2 + offset * size, shore - 8, np.pi / 2)
                    draw_gantry_crane(canvas, crane, 0.17 * size + 10)
            x += size * 1.12
    _draw_yards(canvas, quay - 26.0, top)


def _equip_jetty(canvas: Canvas, root: Pose, reach: float, width: float) -> None:
    """Draw sheds, cranes, a pipe or nothing on a jetty."""
    rng = canvas.rng
    style = rng.random()
    paint = pick(rng, (*METAL_ROOFS, *CONTAINERS), 9)
    for x in np.arange(0.12 * reach, 0.9 * reach, rng.uniform(14, 40)):
        place = root.moved(float(x), rng.uniform(-0.12, 0.12) * width)
        if style < 0.4:
            outline = place.points(rectangle(rng.uniform(5, 13), 0.34 * width))
            canvas.polygon(canvas.extruded(outline, 2.6), BLACK, 0.4)
            canvas.polygon(outline, shaded(paint, rng.uniform(0.8, 1.1)))
        elif style < 0.65 and width > 12:
            draw_gantry_crane(canvas, place.moved(0.0, 0.0, np.pi / 2), 0.5 * width)
        elif style < 0.85:
            canvas.line(root.points([(2.0, 0.2 * width), (reach - 4, 0.2 * width)]), shaded(paint, 0.8), 0.9)


def _draw_yards(canvas: Canvas, edge: float, basin: float) -> None:
    """Fill the land behind a quay with stacks, sheds, roads and tanks, in strips parallel to it.

    Args:
        canvas (Canvas): The scene.
        edge (float): End of the first strip, y in metres.
        basin (float): Upper end of a basin, y in metres. Beside it, nothing is built on the water.
    """
    rng = canvas.rng
    y = edge
    while y > -canvas.radius:
        depth = rng.uniform(26, 60)
        styles = ["containers", "sheds", "tanks", "yard", "road"]
        style = str(rng.choice(styles, p=[0.36, 0.24, 0.2, 0.08, 0.12] if y < basin - 8 else [0.6, 0.4, 0.0, 0.0, 0.0]))
        if style == "road":
            depth = 14.0
            line = np.array([(-canvas.radius, y - 7), (canvas.radius, y - 7)])
            draw_road(canvas, line, 9.0, pick(rng, ASPHALT, 5))
            drive_along(canvas, line[0], line[1], 9.0, 40.0)
        else:
            _draw_strip(canvas, style, y, depth)
        y -= depth + 6.0


def _draw_strip(canvas: Canvas, style: str, y: float, depth: float) -> None:
    rng = canvas.rng
    paint = tank_paint(rng)
    x = -canvas.radius
    while x < canvas.radius:
        length = rng.uniform(40, 90)
        pose = Pose(x + length / 2, y - depth / 2)
        if style == "containers":
            columns, rows = max(2, int(depth * 0.8 // 2.8)), max(1, int(length * 0.86 // 12.9))
            draw_container_stack(canvas, pose, rows, columns, rng.uniform(0.5, 0.97))
        elif style == "sheds":
            draw_building(canvas, pose, 0.86 * length, 0.72 * depth, "hall", rng.uniform(7, 13))
        elif style == "tanks":
            draw_tank_farm(canvas, pose, length, depth, paint)
        else:
            trucks = canvas.resolution > 0.45
            draw_parking(canvas, pose, 0.92 * length, 0.86 * depth, rng.uniform(0.3, 0.9), trucks=trucks)
        x += length + 6.0


def _draw_landside(canvas: Canvas, y: float, *, parking: bool) -> None:
    """Draw a road along a quay and, behind it, car parks, sheds and trees."""
    rng = canvas.rng
    line = np.array([(-canvas.radius, y), (canvas.radius, y)])
    draw_road(canvas, line, 7.5, pick(rng, ASPHALT, 5), verge=pick(rng, CONCRETE, 5))
    drive_along(canvas, line[0], line[1], 7.5, 25.0)
    x = -canvas.radius
    while x < canvas.radius:
        length, depth = rng.uniform(26, 60), rng.uniform(22, 40)
        pose = Pose(x + length / 2, y - 8 - depth / 2)
        style = rng.random()
        if parking and style < 0.5 and canvas.resolution < 0.46:
            draw_parking(canvas, pose, length, depth, rng.uniform(0.3, 0.95))
        elif style < 0.75:
            kind = "hall" if chance(canvas, 0.5) else "flat"
            draw_building(canvas, pose, 0.7 * length, 0.6 * depth, kind, rng.uniform(5, 10))
        else:
            canvas.polygon(pose.points(rectangle(length, depth)), palette("6f7c50")[0])
            plant_row(canvas, pose.points([(-length / 2, 0)])[0], pose.points([(length / 2, 0)])[0], 7.0, 3.0)
        x += length + 4.0
    _draw_houses_beyond(canvas, y - 58)


def _draw_houses_beyond(canvas: Canvas, edge: float) -> None:
    y = edge
    while y > -canvas.radius - 30:
        for x in np.arange(-canvas.radius, canvas.radius, 19.0):
            dx, dy = canvas.rng.normal(0, 1.5, 2)
            draw_house(canvas, Pose(x + dx, y + dy, np.pi / 2 * int(canvas.rng.integers(2))))
        y -= 24.0


def _scatter_harbour_traffic(canvas: Canvas) -> None:
    rng = canvas.rng
    for _ in range(int(rng.integers(0, 6))):
        kind, length = choose_ship(canvas)
        draw_ship(canvas, canvas.random_pose(rng.uniform(0, 2 * np.pi)), kind, 0.8 * length, chance(canvas, 0.6))
    for _ in range(int(rng.integers(0, 5))):
        place = canvas.random_pose()
        if canvas.claim(ellipse(3.0, 3.0, place.x, place.y, count=8), inside=WATER):
            draw_buoy(canvas, place.x, place.y)
