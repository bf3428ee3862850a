"""What the trainers of this package have in common: they know the own arguments, Ultralytics need not."""

from __future__ import annotations

import os
import shutil
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import DataLoader
from ultralytics.cfg import get_save_dir
from ultralytics.models.yolo.detect import DetectionTrainer, DetectionValidator
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import DEFAULT_CFG, LOGGER, RANK, colorstr
from ultralytics.utils.torch_utils import ModelEMA, unwrap_model

from ds2d2_yolo.detectors import Detector, build_model, detector_of
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.files import FolderLock, room_for
from ds2d2_yolo.loading.decoding import undecodable_named
from ds2d2_yolo.loading.fingerprint import describe_outdated, fingerprint_of_data, outdated_caches
from ds2d2_yolo.training.arguments import DEFAULTS, Arguments, complete_configuration
from ds2d2_yolo.training.checks import check_last_batch
from ds2d2_yolo.training.protocols import Callbacks, Configuration, ModelConfiguration
from ds2d2_yolo.training.results import keep_epochs, read_rows
from ds2d2_yolo.training.resume import (
    complete_checkpoints,
    load_state,
    remove_states,
    restore_gradients,
    restore_state,
    room_of_checkpoints,
    save_state,
    state_file,
    training_is_over,
    whole_files,
    without_adapters,
)
from ds2d2_yolo.training.tasks import trainer_for


class PlainTrainer(DetectionTrainer):
    """A `DetectionTrainer` of all detector families that takes the arguments of `cfg/default.yaml` beside Ultralytics'.

    Called with a model for another task, it makes a trainer that is also Ultralytics' own for that task: `OBBTrainer`,
    `SegmentationTrainer` or `PoseTrainer` (see `ds2d2_yolo.training.tasks`).

    They are in `args`, and so in args.yaml, in checkpoints to be resumed and in what DDP workers are given.

    Checkpoints are replaced as a whole, so that a process killed at any moment leaves good ones; and a run that resumes
    continues exactly where the interrupted one was (see `ds2d2_yolo.training.resume`). No other process trains in the
    folder of the run from the constructor on, until `train` has ended.

    Args:
        cfg (Configuration): As for Ultralytics' trainers.
        overrides (dict[str, Any] | None): Arguments of both kinds.
        _callbacks (dict[str, list] | None): As for Ultralytics' trainers.

    Attributes:
        is_over (bool): Whether a run that resumes has no epoch left to train: `train` only completes its checkpoints.

    Raises:
        DS2D2Error: If another process trains in the folder, or a finished run would be overwritten by resuming.
    """

    # Ultralytics sets these when training begins, with other types before
    model: nn.Module  # type: ignore[assignment]
    ema: ModelEMA  # type: ignore[assignment]
    optimizer: Optimizer  # type: ignore[assignment]
    scheduler: LRScheduler  # type: ignore[assignment]
    lf: Callable[[int], float]  # type: ignore[assignment]
    validator: DetectionValidator  # type: ignore[assignment]
    metrics: dict[str, Any]  # type: ignore[assignment]
    loss_names: tuple[str, ...]  # type: ignore[assignment]

    def __new__(
        cls,
        cfg: Configuration = DEFAULT_CFG,
        overrides: dict[str, Any] | None = None,
        _callbacks: Callbacks | None = None,
    ) -> Any:
        """Make a trainer for the task of the model."""
        asked = {**(overrides or {})}
        asked["safe"] = asked.get("safe", complete_configuration(cfg)["safe"])
        return super().__new__(trainer_for(cls, asked))

    def __init__(
        self,
        cfg: Configuration = DEFAULT_CFG,
        overrides: dict[str, Any] | None = None,
        _callbacks: Callbacks | None = None,
    ) -> None:
        self.is_over = False
        self._unlock: Callable[[], object] = lambda: None
        self._is_new = False
        try:
            with room_for(advice=self._how_to_go_on):
                super().__init__(complete_configuration(cfg), overrides, _callbacks)
        except BaseException:
            self._unlock()
            raise
        if RANK != -1:
            check_launch(self.world_size)
        self.data_fingerprint = ""  # known when training starts
        self._unstepped = 0  # batches since the last step of the optimiser
        self._offset = 0  # by how much `accumulate` must be higher until the first step of a resumed run
        self._gradients: dict[str, Any] = {}  # accumulated before the interruption
        self.add_callback("on_train_start", _run_time_on)

    @property
    def arguments(self) -> Arguments:
        """The arguments as they are now: Ultralytics completes some of them, calibration others."""
        return Arguments(vars(self.args))

    @property
    def detector(self) -> Detector:
        """The model that is trained, as a detector."""
        model: Any = self.model
        model = unwrap_model(model)
        detector = detector_of(getattr(model, "student_model", model))  # Ultralytics' own distillation wraps it
        assert detector is not None
        return detector

    def check_resume(self, overrides: dict[str, Any]) -> None:
        """Resume as Ultralytics does, in the folder of the checkpoint, wherever the run began.

        Arguments that came after the run was started have their defaults. Here the folder is known, and nothing is
        written yet: it is locked.
        """
        super().check_resume(overrides)
        last = Path(str(self.args.resume)).resolve()
        if self.resume and "save_dir" not in overrides:
            self._stay_in(last)
        if RANK == -1:  # workers of a DDP run train in the folder that their parent has locked
            self._lock_folder()
            if self.resume:
                self.is_over = check_unfinished(last, Path(self.args.save_dir) / "weights")
        four_terms = not hasattr(self.args, "response")  # there were no more then
        for name, default in DEFAULTS.items():
            if not hasattr(self.args, name):
                setattr(self.args, name, default)
        if self.resume and four_terms:
            self.args.response, self.args.shares = 0.0, [*self.args.shares[:4], 0.0]

    def _stay_in(self, last: Path) -> None:
        """Go on in the folder of a checkpoint: a copy of a run leaves the run that it was copied from alone."""
        folder, began = last.parents[1], getattr(self.args, "save_dir", None)  # files of others have none
        if last.parent.name != "weights" or (began and Path(began).resolve() == folder):
            return
        if RANK in {-1, 0}:
            LOGGER.info(f"{colorstr('DS2D2:')} this run began in {began} and goes on in {folder}, where its last.pt is")
        self.args.save_dir = str(folder)

    def _lock_folder(self) -> None:
        """Have this process alone train in the folder of the run, until `train` has ended."""
        is_given = bool(self.args.exist_ok or getattr(self.args, "save_dir", None))
        if not is_given:
            clear_killed(get_save_dir(self.args).parent)
        while True:
            folder = get_save_dir(self.args)
            lock = FolderLock(folder)
            if lock.acquire(wait=False):
                if is_given or not folder.exists():
                    break
                lock.release()
            elif is_given:
                raise DS2D2Error(
                    f"{folder}: another process trains here, and nothing was changed; wait for its end, or give this "
                    "run a name= of its own"
                )
            time.sleep(0.05)  # another process has chosen the same new folder, and is about to make it
        self.args.save_dir, self._is_new = str(folder), not folder.exists()
        self._unlock = weakref.finalize(self, lock.release)

    def train(self) -> None:
        """Train as Ultralytics does; where no epoch is left, do what a killed run left undone."""
        try:
            with room_for(advice=self._how_to_go_on):
                if self.is_over:
                    self.complete()
                else:
                    with undecodable_named(self.args.data):
                        super().train()
        except DS2D2Error:
            self.remove_unbegun()
            raise
        finally:
            self._unlock()

    def remove_unbegun(self) -> None:
        """Unlock and remove the folder of a run that has not trained an epoch; files of others stay."""
        self._unlock()
        if RANK == -1 and self.wdir.is_dir():
            _remove_unbegun(self.save_dir)
            with suppress(OSError):  # it holds something else
                self.save_dir.parent.rmdir()

    def _how_to_go_on(self) -> str:
        """Return what is whole where the disk is full, and what to do; a folder without checkpoints is removed."""
        folder = Path(str(getattr(self.args, "save_dir", None)))
        last, needed = folder / "weights" / "last.pt", ""
        if getattr(self, "optimizer", None) is not None:
            needed = f"the checkpoints of an epoch need about {room_of_checkpoints(self) / 2**20:.1f} MiB; "
        if last.is_file():
            return f"{needed}{last} is whole: make room, then {self.how_to_resume(last)}"
        if self._is_new:
            shutil.rmtree(folder, ignore_errors=True)
        return f"{needed}nothing was saved yet: make room, then run the same command again"

    def how_to_resume(self, last: Path) -> str:
        """Return what continues the run from its last checkpoint, to be typed by a person."""
        return "run the same command again"

    def complete(self) -> None:
        """Make the final checkpoints of a run that was killed between its last epoch and its end."""
        complete_checkpoints(self.wdir)
        if self.args.plots:
            self.plot_metrics()
        LOGGER.info(f"{colorstr('DS2D2:')} {self.save_dir}: its last epoch was done; its checkpoints are completed")

    def get_model(
        self, cfg: ModelConfiguration | None = None, weights: nn.Module | None = None, verbose: bool = True
    ) -> nn.Module:
        """Return a model of the family that the YAML is for, with the given weights or its family's public ones."""
        if self.args.task != "detect":
            return super().get_model(cfg, weights, verbose)
        assert cfg is not None
        data: Any = self.data
        model: Any = build_model(cfg, ch=data["channels"], nc=data["nc"], verbose=verbose and RANK == -1)
        model = self.set_model_names_for_load(model)
        if weights:
            model.load(weights)
        elif self.args.pretrained is True:
            detector = detector_of(model)
            assert detector is not None
            detector.load_backbone()
        return model

    def set_model_attributes(self) -> None:
        """Attach names and arguments; the layers that the family wants frozen join those that `freeze` names."""
        super().set_model_attributes()
        if own := self.detector.frozen_layers:
            asked = self.args.freeze
            asked = asked if isinstance(asked, list) else range(asked or 0)
            self.args.freeze = sorted({*own, *asked})

    def _setup_scheduler(self) -> None:
        """Set the learning rate's schedule: Ultralytics', or the one of `lr_steps`."""
        steps = self.args.lr_steps
        if steps is None:
            super()._setup_scheduler()
            return
        self.lf = lambda epoch: 0.1 ** sum(epoch >= step for step in steps)
        self.scheduler = LambdaLR(self.optimizer, lr_lambda=self.lf)

    def get_validator(self) -> DetectionValidator:
        """Return the ordinary validator, which knows Ultralytics' arguments only."""
        every = self.args
        self.args = copy(every)
        for name in DEFAULTS:
            delattr(self.args, name)
        try:
            return super().get_validator()
        finally:
            self.args = every

    def get_dataloader(
        self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train"
    ) -> DataLoader[Any]:
        """Return a loader; a new one for training means that accumulation starts over."""
        loader = super().get_dataloader(dataset_path, batch_size, rank, mode)
        if mode == "train":
            self._unstepped = self._offset = 0
            check_last_batch(vars(self.args), len(loader.sampler), loader.batch_size or 1, self.stride)
        return loader

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Prepare a batch, and count it."""
        if self.ema is not None:  # else it is for calibration, not for training
            self._unstepped += 1
            self.accumulate += self._offset
        return super().preprocess_batch(batch)

    def optimizer_step(self) -> None:
        """Step as Ultralytics does."""
        super().optimizer_step()
        self._unstepped = 0

    def save_model(self) -> bool:
        """Save checkpoints as Ultralytics does, but each as a whole or not at all, and the exact state beside them."""
        places = self.wdir, self.last, self.best
        with whole_files(self.wdir) as partial:
            self.wdir, self.last, self.best = partial, partial / self.last.name, partial / self.best.name
            try:
                saved = bool(super().save_model())
                state = state_file(self.last, self.epoch)
                save_state(self, state, self._unstepped)
            finally:
                self.wdir, self.last, self.best = places
        remove_states(self.wdir, keep=self.wdir / state.name)
        return saved

    def state_of_distillation(self) -> dict[str, Any]:
        """Return what distillation adds to the exact state: nothing in a plain training."""
        return {}

    def restore_distillation(self, state: dict[str, Any]) -> None:
        """Go on from what `state_of_distillation` returned."""

    def resume_training(self, ckpt: dict[str, Any] | None) -> None:
        """Resume as Ultralytics does, then make the state exact."""
        super().resume_training(ckpt)
        if RANK in {-1, 0}:
            self.data_fingerprint = fingerprint_of_data(self.data)
            if outdated := outdated_caches(self.data):
                LOGGER.warning(f"{colorstr('DS2D2:')} {describe_outdated(outdated)}")
        if ckpt is None or not self.resume:
            return
        if RANK in {-1, 0}:
            keep_epochs(self.csv, self.start_epoch)
        state = load_state(Path(str(self.args.resume)), self.start_epoch - 1)
        if state is None:
            return
        if RANK in {-1, 0} and state["data"] != self.data_fingerprint:
            self._warn_of_data()
        restore_state(self, state)
        self.restore_distillation(state.get("distillation", {}))  # older states have none
        self._unstepped, self._gradients = state["unstepped"], state["gradients"]
        # Ultralytics counts batches over all epochs, and in a resumed run takes the last step to be that of batch -1.
        self._offset = len(self.train_loader) * self.start_epoch - self._unstepped
        self.add_callback("on_train_epoch_start", _return_gradients)
        self.add_callback("on_train_batch_end", _lower_accumulate)

    def final_eval(self) -> None:
        """Finish the best and last checkpoints as Ultralytics does, which replace the old ones when they are whole."""
        if RANK != -1:
            if RANK == 0:
                for path in (self.last, self.best):
                    if path.exists():
                        with whole_files(self.wdir) as partial:
                            without_adapters(path, partial / path.name)
            super().final_eval()
        else:
            places = self.last, self.best
            with whole_files(self.wdir) as partial:
                self.last, self.best = partial / self.last.name, partial / self.best.name
                try:
                    for source, target in zip(places, (self.last, self.best), strict=True):
                        if source.exists():
                            without_adapters(source, target)
                    super().final_eval()
                finally:
                    self.last, self.best = places
        if RANK in {-1, 0}:
            remove_states(self.wdir)
            if fingerprint_of_data(self.data) != self.data_fingerprint:
                self._warn_of_data()

    def _warn_of_data(self) -> None:
        LOGGER.warning(
            f"{colorstr('DS2D2:')} images or labels of {self.args.data} changed since the run began. Do not compare "
            "its metrics with other runs; start it again with another name="
        )


def check_unfinished(last: Path, weights: Path) -> bool:
    """Refuse to resume where a finished run would be overwritten.

    Args:
        last (Path): The checkpoint that a run is to be resumed from.
        weights (Path): Folder of checkpoints that the resumed run writes to.

    Returns:
        (bool): Whether no epoch is left to train.

    Raises:
        DS2D2Error: If the run is finished, or one in that folder is.
    """
    _, checkpoint = load_checkpoint(last)
    if checkpoint.get("epoch", -1) < 0:
        raise DS2D2Error(f"resume={last}: this training is finished; start another one without resume=")
    is_over = training_is_over(last, checkpoint)
    if last.parent == weights.resolve() and last.name == "last.pt":
        return is_over
    if is_over:
        raise DS2D2Error(
            f"resume={last}: its last epoch is done; pass resume={weights / 'last.pt'}, which completes the run"
        )
    try:
        _, there = load_checkpoint(weights / "last.pt") if (weights / "last.pt").is_file() else (None, {"epoch": 0})
    except Exception:  # damaged: torch raises many kinds; nothing finished is lost with it
        return False
    if there.get("epoch", -1) < 0:
        raise DS2D2Error(
            f"resume={last}: would overwrite the finished run in {weights.parent}; pass save_dir= with a new folder"
        )
    return False


def check_launch(devices: int) -> None:
    """Refuse processes that were not started one per device of this machine, as Ultralytics starts them.

    Args:
        devices (int): Number of devices that `device` names; 0 on a CPU.

    Raises:
        DS2D2Error: On a CPU, where Ultralytics multiplies losses by 0 devices, and on several machines, where it takes
            the devices of one for all.
    """
    processes = int(os.environ.get("WORLD_SIZE", 1))
    if processes != devices:
        raise DS2D2Error(
            f"{processes} processes for {devices} GPUs in device=: Ultralytics starts one process per GPU itself; run "
            "without torchrun, with for example device=0,1",
            2,
        )


def _return_gradients(trainer: PlainTrainer) -> None:
    """Give back, after Ultralytics has cleared them, the gradients of the interrupted run: once."""
    restore_gradients(unwrap_model(trainer.model), trainer._gradients)
    trainer._gradients = {}


def _lower_accumulate(trainer: PlainTrainer) -> None:
    """Take back what `preprocess_batch` has added for one batch; after the first step nothing is to be added."""
    trainer.accumulate -= trainer._offset
    if not trainer._unstepped:
        trainer._offset = 0


def _run_time_on(trainer: PlainTrainer) -> None:
    """Callback: where a run is resumed, the time in its results.csv goes on from that of the last epoch it had done."""
    if not trainer.start_epoch or trainer.args.time or not trainer.csv.is_file():
        return
    done = [row["time"] for row in read_rows(trainer.csv) if row["epoch"] == trainer.start_epoch]
    if done:
        trainer.train_time_start = time.time() - done[-1]


def clear_killed(project: Path) -> None:
    """Remove what killed processes left in a folder of runs: their locks, and runs that have not trained an epoch.

    Args:
        project (Path): The folder, which need not exist.
    """
    for file in project.glob(".*.lock"):
        folder = project / file.name[1 : -len(".lock")]
        lock = FolderLock(folder)
        if not lock.is_held and lock.acquire(wait=False):
            try:
                _remove_unbegun(folder)
            finally:
                lock.release()


def _remove_unbegun(folder: Path) -> None:
    """Remove the folder of a run that has not trained an epoch; files of others stay."""
    if not folder.is_dir() or (folder / "results.csv").is_file():
        return
    for path in (path for pattern in ("args.yaml", "labels.jpg", "train_batch*.jpg") for path in folder.glob(pattern)):
        path.unlink()
    for place in (folder / "weights", folder):
        with suppress(OSError):  # it holds something else, or is not there
            place.rmdir()
