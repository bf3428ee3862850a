"""`ds2d2 train`: teacher, amplifier and student; finished stages are reused."""

from __future__ import annotations

from collections.abc import Sequence

from ds2d2_yolo.commands.words import announce, parse_arguments
from ds2d2_yolo.trainer import DS2D2Trainer


def run(words: Sequence[str]) -> None:
    """Run the command with the words after its name."""
    trainer = DS2D2Trainer(overrides=parse_arguments(words))
    trainer.train()
    announce(trainer.best if trainer.best.exists() else trainer.last, "student")
