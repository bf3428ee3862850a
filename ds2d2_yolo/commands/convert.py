"""`ds2d2 convert`: an archive as downloaded into a data set to train on."""

from __future__ import annotations

from collections.abc import Sequence

from ds2d2_yolo.commands.words import parse_arguments
from ds2d2_yolo.data.convert import run_convert


def run(arguments: Sequence[str]) -> int:
    """Run the command with the words after its name."""
    return run_convert(parse_arguments(arguments))
