"""Atomic files and folders, locks, and errors for full disks.

New files are written under a temporary name and then renamed, so they are complete or missing.
"""

from __future__ import annotations

import errno
import glob
import hashlib
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
from tempfile import TemporaryFile
from typing import Any

import psutil
from filelock import FileLock, Timeout

from ds2d2_yolo.errors import DS2D2Error, FullDiskError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Messages of torch and NumPy for a failed write, without the system's reason
_CUT_SHORT = re.compile(r"PytorchStreamWriter failed writing|unexpected pos \d+ vs \d+|\d+ requested and \d+ written")
_LITTLE = 2**26  # bytes: with less free space, a disk counts as full
_PARTIAL_NAMES = re.compile(r"/\.partial(?=/)|\.partial(-[0-9a-f-]+)?(?=/|$)")


def refuse_unusable(path: Path | str) -> None:
    """Refuse a path that cannot be read, or could block forever, such as a pipe or a device.

    Args:
        path (Path | str): A path. A missing file is accepted.

    Raises:
        DS2D2Error: If no file can have this path, links form a loop, access is denied, or it is a pipe, device or
            socket.

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
    """Refuse a pipe, a socket or a device."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise DS2D2Error(f"{path}: is neither a file nor a folder, but a pipe, a socket or a device; pass a file")


def refuse_unwritable(name: str, value: object, folder: Path) -> None:
    """Refuse an output folder that cannot be created, before any work.

    Args:
        name (str): The argument that names it, for the message.
        value (object): Its value.
        folder (Path): The folder. It need not exist.

    Raises:
        DS2D2Error: If the closest existing parent is no folder or not writable.
    """
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        with TemporaryFile(
            dir=existing
        ):  # permissions do not tell: file systems of the kernel or a network refuse, too
            pass
    except OSError as error:
        raise DS2D2Error(
            f"{name}={value}: cannot write to {existing}; pass another folder, such as {name}=path/to/folder"
        ) from error


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Provide a temporary path. At the end of the block it replaces `path`, unless there is an exception.

    If the process is killed, the old file stays unchanged.

    Args:
        path (Path): The final path.

    Yields:
        (Path): The temporary path: `path` with `.partial` appended.

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
    """Write a JSON file in one step. NaN becomes null.

    Args:
        path (Path): The file.
        content (object): Its content. Types that JSON lacks are written as text.
        indent (int | None): Spaces per level.
    """
    with whole_file(path) as partial:
        partial.write_text(json.dumps(without_nan(content), indent=indent, default=str) + "\n", encoding="utf-8")


def without_nan(value: Any) -> Any:
    """Return a JSON value with every NaN replaced by None.

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
def report_full_disk(folder: Path | None = None, advice: Callable[[], str] | None = None) -> Iterator[None]:
    """Replace any error from a full disk by a message of one line.

    Args:
        folder (Path | None): Folder that the block writes to. If the block has created it, it is removed.
        advice (Callable[[], str] | None): Returns the intact files and how to continue. None means to run the command
            again.

    Raises:
        FullDiskError: If the disk is full, a quota is used up, or a file would exceed the size limit.

    Example:
        >>> with report_full_disk():
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
    """Return the file that could not be written and why, if an error or its cause comes from a full disk."""
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
    """Return the free bytes on the disk of an existing or future file."""
    return shutil.disk_usage(next(place for place in (path, *path.absolute().parents) if place.exists())).free


def _files_of(error: BaseException) -> Iterator[str]:
    """Yield possible files of an error: named in the error, or in variables of its functions, innermost first."""
    if isinstance(error, OSError):
        names = (error.filename2, error.filename)  # the target of a copy first
        yield from (os.fsdecode(name) for name in names if isinstance(name, (str, bytes, os.PathLike)))
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        values = list(frame.f_locals.values())
        opened = [getattr(value, "name", None) for value in values if isinstance(value, io.IOBase)]
        yield from (name for name in opened if isinstance(name, str))
        yield from (str(value) for value in values if isinstance(value, Path))


def put_file(file: Path, place: Path, copy: bool = False) -> str:
    """Link a file to another path, or copy it if links are not possible.

    Args:
        file (Path): The file.
        place (Path): The new path. It must not exist.
        copy (bool): Whether it must be a copy.

    Returns:
        (str): The method: `hard links`, `symbolic links` or `copies`.

    Raises:
        FileExistsError: If `place` exists. It could be a link to a file of the user, so it is never written to.

    Example:
        >>> import tempfile
        >>> source = Path(tempfile.mkdtemp()) / "a.txt"
        >>> _ = source.write_text("a")
        >>> put_file(source, source.with_name("b.txt"), copy=True)
        'copies'
    """
    # Links are resolved first, as a link to a relative link would be broken.
    original = file.resolve()
    for way, link in () if copy else (("hard links", os.link), ("symbolic links", os.symlink)):
        try:
            link(original, place)
        except FileExistsError:
            raise
        except OSError:  # another file system, no permission, or no support for links
            continue
        return way
    place.touch(exist_ok=False)
    shutil.copyfile(original, place)
    return "copies"


@contextmanager
def atomic_folder(target: Path, kind: str, check: Callable[[Path], object]) -> Iterator[Path]:
    """Provide a temporary folder. At the end of the block it becomes `target`, unless there is an exception.

    A killed process leaves only a folder `<target>.partial-...` with a marker of its process. The next call for the
    same target on the same machine removes it. If another process was faster and `target` exists at the end, that
    folder is kept, and `check` verifies it.

    Args:
        target (Path): The final folder, absolute. It must not exist. Missing parents are created.
        kind (str): A word for the content, such as `scenes`. It is part of the marker's name.
        check (Callable[[Path], object]): Raises `DS2D2Error` if an existing folder has other content.

    Yields:
        (Path): The temporary folder, on the same file system as `target`.

    Raises:
        DS2D2Error: If the parent folder is not writable, or the block or the renaming raises an `OSError`.

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
            f"{target}: could not be completed ({error.strerror or error}); make room, or choose another folder"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class FolderLock:
    """Keeps other processes out of a folder, on all machines that share it. A process can acquire it several times.

    The lock is a file next to the folder. It is deleted on release. A file from a killed process locks nothing.

    Args:
        folder (Path): The folder. It need not exist.

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
        # Not in the folder itself, because Ultralytics empties it before it starts DDP workers
        self._file = folder.with_name(f".{_short_name(folder.name)}.lock")
        self._lock = FileLock(self._file, is_singleton=True, thread_local=False)

    @property
    def is_held(self) -> bool:
        """Whether this process holds it."""
        return self._lock.is_locked

    def acquire(self, wait: bool) -> bool:
        """Acquire the lock and return whether that worked. With `wait`, wait until no other process holds it.

        Raises:
            DS2D2Error: If the parent folder is not writable.
        """
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=-1 if wait else 0)
        except Timeout:
            return False
        except OSError as error:
            raise DS2D2Error(
                f"{self._file.parent}: cannot write {self._file.name} here ({error.strerror or error}); allow it, or "
                "copy the run to another folder"
            ) from error
        return True

    def release(self) -> None:
        """Release the lock. Call it once for every `acquire`."""
        if self._lock.lock_counter == 1:
            with suppress(OSError):  # on Windows, filelock removes it; here, waiting processes notice the removal
                self._file.unlink()
        self._lock.release()


def _short_name(name: str) -> str:
    """Return a name of at most 120 bytes, as file systems have limits. Different names stay different."""
    content = os.fsencode(name)
    return name if len(content) <= 120 else f"{name[:27]}-{hashlib.sha256(content).hexdigest()[:10]}"


def _remove_leftovers(target: Path) -> None:
    """Remove temporary folders of killed processes on this machine, next to the target."""
    for partial in target.parent.glob(f"{glob.escape(target.name)}.partial-*"):
        try:
            marker = json.loads(next(partial.glob(".ds2d2-*-partial.json")).read_text())
            dead = marker["host"] == socket.gethostname() and not psutil.pid_exists(int(marker["pid"]))
        except (StopIteration, OSError, ValueError, KeyError, TypeError, OverflowError):
            continue  # not from this package, or another process is creating or removing it
        if dead:
            shutil.rmtree(partial, ignore_errors=True)
