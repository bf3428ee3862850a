"""`ds2d2 merge`: detections of tiles back into their images."""

from __future__ import annotations

from collections.abc import Sequence

from ds2d2_yolo.commands.words import parse_arguments
from ds2d2_yolo.data.merge import run_merge


def run(arguments: Sequence[str]) -> int:
    """Run the command with the words after its name."""
    return run_merge(parse_arguments(arguments))
