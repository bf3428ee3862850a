"""Stage 3: the student, trained with its own loss plus the terms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader
from ultralytics.data import build_dataloader, build_yolo_dataset
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.utils import DEFAULT_CFG, LOCAL_RANK, LOGGER, RANK, YAML, colorstr
from ultralytics.utils.patches import override_configs
from ultralytics.utils.torch_utils import init_seeds

from ds2d2_yolo.detectors import Batch, Detector
from ds2d2_yolo.errors import DS2D2Error, message_of
from ds2d2_yolo.evaluation import AGREEMENT
from ds2d2_yolo.files import report_full_disk, whole_file, write_json
from ds2d2_yolo.loading.models import load_model
from ds2d2_yolo.loading.safety import check_safety
from ds2d2_yolo.method import TERMS, DS2D2Loss
from ds2d2_yolo.training.adapters import AdapterFit
from ds2d2_yolo.training.amplifier import load_amplifier
from ds2d2_yolo.training.arguments import check_arguments, complete_configuration
from ds2d2_yolo.training.autobatch import DistillationStep
from ds2d2_yolo.training.calibration import Calibration, ShareMeter
from ds2d2_yolo.training.checks import check_teacher
from ds2d2_yolo.training.pair import Pair, check_pair
from ds2d2_yolo.training.pipeline import Plan, plan
from ds2d2_yolo.training.random_numbers import own_random_numbers, random_state, set_random_state
from ds2d2_yolo.training.results import OF_A_STUDENT, TEACHER_FILE, column_names
from ds2d2_yolo.training.resume import ADAPTERS
from ds2d2_yolo.training.resume_checks import (
    check_checkpoint,
    check_continuation,
    is_before_its_stage,
    sources_of,
)
from ds2d2_yolo.training.schedule import TermSchedule
from ds2d2_yolo.training.step import Distiller
from ds2d2_yolo.training.trainer import PlainTrainer
from ds2d2_yolo.training.types import Callbacks, Configuration
from ds2d2_yolo.training.validation import DistillationValidator


class StudentTrainer(PlainTrainer):
    """Train a student with the distillation terms of DS2D2. Everything else is Ultralytics' trainer.

    The constructor checks everything and prints a plan. It trains nothing. `train` first reuses or trains the stages
    before the student: the amplifier, and a teacher given as a model YAML. Then it trains the student. `best.pt` and
    `last.pt` are plain Ultralytics checkpoints.

    Args:
        cfg (Configuration): As for Ultralytics' trainers.
        overrides (dict[str, Any] | None): Ultralytics' train arguments and those of `cfg/default.yaml`. `student` is
            another name for `model`.
        _callbacks (dict[str, list] | None): As for Ultralytics' trainers.

    Attributes:
        plan (Plan | None): The plan of the run. None in a resumed run, in workers of a DDP run, and in plain epochs at
            the end.
        distiller (Distiller | None): The distillation, set at the start of training. None in plain epochs at the end.
        pair (Pair | None): The maps that are compared, set at the start of training.
        schedule (TermSchedule | None): The schedule of distilled steps. None in plain epochs at the end.

    Raises:
        DS2D2Error: If the run cannot work. The message has one line: what is wrong, where, and what to do.

    Example:
        >>> overrides = {"teacher": "yolo11l.pt", "student": "yolo11n.yaml", "data": "DIOR.yaml", "epochs": 100}
        >>> StudentTrainer(overrides=overrides).train()  # doctest: +SKIP
    """

    def __init__(
        self,
        cfg: Configuration = DEFAULT_CFG,
        overrides: dict[str, Any] | None = None,
        _callbacks: Callbacks | None = None,
    ) -> None:
        overrides = dict(overrides or {})
        self.plan: Plan | None = None
        self.distiller: Distiller | None = None
        self.pair: Pair | None = None
        self.schedule: TermSchedule | None = None
        self._resumed: dict[str, Any] | None = None
        self._sources: dict[str, str] = {}
        self._loggers_wait = False
        if RANK == -1:  # workers of a DDP run get arguments that their parent has checked
            if overrides.get("resume", complete_configuration(cfg)["resume"]):
                arguments = check_arguments(overrides, cfg)
                if arguments.safe:
                    # Files that have moved are named beside it
                    check_safety({"resume": arguments.resume, "teacher": arguments.teacher})
                overrides.pop("student", None)  # the checkpoint contains it: `check_resume` warns of another one
                overrides["model"] = arguments.model
                if "save_dir" in overrides:
                    overrides["save_dir"] = arguments.save_dir
            else:
                self.plan = plan(overrides, cfg=cfg)
                LOGGER.info("\n".join(self.plan.summary()))
                overrides = {name: value for name, value in overrides.items() if name != "student"}
                overrides |= self.plan.completed
                self._loggers_wait = not self.plan.is_ready
        super().__init__(cfg, overrides, _callbacks)

    def run_callbacks(self, event: str) -> None:
        """Run the callbacks of an event. Loggers start the student's record after those of its stages have ended."""
        if not (self._loggers_wait and event == "on_pretrain_routine_start"):
            super().run_callbacks(event)

    def check_resume(self, overrides: dict[str, Any]) -> None:
        """Read the arguments of a resumed run from its checkpoint, and check that it can be resumed."""
        asked = self.args.resume
        # Files that were moved since the run began: Ultralytics would use the old paths
        named = {name: str(overrides.get(name) or "") for name in ("teacher", "amplifier", "unlabeled")}
        named = {name: value for name, value in named.items() if value.lower() not in {"", "auto", "none"}}
        moved = {name: value for name, value in named.items() if not is_before_its_stage(name, value)}
        if isinstance(asked, (str, Path)) and asked:
            check_checkpoint(asked)
        try:
            super().check_resume({name: value for name, value in overrides.items() if name not in named})
        except FileNotFoundError as error:
            raise DS2D2Error(
                f"resume={asked}: the last run has no usable checkpoint; pass resume=path/to/last.pt"
            ) from error
        if self.resume:
            vars(self.args).update({name: str(Path(value).resolve()) for name, value in moved.items()})
        if self.resume and RANK == -1:
            ignored: dict[str, object] = {name: value for name, value in named.items() if name not in moved}
            ignored["student"] = overrides.get("model")
            check_continuation(Path(self.args.resume), self.arguments, ignored, self.is_over)

    def train(self) -> None:
        """Train the missing stages, then the student."""
        self.refuse_second_training()
        try:
            if self.plan is not None:
                with report_full_disk():
                    self._make_stages(self.plan)
            super().train()
        finally:
            self._unlock()
            if self.distiller is not None:
                self.distiller.end_step()

    def resume_command(self, last: Path) -> str:
        """Return the command that continues the run from its last checkpoint."""
        return f"'ds2d2 train resume={last}'"

    def _make_stages(self, planned: Plan) -> None:
        """Run the plan, and set the paths of its output files in the arguments."""
        state = random_state(self.device)
        try:
            if planned.states.get("teacher") in {"given", "reused"}:
                planned = planned.with_metrics()
                LOGGER.info("\n".join(planned.measure_teacher()))
            self.plan = planned.run()
        except BaseException:  # also after Ctrl-C: remove the empty run folder of the student
            self.remove_untrained()
            raise
        # The student must not depend on whether its stages were trained now or reused. Ultralytics also turns off
        # deterministic algorithms at the end of a stage.
        init_seeds(self.args.seed + 1 + RANK, deterministic=self.args.deterministic)
        set_random_state(state, self.device)
        vars(self.args).update(self.plan.completed)
        _save_arguments(self)
        for path in [path for pattern in OF_A_STUDENT for path in self.save_dir.glob(pattern) if path.is_file()]:
            path.unlink()  # with `exist_ok=True`: a page about this run must not show an earlier one
        if self.plan.metrics:
            scores = {name: float(self.plan.metrics.get(f"metrics/{name}(B)", 0)) for name in ("mAP50", "mAP50-95")}
            write_json(self.save_dir / TEACHER_FILE, {**scores, "imgsz": self.plan.arguments.teacher_size})
        if self._loggers_wait:
            self._loggers_wait = False
            if not self.ddp:
                self.run_callbacks("on_pretrain_routine_start")  # with the stages' files in the arguments

    def setup_model(self) -> dict[str, Any] | None:
        """Build or load the student, and keep the checkpoint of a resumed run, which contains the adapters."""
        checkpoint: dict[str, Any] | None = super().setup_model()
        self._resumed = checkpoint if self.resume else None
        return checkpoint

    def set_model_attributes(self) -> None:
        """Attach the adapters to the student, before optimiser, DDP and EMA are set up."""
        super().set_model_attributes()
        arguments, resumed, self._resumed = self.arguments, self._resumed, None
        is_plain = resumed is not None and arguments.is_plain(resumed["epoch"] + 1)
        teacher = self._load_teacher() if arguments.needs_teacher and not is_plain else None
        self._sources = sources_of(arguments, teacher)
        if teacher is None:
            if resumed is not None and arguments.needs_teacher:
                # Not trained any more, but optimiser and checkpoints contain them
                setattr(self.model, ADAPTERS, getattr(resumed["ema"], ADAPTERS).float().to(self.device))
            return
        gains = arguments.gains
        teacher.model.to(self.device)
        teacher.configure(sum_regions=bool(arguments.sum_regions), hulls=arguments.footprint == "hull")
        sizes = arguments.imgsz, arguments.layers, arguments.teacher_imgsz
        self.pair = pair = check_pair(teacher, self.detector, *sizes)
        teacher.ratio = pair.ratio
        amplifier = None
        if gains.im_high:
            amplifier = load_amplifier(str(arguments.amplifier), teacher, arguments.wavelet)
        with own_random_numbers(arguments.seed):  # the student keeps those of a plain training
            shared = teacher.shared_adapter and pair.is_uniform and (gains.ex_low or gains.ex_high)
            weight = arguments.weight or "confidence"
            loss = DS2D2Loss(pair.maps, gains, arguments.wavelet, weight, bool(shared)).to(self.device)
        setattr(self.model, ADAPTERS, loss.adapters)
        model: Any = self.model
        stem = next(model.parameters())
        if stem.is_contiguous(memory_format=torch.channels_last) and not stem.is_contiguous():
            for module in (teacher.model, amplifier, loss):  # one memory layout for all maps needs no conversion
                if module is not None:
                    module.to(memory_format=torch.channels_last)
        self._start_distillation(teacher, amplifier, loss, pair)

    def _start_distillation(self, teacher: Detector, amplifier: nn.Module | None, loss: DS2D2Loss, pair: Pair) -> None:
        """Create the distiller with calibration, meter and schedule, and add the callbacks for epochs and gains."""
        arguments, shares = self.arguments, self.arguments.shares
        is_running = arguments.has_running_gains
        calibration = Calibration(shares, is_running=is_running) if shares else None
        measures = RANK in {-1, 0} or (is_running and shares)  # running gains need all processes
        # A measurement takes about a third of a step
        levels, every = [f"{tap.stride:g}" for tap in pair.taps], 20 if is_running else 50
        meter = ShareMeter(levels, every) if measures else None
        layers, assignment = (pair.student_layers, pair.teacher_layers), arguments.assignment
        fit = AdapterFit(loss.adapters) if arguments.adapters == "fitted" and not self.resume else None
        self.distiller = Distiller(teacher, amplifier, loss, *layers, calibration, meter, assignment, fit)
        self.schedule = TermSchedule(
            loss.gains.active, arguments.distill_every, arguments.im_every, assigns=assignment == "teacher"
        )
        self.add_callback("on_train_epoch_start", StudentTrainer.begin_epoch)
        if calibration is not None:
            self.add_callback("on_train_epoch_end", partial(_keep_gains, calibration))

    def begin_epoch(self) -> None:
        """Callback: reset counts and measurements. Before plain epochs at the end, free teacher and amplifier."""
        if self.distiller is None or self.schedule is None:
            return
        if not self.arguments.is_plain(self.epoch, self.epochs):
            self.schedule.start_epoch()
            if self.epoch > self.start_epoch:
                self.distiller.fit = None
            if self.distiller.meter is not None:
                self.distiller.meter.start_epoch()
            return
        self.distiller.end_step()
        self.plan = self.distiller = self.schedule = None
        self.loss_names = tuple(name for name in self.loss_names if name.removesuffix("_loss") not in TERMS)
        if self.args.val_kd:
            self.validator = self.get_validator()  # the other one holds the teacher
        self._clear_memory()
        LOGGER.info(
            f"{colorstr('DS2D2:')} close_distill={self.args.close_distill}: distillation ends here, teacher and "
            f"amplifier are removed from memory{'; val_kd ends, too' if self.args.val_kd else ''}"
        )

    @property
    def loss_items(self) -> dict[str, torch.Tensor] | None:
        """Loss items of the last step. If the step omits terms, these items are their means in this epoch."""
        return self._loss_items

    @loss_items.setter
    def loss_items(self, items: dict[str, torch.Tensor] | None) -> None:
        if items is not None and self.schedule is not None and not self.schedule.is_every_step:
            items = self.schedule.complete(items)
        self._loss_items = items

    def _load_teacher(self) -> Detector:
        """Return the teacher of the plan. Workers of a DDP run and resumed runs have no plan, so they load it."""
        if self.plan is not None:
            return self.plan.teacher
        teacher, trained = load_model("teacher", self.args.teacher)
        if not trained or self.args.amplifier == "auto":
            raise DS2D2Error("stages are missing, and a DDP worker does not train them; start with 'ds2d2 train'")
        check_teacher(teacher, self.args.teacher, self.data)
        return teacher

    def resume_training(self, ckpt: dict[str, Any] | None) -> None:
        """Resume training, including the adapters."""
        try:
            if ckpt is not None and self.resume and self.distiller is not None:
                saved = getattr(ckpt["ema"], ADAPTERS)
                self.distiller.loss.adapters.load_state_dict(saved.float().state_dict())
            super().resume_training(ckpt)
        except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            if isinstance(error, DS2D2Error) or not self.resume:
                raise
            raise DS2D2Error(
                f"resume={self.args.resume}: is damaged and cannot be resumed ({message_of(error)}); resume from "
                "another checkpoint of the run, or start it again"
            ) from error
        if RANK in {-1, 0} and isinstance(self.validator, DistillationValidator):
            self.metrics |= dict.fromkeys(AGREEMENT, 0)  # these columns must exist before the first validation

    def distillation_state(self) -> dict[str, Any]:
        """Return the state of running gains, and fingerprints of what the student learns from, for a checkpoint."""
        calibration = None if self.distiller is None else self.distiller.calibration
        running = calibration is not None and calibration.is_running
        return {"sources": self._sources, **({"calibration": calibration.state()} if calibration and running else {})}

    def restore_distillation(self, state: dict[str, Any]) -> None:
        """Restore running gains from the state in a checkpoint."""
        calibration = state.get("calibration")
        if calibration and self.distiller is not None and self.distiller.calibration is not None:
            self.distiller.calibration.restore(calibration)
            self.distiller.loss.gains = replace(self.distiller.loss.gains, **self.distiller.calibration.gains)

    def get_validator(self) -> DetectionValidator:
        """Return Ultralytics' validator. With `val_kd`, it also compares the student with its teacher."""
        validator = super().get_validator()
        if not self.args.val_kd or self.distiller is None:
            return validator
        settings = {"save_dir": validator.save_dir, "args": validator.args, "_callbacks": validator.callbacks}
        kind: Any = DistillationValidator
        if not issubclass(kind, type(validator)):  # another task's validator becomes the second base class
            kind = type(kind.__name__, (kind, type(validator)), {})
        compared = kind(self.distiller, validator.dataloader, **settings)
        if (ratio := self.arguments.size_ratio) > 1:
            compared.teacher_batches = self._load_for_teacher(validator.dataloader, ratio)
        checked: DetectionValidator = compared
        return checked

    def _load_for_teacher(self, loader: DataLoader[Any], ratio: int) -> DataLoader[Any]:
        """Return a loader of the validation images at the teacher's size, batch by batch those of `loader`."""
        batch, path = loader.batch_size or 1, self.data[self.args.split]
        # Twice the size and twice the stride: rectangles of twice the sides, for the same images in the same order
        with override_configs(self.args, {"imgsz": ratio * self.args.imgsz, "cache": False}):
            stride = ratio * self.stride
            args: Any = self.args
            dataset = build_yolo_dataset(args, path, batch, self.data, mode="val", rect=True, stride=stride)
        images: DataLoader[Any] = build_dataloader(
            dataset, batch=batch, workers=2 * self.args.workers, shuffle=False, rank=LOCAL_RANK, device=self.device
        )
        return images

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        """Return a data set as Ultralytics does; images to train on are loaded at the teacher's size."""
        ratio = self.arguments.size_ratio if mode == "train" else 1
        with override_configs(self.args, {"imgsz": ratio * self.args.imgsz}):
            return super().build_dataset(img_path, mode, batch)

    def get_dataloader(
        self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train"
    ) -> DataLoader[Any]:
        """Return a loader. If it replaces the validator's loader, also replace the teacher's."""
        loader = super().get_dataloader(dataset_path, batch_size, rank, mode)
        if mode == "val" and isinstance(self.validator, DistillationValidator) and self.validator.teacher_batches:
            self.validator.teacher_batches = self._load_for_teacher(loader, self.arguments.size_ratio)
        return loader

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        """Add a row to results.csv. Its columns stay those of the first epoch, also after an update of ds2d2."""
        columns = [name for name in column_names(self.csv) if name not in {"epoch", "time"}]
        super().save_metrics({name: metrics.get(name, math.nan) for name in columns} or metrics)

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Prepare a batch, and make the next forward pass of the student append the terms to its loss."""
        large, ratio = None, self.arguments.size_ratio
        if ratio > 1:
            large = batch["img"].to(self.device, non_blocking=self.device.type not in {"cpu", "mps"}).float()
            reduce_batch(batch, large, ratio)
        batch = super().preprocess_batch(batch)
        # The EMA is created last in the set-up: earlier batches only calibrate quantisation.
        if self.distiller is not None and self.schedule is not None and self.ema is not None:
            terms = self.schedule.next_step()
            if terms is not None:
                if large is not None:
                    batch["teacher_img"] = enlarged(large.div_(255), batch["img"], ratio)
                self.distiller.begin_step(self.detector, cast(Batch, batch), terms)
        return batch

    def label_loss_items(
        self, loss_items: Mapping[str, Any] | None = None, prefix: str = "train"
    ) -> dict[str, float] | list[str]:
        """Name the loss items for results.csv and loggers. For training, add gains and shares.

        Without `val_kd`, terms are measured in training only, and there are no columns for validation.
        """
        labelled = super().label_loss_items(loss_items, prefix)
        if prefix == "train" and isinstance(labelled, dict):
            return {**labelled, **self._columns_of_training(labelled)}
        if self.distiller is None or prefix != "val" or self.args.val_kd:
            return labelled
        own = {f"val/{name}_loss" for name in self.distiller.loss.gains.active}
        if isinstance(labelled, dict):
            return {key: value for key, value in labelled.items() if key not in own}
        return [key for key in labelled if key not in own]

    def _columns_of_training(self, labelled: Mapping[str, float]) -> dict[str, float]:
        """Return the columns of distillation, and the means of the terms over the steps that compute them."""
        if self.distiller is None or self.schedule is None:
            return {"steps/distilled": 0.0} if self.args.close_distill and self.arguments.needs_teacher else {}
        if self.distiller.meter is None:
            return {}
        active, gains = self.distiller.loss.gains.active, asdict(self.distiller.loss.gains)
        means = {f"train/{name}": round(value.item(), 5) for name, value in self.schedule.means.items()}
        return {
            **{key: value for key, value in means.items() if key in labelled},
            **{f"gain/{name}": gains[name] for name in active},
            **self.distiller.meter.shares(active),
            **({} if self.schedule.is_every_step and not self.args.close_distill else self.schedule.columns()),
        }

    def auto_batch(self) -> int:  # type: ignore[override] # as in DetectionTrainer, whose base has arguments
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
        """Return the header of the progress bar. Its columns are too narrow for names with `_loss`."""
        header = super().progress_string()
        for name in TERMS:
            header = header.replace(f"{name}_loss".rjust(11), name.rjust(11))
        return header


def reduce_batch(batch: dict[str, Any], large: torch.Tensor, ratio: int) -> None:
    """Bring images and masks of a batch that were loaded at the teacher's size down to the student's, in place.

    Boxes and keypoints are shares of the image and stay as they are.

    Args:
        batch (dict[str, Any]): The batch.
        large (torch.Tensor): Its images (B, 3, ratio * H, ratio * W), as floating-point numbers.
        ratio (int): Side of the teacher's images, in sides of the student's.

    Example:
        >>> batch = {}
        >>> reduce_batch(batch, torch.arange(4.0).view(1, 1, 2, 2), 2)
        >>> batch["img"].item()
        1.5
    """
    batch["img"] = F.avg_pool2d(large, ratio)
    for name in {"masks", "sem_masks"} & batch.keys():
        batch[name] = batch[name][..., ratio // 2 :: ratio, ratio // 2 :: ratio]


def enlarged(large: torch.Tensor, images: torch.Tensor, ratio: int) -> torch.Tensor:
    """Return the teacher's images in `ratio` times the size of the student's, which `multi_scale` changes.

    Args:
        large (torch.Tensor): Images (B, 3, H, W) as they were loaded.
        images (torch.Tensor): The student's images (B, 3, h, w).
        ratio (int): Side of the teacher's images, in sides of the student's.

    Returns:
        (torch.Tensor): Images (B, 3, ratio * h, ratio * w).
    """
    size = [ratio * images.shape[2], ratio * images.shape[3]]
    if list(large.shape[2:]) == size:
        return large
    return F.interpolate(large, size, mode="bilinear", align_corners=False)


def _save_arguments(trainer: PlainTrainer) -> None:
    """Write args.yaml in one step: a resumed run reads it, whenever this process is killed."""
    with whole_file(trainer.save_dir / "args.yaml") as partial:
        YAML.save(partial, vars(trainer.args))


def _keep_gains(calibration: Calibration, trainer: PlainTrainer) -> None:
    """Callback: end the calibration after the first epoch, and save its gains for a resumed run.

    Running gains are saved in each checkpoint instead.
    """
    if calibration.is_running:
        calibration.finish()
        return
    if all(getattr(trainer.args, name) is not None for name in calibration.shares):
        return
    calibration.finish()
    for name, gain in calibration.gains.items():
        setattr(trainer.args, name, gain)
    if RANK in {-1, 0} and calibration.gains:
        _save_arguments(trainer)
        gains = ", ".join(f"{name}={gain:g}" for name, gain in calibration.gains.items())
        LOGGER.info(f"{colorstr('DS2D2:')} gains measured over {calibration.batches} batches: {gains}")
