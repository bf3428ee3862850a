"""Jobs, each in its own process: one after the other, or several at the same time on a Ray cluster.

torch is not imported here. Ray's workers only wait for such a process, so they stay small.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from textwrap import shorten
from typing import TypedDict, TypeVar, cast

from ds2d2_yolo.errors import DS2D2Error

_END_TIMEOUT = 60  # seconds in which an interrupted job must end
_WATCH_INTERVAL = 2  # seconds between two updates of the progress


class Job(TypedDict):
    """A task of one process, as JSON values: these, and what the worker needs.

    Attributes:
        title (str): For messages.
        log (str): Path of the file to which the output of the job is appended.
    """

    title: str
    log: str


SomeJob = TypeVar("SomeJob", bound=Job)


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster, and the resources of one job.

    Attributes:
        address (str): `local` starts a cluster on this machine and ends it with the jobs. `auto` is the cluster of
            this machine. Or an address of Ray.
        cpus (float): CPU cores.
        gpus (float): GPUs, or the share of one.
    """

    address: str
    cpus: float = 1
    gpus: float = 0

    def __post_init__(self) -> None:
        if find_spec("ray") is None:
            raise DS2D2Error(f"ray={self.address}: Ray is not installed; run \"pip install 'ds2d2-yolo[ray]'\"")


def run_jobs(
    jobs: Sequence[SomeJob],
    worker: Sequence[str],
    done: Callable[[SomeJob], object],
    cluster: Cluster | None = None,
    watch: Callable[[SomeJob], object] | None = None,
) -> None:
    """Run all jobs. The first failure ends all.

    Args:
        jobs (Sequence[Job]): The jobs.
        worker (Sequence[str]): Arguments of Python that start a process which calls `take_job`.
        done (Callable[[Job], object]): Called with each finished job.
        cluster (Cluster | None): Runs the jobs at the same time. With None they run here, one after the other.
        watch (Callable[[Job], object] | None): Called every few seconds with the job that runs here.

    Raises:
        DS2D2Error: If a job or the cluster fails.
        KeyboardInterrupt: If interrupted. All jobs have ended by then.
    """
    if cluster is not None and jobs:
        _run_with_ray(jobs, worker, done, cluster)
        return
    for job in jobs:
        if (failure := _run_job(job, worker, watch and partial(watch, job))) is not None:
            raise DS2D2Error(failure)
        done(job)


def take_job() -> Job:
    """Return the job of this process. From then on, it and its children are interrupted when its parent ends.

    Returns:
        (Job): The job.
    """
    # A parent in the background ignores SIGINT, and this process would inherit that. Runs are ended by SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with open(0, "rb", buffering=0, closefd=False) as pipe:  # no buffer: the thread would hold its lock at exit
        job = cast(Job, json.loads(pipe.readline()))
    threading.Thread(target=_interrupt_at_end_of_input, daemon=True).start()
    return job


def _interrupt_at_end_of_input() -> None:
    """Wait until the other end of the pipe is closed, which also happens when its process dies."""
    while os.read(0, 1):
        pass
    if os.name == "nt" or os.getpgrp() != os.getpid():
        os.kill(os.getpid(), signal.SIGINT)
    else:  # also torch's launcher: Ultralytics gives it a quarter of a second to end, and then kills it
        os.killpg(os.getpid(), signal.SIGINT)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a job that still runs. If it failed, also kill the processes that it has left behind in its session."""
    process.kill()
    if process.wait() and os.name != "nt":
        with suppress(ProcessLookupError, PermissionError):  # there are none
            os.killpg(process.pid, signal.SIGKILL)


def _run_job(job: Job, worker: Sequence[str], watch: Callable[[], object] | None = None) -> str | None:
    """Run a job. Return None, or one line about its failure."""
    log = Path(job["log"])
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        # In its own session: Ctrl-C in the terminal reaches it only once, through the pipe.
        process = subprocess.Popen(
            [sys.executable, *worker],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert process.stdin is not None
        try:
            with suppress(BrokenPipeError):  # it died at once; its exit code is reported
                process.stdin.write(json.dumps(job).encode() + b"\n")
                process.stdin.flush()
            code = _wait(process, watch)
        finally:
            with suppress(BrokenPipeError):
                process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_END_TIMEOUT)
            _kill(process)
    if code == 0:
        return None
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), f"exit code {code}")
    last = f"killed by signal {-code}" if code < 0 else last.removeprefix("ds2d2: error: ")
    return f"{job['title']} failed: {shorten(last, 400)}; see {log}, then run the same command again"


def _wait(process: subprocess.Popen[bytes], watch: Callable[[], object] | None) -> int:
    """Return the exit code of a process. Until it ends, `watch` is called every few seconds."""
    while watch is not None:
        try:
            return process.wait(_WATCH_INTERVAL)
        except subprocess.TimeoutExpired:
            watch()
    return process.wait()


def _run_with_ray(
    jobs: Sequence[SomeJob],
    worker: Sequence[str],
    done: Callable[[SomeJob], object],
    cluster: Cluster,
) -> None:
    import ray  # an optional dependency

    try:
        ray.init(address=cluster.address, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise DS2D2Error(f"ray={cluster.address}: {shorten(str(error), 300)}") from error
    start = ray.remote(num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_retries=0)(_run_job)
    pending = {start.remote(job, list(worker)): job for job in jobs}
    try:
        while pending:
            (ready,), _ = ray.wait(list(pending))
            job = pending.pop(ready)
            if (failure := ray.get(ready)) is not None:
                raise DS2D2Error(failure)
            done(job)
    except ray.exceptions.RayError as error:
        raise DS2D2Error(f"ray={cluster.address}: {shorten(str(error), 300)}") from error
    finally:
        for reference in pending:  # also interrupts those that run
            ray.cancel(reference)
        if pending:
            ray.wait(list(pending), num_returns=len(pending), timeout=_END_TIMEOUT)
        ray.shutdown()
