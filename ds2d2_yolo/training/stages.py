"""The stages before the student: reused if their fingerprint matches, otherwise continued or trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Literal

from ultralytics.nn.tasks import load_checkpoint, yaml_model_load
from ultralytics.utils import DEFAULT_CFG_DICT, LOGGER, colorstr

from ds2d2_yolo.detectors import Detector
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.files import FolderLock, report_full_disk
from ds2d2_yolo.loading.caches import describe_outdated, outdated_caches
from ds2d2_yolo.loading.data import read_description
from ds2d2_yolo.loading.fingerprint import (
    effective_arguments,
    fingerprint_of_data,
    fingerprint_of_file,
    fingerprint_of_inputs,
    fingerprint_of_model,
)
from ds2d2_yolo.loading.models import Models
from ds2d2_yolo.training.amplifier import AmplifierTrainer, export_amplifier
from ds2d2_yolo.training.arguments import DEFAULTS, Arguments
from ds2d2_yolo.training.records import read_record, write_record
from ds2d2_yolo.training.resume import complete_checkpoints, training_is_over
from ds2d2_yolo.training.trainer import PlainTrainer
from ds2d2_yolo.training.types import Callbacks

TrainedKind = Literal["teacher", "amplifier"]
"""The stages before the student that train a model."""

StageKind = Literal["teacher", "amplifier", "unlabeled"]
"""The stages before the student. In the last one, the teacher labels images."""

State = Literal["given", "reused", "to be trained", "to be made", "to be continued"]
"""State of a stage: its file was given, it is finished, it is new, or an earlier run of it was interrupted."""

_RECORD = "stage.json"
# Arguments that concern only the student or the run folder.
_STUDENT_ONLY = {*DEFAULTS, "freeze", "name", "pretrained", "quantize", "resume", "save", "save_dir", "seed", "time"}
_RESUMABLE = ("data", "device", "workers", "cache", "plots", "save_dir")  # a resumed run may change these


@dataclass
class Stage:
    """A teacher or an amplifier to be trained. The folder's name contains the fingerprint of all inputs.

    Attributes:
        kind (TrainedKind): `teacher` or `amplifier`.
        folder (Path): The stage's run folder.
        inputs (dict[str, Any]): All inputs that affect the result, as JSON values.
        overrides (dict[str, Any]): Train arguments of the stage.
        metrics (dict[str, float]): Metrics of the finished stage.
    """

    kind: TrainedKind
    folder: Path
    inputs: dict[str, Any]
    overrides: dict[str, Any]
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def state(self) -> State:
        """State of the stage. If it is finished, this also reads its metrics."""
        if self.is_finished():
            return "reused"
        return "to be continued" if (self.folder / "weights" / "last.pt").is_file() else "to be trained"

    @property
    def weights(self) -> Path:
        """The stage's output file."""
        return self.folder / "weights" / ("amplifier.pt" if self.kind == "amplifier" else "best.pt")

    def is_finished(self) -> bool:
        """Return whether the stage's record matches its output file. If so, read the metrics."""
        record = read_record(self.folder / _RECORD, self.inputs)
        if record is None or not self.weights.is_file() or record.get("sha256") != fingerprint_of_file(self.weights):
            return False
        self.metrics = record["metrics"]
        return True

    def ensure(self, callbacks: Callbacks | None = None) -> Path:
        """Reuse the stage if it is finished, otherwise train it with Ultralytics callbacks. Return its output file.

        Other processes that need the same stage wait until it is finished.
        """
        with folder_lock(self.folder, self.kind), report_full_disk():
            if self.is_finished():
                LOGGER.info(f"{colorstr('DS2D2:')} {self.kind}: reusing {self.weights}")
            else:
                LOGGER.info(f"{colorstr('DS2D2:')} {self.kind}: training in {self.folder}")
                self._run(callbacks)
        return self.weights

    def _run(self, callbacks: Callbacks | None) -> None:
        """Train the stage, or continue its interrupted run."""
        outdated = outdated_caches(self._load_data(), self.overrides["split"])
        if outdated:  # the fingerprint does not cover cache files
            raise DS2D2Error(f"data={self.overrides['data']}: {describe_outdated(outdated)}")
        weights = self.folder / "weights"
        trainer_class = AmplifierTrainer if self.kind == "amplifier" else PlainTrainer
        if read_record(self.folder / _RECORD, self.inputs) is not None:
            LOGGER.warning(f"{colorstr('DS2D2:')} {self.weights} differs from its record: training it again")
            (self.folder / _RECORD).unlink()
            state = "none"
        else:
            state = training_state(weights)
        if state == "trained":
            LOGGER.info(f"{colorstr('DS2D2:')} {self.kind}: all epochs are trained; completing its checkpoints")
            self._complete()
        else:
            overrides = self.overrides
            if state == "resumable":
                LOGGER.info(f"{colorstr('DS2D2:')} {self.kind}: continuing the interrupted run")
                overrides = resumed(overrides, weights)
            trainer_class(overrides=overrides, _callbacks=callbacks).train()
        self._check_data()
        self._record()

    def _complete(self) -> None:
        """Complete a run that was killed after its last epoch."""
        complete_checkpoints(self.folder / "weights")
        if self.kind == "amplifier":
            export_amplifier(self.folder / "weights" / "best.pt", self.weights, self.overrides["wavelet"])

    def _load_data(self) -> dict[str, Any]:
        """Return the data set in its current state."""
        data = read_description(self.overrides["data"], self.overrides["split"], download=False)
        if self.overrides["single_cls"]:
            data["names"] = {0: "item"}
        return data

    def _check_data(self) -> None:
        """Raise an error if the data set changed during training. Its weights get another place."""
        data = self._load_data()
        if fingerprint_of_data(data, self.overrides["split"]) != self.inputs["data"]:
            raise changed_data(self.overrides["data"], self.kind, self.folder)

    def _record(self) -> None:
        """Write the record of a finished stage, as the last step."""
        _, checkpoint = load_checkpoint(self.folder / "weights" / "best.pt")
        if checkpoint.get("epoch", -1) != -1:
            raise DS2D2Error(f"{self.folder}: the {self.kind} was not trained to its end; run the same command again")
        self.metrics = {key: float(value) for key, value in (checkpoint.get("train_metrics") or {}).items()}
        content = {
            "weights": str(self.weights.relative_to(self.folder)),
            "sha256": fingerprint_of_file(self.weights),
            "metrics": self.metrics,
        }
        write_record(self.folder / _RECORD, self.inputs, content)


def teacher_stage(args: Arguments, data: Mapping[str, Any], models: Models, start: str | Path | None = None) -> Stage:
    """Return the stage that trains the teacher of a run, from its model YAML or from a checkpoint.

    Args:
        args (Arguments): Arguments of the run.
        data (Mapping[str, Any]): The data set.
        models (Models): The models. If the teacher is fine-tuned, `models.start` is the model of its checkpoint.
        start (str | Path | None): Checkpoint with initial weights, for a teacher from a model YAML.

    Returns:
        (Stage): The stage.
    """
    epochs = args.epochs_of("teacher")
    if models.start is not None:
        source = str(Path(getattr(models.start.model, "pt_path", None) or args.teacher).resolve())
        inputs: dict[str, Any] = {"start": fingerprint_of_model(models.start.model)}
        stage = _stage("teacher", args, data, models.start.title, epochs, inputs, source)
        stage.overrides["pretrained"] = True  # pretrained=False concerns the student
        return stage
    inputs = {"architecture": architecture_of(args.teacher)}
    if start is not None:
        inputs["pretrained"] = fingerprint_of_model(load_checkpoint(start)[0])  # the path of a bare name may differ
    stage = _stage("teacher", args, data, models.teacher.title, epochs, inputs, args.teacher)
    if start is not None:
        stage.overrides["pretrained"] = str(start)
    return stage


def amplifier_stage(args: Arguments, data: Mapping[str, Any], teacher: Detector) -> Stage:
    """Return the stage that trains the amplifier of a run.

    Args:
        args (Arguments): Arguments of the run. `args.teacher` is the teacher's checkpoint.
        data (Mapping[str, Any]): The data set.
        teacher (Detector): The teacher, loaded from its checkpoint.

    Returns:
        (Stage): The stage.
    """
    epochs = args.epochs_of("amplifier")
    inputs = {"teacher": fingerprint_of_model(teacher.model), "wavelet": args.wavelet}
    stage = _stage("amplifier", args, data, teacher.title, epochs, inputs, args.teacher)
    stage.overrides["wavelet"] = args.wavelet
    return stage


def without_student_start(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a run for its stages, without the student's checkpoint in `pretrained`.

    Args:
        overrides (Mapping[str, Any]): Arguments of a run with a student.

    Returns:
        (dict[str, Any]): The arguments without a path in `pretrained`.

    Example:
        >>> without_student_start({"epochs": 3, "pretrained": "student.pt"})
        {'epochs': 3}
    """
    return {
        name: value for name, value in overrides.items() if name != "pretrained" or not isinstance(value, (str, Path))
    }


def changed_data(data: str, what: str, folder: Path) -> DS2D2Error:
    """Move the weights of a training whose data changed, and return the error to raise.

    Otherwise, a later command with the old data would find finished checkpoints and record them.

    Args:
        data (str): The data YAML, for the message.
        what (str): Name of the model, for the message.
        folder (Path): The run folder.

    Returns:
        (DS2D2Error): The error. Its message names the new place of the weights.
    """
    places = (folder / f"weights-changed-data-{number}" for number in count(1))
    place = (folder / "weights").rename(next(place for place in places if not place.exists()))
    return DS2D2Error(
        f"data={data}: images or labels changed during training of the {what}. Its weights are now in {place} and are "
        "not reused; run the same command again to train on the current data"
    )


@contextmanager
def folder_lock(folder: Path, what: str) -> Iterator[None]:
    """Allow only one process at a time to train in a folder. Others print a message and wait.

    Args:
        folder (Path): The run folder. It need not exist.
        what (str): Name of the model that is trained there, for the message.

    Yields:
        (None): While this process holds the lock.
    """
    lock = FolderLock(folder)
    if not lock.acquire(wait=False):
        LOGGER.info(f"{colorstr('DS2D2:')} {what}: waiting for another process that trains it in {folder}")
        lock.acquire(wait=True)
    try:
        yield
    finally:
        lock.release()
        with suppress(OSError):  # fails unless the project's folder is empty: no stage was made
            folder.parent.rmdir()


def training_state(weights: Path) -> str:
    """Return the progress of an earlier run.

    Args:
        weights (Path): The folder of its checkpoints.

    Returns:
        (str): `none`, `resumable`, or `trained` (all epochs are trained, but the checkpoints are not completed).
    """
    if not (weights / "last.pt").is_file():
        return "none"
    try:
        _, checkpoint = load_checkpoint(weights / "last.pt")
        load_checkpoint(weights / "best.pt")
    except Exception as error:  # torch raises many types for truncated or damaged files
        LOGGER.warning(f"{colorstr('DS2D2:')} {weights} cannot be read ({type(error).__name__}): starting again")
        return "none"
    return "trained" if training_is_over(weights / "last.pt", checkpoint) else "resumable"


def resumed(overrides: Mapping[str, Any], weights: Path) -> dict[str, Any]:
    """Return the arguments that continue an interrupted run.

    Args:
        overrides (Mapping[str, Any]): Arguments of the run.
        weights (Path): The folder of its checkpoints.

    Returns:
        (dict[str, Any]): `resume`, and those arguments that a resumed run may change.

    Example:
        >>> resumed({"epochs": 3, "device": "cpu"}, Path("run/weights"))
        {'device': 'cpu', 'resume': 'run/weights/last.pt'}
    """
    return {key: overrides[key] for key in _RESUMABLE if key in overrides} | {"resume": str(weights / "last.pt")}


def architecture_of(model: str | Path) -> dict[str, Any]:
    """Return the content of a model YAML, without its path.

    Args:
        model (str | Path): The model YAML: a path, or a bare name of one that ships with Ultralytics.

    Returns:
        (dict[str, Any]): Its entries.
    """
    content = yaml_model_load(model)
    return {key: value for key, value in content.items() if key != "yaml_file"}


def _stage(
    kind: TrainedKind,
    args: Arguments,
    data: Mapping[str, Any],
    title: str,
    epochs: int,
    inputs: dict[str, Any],
    model: str,
) -> Stage:
    settings = {key: value for key, value in vars(args).items() if key not in _STUDENT_ONLY}
    settings["imgsz"] = args.teacher_size
    if args.lr_steps is not None:
        settings["lr_steps"] = [step * epochs / args.epochs for step in args.lr_steps]
    if kind == "teacher" and args.pretrained is False:
        settings["pretrained"] = False  # a path concerns the student, or is handled by `teacher_stage`
    inputs = inputs | {
        "stage": kind,
        "epochs": epochs,
        "data": fingerprint_of_data(data, args.split),
        "arguments": effective_arguments(settings, DEFAULT_CFG_DICT),
    }
    # Next to the student's run: one project folder holds all stages, and projects share nothing.
    siblings = args.run_folder.parent
    folder = siblings / f"{kind}-{title}-{fingerprint_of_inputs(inputs)[:8]}"
    overrides = settings | {"model": model, "epochs": epochs, "save_dir": str(folder), "exist_ok": True}
    return Stage(kind, folder, inputs, overrides)
