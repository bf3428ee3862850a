"""Measure time and memory of a training step: plain, Ultralytics' own distillation and DS2D2, interleaved in one run.

    python benchmarks/step_time.py --teacher yolo11s.yaml --student yolo11n.yaml --imgsz 320 --batch 8
    python benchmarks/step_time.py --teacher retinanet_r101.yaml --student retinanet_r18.yaml --imgsz 256 --batch 2

A step is a forward and a backward pass over one batch, without the optimiser. Models are not trained: time does not
depend on their weights. Ultralytics' own distillation works only with its own models.

- "parts": sum of the parts that every implementation needs. They are measured alone: the plain step, the teacher's
  forward pass, and the passes through the teacher's head and the amplifier.
- "ds2d2": a step with all terms, the default. "without ...": one without some of its terms, to measure their cost.
- "preset ...": a distilled step of a preset, and, with its plain epochs at the end, the average step of a run.

With `--im-every 4`, the average step with implicit terms in every fourth (`im_every=4`) is measured, too, as "im 4".

Peak memory of each method is measured in its own process. `gpu.py` measures the same steps on a GPU.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from ultralytics.nn.distill_model import DistillationModel
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import DEFAULT_CFG

from ds2d2_yolo.detectors import (
    Batch,
    Detector,
    FasterRCNNDetector,
    Taps,
    YOLODetector,
    build_model,
    detector_of,
)
from ds2d2_yolo.method import WEIGHTS, DS2D2Loss, Gains
from ds2d2_yolo.resources import own_file
from ds2d2_yolo.training.arguments import PRESETS, check_arguments
from ds2d2_yolo.training.pair import check_pair
from ds2d2_yolo.training.schedule import TermSchedule
from ds2d2_yolo.training.step import Distiller, TeacherOutputs, reduce_maps

METHODS = ("plain", "builtin", "ds2d2")
WITHOUT = {
    "explicit": ("ex_low", "ex_high"),
    "im_full": ("im_full",),
    "amplifier": ("im_high",),
    "implicit": ("im_full", "im_high"),
    "response": ("response",),
}
HALF = "half teacher"
PARTS = ("plain", "teacher", "heads")
Step = Callable[[Batch], torch.Tensor]


def build(name: str, options: argparse.Namespace) -> DetectionModel:
    """Return a model on the device, with the arguments that its criterion needs."""
    model: Any = deepcopy(_built(name, options.classes))
    model.args.imgsz = options.imgsz
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    built: DetectionModel = model.to(options.device, memory_format=layout).train()
    return built


@cache
def _built(name: str, classes: int) -> Any:
    model: Any = build_model(own_file(name, "cfg", "models"), nc=classes)
    model.args = deepcopy(DEFAULT_CFG)
    return model


def make_step(method: str, options: argparse.Namespace) -> Step:
    """Return a function that computes the loss of a batch."""
    student: Any = build(options.student, options)
    if method == "plain":
        return lambda batch: student(batch)[0].sum()
    if method == "builtin":
        model: Any = DistillationModel(build(options.teacher, options), student).train()
        return lambda batch: model(batch)[0].sum()
    return distilled_step(student, make_distiller(student, method, options), *steps_between(method))


def distilled_step(student: Any, distiller: Distiller, every: int = 1, im_every: int = 1) -> Step:
    """Return a function that computes a student's loss of a batch, with terms in those steps that have any."""
    detector = detector_of(student)
    schedule = TermSchedule(distiller.loss.gains.active, every, im_every)

    def step(batch: Batch) -> torch.Tensor:
        terms = schedule.next_step()
        if "teacher_img" in batch:  # as in training, which loads the larger images for both
            ratio = batch["teacher_img"].shape[2] // batch["img"].shape[2]
            batch = {**batch, "img": F.avg_pool2d(batch["teacher_img"], ratio)}
        if terms is not None:
            distiller.begin_step(detector, batch, terms)
        total: torch.Tensor = student(batch)[0].sum()
        return total

    return step


def make_distiller(student: Any, method: str, options: argparse.Namespace) -> Distiller:
    """Return the distillation of a method: `ds2d2`, one of its variants, or `preset` with its name."""
    student_detector, teacher = detector_of(student), detector_of(build(options.teacher, options))
    pair = check_pair(teacher, student_detector, options.imgsz, teacher_imgsz=options.teacher_imgsz)
    gains, weight = terms_of(method, options)
    amplifier = deepcopy(teacher.implicit_part(teacher.head)) if gains.im_high else None
    if amplifier is not None:
        teacher.freeze_head(amplifier)
    shared = teacher.shared_adapter and pair.is_uniform
    loss = DS2D2Loss(pair.maps, gains, weight=weight, shared_adapter=shared).to(options.device)
    teacher.ratio = pair.ratio
    distiller = Distiller(teacher, amplifier, loss, pair.student_layers, pair.teacher_layers)
    if method == HALF:
        halve(distiller, options)
    return distiller


def terms_of(method: str, options: argparse.Namespace) -> tuple[Gains, str]:
    """Return gains that say which terms a method has, and the weight of its explicit ones."""
    kind, _, name = method.partition(" ")
    if kind == "preset":
        arguments = check_arguments({"preset": name})
        return arguments.gains, arguments.weight or "confidence"
    off = WITHOUT[name] if kind == "without" else ()
    return replace(Gains(1.0, 1.0, 1.0, 1.0, options.response), **dict.fromkeys(off, 0.0)), options.weight


def steps_between(method: str) -> tuple[int, int]:
    """Return `distill_every` and `im_every` of a method."""
    kind, _, name = method.partition(" ")
    if kind == "preset":
        arguments = check_arguments({"preset": name})
        return arguments.distill_every, arguments.im_every
    return 1, int(name) if kind == "im" else 1


def plain_share(method: str) -> float:
    """Return the share of a run's epochs that a preset leaves plain at its end."""
    kind, _, name = method.partition(" ")
    return check_arguments({"preset": name}).close_distill if kind == "preset" else 0.0


def with_averages(seconds: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Add the average steps of presets that leave some epochs plain, from the times of both kinds of steps."""
    averages = {
        f"{name}, average": [
            share * plain + (1 - share) * own for plain, own in zip(seconds["plain"], values, strict=False)
        ]
        for name, values in seconds.items()
        if (share := plain_share(name)) and "plain" in seconds
    }
    return {**{name: list(values) for name, values in seconds.items()}, **averages}


def halve(distiller: Any, options: argparse.Namespace) -> None:
    """Run the teacher in bfloat16, but not the rest of the step."""
    run_teacher = distiller.run_teacher

    def run_teacher_half(images: torch.Tensor) -> TeacherOutputs:
        with torch.autocast(options.device.split(":")[0], torch.bfloat16):
            outputs = run_teacher(images)
        return replace(outputs, maps=[x.float() for x in outputs.maps])

    distiller.run_teacher = run_teacher_half


def make_part(part: str, options: argparse.Namespace) -> Step:
    """Return a function that runs one part of a step."""
    if part == "plain":
        return make_step("plain", options)
    teacher = detector_of(build(options.teacher, options))
    teacher.freeze()
    if part == "teacher":

        def forward(batch: Batch) -> torch.Tensor:
            with torch.no_grad():
                teacher.forward_teacher(batch.get("teacher_img", batch["img"]))
            return torch.zeros((), requires_grad=True)

        return forward
    head = teacher.implicit_part(teacher.head)
    kept: list[Any] = []

    def passes(batch: Batch) -> torch.Tensor:
        if not kept:  # maps and regions come from the first step, which is not timed
            kept.extend(find_maps(teacher, options, batch))
        maps, regions = kept
        own = [x.detach().requires_grad_() for x in maps]
        # The forward pass of a dense teacher already includes its head.
        for _ in range(1 if regions is None else 2):
            with torch.no_grad():
                predictions_of(head, maps, regions)
        return torch.stack([x.float().sum() for _ in range(2) for x in predictions_of(head, own, regions)]).sum()

    return passes


def find_maps(teacher: Detector, options: argparse.Namespace, batch: Batch) -> tuple[list[torch.Tensor], Any]:
    """Return the teacher's maps of a batch and, for two-stage detectors, the regions that a student samples."""
    taps = Taps()
    taps.open({index: teacher.layer(index) for index in teacher.head_layers})
    with torch.no_grad():
        teacher.forward_teacher(batch.get("teacher_img", batch["img"]))
    outputs = taps.close()
    ratio = (options.teacher_imgsz or options.imgsz) // options.imgsz
    maps = reduce_maps([outputs[index] for index in teacher.head_layers], ratio)
    if not isinstance(teacher, FasterRCNNDetector):
        return maps, None
    student = detector_of(build(options.student, options))
    taps.open(student.assignment_modules())
    student.model(batch)
    return maps, student.assignment(taps.close()).regions.boxes


def predictions_of(head: Any, maps: list[torch.Tensor], regions: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the predictions of a head: classes and boxes."""
    if regions is not None:
        logits, deltas = head(maps, regions)
        return logits, deltas
    raw = head.forward_head(maps, **head.one2many) if hasattr(head, "forward_head") else head(maps)._asdict()
    return (raw["scores"], raw["boxes"]) if "scores" in raw else (raw["logits"], raw["deltas"])


def make_batch(options: argparse.Namespace) -> Batch:
    """Return a batch of noise with boxes."""
    count = options.batch * options.boxes
    batch: Batch = {
        "img": torch.rand(options.batch, 3, options.imgsz, options.imgsz).to(options.device),
        "cls": torch.zeros(count, 1).to(options.device),
        "bboxes": (torch.rand(count, 4) * 0.2 + 0.3).to(options.device),
        "batch_idx": torch.arange(options.batch).repeat_interleave(options.boxes).float().to(options.device),
    }
    if options.teacher_imgsz:
        shape = options.batch, 3, options.teacher_imgsz, options.teacher_imgsz
        batch["teacher_img"] = torch.rand(shape).to(options.device)
    return batch


def run(step: Step, batch: Batch, options: argparse.Namespace) -> float:
    """Run one step and return its seconds."""
    synchronize(options)
    start = time.perf_counter()
    with autocast(options):
        loss = step(batch)
    loss.backward()
    synchronize(options)
    return time.perf_counter() - start


def autocast(options: argparse.Namespace) -> torch.autocast:
    """Return the mixed precision that was asked for."""
    dtype = getattr(torch, options.amp or "bfloat16")
    return torch.autocast(options.device.split(":")[0], dtype, enabled=options.amp is not None)


def synchronize(options: argparse.Namespace) -> None:
    """Wait for the device."""
    if options.device.startswith("cuda"):
        torch.cuda.synchronize()


def peak_memory(method: str, options: argparse.Namespace, queue: Any) -> None:
    """Put the peak memory of three steps, in MiB, into a queue."""
    torch.set_num_threads(options.threads)
    step, batch = make_step(method, options), make_batch(options)
    for _ in range(3):
        run(step, batch, options)
    queue.put(memory_peak(options))


def forget_peak(options: argparse.Namespace) -> None:
    """Measure the peak of memory from here on."""
    if options.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def memory_peak(options: argparse.Namespace) -> float:
    """Return the most memory that was held, in MiB: of tensors on a GPU, else of this process."""
    if options.device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    # Not getrusage: it includes the memory of the parent at the start of this process.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def parser_of_options() -> argparse.ArgumentParser:
    """Return what reads the options of a measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default="yolo11s.yaml")
    parser.add_argument("--student", default="yolo11n.yaml")
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--teacher-imgsz", type=int, help="larger images for the teacher, such as twice imgsz")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--boxes", type=int, default=20, help="boxes per image")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--amp", choices=["float16", "bfloat16"], help="mixed precision; unset = float32")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--weight", default="confidence", choices=WEIGHTS, help="weight of the explicit terms")
    parser.add_argument("--response", default=1.0, type=float, help="gain of the response term; published: 0")
    parser.add_argument("--im-every", type=int, nargs="*", default=[], help="measure im_every=k, too")
    parser.add_argument("--half-teacher", action="store_true", help="measure a teacher in bfloat16, too")
    return parser


def main() -> None:
    """Measure and print."""
    options = parser_of_options().parse_args()
    torch.set_num_threads(options.threads)

    stock = YOLODetector.accepts(build(options.student, options))
    methods = [method for method in METHODS if stock or method != "builtin"]
    variants = [*(f"without {part}" for part in WITHOUT), *([HALF] if options.half_teacher else [])]
    variants += [*(f"im {k}" for k in options.im_every), *(f"preset {name}" for name in PRESETS)]
    steps: dict[str, Step] = {method: make_step(method, options) for method in (*methods, *variants)}
    steps |= {f"part {part}": make_part(part, options) for part in PARTS}
    batch = make_batch(options)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(options.repeats + 2):
        for name, step in steps.items():
            value = statistics.mean(run(step, batch, options) for _ in range(max(steps_between(name))))
            if repeat >= 2:  # the first two are a warm-up
                seconds[name].append(value)
    seconds["parts"] = [sum(values) for values in zip(*(seconds[f"part {part}"] for part in PARTS), strict=True)]
    seconds = with_averages(seconds)
    context, memory = multiprocessing.get_context("spawn"), {}
    for method in methods:
        queue = context.Queue()
        process = context.Process(target=peak_memory, args=(method, options, queue))
        process.start()
        memory[method] = queue.get()
        process.join()
    print(f"{options.student} from {options.teacher}, {options.imgsz} px, batch {options.batch}, {options.device}")
    bases = [base for base in ("plain", "builtin", "ds2d2", "parts") if base in seconds]
    heading = "".join(f"{f'/ {base}':>11}" for base in bases)
    print(f"{'':<26}{'median s':>10}{'min':>8}{'max':>8}{heading}{'peak MiB':>10}")
    for name, values in seconds.items():
        ratios = [statistics.median(a / b for a, b in zip(values, seconds[base], strict=True)) for base in bases]
        numbers = "".join(f"{ratio:>11.2f}" for ratio in ratios)
        peak = f"{memory[name]:>10.0f}" if name in memory else ""
        print(f"{name:<26}{statistics.median(values):>10.3f}{min(values):>8.3f}{max(values):>8.3f}{numbers}{peak}")


if __name__ == "__main__":
    main()
