"""Pairs the feature maps of teacher and student."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ds2d2_yolo.detectors import Detector, tapped
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.method import TappedMaps


@dataclass(frozen=True)
class TappedPair:
    """One pair of tapped maps: layer indices, channels, and the student's stride in input pixels per grid cell."""

    student_layer: int
    teacher_layer: int
    student_channels: int
    teacher_channels: int
    stride: float


@dataclass(frozen=True)
class Pair:
    """The maps of teacher and student to compare, one pair for each level.

    `explicit` and `head` are indices into `taps`, as in `ds2d2_yolo.method.TappedMaps`.

    Attributes:
        taps (tuple[TappedPair, ...]): The maps.
        explicit (tuple[int, ...]): Which of them the explicit terms compare.
        head (tuple[int, ...]): Which of them the heads take.
        ratio (int): Side of the teacher's images, and of its maps, in sides of the student's.
    """

    taps: tuple[TappedPair, ...]
    explicit: tuple[int, ...]
    head: tuple[int, ...]
    ratio: int = 1

    @property
    def maps(self) -> TappedMaps:
        """Channels and roles of the maps, for the loss."""
        return TappedMaps(
            student=tuple(tap.student_channels for tap in self.taps),
            teacher=tuple(tap.teacher_channels for tap in self.taps),
            explicit=self.explicit,
            head=self.head,
        )

    @property
    def is_uniform(self) -> bool:
        """Whether all levels have the same channels, in the student and in the teacher."""
        return len({(tap.student_channels, tap.teacher_channels) for tap in self.taps}) == 1

    @property
    def student_layers(self) -> tuple[int, ...]:
        """Tapped layers of the student."""
        return tuple(tap.student_layer for tap in self.taps)

    @property
    def teacher_layers(self) -> tuple[int, ...]:
        """Tapped layers of the teacher."""
        return tuple(tap.teacher_layer for tap in self.taps)

    def table_lines(self) -> list[str]:
        """Return the lines of a printed table: strides, layers, channels, and the terms that use each level."""
        lines = [f"  {'stride':>8}{'student layer':>16}{'channels':>10}{'teacher layer':>16}{'channels':>10}   used by"]
        for index, tap in enumerate(self.taps):
            uses = [name for name, chosen in (("explicit", self.explicit), ("implicit", self.head)) if index in chosen]
            lines.append(
                f"  {tap.stride:>8g}{tap.student_layer:>16}{tap.student_channels:>10}{tap.teacher_layer:>16}"
                f"{tap.teacher_channels:>10}   {', '.join(uses)}"
            )
        return lines


def check_tasks(teacher: Detector, student: Detector) -> None:
    """Raise an error if teacher and student have different tasks."""
    if teacher.task != student.task:
        raise DS2D2Error(
            f"teacher {teacher.title} is for task={teacher.task}, student {student.title} for task={student.task}; "
            f"pass a student for task={teacher.task}"
        )


def check_pair(
    teacher: Detector,
    student: Detector,
    imgsz: int,
    layers: tuple[tuple[int, ...], tuple[int, ...]] | None = None,
    teacher_imgsz: int | None = None,
) -> Pair:
    """Pair the maps of teacher and student, by running both on an empty image.

    Maps have the same stride, each in the pixels of its own model. Where the teacher's images are larger, so are its
    maps, and a step reduces them.

    Args:
        teacher (Detector): The teacher.
        student (Detector): The student.
        imgsz (int): Side of the training images, in pixels.
        layers (tuple | None): Layers for the explicit terms, of the student and of the teacher. None means the inputs
            of the heads.
        teacher_imgsz (int | None): Side of the teacher's images, in pixels; None takes `imgsz`.

    Returns:
        (Pair): The paired maps.

    Raises:
        DS2D2Error: If families, levels or strides differ, an image size is not a multiple of the strides, a layer
            cannot be tapped, or `teacher_imgsz` is not a multiple of `imgsz`.
    """
    _check_heads(teacher, student)
    check_size(student, imgsz)
    check_image_sizes(teacher, imgsz, teacher_imgsz)
    layers_of_heads = list(zip(student.head_layers, teacher.head_layers, strict=True))
    named = layers_of_heads if layers is None else list(zip(*layers, strict=True))
    pairs = [*layers_of_heads, *(pair for pair in named if pair not in layers_of_heads)]
    teacher_imgsz = imgsz if teacher_imgsz is None else teacher_imgsz
    own_shapes = _map_shapes(student, [pair[0] for pair in pairs], imgsz)
    shapes = _map_shapes(teacher, [pair[1] for pair in pairs], teacher_imgsz)
    ratio = teacher_imgsz // imgsz
    for layers_of_pair, own, other in zip(pairs, own_shapes, shapes, strict=True):
        if own[1:] != tuple(math.ceil(side / ratio) for side in other[1:]):
            raise DS2D2Error(
                f"layer {layers_of_pair[0]} of student {student.title} has stride {_stride(imgsz, own):g}, layer "
                f"{layers_of_pair[1]} of teacher {teacher.title} has stride {_stride(teacher_imgsz, other):g}; pass "
                "layers= or a student with the same strides"
            )
    return Pair(
        taps=tuple(
            TappedPair(*layers_of_pair, own[0], other[0], _stride(imgsz, own))
            for layers_of_pair, own, other in zip(pairs, own_shapes, shapes, strict=True)
        ),
        explicit=tuple(map(pairs.index, named)),
        head=tuple(range(len(layers_of_heads))),
        ratio=ratio,
    )


def check_image_sizes(teacher: Detector, imgsz: int, teacher_imgsz: int | None) -> None:
    """Raise an error if the teacher cannot take images of its size, or that is no multiple of the student's."""
    if teacher_imgsz is None or teacher_imgsz == imgsz or not isinstance(imgsz, int):
        check_size(teacher, imgsz)
        return
    if teacher_imgsz < imgsz:
        raise DS2D2Error(
            f"teacher_imgsz={teacher_imgsz}: is smaller than imgsz={imgsz}; pass teacher_imgsz={2 * imgsz}, or leave "
            "it out"
        )
    if imgsz % 32:  # a multiple of the strides, but Ultralytics also rounds up to a multiple of 32
        size = 32 * math.ceil(imgsz / 32)
        raise DS2D2Error(
            f"imgsz={imgsz}: is rounded up to {size}, and teacher_imgsz={teacher_imgsz} is not; pass imgsz={size} "
            f"teacher_imgsz={size * max(2, round(teacher_imgsz / imgsz))}"
        )
    if teacher_imgsz % imgsz:
        lower = teacher_imgsz // imgsz
        fit = " or ".join(f"teacher_imgsz={factor * imgsz}" for factor in (lower, lower + 1) if factor > 1)
        raise DS2D2Error(
            f"teacher_imgsz={teacher_imgsz}: is {teacher_imgsz / imgsz:.4g} times imgsz={imgsz}, not a multiple; pass "
            f"{fit}"
        )
    check_size(teacher, teacher_imgsz, "teacher_imgsz")


def _check_heads(teacher: Detector, student: Detector) -> None:
    """Raise an error if the heads of teacher and student cannot be compared."""
    by_maps = teacher.explicit_only or student.explicit_only
    if teacher.family != student.family and not by_maps:
        raise DS2D2Error(
            f"teacher is a {teacher.family}, student is a {student.family}; pass a student of family {teacher.family}, "
            "or train it with preset=self-training and unlabeled=, which compares no models"
        )
    check_tasks(teacher, student)
    if len(teacher.head_layers) != len(student.head_layers):
        raise DS2D2Error(
            f"teacher {teacher.title} has {len(teacher.head_layers)} levels, student {student.title} has "
            f"{len(student.head_layers)}; pass a student with the strides of the teacher"
        )
    if teacher.head_layout != student.head_layout and not by_maps:
        raise DS2D2Error(
            f"teacher {teacher.title} has a head with {teacher.head_layout}, student {student.title} has one with "
            f"{student.head_layout}; pass a student with {teacher.head_layout}"
        )


def check_size(detector: Detector, imgsz: int, name: str = "imgsz") -> None:
    """Raise an error if an image size is not a multiple of a model's largest stride."""
    step = int(max(detector.model.stride))
    if not isinstance(imgsz, (int, float)):
        raise DS2D2Error(f"{name}={imgsz}: expected one number; pass {name}={20 * step}")
    if imgsz % step or imgsz < 2 * step or not isinstance(imgsz, int):
        fit = max(2 * step, round(imgsz / step) * step)
        raise DS2D2Error(
            f"{name}={imgsz}: {detector.title} needs a multiple of {step}, at least {2 * step}; pass {name}={fit}"
        )


def _map_shapes(detector: Detector, layers: Sequence[int], imgsz: int) -> list[tuple[int, int, int]]:
    """Return channels, height and width of the output of each layer for one image."""
    stem = next(detector.model.parameters())
    image = torch.zeros(1, stem.shape[1], imgsz, imgsz, device=stem.device)
    try:
        modules = {index: detector.layer(index) for index in layers}
    except IndexError as error:
        raise DS2D2Error(f"layers=: {error}; leave layers= out, or pass others") from error
    training = detector.model.training
    detector.model.eval()  # an empty image must not change the BatchNorm statistics
    try:
        with torch.no_grad():
            _, outputs = tapped(modules, lambda: detector.model(image))
    finally:
        detector.model.train(training)
    for index in layers:
        if not isinstance(outputs.get(index), torch.Tensor) or outputs[index].dim() != 4:
            raise DS2D2Error(
                f"layers=: layer {index} of {detector.title} returns no feature map; leave layers= out, or pass others"
            )
    return [(outputs[i].shape[1], outputs[i].shape[2], outputs[i].shape[3]) for i in layers]


def _stride(imgsz: int, shape: tuple[int, int, int]) -> float:
    """Return the stride of a map (C, H, W): the nearest power of two, as the size of a coarse level is rounded up."""
    return 2.0 ** round(math.log2(imgsz / shape[1]))
