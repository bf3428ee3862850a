"""Which maps of a teacher and a student belong together."""

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
    """One pair of tapped maps: layer numbers, channels, and the stride in input pixels per grid cell."""

    student_layer: int
    teacher_layer: int
    student_channels: int
    teacher_channels: int
    stride: float


@dataclass(frozen=True)
class Pair:
    """What a teacher and a student have in common: the maps to compare, level by level.

    `explicit` and `head` index `taps`, as in `ds2d2_yolo.method.TappedMaps`.
    """

    taps: tuple[TappedPair, ...]
    explicit: tuple[int, ...]
    head: tuple[int, ...]

    @property
    def maps(self) -> TappedMaps:
        """Channels and roles, for the loss."""
        return TappedMaps(
            student=tuple(tap.student_channels for tap in self.taps),
            teacher=tuple(tap.teacher_channels for tap in self.taps),
            explicit=self.explicit,
            head=self.head,
        )

    @property
    def is_uniform(self) -> bool:
        """Whether student and teacher have the same channels on every level each."""
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
        """Return a table for a person: strides, layers, channels, and which terms use a level."""
        lines = [f"  {'stride':>8}{'student layer':>16}{'channels':>10}{'teacher layer':>16}{'channels':>10}   used by"]
        for index, tap in enumerate(self.taps):
            uses = [name for name, chosen in (("explicit", self.explicit), ("implicit", self.head)) if index in chosen]
            lines.append(
                f"  {tap.stride:>8g}{tap.student_layer:>16}{tap.student_channels:>10}{tap.teacher_layer:>16}"
                f"{tap.teacher_channels:>10}   {', '.join(uses)}"
            )
        return lines


def check_tasks(teacher: Detector, student: Detector) -> None:
    """Refuse a teacher and a student that are for different tasks."""
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
    """Find out which maps of a pair belong together, by running both on an empty image.

    Args:
        teacher (Detector): The teacher.
        student (Detector): The student.
        imgsz (int): Side of the training images, in pixels.
        layers (tuple | None): (Student's, teacher's) layers for the explicit terms; None takes those that feed heads.

    Returns:
        (Pair): The pair.

    Raises:
        DS2D2Error: If the families differ, the heads take different numbers of levels or strides, the image size does
            not suit them, or a named layer cannot be tapped.
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
                f"{teacher_layer} of teacher {teacher.title} stride {teacher_stride:g}; pass layers= or a student "
                "of the same strides"
            )
        taps.append(TappedPair(student_layer, teacher_layer, student_shape[0], teacher_shape[0], student_stride))
    return Pair(tuple(taps), tuple(map(tapped.index, named)), tuple(range(len(layers_of_heads))))


def _check_heads(teacher: Detector, student: Detector) -> None:
    """Refuse a pair whose heads cannot be compared."""
    by_maps = teacher.explicit_only or student.explicit_only
    if teacher.family != student.family and not by_maps:
        raise DS2D2Error(
            f"teacher is a {teacher.family}, student a {student.family}; pass student= of the family {teacher.family}"
        )
    check_tasks(teacher, student)
    if len(teacher.head_layers) != len(student.head_layers):
        raise DS2D2Error(
            f"teacher {teacher.title} has {len(teacher.head_layers)} levels, student {student.title} "
            f"{len(student.head_layers)}; pass a student with the strides of the teacher"
        )
    if teacher.head_layout != student.head_layout and not by_maps:
        raise DS2D2Error(
            f"teacher {teacher.title} has a head of {teacher.head_layout}, student {student.title} of "
            f"{student.head_layout}; pass a student with a head of {teacher.head_layout}"
        )


def _check_size(detector: Detector, imgsz: int) -> None:
    """Refuse a size of images that does not suit the strides of a model."""
    step = int(max(detector.model.stride))
    if not isinstance(imgsz, int) or imgsz % step or imgsz < 2 * step:
        fit = max(2 * step, round(float(imgsz) / step) * step) if isinstance(imgsz, (int, float)) else 20 * step
        raise DS2D2Error(
            f"imgsz={imgsz}: {detector.title} needs a multiple of {step}, at least {2 * step}; pass imgsz={fit}"
        )


def _map_shapes(detector: Detector, layers: Sequence[int], imgsz: int) -> list[tuple[int, int, int]]:
    """Return channels, height and width of what each layer returns for one image."""
    stem = next(detector.model.parameters())
    taps = Taps()
    training = detector.model.training
    try:
        taps.open({index: detector.layer(index) for index in layers})
        detector.model.eval()  # an empty image must not touch the BatchNorm statistics
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
    """Return the stride of a map (C, H, W): a power of two, also where a coarse level was rounded up."""
    return 2.0 ** round(math.log2(imgsz / shape[1]))
