"""Folders are complete or missing, whatever happens while they are made."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.files import FolderLock, atomic_folder, put_file, refuse_unwritable


def accept(folder):
    pass


def refuse(folder):
    raise DS2D2Error(f"{folder}: is something else")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_appears_when_complete_without_marker(tmp_path):
    with atomic_folder(tmp_path / "deep" / "er" / "new", "test", accept) as folder:
        assert not (tmp_path / "deep" / "er" / "new").exists()
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_text("whole")
    assert names(tmp_path / "deep" / "er") == ["new"]
    assert names(tmp_path / "deep" / "er" / "new") == ["sub"]
    assert (tmp_path / "deep" / "er" / "new" / "sub" / "file").read_text() == "whole"


@pytest.mark.parametrize("mishap", [DS2D2Error("mistake"), KeyboardInterrupt(), AssertionError("ours")], ids=repr)
def test_an_exception_leaves_nothing_and_is_passed_on(tmp_path, mishap):
    def make():
        with atomic_folder(tmp_path / "new", "test", accept) as folder:
            (folder / "file").write_text("half")
            raise mishap

    with pytest.raises(type(mishap)):
        make()
    assert names(tmp_path) == []


def test_a_failing_disk_is_reported_in_one_line(tmp_path):
    with (
        pytest.raises(DS2D2Error, match=r"new: could not be completed \(No space left on device\); make room"),
        atomic_folder(tmp_path / "new", "test", accept),
    ):
        raise OSError(28, "No space left on device")
    assert names(tmp_path) == []


def test_an_unwritable_place_is_reported_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DS2D2Error, match="file: cannot write here"),
        atomic_folder(tmp_path / "file" / "new", "test", accept),
    ):
        pytest.fail("the block is not entered")


@pytest.mark.parametrize("good", [True, False])
def test_the_folder_of_another_process_is_checked_and_kept(tmp_path, good):
    def make():
        with atomic_folder(tmp_path / "new", "test", accept if good else refuse) as folder:
            (folder / "file").write_text("ours")
            (tmp_path / "new").mkdir()
            (tmp_path / "new" / "file").write_text("theirs")

    if good:
        make()
    else:
        with pytest.raises(DS2D2Error, match="is something else"):
            make()
    assert names(tmp_path) == ["new"]
    assert (tmp_path / "new" / "file").read_text() == "theirs"


def test_of_many_at_once_each_finds_a_whole_folder(tmp_path):
    start, complete = threading.Barrier(8), []

    def make():
        start.wait()
        with atomic_folder(tmp_path / "new", "test", accept) as folder:
            for index in range(20):
                (folder / str(index)).write_text("")
        complete.append(sum(name.isdigit() for name in names(tmp_path / "new")))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert complete == [20] * 8
    assert names(tmp_path) == ["new"]


def test_only_leftovers_of_dead_local_processes_are_removed(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = socket.gethostname()
    markers = {
        "new.partial-dead": {"pid": ended.pid, "host": here},
        "new.partial-alive": {"pid": os.getpid(), "host": here},
        "new.partial-elsewhere": {"pid": ended.pid, "host": f"not-{here}"},
        "new.partial-impossible": {"pid": 2**70, "host": here},
        "newer.partial-other-target": {"pid": ended.pid, "host": here},
    }
    for name, marker in markers.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / ".ds2d2-another-kind-partial.json").write_text(json.dumps(marker))
    (tmp_path / "new.partial-broken").mkdir()
    (tmp_path / "new.partial-broken" / ".ds2d2-test-partial.json").write_text("[]")
    (tmp_path / "new.partial-unmarked").mkdir()
    with atomic_folder(tmp_path / "new", "test", accept):
        pass
    left = {"new", "new.partial-broken", "new.partial-unmarked", *markers} - {"new.partial-dead"}
    assert set(names(tmp_path)) == left


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_process_is_cleared_up_by_the_next_one(tmp_path):
    script = """
import sys, time
from pathlib import Path
from ds2d2_yolo.files import atomic_folder
with atomic_folder(Path(sys.argv[1]), "test", check=lambda folder: None) as folder:
    (folder / "half").write_text("")
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "new")])
    try:
        limit = time.monotonic() + 60
        while not list(tmp_path.glob("new.partial-*/half")):
            assert process.poll() is None, "it ended by itself"
            assert time.monotonic() < limit, "it never began"
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    assert len(names(tmp_path)) == 1
    assert not (tmp_path / "new").exists()
    with atomic_folder(tmp_path / "new", "test", accept) as folder:
        (folder / "whole").write_text("")
    assert names(tmp_path) == ["new"]
    assert names(tmp_path / "new") == ["whole"]


def test_a_lock_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DS2D2Error, match=r"file: cannot write \.run\.lock here \(.*\); allow it"):
        FolderLock(tmp_path / "file" / "run").acquire(wait=False)


@pytest.mark.parametrize("copy", [False, True])
def test_a_file_that_exists_is_never_written_to(tmp_path, copy):
    for name in ("first", "second"):
        (tmp_path / name).write_text(name)
    put_file(tmp_path / "first", tmp_path / "link")
    with pytest.raises(FileExistsError):
        put_file(tmp_path / "second", tmp_path / "link", copy)
    assert (tmp_path / "first").read_text() == "first"


@pytest.mark.parametrize("sign", ["x", "\N{CJK UNIFIED IDEOGRAPH-8239}"])
def test_folders_with_long_names_have_locks_of_their_own(sign, tmp_path):
    folders = [tmp_path / f"{sign * (240 // len(sign.encode()))}{end}" for end in ("0", "1")]
    locks = [FolderLock(folder) for folder in folders]
    assert all(lock.acquire(wait=False) for lock in locks)
    assert len(names(tmp_path)) == 2
    for lock in locks:
        lock.release()
    assert names(tmp_path) == []


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder that takes no files in spite of its permissions")
def test_folders_that_take_no_files_are_refused():
    with pytest.raises(DS2D2Error, match=r"project=/proc/runs: cannot write to /proc; pass another folder"):
        refuse_unwritable("project", "/proc/runs", Path("/proc/runs/train"))


def test_asking_for_a_folder_leaves_nothing_behind(tmp_path):
    refuse_unwritable("out", "a/b", tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())
