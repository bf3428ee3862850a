"""The kinds of scenes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ds2d2_yolo.scenes.airport import draw_airport
from ds2d2_yolo.scenes.canvas import Canvas
from ds2d2_yolo.scenes.coast import draw_harbour, draw_sea
from ds2d2_yolo.scenes.country import draw_farmland, draw_river
from ds2d2_yolo.scenes.industry import draw_industry
from ds2d2_yolo.scenes.sports import draw_sports
from ds2d2_yolo.scenes.terrain import Climate
from ds2d2_yolo.scenes.town import draw_town


class SceneKind(NamedTuple):
    """A kind of scene: its function, its range of ground resolution (metres per pixel), and its frequency."""

    draw: Callable[[Canvas, Climate], None]
    finest: float
    coarsest: float
    share: float


KINDS: dict[str, SceneKind] = {
    "sea": SceneKind(draw_sea, 0.3, 1.3, 0.08),
    "harbour": SceneKind(draw_harbour, 0.22, 0.8, 0.14),
    "airport": SceneKind(draw_airport, 0.28, 0.9, 0.14),
    "farmland": SceneKind(draw_farmland, 0.22, 0.6, 0.08),
    "river": SceneKind(draw_river, 0.26, 0.9, 0.12),
    "town": SceneKind(draw_town, 0.14, 0.32, 0.12),
    "industry": SceneKind(draw_industry, 0.2, 0.65, 0.11),
    "sports": SceneKind(draw_sports, 0.28, 0.8, 0.22),
}
