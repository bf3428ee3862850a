"""Measure the memory of a distilled training over many steps: it must not grow.

    python benchmarks/memory.py --steps 2000

The first tenth of the steps does not count: allocators and caches are still growing.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import psutil
from killed import SETTINGS, write_data

from ds2d2_yolo import DS2D2Trainer

_MIB = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    steps = parser.parse_args().steps
    folder = Path(tempfile.mkdtemp())
    overrides = {
        **SETTINGS,
        "teacher": "yolov8n.yaml",
        "student": "yolo11n.yaml",
        "data": str(write_data(folder / "set")),
    }
    overrides |= {"teacher_epochs": 1, "amplifier_epochs": 1, "project": str(folder), "batch": 1, "nbs": 1}
    overrides |= {"epochs": -(-steps // 11), "val": False, "save": False, "optimizer": "SGD", "warmup_epochs": 0}
    used: list[int] = []
    process = psutil.Process()

    def measure(trainer: Any) -> None:
        used.append(process.memory_info().rss)

    trainer = DS2D2Trainer(overrides=overrides)
    trainer.add_callback("on_train_batch_end", measure)
    trainer.train()
    for part in range(10):
        piece = used[part * len(used) // 10 : (part + 1) * len(used) // 10]
        print(f"tenth {part + 1:>2} of {len(used)} steps: {max(piece) / _MIB:.0f} MiB at most")


if __name__ == "__main__":
    main()
