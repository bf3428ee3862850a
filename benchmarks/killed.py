"""Kill a distillation at random moments, continue it, and compare the student with that of an uninterrupted run.

    python benchmarks/killed.py --kills 10
    python benchmarks/killed.py --kills 10 --teacher yolo26s.yaml --student yolo26n.yaml
    python benchmarks/killed.py --kills 3 --plain   # the same with Ultralytics' own trainer alone

Every process is killed with SIGKILL after a random time, in any phase: import, training of teacher, amplifier or
student, validation, saving. Saving is short, so every second kill waits for it. Times are processor times, so that runs
also make progress on a busy machine.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import psutil
import torch
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import load_checkpoint

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.errors import DS2D2Error

SETTINGS = {"imgsz": 64, "batch": 4, "nbs": 12, "warmup_epochs": 1, "close_mosaic": 2, "device": "cpu", "plots": False}


def write_data(folder: Path) -> Path:
    """Write images of rectangles on noise. Return their YAML."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 11), ("val", 4)):
        for index in range(count):
            image = generator.integers(0, 90, (64, 64, 3), np.uint8)
            x, y = (int(value) for value in generator.integers(4, 40, 2))
            cv2.rectangle(image, (x, y), (x + 19, y + 11), (250, 180, 90), -1)
            for kind in ("images", "labels"):
                (folder / kind / split).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / "images" / split / f"{index}.png"), image)
            label = f"0 {(x + 10) / 64} {(y + 6) / 64} {20 / 64} {12 / 64}\n"
            (folder / "labels" / split / f"{index}.txt").write_text(label)
    path = folder / "data.yaml"
    path.write_text(f"path: {folder}\ntrain: images/train\nval: images/val\nnames: [ship]\n")
    return path


def train(overrides: dict[str, object], plain: bool) -> None:
    """Start a run, or continue it."""
    last = Path(str(overrides["project"])) / "student" / "weights" / "last.pt"
    if last.is_file():
        overrides = {"resume": str(last)}
    try:
        (DetectionTrainer if plain else DS2D2Trainer)(overrides=overrides).train()
    except DS2D2Error as error:
        if "nothing to resume" not in str(error):
            raise


def start(overrides: dict[str, object], plain: bool, log: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, __file__, "--child", json.dumps(overrides), *(["--plain"] if plain else [])]
    return subprocess.Popen(words, stdout=log.open("ab"), stderr=subprocess.STDOUT)


def wait_for(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Return the exit code of a process, or None after so many seconds of processor time."""
    started = psutil.Process(process.pid)
    while process.poll() is None and sum(started.cpu_times()[:2]) < seconds:
        time.sleep(0.02)
    return process.poll()


def is_saving(project: Path, since: float) -> bool:
    """Return whether the process started at `since` has incomplete checkpoints. Earlier ones may have left some."""
    with suppress(FileNotFoundError):  # they became complete
        return any(path.stat().st_mtime > since for path in project.glob("*/weights/.partial"))
    return False


def wait_for_saving(process: subprocess.Popen[bytes], project: Path, since: float, delay: float) -> None:
    """Wait until `delay` seconds after the process has begun to save, or until it ends."""
    while process.poll() is None and not is_saving(project, since):
        time.sleep(0.005)
    with suppress(subprocess.TimeoutExpired):
        process.wait(delay)


def stage_of(project: Path) -> str:
    """Return the stage of a run: preparation, or training of the teacher, the amplifier or the student."""
    for stage in ("student", "amplifier", "teacher"):
        if list(project.glob(f"{stage}*")):
            return stage
    return "start"


def result_of(run: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, str]]]:
    """Return all tensors of a student's checkpoints and adapters, and the rows of results.csv without times."""
    tensors = {
        f"{name}:{key}": value
        for name in ("last.pt", "best.pt")
        for key, value in load_checkpoint(run / "weights" / name)[0].state_dict().items()
    }
    if (run / "weights" / "adapters.pt").is_file():
        students = torch.load(run / "weights" / "adapters.pt", weights_only=True)["students"]
        tensors |= {f"{name}:{key}": v for name, own in students.items() for key, v in own["adapters"].items()}
    with (run / "results.csv").open(newline="") as file:
        rows = [{key: value for key, value in row.items() if key != "time"} for row in csv.DictReader(file)]
    return tensors, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--teacher", default="yolov8n.yaml")
    parser.add_argument("--student", default="yolo11n.yaml")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments")
    parser.add_argument("--plain", action="store_true", help="Ultralytics' own trainer, without distillation")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        train(json.loads(options.child), options.plain)
        return
    folder = Path(tempfile.mkdtemp())
    overrides = {**SETTINGS, "model": options.student, "data": str(write_data(folder / "set")), "name": "student"}
    overrides |= {"epochs": options.epochs, "optimizer": "SGD", "exist_ok": True}
    if not options.plain:
        overrides |= {"teacher": options.teacher, "teacher_epochs": 3, "amplifier_epochs": 3}
    process = start({**overrides, "project": str(folder / "whole")}, options.plain, folder / "whole.log")
    if process.wait():
        sys.exit(f"the uninterrupted run failed: {folder / 'whole.log'}")
    duration = sum(os.times()[2:4])  # processor time of the child processes
    moments, kills, rounds = random.Random(options.seed), Counter[str](), 0
    whole, rows = result_of(folder / "whole" / "student")
    while kills.total() < options.kills:
        rounds += 1
        project = folder / f"killed-{rounds}"
        here, code = Counter[str](), None
        while code is None:
            since = time.time()
            process = start({**overrides, "project": str(project)}, options.plain, folder / "killed.log")
            code = wait_for(process, moments.uniform(0.2, 0.6) * duration)
            if code is None:
                if here.total() % 2:
                    wait_for_saving(process, project, since, moments.uniform(0, 0.2))
                code = process.poll()
                if code is None:
                    process.kill()
                    process.wait()
                    here[f"{stage_of(project)}{', saving' if is_saving(project, since) else ''}"] += 1
        if code:
            sys.exit(f"a continued run failed: {folder / 'killed.log'}")
        kills += here
        killed, killed_rows = result_of(project / "student")
        assert whole.keys() == killed.keys()
        differing = sum(not torch.equal(whole[name], killed[name]) for name in whole)
        difference = max(float((whole[name].float() - killed[name].float()).abs().max()) for name in whole)
        print(
            f"run {rounds}, {here.total()} kills ({'; '.join(f'{stage}: {n}' for stage, n in sorted(here.items()))}): "
            f"{differing} of {len(whole)} tensors differ, by {difference:.3g} at most; "
            f"results.csv {'equal' if rows == killed_rows else 'differs'}; "
            f"files: {', '.join(sorted(path.name for path in (project / 'student' / 'weights').iterdir()))}",
            flush=True,
        )
    print(f"{kills.total()} kills: {'; '.join(f'{stage}: {n}' for stage, n in sorted(kills.items()))}")


if __name__ == "__main__":
    main()
