"""`ds2d2 train`: trains teacher, amplifier and student. Finished stages are reused."""

from __future__ import annotations

from collections.abc import Sequence

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
    print(f"  yolo predict model={shorter(student)} source=path/to/images    # plain Ultralytics from here on")
    print(f"  ds2d2 report {shorter(trainer.save_dir)}    # a page about this run")
