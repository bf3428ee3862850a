"""Plans and runs the stages as Ultralytics trainers. Knows no table, no picture, no command line."""

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
