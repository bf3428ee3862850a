"""The process of one job: it trains a stage, evaluates a teacher, or trains and evaluates a student."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import cast

import torch
from ultralytics.utils import RANK
from ultralytics.utils.callbacks import get_default_callbacks

from ds2d2_yolo.comparison.jobs import AnyJob, RecordedJob, RunJob
from ds2d2_yolo.comparison.processes import take_job
from ds2d2_yolo.comparison.records import read_curve
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.evaluation import AP_COLUMNS, evaluate
from ds2d2_yolo.loading.data import load_data
from ds2d2_yolo.loading.fingerprint import fingerprint_of_data
from ds2d2_yolo.training.arguments import DEFAULTS, check_arguments
from ds2d2_yolo.training.pipeline import plan
from ds2d2_yolo.training.records import read_record, write_record
from ds2d2_yolo.training.resume import complete_checkpoints
from ds2d2_yolo.training.stages import changed_data, folder_lock, resumed, training_state
from ds2d2_yolo.training.student import StudentTrainer
from ds2d2_yolo.training.tasks import task_of
from ds2d2_yolo.training.trainer import PlainTrainer
from ds2d2_yolo.training.types import Callbacks


def work(distiller: type[StudentTrainer], callbacks: Callbacks | None = None) -> int:
    """Run the job of this process.

    Args:
        distiller (type[StudentTrainer]): The trainer of distilled students.
        callbacks (dict[str, list] | None): Callbacks of Ultralytics by event, for the trainings.

    Returns:
        (int): Exit code.
    """
    try:
        execute(cast(AnyJob, take_job()), distiller, callbacks)
    except DS2D2Error as error:
        print(f"ds2d2: error: {error}", flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        print("ds2d2: interrupted", flush=True)
        return 130
    return 0


def execute(job: AnyJob, distiller: type[StudentTrainer], callbacks: Callbacks | None = None) -> None:
    """Run a job in this process.

    Args:
        job (AnyJob): The job, made by `run_comparison`.
        distiller (type[StudentTrainer]): The trainer of distilled students.
        callbacks (dict[str, list] | None): Callbacks of Ultralytics by event, for the trainings.

    Raises:
        DS2D2Error: If a job fails, or the data changed since the comparison began. Then there is no record.
    """
    if job["kind"] == "teacher" or job["kind"] == "amplifier" or job["kind"] == "unlabeled":
        plan(job["arguments"], job["kind"]).run(callbacks)
        return
    record = Path(job["record"])
    with folder_lock(Path(job["folder"]), job["title"]):
        if read_record(record, job["inputs"]) is None:  # no other process made it during the wait
            _check_data(job)
            if job["kind"] == "run":
                content = _train(job, distiller, callbacks)
            else:
                content = _evaluate(job["arguments"], Path(job["folder"]))
            _check_data(job, was_trained=job["kind"] == "run")
            write_record(record, job["inputs"], content)


def _check_data(job: RecordedJob, was_trained: bool = False) -> None:
    """Raise an error if the data are not those of the job. A student that was trained on them gets another place."""
    complete = check_arguments(job["arguments"])
    data = load_data(complete.data, complete.split, complete.single_cls)
    if fingerprint_of_data(data, complete.split) != job["inputs"]["data"]:
        raise changed_data(complete.data, job["title"], Path(job["folder"])) if was_trained else _other_data(job)


def _other_data(job: RecordedJob) -> DS2D2Error:
    return DS2D2Error(
        f"data={job['arguments']['data']}: images or labels changed since the comparison began; run the same command "
        "again to compare on the current data"
    )


def _train(job: RunJob, distiller: type[StudentTrainer], callbacks: Callbacks | None) -> dict[str, object]:
    """Train a student, or continue its interrupted run, and return the content of its record."""
    folder, arguments = Path(job["folder"]), job["arguments"]
    weights, starts = folder / "weights", folder / "starts.txt"
    callbacks = {event: list(functions) for event, functions in (callbacks or get_default_callbacks()).items()}
    callbacks["on_train_start"] += [partial(_check_loaded, job), _start_measuring, partial(_note_start, starts)]
    callbacks["on_train_epoch_end"].append(partial(_check_batch, int(check_arguments(arguments).batch)))
    state, memory = training_state(weights), None
    if state == "trained":
        complete_checkpoints(weights)
    else:
        overrides = {**arguments, "save_dir": str(folder), "exist_ok": True}
        if state == "resumable":
            overrides = resumed(overrides, weights)
        else:
            starts.unlink(missing_ok=True)
        trainer_class = distiller if job["distil"] == "ds2d2" else PlainTrainer
        trainer = trainer_class(overrides=overrides, _callbacks=callbacks)
        trainer.train()
        memory = _peak_memory(trainer)
    curve = read_curve(folder / "results.csv")
    continued = starts.read_text().split() if starts.is_file() else []
    return _evaluate({**arguments, "model": str(weights / "best.pt")}, folder) | {
        "method": job["method"],
        "seed": job["seed"],
        "seconds": curve[-1]["seconds"],
        "seconds_per_epoch": curve[-1]["seconds"] / len(curve),
        "peak_bytes": memory,
        "curve": curve,
        "continued_after": [int(epoch) for epoch in continued if epoch != "0"],
        "arguments": arguments,
    }


def _evaluate(arguments: Mapping[str, object], folder: Path) -> dict[str, object]:
    """Return the AP of the detector `model`: Ultralytics' and, for boxes, COCO's."""
    complete = check_arguments({key: value for key, value in arguments.items() if key not in DEFAULTS})
    # As in the final validation: the padded sizes depend on it
    batch = complete.batch if task_of(arguments) == "obb" else 2 * complete.batch
    evaluation = evaluate(
        complete.model,
        complete.data,
        save_dir=str(folder / "coco"),
        batch=batch,
        plots=False,
        **{name: getattr(complete, name) for name in ("imgsz", "device", "workers", "split", "single_cls")},
        **{name: getattr(complete, name) for name in ("iou", "max_det", "classes")},
    )
    return {
        "AP50": evaluation.mAP50,
        "AP50-95": evaluation.mAP50_95,
        **evaluation.figures,
        "coco": {name: getattr(evaluation, name) for name in AP_COLUMNS},
        "classes": {name: asdict(scores) for name, scores in evaluation.classes.items()},
        "weights": str(complete.model),
    }


def _check_loaded(job: RunJob, trainer: PlainTrainer) -> None:
    """Callback: stop if the data were changed while they were loaded. Ultralytics repairs truncated JPEGs in place."""
    if trainer.data_fingerprint != job["inputs"]["data"]:
        raise _other_data(job)


def _start_measuring(trainer: PlainTrainer) -> None:
    """Callback: reset the peak memory, so that checks before the training do not count."""
    if trainer.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(trainer.device)
    else:
        with suppress(OSError):  # only Linux has this file
            Path("/proc/self/clear_refs").write_text("5")


def _peak_memory(trainer: PlainTrainer) -> int | None:
    """Return the peak memory of the training, of the GPU or this process, in bytes. None for several processes."""
    if trainer.world_size > 1:
        return None
    if trainer.device.type == "cuda":
        return torch.cuda.max_memory_allocated(trainer.device)
    status = Path("/proc/self/status")
    if status.is_file():  # not `ru_maxrss`: a process inherits it from its parent
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _note_start(path: Path, trainer: PlainTrainer) -> None:
    """Callback: append the number of epochs before this start of the run, once for all its processes."""
    if RANK > 0:
        return
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{trainer.start_epoch}\n")


def _check_batch(batch: int, trainer: PlainTrainer) -> None:
    """Callback: stop if Ultralytics reduced the batch because memory ran out. Other methods had the full batch."""
    if trainer.batch_size != batch:
        raise DS2D2Error(
            f"out of memory: Ultralytics reduced the batch to {trainer.batch_size}, other methods had more; "
            f"pass batch={trainer.batch_size}"
        )
