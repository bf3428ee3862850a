"""The kinds of scenes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ds2d2_yolo.scenes.airport import lay_airport
from ds2d2_yolo.scenes.canvas import Canvas
from ds2d2_yolo.scenes.coast import lay_harbour, lay_sea
from ds2d2_yolo.scenes.country import lay_farmland, lay_river
from ds2d2_yolo.scenes.industry import lay_industry
from ds2d2_yolo.scenes.sports import lay_sports
from ds2d2_yolo.scenes.terrain import Climate
from ds2d2_yolo.scenes.town import lay_town


class SceneKind(NamedTuple):
    """A kind of scene: its function, its range of ground resolution (metres per pixel), and its frequency."""

    draw: Callable[[Canvas, Climate], None]
    finest: float
    coarsest: float
    share: float


KINDS: dict[str, SceneKind] = {
    "sea": SceneKind(lay_sea, 0.3, 1.3, 0.08),
    "harbour": SceneKind(lay_harbour, 0.22, 0.8, 0.14),
    "airport": SceneKind(lay_airport, 0.28, 0.9, 0.14),
    "farmland": SceneKind(lay_farmland, 0.22, 0.6, 0.08),
    "river": SceneKind(lay_river, 0.26, 0.9, 0.12),
    "town": SceneKind(lay_town, 0.14, 0.32, 0.12),
    "industry": SceneKind(lay_industry, 0.2, 0.65, 0.11),
    "sports": SceneKind(lay_sports, 0.28, 0.8, 0.22),
}
