"""Scenes of towns: streets with traffic, houses, car parks and small sport courts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from ds2d2_yolo.scenes.buildings import draw_building, draw_house
from ds2d2_yolo.scenes.canvas import Canvas
from ds2d2_yolo.scenes.clutter import draw_fenced_lot, draw_pool, plant_row, scatter_trees
from ds2d2_yolo.scenes.craft import LINE_WHITE, draw_vehicle
from ds2d2_yolo.scenes.geometry import Array, Pose, across, along, rectangle
from ds2d2_yolo.scenes.grounds import draw_basketball_court, draw_tennis_block
from ds2d2_yolo.scenes.roads import (
    ASPHALT,
    CONCRETE,
    draw_parking,
    draw_road,
    draw_roundabout,
    drive_along,
    park_along,
)
from ds2d2_yolo.scenes.terrain import Climate, chance, flood_grass, random_steps
from ds2d2_yolo.scenes.texture import Colour, palette, pick


def draw_town(canvas: Canvas, climate: Climate) -> None:
    """Draw a grid of streets with traffic and, between them, houses, flats, car parks, shops and small sport courts."""
    rng = canvas.rng
    flood_grass(canvas, climate, 0.3)
    dense = chance(canvas, 0.4)
    low, high = (44.0, 80.0) if dense else (56.0, 105.0)
    columns = random_steps(rng, -canvas.radius, canvas.radius, low, high)
    rows = random_steps(rng, -canvas.radius, canvas.radius, low, high)
    grey = pick(rng, ASPHALT, 6)
    pavement = pick(rng, CONCRETE, 6)
    widths_x = [float(rng.choice([7.0, 8.0, 15.0], p=[0.45, 0.35, 0.2])) for _ in columns]
    widths_y = [float(rng.choice([7.0, 8.0, 15.0], p=[0.45, 0.35, 0.2])) for _ in rows]
    streets = [
        (np.array([(x, -1.2 * canvas.radius), (x, 1.2 * canvas.radius)]), w)
        for x, w in zip(columns, widths_x, strict=True)
    ]
    streets += [
        (np.array([(-1.2 * canvas.radius, y), (1.2 * canvas.radius, y)]), w)
        for y, w in zip(rows, widths_y, strict=True)
    ]
    for line, width in streets:
        draw_road(canvas, line, width, grey, verge=pavement)
    for x, wide in zip(columns, widths_x, strict=True):
        for y, high_street in zip(rows, widths_y, strict=True):
            _draw_crossing(canvas, x, y, wide, high_street, grey)
    for (left, right), (top, bottom) in itertools.product(_gaps(columns, widths_x), _gaps(rows, widths_y)):
        pose = Pose((left + right) / 2, (top + bottom) / 2)
        if canvas.sees(pose, (right - left + bottom - top) / 2):
            _fill_block(canvas, pose, right - left, bottom - top, dense)
    for line, width in streets:
        for start, end in ((line[0], line[1]), (line[1], line[0])):
            if chance(canvas, 0.6):
                park_along(canvas, start, end, width / 2 - 1.1, rng.uniform(0.2, 0.75))
        drive_along(canvas, line[0], line[1], width * 0.62, 38.0)
        if chance(canvas, 0.7):
            _plant_street(canvas, line, width)
    scatter_trees(canvas, 40 if dense else 90, 2.9)


def _gaps(streets: Sequence[float], widths: Sequence[float]) -> list[tuple[float, float]]:
    """Return start and end of the blocks between parallel streets, without pavements."""
    edges = [(at - width / 2 - 3, at + width / 2 + 3) for at, width in zip(streets, widths, strict=True)]
    return [(start, end) for (_, start), (end, _) in itertools.pairwise(edges)]


def _plant_street(canvas: Canvas, line: Array, width: float) -> None:
    forward = (line[1] - line[0]) / np.hypot(*(line[1] - line[0]))
    outward = np.array([-forward[1], forward[0]])
    for side in (-1, 1):
        shift = outward * side * (width / 2 + 3.4)
        plant_row(canvas, line[0] + shift, line[1] + shift, canvas.rng.uniform(8, 16), canvas.rng.uniform(1.8, 3.2))


def _draw_crossing(canvas: Canvas, x: float, y: float, wide: float, high: float, grey: Colour) -> None:
    """Remove the lane lines from a junction and paint zebra crossings."""
    canvas.polygon(Pose(x, y).points(rectangle(wide, high)), grey)
    if max(wide, high) < 10 and chance(canvas, 0.12):
        draw_roundabout(canvas, x, y, canvas.rng.uniform(9.0, 11.5))
        return
    if canvas.resolution > 0.45 or not canvas.sees(Pose(x, y), 20.0):
        return
    rows, columns = y + np.arange(0.6 - high / 2, high / 2, 1.1), x + np.arange(0.6 - wide / 2, wide / 2, 1.1)
    for side in (-1, 1):
        canvas.lines(along(rows, x + side * (wide / 2 + 1.0), x + side * (wide / 2 + 3.4)), LINE_WHITE, 0.5, 0.8)
        canvas.lines(across(columns, y + side * (high / 2 + 1.0), y + side * (high / 2 + 3.4)), LINE_WHITE, 0.5, 0.8)


def _fill_block(canvas: Canvas, pose: Pose, length: float, width: float, dense: bool) -> None:
    rng = canvas.rng
    styles = ["houses", "flats", "parking", "shop", "park", "courts"]
    chances = [0.1, 0.36, 0.16, 0.16, 0.08, 0.14] if dense else [0.48, 0.08, 0.13, 0.1, 0.09, 0.12]
    style = str(rng.choice(styles, p=chances))
    if style == "houses":
        _fill_with_houses(canvas, pose, length, width)
    elif style == "flats":
        _fill_with_flats(canvas, pose, length, width)
    elif style == "parking":
        draw_parking(canvas, pose, 0.94 * length, 0.94 * width, rng.uniform(0.35, 0.95))
    elif style == "shop":
        draw_building(
            canvas,
            pose.moved(0.0, -0.27 * width),
            0.86 * length,
            0.36 * width,
            str(rng.choice(["flat", "hall"])),
            rng.uniform(6, 12),
        )
        draw_parking(canvas, pose.moved(0.0, 0.22 * width), 0.94 * length, 0.5 * width, rng.uniform(0.3, 0.9))
    elif style == "courts":
        _fill_with_courts(canvas, pose, length, width)
    else:
        _fill_with_park(canvas, pose, length, width)


def _fill_with_houses(canvas: Canvas, pose: Pose, length: float, width: float) -> None:
    rng = canvas.rng
    for side in (-1, 1):
        x = -length / 2 + 10
        while x < length / 2 - 8:
            place = pose.moved(x, side * (width / 2 - rng.uniform(9, 12)), np.pi / 2 * int(rng.random() < 0.3))
            draw_house(canvas, place)
            drive = pose.moved(x + 8.6, side * (width / 2 - 5.5), np.pi / 2)
            if chance(canvas, 0.6):
                canvas.polygon(drive.points(rectangle(11.0, 3.2)), pick(rng, CONCRETE, 6))
                if chance(canvas, 0.6):
                    draw_vehicle(canvas, drive.moved(rng.uniform(-2, 2), 0.0, np.pi * int(rng.integers(2))), "car")
            if chance(canvas, 0.2):
                draw_pool(canvas, pose.moved(x, side * (width / 2 - 25), rng.uniform(0, np.pi)))
            x += rng.uniform(17, 24)
    fence = pose.points([(-length / 2, 0.0), (length / 2, 0.0)])
    canvas.line(fence, palette("5a5444")[0], 0.4, 0.7)


def _fill_with_flats(canvas: Canvas, pose: Pose, length: float, width: float) -> None:
    rng = canvas.rng
    for y in np.arange(-width / 2 + 11, width / 2 - 8, rng.uniform(24, 32)):
        parts = 1 if length < 60 else 2
        for part in range(parts):
            middle = ((part + 0.5) / parts - 0.5) * length
            draw_building(
                canvas, pose.moved(middle, y), 0.82 * length / parts, rng.uniform(11, 15), "flat", rng.uniform(9, 26)
            )
        if chance(canvas, 0.55):
            row = pose.moved(0.0, y + 12.5)
            draw_parking(canvas, row, 0.8 * length, 7.0, rng.uniform(0.4, 0.9))


def _fill_with_courts(canvas: Canvas, pose: Pose, length: float, width: float) -> None:
    rng = canvas.rng
    canvas.polygon(pose.points(rectangle(length, width)), pick(rng, palette("8a8c80 6f7c52 9a968a"), 7), 0.7)
    if length < width:
        pose, length, width = pose.moved(0.0, 0.0, np.pi / 2), width, length
    x = -length / 2 + 3.0
    while x < length / 2 - 18:
        style = rng.random()
        if style < 0.42 and width > 37:
            room = length / 2 - x
            courts = min(int(rng.integers(1, 4)), int((room - 2) // 18))
            if courts < 1:
                break
            draw_tennis_block(canvas, pose.moved(x + (courts * 18 + 2) / 2, 0.0, np.pi / 2), courts)
            x += courts * 18 + 5
        elif style < 0.8:
            for y in [-0.25 * width, 0.25 * width] if width > 64 else [0.0]:
                draw_basketball_court(canvas, pose.moved(x + 11, y, np.pi / 2))
            x += 24
        else:
            draw_fenced_lot(canvas, pose.moved(x + 10, 0.0, np.pi / 2), min(30.0, 0.7 * width), 17)
            x += 22


def _fill_with_park(canvas: Canvas, pose: Pose, length: float, width: float) -> None:
    rng = canvas.rng
    canvas.polygon(pose.points(rectangle(length, width)), pick(rng, palette("6f8a4c 62804a 7a8a54"), 6), 0.75)
    for line in (
        [(-length / 2, -width / 2), (length / 2, width / 2)],
        [(-length / 2, width / 2), (length / 2, -width / 2)],
    ):
        canvas.line(pose.points(line), palette("c0b59a")[0], 2.4)
    canvas.circle(pose, 6.0, palette("b8ae94")[0])
    canvas.circle(pose, 3.4, palette("5f8c9a")[0])
    for _ in range(int(length * width / 110)):
        x, y = pose.points(rng.uniform(-0.5, 0.5, (1, 2)) * (length, width))[0]
        canvas.plant(x, y, rng.uniform(2.2, 4.6))
