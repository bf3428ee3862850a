"""What the trainers of this package have in common: they know the own arguments, Ultralytics need not."""

from __future__ import annotations

import csv
import time
from copy import copy
from typing import Any

from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from ultralytics.models.yolo.detect import DetectionTrainer, DetectionValidator
from ultralytics.utils import DEFAULT_CFG, RANK
from ultralytics.utils.torch_utils import unwrap_model

from ds2d2_yolo.detectors import Detector, build_model, detector_of
from ds2d2_yolo.engine.arguments import DEFAULTS, complete_configuration


class OwnArgumentsTrainer(DetectionTrainer):
    """A `DetectionTrainer` of all detector families that takes the arguments of `cfg/default.yaml` beside Ultralytics'.

    They are in `args`, and so in args.yaml, in checkpoints to be resumed and in what DDP workers are given.

    Args:
        cfg (Any): As for Ultralytics' trainers.
        overrides (dict[str, Any] | None): Arguments of both kinds.
        _callbacks (dict[str, list] | None): As for Ultralytics' trainers.
    """

    def __init__(
        self, cfg: Any = DEFAULT_CFG, overrides: dict[str, Any] | None = None, _callbacks: dict[str, Any] | None = None
    ) -> None:
        super().__init__(complete_configuration(cfg), overrides, _callbacks)
        self.add_callback("on_train_start", _run_time_on)

    @property
    def detector(self) -> Detector:
        """The model that is trained, as a detector."""
        model: Any = self.model
        model = unwrap_model(model)
        detector = detector_of(getattr(model, "student_model", model))  # Ultralytics' own distillation wraps it
        assert detector is not None
        return detector

    def get_model(self, cfg: Any = None, weights: nn.Module | None = None, verbose: bool = True) -> Any:
        """Return a model of the family that the YAML is for, with the given weights or its family's public ones."""
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
        assert self.optimizer is not None
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


def _run_time_on(trainer: Any) -> None:
    """Callback: where a run is resumed, the time in its results.csv goes on from that of the last epoch it had done."""
    if not trainer.start_epoch or trainer.args.time or not trainer.csv.is_file():
        return
    with trainer.csv.open(newline="", encoding="utf-8") as file:
        rows = [{key.strip(): value for key, value in row.items()} for row in csv.DictReader(file)]
    done = [float(row["time"]) for row in rows if int(row["epoch"]) == trainer.start_epoch]
    if done:
        trainer.train_time_start = time.time() - done[-1]
