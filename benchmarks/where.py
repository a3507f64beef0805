"""Where the time of a plan goes: the main thread's stack is looked at every 5 ms, and put down to a phase."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections import Counter
from types import FrameType, TracebackType

SAMPLED_EVERY = 0.005
PHASES = {
    ("judgements", "from_arrays"): "reading judgements",
    ("judgements", "merged"): "merging equal queries",
    ("pages", "page_out"): "page out",
    ("rivals", "best_rows"): "best rivals",
    ("tracing", "trace"): "tracing moving rows",
    ("scoring", "score_table"): "scoring at every step",
    ("carrying", "carried_table"): "scoring carries",
    ("choice", "judge"): "proof",
    ("placing", "moved_rows"): "placing rows",
    ("placing", "gathered"): "placing rows",
    ("state", "add_version"): "snapshot",
    ("price", "price"): "price",
}
"""The innermost of these functions, by module and name, that is running is the phase."""
REST = "all else"


class Sampler:
    """While it is entered, the thread that entered it is looked at."""

    def __enter__(self) -> Sampler:
        self._counts: Counter[str] = Counter()
        self._over, self._thread = threading.Event(), threading.get_ident()
        self._sampler = threading.Thread(target=self._sample)
        self._start = time.perf_counter()
        self._sampler.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lasted = time.perf_counter() - self._start
        self._over.set()
        self._sampler.join()

    def _sample(self) -> None:
        while not self._over.wait(SAMPLED_EVERY):
            self._counts[_phase(_frames().get(self._thread))] += 1

    def seconds(self) -> dict[str, float]:
        """Return how long each phase lasted."""
        samples = max(1, sum(self._counts.values()))
        return {phase: self._lasted * count / samples for phase, count in self._counts.items()}


def _frames() -> dict[int, FrameType]:
    """Return the frame of every thread; a collection of garbage in the middle may hang Python 3.11 (gh-106883)."""
    gc.disable()
    try:
        return sys._current_frames()
    finally:
        gc.enable()


def _phase(frame: FrameType | None) -> str:
    while frame is not None:
        module = frame.f_globals.get("__name__", "").removeprefix("nudge_vdb.")
        if phase := PHASES.get((module, frame.f_code.co_name)):
            return phase
        frame = frame.f_back
    return REST
