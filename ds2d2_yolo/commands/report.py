"""`ds2d2 report`: a page about a run or a comparison."""

from __future__ import annotations

from collections.abc import Sequence

from ds2d2_yolo.commands.words import parse_arguments
from ds2d2_yolo.report.run import run_report


def run(arguments: Sequence[str]) -> int:
    """Run the command with the words after its name."""
    first, *rest = arguments or [""]
    if first and "=" not in first and not (rest and rest[0].startswith("=")):  # the folder, without run= before it
        arguments = [f"run={first}", *rest]
    return run_report(parse_arguments(arguments))
