"""Which releases of Ultralytics this package works with, and what a user of another one is told."""

from __future__ import annotations

import os

import ultralytics
from ultralytics.utils import LOGGER, RANK
from ultralytics.utils.checks import check_version

from ds2d2_yolo.errors import DS2D2Error

OLDEST, NEWEST = "8.4.185", "8.4.190"
"""Releases of Ultralytics that all tests pass with, the oldest and the newest one that was tried."""
BELOW = "8.5"
"""The first release that pip does not install beside this package."""

_TOLD = "DS2D2_TOLD_OF_RELEASE"


def refuse_old_release() -> None:
    """Refuse a release of Ultralytics that is too old.

    Raises:
        DS2D2Error: If it is.

    Example:
        >>> refuse_old_release()
    """
    if not check_version(ultralytics.__version__, f">={OLDEST}"):
        raise DS2D2Error(
            f"ultralytics {ultralytics.__version__} is too old for ds2d2-yolo; run "
            f"\"pip install 'ultralytics>={OLDEST},<{BELOW}'\""
        )


def is_untested() -> bool:
    """Return whether the installed Ultralytics is newer than the newest release that was tried.

    Example:
        >>> is_untested()  # doctest: +SKIP
        False
    """
    return not check_version(ultralytics.__version__, f"<={NEWEST}")


def warn_of_untested_release() -> None:
    """Say in one line that the installed Ultralytics is newer than the newest tested one.

    It is said once per run: not again in this process, nor in those that it starts, which inherit its environment. The
    processes of several GPUs leave it to the first.

    Example:
        >>> warn_of_untested_release()
    """
    if RANK in {-1, 0} and is_untested() and os.environ.get(_TOLD) != ultralytics.__version__:
        os.environ[_TOLD] = ultralytics.__version__
        LOGGER.warning(
            f"Ultralytics {ultralytics.__version__} is newer than the newest tested one, {NEWEST}: "
            "run 'ds2d2 checks' to see whether it works"
        )
