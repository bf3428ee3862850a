"""Scenes of sport parks and school grounds."""

from __future__ import annotations

import numpy as np

from ds2d2_yolo.scenes.buildings import draw_building, draw_house
from ds2d2_yolo.scenes.canvas import PAVED, SOLID, WATER, Canvas
from ds2d2_yolo.scenes.clutter import draw_fenced_lot, scatter_trees
from ds2d2_yolo.scenes.geometry import Pose
from ds2d2_yolo.scenes.grounds import (
    draw_baseball_field,
    draw_basketball_court,
    draw_soccer_pitch,
    draw_tennis_block,
    draw_track_field,
)
from ds2d2_yolo.scenes.roads import ASPHALT, CONCRETE, draw_parking, draw_road, drive_along, park_along
from ds2d2_yolo.scenes.terrain import Climate, chance, find_place, flood_grass, grow_wood
from ds2d2_yolo.scenes.texture import palette, pick


def draw_sports(canvas: Canvas, climate: Climate) -> None:
    """Draw a sport park or a school ground: fields and courts of every kind between lawns, trees and car parks."""
    rng = canvas.rng
    flood_grass(canvas, climate, 0.12)
    if chance(canvas, 0.6):
        _draw_sports_street(canvas)
    for _ in range(int(rng.choice([0, 1, 2], p=[0.25, 0.5, 0.25]))):
        _place_track(canvas)
    if chance(canvas, 0.75):
        _place_baseball(canvas)
    for _ in range(int(rng.integers(2, 6))):
        _place_courts(canvas)
    if chance(canvas, 0.4):
        length = rng.uniform(60, 105)
        pose = find_place(canvas, length + 4, 0.64 * length + 4)
        if pose is not None:
            draw_soccer_pitch(canvas, pose, length)
    for _ in range(int(rng.integers(1, 4)) if canvas.resolution < 0.46 else int(rng.integers(0, 2))):
        length, width = rng.uniform(30, 70), rng.uniform(18, 36)
        pose = find_place(canvas, length, width, mark=PAVED)
        if pose is not None:
            draw_parking(canvas, pose, length, width, rng.uniform(0.3, 0.95))
    for _ in range(int(rng.integers(2, 7))):
        kind = str(rng.choice(["flat", "hall", "hip"]))
        size = rng.uniform(18, 50), rng.uniform(12, 24)
        draw_building(canvas, canvas.random_pose(), *size, kind, rng.uniform(5, 13))
    for _ in range(int(rng.integers(0, 4))):
        pose = find_place(canvas, 32, 18, attempts=4)
        if pose is not None:
            draw_fenced_lot(canvas, pose, 30, 16)
    for _ in range(int(rng.integers(2, 6))):
        _draw_path(canvas)
    scatter_trees(canvas, int(rng.integers(60, 190)), 3.4)
    if chance(canvas, 0.35):
        grow_wood(canvas, rng.uniform(0.05, 0.25))


def _draw_sports_street(canvas: Canvas) -> None:
    """Draw a street along one side of the grounds, with houses behind it."""
    rng = canvas.rng
    side = int(rng.choice([-1, 1]))
    y = side * rng.uniform(0.35, 0.75) * canvas.radius
    line = np.array([(-1.2 * canvas.radius, y), (1.2 * canvas.radius, y)])
    draw_road(canvas, line, 8.0, pick(rng, ASPHALT, 6), verge=pick(rng, CONCRETE, 6))
    drive_along(canvas, line[0], line[1], 8.0, 32.0)
    if chance(canvas, 0.5):
        park_along(canvas, line[0], line[1], 4.9, rng.uniform(0.2, 0.7))
    for row in range(4):
        for x in np.arange(-canvas.radius, canvas.radius, rng.uniform(18, 24)):
            turn = np.pi / 2 * int(rng.integers(2))
            draw_house(canvas, Pose(float(x), y + side * (16 + 24 * row), turn))


def _draw_path(canvas: Canvas) -> None:
    """Draw a footpath, straight or with one bend, on free ground. It is narrow, so trees may cover it."""
    start, corner = canvas.random_pose(), canvas.random_pose()
    points = np.array([(start.x, start.y), (corner.x, start.y), (corner.x, corner.y)])
    steps = np.concatenate([np.linspace(points[0], points[1], 40), np.linspace(points[1], points[2], 40)])
    free = [not canvas.holds(Pose(float(x), float(y)), SOLID | PAVED | WATER) for x, y in steps]
    colour = pick(canvas.rng, palette("c4b89c b8b0a0 a89c86"), 8)
    pieces = [steps[i : i + 2] for i in range(len(steps) - 1) if free[i] and free[i + 1]]
    canvas.lines(np.array(pieces), colour, 2.2, 0.9)


def _place_track(canvas: Canvas) -> None:
    rng = canvas.rng
    scale = float(np.clip(rng.uniform(80, 165) * canvas.resolution / 177, 0.34, 1.0))
    length, width = 177 * scale, 92.5 * scale
    pose = find_place(canvas, length + 6, width + 6, attempts=40)
    if pose is None:
        return
    draw_track_field(canvas, pose, scale)
    if chance(canvas, 0.4):
        side = float(rng.choice([-1, 1]))
        stand = pose.moved(0.0, side * (width / 2 + 11))
        draw_building(canvas, stand, 0.5 * length, 12.0, "hall", 10.0)


def _place_baseball(canvas: Canvas) -> None:
    """Draw one field, or two to four around a common centre, as in many parks."""
    rng = canvas.rng
    reach = float(np.clip(rng.uniform(45, 125) * canvas.resolution, 34, 115))
    side = 1.09 * reach + 3
    if chance(canvas, 0.35):
        pose = find_place(canvas, 2 * side, 2 * side)
        if pose is not None:
            for turn in range(4):
                if chance(canvas, 0.85):
                    corner = Pose(pose.x, pose.y, pose.heading + turn * np.pi / 2)
                    draw_baseball_field(canvas, corner.moved(side / 2, side / 2), reach)
            return
    for _ in range(int(rng.integers(1, 3))):
        pose = find_place(canvas, side, side)
        if pose is not None:
            draw_baseball_field(canvas, pose, reach)


def _place_courts(canvas: Canvas) -> None:
    rng = canvas.rng
    if chance(canvas, 0.5):
        courts = int(rng.integers(1, 7))
        pose = find_place(canvas, 37, courts * 18 + 3)
        if pose is not None:
            draw_tennis_block(canvas, pose, courts)
        return
    count = int(rng.integers(1, 4))
    pose = find_place(canvas, 33, count * 21)
    if pose is not None:
        for index in range(count):
            draw_basketball_court(canvas, pose.moved(0.0, (index - (count - 1) / 2) * 21))
