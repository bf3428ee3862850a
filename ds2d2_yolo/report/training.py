"""Pictures that a distillation leaves in its run folder, drawn by callbacks of Ultralytics' trainer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from ultralytics.utils import LOGGER, colorstr
from ultralytics.utils.torch_utils import unwrap_model

from ds2d2_yolo.detectors import Detector, Taps, detector_of
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.explanation.explainer import LevelView, Picture, input_of, read_picture, spread_out, view_levels
from ds2d2_yolo.loading.fingerprint import images_of_split
from ds2d2_yolo.method import TERMS
from ds2d2_yolo.report.figures import (
    ENERGY,
    ERROR,
    FAINT,
    WEIGHT,
    Canvas,
    draw_curves,
    note,
    outline,
    scale_of,
    show_image,
    show_map,
)
from ds2d2_yolo.training.adapters import adapt
from ds2d2_yolo.training.results import read_columns

PAIR_FILE = "pair.json"
"""What is compared with what, beside args.yaml."""

TERMS_PICTURE, BANDS_PICTURE = "ds2d2_terms.png", "ds2d2_bands_{}.png"

_TITLES = {
    "train": "terms, times gain",
    "val": "terms in validation, times gain",
    "gain": "gains",
    "share": "gradient / detection loss",
}
LOGARITHMIC = (_TITLES["train"], _TITLES["val"], _TITLES["gain"])
"""Titles of curves that need a logarithmic axis."""

_IMAGES = 2


def add_pictures(trainer: Any) -> None:
    """Have a trainer save `pair.json`, `ds2d2_terms.png` and `ds2d2_bands_*.png` in its run folder.

    Pictures are registered as Ultralytics' own plots are, so that its loggers take them up. What goes wrong while
    drawing is reported and does not end the training.

    Args:
        trainer (DS2D2Trainer): The trainer, before training.
    """
    album = _Album()
    events: dict[str, Callable[[Any], None]] = {
        "on_train_start": album.start,
        "on_fit_epoch_end": album.look_at_half_time,
        "on_train_end": album.finish,
    }
    for event, callback in events.items():
        trainer.add_callback(event, _reported(callback))


def curves_of_terms(columns: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Sequence[float]]]:
    """Return what a results.csv says of the terms: values, gains, and shares of the gradient by level.

    Args:
        columns (Mapping[str, Sequence[float]]): Its columns.

    Returns:
        (dict[str, dict[str, Sequence[float]]]): Values by term, by the title of what they are; those of `LOGARITHMIC`
            span decades.

    Example:
        >>> curves_of_terms({"epoch": [1], "gain/ex_low": [0.5], "share/ex_low/8": [0.2]})
        {'gains': {'ex_low': [0.5]}, 'gradient / detection loss, stride 8': {'ex_low': [0.2]}}
    """
    groups: dict[str, dict[str, Sequence[float]]] = {}
    for name, values in columns.items():
        kind, term, *level = name.split("/")[:3] if "/" in name else (name, "")
        term = term.removesuffix("_loss")
        if kind in _TITLES and term in TERMS:
            groups.setdefault(_TITLES[kind] + (f", stride {level[0]}" if level else ""), {})[term] = values
    order = [*_TITLES.values(), *groups]
    return dict(sorted(groups.items(), key=lambda group: order.index(group[0])))


class _Album:
    """Looks at a few validation images at the start, at half time and at the end of a training."""

    def __init__(self) -> None:
        self.pictures: list[Picture] = []
        self.looks: dict[str, list[tuple[LevelView, ...]]] = {}
        self.windows: list[tuple[float, float, float, float]] = []

    def start(self, trainer: Any) -> None:
        if trainer.distiller is None:
            return
        (trainer.save_dir / PAIR_FILE).write_text(json.dumps(_pair_content(trainer), indent=1) + "\n", encoding="utf-8")
        if trainer.data["channels"] == 3:
            self._choose(trainer)
            self._look(trainer, f"epoch {trainer.start_epoch}")

    def look_at_half_time(self, trainer: Any) -> None:
        if self.pictures and trainer.epoch + 1 == trainer.epochs // 2:
            self._look(trainer, f"epoch {trainer.epoch + 1}")

    def finish(self, trainer: Any) -> None:
        if trainer.distiller is None:
            return
        columns = read_columns(trainer.csv)
        if groups := curves_of_terms(columns):
            canvas = draw_curves(groups, columns["epoch"], logarithmic=LOGARITHMIC)
            trainer.on_plot(canvas.save(trainer.save_dir / TERMS_PICTURE))
        if not self.pictures:
            return
        self._look(trainer, f"epoch {trainer.epoch + 1}")
        for number, (picture, window) in enumerate(zip(self.pictures, self.windows, strict=True)):
            looks = {when: views[number] for when, views in self.looks.items()}
            canvas = draw_looks(picture, window, looks)
            trainer.on_plot(canvas.save(trainer.save_dir / BANDS_PICTURE.format(number)))

    def _choose(self, trainer: Any) -> None:
        """Read the images with labels that lie at even distances in the validation set."""
        classes, single = len(trainer.data["names"]), trainer.args.single_cls
        points = trainer.data["kpt_shape"] if trainer.args.task == "pose" else (0, 0)
        images = images_of_split(trainer.data["val"])
        for path in spread_out(images, 4 * _IMAGES):
            try:
                picture = read_picture(path, classes, True, single, trainer.args.task, points)
            except DS2D2Error:
                continue  # Ultralytics has told about damaged images when it read them
            if len(picture.boxes) and len(self.pictures) < _IMAGES:
                self.pictures.append(picture)

    def _look(self, trainer: Any, when: str) -> None:
        """Compare the averaged student, which is what is saved, with the teacher."""
        model: Any = unwrap_model(trainer.ema.ema)
        student, distiller, pair = detector_of(model), trainer.distiller, trainer.pair
        assert student is not None
        step = max(32, *(int(detector.model.stride.max()) for detector in (student, distiller.teacher)))
        views, self.windows = [], []
        for picture in self.pictures:
            images, window = input_of(picture, trainer.args.imgsz, step, trainer.device)
            own = _tap(student, pair.student_layers, model, images)
            predictions, known = distiller.consult(images)
            known = [known[i].float() for i in pair.head]
            sure = None
            if distiller.loss.weight == "confidence":
                with torch.no_grad():
                    sure = distiller.teacher.confidence(predictions, known)
            adapters = model.ds2d2_adapters
            adapted = [
                adapt(adapters[i].weight.float().flatten(1), own[i]) if hasattr(adapters[i], "weight") else own[i]
                for i in pair.head
            ]
            views.append(
                tuple(
                    view_levels(
                        picture,
                        adapted,
                        known,
                        [pair.taps[i].stride for i in pair.head],
                        window,
                        (images.shape[2], images.shape[3]),
                        distiller.loss.wavelet,
                        distiller.loss.weight,
                        sure,
                        trainer.args.disw == "hull",
                    )
                )
            )
            self.windows.append(window)
        self.looks[when] = views


def draw_looks(
    picture: Picture, window: tuple[float, float, float, float], looks: Mapping[str, Sequence[LevelView]]
) -> Canvas:
    """Draw how a student's maps came closer to its teacher's in the course of a training.

    Args:
        picture (Picture): The image.
        window (tuple): Window of the input, as `input_of` returns it.
        looks (Mapping[str, Sequence[LevelView]]): What was seen, by when, in order.

    Returns:
        (Canvas): By level three columns: error under DISW, LL and detail; the first row is the teacher's.
    """
    last = list(looks.values())[-1]
    pixels = picture.pixels.shape[:2]
    aspect = min(max(pixels[0] / pixels[1], 0.4), 1.8)
    width, gap, bar, margin = 1.55, 0.08, 0.8, 0.95
    height = width * aspect
    group = 3 * (width + gap) + 3 * bar
    canvas = Canvas(margin + len(last) * group, 0.75 + (1 + len(looks)) * (height + 0.24) + 0.1)
    canvas.text(0.2, 0.15, picture.path.name, 11, weight="bold")
    place = (window, (pixels[0], pixels[1]))
    for index, stride in enumerate(level.stride for level in last):
        left = margin + index * group
        canvas.text(left, 0.42, f"stride {stride:g}", 9.5, weight="bold")
        views = [levels[index] for levels in looks.values()]
        extra = views[-1].disw - 1
        columns: list[tuple[str, Any, list[np.ndarray]]] = [
            ("weighted error", ERROR, [(view.low + 3 * view.high) / 4 * view.weight for view in views]),
            ("LL", ENERGY, [view.teacher["LL"] for view in views[-1:]] + [view.student["LL"] for view in views]),
            ("LH, HL, HH", ENERGY, [_detail(views[-1].teacher)] + [_detail(view.student) for view in views]),
        ]
        for column, (title, quantity, maps) in enumerate(columns):
            at = left + column * (width + gap + bar)
            scale = scale_of(quantity, maps)
            first = 1 if column == 0 else 0
            if column == 0:
                axes = canvas.axes(at, 0.75, width, height)
                show_image(axes, picture.pixels, grey=True)
                show_map(axes, extra, WEIGHT, scale_of(WEIGHT, [extra]), *place, title="DISW", over=True)
                outline(axes, picture.boxes, "object", 0.6)
                canvas.bar(at + width + 0.04, 0.75, height, WEIGHT, scale_of(WEIGHT, [extra]))
            for row, values in enumerate(maps, first):
                axes = canvas.axes(at, 0.75 + row * (height + 0.24), width, height)
                show_map(axes, values, quantity, scale, *place, title=title if row == first else "")
                if column == 0:
                    note(axes, f"mean {values.mean():.3g}")
            top = 0.75 + first * (height + 0.24)
            canvas.bar(at + width + 0.04, top, len(maps) * (height + 0.24) - 0.24, quantity, scale)
    for row, name in enumerate(["teacher", *looks]):
        middle = 0.75 + row * (height + 0.24) + height / 2
        canvas.text(0.2, middle, name, 9, va="center", color=FAINT)
    return canvas


def _detail(bands: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the energy of the three detail bands together."""
    detail: np.ndarray = np.sqrt(sum(bands[name] ** 2 for name in ("LH", "HL", "HH")) / 3)
    return detail


def _tap(
    detector: Detector, layers: Sequence[int], run: Callable[[torch.Tensor], Any], images: torch.Tensor
) -> list[torch.Tensor]:
    """Return what layers gave in a pass."""
    taps = Taps()
    taps.open({index: detector.layer(index) for index in layers})
    try:
        with torch.no_grad():
            run(images)
    finally:
        outputs = taps.close()
    return [outputs[index].float() for index in layers]


def _reported(callback: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return a callback whose failure is reported: pictures must not end a training of days."""

    def call(trainer: Any) -> None:
        try:
            callback(trainer)
        except Exception as error:
            LOGGER.warning(f"{colorstr('DS2D2:')} pictures of the training: {type(error).__name__}: {error}")

    return call


def _pair_content(trainer: Any) -> dict[str, Any]:
    """Return what is compared with what, as JSON values; gains that are still to be found are `auto`."""
    student, distiller, pair = trainer.detector, trainer.distiller, trainer.pair
    shares = distiller.calibration.shares if distiller.calibration is not None else {}
    return {
        "student": {"model": student.title, "box_coding": student.box_coding},
        "teacher": {"model": distiller.teacher.title, "box_coding": distiller.teacher.box_coding},
        "classes": distiller.teacher.class_names,
        "gains": asdict(distiller.loss.gains) | dict.fromkeys(shares, "auto"),
        "shares": shares,
        "weight": distiller.loss.weight,
        "wavelet": distiller.loss.wavelet,
        "levels": [
            {**asdict(tap), "explicit": index in pair.explicit, "implicit": index in pair.head}
            for index, tap in enumerate(pair.taps)
        ],
    }
