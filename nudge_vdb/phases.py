"""The phases of a run: how long each took, and how far it has come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Step = Callable[[int], None]
"""Told how much is done so far, in the unit of the phase's total."""


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
                yield step
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 3)

    @contextmanager
    def shown(self, name: str, total: int | None) -> Iterator[Step]:  # noqa: ARG002 - for those who show it
        """Show the phase while it lasts; here, not at all."""
        yield lambda _: None
