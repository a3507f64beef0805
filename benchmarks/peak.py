"""The most memory that this process held while something ran, above what it held before; standard library only."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from types import TracebackType

STATUS = Path("/proc/self/status")
SAMPLED_EVERY = 0.005


class Watch:
    """While it is entered, time runs and memory is watched; the figures are there afterwards."""

    def __enter__(self) -> Watch:
        Path("/proc/self/clear_refs").write_text("5")  # the kernel's own peak begins anew
        self._before = _held()
        self._anonymous = self._before["RssAnon"]
        self._over = threading.Event()
        self._sampler = threading.Thread(target=self._sample)
        self._sampler.start()
        self._start, self._worked = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.seconds, self.processor = time.perf_counter() - self._start, time.process_time() - self._worked
        self._over.set()
        self._sampler.join()

    def _sample(self) -> None:
        while not self._over.wait(SAMPLED_EVERY):
            self._anonymous = max(self._anonymous, _held()["RssAnon"])

    def figures(self) -> dict[str, float]:
        """Return seconds, processor seconds of all threads, and peaks of memory above that at the start, in MB."""
        now = _held()
        return {
            "seconds": self.seconds,
            "processor": self.processor,
            "resident": (now["VmHWM"] - self._before["VmRSS"]) / 1000,
            "anonymous": (max(self._anonymous, now["RssAnon"]) - self._before["RssAnon"]) / 1000,
        }


def _held() -> dict[str, float]:
    """Return the lines of the process's status that tell of memory, in units of 1000 bytes."""
    lines = re.findall(r"^(VmHWM|VmRSS|RssAnon):\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    return {name: int(size) * 1.024 for name, size in lines}
