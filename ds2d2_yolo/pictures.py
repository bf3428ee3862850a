"""Pictures in the run folder of a distillation: arrays from `explanation`, drawn by `report`.

This module connects training and report, which do not import each other.
"""

from __future__ import annotations

from collections.abc import Callable

from ultralytics.utils import LOGGER, colorstr

from ds2d2_yolo.explanation.images import InputImage, Window
from ds2d2_yolo.explanation.progress import choose_images, describe_pair, view_student
from ds2d2_yolo.explanation.views import LevelView
from ds2d2_yolo.files import write_json
from ds2d2_yolo.report.charts import draw_curves
from ds2d2_yolo.report.progress import (
    BANDS_PICTURE,
    LOGARITHMIC,
    TERMS_PICTURE,
    curves_of_terms,
    draw_progress,
)
from ds2d2_yolo.training.results import PAIR_FILE, read_columns
from ds2d2_yolo.training.student import StudentTrainer

_IMAGES = 2


Callback = Callable[[StudentTrainer], None]


def add_pictures(trainer: StudentTrainer) -> None:
    """Make a trainer save `pair.json`, `ds2d2_terms.png` and `ds2d2_bands_*.png` in its run folder.

    Pictures are registered as plots of Ultralytics, so that its loggers upload them. Errors during drawing are reported
    and do not end the training.

    Args:
        trainer (StudentTrainer): The trainer, before training.
    """
    album = _Album()
    events: dict[str, Callback] = {
        "on_train_start": album.start,
        "on_fit_epoch_end": album.look_between,
        "on_train_end": album.finish,
    }
    for event, callback in events.items():
        trainer.add_callback(event, _reported(callback))


class _Album:
    """Records views of a few validation images at the start, in the middle and at the end of a distillation."""

    def __init__(self) -> None:
        self.images: list[InputImage] = []
        self.history: dict[str, list[tuple[LevelView, ...]]] = {}
        self.windows: list[Window] = []

    def start(self, trainer: StudentTrainer) -> None:
        if trainer.distiller is None:
            return
        write_json(trainer.save_dir / PAIR_FILE, describe_pair(trainer), indent=1)
        if trainer.data["channels"] == 3:
            self.images = choose_images(trainer, _IMAGES)
            self._record_views(trainer, f"epoch {trainer.start_epoch}")

    def look_between(self, trainer: StudentTrainer) -> None:
        done = trainer.epoch + 1
        is_last = trainer.arguments.is_plain(done, trainer.epochs)  # the teacher is removed before the next epoch
        if self.images and trainer.distiller is not None and (is_last or done == trainer.epochs // 2):
            self._record_views(trainer, f"epoch {done}")

    def finish(self, trainer: StudentTrainer) -> None:
        columns = read_columns(trainer.csv)
        if groups := curves_of_terms(columns):
            canvas = draw_curves(groups, columns["epoch"], logarithmic=LOGARITHMIC)
            trainer.on_plot(canvas.save(trainer.save_dir / TERMS_PICTURE))
        if not self.images:
            return
        if trainer.distiller is not None:
            self._record_views(trainer, f"epoch {trainer.epoch + 1}")
        for number, (image, window) in enumerate(zip(self.images, self.windows, strict=True)):
            history = {when: views[number] for when, views in self.history.items()}
            canvas = draw_progress(image, window, history)
            trainer.on_plot(canvas.save(trainer.save_dir / BANDS_PICTURE.format(number)))

    def _record_views(self, trainer: StudentTrainer, when: str) -> None:
        found = [view_student(trainer, image) for image in self.images]
        self.history[when] = [views for views, _ in found]
        self.windows = [window for _, window in found]


def _reported(callback: Callback) -> Callback:
    """Return a callback that reports its errors, as a picture must not end a training of days."""

    def call(trainer: StudentTrainer) -> None:
        try:
            callback(trainer)
        except Exception as error:
            LOGGER.warning(
                f"{colorstr('DS2D2:')} a picture of the training could not be drawn, the training continues "
                f"({type(error).__name__}: {error})"
            )

    return call
