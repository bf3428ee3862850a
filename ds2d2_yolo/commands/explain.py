"""`ds2d2 explain`: what distillation compares, image by image."""

from __future__ import annotations

from collections.abc import Sequence

from ds2d2_yolo.commands.words import parse_arguments
from ds2d2_yolo.report.explain import run_explain


def run(arguments: Sequence[str]) -> int:
    """Run the command with the words after its name."""
    return run_explain(parse_arguments(arguments))
