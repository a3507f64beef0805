"""Working something out while something else is done."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """What *work* returns, worked out in a thread of its own from now on.

    Whoever no longer wants it need not wait: the thread keeps nobody from ending.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def result(self) -> T:
        """Return it when it is there.

        Raises:
            BaseException: whatever *work* raised.
        """
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self._found

    def _run(self) -> None:
        try:
            self._found = self._work()
        except BaseException as exc:  # raised where the result is asked for
            self._failure = exc
