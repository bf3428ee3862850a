"""What the trainers of this package have in common: they know the own arguments, Ultralytics need not."""

from __future__ import annotations

from copy import copy
from typing import Any

from ultralytics.models.yolo.detect import DetectionTrainer, DetectionValidator
from ultralytics.utils import DEFAULT_CFG

from ds2d2_yolo.engine.arguments import DEFAULTS, complete_configuration


class OwnArgumentsTrainer(DetectionTrainer):
    """A `DetectionTrainer` that takes the arguments of `cfg/default.yaml` beside Ultralytics'.

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
