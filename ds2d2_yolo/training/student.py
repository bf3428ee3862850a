"""Stage 3: the student, trained with its own loss plus the terms; and the stages it needs, run before it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import DEFAULT_CFG, LOGGER, RANK, YAML, colorstr

from ds2d2_yolo.detectors import Detector
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.evaluation import AGREEMENT, validate
from ds2d2_yolo.loading.data import load_training_data, resolve_data
from ds2d2_yolo.loading.models import check_backbone, check_pretrained, check_safety, load_model
from ds2d2_yolo.loading.place import check_place
from ds2d2_yolo.method import TERMS, DS2D2Loss
from ds2d2_yolo.training.amplifier import load_amplifier
from ds2d2_yolo.training.arguments import (
    check_arguments,
    gains_of,
    layers_of,
    needs_teacher,
    shares_of,
    take_reference_gains,
)
from ds2d2_yolo.training.autobatch import DistillationStep
from ds2d2_yolo.training.calibration import Calibration, ShareMeter
from ds2d2_yolo.training.checks import (
    check_assignment,
    check_combination,
    check_response,
    check_teacher,
    summary_lines,
    take_explicit_terms,
    take_task,
)
from ds2d2_yolo.training.pair import Pair, check_pair
from ds2d2_yolo.training.results import column_names
from ds2d2_yolo.training.resume import ADAPTERS, complete_checkpoints, training_is_over
from ds2d2_yolo.training.stages import Stage, amplifier_stage, teacher_stage
from ds2d2_yolo.training.step import Distiller
from ds2d2_yolo.training.trainer import OwnArgumentsTrainer
from ds2d2_yolo.training.validation import DistillationValidator


class DS2D2Trainer(OwnArgumentsTrainer):
    """Train a student with the distillation terms of DS2D2; everything else is Ultralytics' trainer.

    The constructor checks the run, before anything is written, and makes the stages that are missing (a teacher given
    as a model YAML, the amplifier) or reuses those that are there: a student's run exists only once it can start.
    `train` trains the student, whose `best.pt` and `last.pt` are plain Ultralytics checkpoints.

    Args:
        cfg (Any): As for Ultralytics' trainers.
        overrides (dict[str, Any] | None): Ultralytics' train arguments and those of `cfg/default.yaml`; `student` is
            another name for `model`.
        _callbacks (dict[str, list] | None): As for Ultralytics' trainers.

    Attributes:
        distiller (Distiller | None): The distillation, from the start of training on.
        pair (Pair | None): The maps that it compares, likewise.

    Raises:
        DS2D2Error: If the run cannot work: one line that says what is wrong, where, and what to do.

    Example:
        >>> overrides = {"teacher": "yolo11l.pt", "student": "yolo11n.yaml", "data": "DIOR.yaml", "epochs": 100}
        >>> DS2D2Trainer(overrides=overrides).train()  # doctest: +SKIP
    """

    def __init__(
        self, cfg: Any = DEFAULT_CFG, overrides: dict[str, Any] | None = None, _callbacks: dict[str, Any] | None = None
    ) -> None:
        overrides = dict(overrides or {})
        self.distiller: Distiller | None = None
        self.pair: Pair | None = None
        if RANK == -1:  # workers of a DDP run are given what their parent has checked
            if overrides.get("resume"):
                check_safety(check_arguments(overrides, cfg))
                overrides.pop("student", None)  # the checkpoint says what is resumed
            else:
                overrides = prepare_run(overrides, cfg)
        super().__init__(cfg, overrides, _callbacks)
        if self.args.plots and RANK in {-1, 0}:
            from ds2d2_yolo.pictures import add_pictures  # drawn by callbacks; training itself needs none of it

            add_pictures(self)

    def check_resume(self, overrides: dict[str, Any]) -> None:
        """Take the arguments of the run to be resumed from its checkpoint, and check that it can be resumed."""
        asked = self.args.resume
        try:
            super().check_resume(overrides)
        except FileNotFoundError as error:
            if isinstance(asked, (str, Path)) and Path(asked).is_file():
                raise DS2D2Error(
                    f"resume={asked}: cannot be read, the file is damaged or no checkpoint ({error.__cause__}); "
                    "resume from another checkpoint of the run, or start it again"
                ) from error
            raise DS2D2Error(f"resume={asked}: no checkpoint there, pass the last.pt of a run") from error
        if self.resume and RANK == -1:
            _check_resumable(Path(self.args.resume), self.args)

    def train(self) -> None:
        """Train the student."""
        try:
            super().train()
        finally:
            if self.distiller is not None:
                self.distiller.disarm()

    def set_model_attributes(self) -> None:
        """Attach the adapters to the student: after this, optimiser, DDP and EMA take them up."""
        super().set_model_attributes()
        if not needs_teacher(self.args):
            return
        gains = gains_of(self.args)
        teacher, trained = load_model("teacher", self.args.teacher)
        if not trained or self.args.amplifier == "auto":
            raise DS2D2Error("stages are missing: start the run with 'ds2d2 train' or its trainer, not in a DDP worker")
        check_teacher(teacher, self.args.teacher, self.data)
        teacher.model.to(self.device)
        teacher.configure(sum_regions=bool(self.args.sum_regions), hulls=self.args.disw == "hull")
        self.pair = pair = check_pair(teacher, self.detector, self.args.imgsz, layers_of(self.args))
        amplifier = None
        if gains.im_high:
            amplifier = load_amplifier(self.args.amplifier, teacher, self.args.wavelet)
        with torch.random.fork_rng(devices=[]):  # the student's own random numbers stay those of a plain training
            torch.manual_seed(self.args.seed)
            shared = teacher.shared_adapter and pair.is_uniform and (gains.ex_low or gains.ex_high)
            weight = self.args.weight or "confidence"
            loss = DS2D2Loss(pair.levels, gains, self.args.wavelet, weight, bool(shared)).to(self.device)
        setattr(self.model, ADAPTERS, loss.adapters)
        model: Any = self.model
        stem = next(model.parameters())
        if stem.is_contiguous(memory_format=torch.channels_last) and not stem.is_contiguous():
            for module in (teacher.model, amplifier, loss):  # maps of one layout need no conversion on the way
                if module is not None:
                    module.to(memory_format=torch.channels_last)
        shares = shares_of(self.args)
        calibration = Calibration(shares) if shares else None
        meter = ShareMeter([f"{tap.stride:g}" for tap in pair.taps]) if RANK in {-1, 0} else None
        layers = pair.student_layers, pair.teacher_layers
        self.distiller = Distiller(teacher, amplifier, loss, *layers, calibration, meter, self.args.assignment)
        self.add_callback("on_train_epoch_start", _start_measuring)
        if calibration is not None:
            self.add_callback("on_train_epoch_end", _keep_gains)

    def resume_training(self, ckpt: dict[str, Any] | None) -> None:
        """Resume with the adapters."""
        if ckpt is not None and self.resume and self.distiller is not None:
            saved = getattr(ckpt["ema"], ADAPTERS)
            self.distiller.loss.adapters.load_state_dict(saved.float().state_dict())
        super().resume_training(ckpt)
        if RANK in {-1, 0} and isinstance(self.validator, DistillationValidator):
            self.metrics |= dict.fromkeys(AGREEMENT, 0)  # columns that are there before the first validation

    def get_validator(self) -> DetectionValidator:
        """Return Ultralytics' validator, or with `val_kd` one that compares the student with its teacher, too."""
        validator = super().get_validator()
        if not self.args.val_kd or self.distiller is None:
            return validator
        settings = {"save_dir": validator.save_dir, "args": validator.args, "_callbacks": validator.callbacks}
        kind: Any = DistillationValidator
        if not issubclass(kind, type(validator)):  # that of another task comes second
            kind = type(kind.__name__, (kind, type(validator)), {})
        compared: DetectionValidator = kind(self.distiller, validator.dataloader, **settings)
        return compared

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        """Add a row to results.csv in the columns of the first epoch, which an older version may have written."""
        columns = [name for name in column_names(self.csv) if name not in {"epoch", "time"}]
        super().save_metrics({name: metrics.get(name, math.nan) for name in columns} or metrics)

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Prepare a batch, and have the next forward pass of the student return the terms with its loss."""
        batch = super().preprocess_batch(batch)
        # The EMA is made last in the set-up: a batch seen before that is for calibration, not for training.
        if self.distiller is not None and self.ema is not None:
            self.distiller.arm(self.detector, batch)
        return batch

    def label_loss_items(self, loss_items: Mapping[str, Any] | None = None, prefix: str = "train") -> Any:
        """Name the loss items, for results.csv and for loggers; to those of training, gains and shares are added.

        Unless `val_kd` asks for it the terms are measured in training only, and validation has no column for them.
        """
        labelled = super().label_loss_items(loss_items, prefix)
        if self.distiller is None:
            return labelled
        active = self.distiller.loss.gains.active
        if prefix == "train" and isinstance(labelled, dict) and self.distiller.meter is not None:
            gains = asdict(self.distiller.loss.gains)
            return {
                **labelled,
                **{f"gain/{name}": gains[name] for name in active},
                **self.distiller.meter.shares(active),
            }
        if prefix != "val" or self.args.val_kd:
            return labelled
        own = {f"val/{name}_loss" for name in active}
        if isinstance(labelled, dict):
            return {key: value for key, value in labelled.items() if key not in own}
        return [key for key in labelled if key not in own]

    def auto_batch(self) -> int:  # type: ignore[override] # as DetectionTrainer, whose base has arguments
        """Return the batch size that fits with teacher, amplifier and terms."""
        if self.distiller is None:
            return int(super().auto_batch())
        model: Any = self.model
        step: Any = DistillationStep(model, self.distiller)
        self.model = step
        try:
            return int(super().auto_batch())
        finally:
            self.model = model

    def progress_string(self) -> str:
        """Return the header of the progress bar, whose columns are too narrow for the terms' full names."""
        header = super().progress_string()
        for name in TERMS:
            header = header.replace(f"{name}_loss".rjust(11), name.rjust(11))
        return header


def prepare_run(overrides: Mapping[str, Any], cfg: Any = None) -> dict[str, Any]:
    """Check a distillation run completely, say what it is going to do, and make the stages that it needs.

    Nothing is written before everything has been checked.

    Args:
        overrides (Mapping[str, Any]): What the user asked for.
        cfg (Any): Configuration that the overrides change, as Ultralytics' trainers take it.

    Returns:
        (dict[str, Any]): The same request with the files of finished stages in it, and paths resolved.

    Raises:
        DS2D2Error: If the run cannot work.
    """
    args = check_arguments(overrides, cfg)
    data, teacher, trained, student, pair = check_run(args)

    stage, metrics = None, None
    if not trained:
        stage = teacher_stage(args, data, teacher.title)
        if stage.is_finished():
            args.teacher, metrics = str(stage.weights), stage.metrics
            teacher, trained = load_model("teacher", args.teacher)
    if args.amplifier not in {None, "auto"}:
        if not trained:
            raise DS2D2Error(f"amplifier={args.amplifier}: belongs to a trained teacher, but {args.teacher} is not yet")
        load_amplifier(args.amplifier, teacher, args.wavelet)
    if metrics is None and trained:
        metrics = validate(args.teacher, args.data, args)
    for line in summary_lines(teacher, student, pair, data, metrics):
        LOGGER.info(line)
    LOGGER.info(f"  gains: {_gains_text(args)}")
    if args.assignment == "teacher":
        LOGGER.info("  assignment: objects are assigned by the teacher's predictions")
    wanted = gains_of(args).im_high != 0 and args.amplifier == "auto"
    finished = wanted and trained and amplifier_stage(args, data, teacher).is_finished()
    LOGGER.info(f"  stages: {_stages_text(args, stage, trained, finished)}")

    if needs_teacher(args):
        if stage is not None:
            args.teacher = str(stage.ensure())
            teacher, _ = load_model("teacher", args.teacher)
        if wanted:
            args.amplifier = str(amplifier_stage(args, data, teacher).ensure())
    resolved = {key: value for key, value in overrides.items() if key != "student"}
    # Absolute, as a run may be resumed from another folder; where Ultralytics found a bare name, its model knows.
    found = getattr(teacher.model, "pt_path", None)
    resolved |= {"model": args.model, "data": args.data}
    resolved |= {name: getattr(args, name) for name in (*TERMS, "sum_regions", "weight")}
    resolved["teacher"] = str(Path(found).resolve()) if found else args.teacher
    resolved["amplifier"] = str(Path(args.amplifier).resolve()) if Path(str(args.amplifier)).is_file() else None
    return resolved


def check_run(args: Any) -> tuple[dict[str, Any], Detector, bool, Detector, Pair]:
    """Find out whether a run can work, before anything is written or trained.

    Args:
        args (Any): Arguments of the run; `args.data` is replaced by the path of the YAML.

    Returns:
        data (dict[str, Any]): The data set as Ultralytics describes it.
        teacher (Detector): The teacher.
        trained (bool): Whether the teacher comes from a checkpoint.
        student (Detector): The student.
        pair (Pair): The maps that belong together.

    Raises:
        DS2D2Error: If it cannot.
    """
    if not args.teacher:
        raise DS2D2Error("teacher= is missing: pass a trained .pt, or a model .yaml to train one first", 2)
    if not args.model:
        raise DS2D2Error("student= is missing: pass a model .yaml, or a pretrained .pt", 2)
    check_combination(args)
    check_safety(args)
    args.data = resolve_data(args.data)
    # Whether they can be distilled at all, before data are rendered or downloaded
    teacher, trained = load_model("teacher", args.teacher)
    student, _ = load_model("student", args.model)
    take_task(args, teacher, student)
    take_explicit_terms(args, teacher, trained, student)
    check_place(args)
    check_pretrained(args.pretrained)
    data = load_training_data(args)
    teacher, trained = load_model("teacher", args.teacher, data)
    student, student_trained = load_model("student", args.model, data)
    check_teacher(teacher, args.teacher, data)
    pair = check_pair(teacher, student, args.imgsz, layers_of(args))
    take_reference_gains(args, teacher.family, teacher.reference_gains)
    check_response(gains_of(args).response, teacher)
    check_assignment(args.assignment, teacher, student)
    if not trained:
        check_backbone(teacher, args)
    if not student_trained and args.pretrained is True:
        check_backbone(student, args)
    return data, teacher, trained, student, pair


def _check_resumable(last: Path, args: Any) -> None:
    """Refuse to resume what is no interrupted student's run, or lacks something; complete one whose epochs are done."""
    _, checkpoint = load_checkpoint(last)
    epoch = checkpoint.get("epoch", -1)
    if epoch < 0:
        raise DS2D2Error(f"resume={last}: this training is finished, there is nothing to resume")
    if not getattr(args, "teacher", None):
        raise DS2D2Error(
            f"resume={last}: is no distilled student; a stage continues when its ds2d2 command is run again, a plain "
            "training with 'yolo train resume'"
        )
    if training_is_over(last, checkpoint):
        complete_checkpoints(last.parent)
        raise DS2D2Error(
            f"resume={last}: its training had ended; best.pt and last.pt are now completed, nothing to resume"
        )
    gains = gains_of(args)
    needed = (["teacher"] if needs_teacher(args) else []) + (["amplifier"] if gains.im_high else [])
    for role in needed:
        if not Path(str(getattr(args, role))).is_file():
            raise DS2D2Error(f"{role}={getattr(args, role)}: the run to be resumed needs it, but there is no such file")
    load_training_data(args)


def _start_measuring(trainer: Any) -> None:
    """Callback: shares are those of one epoch."""
    if trainer.distiller.meter is not None:
        trainer.distiller.meter.start_epoch()


def _keep_gains(trainer: Any) -> None:
    """Callback: end the calibration with the first epoch, and put its gains where a resumed run finds them."""
    calibration = trainer.distiller.calibration
    if all(getattr(trainer.args, name) is not None for name in calibration.shares):
        return
    calibration.finish()
    for name, gain in calibration.gains.items():
        setattr(trainer.args, name, gain)
    if RANK in {-1, 0} and calibration.gains:
        YAML.save(trainer.save_dir / "args.yaml", vars(trainer.args))
        found = ", ".join(f"{name}={gain:g}" for name, gain in calibration.gains.items())
        LOGGER.info(f"{colorstr('DS2D2:')} gains found over {calibration.batches} batches: {found}")


def _gains_text(args: Any) -> str:
    """Return where the gain of each term comes from, in one line."""
    shares, gains = shares_of(args), asdict(gains_of(args))
    texts = {name: f"auto (share {shares[name]:g})" if name in shares else f"{gain:g}" for name, gain in gains.items()}
    return ", ".join(f"{name} {text}" for name, text in texts.items())


def _stages_text(args: Any, stage: Stage | None, trained: bool, finished: bool) -> str:
    """Return what each stage is going to do, in one line."""
    parts = []
    if stage is not None:
        parts.append(f"teacher ({'reused' if trained else 'to be trained'})")
    if not gains_of(args).im_high:
        parts.append("no amplifier, im_high is off")
    elif args.amplifier == "auto":
        parts.append(f"amplifier ({'reused' if finished else 'to be trained'})")
    else:
        parts.append("amplifier (given)")
    return ", ".join([*parts, "student"])
