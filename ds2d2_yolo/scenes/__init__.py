"""The renderer of the embedded data set: seeds in, images and labels out.

Knows no model and no other room: it is imported without torch and without Ultralytics.
"""

from ds2d2_yolo.scenes.geometry import CLASS_NAMES, SceneObject
from ds2d2_yolo.scenes.render import (
    DEFAULT_COUNTS,
    RENDERER_VERSION,
    SCENE_KINDS,
    render_dataset,
    render_scene,
)

__all__ = [
    "CLASS_NAMES",
    "DEFAULT_COUNTS",
    "RENDERER_VERSION",
    "SCENE_KINDS",
    "SceneObject",
    "render_dataset",
    "render_scene",
]
