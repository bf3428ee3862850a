"""The command line: `ds2d2 MODE key=value ...`, with Ultralytics' syntax."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module

from ds2d2_yolo.errors import DS2D2Error, did_you_mean
from ds2d2_yolo.files import report_full_disk

MODES = (
    "train",
    "teacher",
    "amplifier",
    "demo",
    "compare",
    "val",
    "explain",
    "report",
    "convert",
    "check",
    "merge",
    "help",
    "cfg",
    "version",
    "checks",
)
"""Every mode is a module of the same name in `ds2d2_yolo.commands`."""

_TRAINING = {"train", "teacher", "amplifier"}
_COMPARING = {"compare", "demo"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments (Sequence[str] | None): Arguments without the program's name. None means those of `sys.argv`.

    Returns:
        (int): Exit code: 0 for success, 1 for a run that cannot work or a failed check, 2 for a wrong command line, 130
            if interrupted.

    Example:
        >>> main(["version"])  # doctest: +SKIP
        0
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    mode = None
    threading.excepthook = _report_thread
    try:
        mode, rest = _mode_of(arguments)
        if mode in _TRAINING | _COMPARING and os.environ.get("LOCAL_RANK", "-1") != "-1":
            raise DS2D2Error(
                f"ds2d2 {mode} starts one process per GPU itself; run it without torchrun, for example with device=0,1",
                2,
            )
        with report_full_disk():
            code = import_module(f"ds2d2_yolo.commands.{mode}").run(rest) or 0
            _flush()
        return code
    except BrokenPipeError:
        if not _reader_has_ended():  # another pipe, such as one to a data loader
            raise
        _flush()
        if not (hint := _how_to_continue(mode)):  # the reader has enough lines, as `head` has
            return 0
        with suppress(OSError):  # it may have been the reader of errors, too
            print(f"ds2d2: error: the reader of the output ended, so this run ends{hint}", file=sys.stderr)
        return 1
    except DS2D2Error as error:
        print(f"ds2d2: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"\nds2d2: interrupted{_how_to_continue(mode)}", file=sys.stderr)
        return 130


def _how_to_continue(mode: str | None) -> str:
    """Return how to continue an interrupted run, as the end of a message. Empty for modes that train nothing."""
    how = dict.fromkeys(_TRAINING, "run it again; a student that has begun: 'ds2d2 train resume=path/to/its/last.pt'")
    how |= dict.fromkeys(_COMPARING, "run it again")
    return f"; to continue, {how[mode]}" if mode in how else ""


def _flush() -> None:
    """Flush standard output. If that fails, discard its buffer, so that Python does not try again at exit."""
    output = sys.stdout
    try:
        output.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())
        if not isinstance(error, BrokenPipeError):  # otherwise only lines are lost that nobody reads
            raise


def _reader_has_ended() -> bool:
    """Return whether standard output is a pipe whose other end is closed."""
    try:
        sys.stdout.flush()
        descriptors = select.poll()
        descriptors.register(sys.stdout.fileno(), 0)
        return bool(descriptors.poll(0))
    except BrokenPipeError:
        return True
    except (AttributeError, OSError):  # no `poll` on Windows, no file behind the output
        return False


def _report_thread(failed: threading.ExceptHookArgs) -> None:
    """Report in one line a file that a thread could not write, as Ultralytics draws pictures in threads."""
    if isinstance(failed.exc_value, OSError):
        print(f"ds2d2: a picture is missing: {failed.exc_value}", file=sys.stderr)
    else:
        threading.__excepthook__(failed)


def _mode_of(arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Return the mode and the remaining words. `--help` and `--version` are accepted, too."""
    if not arguments or {"--help", "-h"} & set(arguments):
        return "help", []
    for position, word in enumerate(arguments):
        name = word.lstrip("-").lower()
        name = {"h": "help", "v": "version"}.get(name, name)
        if name in MODES:
            return name, [*arguments[:position], *arguments[position + 1 :]]
    first = arguments[0]
    hint = did_you_mean(first, MODES, f"modes are {', '.join(MODES)}", most=2)
    raise DS2D2Error(f"'{first}': no such mode, {hint}", 2)


if __name__ == "__main__":
    sys.exit(main())
