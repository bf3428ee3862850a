"""Stage 3: the student, trained with its own loss plus the four terms; and the stages it needs, run before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import DEFAULT_CFG, LOGGER, RANK, YAML
from ultralytics.utils.patches import torch_load, torch_save
from ultralytics.utils.torch_utils import init_seeds, unwrap_model

from ds2d2_yolo.detectors import Detector, detector_of
from ds2d2_yolo.engine.amplifier import load_amplifier
from ds2d2_yolo.engine.arguments import check_arguments, gains_of, layers_of
from ds2d2_yolo.engine.distiller import Distiller
from ds2d2_yolo.engine.preflight import (
    check_pair,
    check_save_dir,
    check_teacher,
    load_data,
    load_model,
    resolve_data,
    summary_lines,
    validate_teacher,
)
from ds2d2_yolo.engine.stages import Stage, amplifier_stage, teacher_stage
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.spectral import TERMS, DS2D2Loss

_ADAPTERS = "ds2d2_adapters"


@dataclass
class Plan:
    """What a checked run is going to do.

    Attributes:
        data (Mapping[str, Any]): The data set.
        teacher_stage (Stage | None): That stage; None where the teacher was given as a checkpoint.
    """

    data: Mapping[str, Any]
    teacher_stage: Stage | None


class DS2D2Trainer(DetectionTrainer):
    """Train a student with the distillation terms of DS2D2; everything else is Ultralytics' `DetectionTrainer`.

    The run is checked before anything is written. `train` makes the stages that are missing (a teacher given as a model
    YAML, the amplifier), reuses those that are there, and then trains the student. `best.pt` and `last.pt` are plain
    Ultralytics checkpoints.

    Args:
        cfg (Any): As for Ultralytics' trainers.
        overrides (dict[str, Any] | None): Ultralytics' train arguments and those of `cfg/default.yaml`; `student` is
            another name for `model`.
        _callbacks (dict[str, list] | None): As for Ultralytics' trainers.

    Attributes:
        distiller (Distiller | None): The distillation, from the start of training on.

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
        if "student" in overrides:
            check_arguments(overrides)
            overrides["model"] = overrides.pop("student")
        self.distiller: Distiller | None = None
        self._plan: Plan | None = None
        if not overrides.get("resume") and RANK == -1:  # workers of a DDP run are given what their parent has checked
            self._plan, overrides = plan_run(overrides)
        super().__init__(cfg, overrides, _callbacks)

    def check_resume(self, overrides: dict[str, Any]) -> None:
        """Take the arguments of the run to be resumed from its checkpoint, and check that it can be resumed."""
        try:
            super().check_resume(overrides)
        except FileNotFoundError as error:
            raise DS2D2Error(f"resume={self.args.resume}: no checkpoint there, pass the last.pt of a run") from error
        if not self.resume:
            return
        if not self.args.teacher:
            raise DS2D2Error(f"resume={self.args.resume}: is no distillation run, resume it with 'yolo train resume'")
        _, checkpoint = load_checkpoint(self.args.resume)
        if checkpoint.get("epoch", -1) < 0:
            raise DS2D2Error(f"resume={self.args.resume}: this run is finished, there is nothing to resume")
        for role in ("teacher", "amplifier"):
            path = getattr(self.args, role)
            if path is not None and not Path(path).is_file():
                raise DS2D2Error(f"{role}={path}: the run to be resumed needs it, but there is no such file")

    def train(self) -> None:
        """Make the missing stages, then train the student."""
        if self._plan is not None:
            self._make_stages(self._plan)
            # The stages have used up random numbers: the student must not depend on which of them had to run.
            init_seeds(self.args.seed + 1 + RANK, deterministic=self.args.deterministic)
        try:
            super().train()
        finally:
            if self.distiller is not None:
                self.distiller.disarm()

    def set_model_attributes(self) -> None:
        """Attach the adapters to the student: after this, optimiser, DDP and EMA take them up."""
        super().set_model_attributes()
        gains = gains_of(self.args)
        if not gains.active:
            return
        teacher, _ = load_model("teacher", self.args.teacher, self.data)
        check_teacher(teacher, self.args.teacher, self.data)
        teacher.model.to(self.device)
        pair = check_pair(teacher, self._student(), self.args.imgsz, layers_of(self.args))
        amplifier = None
        if gains.im_high:
            amplifier = load_amplifier(self.args.amplifier, teacher, self.args.wavelet)
        with torch.random.fork_rng(devices=[]):  # the student's own random numbers stay those of a plain training
            torch.manual_seed(self.args.seed)
            loss = DS2D2Loss(pair.levels, gains, self.args.wavelet).to(self.device)
        setattr(self.model, _ADAPTERS, loss.adapters)
        self.distiller = Distiller(teacher, amplifier, loss, pair.student_layers, pair.teacher_layers)

    def resume_training(self, ckpt: dict[str, Any] | None) -> None:
        """Resume as Ultralytics does, adapters included."""
        super().resume_training(ckpt)
        if ckpt is not None and self.resume and self.distiller is not None:
            saved = getattr(ckpt["ema"], _ADAPTERS)
            self.distiller.loss.adapters.load_state_dict(saved.float().state_dict())

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Prepare a batch, and have the next forward pass of the student return the terms with its loss."""
        batch = super().preprocess_batch(batch)
        # The EMA is made last in the set-up: a batch seen before that is for calibration, not for training.
        if self.distiller is not None and self.ema is not None:
            self.distiller.arm(self._student(), batch)
        return batch

    def label_loss_items(self, loss_items: Mapping[str, Any] | None = None, prefix: str = "train") -> Any:
        """Name the loss items; the terms are measured in training only, so validation has no column for them."""
        labelled = super().label_loss_items(loss_items, prefix)
        if prefix != "val" or self.distiller is None:
            return labelled
        own = {f"val/{name}_loss" for name in self.distiller.loss.gains.active}
        if isinstance(labelled, dict):
            return {key: value for key, value in labelled.items() if key not in own}
        return [key for key in labelled if key not in own]

    def progress_string(self) -> str:
        """Return the header of the progress bar, whose columns are too narrow for the terms' full names."""
        header = super().progress_string()
        for name in TERMS:
            header = header.replace(f"{name}_loss".rjust(11), name.rjust(11))
        return header

    def final_eval(self) -> None:
        """Take the adapters out of the final checkpoints, then finish as Ultralytics does."""
        if RANK in {-1, 0} and self.distiller is not None:
            for checkpoint in (self.last, self.best):
                if checkpoint.exists():
                    remove_adapters(checkpoint)
        super().final_eval()

    def _student(self) -> Detector:
        model: Any = self.model
        student = detector_of(unwrap_model(model))
        assert student is not None
        return student

    def _make_stages(self, plan: Plan) -> None:
        """Run or reuse the teacher's and the amplifier's stage, and put their files into the arguments."""
        if plan.teacher_stage is not None:
            self.args.teacher = str(plan.teacher_stage.ensure())
        if gains_of(self.args).im_high and self.args.amplifier == "auto":
            teacher, _ = load_model("teacher", self.args.teacher, plan.data)
            self.args.amplifier = str(amplifier_stage(self.args, plan.data, teacher).ensure())
        YAML.save(self.save_dir / "args.yaml", vars(self.args))


def plan_run(overrides: Mapping[str, Any]) -> tuple[Plan, dict[str, Any]]:
    """Check a distillation run completely, print what it is going to do, and write nothing.

    Args:
        overrides (Mapping[str, Any]): What the user asked for.

    Returns:
        plan (Plan): What is going to be done.
        overrides (dict[str, Any]): The same request with paths resolved.

    Raises:
        DS2D2Error: If the run cannot work.
    """
    args = check_arguments(overrides)
    _check_combination(args)
    check_save_dir(args)
    args.data = resolve_data(args.data)
    for role, path in (("teacher", args.teacher), ("student", args.model)):
        _check_path(role, str(path))
    data = load_data(args)
    teacher, trained = load_model("teacher", args.teacher, data)
    student, _ = load_model("student", args.model, data)
    check_teacher(teacher, args.teacher, data)
    pair = check_pair(teacher, student, args.imgsz, layers_of(args))
    if gains_of(args).im_high and args.amplifier != "auto":
        load_amplifier(args.amplifier, teacher, args.wavelet)

    stage, metrics = None, None
    if trained:
        metrics = validate_teacher(args.teacher, args.data, args)
    else:
        stage = teacher_stage(args, data, teacher.title)
        metrics = stage.metrics if stage.is_finished() else None
    for line in summary_lines(teacher, student, pair, data, metrics):
        LOGGER.info(line)
    LOGGER.info(f"  stages: {_stages_text(args, stage)}")
    if args.batch < 1:
        LOGGER.warning(f"batch={args.batch}: AutoBatch does not count the memory of teacher and amplifier")

    resolved = dict(overrides)
    resolved["data"] = args.data
    for name in ("teacher", "amplifier"):
        value = getattr(args, name)
        # Absolute, as resume may happen in another folder; not for the names of files that Ultralytics ships.
        resolved[name] = str(Path(value).resolve()) if value and Path(value).is_file() else value
    return Plan(data, stage), resolved


def remove_adapters(checkpoint: Path) -> None:
    """Take the adapters out of a checkpoint: what remains holds classes of torch and Ultralytics only.

    Args:
        checkpoint (Path): The checkpoint; it is replaced in one step.
    """
    state = torch_load(checkpoint, map_location="cpu")
    for key in ("ema", "model"):
        if isinstance(state.get(key), nn.Module) and hasattr(state[key], _ADAPTERS):
            delattr(state[key], _ADAPTERS)
    partial = checkpoint.with_suffix(".partial")
    torch_save(state, partial)
    partial.replace(checkpoint)


def _check_combination(args: Any) -> None:
    """Refuse what is missing from or does not go together in a distillation run."""
    if not args.teacher:
        raise DS2D2Error("teacher= is missing: pass a trained .pt, or a model .yaml to train one first", 2)
    if not args.model:
        raise DS2D2Error("student= is missing: pass a model .yaml, or a pretrained .pt", 2)
    if args.distill_model is not None:
        raise DS2D2Error(f"distill_model={args.distill_model} is Ultralytics' own distillation: use it or teacher=", 2)
    if args.compile:
        raise DS2D2Error(
            f"compile={args.compile}: not available with distillation, as the compiled model has no taps", 2
        )
    if args.task != "detect":
        raise DS2D2Error(f"task={args.task}: only task=detect can be distilled", 2)


def _check_path(role: str, path: str) -> None:
    """Refuse a missing checkpoint before the data are touched; a bare name may be one that Ultralytics downloads."""
    if Path(path).suffix == ".pt" and not Path(path).is_file() and Path(path).name != path:
        raise DS2D2Error(f"{role}={path}: no such file")


def _stages_text(args: Any, stage: Stage | None) -> str:
    """Return what each stage is going to do, in one line."""
    parts = []
    if stage is not None:
        parts.append(f"teacher ({'reused' if stage.is_finished() else 'to be trained'})")
    if not gains_of(args).im_high:
        parts.append("no amplifier (im_high is off)")
    elif args.amplifier == "auto":
        parts.append("amplifier (reused if there is one for this teacher, else trained)")
    else:
        parts.append("amplifier (given)")
    return ", ".join([*parts, "student"])
