"""What distillation costs on a GPU, and whether it works there: one command, at most nine minutes, one GPU.

    python benchmarks/gpu.py --out gpu

It writes `gpu/results.json` and `gpu/results.md`, and both anew whenever something is there: an abort loses nothing.
The parts are ordered by importance, and each runs in a process of its own. What does not fit into `--minutes` is
listed as not run; `--only` runs parts alone, by words of their names.

- steps: time and peak memory of a step (forward and backward pass, mixed precision, `deterministic=True` as in
  Ultralytics' trainings): plain, Ultralytics' own distillation, every preset, and DS2D2 without some of its terms;
- training: a student on rendered scenes, with times that include data loading, the gains that calibration finds, and
  the precision in which the teacher runs;
- AutoBatch: the batch that it chooses, and the memory that this batch takes;
- resume: whether an interrupted run ends as an uninterrupted one; two uninterrupted runs show what a GPU repeats;
- two processes: a training on two GPUs.

`--small` is the same with small images, on any machine, and is what the tests run.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
import ultralytics
from killed import result_of
from step_time import (
    WITHOUT,
    Step,
    autocast,
    build,
    forget_peak,
    make_batch,
    make_distiller,
    make_step,
    memory_peak,
    parser_of_options,
    run,
    steps_between,
    synchronize,
    with_averages,
)
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import YAML
from ultralytics.utils.autobatch import check_train_batch_size
from ultralytics.utils.torch_utils import init_seeds

import ds2d2_yolo
from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.detectors import Batch
from ds2d2_yolo.files import write_json
from ds2d2_yolo.method import TERMS
from ds2d2_yolo.scenes import CLASS_NAMES, render_dataset
from ds2d2_yolo.training.arguments import DEFAULTS, PRESETS
from ds2d2_yolo.training.autobatch import DistillationStep
from ds2d2_yolo.training.results import read_rows

DEFAULT = "ds2d2"
METHODS = ("plain", "builtin", DEFAULT, *(f"preset {name}" for name in PRESETS))
PARTS = tuple(f"without {part}" for part in WITHOUT)
BARS = {"step": 1.15, "memory": 1.2}
"""What the default may cost, as a multiple of Ultralytics' own distillation."""
OUT_OF_MEMORY = "out of memory"
NAMES = {"plain": "plain", "builtin": "Ultralytics' own distillation", DEFAULT: "DS2D2"}

Fragments = Iterator[dict[str, Any]]
"""Results of a part, one after the other, by name."""


@dataclass(frozen=True)
class Part:
    """A part of the benchmark.

    Attributes:
        name (str): Its title.
        kind (str): A key of `KINDS`.
        least (float): Seconds under which it is not begun.
        most (float): Seconds after which it is ended.
        settings (dict[str, Any]): What it measures.
    """

    name: str
    kind: str
    least: float
    most: float
    settings: dict[str, Any]


def parts_of(small: bool, device: str) -> list[Part]:
    """Return the parts, by falling importance."""

    def steps(student: str, teacher: str, imgsz: int, batch: int, **changes: Any) -> Part:
        settings: dict[str, Any] = {"student": student, "teacher": teacher, "imgsz": imgsz, "batch": batch}
        settings |= {"device": device, "amp": "bfloat16" if small else "float16", "channels_last": True}
        settings |= {"deterministic": True, "rounds": 1 if small else 20}
        settings |= {"methods": [*METHODS, *(PARTS[1:2] if small else PARTS)]} | changes
        if not student.startswith("yolo"):
            settings["methods"] = [name for name in settings["methods"] if name != "builtin"]
        words = [f"{Path(student).stem} from {Path(teacher).stem}", f"{imgsz} px, batch {batch}"]
        words += [] if settings["channels_last"] else ["channels_last off"]
        words += [] if settings["deterministic"] else ["deterministic off"]
        return Part(f"steps: {', '.join(words)}", "steps", 25, 80, settings)

    training = {"student": "yolo11n.yaml", "teacher": "yolo11s.yaml", "imgsz": 640, "batch": 16, "device": device}
    training |= {"images": {"train": 160, "val": 16}, "size": 320, "epochs": 4, "teacher_epochs": 3, "workers": 8}
    if small:
        training |= {"imgsz": 96, "size": 96, "batch": 2, "images": {"train": 6, "val": 2}, "workers": 0}
        training |= {"teacher": "yolo11n.yaml", "epochs": 2, "teacher_epochs": 1}
        few, yolo = ["plain", DEFAULT], ("yolo11n.yaml", "yolo11s.yaml", 64)
        first, others = steps(*yolo, 2), [steps("retinanet_r18.yaml", "retinanet_r18.yaml", 64, 1, methods=few)]
    else:
        yolo, larger = ("yolo11n.yaml", "yolo11l.yaml", 640), ("yolo11s.yaml", "yolo11x.yaml", 640)
        retina, faster = ((f"{name}_r18.yaml", f"{name}_r101.yaml", 800, 16) for name in ("retinanet", "fasterrcnn"))
        first = steps(*yolo, 16)
        others = [steps(*retina), steps(*faster), steps(*larger, 16), steps(*larger, 64)]
        plain_layout = [(*yolo, 16), (*yolo, 64), retina, faster, (*larger, 16), (*larger, 64)]
        others += [steps(*yolo, 16, deterministic=False)]
        others += [steps(*pair, channels_last=False, methods=METHODS[:3]) for pair in plain_layout]
    return [
        first,
        Part("training: on rendered scenes", "training", 60, 180, training),
        *([] if small else [steps(*yolo, 64)]),
        Part("resume: an interrupted run", "resume", 40, 120, training),
        Part("AutoBatch: its choice for the default", "autobatch", 20, 60, first.settings),
        *([] if small else [Part("two processes: a training on two GPUs", "processes", 40, 90, training)]),
        *others,
    ]


# ------------------------------------------------------------------------------------------- in the process of a part


def measure_steps(settings: dict[str, Any], folder: Path, until: float) -> Fragments:
    """Measure memory method by method, then the time of all, interleaved."""
    options = options_of(settings)
    init_seeds(0, deterministic=settings["deterministic"])
    batch = make_batch(options)
    steps: dict[str, Step] = {}
    memory: dict[str, float] = {}
    failed: dict[str, str] = {}
    for method in settings["methods"]:
        with survived(method, failed):
            steps[method], peak = begin(method, batch, options)
            if peak > 0:  # else it fits into what the process held before, and is not known
                memory[method] = peak
        yield {"memory": memory, "failed": failed}
    with survived("teacher", failed):
        yield {"teacher": precision_of_teacher(batch, options)}
    seconds: dict[str, list[float]] = {method: [] for method in steps}
    for number in range(settings["rounds"]):
        if number and time.time() > until:
            break
        for method in [method for method in steps if method not in failed]:
            with survived(method, failed):
                values = [run(steps[method], batch, options) for _ in range(max(steps_between(method)))]
                seconds[method].append(statistics.mean(values))
        yield {"seconds": seconds, "failed": failed}


def begin(method: str, batch: Batch, options: argparse.Namespace) -> tuple[Step, float]:
    """Return a method's step, warmed up, and its peak memory in MiB; what other methods hold does not count."""
    held = held_memory(options)
    step = make_step(method, options)
    for _ in range(3):
        run(step, batch, options)
    return step, memory_peak(options) - held


def precision_of_teacher(batch: Batch, options: argparse.Namespace) -> list[str]:
    """Return the dtypes of the maps that the default takes of a teacher."""
    distiller = make_distiller(build(options.student, options), DEFAULT, options)
    with autocast(options):
        return sorted({str(x.dtype) for x in distiller.run_teacher(batch["img"]).maps})


def options_of(settings: Mapping[str, Any]) -> argparse.Namespace:
    """Return the options of `step_time.py` for a part."""
    options = parser_of_options().parse_args([])
    for name in ("student", "teacher", "imgsz", "batch", "device", "amp", "channels_last"):
        setattr(options, name, settings[name])
    return options


def held_memory(options: argparse.Namespace) -> float:
    """Free what can be freed, measure the peak from here on, and return what is held, in MiB."""
    gc.collect()
    if options.device.startswith("cuda"):
        for dtype in (torch.float16, torch.float32):  # cuBLAS takes room at its first product, and keeps it
            torch.ones(8, 8, device=options.device, dtype=dtype) @ torch.ones(8, 8, device=options.device, dtype=dtype)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    forget_peak(options)
    return memory_peak(options)


@contextmanager
def survived(name: str, failed: dict[str, str]) -> Iterator[None]:
    """Note what fails, and go on."""
    try:
        yield
    except Exception as error:
        failed[name] = OUT_OF_MEMORY if OUT_OF_MEMORY in str(error) else f"{type(error).__name__}: {error}"[:300]


class Watch:
    """Times of the steps of a training, its losses, and the precision of its teacher.

    Args:
        trainer (Any): A trainer of Ultralytics that has not begun.
        device (str): Its device.
    """

    def __init__(self, trainer: Any, device: str) -> None:
        self.steps: list[float] = []
        self.loaded: list[float] = []
        self.items: list[dict[str, torch.Tensor]] = []
        self.dtypes: set[str] = set()
        self._options = argparse.Namespace(device=device)
        self._start, self._last = 0.0, math.nan
        trainer.add_callback("on_train_start", self._tap)
        trainer.add_callback("on_train_epoch_start", self._forget)
        trainer.add_callback("on_train_batch_start", self._begin)
        trainer.add_callback("on_train_batch_end", self._end)

    def results(self) -> dict[str, Any]:
        """Return medians of all steps but the first epoch's, and whether all losses were finite."""
        finite = all(bool(torch.isfinite(value)) for items in self.items for value in items.values())
        return {
            "step": statistics.median(self.steps),
            "with loading": statistics.median(self.loaded),
            "steps": len(self.items),
            "losses finite": finite,
        }

    def _tap(self, trainer: Any) -> None:
        distiller: Any = getattr(trainer, "distiller", None)
        for index in distiller.teacher_layers if distiller else ():
            distiller.teacher.layer(index).register_forward_hook(self._note)

    def _note(self, module: object, inputs: object, output: torch.Tensor) -> None:
        self.dtypes.add(str(output.dtype))

    def _forget(self, trainer: Any) -> None:
        self._last = math.nan

    def _begin(self, trainer: Any) -> None:
        synchronize(self._options)
        self._start = time.perf_counter()

    def _end(self, trainer: Any) -> None:
        synchronize(self._options)
        now, last, self._last = time.perf_counter(), self._last, time.perf_counter()
        self.items.append(dict(trainer.loss_items))
        if trainer.epoch and not math.isnan(last):  # else something warms up or is set up
            self.steps.append(now - self._start)
            self.loaded.append(now - last)


def train_for_real(settings: dict[str, Any], folder: Path, until: float) -> Fragments:
    """Train a student with DS2D2, alone, and with Ultralytics' own distillation."""
    start = time.perf_counter()
    overrides = overrides_of(settings, folder)
    yield {"rendering": time.perf_counter() - start}
    trainer: Any = DS2D2Trainer(overrides={**overrides, "teacher": settings["teacher"], "name": "distilled"})
    watch = Watch(trainer, settings["device"])
    trainer.train()
    last = read_rows(trainer.csv)[-1]
    yield {
        "times": (times := {DEFAULT: watch.results()}),
        "teacher": sorted(watch.dtypes),
        "amp": bool(trainer.amp),
        "gains": (gains := {name: last[f"gain/{name}"] for name in TERMS}),
        "gains sane": all(math.isfinite(gain) and gain > 0 for gain in gains.values()),
        "shares": {name: last[f"share/{name}"] for name in TERMS},
        "wanted": dict(zip(TERMS, DEFAULTS["shares"], strict=True)),
    }
    teacher = str(trainer.args.teacher)
    own = {name: value for name, value in overrides.items() if name not in DEFAULTS}
    for method, changes in {"plain": {}, "builtin": {"distill_model": teacher}}.items():
        trainer = DetectionTrainer(overrides={**own, **changes, "name": method})
        watch = Watch(trainer, settings["device"])
        trainer.train()
        times[method] = watch.results()
        yield {"times": times}


def overrides_of(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the arguments of a training, after its scenes are rendered."""
    scenes = render_dataset(folder / "scenes", settings["images"], size=settings["size"])
    data = folder / "scenes.yaml"
    places = {split: f"images/{split}" for split in ("train", "val")}
    YAML.save(data, {"path": str(scenes), **places, "names": dict(enumerate(CLASS_NAMES))})
    same = {name: settings[name] for name in ("imgsz", "batch", "epochs", "teacher_epochs", "workers")}
    return {
        **same,
        "device": settings["device"].removeprefix("cuda:"),
        "model": settings["student"],
        "data": str(data),
        "amplifier_epochs": 1,
        "project": str(folder / "runs"),
        "pretrained": False,
        "nbs": settings["batch"],
        "optimizer": "SGD",
        "warmup_epochs": 1,
        "close_mosaic": 1,
        "plots": False,
        "val": False,
    }


class Killed(BaseException):
    """Ends a run as nothing in it expects."""


def kill(trainer: Any) -> None:
    """Callback: end a run when the checkpoints of its first epoch are there."""
    raise Killed


def resume_exactly(settings: dict[str, Any], folder: Path, until: float) -> Fragments:
    """Compare an interrupted run, and a second uninterrupted one, with an uninterrupted one."""
    overrides = {**overrides_of(settings, folder), "teacher": settings["teacher"], "workers": 0, "epochs": 2}
    runs: dict[str, Any] = {}
    for name in ("whole", "again"):
        runs[name] = DS2D2Trainer(overrides={**overrides, "name": name})
        runs[name].train()
    killed: Any = DS2D2Trainer(overrides={**overrides, "name": "interrupted"})
    killed.add_callback("on_model_save", kill)
    with suppress(Killed):
        killed.train()
    runs["interrupted"] = DS2D2Trainer(overrides={"resume": str(killed.last)})
    runs["interrupted"].train()
    whole, rows = result_of(runs["whole"].save_dir)
    for name in ("again", "interrupted"):
        tensors, own = result_of(runs[name].save_dir)
        pairs = [(whole[key].float(), tensors[key].float()) for key in whole]
        yield {
            name: {
                "tensors": len(pairs),
                "differing": sum(not torch.equal(*pair) for pair in pairs),
                "largest difference": max(float((a - b).abs().max()) for a, b in pairs),
                "results.csv equal": rows == own,
            }
        }


def choose_batch(settings: dict[str, Any], folder: Path, until: float) -> Fragments:
    """Have AutoBatch choose a batch for 60 % of the memory, and run it."""
    options = options_of(settings)
    on_gpu = options.device.startswith("cuda")
    init_seeds(0, deterministic=settings["deterministic"])
    student: Any = build(options.student, options)
    step = DistillationStep(student, make_distiller(student, DEFAULT, options))
    options.batch = check_train_batch_size(step, options.imgsz, on_gpu, 0.6, max_num_obj=options.boxes)
    del step, student
    yield {"batch": options.batch}
    if on_gpu:
        _, peak = begin(DEFAULT, make_batch(options), options)
        yield {"peak MiB": peak, "of": torch.cuda.get_device_properties(0).total_memory / 2**20}


def train_on_two(settings: dict[str, Any], folder: Path, until: float) -> Fragments:
    """Train on two GPUs."""
    overrides = {**overrides_of(settings, folder), "teacher": settings["teacher"], "name": "two", "device": "0,1"}
    trainer: Any = DS2D2Trainer(overrides=overrides)
    trainer.train()
    rows = read_rows(trainer.csv)
    finite = all(math.isfinite(value) for row in rows for name, value in row.items() if name.endswith("_loss"))
    yield {"epochs": len(rows), "losses finite": finite, "NCCL": torch.distributed.is_nccl_available()}


KINDS: dict[str, Callable[[dict[str, Any], Path, float], Fragments]] = {
    "steps": measure_steps,
    "training": train_for_real,
    "resume": resume_exactly,
    "autobatch": choose_batch,
    "processes": train_on_two,
}


def machine() -> dict[str, Any]:
    """Return what was measured on."""
    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return {
        "GPUs": [f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB" for gpu in gpus],
        "date": date.today().isoformat(),
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "CUDA": torch.version.cuda,
        "cuDNN": torch.backends.cudnn.version() if gpus else None,
        "Ultralytics": ultralytics.__version__,
        "ds2d2-yolo": ds2d2_yolo.__version__,
    }


def work(part: Part, folder: Path, until: float) -> None:
    """Do a part, and write its results into a file, a line for each."""
    with results_file(folder, part).open("w", encoding="utf-8") as file:
        print(json.dumps({"machine": machine()}), file=file, flush=True)
        for fragment in KINDS[part.kind](part.settings, folder, until):
            print(json.dumps(fragment), file=file, flush=True)


# ------------------------------------------------------------------------------------------------ in the first process


def results_file(folder: Path, part: Part) -> Path:
    """Return the file of a part's results."""
    return folder / f"{re.sub(r'[^a-z0-9]+', '-', part.name.lower())}.jsonl"


def do(part: Part, folder: Path, end: float, save: Callable[[dict[str, Any]], None]) -> None:
    """Start the process of a part, and save its results as they come.

    Args:
        part (Part): The part.
        folder (Path): Where processes keep their files.
        end (float): When the time is up, in seconds since the epoch of the clock.
        save (Callable): Takes the entry of the part.
    """
    entry: dict[str, Any] = {"name": part.name, "kind": part.kind, "settings": part.settings, "results": {}}
    reason = reason_against(part, end - time.time())
    if reason is not None:
        save({**entry, "status": f"not run: {reason}"})
        return
    stop = min(end, time.time() + part.most)
    # Before a part is ended from outside, it has some seconds to end by itself
    words = ["--part", json.dumps(asdict(part)), "--until", str(stop - 0.15 * part.most), "--out", str(folder)]
    file, log = results_file(folder, part), results_file(folder, part).with_suffix(".log")
    environment = {"YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "false", "YOLO_CONFIG_DIR": str(folder), **os.environ}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, __file__, *words],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # with the processes that it starts
        )
    try:
        code = None
        while code is None and time.time() < stop:
            time.sleep(0.2)
            code = process.poll()
            for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
                with suppress(json.JSONDecodeError):  # a line that is being written
                    entry["results"] |= json.loads(line)
            last = (log.read_text(errors="replace").splitlines() or ["without a message"])[-1]
            save(entry | {"status": {None: "under way", 0: "done"}.get(code, f"failed: {last}")})
        if code is None:
            save(entry | {"status": "ended: no time was left"})
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def reason_against(part: Part, seconds: float) -> str | None:
    """Return why a part is not run, or None."""
    if part.kind == "processes" and torch.cuda.device_count() < 2:
        return "needs two GPUs"
    if seconds < part.least:
        return f"{max(seconds, 0):.0f} s were left, it needs {part.least:.0f}"
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="folder for results.json and results.md")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--only", nargs="*", default=[], help="parts whose names have one of these words")
    parser.add_argument("--small", action="store_true", help="small images, on any machine")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        work(Part(**json.loads(options.part)), options.out, options.until)
        return
    end = time.time() + 60 * options.minutes
    if not (torch.cuda.is_available() or options.small):
        sys.exit("gpu: error: torch finds no GPU; pass --small to try the benchmark without one")
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    parts = [part for part in parts_of(options.small, device) if any(w in part.name for w in options.only or [""])]
    if not parts:
        sys.exit(f"gpu: error: no part has {' or '.join(options.only)} in its name; leave --only out")
    options.out.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {"machine": {}, "parts": {}}

    def save(entry: dict[str, Any]) -> None:
        content["machine"] |= entry["results"].pop("machine", {})
        content["parts"][entry["name"]] = entry
        write_json(options.out / "results.json", content)
        (options.out / "results.md").write_text(page(content), encoding="utf-8")

    with tempfile.TemporaryDirectory(prefix="ds2d2-gpu-", ignore_cleanup_errors=True) as folder:
        for part in parts:
            do(part, Path(folder), end, save)
            print(f"{content['parts'][part.name]['status']:<10} {part.name}", flush=True)
    print(f"\n{page(content)}")


# --------------------------------------------------------------------------------------------------------- the page


def page(content: Mapping[str, Any]) -> str:
    """Return the results as Markdown."""
    parts = list(content["parts"].values())
    facts = [f"{name} {value}" for name, value in content["machine"].items() if value and name != "GPUs"]
    lines = ["# On a GPU", "", "; ".join([*content["machine"].get("GPUs", []), *facts]), ""]
    lines += bars_table([part for part in parts if part["kind"] == "steps"])
    for part in parts:
        if part["results"]:
            lines += [f"## {part['name']}", ""]
            lines += [] if part["status"] == "done" else [part["status"], ""]
            lines += [*PAGES[part["kind"]](part["results"]), ""]
    missing = [[part["name"], part["status"]] for part in parts if not part["results"]]
    if missing:
        lines += ["## Without results", "", *markdown(["part", "status"], missing), ""]
    return "\n".join(lines)


def markdown(header: list[str], rows: list[list[str]]) -> list[str]:
    """Return a table."""
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


def ratio(values: Mapping[str, list[float]], name: str, base: str) -> float:
    """Return the median ratio of two methods' times in the same rounds; NaN where there are none."""
    pairs = [a / b for a, b in zip(values.get(name, []), values.get(base, []), strict=False)]
    return statistics.median(pairs) if pairs else math.nan


def memory_ratio(memory: Mapping[str, float], name: str, base: str) -> float:
    """Return the ratio of two methods' peaks of memory; NaN where one is not known."""
    return memory.get(name, math.nan) / memory.get(base, math.nan)


def shown(value: float, digits: int = 2) -> str:
    """Return a number, or nothing where it is not known."""
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def verdict(value: float, bar: float) -> str:
    """Return a ratio, and whether it is low enough."""
    return "not known" if math.isnan(value) else f"{value:.2f}, {'reached' if value <= bar else 'not reached'}"


def bars_table(parts: list[Mapping[str, Any]]) -> list[str]:
    """Return what the default costs beside Ultralytics' own distillation, and what it may."""
    rows = []
    for part in parts:
        results, memory = part["results"], part["results"].get("memory", {})
        step = ratio(results.get("seconds", {}), DEFAULT, "builtin")
        if not math.isnan(step):
            values = zip((step, memory_ratio(memory, DEFAULT, "builtin")), BARS.values(), strict=True)
            verdicts = [verdict(value, bar) for value, bar in values]
            rows.append([part["name"].removeprefix("steps: "), *verdicts])
    if not rows:
        return []
    header = ["the default / Ultralytics' own", *(f"{name}, at most {bar}" for name, bar in BARS.items())]
    return ["## Bars", "", *markdown(header, rows), ""]


def steps_page(results: Mapping[str, Any]) -> list[str]:
    """Return times and memory of all methods, and the shares of terms."""
    seconds, memory = with_averages(results.get("seconds", {})), results.get("memory", {})
    rows = []
    for name in dict.fromkeys([*seconds, *memory]):
        values = [1000 * value for value in seconds.get(name, [])]
        spread = [f"{statistics.median(values):.1f}", f"{min(values):.1f} to {max(values):.1f}"] if values else ["", ""]
        saved = 1 - ratio(seconds, name, DEFAULT) if name.startswith("without ") else math.nan
        rows.append(
            [
                NAMES.get(name, name),
                *spread,
                *(shown(ratio(seconds, name, base)) for base in ("plain", "builtin")),
                "" if math.isnan(saved) else f"{100 * saved:.0f} %",
                shown(memory.get(name, math.nan), 0),
                *(shown(memory_ratio(memory, name, base)) for base in ("plain", "builtin")),
            ]
        )
    header = ["", "median ms", "min to max", "/ plain", "/ Ultralytics' own", "share of the default's step", "peak MiB"]
    lines = markdown([*header, "/ plain", "/ Ultralytics' own"], rows)
    lines += ["", f"Maps of the teacher: {', '.join(results.get('teacher', ['not known']))}"]
    failed = [[NAMES.get(name, name), why] for name, why in results.get("failed", {}).items()]
    return [*lines, *(["", *markdown(["not measured", "why"], failed)] if failed else [])]


def training_page(results: Mapping[str, Any]) -> list[str]:
    """Return times with data loading, and what calibration has found."""
    times = [
        [
            NAMES.get(name, name),
            *(f"{1000 * own[key]:.1f}" for key in ("step", "with loading")),
            str(own["losses finite"]),
        ]
        for name, own in results.get("times", {}).items()
    ]
    lines = markdown(["", "step, ms", "with data loading, ms", "losses finite"], times)
    if "gains" in results:
        columns = [results[name] for name in ("gains", "wanted", "shares")]
        rows = [[term, *(f"{column[term]:.4g}" for column in columns)] for term in results["gains"]]
        lines += ["", *markdown(["term", "gain", "share wanted", "share in the last epoch"], rows)]
        lines += ["", f"Maps of the teacher: {', '.join(results['teacher'])}; mixed precision: {results['amp']}"]
        lines += [f"All gains are finite and above 0: {results['gains sane']}"]
    return lines


def facts_page(results: Mapping[str, Any]) -> list[str]:
    """Return results as they are."""
    return markdown(["", ""], [[name, json.dumps(value)] for name, value in results.items()])


PAGES = dict.fromkeys(KINDS, facts_page) | {"steps": steps_page, "training": training_page}

if __name__ == "__main__":
    main()
