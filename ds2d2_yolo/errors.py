"""The one exception that a user's mistake raises."""

from __future__ import annotations

from textwrap import shorten


class DS2D2Error(ValueError):
    """A mistake in what the user asked for, told in one line: what is wrong, where, and what to do.

    The command line prints the message alone, without a traceback, and ends with `exit_code`.

    Args:
        message (str): What was wrong, where, and what to do about it. Line breaks are folded into spaces.
        exit_code (int): 2 where the command line itself is wrong (keys, values), 1 for everything else.

    Example:
        >>> raise DS2D2Error("teacher=missing.pt: no such file, pass the path of a trained detector")
        Traceback (most recent call last):
        ...
        ds2d2_yolo.errors.DS2D2Error: teacher=missing.pt: no such file, pass the path of a trained detector
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(" ".join(str(message).split()))
        self.exit_code = exit_code


def message_of(error: Exception) -> str:
    """Return an error's message as one line of a readable length, or its kind where it has none."""
    return shorten(str(error), 300, placeholder=" ...") or type(error).__name__
