"""Everything that a teacher and its student compute in one image, as arrays."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from ds2d2_yolo.detectors import Detector, Explains, tapped
from ds2d2_yolo.explanation.images import InputImage, Window, detections_in_image, input_step, pair_inputs, spread_out
from ds2d2_yolo.explanation.views import DifferenceView, LevelView, spread_over, view_levels
from ds2d2_yolo.method import high_frequency_maps
from ds2d2_yolo.training.adapters import CELLS_PER_CHANNEL, adapt, find_adapters, fit_adapters
from ds2d2_yolo.training.pair import Pair
from ds2d2_yolo.training.step import reduce_confidence, reduce_maps

_FEWEST_IMAGES, _MOST_IMAGES = 8, 128

Result = TypeVar("Result")


@dataclass(frozen=True)
class Explanation:
    """Everything about one image.

    Attributes:
        image (InputImage): The image.
        window (Window): The area that the padded input and every map cover.
        levels (tuple[LevelView, ...]): By level, the finest first.
        differences (dict[str, DifferenceView]): By head: `im_full` and, with an amplifier, `im_high`.
        detections (dict[str, np.ndarray]): By role, (N, 6) or (N, 7) by decreasing confidence: boxes in the format of
            the image's boxes, confidence, class.
        sizes (dict[str, tuple[int, int]]): By role, height and width of the model's input, in pixels.
        weight (str): Weight of the explicit terms, one of `ds2d2_yolo.method.WEIGHTS`.
    """

    image: InputImage
    window: Window
    levels: tuple[LevelView, ...]
    differences: dict[str, DifferenceView]
    detections: dict[str, np.ndarray]
    sizes: dict[str, tuple[int, int]]
    weight: str

    @property
    def numbers(self) -> dict[str, float]:
        """By name: the explicit errors of each level, unweighted and weighted, and the sums of the differences."""
        numbers: dict[str, float] = {}
        for level in self.levels:
            for name, error in (("ex_low", level.low), ("ex_high", level.high)):
                numbers[f"{name}/{level.stride:g}"] = float(error.mean())
                numbers[f"{name}_weighted/{level.stride:g}"] = float((error * level.weight).mean())
        for name, view in self.differences.items():
            numbers[f"{name}/classes"], numbers[f"{name}/boxes"] = float(view.classes.sum()), float(view.boxes.sum())
        return numbers


class Explainer:
    """Explains images with a teacher and its student. An amplifier and a plain student are optional.

    Feature maps are read while a model detects, so every model runs once per image. With `weight="confidence"` the
    teacher runs a second time, frozen as in training: its confidence is the weight.

    Args:
        teacher (Detector): The trained teacher.
        student (Detector): The distilled student, without adapters.
        pair (Pair): Their levels.
        imgsz (int): Input size of the students, in pixels. The teacher's is `pair.ratio` times that.
        amplifier (nn.Module | None): The teacher's high-frequency amplifier.
        plain (Detector | None): A student trained without the teacher.
        wavelet (str): Name of an orthogonal wavelet of PyWavelets.
        confidence (float): Lowest confidence of a detection.
        weight (str): Weight of the explicit terms, one of `ds2d2_yolo.method.WEIGHTS`.
        hulls (bool): Whether the weight of an oriented object covers its upright hull instead of its oriented box.

    Attributes:
        adapters (list[torch.Tensor]): Weights (Ct, Cs) of the levels' adapters, after they were loaded or fitted.
        origin (str): Where the adapters come from, as a text to print.
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
        teacher.ratio = pair.ratio
        self._head = teacher.implicit_part(teacher.head)
        self.amplifier = amplifier
        self.wavelet, self.confidence, self.weight, self.hulls = wavelet, confidence, weight, hulls
        self._pair = pair
        self._frozen_teacher: Detector | None = None
        if weight == "confidence":  # a frozen copy, as in training: `teacher` itself is used for detection
            self._frozen_teacher = type(teacher)(copy.deepcopy(teacher.model))
            self._frozen_teacher.freeze()
        levels = [pair.taps[index] for index in pair.head]
        self._strides = [level.stride for level in levels]
        self._same_channels = [level.student_channels == level.teacher_channels for level in levels]
        self._imgsz = imgsz
        self._step = input_step(student, teacher, pair.ratio)
        self.adapters: list[torch.Tensor] = []
        self.origin = ""

    def load_adapters(self, path: Path) -> bool:
        """Load the adapters that were trained with the student.

        Args:
            path (Path): `adapters.pt` beside the student's checkpoint.

        Returns:
            (bool): Whether the file has adapters for all levels.
        """
        found = find_adapters(path, self.student.model)
        if not all(level in found for level in range(len(self._strides))):
            return False
        self.adapters = [found[level].to(self._device) for level in range(len(self._strides))]
        self.origin = f"those trained with this student ({path.name})"
        return True

    def fit_adapters(self, images: Sequence[Path], what: str, read: Callable[[Path], InputImage]) -> None:
        """Fit adapters by least squares. The number of images depends on the channels of the levels.

        Args:
            images (Sequence[Path]): Images; some are chosen at even distances.
            what (str): Their name in messages, such as `training images`.
            read (Callable): Reads one image.
        """
        student, _ = self.maps(read(images[0]))
        need = max(CELLS_PER_CHANNEL * x.shape[1] / (x.shape[2] * x.shape[3]) for x in student)
        wanted = min(max(math.ceil(need), _FEWEST_IMAGES), _MOST_IMAGES, len(images))
        chosen = spread_out(images, wanted)
        self.adapters = fit_adapters(self.maps(read(path)) for path in chosen)
        scarce = "" if need <= wanted else "; too few for the coarse levels, whose errors look smaller than they are"
        self.origin = f"fitted by least squares to {wanted} {what}{scarce}"

    def maps(self, image: InputImage) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return the feature maps of the head's levels for an image.

        Args:
            image (InputImage): The image.

        Returns:
            student (list[torch.Tensor]): The student's (1, Cs_l, H_l, W_l), before the adapters.
            teacher (list[torch.Tensor]): The teacher's (1, Ct_l, H_l, W_l), reduced to the student's grids.
        """
        own, large, _ = self._inputs(image)
        student, teacher = self._detect(self.student, own)[1], self._detect(self.teacher, large)[1]
        return student, reduce_maps(teacher, self._pair.ratio)

    def explain(self, image: InputImage) -> Explanation:
        """Explain an image.

        Args:
            image (InputImage): The image.

        Returns:
            (Explanation): The arrays that the models compute for it.

        Raises:
            ValueError: If there are no adapters yet.
        """
        if not self.adapters:
            raise ValueError("Explainer.explain needs adapters: take or fit them first")
        pixels, large, window = self._inputs(image)
        found: dict[str, torch.Tensor] = {}
        found["teacher"], large_maps = self._detect(self.teacher, large)
        if self.plain is not None:
            (found["plain student"],) = self.plain.detect(pixels, self.confidence)
        found["distilled student"], student_maps = self._detect(self.student, pixels)
        teacher_maps = reduce_maps(large_maps, self._pair.ratio)
        adapted = [adapt(weight, x) for weight, x in zip(self.adapters, student_maps, strict=True)]
        size = (pixels.shape[2], pixels.shape[3])
        sizes = {role: (large.shape[2], large.shape[3]) if role == "teacher" else size for role in found}
        confidence = None
        frozen = self._frozen_teacher
        if frozen is not None:
            with torch.no_grad():
                raw, maps = tap_maps(frozen, frozen.head_layers, lambda: frozen.forward_teacher(large))
            confidence = reduce_confidence(frozen.confidence(raw, maps), self._pair.ratio)
        settings = self.wavelet, self.weight, confidence, self.hulls
        views = view_levels(image, adapted, teacher_maps, self._strides, window, size, *settings)
        return Explanation(
            image,
            window,
            tuple(views),
            self._difference_views(student_maps, adapted, large_maps, size),
            {role: detections_in_image(boxes, window, sizes[role], image) for role, boxes in found.items()},
            sizes,
            self.weight,
        )

    @property
    def _device(self) -> torch.device:
        device: torch.device = next(self.student.model.parameters()).device
        return device

    def _inputs(self, image: InputImage) -> tuple[torch.Tensor, torch.Tensor, Window]:
        return pair_inputs(image, self._imgsz, self._step, self._device, self._pair.ratio)

    def _detect(self, detector: Detector, pixels: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the detections (N, 6) or (N, 7) of one image and the feature maps of all levels."""
        (found,), maps = tap_maps(detector, detector.head_layers, lambda: detector.detect(pixels, self.confidence))
        return found, maps

    def _difference_views(
        self,
        student_maps: Sequence[torch.Tensor],
        adapted: Sequence[torch.Tensor],
        teacher_maps: Sequence[torch.Tensor],
        size: tuple[int, int],
    ) -> dict[str, DifferenceView]:
        if not isinstance(self.teacher, Explains):
            return {}
        places = self.teacher.places(reduce_maps(teacher_maps, self._pair.ratio))
        # As in the loss: the student's maps are adapted only where the numbers of channels differ
        compared = [x if same else y for x, y, same in zip(student_maps, adapted, self._same_channels, strict=True)]
        heads: dict[str, tuple[nn.Module, Sequence[torch.Tensor], Sequence[torch.Tensor]]] = {
            "im_full": (self._head, compared, teacher_maps)
        }
        if self.amplifier is not None:
            high = [high_frequency_maps(maps, self.wavelet) for maps in (compared, teacher_maps)]
            heads["im_high"] = (self.amplifier, high[0], high[1])
        views = {}
        for name, inputs in heads.items():
            differences = self.teacher.differences(*inputs, places)
            views[name] = DifferenceView(*(spread_over(places, values, size) for values in differences))
        return views


def tap_maps(detector: Detector, layers: Iterable[int], run: Callable[[], Result]) -> tuple[Result, list[torch.Tensor]]:
    """Run a model and return the outputs of some of its layers.

    Args:
        detector (Detector): The model.
        layers (Iterable[int]): Indices of the layers.
        run (Callable): Runs the model.

    Returns:
        result (Result): The return value of `run`.
        maps (list[torch.Tensor]): Outputs of the layers, in the given order.
    """
    result, maps = tapped({index: detector.layer(index) for index in layers}, run)
    return result, [maps[index] for index in layers]
