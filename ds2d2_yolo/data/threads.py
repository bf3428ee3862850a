"""Threads that read images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.pool import ThreadPool


@contextmanager
def threads() -> Iterator[ThreadPool]:
    """Yield threads that end with the block.

    Python would abort if it shut down while a thread is inside OpenCV, for example after an interrupt.

    Yields:
        (ThreadPool): Up to eight threads.

    Example:
        >>> with threads() as pool:
        ...     pool.map(abs, [-1, 2])
        [1, 2]
    """
    with ThreadPool(min(8, os.cpu_count() or 1)) as pool:
        try:
            yield pool
        finally:
            pool.terminate()
            pool.join()
