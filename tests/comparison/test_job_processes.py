"""Processes that a job has started end with it."""

import os
import signal

import pytest
from filelock import FileLock, Timeout

from ds2d2_yolo.comparison.processes import run_jobs
from ds2d2_yolo.errors import DS2D2Error

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no process groups")

CHILD = """
import os, signal, sys, time
from pathlib import Path
from filelock import FileLock
lock = FileLock(sys.argv[1] + "/alive")
lock.acquire()
if sys.argv[2] == "stubborn":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
Path(sys.argv[1], "pid").write_text(str(os.getpid()))
Path(sys.argv[1], "started").touch()
try:
    time.sleep(60)
except KeyboardInterrupt:
    Path(sys.argv[1], "interrupted").touch()
"""

WORKER = f"""
import os, signal, subprocess, sys
from pathlib import Path
from ds2d2_yolo.comparison.processes import take_job
folder, kind = Path(take_job()["log"]).parent, sys.argv[1]
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}, str(folder), kind])
if kind == "stubborn":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
if kind in {"killed", "finished"}:
    while not (folder / "started").exists():
        pass
    os.kill(os.getpid(), signal.SIGKILL) if kind == "killed" else sys.exit()
child.wait()
"""


def run(folder, kind):
    """Run a job that starts a child, and interrupt it when the child has started."""

    def watch(_):
        if (folder / "started").exists():
            raise KeyboardInterrupt

    run_jobs([{"title": "job", "log": str(folder / "log")}], ["-c", WORKER, kind], lambda _: None, watch=watch)


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr("ds2d2_yolo.comparison.processes._END_TIMEOUT", 3)
    monkeypatch.setattr("ds2d2_yolo.comparison.processes._WATCH_INTERVAL", 0.1)


@pytest.mark.parametrize("kind", ["obedient", "stubborn"])
def test_an_interrupted_job_ends_with_its_children(kind, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, kind)
    assert (tmp_path / "interrupted").exists() == (kind == "obedient")
    FileLock(tmp_path / "alive").acquire(timeout=20)


def test_a_killed_job_leaves_no_children(tmp_path, monkeypatch):
    monkeypatch.setattr("ds2d2_yolo.comparison.processes._WATCH_INTERVAL", 600)
    with pytest.raises(DS2D2Error, match="job failed: killed by signal 9"):
        run(tmp_path, "killed")
    FileLock(tmp_path / "alive").acquire(timeout=20)


def test_what_a_finished_job_left_running_goes_on(tmp_path, monkeypatch):
    """Such as a logger that still sends its files."""
    monkeypatch.setattr("ds2d2_yolo.comparison.processes._WATCH_INTERVAL", 600)
    run(tmp_path, "finished")
    try:
        with pytest.raises(Timeout):
            FileLock(tmp_path / "alive").acquire(timeout=0.5)
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
