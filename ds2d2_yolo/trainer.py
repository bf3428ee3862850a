"""The trainer for users: `StudentTrainer` with pictures in the run folder."""

from __future__ import annotations

from typing import Any

from ultralytics.utils import DEFAULT_CFG, RANK

from ds2d2_yolo.pictures import add_pictures
from ds2d2_yolo.training.student import StudentTrainer
from ds2d2_yolo.training.types import Callbacks, Configuration


class DS2D2Trainer(StudentTrainer):
    """Distil a student. With `plots=True`, save pictures of the compared maps in the run folder.

    Args:
        cfg (Configuration): As for Ultralytics' trainers.
        overrides (dict[str, Any] | None): Ultralytics' train arguments and those of `cfg/default.yaml`. `student` is
            another name for `model`.
        _callbacks (dict[str, list] | None): As for Ultralytics' trainers.

    Raises:
        DS2D2Error: If the run cannot work. The message has one line: what is wrong, where, and what to do.

    Example:
        >>> overrides = {"teacher": "yolo11l.pt", "student": "yolo11n.yaml", "data": "DIOR.yaml", "epochs": 100}
        >>> DS2D2Trainer(overrides=overrides).train()  # doctest: +SKIP
    """

    def __init__(
        self,
        cfg: Configuration = DEFAULT_CFG,
        overrides: dict[str, Any] | None = None,
        _callbacks: Callbacks | None = None,
    ) -> None:
        super().__init__(cfg, overrides, _callbacks)
        # Workers of a DDP run get the callbacks of their parent, which trains nothing, and run this constructor again
        if self.args.plots and RANK in {-1, 0} and not self.ddp:
            add_pictures(self)
