"""How fast rows are read and written: no faster than was asked for, and slower where the server slows down."""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from nudge_vdb.errors import BadOption
from nudge_vdb.retry import Patient

T = TypeVar("T")
log = logging.getLogger(__name__)

LAST = 5
"""Batches whose median is how fast the server is now: two that took unusually long by chance change nothing."""
TOLERATED = 2.0
"""How many times as long as in its best time the server may take for a row before we wait."""
FADING = 1.01
"""What the best time is multiplied by after each batch, so that a server that is slower for good is taken as it is."""
LEAST_SHARE = 0.1
"""The share of the time that we work however slow the server becomes."""
LONGEST = 10.0
"""Seconds that we wait at most between two batches because the server is slow."""
SLICE = 0.1
"""Seconds between two looks at whether somebody wants to stop."""


@dataclass(frozen=True)
class Clock:
    """Tells the time in seconds, and lets it pass."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def require_rate(throttle: float | None) -> None:
    """Return if *throttle* is a number of rows a second, or None.

    Raises:
        BadOption: it is none.
    """
    if throttle is not None and not (math.isfinite(throttle) and throttle > 0):
        raise BadOption(f"throttle {throttle!r}: expected rows per second, a number above 0")


class Slowness:
    """How much longer than in its best time a server takes for a row now.

    The idea is that of TCP Vegas (Brakmo and Peterson 1995), which tells congestion from how much longer a round trip
    takes than the shortest one did, before anything is lost. Here it is the time for a row: the median of the last
    five batches, against the least such median, which fades by a hundredth a batch. Batches of less than half the rows
    of the largest say nothing, since what a request costs by itself weighs more in them.
    """

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=LAST)
        self._best, self._largest = math.inf, 0

    def note(self, rows: int, seconds: float) -> None:
        """Take in that the server took so many *seconds* for *rows* rows."""
        self._largest = max(self._largest, rows)
        if not rows or 2 * rows < self._largest or seconds <= 0:
            return
        self._last.append(seconds / rows)
        if len(self._last) == LAST:
            self._best = min(self._best * FADING, statistics.median(self._last))

    @property
    def factor(self) -> float:
        """How many times as long; 1 until enough batches were seen."""
        return 1.0 if math.isinf(self._best) else statistics.median(self._last) / self._best


class Pace:
    """When the next batch of a move may begin.

    Two things hold it back, and the longer wait holds. *throttle* is a number of rows per second that is never
    exceeded; time that was not used is not made up for later. And where the server takes more than twice as long for a
    row as in its best time, somebody else is at work on it: then we pause after each batch, so that our share of the
    time is 2 ÷ slowness, a tenth at least, and never for more than ten seconds. That ends by itself when the server is
    faster again, or has been slow for so long that this is how it is.
    """

    def __init__(self, throttle: float | None = None, clock: Clock | None = None) -> None:
        """Begin at once.

        Raises:
            BadOption: *throttle* is no number of rows per second.
        """
        require_rate(throttle)
        self._throttle, self._clock = throttle, clock or Clock()
        self._slowness, self._told = Slowness(), False
        self._due, self._rested = -math.inf, -math.inf
        self.throttled = 0.0
        """Seconds waited because of *throttle*."""
        self.gave_way = 0.0
        """Seconds waited beyond that because the server was slow."""

    @property
    def most(self) -> int | None:
        """How many rows a batch may have: a second's worth; None where there is no limit."""
        return None if self._throttle is None else max(1, int(self._throttle))

    def turn(self, rows: int, asked_to_stop: Callable[[], bool] = lambda: False) -> float:
        """Return when a batch of *rows* may begin, or when it is *asked_to_stop*; tell how many seconds that took."""
        start = self._clock.now()
        until = max(self._due, self._rested)
        while (left := until - self._clock.now()) > 0 and not asked_to_stop():
            self._clock.sleep(min(left, SLICE))
        now = self._clock.now()
        waited = now - start if until > start else 0.0
        throttled = min(waited, max(0.0, self._due - start))
        self.throttled, self.gave_way = self.throttled + throttled, self.gave_way + waited - throttled
        if self._throttle is not None:
            self._due = max(now, self._due) + rows / self._throttle
        return waited

    def turn_to_another_kind(self) -> None:
        """Forget how fast the server was: what comes next are requests of another kind."""
        self._slowness, self._rested = Slowness(), -math.inf

    def timed(self, collection: Patient, request: Callable[[], T], rows: Callable[[T], int]) -> T:
        """Return what *request* returns, and take in how long the server was at work on so many *rows* of the answer.

        Where *collection* had to be patient meanwhile, that says nothing: the engine has been given way already.
        """
        idle, since = collection.idle, self._clock.now()
        answer = request()
        if collection.idle == idle:
            self._took(rows(answer), self._clock.now() - since)
        return answer

    def _took(self, rows: int, seconds: float) -> None:
        now = self._clock.now()
        self._slowness.note(rows, seconds)
        self._rested = now + min(LONGEST, seconds * _rests(self._slowness.factor))
        if self._rested > max(now, self._due) and not self._told:
            self._told = True
            log.warning(
                "the server takes %.1f times as long for a row as before: waiting between batches, since its users "
                "come first",
                self._slowness.factor,
            )


def _rests(factor: float) -> float:
    """Return how long to rest after a batch of a server that is *factor* times as slow, as a multiple of its time."""
    share = min(1.0, max(LEAST_SHARE, TOLERATED / factor))
    return 1 / share - 1
