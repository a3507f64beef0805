"""Patience with an engine, in one place: what is tried again, how long, and in what portions."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    retry_if_exception_type,
    retry_if_result,
    stop_before_delay,
    wait_random_exponential,
)

from nudge_vdb.contract import Accuracy, Collection, Mask, Outcome, Page, Remark, RowKey, Traits, Vectors
from nudge_vdb.errors import BadOption, Busy, EngineError, TooLarge, Unknown, Unreachable
from nudge_vdb.returned import Checked

log = logging.getLogger(__name__)

T = TypeVar("T")
PATIENCE = 120.0
"""Seconds after which an engine that keeps failing is given up, unless $NUDGE_VDB_PATIENCE says otherwise."""

UNADVISED = (
    "the backend does not say what writing {rows:,} rows does to index and disk; expect the engine to work on its "
    "index for a while afterwards"
)

MOST_AWAY = 20.0
"""Seconds for which a server that does not answer is asked again while an address is opened."""

_backoff = wait_random_exponential(multiplier=0.2, max=10)


def _wait(state: RetryCallState) -> float:
    """Wait as long as the engine asked, else exponentially with jitter."""
    failure = state.outcome.exception() if state.outcome else None
    asked = failure.retry_after if isinstance(failure, Busy) else None
    return _backoff(state) if asked is None else asked


def until_none_is_left(attempt: Callable[[], list[T]], patience: float = PATIENCE) -> list[T]:
    """Call *attempt*, which returns what it leaves undone, until that is nothing; return what is left at the end.

    Waits grow between attempts. It is called once, however little *patience* there is, in seconds.
    """
    undone = Retrying(
        retry=retry_if_result(bool),
        wait=_backoff,
        stop=stop_before_delay(patience),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else [],
    )
    return undone(attempt)


def chosen_patience() -> float:
    """Return for how many seconds an engine that keeps failing is asked again.

    Raises:
        BadOption: $NUDGE_VDB_PATIENCE is no number of seconds.
    """
    text = os.environ.get("NUDGE_VDB_PATIENCE") or PATIENCE
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise BadOption(f"NUDGE_VDB_PATIENCE={text}: give a number of seconds, 0 or more")
    return seconds


def opened(call: Callable[[], T]) -> T:
    """Return what *call* opens; while the engine is busy it is called again, for the chosen patience.

    Where nobody answers at all it is called again for :data:`MOST_AWAY` seconds at most: a server that restarts is back
    by then, and whoever mistyped a port is not kept waiting.
    """
    patience = chosen_patience()

    def left(state: RetryCallState) -> float:
        failure = state.outcome.exception() if state.outcome else None
        return min(patience, MOST_AWAY) if isinstance(failure, Unreachable) else patience

    def told(state: RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome:
            log.warning("%s; asked again for up to %g s (NUDGE_VDB_PATIENCE)", state.outcome.exception(), left(state))

    again = Retrying(
        retry=retry_if_exception(_passes),
        wait=_wait,
        stop=lambda state: stop_before_delay(left(state))(state),
        reraise=True,
        before_sleep=told,
    )
    return again(call)


def _passes(failure: BaseException) -> bool:
    return isinstance(failure, Busy | Unknown) or (isinstance(failure, Unreachable) and failure.passes)


class Patient:
    """A collection that tries again where that makes sense, and whose answers are what the contract says.

    Reads are repeated while the engine is busy or away or an answer was lost; a request that was too large is halved. A
    write whose answer was lost is never repeated blindly: its rows come back as unknown, for the caller to read back.

    Raises:
        ContractBroken: by every member, where the backend returns what the contract does not allow.
    """

    def __init__(
        self, inner: Collection, patience: float | None = None, after_reading: Callable[[], None] = lambda: None
    ) -> None:
        """Wrap *inner*; *after_reading* raises where the run must not go on with what was read."""
        self.inner = inner
        self._after_reading = after_reading
        self._checked = Checked(inner)
        self._patience = chosen_patience() if patience is None else patience
        self.idle = 0.0
        """Seconds waited so far because the engine was busy or away."""

    @property
    def traits(self) -> Traits:
        """Those of the collection inside."""
        return self.inner.traits

    def scan(self, cursor: str | None, limit: int) -> Page:
        """Scan, with smaller pages if need be."""
        try:
            return self._checked.page(self._read(lambda: self.inner.scan(cursor, limit)))
        except TooLarge:
            return self.scan(cursor, _halves(limit)[0].stop)

    def locate(self, texts: Sequence[str]) -> list[RowKey | None]:
        """Locate, in halves if need be."""
        try:
            return self._checked.located(self._read(lambda: self.inner.locate(texts)), texts)
        except TooLarge:
            first, second = _halves(len(texts))
            return [*self.locate(texts[first]), *self.locate(texts[second])]

    def text_of(self, key: RowKey) -> str:
        """Ask the collection inside."""
        return self.inner.text_of(key)

    def fetch(self, keys: Sequence[RowKey], out: Vectors) -> Mask:
        """Fetch, in halves if need be."""
        try:
            return self._checked.found(self._read(lambda: self.inner.fetch(keys, out)), keys)
        except TooLarge:
            return np.concatenate([self.fetch(keys[part], out[part]) for part in _halves(len(keys))])

    def write(self, keys: Sequence[RowKey], vectors: Vectors, expected: Vectors) -> list[Outcome]:
        """Write, in halves if need be; rows whose answer was lost are unknown."""
        try:
            return self._checked.outcomes(self._again(lambda: self.inner.write(keys, vectors, expected)), keys)
        except Unknown:
            return [Outcome.UNKNOWN] * len(keys)
        except TooLarge:
            halves = (self.write(keys[part], vectors[part], expected[part]) for part in _halves(len(keys)))
            return [outcome for half in halves for outcome in half]

    def search(self, queries: Vectors, k: int, accuracy: Accuracy = Accuracy.INDEX) -> list[list[RowKey]]:
        """Search, in halves if need be."""
        try:
            return self._checked.hits(self._read(lambda: self.inner.search(queries, k, accuracy)), queries, k)
        except TooLarge:
            return [row for part in _halves(len(queries), "query") for row in self.search(queries[part], k, accuracy)]

    def count(self) -> int:
        """Count."""
        return self._checked.number(self._read(self.inner.count))

    def notes(self) -> Mapping[str, str]:
        """Read the notes."""
        return self._checked.texts(self._read(self.inner.notes))

    def leave_note(self, name: str, text: str) -> bool:
        """Leave a note; doing so again is harmless, so a lost answer is no reason to stop."""
        return self._checked.kept(self._read(lambda: self.inner.leave_note(name, text)))

    def diagnose(self) -> list[Remark]:
        """Diagnose."""
        return self._checked.remarks(self._read(self.inner.diagnose), "diagnose")

    def before_move(self, rows: int) -> list[Remark]:
        """Return what the backend says that writing so many *rows* will do, or that it says nothing of it."""
        advise = getattr(self.inner, "before_move", None)
        if advise is None:
            return [Remark("index", UNADVISED.format(rows=rows))]
        return self._checked.remarks(self._read(lambda: advise(rows)), "before_move")

    def after_move(self, rows: int) -> None:
        """Let the backend do what it does after so many *rows* were written, if anything."""
        work = getattr(self.inner, "after_move", None)
        if work:
            self._read(lambda: work(rows))  # doing so again is harmless

    def close(self) -> None:
        """Close the collection inside."""
        self.inner.close()

    def _read(self, call: Callable[[], T]) -> T:
        """Call what is harmless to call again, so that a lost answer is no reason to stop."""
        found = self._again(call, Unknown)
        self._after_reading()
        return found

    def _again(self, call: Callable[[], T], *harmless: type[EngineError]) -> T:
        transient = retry_if_exception_type((Busy, Unreachable, *harmless))
        patiently = Retrying(retry=transient, wait=_wait, stop=stop_before_delay(self._patience), reraise=True)
        try:
            return patiently(call)
        finally:
            self.idle += patiently.statistics.get("idle_for", 0.0)


def _halves(count: int, thing: str = "row") -> tuple[slice, slice]:
    """Return the two halves of *count* things that were too large together.

    Raises:
        TooLarge: there is but one.
    """
    if count < 2:
        raise TooLarge(f"the engine finds a single {thing} too large; raise its limit on the size of a request")
    return slice(0, count // 2), slice(count // 2, count)
