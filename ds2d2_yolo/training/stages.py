"""The stages before the student: found again by a fingerprint, continued where they stopped, trained where missing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from ultralytics import __version__ as ultralytics_version
from ultralytics.data.utils import check_det_dataset
from ultralytics.nn.tasks import load_checkpoint, yaml_model_load
from ultralytics.utils import DEFAULT_CFG_DICT, LOGGER, colorstr

from ds2d2_yolo import __version__
from ds2d2_yolo.detectors import Detector
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.files import FolderLock, room_for, write_json
from ds2d2_yolo.loading.fingerprint import (
    describe_outdated,
    effective_arguments,
    fingerprint_of_data,
    fingerprint_of_file,
    fingerprint_of_inputs,
    fingerprint_of_model,
    outdated_caches,
)
from ds2d2_yolo.loading.models import Models
from ds2d2_yolo.training.amplifier import AmplifierTrainer, export_amplifier
from ds2d2_yolo.training.arguments import DEFAULTS, Arguments
from ds2d2_yolo.training.protocols import Callbacks
from ds2d2_yolo.training.resume import complete_checkpoints, training_is_over
from ds2d2_yolo.training.trainer import PlainTrainer

StageKind = Literal["teacher", "amplifier"]
"""The stages before the student."""

State = Literal["given", "reused", "to be trained", "to be continued"]
"""What happens to a stage: its file was given, it is finished already, it is new, or an earlier run of it stopped."""

_RECORD = "stage.json"
# Arguments of a run that are about its student or its place alone.
_STUDENT_ONLY = {*DEFAULTS, "freeze", "name", "pretrained", "quantize", "resume", "save", "save_dir", "seed", "time"}
_RESUMABLE = ("data", "device", "workers", "cache", "plots", "save_dir")  # what Ultralytics lets a resumed run change


@dataclass
class Stage:
    """A teacher or an amplifier to be trained, in a folder named by the fingerprint of everything that shapes it.

    Attributes:
        kind (str): `teacher` or `amplifier`.
        folder (Path): The stage's run folder.
        inputs (dict[str, Any]): What shapes the result, as JSON values.
        overrides (dict[str, Any]): Train arguments of the stage.
        metrics (dict[str, float]): Metrics of the finished stage.
    """

    kind: StageKind
    folder: Path
    inputs: dict[str, Any]
    overrides: dict[str, Any]
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def state(self) -> State:
        """What happens to the stage in a run that needs it; of a finished one, the metrics are read."""
        if self.is_finished():
            return "reused"
        return "to be continued" if (self.folder / "weights" / "last.pt").is_file() else "to be trained"

    @property
    def weights(self) -> Path:
        """The file that the stage makes."""
        return self.folder / "weights" / ("amplifier.pt" if self.kind == "amplifier" else "best.pt")

    def is_finished(self) -> bool:
        """Return whether the stage's record is there and its file is the one recorded; read the metrics then."""
        record = self._read_record()
        if record is None or not self.weights.is_file() or record.get("sha256") != fingerprint_of_file(self.weights):
            return False
        self.metrics = record["metrics"]
        return True

    def ensure(self, callbacks: Callbacks | None = None) -> Path:
        """Reuse the stage if it is finished, else train it with Ultralytics callbacks; return the file that it made.

        Another process that needs the same stage meanwhile waits until it is finished.
        """
        with folder_lock(self.folder, self.kind), room_for():
            if self.is_finished():
                LOGGER.info(f"{colorstr('DS2D2:')} {self.kind}: reusing {self.weights}")
            else:
                LOGGER.info(f"{colorstr('DS2D2:')} {self.kind}: training it in {self.folder}")
                self._run(callbacks)
        return self.weights

    def _run(self, callbacks: Callbacks | None) -> None:
        """Train the stage, from where an interrupted run of it stopped."""
        if outdated := outdated_caches(self._load_data()):  # the fingerprint is of the images
            raise DS2D2Error(f"data={self.overrides['data']}: {describe_outdated(outdated)}")
        weights = self.folder / "weights"
        trainer_class = AmplifierTrainer if self.kind == "amplifier" else PlainTrainer
        if self._read_record() is not None:
            LOGGER.warning(f"{colorstr('DS2D2:')} {self.weights} is not the file that was recorded: making it anew")
            (self.folder / _RECORD).unlink()
            state = "none"
        else:
            state = training_state(weights)
        if state == "trained":
            LOGGER.info(f"{colorstr('DS2D2:')} {self.kind} had finished its last epoch: completing it")
            self._complete()
        else:
            overrides = self.overrides
            if state == "resumable":
                LOGGER.info(f"{colorstr('DS2D2:')} {self.kind}: continuing the interrupted run")
                overrides = {key: overrides[key] for key in _RESUMABLE} | {"resume": str(weights / "last.pt")}
            trainer_class(overrides=overrides, _callbacks=callbacks).train()
        self._check_data()
        self._record()

    def _read_record(self) -> dict[str, Any] | None:
        """Return the record of a finished stage with the same inputs, or None."""
        try:
            record = json.loads((self.folder / _RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        same = record.get("inputs") == json.loads(json.dumps(self.inputs, default=str))
        return dict(record) if same else None

    def _complete(self) -> None:
        """Do what a run killed between its last epoch and its end left undone."""
        complete_checkpoints(self.folder / "weights")
        if self.kind == "amplifier":
            export_amplifier(self.folder / "weights" / "best.pt", self.weights, self.overrides["wavelet"])

    def _load_data(self) -> dict[str, Any]:
        """Return the data set as it is now."""
        data = dict(check_det_dataset(self.overrides["data"], autodownload=False))
        if self.overrides["single_cls"]:
            data["names"] = {0: "item"}
        return data

    def _check_data(self) -> None:
        """Refuse to record a stage under the fingerprint of data that are no longer there."""
        data = self._load_data()
        if fingerprint_of_data(data) != self.inputs["data"]:
            raise DS2D2Error(
                f"data={self.overrides['data']}: images or labels changed while the {self.kind} was trained. It is in "
                f"{self.weights} and is not reused; run the same command again to train on the data as they are"
            )

    def _record(self) -> None:
        """Write, as the very last thing, that the stage is finished."""
        _, checkpoint = load_checkpoint(self.folder / "weights" / "best.pt")
        if checkpoint.get("epoch", -1) != -1:
            raise DS2D2Error(f"{self.folder}: the {self.kind} was not trained to its end; run the same command again")
        self.metrics = {key: float(value) for key, value in (checkpoint.get("train_metrics") or {}).items()}
        record = {
            "inputs": self.inputs,
            "weights": str(self.weights.relative_to(self.folder)),
            "sha256": fingerprint_of_file(self.weights),
            "metrics": self.metrics,
            "date": datetime.now().astimezone().isoformat(),
            "versions": {"ds2d2_yolo": __version__, "ultralytics": ultralytics_version},
        }
        write_json(self.folder / _RECORD, record)


def teacher_stage(args: Arguments, data: Mapping[str, Any], models: Models, start: str | Path | None = None) -> Stage:
    """Return the stage that trains the teacher of a run, from its model YAML or from a checkpoint.

    Args:
        args (Arguments): Arguments of the run.
        data (Mapping[str, Any]): The data set.
        models (Models): The models: `start` is the checkpoint's where the teacher is fine-tuned.
        start (str | Path | None): Checkpoint that a teacher from a model YAML starts from.

    Returns:
        (Stage): The stage.
    """
    epochs = args.teacher_epochs or args.epochs
    if models.start is not None:
        source = str(Path(getattr(models.start.model, "pt_path", None) or args.teacher).resolve())
        inputs: dict[str, Any] = {"start": fingerprint_of_model(models.start.model)}
        stage = _stage("teacher", args, data, models.start.title, epochs, inputs, source)
        stage.overrides["pretrained"] = True  # pretrained=False is about the student
        return stage
    inputs = {"architecture": architecture_of(args.teacher)}
    if start is not None:
        inputs["pretrained"] = fingerprint_of_model(load_checkpoint(start)[0])  # a bare name may lie elsewhere
    stage = _stage("teacher", args, data, models.teacher.title, epochs, inputs, args.teacher)
    if start is not None:
        stage.overrides["pretrained"] = str(start)
    return stage


def amplifier_stage(args: Arguments, data: Mapping[str, Any], teacher: Detector) -> Stage:
    """Return the stage that trains the amplifier of a run.

    Args:
        args (Arguments): Arguments of the run; `args.teacher` is the teacher's checkpoint.
        data (Mapping[str, Any]): The data set.
        teacher (Detector): The teacher, as loaded from its checkpoint.

    Returns:
        (Stage): The stage.
    """
    epochs = args.amplifier_epochs or args.epochs
    inputs = {"teacher": fingerprint_of_model(teacher.model), "wavelet": args.wavelet}
    stage = _stage("amplifier", args, data, teacher.title, epochs, inputs, args.teacher)
    stage.overrides["wavelet"] = args.wavelet
    return stage


def without_student_start(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of a run for its stages, which a checkpoint in `pretrained` does not concern.

    Args:
        overrides (Mapping[str, Any]): Arguments of a run with a student.

    Returns:
        (dict[str, Any]): The same without the checkpoint that the student starts from.

    Example:
        >>> without_student_start({"epochs": 3, "pretrained": "student.pt"})
        {'epochs': 3}
    """
    return {
        name: value for name, value in overrides.items() if name != "pretrained" or not isinstance(value, (str, Path))
    }


@contextmanager
def folder_lock(folder: Path, what: str) -> Iterator[None]:
    """Have one process at a time train in a folder; the others wait, and say so.

    Args:
        folder (Path): The run folder, which need not exist.
        what (str): What is trained there, for the message.

    Yields:
        (None): While no other process trains there.
    """
    lock = FolderLock(folder)
    if not lock.acquire(wait=False):
        LOGGER.info(f"{colorstr('DS2D2:')} {what}: waiting for the process that trains it in {folder}")
        lock.acquire(wait=True)
    try:
        yield
    finally:
        lock.release()
        with suppress(OSError):  # the project's folder, where it holds nothing: no stage was made
            folder.parent.rmdir()


def training_state(weights: Path) -> str:
    """Return how far an earlier run came: `none`, `resumable`, or `trained` (all epochs, but not completed).

    Args:
        weights (Path): The folder of its checkpoints.

    Returns:
        (str): One of the three.
    """
    if not (weights / "last.pt").is_file():
        return "none"
    try:
        _, checkpoint = load_checkpoint(weights / "last.pt")
        load_checkpoint(weights / "best.pt")
    except Exception as error:  # a file cut short by a kill or damaged later; torch raises many kinds
        LOGGER.warning(f"{colorstr('DS2D2:')} {weights} cannot be read ({type(error).__name__}): starting it over")
        return "none"
    return "trained" if training_is_over(weights / "last.pt", checkpoint) else "resumable"


def architecture_of(model: str | Path) -> dict[str, Any]:
    """Return the content of a model YAML, without the path that it was read from.

    Args:
        model (str | Path): The model YAML; bare names of Ultralytics' own are found.

    Returns:
        (dict[str, Any]): Its entries.
    """
    content = yaml_model_load(model)
    return {key: value for key, value in content.items() if key != "yaml_file"}


def _stage(
    kind: StageKind,
    args: Arguments,
    data: Mapping[str, Any],
    title: str,
    epochs: int,
    inputs: dict[str, Any],
    model: str,
) -> Stage:
    settings = {key: value for key, value in vars(args).items() if key not in _STUDENT_ONLY}
    if args.lr_steps is not None:
        settings["lr_steps"] = [step * epochs / args.epochs for step in args.lr_steps]
    if kind == "teacher" and args.pretrained is False:
        settings["pretrained"] = False  # a path is the student's, or the start of a teacher that is trained alone
    inputs = inputs | {
        "stage": kind,
        "epochs": epochs,
        "data": fingerprint_of_data(data),
        "arguments": effective_arguments(settings, DEFAULT_CFG_DICT),
    }
    # Beside the student's run, so that one project folder holds all stages and another project shares nothing.
    siblings = args.run_folder.parent
    folder = siblings / f"{kind}-{title}-{fingerprint_of_inputs(inputs)[:8]}"
    overrides = settings | {"model": model, "epochs": epochs, "save_dir": str(folder), "exist_ok": True}
    return Stage(kind, folder, inputs, overrides)
