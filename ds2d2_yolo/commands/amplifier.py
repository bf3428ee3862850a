"""`ds2d2 amplifier`: the high-frequency amplifier of a teacher alone; one serves many students."""

from __future__ import annotations

from collections.abc import Sequence

from ds2d2_yolo.commands.words import announce, parse_arguments
from ds2d2_yolo.training.stages import train_amplifier


def run(arguments: Sequence[str]) -> None:
    """Run the command with the words after its name."""
    announce(train_amplifier(parse_arguments(arguments)), "amplifier")
