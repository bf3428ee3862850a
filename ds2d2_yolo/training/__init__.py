"""The three stages as Ultralytics trainers, and the pipeline that chains and reuses them."""

from ultralytics import __version__
from ultralytics.utils import LOGGER
from ultralytics.utils.checks import check_version

from ds2d2_yolo.errors import DS2D2Error

OLDEST, NEWEST = "8.4.185", "8.4.190"
"""Releases of Ultralytics that the tests pass with."""

if not check_version(__version__, f">={OLDEST}"):
    raise DS2D2Error(
        f"ultralytics {__version__} is too old for ds2d2-yolo: pip install 'ultralytics>={OLDEST},<={NEWEST}'"
    )
if not check_version(__version__, f"<={NEWEST}"):
    LOGGER.warning(f"ultralytics {__version__} is newer than {NEWEST}, the newest that ds2d2-yolo was tested with")

from ds2d2_yolo.training.amplifier import AmplifierTrainer  # noqa: E402 - what they import may be missing in old releases
from ds2d2_yolo.training.stages import train_amplifier, train_teacher  # noqa: E402
from ds2d2_yolo.training.student import DS2D2Trainer  # noqa: E402

__all__ = ["AmplifierTrainer", "DS2D2Trainer", "train_amplifier", "train_teacher"]
