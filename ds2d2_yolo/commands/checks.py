"""`ds2d2 checks`: what Ultralytics reports about this machine."""

from __future__ import annotations

from collections.abc import Sequence

from ultralytics.utils.checks import collect_system_info

from ds2d2_yolo import __version__


def run(words: Sequence[str]) -> None:
    """Run the command with the words after its name."""
    print(f"ds2d2-yolo {__version__}")
    collect_system_info()
