"""The embedded data set: overhead scenes with ten classes of objects, rendered by this package.

No images of third parties are used: OpenCV and numpy draw every pixel from a seed. `render_scene` makes one scene,
`render_dataset` a folder for training with Ultralytics. The same seed gives the same bytes if the versions of numpy and
OpenCV and the kind of processor are the same.
"""

from __future__ import annotations

import json
import re
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TypedDict

import cv2
import numpy as np

from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.files import atomic_folder, write_json
from ds2d2_yolo.scenes.canvas import Canvas
from ds2d2_yolo.scenes.geometry import CLASS_NAMES, Array, SceneObject
from ds2d2_yolo.scenes.kinds import KINDS
from ds2d2_yolo.scenes.terrain import draw_climate
from ds2d2_yolo.scenes.texture import palette, value_noise

SCENE_KINDS: tuple[str, ...] = tuple(KINDS)
DEFAULT_COUNTS: Mapping[str, int] = MappingProxyType({"train": 400, "val": 150})
RENDERER_VERSION = 1  # raised when the same seed gives other pixels or labels
MINIMUM_SIZE = 96  # pixels; in smaller images hardly any object is complete

_FORMAT = 1  # of the manifest and of the folders
_MANIFEST = "scenes.json"


class _Choices(TypedDict):
    """Settings that must be the same to reuse a folder."""

    format: int
    renderer: int
    seed: int
    size: int
    counts: dict[str, int]
    classes: list[str]
    kinds: list[str]
    task: str


def render_scene(
    seed: int, split: str, index: int, size: int = 320, kind: str | None = None
) -> tuple[np.ndarray, list[SceneObject]]:
    """Render one overhead scene and the objects in it.

    The result depends only on the arguments, not on scenes rendered before. The ground resolution does not depend on
    `size`: a larger image shows more ground.

    Args:
        seed (int): Seed of the data set, 0 or more.
        split (str): `train`, `val` or any other name. Each split has its own scenes.
        index (int): Index of the image in its split, from 0.
        size (int): Side of the image in pixels, 96 or more.
        kind (str | None): One of `SCENE_KINDS`; drawn at random if None.

    Returns:
        image (np.ndarray): (size, size, 3) uint8, channels in the order blue, green, red.
        objects (list[SceneObject]): Its labelled objects. Objects with less than 40 % inside the image are drawn, but
            not labelled.

    Raises:
        DS2D2Error: If an argument is out of range.

    Example:
        >>> image, objects = render_scene(seed=0, split="val", index=0, size=128, kind="town")
        >>> image.shape, str(image.dtype)
        ((128, 128, 3), 'uint8')
        >>> {CLASS_NAMES[item.class_index] for item in objects} <= set(CLASS_NAMES)
        True
    """
    if kind is not None and kind not in KINDS:
        raise DS2D2Error(f"kind={kind}: no such kind of scene; choose one of {', '.join(SCENE_KINDS)}")
    _check_numbers(seed, size)
    if index < 0:
        raise DS2D2Error(f"index={index}: images are counted from 0; pass index=0 or more")
    rng = np.random.default_rng([seed, zlib.crc32(split.encode()), index])
    shares = np.array([scene.share for scene in KINDS.values()])
    drawn = str(rng.choice(SCENE_KINDS, p=shares / shares.sum()))
    scene = KINDS[kind or drawn]
    canvas = Canvas(rng, size, float(np.exp(rng.uniform(np.log(scene.finest), np.log(scene.coarsest)))))
    climate = draw_climate(rng)
    scene.draw(canvas, climate)
    ground = canvas.develop(rng.uniform(4.0, 9.0), climate.leaves)
    return _photograph(ground, rng), canvas.objects


def render_dataset(
    folder: Path | str,
    counts: Mapping[str, int] = DEFAULT_COUNTS,
    size: int = 320,
    seed: int = 0,
    task: str = "detect",
    classes: Sequence[str] = CLASS_NAMES,
    kinds: Sequence[str] = SCENE_KINDS,
) -> Path:
    """Render the data set into a folder, unless it exists already.

    The folder has these files, with coordinates as shares of the image's side:

    - `images/<split>/000000.png`
    - `labels/<split>/000000.txt`: lines `class x y width height`, the hull of the visible part of the rectangle.
    - `labels_obb/<split>/000000.txt`: lines `class x1 y1 ... x4 y4`, each corner clipped to the image, clockwise from
      the front left. For the task `obb` they are in `labels` instead, as Ultralytics needs.
    - `scenes.json`: the manifest, written last.

    The data set is rendered under another name beside `folder` and renamed when it is complete. So `folder` is never
    incomplete, also after an interruption. Of two simultaneous calls, the second uses the result of the first.

    Args:
        folder (Path | str): Folder of the data set. It must not exist, or have exactly this data set.
        counts (Mapping[str, int]): Number of images of every split.
        size (int): Side of the images in pixels, 96 or more.
        seed (int): 0 or more; another seed gives other scenes.
        task (str): Task of the labels, `detect` or `obb`.
        classes (Sequence[str]): Labelled classes from `CLASS_NAMES`, in the order of their numbers. Objects of other
            classes are drawn, too.
        kinds (Sequence[str]): From `SCENE_KINDS`. If all are given, they are chosen at random by their shares. A
            selection is used in turn.

    Returns:
        (Path): The folder, absolute.

    Raises:
        DS2D2Error: If an argument is out of range, or the folder has other contents or cannot be written.

    Example:
        >>> import tempfile
        >>> folder = render_dataset(Path(tempfile.mkdtemp()) / "scenes", {"train": 2, "val": 1}, size=96)
        >>> sorted(path.name for path in folder.iterdir())
        ['images', 'labels', 'labels_obb', 'scenes.json']
    """
    _check_numbers(seed, size)
    for split, count in counts.items():
        if not re.fullmatch(r"[\w-]+", split) or count < 1:
            raise DS2D2Error(f"counts: {split}={count}: give every split a plain name and at least one image")
    if task not in _LABELS:
        raise DS2D2Error(f"task={task}: choose one of {', '.join(_LABELS)}")
    if not counts:
        raise DS2D2Error("counts: names no split; name at least one")
    _check_names("classes", classes, CLASS_NAMES)
    _check_names("kinds", kinds, SCENE_KINDS)
    target = Path(folder).expanduser().absolute()
    chosen: _Choices = {
        "format": _FORMAT,
        "renderer": RENDERER_VERSION,
        "seed": seed,
        "size": size,
        "counts": dict(counts),
        "classes": list(classes),
        "kinds": list(kinds),
        "task": task,
    }
    if target.exists() or target.is_symlink():
        _check_finished(target, chosen)
        return target
    with atomic_folder(target, "scenes", check=lambda folder: _check_finished(folder, chosen)) as partial:
        _render_into(partial, chosen)
    return target


def _check_numbers(seed: int, size: int) -> None:
    if seed < 0:
        raise DS2D2Error(f"seed={seed}: must be 0 or more; pass for example seed=0")
    if size < MINIMUM_SIZE:
        raise DS2D2Error(f"size={size}: scenes need {MINIMUM_SIZE} pixels; pass size={MINIMUM_SIZE} or more")


def _check_names(argument: str, names: Sequence[str], choices: Sequence[str]) -> None:
    if unknown := [name for name in names if name not in choices]:
        raise DS2D2Error(f"{argument}: no such name as {unknown[0]}; choose from {', '.join(choices)}")
    if not names or len(set(names)) < len(names):
        raise DS2D2Error(f"{argument}={list(names)}: name at least one, and none twice")


# -------------------------------------------------------------------------------------------------- camera


def _photograph(image: Array, rng: np.random.Generator) -> Array:
    """Simulate a camera: add clouds, haze, colour cast, contrast, blur and noise."""
    size = len(image)
    light: Array = image.astype(np.float32)
    if rng.random() < 0.1:
        light = _add_clouds(light, rng)
    haze = np.array(palette("b4bcc4")[0], np.float64)
    veil = rng.uniform(0.0, 0.26) ** 1.3
    contrast, brightness = rng.uniform(0.82, 1.2), rng.normal(0.0, 8.0)
    cast = rng.normal(1.0, 0.022, 3)
    # Haze, contrast, colour cast and saturation are linear in the colour: one matrix for all.
    saturation = rng.uniform(0.55, 0.98)
    mix = (saturation * np.eye(3) + (1 - saturation) / 3) @ np.diag(cast * contrast)
    shift = mix @ (haze * veil + (112 + brightness) / contrast - 112)
    light = np.asarray(cv2.transform(light, np.column_stack([mix * (1 - veil), shift]).astype(np.float32)))
    blur = rng.uniform(0.0, 0.75)
    if blur > 0.25:
        light = cv2.GaussianBlur(light, (0, 0), blur)
    if rng.random() < 0.4:
        light = cv2.addWeighted(light, 1.5, cv2.GaussianBlur(light, (0, 0), 1.2), -0.5, 0.0)
    # Part of the sensor noise is the same in the three channels.
    common, single = rng.uniform(0.8, 4.0), rng.uniform(0.3, 1.6)
    grain = rng.standard_normal((size, size, 3), dtype=np.float32)
    spread = (np.full((3, 3), common / np.sqrt(3)) + single * np.eye(3)).astype(np.float32)
    light = cv2.add(light, cv2.transform(grain, spread))
    return np.asarray(cv2.convertScaleAbs(np.maximum(light, 0)), dtype=np.uint8)


def _add_clouds(light: Array, rng: np.random.Generator) -> Array:
    """Add thin clouds to parts of the picture. The ground below stays recognisable."""
    field = value_noise(rng, len(light), 0.6 * len(light), 5).astype(np.float32)
    cover = np.clip((field - rng.uniform(120, 150)) / 90, 0, rng.uniform(0.2, 0.5))[..., None]
    return np.asarray(light * (1 - cover) + 228 * cover, dtype=np.float32)


# ------------------------------------------------------------------------------------------------ data set


def _render_into(folder: Path, chosen: _Choices) -> None:
    """Render all images and labels of a data set, then its manifest."""
    from ultralytics.utils import TQDM

    counted: dict[str, dict[str, int]] = {}
    progress = TQDM(
        total=sum(chosen["counts"].values()), desc="Rendering overhead scenes", unit="image", file=sys.stderr
    )
    classes, kinds, lines = chosen["classes"], chosen["kinds"], _LABELS[chosen["task"]]
    numbers = {CLASS_NAMES.index(name): number for number, name in enumerate(classes)}
    for split, count in chosen["counts"].items():
        for label in ("images", *lines):
            (folder / label / split).mkdir(parents=True)
        objects_of_class: Counter[str] = Counter()
        for index in range(count):
            kind = None if len(kinds) == len(KINDS) else kinds[index % len(kinds)]
            image, objects = render_scene(chosen["seed"], split, index, chosen["size"], kind)
            objects = [item for item in objects if item.class_index in numbers]
            _write_image(folder / "images" / split / f"{index:06d}.png", image)
            name = f"{index:06d}.txt"
            for label, line in lines.items():
                (folder / label / split / name).write_text("".join(line(item, numbers) for item in objects))
            objects_of_class.update(CLASS_NAMES[item.class_index] for item in objects)
            progress.update(1)
        counted[split] = {name: objects_of_class[name] for name in classes}
    progress.close()
    manifest = {**chosen, "objects": counted, "made_with": {"numpy": np.__version__, "opencv": cv2.__version__}}
    write_json(folder / _MANIFEST, manifest)


def _write_image(path: Path, image: Array) -> None:
    # Encoded in memory: OpenCV's own writer fails silently, for example on paths that are not ASCII.
    _, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    path.write_bytes(data.tobytes())


def _box_line(item: SceneObject, numbers_of_classes: Mapping[int, int]) -> str:
    left, top, right, bottom = (value / item.size for value in item.box)
    numbers = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
    return " ".join([str(numbers_of_classes[item.class_index]), *(f"{number:.6f}" for number in numbers)]) + "\n"


def _corners_line(item: SceneObject, numbers_of_classes: Mapping[int, int]) -> str:
    numbers = np.clip(item.corners / item.size, 0.0, 1.0).ravel()
    return " ".join([str(numbers_of_classes[item.class_index]), *(f"{number:.6f}" for number in numbers)]) + "\n"


_LABELS: dict[str, dict[str, Callable[[SceneObject, Mapping[int, int]], str]]] = {
    "detect": {"labels": _box_line, "labels_obb": _corners_line},
    "obb": {"labels": _corners_line},
}


def _check_finished(folder: Path, chosen: _Choices) -> None:
    """Raise an error if a folder does not have the chosen data set, complete."""
    advice = "remove it, or choose another folder"
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
    except (OSError, ValueError):
        raise DS2D2Error(f"{folder}: exists and is not a rendered data set (no {_MANIFEST}); {advice}") from None
    for key, value in chosen.items():
        found = manifest.get(key) if isinstance(manifest, dict) else None
        if found != value:
            raise DS2D2Error(f"{folder}: exists with {key}={found} instead of {value}; {advice}")
    for split, count in chosen["counts"].items():
        present = sum(1 for _ in (folder / "images" / split).glob("*.png"))
        if present < count:
            raise DS2D2Error(f"{folder}: has {present} of {count} images of the split {split}; {advice}")
