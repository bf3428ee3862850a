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
    """One pair of tapped maps: layer indices, channels, and the stride in input pixels per grid cell."""

    student_layer: int
    teacher_layer: int
    student_channels: int
    teacher_channels: int
    stride: float


@dataclass(frozen=True)
class Pair:
    """The maps of teacher and student to compare, one pair for each level.

    `explicit` and `head` are indices into `taps`, as in `ds2d2_yolo.method.TappedMaps`.
    """

    taps: tuple[TappedPair, ...]
    explicit: tuple[int, ...]
    head: tuple[int, ...]

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
) -> Pair:
    """Pair the maps of teacher and student, by running both on an empty image.

    Args:
        teacher (Detector): The teacher.
        student (Detector): The student.
        imgsz (int): Side of the training images, in pixels.
        layers (tuple | None): Layers for the explicit terms, of the student and of the teacher. None means the inputs
            of the heads.

    Returns:
        (Pair): The paired maps.

    Raises:
        DS2D2Error: If families, levels or strides differ, the image size is not a multiple of the strides, or a
            layer cannot be tapped.
    """
    _check_heads(teacher, student)
    for detector in (teacher, student):
        _check_size(detector, imgsz)
    layers_of_heads = list(zip(student.head_layers, teacher.head_layers, strict=True))
    named = layers_of_heads if layers is None else list(zip(*layers, strict=True))
    tapped = [*layers_of_heads, *(pair for pair in named if pair not in layers_of_heads)]
    shapes = zip(
        _map_shapes(student, [pair[0] for pair in tapped], imgsz),
        _map_shapes(teacher, [pair[1] for pair in tapped], imgsz),
        strict=True,
    )
    taps = []
    for (student_layer, teacher_layer), (student_shape, teacher_shape) in zip(tapped, shapes, strict=True):
        student_stride, teacher_stride = _stride(imgsz, student_shape), _stride(imgsz, teacher_shape)
        if student_shape[1:] != teacher_shape[1:]:
            raise DS2D2Error(
                f"layer {student_layer} of student {student.title} has stride {student_stride:g}, layer "
                f"{teacher_layer} of teacher {teacher.title} has stride {teacher_stride:g}; pass layers= or a student "
                "with the same strides"
            )
        taps.append(TappedPair(student_layer, teacher_layer, student_shape[0], teacher_shape[0], student_stride))
    return Pair(tuple(taps), tuple(map(tapped.index, named)), tuple(range(len(layers_of_heads))))


def _check_heads(teacher: Detector, student: Detector) -> None:
    """Raise an error if the heads of teacher and student cannot be compared."""
    by_maps = teacher.explicit_only or student.explicit_only
    if teacher.family != student.family and not by_maps:
        raise DS2D2Error(
            f"teacher is a {teacher.family}, student is a {student.family}; pass a student of family {teacher.family}"
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


def _check_size(detector: Detector, imgsz: int) -> None:
    """Raise an error if an image size is not a multiple of a model's largest stride."""
    step = int(max(detector.model.stride))
    if not isinstance(imgsz, int) or imgsz % step or imgsz < 2 * step:
        fit = max(2 * step, round(float(imgsz) / step) * step) if isinstance(imgsz, (int, float)) else 20 * step
        raise DS2D2Error(
            f"imgsz={imgsz}: {detector.title} needs a multiple of {step}, at least {2 * step}; pass imgsz={fit}"
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
