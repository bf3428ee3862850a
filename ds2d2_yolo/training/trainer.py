"""Base of this package's trainers: arguments of ds2d2, complete checkpoints, exact resuming, all detector families."""

from __future__ import annotations

import shutil
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import Any, cast

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import DataLoader
from ultralytics.cfg import get_save_dir
from ultralytics.data.dataset import YOLODataset
from ultralytics.models.yolo.detect import DetectionTrainer, DetectionValidator
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import DEFAULT_CFG, LOGGER, RANK, colorstr
from ultralytics.utils.patches import override_configs
from ultralytics.utils.torch_utils import ModelEMA, unwrap_model

from ds2d2_yolo.detectors import Batch, Detector, build_model, detector_of
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.files import FolderLock, report_full_disk
from ds2d2_yolo.loading.caches import describe_outdated, outdated_caches
from ds2d2_yolo.loading.decoding import name_undecodable_images
from ds2d2_yolo.loading.fingerprint import fingerprint_of_data
from ds2d2_yolo.loading.unlabeled import read_pseudo_set
from ds2d2_yolo.training.arguments import DEFAULTS, Arguments, complete_configuration
from ds2d2_yolo.training.checks import check_last_batch
from ds2d2_yolo.training.mixed import MixedDataset, MixedLoss, MixedSampler
from ds2d2_yolo.training.ranks import check_launch, end_with_launcher
from ds2d2_yolo.training.results import TEACHER_FILE, keep_epochs, read_rows
from ds2d2_yolo.training.resume import (
    checkpoint_size,
    complete_checkpoints,
    load_state,
    remove_states,
    restore_gradients,
    restore_state,
    save_state,
    state_file,
    training_is_over,
    whole_files,
    without_adapters,
)
from ds2d2_yolo.training.tasks import trainer_for
from ds2d2_yolo.training.types import Callbacks, Configuration, ModelConfiguration


class PlainTrainer(DetectionTrainer):
    """A `DetectionTrainer` for all detector families, with the arguments of Ultralytics and of `cfg/default.yaml`.

    - For another task, the object is also Ultralytics' trainer of that task: `OBBTrainer`, `SegmentationTrainer` or
      `PoseTrainer` (see `ds2d2_yolo.training.tasks`).
    - The arguments of ds2d2 are in `args`, args.yaml, checkpoints, and the arguments of DDP workers.
    - Checkpoints are replaced in one step, so a killed process never leaves an incomplete one.
    - A resumed run continues exactly (see `ds2d2_yolo.training.resume`).
    - A lock keeps other processes out of the run folder, from the constructor to the end of `train`.

    Args:
        cfg (Configuration): As for Ultralytics' trainers.
        overrides (dict[str, Any] | None): Arguments of Ultralytics and of ds2d2.
        _callbacks (dict[str, list] | None): As for Ultralytics' trainers.

    Attributes:
        is_over (bool): Whether a resumed run has no epoch left to train. Then `train` only completes its checkpoints.

    Raises:
        DS2D2Error: If another process trains in the folder, or resuming would overwrite a finished run.
    """

    # Ultralytics sets these at the start of training. Before, they have other types.
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
        """Create a trainer for the task of the model."""
        return super().__new__(trainer_for(cls, {**complete_configuration(cfg), **(overrides or {})}))

    def __init__(
        self,
        cfg: Configuration = DEFAULT_CFG,
        overrides: dict[str, Any] | None = None,
        _callbacks: Callbacks | None = None,
    ) -> None:
        self.is_over = False
        self._has_trained = False
        self._detector: Detector | None = None
        self._unlock: Callable[[], object] = lambda: None
        self._is_new = False
        if RANK != -1:
            end_with_launcher()
        try:
            with report_full_disk(advice=self._full_disk_advice):
                super().__init__(complete_configuration(cfg), overrides, _callbacks)
        except BaseException:
            self._unlock()
            raise
        if RANK != -1:
            check_launch(self.world_size)
        self.data_fingerprint = ""  # set at the start of training
        self._unstepped = 0  # batches since the last step of the optimiser
        self._offset = 0  # added to `accumulate` until the first step of a resumed run
        self._gradients: dict[str, Any] = {}  # accumulated before the interruption
        self.mixed: MixedLoss | None = None  # set in a run with unlabelled images
        self._places: MixedSampler | None = None
        if not self.ddp:  # workers of a DDP run get the callbacks of their parent, and add these themselves
            self.add_callback("on_train_start", _continue_run_time)
            self.add_callback("on_train_epoch_start", _count_images_anew)

    @property
    def arguments(self) -> Arguments:
        """The current arguments. Ultralytics and calibration complete some of them during the run."""
        return Arguments(vars(self.args))

    @property
    def detector(self) -> Detector:
        """The model in training, as a detector."""
        model: Any = self.model
        model = unwrap_model(model)
        model = getattr(model, "student_model", model)  # Ultralytics' own distillation wraps it
        if self._detector is None or self._detector.model is not model:  # one object: it remembers grids of anchors
            self._detector = detector_of(model)
        return self._detector

    def check_resume(self, overrides: dict[str, Any]) -> None:
        """Resume as Ultralytics does, but in the folder of the checkpoint, and lock that folder.

        Arguments that did not exist when the run started get their defaults.
        """
        super().check_resume(overrides)
        last = Path(str(self.args.resume)).resolve()
        if self.resume and "save_dir" not in overrides:
            self._continue_in_folder(last)
        if RANK == -1:  # workers of a DDP run train in the folder that their parent has locked
            self._lock_folder()
            if self.resume:
                self.is_over = check_unfinished(last, Path(self.args.save_dir) / "weights")
        for name, default in DEFAULTS.items():
            if not hasattr(self.args, name):
                setattr(self.args, name, default)

    def _continue_in_folder(self, last: Path) -> None:
        """Continue in the folder of a checkpoint. So resuming a copy of a run does not change the original run."""
        folder, began = last.parents[1], getattr(self.args, "save_dir", None)  # missing in files of other programs
        if last.parent.name != "weights" or (began and Path(began).resolve() == folder):
            return
        if RANK in {-1, 0}:
            LOGGER.info(f"{colorstr('DS2D2:')} this run began in {began} and continues in {folder} with its last.pt")
        self.args.save_dir = str(folder)

    def _lock_folder(self) -> None:
        """Lock the run folder for this process, until `train` has ended."""
        is_given = bool(self.args.exist_ok or getattr(self.args, "save_dir", None))
        if not is_given:
            remove_killed_runs(get_save_dir(self.args).parent)
        while True:
            folder = get_save_dir(self.args)
            lock = FolderLock(folder)
            if lock.acquire(wait=False):
                if is_given or not folder.exists():
                    break
                lock.release()
            elif is_given:
                raise DS2D2Error(
                    f"{folder}: another process trains here, and nothing was changed; wait until it ends, or pass "
                    "another name="
                )
            time.sleep(0.05)  # another process has chosen the same new folder, and will create it soon
        self.args.save_dir, self._is_new = str(folder), not folder.exists()
        self._unlock = weakref.finalize(self, lock.release)

    def train(self) -> None:
        """Train as Ultralytics does. If no epoch is left, complete the checkpoints of a killed run."""
        self.refuse_second_training()
        self._has_trained = True
        try:
            with report_full_disk(advice=self._full_disk_advice):
                if self.is_over:
                    self.complete()
                else:
                    with name_undecodable_images(self.args.data):
                        super().train()
        except DS2D2Error:
            self.remove_untrained()
            raise
        finally:
            self._unlock()
            if self.mixed is not None:
                self.mixed.end_step()

    def refuse_second_training(self) -> None:
        """Raise an error if this trainer has trained: its models are frozen and fused, and its folder is unlocked."""
        if self._has_trained:
            raise DS2D2Error(f"{self.save_dir}: this trainer has trained already; make a new {type(self).__name__}")

    def remove_untrained(self) -> None:
        """Unlock and remove the folder of a run without a trained epoch. Other files in it are kept."""
        self._unlock()
        if RANK == -1 and self.wdir.is_dir():
            _remove_untrained(self.save_dir)
            with suppress(OSError):  # it contains other files
                self.save_dir.parent.rmdir()

    def _full_disk_advice(self) -> str:
        """Return the advice for a full disk: which checkpoint is intact, and what to do. Remove an empty run folder."""
        folder = Path(str(getattr(self.args, "save_dir", None)))
        last, needed = folder / "weights" / "last.pt", ""
        if getattr(self, "optimizer", None) is not None:
            needed = f"the checkpoints of an epoch need about {checkpoint_size(self) / 2**20:.1f} MiB; "
        if last.is_file():
            return f"{needed}{last} is intact: make room, then {self.resume_command(last)}"
        if self._is_new:
            shutil.rmtree(folder, ignore_errors=True)
        return f"{needed}nothing was saved yet: make room, then run the same command again"

    def resume_command(self, last: Path) -> str:
        """Return how the user continues the run from its last checkpoint."""
        return "run the same command again"

    def complete(self) -> None:
        """Write the final checkpoints of a run that was killed after its last epoch."""
        complete_checkpoints(self.wdir)
        if self.args.plots:
            self.plot_metrics()
        LOGGER.info(f"{colorstr('DS2D2:')} {self.save_dir}: all epochs were trained; the checkpoints are now complete")

    def get_model(
        self, cfg: ModelConfiguration | None = None, weights: nn.Module | None = None, verbose: bool = True
    ) -> nn.Module:
        """Build a model of the YAML's family, with the given weights or the family's public weights."""
        if self.args.task != "detect":
            return super().get_model(cfg, weights, verbose)
        assert cfg is not None
        data: Any = self.data
        model: Any = build_model(cfg, ch=data["channels"], nc=data["nc"], verbose=verbose and RANK == -1)
        model = self.set_model_names_for_load(model)
        if weights:
            model.load(weights)
        elif self.args.pretrained is True:
            detector_of(model).load_backbone()
        return model

    def set_model_attributes(self) -> None:
        """Attach names and arguments. Add the layers that the family freezes to `freeze`."""
        super().set_model_attributes()
        if own := self.detector.frozen_layers:
            asked = self.args.freeze
            asked = asked if isinstance(asked, list) else range(asked or 0)
            self.args.freeze = sorted({*own, *asked})

    def _setup_scheduler(self) -> None:
        """Set the learning rate schedule: Ultralytics', or the steps of `lr_steps`."""
        steps = self.args.lr_steps
        if steps is None:
            super()._setup_scheduler()
            return
        self.lf = lambda epoch: 0.1 ** sum(epoch >= step for step in steps)
        self.scheduler = LambdaLR(self.optimizer, lr_lambda=self.lf)

    def get_validator(self) -> DetectionValidator:
        """Return Ultralytics' validator, which accepts only Ultralytics' arguments."""
        every = self.args
        self.args = copy(every)
        for name in DEFAULTS:
            delattr(self.args, name)
        try:
            return super().get_validator()
        finally:
            self.args = every

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        """Return Ultralytics' data set. For training, add the unlabelled images of the run.

        Raises:
            DS2D2Error: If some label files hold boxes but the task needs more, or most images cannot be used.
        """
        try:
            dataset = super().build_dataset(img_path, mode, batch)
        except ValueError as error:
            if self.args.task not in {"obb", "segment"}:
                raise
            data = f"data={self.args.data}"
            raise DS2D2Error(f"{data}: {error} 'ds2d2 check {data} task=obb' lists the files of boxes") from error
        _check_left_out(dataset, f"data={self.args.data}", {"train": "training", "val": "validation"}[mode])
        if mode != "train" or not self.args.unlabeled:
            return dataset
        made = read_pseudo_set(self.args.unlabeled)
        with override_configs(self.args, {"fraction": 1.0}):  # `fraction` applies to labelled images only
            others = super().build_dataset(str(made.folder), mode, batch)
        return MixedDataset(dataset, others, self.args.unlabeled_ratio, self.args.seed)

    def get_dataloader(
        self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train"
    ) -> DataLoader[Any]:
        """Return a loader. A new training loader restarts gradient accumulation."""
        loader = super().get_dataloader(dataset_path, batch_size, rank, mode)
        if isinstance(loader.dataset, MixedDataset):
            batches: Any = loader.batch_sampler
            batches = batches.sampler  # torch's batch sampler, which Ultralytics repeats forever
            batches.sampler = self._places = MixedSampler(batches.sampler, loader.dataset)
            self._places.epoch = self.start_epoch
            # Kept when Ultralytics makes new loaders after a step without memory: it removes that step's hooks
            self.mixed = self.mixed or MixedLoss(self.args.unlabeled_weight)
        if mode == "train":
            self._unstepped = self._offset = 0
            check_last_batch(vars(self.args), len(loader.sampler), loader.batch_size or 1, self.stride)
        return loader

    def _close_dataloader_mosaic(self) -> None:
        """Disable mosaics as Ultralytics does. The loader then starts again, with the same unlabelled images."""
        super()._close_dataloader_mosaic()
        if self._places is not None:  # workers had begun this epoch already
            self._places.epoch = self.epoch

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Prepare a batch, and count it."""
        if self.ema is not None:  # earlier batches only calibrate quantisation
            self._unstepped += 1
            self.accumulate += self._offset
        batch = super().preprocess_batch(batch)
        if self.ema is not None and self.mixed is not None:
            self.mixed.begin_step(self.detector, cast(Batch, batch))
        return batch

    def label_loss_items(
        self, loss_items: Mapping[str, Any] | None = None, prefix: str = "train"
    ) -> dict[str, float] | list[str]:
        """Name the loss items for results.csv and loggers. For training, add columns of both kinds of images."""
        labelled: dict[str, float] | list[str] = super().label_loss_items(loss_items, prefix)
        if prefix == "train" and isinstance(labelled, dict) and self.mixed is not None:
            return {**labelled, **self.mixed.columns(self.args.cls)}
        return labelled

    def optimizer_step(self) -> None:
        """Step as Ultralytics does."""
        super().optimizer_step()
        self._unstepped = 0

    def save_model(self) -> bool:
        """Save checkpoints as Ultralytics does, but replace files in one step, and save the exact state."""
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

    def distillation_state(self) -> dict[str, Any]:
        """Return the state of distillation for the exact state: empty in a plain training."""
        return {}

    def restore_distillation(self, state: dict[str, Any]) -> None:
        """Restore the output of `distillation_state`."""

    def resume_training(self, ckpt: dict[str, Any] | None) -> None:
        """Resume as Ultralytics does, then restore the exact state."""
        super().resume_training(ckpt)
        if RANK in {-1, 0}:
            self.data_fingerprint = fingerprint_of_data(self.data, self.args.split)
            if outdated := outdated_caches(self.data, self.args.split):
                LOGGER.warning(f"{colorstr('DS2D2:')} {describe_outdated(outdated)}")
        if ckpt is None or not self.resume:
            return
        self._resume_exactly()
        if self._places is not None:
            self._places.epoch = self.start_epoch

    def _resume_exactly(self) -> None:
        """Restore the exact state of the interrupted run."""
        if RANK in {-1, 0}:
            keep_epochs(self.csv, self.start_epoch)
        state = load_state(Path(str(self.args.resume)), self.start_epoch - 1)
        if state is None:
            return
        if RANK in {-1, 0} and state["data"] != self.data_fingerprint:
            self._warn_of_data()
        restore_state(self, state)
        self.restore_distillation(state["distillation"])
        self._unstepped, self._gradients = state["unstepped"], state["gradients"]
        # Ultralytics counts batches over all epochs, and assumes in a resumed run that the last step was at batch -1.
        self._offset = len(self.train_loader) * self.start_epoch - self._unstepped
        self.add_callback("on_train_epoch_start", _return_gradients)
        self.add_callback("on_train_batch_end", _lower_accumulate)

    def final_eval(self) -> None:
        """Finish best.pt and last.pt as Ultralytics does, but replace the files in one step."""
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
            if fingerprint_of_data(self.data, self.args.split) != self.data_fingerprint:
                self._warn_of_data()

    def _warn_of_data(self) -> None:
        LOGGER.warning(
            f"{colorstr('DS2D2:')} images or labels of {self.args.data} changed since the run began. Do not compare "
            "its metrics with other runs; start it again with another name="
        )


def check_unfinished(last: Path, weights: Path) -> bool:
    """Refuse to resume if that would overwrite a finished run.

    Args:
        last (Path): The checkpoint to resume from.
        weights (Path): Folder for the checkpoints of the resumed run.

    Returns:
        (bool): Whether no epoch is left to train.

    Raises:
        DS2D2Error: If the run, or another run in that folder, is finished.
    """
    _, checkpoint = load_checkpoint(last)
    if checkpoint.get("epoch", -1) < 0:
        raise DS2D2Error(f"resume={last}: this training is finished; start a new one without resume=")
    is_over = training_is_over(last, checkpoint)
    if last.parent == weights.resolve() and last.name == "last.pt":
        return is_over
    if is_over:
        raise DS2D2Error(
            f"resume={last}: all epochs are trained; pass resume={weights / 'last.pt'}, which completes the run"
        )
    try:
        _, there = load_checkpoint(weights / "last.pt") if (weights / "last.pt").is_file() else (None, {"epoch": 0})
    except Exception:  # damaged, so there is no finished run to lose; torch raises many types
        return False
    if there.get("epoch", -1) < 0:
        raise DS2D2Error(
            f"resume={last}: would overwrite the finished run in {weights.parent}; pass save_dir= with a new folder"
        )
    return False


def _check_left_out(dataset: YOLODataset, data: str, split: str) -> None:
    """Warn of images that Ultralytics leaves out: unreadable ones, and those with a wrong line in their labels.

    Raises:
        DS2D2Error: If these are most of the images.
    """
    total = len(dataset.label_files)
    left_out = total - len(dataset.im_files)
    words = f"{left_out} of {total} {split} images cannot be used; run 'ds2d2 check {data}' for a list"
    if 2 * left_out > total:
        raise DS2D2Error(f"{data}: {words}")
    if left_out and RANK in {-1, 0}:
        LOGGER.warning(f"{colorstr('DS2D2:')} {words}")


def _return_gradients(trainer: PlainTrainer) -> None:
    """Restore the gradients of the interrupted run once, after Ultralytics has cleared gradients."""
    restore_gradients(unwrap_model(trainer.model), trainer._gradients)
    trainer._gradients = {}


def _lower_accumulate(trainer: PlainTrainer) -> None:
    """Subtract the offset that `preprocess_batch` has added for one batch. The first step ends the offset."""
    trainer.accumulate -= trainer._offset
    if not trainer._unstepped:
        trainer._offset = 0


def _continue_run_time(trainer: PlainTrainer) -> None:
    """Callback: in a resumed run, continue the time in results.csv from the last finished epoch."""
    if not trainer.start_epoch or trainer.args.time or not trainer.csv.is_file():
        return
    done = [row["time"] for row in read_rows(trainer.csv) if row["epoch"] == trainer.start_epoch]
    if done:
        trainer.train_time_start = time.time() - done[-1]


def _count_images_anew(trainer: PlainTrainer) -> None:
    """Callback: reset the counts of both kinds of images."""
    if trainer.mixed is not None:
        trainer.mixed.start_epoch()


def remove_killed_runs(project: Path) -> None:
    """Remove files of killed processes from a folder of runs: locks, and runs without a trained epoch.

    Args:
        project (Path): The folder. It need not exist.
    """
    for file in project.glob(".*.lock"):
        folder = project / file.name[1 : -len(".lock")]
        lock = FolderLock(folder)
        if not lock.is_held and lock.acquire(wait=False):
            try:
                _remove_untrained(folder)
            finally:
                lock.release()


def _remove_untrained(folder: Path) -> None:
    """Remove the folder of a run without a trained epoch. Other files in it are kept."""
    if not folder.is_dir() or (folder / "results.csv").is_file():
        return
    patterns = ("args.yaml", TEACHER_FILE, "labels.jpg", "train_batch*.jpg")
    for path in (path for pattern in patterns for path in folder.glob(pattern)):
        path.unlink()
    for place in (folder / "weights", folder):
        with suppress(OSError):  # it contains other files, or does not exist
            place.rmdir()
