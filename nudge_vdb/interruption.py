"""Ctrl-C, held back until the moment when stopping costs nothing."""

from __future__ import annotations

import _thread
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED = 130
"""The exit status of a run that was asked to stop."""
LAST_WORDS = 0.3
"""Seconds for which what was printed may still leave the process."""
_asked: list[int] = []
"""The signals that :func:`interrupt` has met."""


def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as the signal module calls it
    """Do what Ctrl-C does; at the second signal, end the process.

    Raises:
        KeyboardInterrupt: at the first one.
    """
    if _asked:
        end_now()
    _asked.append(number)
    raise KeyboardInterrupt


def take_termination_for_ctrl_c() -> None:
    """Let a wish to terminate do what Ctrl-C does, and a second one of either end the process at once.

    For the command line, where the whole process is ours. A run may be killed at any instant, so ending it is as safe.
    """
    _asked.clear()
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) in (usual, interrupt):
            signal.signal(number, interrupt)


def was_interrupted() -> bool:
    """Tell whether this process was asked to stop by a signal, and not only by an exception of the same name."""
    return bool(_asked)


def end_now(status: int = INTERRUPTED) -> NoReturn:
    """End the process without waiting for its threads, which may wait for a server for as long as its time-out."""
    flushed = _thread.allocate_lock()
    flushed.acquire()
    with suppress(RuntimeError):  # where no thread can be started
        # In a thread of its own: a pipe that nobody reads any more takes nothing, and would hold the process for ever.
        _thread.start_new_thread(_flush, (flushed,))
        flushed.acquire(timeout=LAST_WORDS)
    os._exit(status)


def _flush(flushed: _thread.LockType) -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    flushed.release()


@contextmanager
def held_back() -> Iterator[Callable[[], bool]]:
    """Hold back the first Ctrl-C, or on the command line wish to terminate, and yield a function that tells of it.

    A second one stops at once. A signal that the program around, or whoever started it, deals with otherwise is left to
    them: a server that is told to terminate must not go on because a library held that back. Outside the main thread,
    where Python delivers no signals, nothing is held back.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as the signal module calls it
        if came and interrupt in ours.values():
            end_now()
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
