"""Asking no faster than a server has said it allows."""

from __future__ import annotations

import threading
import time


class Pacing:
    """Turns at asking, all at once until the server names a rate, then one at a time.

    Several requests make a page: repeated at full speed as one, they would never all pass.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        self._between = 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def turn(self) -> None:
        """Wait until it is time for one more request."""
        with self._lock:
            now = time.monotonic()
            at = max(now, self._next)
            self._next = at + self._between
        time.sleep(at - now)

    def slow_down(self, between: float | None) -> None:
        """Leave *between* seconds from one request to the next from now on, if that is not too long to wait for."""
        if between is not None and between <= self._most:
            with self._lock:
                self._between = max(self._between, between)
                self._next = time.monotonic() + self._between
