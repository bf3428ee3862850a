"""How a student's feature maps approach its teacher's during a training, as arrays."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, TypedDict

import torch
from ultralytics.utils.torch_utils import unwrap_model

from ds2d2_yolo.detectors import detector_of
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.explanation.explainer import tap_maps
from ds2d2_yolo.explanation.images import InputImage, Window, input_step, pair_inputs, read_image, spread_out
from ds2d2_yolo.explanation.views import LevelView, view_levels
from ds2d2_yolo.loading.images import images_of_split
from ds2d2_yolo.training.adapters import adapt
from ds2d2_yolo.training.student import StudentTrainer


class ModelContent(TypedDict):
    """A model of a pair, as JSON values."""

    model: str
    box_coding: str


class LevelContent(TypedDict):
    """A level of a pair, as JSON values: layers, channels, stride, and the terms that use it."""

    student_layer: int
    teacher_layer: int
    student_channels: int
    teacher_channels: int
    stride: float
    explicit: bool
    implicit: bool


class PairContent(TypedDict):
    """What a training compares, as JSON values. Gains that are not yet calibrated are `auto`."""

    student: ModelContent
    teacher: ModelContent
    classes: list[str]
    gains: dict[str, float | str]
    shares: dict[str, float]
    weight: str
    wavelet: str
    levels: list[LevelContent]


def choose_images(trainer: StudentTrainer, number: int) -> list[InputImage]:
    """Read a few validation images that have objects, at even distances.

    Args:
        trainer (StudentTrainer): The trainer, after training has started.
        number (int): Largest number of images.

    Returns:
        (list[InputImage]): The images.
    """
    args, classes = trainer.args, len(trainer.data["names"])
    points = trainer.data["kpt_shape"] if args.task == "pose" else (0, 0)
    chosen: list[InputImage] = []
    for path in spread_out(images_of_split(trainer.data["val"]), 4 * number):
        try:
            image = read_image(path, classes, True, args.single_cls, args.task, points, args.classes)
        except DS2D2Error:
            continue  # Ultralytics has already reported damaged images
        if len(image.boxes):
            chosen.append(image)
        if len(chosen) == number:
            break
    return chosen


def view_student(trainer: StudentTrainer, image: InputImage) -> tuple[tuple[LevelView, ...], Window]:
    """Compare the EMA of the student, which is saved, with the teacher.

    Args:
        trainer (StudentTrainer): The trainer, during training.
        image (InputImage): The image.

    Returns:
        views (tuple[LevelView, ...]): By level, the finest first.
        window (Window): The area that the padded input covers.
    """
    assert trainer.distiller is not None
    assert trainer.pair is not None
    ema: Any = trainer.ema  # None for type checkers: Ultralytics makes it when training starts
    model: Any = unwrap_model(ema.ema)  # includes the adapters
    student, distiller, pair = detector_of(model), trainer.distiller, trainer.pair
    step = input_step(student, distiller.teacher, pair.ratio)
    pixels, large, window = pair_inputs(image, trainer.args.imgsz, step, trainer.device, pair.ratio)
    with torch.no_grad():
        _, student_maps = tap_maps(student, pair.student_layers, lambda: model(pixels))
        outputs = distiller.run_teacher(large)
        teacher_maps = [outputs.maps[index].float() for index in pair.head]
        confidence = None
        if distiller.loss.weight == "confidence":
            confidence = distiller.confidence(outputs)
        adapted = []
        for index in pair.head:
            x, adapter = student_maps[index].float(), model.ds2d2_adapters[index]
            adapted.append(adapt(adapter.weight.float().flatten(1), x) if hasattr(adapter, "weight") else x)
        views = view_levels(
            image,
            adapted,
            teacher_maps,
            [pair.taps[index].stride for index in pair.head],
            window,
            (pixels.shape[2], pixels.shape[3]),
            distiller.loss.wavelet,
            distiller.loss.weight,
            confidence,
            trainer.args.footprint == "hull",
        )
        return tuple(views), window


def describe_pair(trainer: StudentTrainer) -> PairContent:
    """Return what a training compares.

    Args:
        trainer (StudentTrainer): The trainer, after training has started.

    Returns:
        (PairContent): The content of `pair.json`.
    """
    assert trainer.distiller is not None
    assert trainer.pair is not None
    student, distiller, pair = trainer.detector, trainer.distiller, trainer.pair
    shares = dict(distiller.calibration.shares) if distiller.calibration is not None else {}
    return {
        "student": {"model": student.title, "box_coding": student.box_coding},
        "teacher": {"model": distiller.teacher.title, "box_coding": distiller.teacher.box_coding},
        "classes": distiller.teacher.class_names,
        "gains": asdict(distiller.loss.gains) | dict.fromkeys(shares, "auto"),
        "shares": shares,
        "weight": distiller.loss.weight,
        "wavelet": distiller.loss.wavelet,
        "levels": [
            {
                "student_layer": tap.student_layer,
                "teacher_layer": tap.teacher_layer,
                "student_channels": tap.student_channels,
                "teacher_channels": tap.teacher_channels,
                "stride": tap.stride,
                "explicit": index in pair.explicit,
                "implicit": index in pair.head,
            }
            for index, tap in enumerate(pair.taps)
        ],
    }
