"""`ds2d2 amplifier`: trains only the high-frequency amplifier of a teacher, which many students can use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ds2d2_yolo.commands.words import announce, parse_arguments
from ds2d2_yolo.training.pipeline import plan


def run(words: Sequence[str]) -> None:
    """Run the command with the words after its name."""
    done = plan(parse_arguments(words), "amplifier").run()
    announce(Path(str(done.arguments.amplifier)), "amplifier")
