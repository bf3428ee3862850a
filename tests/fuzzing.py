"""Helpers of the fuzzing: good files to damage, unusual values, and the run of a command with its checks."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import signal
import stat
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import torch
import yaml
from training_helpers import lively_model, save_checkpoint, short, small_yolo, write_data

from ds2d2_yolo.cli import main
from ds2d2_yolo.commands.demo import comparison_of_demo
from ds2d2_yolo.commands.words import parse_arguments
from ds2d2_yolo.comparison.plan import plan_comparison
from ds2d2_yolo.data.annotations import AnnotatedImage
from ds2d2_yolo.data.tiles import TileMapWriter, TileSettings, cut_tiles
from ds2d2_yolo.errors import DS2D2Error

PATIENCE = 120  # seconds, for commands that take one or two


class Hangs(BaseException):
    """A command takes too long. `except Exception` does not catch this."""


ODD = (
    *(None, True, False, 0, 1, -1, 3, 2**70, 0.5, float("inf"), float("nan"), -1e300),
    *("", " ", "0", "none", "x" * 5000, "a\0b", "ü/\u202e", "../..", "/dev/null", "*", "[", "~", "~nobody", "{}", "%s"),
    *([], [[]], [None], {}, {1: 2}, [1, 2, 3], ["a", "b"], {"a": {"b": []}}, date(2026, 1, 1), b"\0\xff"),
)
"""Unexpected values that YAML, JSON and pickles can have."""

SHORT = short(batch=2, nbs=2)


@dataclass
class Field:
    """Good files, to be damaged one by one.

    Attributes:
        folder (Path): Where they lie.
        files (dict[str, Path]): Files and folders by name.
    """

    folder: Path
    files: dict[str, Path] = field(default_factory=dict)

    @classmethod
    def laid_out(cls, folder: Path) -> Field:
        """Write the files that need no training."""
        torch.manual_seed(0)
        folder.mkdir(exist_ok=True)
        files = {"data": write_data(folder / "set", train=2, val=2)}
        for name, width in (("teacher", 16), ("student", 8)):
            files[f"{name}_yaml"] = small_yolo(folder, name, width)
            files[name] = save_checkpoint(lively_model(files[f"{name}_yaml"]), folder / f"{name}.pt")
        files["tiles"] = folder / "tiles"
        files["tiles"].mkdir()
        with TileMapWriter(files["tiles"], "detect", ["ship", "vehicle"], TileSettings(100, 20)) as tile_map:
            for split in ("train", "val"):
                image = AnnotatedImage(f"{split}1", Path("P1.txt"), Path("P1.png"), None)
                tile_map.add(split, cut_tiles(image, (180, 100), TileSettings(100, 20), "detect"))
        return cls(folder, files)


def words_of(field: Field, mode: str, place: Path, /, **changes: object) -> list[str]:
    """Return the words of a working command, with changes. None removes an option."""
    files = field.files
    pair = {"teacher": files["teacher"], "student": files["student"]}
    data, train = {"data": files["data"]}, {**SHORT, "project": place}
    options: dict[str, dict[str, object]] = {
        "check": data | {"out": place / "check", "plots": False},
        "train": {**pair, **data, **train, "amplifier": "none"},
        "teacher": {"teacher": files["teacher_yaml"], **data, **train},
        "amplifier": {"teacher": files["teacher"], **data, **train},
        "demo": {**pair, **data, **train, "amplifier": "none"},
        "compare": {**pair, **data, **train, "amplifier": "none", "methods": "plain,ds2d2", "seeds": 0},
        "val": {"model": files["student"], **data, "imgsz": 64, "device": "cpu", "plots": False, "project": place},
        "explain": {**pair, "source": files["data"], "imgsz": 64, "device": "cpu", "max_images": 1, "out": place / "e"},
        "report": {"run": files.get("run", ""), "out": place / "report", "val": False},
        "merge": {"predictions": place.parent / "predictions.json", "data": files["tiles"], "out": place / "merged"},
        "resume": {"resume": files.get("last", "")},
    }
    words = [f"{name}={value}" for name, value in (options[mode] | changes).items() if value is not None]
    return [{"resume": "train"}.get(mode, mode), *words]


# ---------------------------------------------------------------------------------------------- run of a command


@dataclass(frozen=True)
class Outcome:
    """The result of a command: its exit code, its output, and complaints about them."""

    code: int | None
    output: str
    complaints: list[str]

    @property
    def refused_data(self) -> list[str]:
        """The lines that refuse something other than a model with unsuitable classes or channels."""
        lines = [line for line in self.output.splitlines() if line.startswith("ds2d2: error: ")]
        return [line for line in lines if not re.search("error: (model|teacher|student)=|has other classes", line)]


def run_and_judge(words: list[str], watched: Path, out: Path) -> Outcome:
    """Run a command in this process.

    Args:
        words (list[str]): Its words.
        watched (Path): Folder whose files must stay as they are.
        out (Path): Folder that nothing is left in where the command refuses something.
    """
    before, there, stream = _snapshot(watched), _snapshot(out), io.StringIO()
    code, complaints = None, []
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        try:
            with _patience():
                code = _run(words)
        except (Exception, SystemExit, Hangs) as error:
            frames = traceback.extract_tb(error.__traceback__)
            ours = [f for f in frames if "ds2d2_yolo" in f.filename] or frames
            place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}, {Path(frames[-1].filename).name}"
            complaints.append(f"traceback: {type(error).__name__}: {str(error)[:200]} ({place})")
    text = stream.getvalue()
    errors = [line for line in text.splitlines() if line.startswith("ds2d2: error: ")]
    if code not in {0, None} and not (words[0] == "check" and code == 1 and not errors):
        if len(errors) != 1:
            complaints.append(f"{len(errors)} error lines")
        if left := _changes(there, _snapshot(out)):
            complaints.append(f"left behind: {left[:4]}")
    complaints += [f"a line of {len(line)} characters" for line in errors if len(line) > 1000]
    complaints += [f"unprintable: {line[:200]!r}" for line in errors if not line.isprintable()]
    goes_on = code == 0 and words[0] == "train" and words[1].startswith("resume=")  # in the folder of its checkpoint
    if not goes_on and (changed := _changes(before, _snapshot(watched))):
        complaints.append(f"changed: {changed[:4]}")
    return Outcome(code, text, complaints)


def _run(words: list[str]) -> int:
    if words[0] not in {"compare", "demo"}:
        return main(words)
    try:  # their runs are other processes: here they are planned alone
        asked = parse_arguments(words[1:])
        plan_comparison(comparison_of_demo(asked) if words[0] == "demo" else asked)
    except DS2D2Error as error:
        print(f"ds2d2: error: {error}")
        return error.exit_code
    return 0


@contextmanager
def _patience() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Hangs(f"in {frame.f_code.co_filename if frame else '?'}")

    old = signal.signal(signal.SIGALRM, stop)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


def _snapshot(folder: Path) -> dict[Path, tuple[int, int]]:
    """Return sizes and times by file, to find files that were changed. Ultralytics' label caches do not count."""
    found = {}
    for top, folders, files in os.walk(folder):
        for name in (*folders, *files):
            status = (Path(top) / name).lstat()
            if not name.endswith((".cache", ".cache.npy")):
                found[Path(top) / name] = (status.st_size if stat.S_ISREG(status.st_mode) else 0, status.st_mode)
    return found


def _changes(before: dict[Path, tuple[int, int]], after: dict[Path, tuple[int, int]]) -> list[str]:
    return sorted(str(path) for path in before.keys() | after.keys() if before.get(path) != after.get(path))


# ------------------------------------------------------------------------------------------------ damaged inputs


def spoilt_bytes(rng: Random, content: bytes) -> bytes:
    """Return a file with some parts replaced, repeated or removed, truncated, or with a byte order mark or a NUL."""
    for _ in range(rng.randint(1, 3)):
        start = rng.randint(0, len(content))
        stop = min(start + rng.randint(0, 30), len(content))
        source = rng.randint(0, len(content))
        filling = rng.choice(
            [
                *(b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\t", b"nan", b"-inf", b"1e999", b"9" * 5000, b"[" * 3000),
                *(b"null", b"\r\n", b"\r", b": ", b"- ", b"&a ", b"*a", b"#", b'"', rng.randbytes(8)),
                content[source : source + 30],
            ]
        )
        content = content[:start] + filling + content[stop:]
    return content[: rng.randint(0, len(content))] if rng.random() < 0.2 else content


def spoilt_tree(rng: Random, value: Any) -> Any:
    """Return a tree of mappings and lists with one or two values replaced by unusual ones, or removed."""
    for _ in range(rng.randint(1, 2)):
        value = _exchanged(rng, value)
    return value


def _exchanged(rng: Random, value: Any) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.15:
            return {name: entry for name, entry in value.items() if name != key}
        return value | {key: _exchanged(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.6:
        index = rng.randrange(len(value))
        return [*value[:index], _exchanged(rng, value[index]), *value[index + 1 :]]
    return rng.choice(ODD)


def odd_yaml(content: object) -> bytes:
    """Return any value as YAML."""
    return yaml.safe_dump(content, allow_unicode=True, sort_keys=False).encode("utf-8", "surrogatepass")


def odd_path(rng: Random, path: Path, good: bytes) -> None:
    """Replace a good file by something else."""
    kind = rng.choice(["empty", "text", "folder", "loop", "dangling", "fifo", "cut", "flipped", "zeros", "missing"])
    path.unlink(missing_ok=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "dangling":
        path.symlink_to(path.with_name("nowhere"))
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind != "missing":
        at = rng.randrange(1, len(good))
        contents = {"empty": b"", "text": b"no such thing\n", "cut": good[:at], "zeros": bytes(len(good))}
        contents["flipped"] = good[:at] + bytes([good[at] ^ 255]) + good[at + 1 :]
        path.write_bytes(contents[kind])


def copied_set(field: Field, folder: Path) -> Path:
    """Copy the good data set and return the YAML of the copy."""
    shutil.copytree(field.files["data"].parent, folder, ignore=shutil.ignore_patterns("*.cache"))
    path = folder / "data.yaml"
    path.write_text(re.sub("^path: .*", f"path: {folder}", path.read_text(), flags=re.MULTILINE))
    return path
