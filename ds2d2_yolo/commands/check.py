"""`ds2d2 check`: what a data set holds, and whether training on it would fail or lose labels."""

from __future__ import annotations

from collections.abc import Sequence

from ds2d2_yolo.commands.words import parse_arguments
from ds2d2_yolo.report.dataset import run_check


def run(arguments: Sequence[str]) -> int:
    """Run the command with the words after its name."""
    return run_check(parse_arguments(arguments))
