"""A faster `ds2d2 compare` for CPUs.

Takes the arguments of `ds2d2 compare`. Its runs go into their own project and are not mixed with those of the command.

- `--channels-last`: every training, also of teacher and amplifier, uses the fastest memory layout for convolutions.
- `--bfloat16`: every training also uses PyTorch's autocast for CPUs. This halves the time if the CPU has AMX, and is
  slower without AMX. Ultralytics has mixed precision only for GPUs.

For example:

    python benchmarks/accuracy.py --channels-last teacher=yolo11s.yaml student=yolo11n.yaml data=data.yaml epochs=30
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import ultralytics.engine.trainer as ultralytics_trainer
from ultralytics.utils.callbacks import get_default_callbacks

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.commands.compare import run_compare
from ds2d2_yolo.commands.words import parse_arguments
from ds2d2_yolo.comparison.jobs import WORKER
from ds2d2_yolo.comparison.work import work
from ds2d2_yolo.errors import DS2D2Error

CHANNELS_LAST, BFLOAT16, WORK = "--channels-last", "--bfloat16", "--work"


def channels_last(trainer: Any) -> None:
    """Callback: use the fastest memory layout for convolutions on CPUs."""
    trainer.model.to(memory_format=torch.channels_last)
    trainer.ema.ema.to(memory_format=torch.channels_last)
    if getattr(trainer, "distiller", None) is not None:
        trainer.distiller.teacher.model.to(memory_format=torch.channels_last)
        if trainer.distiller.amplifier is not None:
            trainer.distiller.amplifier.to(memory_format=torch.channels_last)


def work_faster(flag: str) -> int:
    """Run one job of a comparison. The process ends afterwards, so global changes are not undone."""
    if flag == BFLOAT16:
        ultralytics_trainer.autocast = lambda *_, **__: torch.autocast("cpu", torch.bfloat16)
    callbacks = get_default_callbacks()
    callbacks["on_pretrain_routine_end"].append(channels_last)
    return work(DS2D2Trainer, callbacks)


def main() -> int:
    words = sys.argv[1:]
    if words[:1] == [WORK]:
        return work_faster(words[1])
    flags = [word for word in words if word in {CHANNELS_LAST, BFLOAT16}]
    given = parse_arguments([word for word in words if word not in flags])
    worker: Sequence[str] = WORKER
    if flags:
        flag = BFLOAT16 if BFLOAT16 in flags else CHANNELS_LAST
        given = {"project": flag.strip("-"), **given, "device": "cpu", "amp": False}
        worker = (str(Path(__file__).resolve()), WORK, flag)
    run_compare(given, worker)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DS2D2Error as error:
        sys.exit(f"accuracy: error: {error}")
