"""Scenes of industry: tank farms, halls, truck yards and process plants."""

from __future__ import annotations

import numpy as np

from ds2d2_yolo.scenes.buildings import draw_building
from ds2d2_yolo.scenes.canvas import Canvas
from ds2d2_yolo.scenes.clutter import (
    draw_container_stack,
    draw_cooling_tower,
    draw_pile,
    draw_silo,
    scatter_trees,
)
from ds2d2_yolo.scenes.craft import LINE_WHITE, draw_vehicle
from ds2d2_yolo.scenes.geometry import Pose, rectangle
from ds2d2_yolo.scenes.roads import ASPHALT, draw_parking, draw_rails, drive_along
from ds2d2_yolo.scenes.structures import draw_storage_tank, tank_paint
from ds2d2_yolo.scenes.terrain import Climate, chance, flood_grass, frame_of, subdivide
from ds2d2_yolo.scenes.texture import Colour, palette, pick, shaded


def draw_industry(canvas: Canvas, climate: Climate) -> None:
    """Draw plots of tank farms, halls, truck yards and containers, with a railway and process plants between."""
    rng = canvas.rng
    flood_grass(canvas, climate, 0.9)
    reach = 1.1 * canvas.radius
    grey = pick(rng, ASPHALT, 6)
    if chance(canvas, 0.4):
        y = rng.uniform(-0.7, 0.7) * canvas.radius
        draw_rails(canvas, np.array([-reach, y]), np.array([reach, y]), int(rng.integers(1, 6)))
    scale = max(0.75, canvas.resolution)
    plots = subdivide(rng, -reach, -reach, reach, reach, rng.uniform(70, 150) * scale)
    road = float(rng.uniform(5.0, 9.0))
    for left, top, right, bottom in plots:
        outline = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
        canvas.line(outline, grey, road, closed=True)
        canvas.line(outline, LINE_WHITE, 0.2, 0.25, closed=True)
    focus = str(rng.choice(["tanks", "goods"], p=[0.62, 0.38]))
    for plot in plots:
        pose, length, width = frame_of(plot)
        _fill_plot(canvas, pose, length - road - rng.uniform(1, 7), width - road - rng.uniform(1, 7), focus)
    for left, top, right, bottom in plots:
        if chance(canvas, 0.6):
            drive_along(canvas, np.array([left, top]), np.array([right, top]), road, 40.0)
            drive_along(canvas, np.array([left, top]), np.array([left, bottom]), road, 40.0)
    scatter_trees(canvas, 30, 3.0)
    canvas.weather(0.06)


def _fill_plot(canvas: Canvas, pose: Pose, length: float, width: float, focus: str) -> None:
    rng = canvas.rng
    if length < 14 or width < 14 or not canvas.sees(pose, (length + width) / 2):
        return
    outline = pose.points(rectangle(length, width))
    styles = ["tanks", "hall", "trucks", "containers", "plant", "cars", "green"]
    chances = (
        [0.5, 0.14, 0.06, 0.04, 0.14, 0.04, 0.08] if focus == "tanks" else [0.1, 0.34, 0.16, 0.18, 0.04, 0.1, 0.08]
    )
    style = str(rng.choice(styles, p=chances))
    if style == "green":
        return
    if (style == "cars" and canvas.resolution > 0.46) or (style == "trucks" and canvas.resolution > 0.66):
        style = "hall"  # the vehicles would be too small to draw, and the yard empty
    ground = pick(rng, palette("9a9488 a8a294 8a867c b0a48c"), 9)
    shades = [shaded(ground, 0.84), ground, shaded(ground, 1.08)]
    canvas.textured_polygon(outline, canvas.texture(shades, canvas.mixture(0.3, 0.45, 0.35)))
    if style == "tanks":
        draw_tank_farm(canvas, pose, length, width, tank_paint(rng))
    elif style == "hall":
        _draw_halls(canvas, pose, length, width)
    elif style == "trucks":
        draw_parking(canvas, pose, 0.95 * length, 0.95 * width, rng.uniform(0.35, 0.9), trucks=True)
    elif style == "containers":
        rows, columns = max(1, int(length // 14)), max(2, int(0.8 * width // 2.8))
        draw_container_stack(canvas, pose, rows, columns, rng.uniform(0.3, 0.85))
    elif style == "cars":
        draw_parking(canvas, pose, 0.95 * length, 0.95 * width, rng.uniform(0.4, 0.95))
    else:
        _draw_process_plant(canvas, pose, length, width)
    _litter_plot(canvas, pose, length, width)


def _litter_plot(canvas: Canvas, pose: Pose, length: float, width: float) -> None:
    """Draw single containers, skips, trucks and piles along the edge of a plot."""
    rng = canvas.rng
    for _ in range(int(rng.integers(0, 7))):
        side = float(rng.choice([-1, 1]))
        place = pose.moved(rng.uniform(-0.42, 0.42) * length, side * (width / 2 - 3.0), np.pi * int(rng.integers(2)))
        style = rng.random()
        if style < 0.45:
            draw_container_stack(canvas, place, 1, int(rng.integers(1, 3)), 1.0)
        elif style < 0.7:
            draw_vehicle(canvas, place)
        else:
            draw_pile(canvas, place, rng.uniform(1.5, 5.0))


def _draw_halls(canvas: Canvas, pose: Pose, length: float, width: float) -> None:
    """Draw one or two halls, with trucks at the ramps and, at a fine resolution, cars along the wall."""
    rng = canvas.rng
    parts = 2 if length > 90 else 1
    for part in range(parts):
        middle = pose.moved(((part + 0.5) / parts - 0.5) * length, -0.08 * width)
        size, depth = 0.86 * length / parts, rng.uniform(0.5, 0.72) * width
        kind = "hall" if chance(canvas, 0.72) else "flat"
        built = draw_building(canvas, middle, size, depth, kind, rng.uniform(6, 13))
        for x in np.arange(-0.4 * size, 0.4 * size, 4.2):
            if built and chance(canvas, 0.3):
                truck = middle.moved(float(x), depth / 2 + 9.5, np.pi / 2)
                draw_vehicle(canvas, truck, "truck")
    if canvas.resolution < 0.46:
        draw_parking(canvas, pose.moved(0.0, 0.45 * width), 0.8 * length, 6.6, rng.uniform(0.3, 0.9))


def draw_tank_farm(canvas: Canvas, pose: Pose, length: float, width: float, paint: Colour) -> None:
    """Draw rows of storage tanks of one size inside an earth wall, with pipes between them."""
    rng = canvas.rng
    if not canvas.sees(pose, (length + width) / 2):
        return
    fitting = min(length, width) - 6
    typical = rng.uniform(6.5, 15) if chance(canvas, 0.55) else rng.uniform(13, 38)
    diameter = float(
        np.clip(typical * max(0.8, canvas.resolution), 6 * canvas.resolution, max(fitting, 6 * canvas.resolution))
    )
    if fitting < diameter:
        return
    pitch = diameter * rng.uniform(1.25, 1.6)
    columns, rows = max(1, int((length - 4) // pitch)), max(1, int((width - 4) // pitch))
    canvas.line(
        pose.points(rectangle(length - 2, width - 2)),
        palette("b8ac90 8c8474 c0bab0")[int(rng.integers(3))],
        2.0,
        closed=True,
    )
    kind = str(rng.choice(["cone", "floating", "dome"], p=[0.5, 0.35, 0.15]))
    pipe = palette("c2beb4 8a8a86")[int(rng.integers(2))]
    for row in range(rows):
        y = (row - (rows - 1) / 2) * pitch
        canvas.line(
            pose.points([(-length / 2 + 2, y + 0.55 * diameter), (length / 2 - 2, y + 0.55 * diameter)]), pipe, 0.8, 0.8
        )
    for row in range(rows):
        for column in range(columns):
            if chance(canvas, 0.88):
                x, y = pose.points([((column - (columns - 1) / 2) * pitch, (row - (rows - 1) / 2) * pitch)])[0]
                draw_storage_tank(canvas, x, y, diameter, kind, paint)


def _draw_process_plant(canvas: Canvas, pose: Pose, length: float, width: float) -> None:
    """Draw pipe racks, vessels, a cooling tower and sheds: many lines and small circles."""
    rng = canvas.rng
    if chance(canvas, 0.5):
        for side in (-1, 1):
            x, y = pose.points([(side * 0.25 * length, -0.22 * width)])[0]
            draw_cooling_tower(canvas, x, y, min(0.4 * min(length, width), rng.uniform(16, 34)))
    for _ in range(7):
        y = rng.uniform(-0.45, 0.45) * width
        canvas.line(
            pose.points([(-0.46 * length, y), (0.46 * length, y)]),
            pick(rng, palette("c6c2b8 9aa0a2 7a6a58"), 8),
            rng.uniform(0.5, 1.4),
        )
    for _ in range(10):
        place = pose.moved(
            rng.uniform(-0.44, 0.44) * length, rng.uniform(0.0, 0.42) * width, np.pi / 2 * int(rng.integers(2))
        )
        draw_building(canvas, place, rng.uniform(4, 12), rng.uniform(3, 8), "flat", rng.uniform(4, 14))
    for _ in range(4):
        x, y = pose.points(rng.uniform(-0.4, 0.4, (1, 2)) * (length, width))[0]
        draw_silo(canvas, x, y, rng.uniform(3, 6))
