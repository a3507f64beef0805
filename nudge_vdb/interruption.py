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


def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as the signal module calls it
    """Do what Ctrl-C does.

    Raises:
        KeyboardInterrupt: always.
    """
    raise KeyboardInterrupt


def take_termination_for_ctrl_c() -> None:
    """Let a wish to terminate do what Ctrl-C does: for the command line, where the whole process is ours."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, interrupt)


@contextmanager
def held_back() -> Iterator[Callable[[], bool]]:
    """Hold back the first Ctrl-C, or on the command line wish to terminate, and yield a function that tells of it.

    A second one stops at once. A signal that the program around, or whoever started it, deals with otherwise is left to
    them: a server that is told to terminate must not go on because a library held that back. Outside the main thread,
    where Python delivers no signals, nothing is held back.
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
    before = {number: signal.getsignal(number) for number in SIGNALS}
    ours = {number: was for number, was in before.items() if was in (signal.default_int_handler, interrupt)}
    for number in ours:
        signal.signal(number, note)
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
