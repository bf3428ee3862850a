"""The renderer of the embedded data set: makes images and labels from seeds.

Does not know models or other rooms. It imports neither torch nor Ultralytics.
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
