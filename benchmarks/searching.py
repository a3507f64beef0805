"""A client that searches at fixed times, in a process of its own, and notes how late its answers are."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path
from types import TracebackType

import numpy as np

from nudge_vdb.contract import Vectors

EVERY = 1 / 40
"""Seconds between two queries."""


def _search(opened: Callable[[], Callable[[Vectors], object]], queries: Vectors, path: Path, enough: Event) -> None:
    """Ask a query every so often until it is *enough*; keep when each was due, and how late its answer came."""
    search, start, told = opened(), time.monotonic(), []
    for number in range(10**9):
        due = start + number * EVERY
        time.sleep(max(0.0, due - time.monotonic()))
        if enough.is_set():
            break
        search(queries[number % len(queries)])
        told.append((due, time.monotonic() - due))
    np.save(path, np.array(told))


class Searching:
    """Searches from entering to leaving; the clocks of the processes of a machine are the same."""

    def __init__(self, opened: Callable[[], Callable[[Vectors], object]], queries: Vectors, path: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._path, self._enough = path, context.Event()
        self._process = context.Process(target=_search, args=(opened, queries, path, self._enough))

    def __enter__(self) -> Searching:
        self._process.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._enough.set()
        self._process.join()

    def delays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return when each query was due, and how many seconds later its answer was there, once it has ended."""
        told = np.load(self._path)
        return told[:, 0], told[:, 1]
