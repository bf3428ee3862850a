"""What a teacher and its student see in an image, as arrays: bands, weights, errors, predictions, detections."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from ultralytics.data.augment import LetterBox
from ultralytics.data.utils import img2label_paths, verify_image_label
from ultralytics.utils.ops import xywhn2xyxy, xyxyxyxy2xywhr
from ultralytics.utils.patches import imread

from ds2d2_yolo.detectors import Detector, Taps, hulls_of
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.method import (
    decompose,
    density_independent_scale_weight,
    explicit_errors,
    focus_weight,
    high_frequency_maps,
)
from ds2d2_yolo.training.adapters import adapt, find_adapters, fit_adapters
from ds2d2_yolo.training.pair import Pair

BANDS = ("LL", "LH", "HL", "HH")
"""The bands in the order of `ds2d2_yolo.method.Bands`."""


@dataclass(frozen=True)
class Picture:
    """An image and what is known about it.

    Attributes:
        path (Path): Its file.
        pixels (np.ndarray): (H, W, 3) uint8, RGB.
        boxes (np.ndarray): Objects (G, 4) as xyxy pixels, or (G, 5) oriented as xywhr: pixels and radians.
        labels (np.ndarray): Their classes (G,).
        labelled (bool): Whether the objects are known; an image without any may be known to have none.
    """

    path: Path
    pixels: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    labelled: bool


@dataclass(frozen=True)
class LevelView:
    """One level of the pyramid, on the grid of its bands.

    Attributes:
        stride (float): Pixels of the input per cell of the map; a cell of the bands spans two.
        teacher (dict[str, np.ndarray]): Energy of every band (h, w): root of the mean square over the channels.
        student (dict[str, np.ndarray]): Likewise, of the adapted maps.
        low (np.ndarray): Squared error of LL (h, w), mean over the channels: before it is weighted.
        high (np.ndarray): Squared error of the detail bands, mean over channels and bands.
        disw (np.ndarray): Density-independent scale weight (h, w).
        weight (np.ndarray): Weight that is used (h, w): the mean of an error times it is the level's part of a term.
        explained (float): Share of the teacher's energy in this image that the adapted student's map explains, at
            most 1; below 0 where an empty map were closer.
    """

    stride: float
    teacher: dict[str, np.ndarray]
    student: dict[str, np.ndarray]
    low: np.ndarray
    high: np.ndarray
    disw: np.ndarray
    weight: np.ndarray
    explained: float


@dataclass(frozen=True)
class DifferenceView:
    """Where predictions from the two pyramids differ, seen through one head; (h, w) on a canvas over the input.

    Every place of prediction (the cell of an anchor, a region) spreads its difference evenly over its area, as DISW
    spreads an object; so the sum over the canvas is the sum over all places.
    """

    classes: np.ndarray
    boxes: np.ndarray


@dataclass(frozen=True)
class Explanation:
    """Everything about one image.

    Attributes:
        picture (Picture): The image.
        window (tuple[float, float, float, float]): Left, right, bottom and top of the padded input in pixels of the
            image: the extent that all maps cover.
        levels (tuple[LevelView, ...]): By level, the finest first.
        differences (dict[str, DifferenceView]): By head: `im_full`, and `im_high` where there is an amplifier.
        detections (dict[str, np.ndarray]): By role, (N, 6) or (N, 7) by falling confidence: boxes as those of the
            picture, confidence, class.
        weight (str): Which weight is used, one of `ds2d2_yolo.method.WEIGHTS`.
    """

    picture: Picture
    window: tuple[float, float, float, float]
    levels: tuple[LevelView, ...]
    differences: dict[str, DifferenceView]
    detections: dict[str, np.ndarray]
    weight: str


class Explainer:
    """Looks at images with a teacher, its student, and where given an amplifier and a plain student.

    Every model runs once per image: its maps are tapped while it detects.

    Args:
        teacher (Detector): The trained teacher.
        student (Detector): The distilled student, without adapters, as it leaves training.
        pair (Pair): Their levels.
        imgsz (int): Side at which the models look at the images, in pixels.
        amplifier (nn.Module | None): The teacher's high-frequency amplifier.
        plain (Detector | None): A student trained without the teacher.
        wavelet (str): Name of an orthogonal wavelet of PyWavelets.
        confidence (float): Least confidence of a detection.
        weight (str): Weight of the explicit terms, one of `ds2d2_yolo.method.WEIGHTS`.
        hulls (bool): Whether oriented objects weigh on their upright hulls, not on their own boxes.

    Attributes:
        adapters (list[torch.Tensor]): Weights (Ct, Cs) of the levels' adapters, once found or fitted.
        origin (str): Where the adapters come from, as a sentence for people.
    """

    def __init__(
        self,
        teacher: Detector,
        student: Detector,
        pair: Pair,
        imgsz: int,
        amplifier: nn.Module | None = None,
        plain: Detector | None = None,
        wavelet: str = "haar",
        confidence: float = 0.25,
        weight: str = "confidence",
        hulls: bool = False,
    ) -> None:
        self.teacher, self.student, self.plain = teacher, student, plain
        self.amplifier, self.wavelet, self.confidence = amplifier, wavelet, confidence
        self.weight, self.hulls = weight, hulls
        self._guest: Detector | None = None
        if weight == "confidence":  # told by a frozen teacher, as in training; this one is going to detect
            self._guest = type(teacher)(copy.deepcopy(teacher.model))
            self._guest.freeze()
        self._strides = [pair.taps[index].stride for index in pair.head]
        self._same_channels = [
            pair.taps[index].student_channels == pair.taps[index].teacher_channels for index in pair.head
        ]
        self._imgsz = imgsz
        self._step = max(32, *(int(detector.model.stride.max()) for detector in (teacher, student)))
        self.adapters: list[torch.Tensor] = []
        self.origin = ""

    def take_adapters(self, path: Path) -> bool:
        """Take the adapters that were trained with the student, where they were kept.

        Args:
            path (Path): `adapters.pt` beside the student's checkpoint.

        Returns:
            (bool): Whether they were there, for all levels.
        """
        found = find_adapters(path, self.student.model)
        if not all(level in found for level in range(len(self._strides))):
            return False
        self.adapters = [found[level].to(self._device) for level in range(len(self._strides))]
        self.origin = f"those trained with this student ({path.name})"
        return True

    def fit_adapters(self, images: Sequence[Path], what: str, read: Callable[[Path], Picture]) -> None:
        """Fit adapters by least squares to as many images as the levels' channels ask for.

        Args:
            images (Sequence[Path]): Images to choose from, evenly.
            what (str): What they are, such as `training images`.
            read (Callable): Reads one.
        """
        student, _ = self._maps_of(read(images[0]))
        need = max(_CELLS_PER_CHANNEL * x.shape[1] / (x.shape[2] * x.shape[3]) for x in student)
        wanted = min(max(math.ceil(need), _FEWEST_IMAGES), _MOST_IMAGES, len(images))
        chosen = spread_out(images, wanted)
        self.adapters = fit_adapters(self._maps_of(read(path)) for path in chosen)
        scarce = "" if need <= wanted else "; too few for the coarse levels, whose errors look smaller than they are"
        self.origin = f"fitted by least squares to {wanted} {what}{scarce}"

    def explain(self, picture: Picture) -> Explanation:
        """Look at an image.

        Args:
            picture (Picture): The image.

        Returns:
            (Explanation): What the models see in it.

        Raises:
            ValueError: If there are no adapters yet.
        """
        if not self.adapters:
            raise ValueError("Explainer.explain needs adapters: take or fit them first")
        images, window = input_of(picture, self._imgsz, self._step, self._device)
        found: dict[str, torch.Tensor] = {}
        found["teacher"], known = _detect_and_tap(self.teacher, images, self.confidence)
        if self.plain is not None:
            found["plain student"], _ = _detect_and_tap(self.plain, images, self.confidence)
        found["distilled student"], own = _detect_and_tap(self.student, images, self.confidence)
        adapted = [adapt(weight, x) for weight, x in zip(self.adapters, own, strict=True)]
        size = (images.shape[2], images.shape[3])
        sure = None
        if self._guest is not None:
            with torch.no_grad():
                sure = self._guest.confidence(self._guest.forward_teacher(images), known)
        settings = self.wavelet, self.weight, sure, self.hulls
        views = view_levels(picture, adapted, known, self._strides, window, size, *settings)
        return Explanation(
            picture,
            window,
            tuple(views),
            self._difference_views(own, adapted, known, size),
            {role: _to_image(boxes, window, size, picture) for role, boxes in found.items()},
            self.weight,
        )

    @property
    def _device(self) -> torch.device:
        device: torch.device = next(self.student.model.parameters()).device
        return device

    def _maps_of(self, picture: Picture) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        images, _ = input_of(picture, self._imgsz, self._step, self._device)
        _, student = _detect_and_tap(self.student, images, self.confidence)
        _, teacher = _detect_and_tap(self.teacher, images, self.confidence)
        return student, teacher

    def _difference_views(
        self,
        own: Sequence[torch.Tensor],
        adapted: Sequence[torch.Tensor],
        known: Sequence[torch.Tensor],
        size: tuple[int, int],
    ) -> dict[str, DifferenceView]:
        places = self.teacher.places(known)
        if places is None:
            return {}
        # As in the loss: the student's own maps where the channels agree, adapted ones where they differ
        seen = [x if same else y for x, y, same in zip(own, adapted, self._same_channels, strict=True)]
        heads: dict[str, tuple[nn.Module, Sequence[torch.Tensor], Sequence[torch.Tensor]]] = {
            "im_full": (self.teacher.implicit_part(self.teacher.head), seen, known)
        }
        if self.amplifier is not None:
            high = [high_frequency_maps(maps, self.wavelet) for maps in (seen, known)]
            heads["im_high"] = (self.amplifier, high[0], high[1])
        views = {}
        for name, (head, ours, theirs) in heads.items():
            classes, boxes = self.teacher.differences(head, ours, theirs, places)
            views[name] = DifferenceView(*(spread_over(places, values, size) for values in (classes, boxes)))
        return views


_CELLS_PER_CHANNEL = 8  # of the coarsest level, from which a fit says something about other images, too
_FEWEST_IMAGES, _MOST_IMAGES = 8, 128
_EPSILON = 1e-9  # the mean of weights, where the teacher is sure of nothing
_CANVAS = 4  # pixels of the input along a side of a canvas's cell


def read_picture(
    path: Path,
    classes: int,
    labelled: bool = False,
    single_cls: bool = False,
    task: str = "detect",
    points: Sequence[int] = (0, 0),
) -> Picture:
    """Read an image and its labels, as Ultralytics reads them.

    Args:
        path (Path): The image.
        classes (int): Number of classes.
        labelled (bool): Whether an image without label file is known to have no objects.
        single_cls (bool): Whether all objects count as one class.
        task (str): What the labels are for; objects of `obb` are oriented.
        points (Sequence[int]): Number of keypoints and of values of each, for `pose`.

    Returns:
        (Picture): The image.

    Raises:
        DS2D2Error: If the image cannot be decoded, or its labels are damaged.
    """
    pixels = imread(path, cv2.IMREAD_COLOR)
    if pixels is None:
        raise DS2D2Error(f"{path}: cannot be read as an image")
    label = img2label_paths([str(path)])[0]
    checked = verify_image_label((str(path), label, "", task == "pose", classes, *points, single_cls))
    _, rows, _, polygons, *_, corrupt, message = checked
    if corrupt:
        raise DS2D2Error(message)
    height, width = pixels.shape[:2]
    if task == "obb":
        if len(polygons) != len(rows):
            raise DS2D2Error(f"{label}: holds boxes, task=obb needs the four corners of each object")
        corners = [polygon.reshape(-1, 2) * np.array([width, height], np.float32) for polygon in polygons]
        boxes = np.concatenate([np.zeros((0, 5)), *(xyxyxyxy2xywhr(own.reshape(1, -1)) for own in corners)])
    else:
        boxes = xywhn2xyxy(np.asarray(rows[:, 1:], np.float64), width, height)
    numbers = np.zeros(len(rows), int) if single_cls else rows[:, 0].astype(int)
    known = labelled or Path(label).is_file()
    return Picture(path, cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), boxes, numbers, known)


def input_of(
    picture: Picture, imgsz: int, step: int, device: torch.device
) -> tuple[torch.Tensor, tuple[float, float, float, float]]:
    """Return an image as `predict` gives it to models, and the window that it then shows.

    Args:
        picture (Picture): The image.
        imgsz (int): Longer side, in pixels.
        step (int): What its sides are padded to a multiple of.
        device (torch.device): Where the models are.

    Returns:
        images (torch.Tensor): (1, 3, H, W) in [0, 1].
        window (tuple[float, float, float, float]): Left, right, bottom and top of it, in pixels of the image.
    """
    padded: Any = LetterBox(imgsz, auto=True, stride=step)(image=picture.pixels)
    height, width = picture.pixels.shape[:2]
    ratio = min(imgsz / height, imgsz / width)
    inner = max(round(width * ratio), 1), max(round(height * ratio), 1)
    left, top = round((padded.shape[1] - inner[0]) / 2 - 0.1), round((padded.shape[0] - inner[1]) / 2 - 0.1)
    x, y = width / inner[0], height / inner[1]
    window = (-left * x, (padded.shape[1] - left) * x, (padded.shape[0] - top) * y, -top * y)
    images = torch.from_numpy(np.ascontiguousarray(padded.transpose(2, 0, 1))).to(device)[None].float() / 255
    return images, window


def view_levels(
    picture: Picture,
    adapted: Sequence[torch.Tensor],
    known: Sequence[torch.Tensor],
    strides: Sequence[float],
    window: tuple[float, float, float, float],
    size: tuple[int, int],
    wavelet: str,
    weight: str = "disw",
    confidence: Sequence[torch.Tensor] | None = None,
    hulls: bool = False,
) -> Iterable[LevelView]:
    """Yield what the explicit terms compare, level by level.

    Args:
        picture (Picture): The image.
        adapted (Sequence[torch.Tensor]): The student's maps in the teacher's channels (1, Ct_l, H_l, W_l).
        known (Sequence[torch.Tensor]): The teacher's, of the same shapes.
        strides (Sequence[float]): Strides of the levels.
        window (tuple): Window of the input, from `input_of`.
        size (tuple[int, int]): Height and width of the input, in pixels.
        wavelet (str): Name of an orthogonal wavelet of PyWavelets.
        weight (str): Weight of the explicit terms, one of `ds2d2_yolo.method.WEIGHTS`.
        confidence (Sequence[torch.Tensor] | None): The teacher's confidence (1, 1, H_l, W_l) in [0, 1], where
            the weight is `confidence`.
        hulls (bool): Whether oriented objects weigh on their upright hulls, not on their own boxes.

    Yields:
        (LevelView): The level.
    """
    errors = [explicit_errors(ours, theirs, wavelet) for ours, theirs in zip(adapted, known, strict=True)]
    boxes = torch.from_numpy(_to_input(picture.boxes, window, size))
    if hulls:
        boxes = hulls_of(boxes)
    grids = [(low.shape[2], low.shape[3]) for low, _ in errors]
    disws = density_independent_scale_weight(boxes, torch.zeros(len(boxes)), 1, size, grids)
    sure: Sequence[torch.Tensor | None] = [None] * len(disws) if confidence is None else [x.cpu() for x in confidence]
    used = [_used_weight(disw, weight, own) for disw, own in zip(disws, sure, strict=True)]
    every = zip(strides, adapted, known, errors, disws, used, strict=True)
    for stride, ours, theirs, (low, high), disw, own_weight in every:
        explained = 1 - (ours - theirs).square().sum() / theirs.square().sum().clamp(min=1e-12)
        bands = _energies(theirs, wavelet), _energies(ours, wavelet)
        yield LevelView(stride, *bands, _array(low), _array(high), _array(disw), _array(own_weight), float(explained))


def _used_weight(disw: torch.Tensor, weight: str, confidence: torch.Tensor | None) -> torch.Tensor:
    """Return the weight (1, 1, h, w) under which the mean of an error is what the loss makes of it."""
    if weight != "confidence":
        return disw if weight == "disw" else torch.ones_like(disw)
    assert confidence is not None
    focused = focus_weight(disw, confidence)
    return focused / focused.mean().clamp(min=_EPSILON)


def spread_out(items: Sequence[Any], number: int) -> list[Any]:
    """Return so many of some items, at even distances; all where there are no more.

    Example:
        >>> spread_out([0, 1, 2, 3, 4, 5], 3)
        [0, 2, 4]
    """
    return [items[index * len(items) // number] for index in range(number)] if number < len(items) else list(items)


def spread_over(places: torch.Tensor, values: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    """Spread the value of every place evenly over the cells of a canvas that it covers.

    Args:
        places (torch.Tensor): Places (N, 4) as xyxy pixels of the input; what lies outside is cut off.
        values (torch.Tensor): Values (N,), at least 0.
        size (tuple[int, int]): Height and width of the input, in pixels.

    Returns:
        (np.ndarray): Canvas (h, w) float64, one cell for 4 x 4 pixels; it adds up to the values of the places inside.

    Example:
        >>> canvas = spread_over(torch.tensor([[0.0, 0.0, 8.0, 8.0]]), torch.tensor([4.0]), (16, 16))
        >>> canvas[0].tolist()
        [1.0, 1.0, 0.0, 0.0]
    """
    height, width = -(-size[0] // _CANVAS), -(-size[1] // _CANVAS)
    corners, amounts = places.cpu().double().numpy() / _CANVAS, values.cpu().double().numpy()
    left, top = (np.clip(np.floor(corners[:, i]), 0, n - 1).astype(int) for i, n in ((0, width), (1, height)))
    right, bottom = (np.clip(np.ceil(corners[:, i]), 1, n).astype(int) for i, n in ((2, width), (3, height)))
    inside = (corners[:, 2] > 0) & (corners[:, 3] > 0) & (corners[:, 0] < width) & (corners[:, 1] < height)
    inside &= (right > left) & (bottom > top)
    left, top, right, bottom = left[inside], top[inside], right[inside], bottom[inside]
    share = amounts[inside] / ((right - left) * (bottom - top))
    table = np.zeros((height + 1, width + 1))
    for rows, columns, sign in ((top, left, 1), (top, right, -1), (bottom, left, -1), (bottom, right, 1)):
        np.add.at(table, (rows, columns), sign * share)
    canvas: np.ndarray = table.cumsum(0).cumsum(1)[:height, :width]
    return canvas.clip(min=0)  # sums of floating-point numbers may end a little below


def _detect_and_tap(
    detector: Detector, images: torch.Tensor, confidence: float
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return the detections (N, 6) or (N, 7) of one image and the maps that the head was given."""
    taps = Taps()
    taps.open({index: detector.layer(index) for index in detector.head_layers})
    try:
        (found,) = detector.detect(images, confidence)
    finally:
        maps = taps.close()
    return found, [maps[index] for index in detector.head_layers]


def _energies(x: torch.Tensor, wavelet: str) -> dict[str, np.ndarray]:
    """Return the root of the mean square over the channels of every band (h, w) of a map (1, C, H, W)."""
    bands = decompose(x, wavelet)
    return {name: _array(band.square().mean(1, keepdim=True).sqrt()) for name, band in zip(BANDS, bands, strict=True)}


def _array(x: torch.Tensor) -> np.ndarray:
    array: np.ndarray = x[0, 0].float().cpu().numpy()
    return array


def _scales(
    window: tuple[float, float, float, float], size: tuple[int, int], oriented: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the corner of the window and pixels of the image per pixel of the input, for xyxy (4,) or xywhr (5,)."""
    left, right, bottom, top = window
    x, y = (right - left) / size[1], (bottom - top) / size[0]
    if oriented:  # x and y differ by the rounding to whole pixels alone
        return np.array([left, top, 0, 0, 0]), np.array([x, y, math.sqrt(x * y), math.sqrt(x * y), 1])
    return np.array([left, top, left, top]), np.array([x, y, x, y])


def _to_input(boxes: np.ndarray, window: tuple[float, float, float, float], size: tuple[int, int]) -> np.ndarray:
    """Return boxes (N, 4) or (N, 5) of the image in pixels of the input."""
    corner, scale = _scales(window, size, boxes.shape[1] == 5)
    moved: np.ndarray = (boxes - corner) / scale
    return moved


def _to_image(
    found: torch.Tensor, window: tuple[float, float, float, float], size: tuple[int, int], picture: Picture
) -> np.ndarray:
    """Return detections (N, 6) or (N, 7) of the input in pixels of the image; upright ones are cut at its rim."""
    rows: np.ndarray = found.cpu().double().numpy()
    oriented = rows.shape[1] == 7
    corner, scale = _scales(window, size, oriented)
    height, width = picture.pixels.shape[:2]
    boxes = rows[:, :-2] * scale + corner
    rows[:, :-2] = boxes if oriented else boxes.clip(0, [width, height, width, height])
    return rows


def metrics_of(explanation: Explanation) -> Mapping[str, float]:
    """Return the numbers of an explanation: the explicit errors of the image, by level, before and after weighting."""
    numbers: dict[str, float] = {}
    for level in explanation.levels:
        for name, error in (("ex_low", level.low), ("ex_high", level.high)):
            numbers[f"{name}/{level.stride:g}"] = float(error.mean())
            numbers[f"{name}_weighted/{level.stride:g}"] = float((error * level.weight).mean())
    for name, view in explanation.differences.items():
        numbers[f"{name}/classes"], numbers[f"{name}/boxes"] = float(view.classes.sum()), float(view.boxes.sum())
    return numbers
