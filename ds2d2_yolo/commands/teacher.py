"""`ds2d2 teacher`: the teacher alone."""

from __future__ import annotations

from collections.abc import Sequence

from ds2d2_yolo.commands.words import announce, parse_arguments
from ds2d2_yolo.training.stages import train_teacher


def run(arguments: Sequence[str]) -> None:
    """Run the command with the words after its name."""
    announce(train_teacher(parse_arguments(arguments)), "teacher")
