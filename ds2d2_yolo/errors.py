"""The exception for a user's mistakes, and helpers for its messages."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from textwrap import shorten

_LONGEST_WORD, _LONGEST_MESSAGE = 240, 1000  # characters; a path with a file name fits


class DS2D2Error(ValueError):
    """A user's mistake in one line: what is wrong, where, and what to do.

    The command line prints only the message, without a traceback, and exits with `exit_code`.

    Args:
        message (str): What is wrong, where, and what to do. Line breaks become spaces, long values are shortened, and
            unprintable characters are escaped.
        exit_code (int): 2 for a wrong command line (keys, values), 1 for everything else.

    Example:
        >>> raise DS2D2Error("teacher=missing.pt: no such file, pass the path of a trained detector")
        Traceback (most recent call last):
        ...
        ds2d2_yolo.errors.DS2D2Error: teacher=missing.pt: no such file, pass the path of a trained detector
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        text = " ".join(re.sub(r"\x1b\[[\d;]*m", "", str(message)).split())  # without Ultralytics' colours
        super().__init__(_without_middle(_with_short_words(printable(text)), _LONGEST_MESSAGE))
        self.exit_code = exit_code


def printable(text: str) -> str:
    """Return a text with unprintable characters escaped, as names of files can contain any character.

    Example:
        >>> printable("two" + chr(10) + "lines") == "two" + chr(92) + "nlines"
        True
    """
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def _with_short_words(text: str) -> str:
    return " ".join(_without_middle(word, _LONGEST_WORD) for word in text.split())


def _without_middle(text: str, longest: int) -> str:
    """Shorten a long text in the middle. Its start (what is wrong) and its end (what to do) stay."""
    return text if len(text) <= longest else f"{text[: longest * 2 // 3]} ... {text[-longest // 3 :]}"


class FullDiskError(DS2D2Error):
    """A file could not be written because its disk is full."""


def message_of(error: Exception) -> str:
    """Return an error's message as one line of readable length, or its type if it has no message."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)  # which has quotes
    return shorten(_with_short_words(text), 300, placeholder=" ...") or type(error).__name__


def did_you_mean(word: object, known: Iterable[str], otherwise: str, most: int = 3, cutoff: float = 0.6) -> str:
    """Return a hint for a message about an unknown word.

    Args:
        word (object): The user's word.
        known (Iterable[str]): Valid words.
        otherwise (str): The hint if none of them is similar.
        most (int): Maximum number of similar words in the hint.
        cutoff (float): Minimum similarity, from 0 to 1.

    Returns:
        (str): The hint.

    Example:
        >>> did_you_mean("epoch", ["epochs", "batch"], "see 'ds2d2 cfg'")
        'did you mean epochs?'
    """
    close = get_close_matches(str(word), list(known), n=most, cutoff=cutoff)
    return f"did you mean {' or '.join(close)}?" if close else otherwise


def similar_file(option: str, path: str | Path, otherwise: str, suffixes: Collection[str] = ()) -> str:
    """Return a hint for a message about a missing file.

    Args:
        option (str): The option that names the file.
        path (str | Path): The user's path.
        otherwise (str): The hint if no file in the folder has a similar name.
        suffixes (Collection[str]): Suffixes of files that the option accepts. Empty for any.

    Returns:
        (str): The hint.

    Example:
        >>> _ = Path("teacher.pt").write_bytes(b"")
        >>> similar_file("teacher", "techer.pt", "pass the path of a .pt")
        'did you mean teacher=teacher.pt?'
        >>> similar_file("teacher", "b6.pt", "pass the path of a .pt")  # no suffix makes names similar
        'pass the path of a .pt'
    """
    names: list[str] = []
    with suppress(OSError):  # no such folder, or no permission to read it
        files = [file for file in Path(path).parent.iterdir() if file.is_file()]
        names = [file.name for file in files if not suffixes or file.suffix.lower() in suffixes]
    wanted = Path(path)
    names.sort(key=lambda name: Path(name).suffix == wanted.suffix)  # of files with one stem, the last one counts
    by_stem = {Path(name).stem: name for name in names}
    close = get_close_matches(wanted.stem, by_stem, n=1)
    return f"did you mean {option}={wanted.parent / by_stem[close[0]]}?" if close else otherwise
