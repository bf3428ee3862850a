"""Pairs the feature maps of teacher and student."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ds2d2_yolo.detectors import Detector, Taps
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
class LoneMap:
    """A map that feeds the student's head and has no partner: layer number, channels, stride."""

    layer: int
    channels: int
    stride: float


@dataclass(frozen=True)
class Pair:
    """The maps of teacher and student to compare, one pair for each level.

    `explicit` and `head` are indices into `taps`, as in `ds2d2_yolo.method.TappedMaps`.

    Attributes:
        taps (tuple[TappedPair, ...]): The maps.
        explicit (tuple[int, ...]): Which of them the explicit terms compare.
        head (tuple[int, ...]): Which of them the heads take.
        student_levels (tuple[int, ...]): To which levels of the student's head these belong.
        teacher_levels (tuple[int, ...]): To which levels of the teacher's.
        ratio (int): Side of the teacher's images, in sides of the student's.
        alone (tuple[LoneMap, ...]): Maps of the student's head without a partner.
    """

    taps: tuple[TappedPair, ...]
    explicit: tuple[int, ...]
    head: tuple[int, ...]
    student_levels: tuple[int, ...]
    teacher_levels: tuple[int, ...]
    ratio: int = 1
    alone: tuple[LoneMap, ...] = ()

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
        lines += [
            f"  {lone.stride:>8g}{lone.layer:>16}{lone.channels:>10}{'-':>16}{'-':>10}   the student's own loss"
            for lone in self.alone
        ]
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

    Where the teacher's images are larger, maps are paired by their grids: at twice the size, the teacher's map of
    stride 16 has the grid of the student's map of stride 8.

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
        DS2D2Error: If families, levels or strides differ, the image size is not a multiple of the strides, a layer
            cannot be tapped, or no map of the teacher has the grid of one of the student's.
    """
    teacher_imgsz = imgsz if teacher_imgsz is None else teacher_imgsz
    _check_heads(teacher, student, is_same_size=teacher_imgsz == imgsz)
    _check_size(student, imgsz)
    levels = _paired_levels(teacher, student, imgsz, teacher_imgsz)
    layers_of_heads = [(student.head_layers[own], teacher.head_layers[other]) for own, other in levels]
    named = layers_of_heads if layers is None else list(zip(*layers, strict=True))
    tapped = [*layers_of_heads, *(pair for pair in named if pair not in layers_of_heads)]
    lone = [layer for layer in student.head_layers if layer not in dict(layers_of_heads)]
    shapes = _map_shapes(student, [*(pair[0] for pair in tapped), *lone], imgsz)
    own_shapes, rest = shapes[: len(tapped)], zip(lone, shapes[len(tapped) :], strict=True)
    shapes = _map_shapes(teacher, [pair[1] for pair in tapped], teacher_imgsz)
    for layers_of_pair, *shapes_of_pair in zip(tapped, own_shapes, shapes, strict=True):
        _check_grids(teacher, student, layers_of_pair, shapes_of_pair, (imgsz, teacher_imgsz))
    return Pair(
        taps=tuple(
            TappedPair(*layers_of_pair, own[0], other[0], _stride(imgsz, own))
            for layers_of_pair, own, other in zip(tapped, own_shapes, shapes, strict=True)
        ),
        explicit=tuple(map(tapped.index, named)),
        head=tuple(range(len(layers_of_heads))),
        student_levels=tuple(own for own, _ in levels),
        teacher_levels=tuple(other for _, other in levels),
        ratio=teacher_imgsz // imgsz,
        alone=tuple(LoneMap(layer, shape[0], _stride(imgsz, shape)) for layer, shape in rest),
    )


def _check_grids(
    teacher: Detector,
    student: Detector,
    layers: tuple[int, int],
    shapes: Sequence[tuple[int, int, int]],
    sizes: tuple[int, int],
) -> None:
    """Raise an error if two maps have different grids. Layers, shapes (C, H, W) and sizes: student's, teacher's."""
    own, other = shapes
    if own[1:] == other[1:]:
        return
    strides = [f"{_stride(size, shape):g}" for size, shape in zip(sizes, shapes, strict=True)]
    is_same = sizes[0] == sizes[1]
    at = "" if is_same else f", at imgsz={sizes[0]} and teacher_imgsz={sizes[1]}"
    raise DS2D2Error(
        f"layer {layers[0]} of student {student.title} has stride {strides[0]}, layer {layers[1]} of teacher "
        f"{teacher.title} has stride {strides[1]}{at}; pass layers= or a student with "
        f"{'the same' if is_same else 'other'} strides"
    )


def pair_levels(
    student_strides: Sequence[float], teacher_strides: Sequence[float], ratio: float
) -> list[tuple[int, int]]:
    """Return which levels have the same grid where the teacher's images are larger.

    Args:
        student_strides (Sequence[float]): Strides of the student's levels, in pixels of its images.
        teacher_strides (Sequence[float]): Strides of the teacher's levels, in pixels of its own.
        ratio (float): Side of the teacher's images, in sides of the student's.

    Returns:
        (list[tuple[int, int]]): (Student's, teacher's) levels.

    Example:
        >>> pair_levels([8, 16, 32], [8, 16, 32], 2)
        [(0, 1), (1, 2)]
    """
    return [
        (own, other)
        for own, stride in enumerate(student_strides)
        for other, larger in enumerate(teacher_strides)
        if larger == ratio * stride
    ]


def _paired_levels(teacher: Detector, student: Detector, imgsz: int, teacher_imgsz: int) -> list[tuple[int, int]]:
    """Return the (student's, teacher's) levels with the same grid. Raise an error if there are none."""
    if teacher_imgsz == imgsz:
        _check_size(teacher, imgsz)
        return [(level, level) for level in range(len(student.head_layers))]
    if teacher_imgsz < imgsz:
        raise DS2D2Error(
            f"teacher_imgsz={teacher_imgsz}: is smaller than imgsz={imgsz}; pass teacher_imgsz={2 * imgsz}, or leave "
            "it out"
        )
    if imgsz % 32:  # a multiple of the strides, but Ultralytics also rounds up to a multiple of 32
        size = 32 * math.ceil(imgsz / 32)
        raise DS2D2Error(
            f"imgsz={imgsz}: is rounded up to {size}, and teacher_imgsz={teacher_imgsz} is not; pass imgsz={size} "
            f"teacher_imgsz={size * teacher_imgsz // imgsz}"
        )
    own, others = _strides(student), _strides(teacher)
    levels = pair_levels(own, others, teacher_imgsz / imgsz)
    if not levels:
        fit = sorted({int(imgsz * other / stride) for stride in own for other in others if other > stride})
        advice = f"pass {' or '.join(f'teacher_imgsz={size}' for size in fit)}" if fit else "leave teacher_imgsz= out"
        raise DS2D2Error(
            f"teacher_imgsz={teacher_imgsz}: is {teacher_imgsz / imgsz:.4g} times imgsz={imgsz}, and no feature map of "
            f"teacher {teacher.title} has the grid of one of student {student.title} there; {advice}"
        )
    _check_size(teacher, teacher_imgsz, "teacher_imgsz")
    return levels


def _strides(detector: Detector) -> list[float]:
    """Return the strides of the maps that feed a head."""
    size = 4 * int(max(detector.model.stride))  # so that the coarsest levels are not rounded up
    return [_stride(size, shape) for shape in _map_shapes(detector, detector.head_layers, size)]


def _check_heads(teacher: Detector, student: Detector, is_same_size: bool) -> None:
    """Raise an error if the heads of teacher and student cannot be compared."""
    by_maps = teacher.explicit_only or student.explicit_only
    if teacher.family != student.family and not by_maps:
        raise DS2D2Error(
            f"teacher is a {teacher.family}, student is a {student.family}; pass a student of family {teacher.family}"
        )
    check_tasks(teacher, student)
    if is_same_size and len(teacher.head_layers) != len(student.head_layers):
        raise DS2D2Error(
            f"teacher {teacher.title} has {len(teacher.head_layers)} levels, student {student.title} has "
            f"{len(student.head_layers)}; pass a student with the strides of the teacher"
        )
    if teacher.head_layout != student.head_layout and not by_maps:
        raise DS2D2Error(
            f"teacher {teacher.title} has a head with {teacher.head_layout}, student {student.title} has one with "
            f"{student.head_layout}; pass a student with {teacher.head_layout}"
        )


def _check_size(detector: Detector, imgsz: int, name: str = "imgsz") -> None:
    """Raise an error if an image size is not a multiple of a model's largest stride."""
    step = int(max(detector.model.stride))
    if not isinstance(imgsz, int) or imgsz % step or imgsz < 2 * step:
        fit = max(2 * step, round(float(imgsz) / step) * step) if isinstance(imgsz, (int, float)) else 20 * step
        raise DS2D2Error(
            f"{name}={imgsz}: {detector.title} needs a multiple of {step}, at least {2 * step}; pass {name}={fit}"
        )


def _map_shapes(detector: Detector, layers: Sequence[int], imgsz: int) -> list[tuple[int, int, int]]:
    """Return channels, height and width of the output of each layer for one image."""
    stem = next(detector.model.parameters())
    taps = Taps()
    training = detector.model.training
    try:
        taps.open({index: detector.layer(index) for index in layers})
        detector.model.eval()  # an empty image must not change the BatchNorm statistics
        with torch.no_grad():
            detector.model(torch.zeros(1, stem.shape[1], imgsz, imgsz, device=stem.device))
    except IndexError as error:
        raise DS2D2Error(f"layers=: {error}; leave layers= out, or pass others") from error
    finally:
        detector.model.train(training)
        outputs = taps.close()
    for index in layers:
        if not isinstance(outputs.get(index), torch.Tensor) or outputs[index].dim() != 4:
            raise DS2D2Error(
                f"layers=: layer {index} of {detector.title} returns no feature map; leave layers= out, or pass others"
            )
    return [(outputs[i].shape[1], outputs[i].shape[2], outputs[i].shape[3]) for i in layers]


def _stride(imgsz: int, shape: tuple[int, int, int]) -> float:
    """Return the stride of a map (C, H, W): the nearest power of two, as the size of a coarse level is rounded up."""
    return 2.0 ** round(math.log2(imgsz / shape[1]))
