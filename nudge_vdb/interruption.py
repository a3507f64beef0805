"""Ctrl-C, held back until the moment when stopping costs nothing."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def held_back() -> Iterator[Callable[[], bool]]:
    """Hold back the first Ctrl-C, or wish to terminate, and yield a function that tells whether it came.

    A second one stops at once. Outside the main thread, where Python delivers no signals, nothing is held back.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as the signal module calls it
        if came:
            raise KeyboardInterrupt
        came.append(number)
        log.warning("stopping after this batch; once more to stop at once, which is as safe and undone as easily")

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not set from Python
