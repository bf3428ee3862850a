"""The supported releases of Ultralytics, and messages for other releases."""

from __future__ import annotations

import os

import ultralytics
from ultralytics.utils import LOGGER, RANK
from ultralytics.utils.checks import check_version

from ds2d2_yolo.errors import DS2D2Error

OLDEST, NEWEST = "8.4.185", "8.4.190"
"""The oldest and the newest release of Ultralytics that all tests passed with."""
BELOW = "8.5"
"""The first release that pip does not install with this package."""

_WARNED = "DS2D2_WARNED_OF_RELEASE"


def refuse_old_release() -> None:
    """Refuse a release of Ultralytics that is too old.

    Raises:
        DS2D2Error: If it is older than `OLDEST`.

    Example:
        >>> refuse_old_release()
    """
    if not check_version(ultralytics.__version__, f">={OLDEST}"):
        raise DS2D2Error(
            f"ultralytics {ultralytics.__version__} is too old for ds2d2-yolo; run "
            f"\"pip install 'ultralytics>={OLDEST},<{BELOW}'\""
        )


def is_untested() -> bool:
    """Return whether the installed Ultralytics is newer than the newest tested release.

    Example:
        >>> is_untested()  # doctest: +SKIP
        False
    """
    return not check_version(ultralytics.__version__, f"<={NEWEST}")


def warn_of_untested_release() -> None:
    """Warn in one line if the installed Ultralytics is newer than the newest tested release.

    The warning is printed once per run. Child processes inherit an environment variable that prevents a repetition, and
    of several GPU processes only the first one warns.

    Example:
        >>> warn_of_untested_release()
    """
    if RANK in {-1, 0} and is_untested() and os.environ.get(_WARNED) != ultralytics.__version__:
        os.environ[_WARNED] = ultralytics.__version__
        LOGGER.warning(
            f"Ultralytics {ultralytics.__version__} is newer than the newest tested one, {NEWEST}: "
            "run 'ds2d2 checks' to see whether it works"
        )
