"""Accuracy of students trained plainly, with Ultralytics' own distillation and with DS2D2, on one data set.

All methods see the same data in the same order, the same schedule, and the same seeds; results are those of the
checkpoint that Ultralytics keeps as best, on the validation set. The optimiser steps after every batch: with the small
sets this is meant for, Ultralytics' nominal batch of 64 would leave too few steps. Finished runs are reused, so that a
series can be interrupted and extended. Arguments of ds2d2 follow a colon. Example:

    python benchmarks/accuracy.py --data data.yaml --teacher yolo11s.yaml --methods plain builtin ds2d2:im_full=4
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import statistics
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import ultralytics.engine.trainer as ultralytics_trainer
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import SETTINGS

from ds2d2_yolo.cli import parse_arguments
from ds2d2_yolo.engine import AmplifierTrainer, DS2D2Trainer
from ds2d2_yolo.engine.fingerprint import fingerprint_of_inputs
from ds2d2_yolo.engine.trainer import OwnArgumentsTrainer

if TYPE_CHECKING:
    from collections.abc import Iterator

METRICS = {"AP50": "metrics/mAP50(B)", "AP50-95": "metrics/mAP50-95(B)"}


@contextmanager
def cpu_bfloat16(enabled: bool) -> Iterator[None]:
    """Train in bfloat16 on the CPU, which Ultralytics has for GPUs only; halves the time where the CPU has AMX."""
    original = ultralytics_trainer.autocast
    if enabled:
        ultralytics_trainer.autocast = lambda *_, **__: torch.autocast("cpu", torch.bfloat16)
    try:
        yield
    finally:
        ultralytics_trainer.autocast = original


def channels_last(trainer: Any) -> None:
    """Callback: the memory layout in which CPUs convolve fastest."""
    trainer.model.to(memory_format=torch.channels_last)
    trainer.ema.ema.to(memory_format=torch.channels_last)
    if getattr(trainer, "distiller", None) is not None:
        trainer.distiller.teacher.model.to(memory_format=torch.channels_last)
        if trainer.distiller.amplifier is not None:
            trainer.distiller.amplifier.to(memory_format=torch.channels_last)


def train(
    trainer_class: type[DetectionTrainer], arguments: dict[str, Any], folder: Path, bfloat16: bool
) -> dict[str, Any]:
    """Train once, or return the result of the same training done before."""
    key = fingerprint_of_inputs({"trainer": trainer_class.__name__, **arguments})
    record = folder / f"{arguments['name']}-{key[:8]}.json"
    if record.is_file():
        return dict(json.loads(record.read_text(encoding="utf-8")))
    trainer = trainer_class(overrides={**arguments, "project": str(folder), "exist_ok": True, "plots": False})
    if bfloat16:
        trainer.add_callback("on_pretrain_routine_end", channels_last)
    start = time.time()
    with cpu_bfloat16(bfloat16):
        trainer.train()
    metrics: Any = trainer.metrics
    result: dict[str, Any] = {name: float(metrics[metric]) for name, metric in METRICS.items()}
    result |= {"seconds": time.time() - start, "weights": str(getattr(trainer, "amplifier", trainer.best))}
    record.write_text(json.dumps(result), encoding="utf-8")
    return result


def main() -> None:
    """Run the series and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="data YAML")
    parser.add_argument("--teacher", required=True, help="trained teacher, or a model YAML to train one")
    parser.add_argument("--student", default="yolo11n.yaml", help="model YAML of the student")
    parser.add_argument("--methods", nargs="+", default=["plain", "builtin", "ds2d2"], help="see above")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--teacher-epochs", type=int, default=60)
    parser.add_argument("--amplifier-epochs", type=int, default=15)
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr0", type=float, default=0.001)
    parser.add_argument("--arguments", nargs="*", default=[], help="of Ultralytics, for every training: mosaic=0 ...")
    parser.add_argument("--out", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("--bfloat16", action="store_true", help="train in bfloat16 on the CPU")
    options = parser.parse_args()

    folder = options.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    SETTINGS.update({"tensorboard": False})
    shared = {"data": options.data, "imgsz": options.imgsz, "batch": options.batch, "nbs": options.batch}
    shared |= {"optimizer": "AdamW", "lr0": options.lr0, "warmup_bias_lr": 0.0}
    shared |= {"device": "cpu"} if options.bfloat16 or not torch.cuda.is_available() else {}
    shared |= {"amp": False} if options.bfloat16 else {}
    shared |= parse_arguments(options.arguments)
    teacher = options.teacher
    if not teacher.endswith(".pt"):
        schedule = {"epochs": options.teacher_epochs, "seed": 100, "name": "teacher"}
        teacher = train(OwnArgumentsTrainer, {**shared, **schedule, "model": teacher}, folder, options.bfloat16)[
            "weights"
        ]
    amplifier = None
    if any(method.startswith("ds2d2") and "amplifier=" not in method for method in options.methods):
        schedule = {"epochs": options.amplifier_epochs, "seed": 100, "name": "amplifier", "model": teacher}
        amplifier = train(AmplifierTrainer, {**shared, **schedule}, folder, options.bfloat16)["weights"]

    rows: list[dict[str, Any]] = []
    for seed in options.seeds:
        for method in options.methods:
            arguments = {**shared, "model": options.student, "epochs": options.epochs, "seed": seed}
            # Some file systems refuse the ":" and "=" of a method
            arguments["name"] = re.sub(r"[^\w.-]+", "_", f"{method}-{seed}")
            trainer_class: type[DetectionTrainer] = OwnArgumentsTrainer  # it knows every detector family
            if method == "builtin":
                trainer_class = DetectionTrainer
                arguments["distill_model"] = teacher
            elif method.startswith("ds2d2"):
                trainer_class = DS2D2Trainer
                own = parse_arguments(method.partition(":")[2].split(",")) if ":" in method else {}
                arguments |= {"teacher": teacher, "amplifier": amplifier, **own}
            rows.append({"method": method, "seed": seed, **train(trainer_class, arguments, folder, options.bfloat16)})
            print(rows[-1], flush=True)

    table = folder / "accuracy.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    width = max(map(len, options.methods)) + 2
    print(f"\n{'method':<{width}}" + "".join(f"{name:>22}" for name in METRICS) + f"{'minutes':>10}")
    for method in options.methods:
        line = f"{method:<{width}}"
        for name in METRICS:
            values = [row[name] for row in rows if row["method"] == method]
            line += f"{statistics.median(values):>10.3f} ({min(values):.3f}-{max(values):.3f})".rjust(22)
        minutes = statistics.median(row["seconds"] for row in rows if row["method"] == method) / 60
        print(line + f"{minutes:>10.1f}")
    print(f"\nteacher {teacher}\ntable   {table}")


if __name__ == "__main__":
    main()
