"""Jobs that run each in a process of its own: one after the other, or several at a time on a Ray cluster.

Nothing of torch is imported here, so that Ray's workers, which do no more than to wait for such a process, stay small.
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

_GRACE = 60  # seconds that an interrupted job has for its end
_GLANCE = 2  # seconds between two looks at what a job has done


class Job(TypedDict):
    """What a process is started for, as JSON values: these, and what its worker reads of it.

    Attributes:
        title (str): For messages.
        log (str): Path of the file that the job's output is added to.
    """

    title: str
    log: str


SomeJob = TypeVar("SomeJob", bound=Job)


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster, and what one job takes of it.

    Attributes:
        address (str): `local` for one of this machine that ends with the jobs, `auto` for the one that this machine
            belongs to, or an address of Ray's.
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
    """Run every job; the first that fails ends all.

    Args:
        jobs (Sequence[Job]): The jobs.
        worker (Sequence[str]): Arguments of Python that start a process which calls `take_job`.
        done (Callable[[Job], object]): Called with each job as it ends.
        cluster (Cluster | None): Where they run at the same time; None runs one after the other, here.
        watch (Callable[[Job], object] | None): Called with a job every few seconds while it runs here.

    Raises:
        DS2D2Error: If a job fails, or the cluster does.
        KeyboardInterrupt: If interrupted; the jobs have ended then.
    """
    if cluster is not None and jobs:
        _run_with_ray(jobs, worker, done, cluster)
        return
    for job in jobs:
        if (failure := _run_job(job, worker, watch and partial(watch, job))) is not None:
            raise DS2D2Error(failure)
        done(job)


def take_job() -> Job:
    """Return the job that this process was started for, and have the process interrupted when its starter is gone.

    Returns:
        (Job): The job.
    """
    # Ignored where the starter is a job in the background; interrupting is how runs are ended here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with open(0, "rb", buffering=0, closefd=False) as pipe:  # a buffer's lock, held by the thread, would block the exit
        job = cast(Job, json.loads(pipe.readline()))
    threading.Thread(target=_interrupt_at_end_of_input, daemon=True).start()
    return job


def _interrupt_at_end_of_input() -> None:
    """Wait until nobody holds the other end of the pipe: it was closed, or its process died, however that happened."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGINT)


def _run_job(job: Job, worker: Sequence[str], glance: Callable[[], object] | None = None) -> str | None:
    """Run a job and return None, or one line that says how it failed."""
    log = Path(job["log"])
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        # In a session of its own: Ctrl-C in the terminal reaches it through the pipe, once, and not in addition.
        process = subprocess.Popen(
            [sys.executable, *worker],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert process.stdin is not None
        try:
            with suppress(BrokenPipeError):  # it died at once, which its exit code tells
                process.stdin.write(json.dumps(job).encode() + b"\n")
                process.stdin.flush()
            code = _wait(process, glance)
        finally:
            with suppress(BrokenPipeError):
                process.stdin.close()
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    if code == 0:
        return None
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), f"exit code {code}")
    last = f"killed by signal {-code}" if code < 0 else last.removeprefix("ds2d2: error: ")
    return f"{job['title']} failed: {shorten(last, 400)}; see {log}, then run the same command again"


def _wait(process: subprocess.Popen[bytes], glance: Callable[[], object] | None) -> int:
    """Return the exit code of a process, and glance at what it does until it ends."""
    while glance is not None:
        try:
            return process.wait(_GLANCE)
        except subprocess.TimeoutExpired:
            glance()
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
        for reference in pending:  # interrupts them
            ray.cancel(reference)
        if pending:
            ray.wait(list(pending), num_returns=len(pending), timeout=_GRACE)
        ray.shutdown()
