"""The phases of a run: how long each took, and how far it has come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar

T = TypeVar("T")


class Step(Protocol):
    """Told how much of a phase is done."""

    def __call__(self, done: int, total: int | None = None, unit: str = "") -> None:
        """Take note that *done* of *total* units are done; without *total*, of what the phase began with."""


def silent(done: int, total: int | None = None, unit: str = "") -> None:
    """Take note of nothing."""


_current: ContextVar[Step] = ContextVar("step of the phase", default=silent)


class Phases:
    """Times the phases of a run; silent, for use from Python."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str, total: int | None = None) -> Iterator[Step]:
        """Time what happens inside; *total* is how much there is to do, where that is known."""
        start = time.perf_counter()
        try:
            with self.shown(name, total) as step:
                token = _current.set(step)
                try:
                    yield step
                finally:
                    _current.reset(token)
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 3)

    @contextmanager
    def shown(self, name: str, total: int | None) -> Iterator[Step]:  # noqa: ARG002 - for those who show it
        """Show the phase while it lasts; here, not at all."""
        yield silent


def counted(items: Iterable[T], total: int, unit: str, size: Callable[[T], int] = lambda _: 1) -> Iterator[T]:
    """Yield *items*, and tell the phase around how many of *total* units are done.

    *unit* names what is counted, such as "queries"; *size* tells how many of them an item holds, 1 unless given.
    """
    step, done = _current.get(), 0
    for item in items:
        yield item
        done += size(item)
        step(done, total, unit)
