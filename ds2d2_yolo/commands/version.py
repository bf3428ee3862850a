"""`ds2d2 version`."""

from __future__ import annotations

from collections.abc import Sequence

from ultralytics import __version__ as ultralytics_version

from ds2d2_yolo import __version__


def run(words: Sequence[str]) -> None:
    """Run the command with the words after its name."""
    print(f"ds2d2-yolo {__version__}, ultralytics {ultralytics_version}")
