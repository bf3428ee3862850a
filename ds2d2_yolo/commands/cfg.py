"""`ds2d2 cfg`: prints the arguments of training, or of a mode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ultralytics.utils import DEFAULT_CFG_PATH

from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.resources import resource_folder

_FILES = {"train": ("default",), "teacher": ("default",), "amplifier": ("default",), "demo": ("default", "compare")}


def run(words: Sequence[str]) -> None:
    """Run the command with the words after its name."""
    folder = resource_folder("cfg")
    for mode in words:
        for name in _FILES.get(mode, (mode,)):
            if not (folder / f"{name}.yaml").is_file() or mode == "default":
                raise DS2D2Error(f"'{mode}': no mode with arguments; run 'ds2d2 cfg' for those of training", 2)
            print((folder / f"{name}.yaml").read_text(encoding="utf-8"))
    if words:
        return
    print((folder / "default.yaml").read_text(encoding="utf-8"))
    print(Path(DEFAULT_CFG_PATH).read_text(encoding="utf-8"))
