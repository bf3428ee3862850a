"""Files and folders that are whole or absent: made under another name beside their place, then renamed."""

from __future__ import annotations

import errno
import glob
import io
import json
import math
import os
import re
import secrets
import shutil
import socket
import stat
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ds2d2_yolo.errors import DS2D2Error, FullDiskError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# What torch and NumPy say where the system refuses their bytes, without its reason
_CUT_SHORT = re.compile(r"PytorchStreamWriter failed writing|unexpected pos \d+ vs \d+|\d+ requested and \d+ written")
_LITTLE = 2**26  # bytes: of several files in question, the one on a disk with less room
_PARTIAL_NAMES = re.compile(r"/\.partial(?=/)|\.partial(-[0-9a-f-]+)?(?=/|$)")


def refuse_unusable(path: Path | str) -> None:
    """Refuse a path that cannot be read from, or would be for ever, as a pipe or a device would.

    Args:
        path (Path | str): A path; one where nothing is passes.

    Raises:
        DS2D2Error: If no file can have this path, it leads in circles or may not be followed, or a pipe, a device or a
            socket lies there.

    Example:
        >>> refuse_unusable("missing.yaml")
    """
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        raise DS2D2Error(
            f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}); pass another path"
        ) from None
    refuse_special(path)


def refuse_special(path: Path | str) -> None:
    """Refuse a pipe, a socket or a device, as `refuse_unusable` does, but nothing else."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise DS2D2Error(f"{path}: is neither a file nor a folder, but a pipe, a socket or a device; pass a file")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path to write to, which takes the place of `path` when the block ends without an exception.

    A process that is killed meanwhile leaves the old file as it was.

    Args:
        path (Path): Where the file belongs.

    Yields:
        (Path): A path beside it, of the same name with `.partial` behind it.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "a.txt"
        >>> with whole_file(target) as partial:
        ...     _ = partial.write_text("a")
        >>> target.read_text()
        'a'
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: object, indent: int | None = 2) -> None:
    """Write a JSON file as a whole; NaN, which JSON does not have, becomes null.

    Args:
        path (Path): The file.
        content (object): Its content; what JSON does not have is written as text.
        indent (int | None): Spaces by level.
    """
    with whole_file(path) as partial:
        partial.write_text(json.dumps(without_nan(content), indent=indent, default=str) + "\n", encoding="utf-8")


def without_nan(value: Any) -> Any:
    """Return a JSON value with None in place of every NaN.

    Example:
        >>> without_nan({"AP": float("nan"), "sizes": [1.0, float("nan")]})
        {'AP': None, 'sizes': [1.0, None]}
    """
    if isinstance(value, dict):
        return {key: without_nan(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value


@contextmanager
def room_for(folder: Path | None = None, advice: Callable[[], str] | None = None) -> Iterator[None]:
    """Turn what a full disk raises into one line, whoever was writing.

    Args:
        folder (Path | None): Folder that the block writes to. If the block has made it, it does not stay half written.
        advice (Callable[[], str] | None): Returns what is still whole and how to go on; None where the command is to be
            run again.

    Raises:
        FullDiskError: If the disk has no room, a quota is used up, or a file would be larger than allowed.

    Example:
        >>> with room_for():
        ...     raise OSError(28, "No space left on device", "/data/out.txt")
        Traceback (most recent call last):
        ...
        ds2d2_yolo.errors.FullDiskError: /data/out.txt: could not be written (no space left on device...); make room...
    """
    is_new = folder is not None and not folder.exists()
    try:
        yield
    except FullDiskError:
        if folder is not None and is_new:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    except Exception as error:
        if (line := _describe_full_disk(error)) is None:
            raise
        how = advice() if advice else "make room, then run the same command again"
        if folder is not None and is_new:
            shutil.rmtree(folder, ignore_errors=True)
        raise FullDiskError(f"{line}; {how}") from error


def _describe_full_disk(error: BaseException | None) -> str | None:
    """Return which file could not be written and why, if a full disk is behind an error or what it came from."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            reason = os.strerror(error.errno).lower()
        elif isinstance(error, (OSError, RuntimeError)) and _CUT_SHORT.search(str(error)):
            reason = "is the disk full?"
        else:
            error = error.__cause__ or error.__context__
            continue
        rooms = {file: _room_at(Path(file)) for file in _files_of(error)}
        if not rooms:
            return f"a file or standard output could not be written ({reason})"
        file = next((file for file, room in rooms.items() if room < _LITTLE), next(iter(rooms)))
        name = _PARTIAL_NAMES.sub("", file)
        return f"{name}: could not be written ({reason}, {rooms[file] / 2**20:.1f} MiB free)"
    return None


def _room_at(path: Path) -> int:
    """Return how many bytes are free where a file lies or belongs."""
    return shutil.disk_usage(next(place for place in (path, *path.absolute().parents) if place.exists())).free


def _files_of(error: BaseException) -> Iterator[str]:
    """Yield files that an error can be about: those that it names, or that functions have in hand, innermost first."""
    if isinstance(error, OSError):
        names = (error.filename2, error.filename)  # where something was copied to comes first
        yield from (os.fsdecode(name) for name in names if isinstance(name, (str, bytes, os.PathLike)))
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        values = list(frame.f_locals.values())
        opened = [getattr(value, "name", None) for value in values if isinstance(value, io.IOBase)]
        yield from (name for name in opened if isinstance(name, str))
        yield from (str(value) for value in values if isinstance(value, Path))


@contextmanager
def atomic_folder(target: Path, kind: str, check: Callable[[Path], object]) -> Iterator[Path]:
    """Give a new folder to fill, which takes the place of `target` when the block ends without an exception.

    A process that is killed leaves no `target`, but a folder `<target>.partial-...`, with a marker that tells who made
    it; the next call for the same target on the same machine removes what the dead left. When another process was
    faster and `target` exists in the end, its folder is kept and `check` says whether it is as good.

    Args:
        target (Path): Where the folder belongs, absolute. It must not exist; missing parents are made.
        kind (str): Plain word for what is made, such as `scenes`: part of the marker's name.
        check (Callable[[Path], object]): Raises `DS2D2Error` unless a folder holds what was about to be made.

    Yields:
        (Path): The folder to fill, on the same file system as `target`.

    Raises:
        DS2D2Error: If the place cannot be written, or the block or the renaming ends in an `OSError`.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "new"
        >>> with atomic_folder(target, "example", check=lambda folder: None) as folder:
        ...     _ = (folder / "a.txt").write_text("a")
        >>> [path.name for path in target.iterdir()]
        ['a.txt']
    """
    marker = f".ds2d2-{kind}-partial.json"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        partial = target.with_name(f"{target.name}.partial-{os.getpid()}-{secrets.token_hex(4)}")
        partial.mkdir()
    except OSError as error:
        raise DS2D2Error(
            f"{target.parent}: cannot write here ({error.strerror or error}); choose another folder"
        ) from error
    try:
        (partial / marker).write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        yield partial
        try:
            partial.rename(target)
        except OSError:
            if not target.exists():
                raise
            check(target)
        else:
            (target / marker).unlink()
    except OSError as error:
        raise DS2D2Error(
            f"{target}: stopped half way ({error.strerror or error}); make room, or choose another folder"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class FolderLock:
    """Keeps other processes out of a folder, on every machine that sees it; a process may hold it several times.

    The lock is a file beside the folder, which goes when it is released. One that a killed process left locks nothing.

    Args:
        folder (Path): The folder, which need not exist.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "run"
        >>> lock = FolderLock(folder)
        >>> lock.acquire(wait=False), [path.name for path in folder.parent.iterdir()]
        (True, ['.run.lock'])
        >>> lock.release()
        >>> list(folder.parent.iterdir())
        []
    """

    def __init__(self, folder: Path) -> None:
        folder = folder.resolve()
        # Not in the folder itself, which Ultralytics empties before it starts DDP workers
        self._file = folder.with_name(f".{folder.name[:60]}.lock")
        self._lock = FileLock(self._file, is_singleton=True, thread_local=False)

    @property
    def is_held(self) -> bool:
        """Whether this process holds it."""
        return self._lock.is_locked

    def acquire(self, wait: bool) -> bool:
        """Return whether this process holds the lock now; with `wait`, it does when no other one holds it any more.

        Raises:
            DS2D2Error: If the place beside the folder cannot be written.
        """
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=-1 if wait else 0)
        except Timeout:
            return False
        except OSError as error:
            raise DS2D2Error(
                f"{self._file.parent}: cannot be written ({error.strerror or error}), {self._file.name} belongs there; "
                "allow it, or copy the run to another place"
            ) from error
        return True

    def release(self) -> None:
        """Give the lock back, once for every time that it was acquired."""
        if self._lock.lock_counter == 1:
            with suppress(OSError):  # on Windows, filelock removes it; here, who waits sees that its file has gone
                self._file.unlink()
        self._lock.release()


def _remove_leftovers(target: Path) -> None:
    """Remove what processes of this machine left beside the target when they were killed."""
    for partial in target.parent.glob(f"{glob.escape(target.name)}.partial-*"):
        try:
            marker = json.loads(next(partial.glob(".ds2d2-*-partial.json")).read_text())
            dead = marker["host"] == socket.gethostname() and not _is_alive(int(marker["pid"]))
        except (StopIteration, OSError, ValueError, KeyError, TypeError):
            continue  # not ours, or just being created or removed by another process
        if dead:
            shutil.rmtree(partial, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    if os.name == "nt":
        return True  # signal 0 would interrupt the process there; leftovers then have to be removed by hand
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it runs, as another user
    return True
