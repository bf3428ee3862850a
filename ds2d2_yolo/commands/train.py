"""`ds2d2 train`: trains teacher, amplifier and student. Finished stages are reused."""

from __future__ import annotations

from collections.abc import Sequence

from ultralytics.nn.tasks import load_checkpoint

from ds2d2_yolo.commands.words import announce, parse_arguments, shorter
from ds2d2_yolo.trainer import DS2D2Trainer

FIRST_STEPS = """\
ds2d2 train teacher=yolo11l.pt student=yolo11n.pt data=path/to/data.yaml epochs=100    # your own data
ds2d2 demo                                                                             # rendered scenes
ds2d2 cfg                                                                              # every argument"""


def run(words: Sequence[str]) -> None:
    """Train with the words after the command's name. Without words, print commands for beginners."""
    if not words:
        print(FIRST_STEPS)
        return
    trainer = DS2D2Trainer(overrides=parse_arguments(words))
    trainer.train()
    student = trainer.best if trainer.best.exists() else trainer.last
    announce(student, "student")
    package = type(load_checkpoint(student)[0]).__module__.partition(".")[0]  # with several GPUs, no model is here
    comment = "plain Ultralytics from here on" if package == "ultralytics" else f"{package} must be installed"
    print(f"  yolo predict model={shorter(student)} source=path/to/images    # {comment}")
    print(f"  ds2d2 report {shorter(trainer.save_dir)}    # a page about this run")
