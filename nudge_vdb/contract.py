"""The contract: all that a backend must know of nudge-vdb, and all that nudge-vdb knows of a backend.

A backend is a class with the members of :class:`Collection` and a function ``open_collection(address)``
registered under the entry point group ``nudge_vdb.backends``. ``nudge_vdb.testing`` holds the tests that tell
whether the promises below are kept. Errors to raise: ``Busy``, ``TooLarge``, ``Unreachable``, ``Unknown``,
``Refused`` and ``CursorExpired`` of :mod:`nudge_vdb.errors`; retries are the core's business, so an adapter never
loops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nudge_vdb.address import Address

CONTRACT = 2
"""The number of this contract. A collection says in its attribute ``contract`` which one it keeps; without, it is 1.

2 added ``CursorExpired``, ``Precision.BFLOAT16`` and the members of :class:`BeforeMove` and :class:`AfterMove`, all of
them optional, so a collection of contract 1 goes on working.
"""

RowKey = bytes
"""A row's identity: opaque bytes that hold all the engine needs to find the row again (id kind, partition …).

Equal keys are the same row; the bytes survive a restart and are what the state stores.
"""

Vectors = NDArray[np.float32]
SETTLING = 8
"""How often a vector is scaled and rounded at most until it stays."""
Mask = NDArray[np.bool_]


class Metric(StrEnum):
    """How the engine compares two vectors."""

    COSINE = "cosine"
    DOT = "dot"
    EUCLID = "euclid"


class Outcome(StrEnum):
    """What became of one row of a write."""

    WRITTEN = "written"
    """A reader sees the new vector."""
    CHANGED = "changed"
    """The live vector was not the expected one: somebody else's, left alone."""
    MISSING = "missing"
    """There is no such row, or it holds no vector; none was created."""
    REFUSED = "refused"
    """The engine will never take it."""
    UNKNOWN = "unknown"
    """Sent, and no answer: it may or may not have been written."""


class Precision(StrEnum):
    """The numbers that an engine can hold as components."""

    SINGLE = "float32"
    HALF = "float16"
    BFLOAT16 = "bfloat16"


class Accuracy(StrEnum):
    """How a search finds the best rows."""

    INDEX = "index"
    """By the engine's own index, which may miss some; it is told to look harder than usual, if it can be."""
    EXACT = "exact"
    """Every row is compared with the query."""


class Ability(StrEnum):
    """What not every engine can do; the kit holds a collection to those that it claims."""

    NOTES = "notes"
    """The engine keeps notes of ours with the collection."""
    GAPS = "gaps"
    """A row may lack the vector."""
    EXACT_SEARCH = "exact search"
    """A search can be told to compare every row with the query."""
    GUARDED = "guarded"
    """A write asks :func:`request_guard` before each of its requests, so that it may be sent many rows at once."""
    SERVER = "server"
    """The rows are with a server, perhaps on many machines, and a search in them is its work, not this process's."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What a collection is."""

    collection: str
    """Canonical name of engine and collection: equal however the address was spelled, aliases resolved; no secrets."""
    vector: str
    """Name of the vector field, "" for one without a name."""
    engine: str
    """Engine and version, for people."""
    width: int
    """Components of a vector."""
    metric: Metric
    rescales: bool
    """Whether the engine scales vectors to length 1 when they are written."""
    tolerance: float
    """Largest absolute difference of a component between what is sent and what is read back; 0 is bit for bit."""
    scope: Mapping[str, str] = field(default_factory=dict)
    """The conditions that every row meets, by the name of the option that sets one; none is the whole collection."""
    abilities: frozenset[Ability] = frozenset()
    precision: Precision = Precision.SINGLE
    """What the engine rounds components to; vectors to be written are :func:`rounded` so before, and then held as sent.

    A tolerance could not stand for it: how much a component is rounded by grows with the component.
    """

    writing: float = 4.0
    """How many times as long as fetching a row writing it takes, as it was measured; for telling a price alone."""

    @property
    def identity(self) -> str:
        """Canonical name of collection, vector field and scope."""
        scope = "".join(f"&{name}={value}" for name, value in sorted(self.scope.items()))
        return f"{self.collection}?vector={self.vector}{scope}"


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows of a scan."""

    keys: Sequence[RowKey]
    vectors: Vectors
    """(len(keys), width), float32; rows marked absent hold anything."""
    absent: Mask
    """(len(keys),): True where the row has no vector in this field."""
    next: str | None
    """Where to go on, as text that survives a restart; None at the end, and only there."""


class Weight(StrEnum):
    """How much a remark matters."""

    FINE = "fine"
    WARNING = "warning"
    """Tuning works; something about it should be known."""
    OBSTACLE = "obstacle"
    """Tuning will be refused or fail."""


@dataclass(frozen=True, slots=True)
class Remark:
    """Something worth knowing of a collection before it is tuned."""

    topic: str
    """One or two words: permissions, index, limits, reading, writing …"""
    text: str
    """A sentence; of an obstacle or a warning, also what to do about it."""
    weight: Weight = Weight.FINE


class Collection(Protocol):
    """One vector field of one collection, within the scope its address names."""

    @property
    def traits(self) -> Traits:
        """What this collection is; never changes while it is open."""

    def scan(self, cursor: str | None, limit: int) -> Page:
        """Return the rows after *cursor* (None: from the start), about *limit* of them.

        Following ``next`` meets every row that lives throughout exactly once, in an order that depends neither
        on *limit* nor on vectors being written meanwhile. A short or empty page is not the end. The arrays of a page
        are the caller's. May be called from a thread of its own.

        Raises:
            CursorExpired: the engine no longer knows *cursor*; the core starts the scan again.
        """

    def locate(self, texts: Sequence[str]) -> list[RowKey | None]:
        """Return the key of each row id given as text, None where the scope has no such row.

        As many as *texts*, in their order; a text may be asked twice, and may be anything.
        """

    def text_of(self, key: RowKey) -> str:
        """Return the row id as people and judgements write it."""

    def fetch(self, keys: Sequence[RowKey], out: Vectors) -> Mask:
        """Write the live vectors of *keys* into the rows of *out*, in the order asked.

        Returns a mask (len(keys),), False where the row is gone or holds no vector; such rows of *out* hold
        anything. Reads the latest acknowledged write of any client. May be called from several threads, also
        while rows are written.
        """

    def write(self, keys: Sequence[RowKey], vectors: Vectors, expected: Vectors) -> list[Outcome]:
        """Replace the vectors of *keys* whose live vector still is *expected*, within the tolerance.

        *keys* are distinct; *vectors* and *expected* are (len(keys), width), finite and of the traits' precision.
        Touches this vector field only: payload and other vectors stay as they are. Never creates a row. A row that
        holds the new vector already counts as written, so writing the same again is harmless. When it returns, every
        reader sees what it reports as written. One row that is not written keeps no other from being written. The
        arrays may be read-only and are left as they are.
        """

    def search(self, queries: Vectors, k: int, accuracy: Accuracy = Accuracy.INDEX) -> list[list[RowKey]]:
        """Return for each query (n, width) the keys of its *k* best rows, best first; fewer only if there are no more.

        Rows without the vector are not among them. A collection without the ability EXACT_SEARCH raises ``Refused``
        when it is asked for that accuracy, and any does that cannot answer with as many as *k* rows.
        """

    def count(self) -> int:
        """Return about how many rows there are; exact on a quiet collection."""

    def notes(self) -> Mapping[str, str]:
        """Return the notes that :meth:`leave_note` left with the collection, whoever and wherever they were, by name.

        All vector fields and all scopes of a collection share them.
        """

    def leave_note(self, name: str, text: str) -> bool:
        """Keep *text*, or no longer anything if it is "", under *name* with the collection; tell whether that is kept.

        Both are ASCII of at most 1000 bytes. Where the engine or the permissions do not allow it, nothing is done and
        False is returned. Rows, index and other properties of the collection stay as they are.
        """

    def diagnose(self) -> list[Remark]:
        """Return what this adapter has to say of the engine and of the collection, reading only.

        Permissions, state of the index, limits, how it will read and write, what is in the way. What the rows
        themselves tell is found out by the core.
        """

    def close(self) -> None:
        """Let go of the engine; may be called again.

        Whoever calls another member afterwards gets an ``EngineError``, or an answer that is true.
        """


class BeforeMove(Protocol):
    """A member that a collection may have: what a move will cost the engine."""

    def before_move(self, rows: int) -> list[Remark]:
        """Return what writing the vectors of about so many *rows* will do to index, disk and time, reading only."""


class AfterMove(Protocol):
    """A member that a collection may have: work that the engine is told to do after a move."""

    def after_move(self, rows: int) -> None:
        """Do what the engine needs after the vectors of so many *rows* were written: flush, compact, analyze.

        Rows, index settings and other properties of the collection stay as they are; doing so again is harmless. A
        failure is an ``EngineError``; it is reported, and the move counts as done.
        """


_request_guard: ContextVar[Callable[[], None]] = ContextVar("request guard", default=lambda: None)


def request_guard() -> Callable[[], None]:
    """Return what a write calls just before each request that changes rows.

    It raises where this run may no longer write, since another has taken over; the write then lets the exception
    through and sends nothing more. Ask for it in the thread that called the write; it may be called from any.
    """
    return _request_guard.get()


@contextmanager
def guarded(guard: Callable[[], None]) -> Iterator[None]:
    """Let writes inside call *guard* before each request."""
    token = _request_guard.set(guard)
    try:
        yield
    finally:
        _request_guard.reset(token)


def as_stored(vectors: Vectors, traits: Traits) -> Vectors:
    """Return vectors like *vectors* that the engine holds as they are sent; infinity where its precision overflows.

    Scaling a rounded vector to length 1 and rounding it again can change its last bits, so that is done until it stays.
    """
    held = rounded(vectors, traits.precision)
    scales = traits.rescales and traits.precision is not Precision.SINGLE
    for _ in range(SETTLING if scales else 0):
        lengths = np.linalg.norm(held.astype(np.float64), axis=1, keepdims=True)
        again = rounded((held / np.where(lengths > 0, lengths, 1.0)).astype(np.float32), traits.precision)
        if (again == held).all():
            break
        held = again
    return held


def rounded(vectors: Vectors, precision: Precision) -> Vectors:
    """Return *vectors* with as many digits as an engine of this *precision* holds; infinity where it overflows."""
    if precision is Precision.SINGLE:
        return vectors
    if precision is Precision.BFLOAT16:
        return _shortened(vectors)
    with np.errstate(over="ignore"):
        return vectors.astype(np.float16).astype(np.float32)


def _shortened(vectors: Vectors) -> Vectors:
    """Return *vectors* with the upper 16 bits of each component, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(vectors, np.float32).view(np.uint32)
    even = (bits >> np.uint32(16)) & np.uint32(1)
    upper = (bits + np.uint32(0x7FFF) + even) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(vectors), np.float32(np.nan), upper.view(np.float32)).astype(np.float32)


def agree(left: Vectors, right: Vectors, tolerance: float) -> Mask:
    """Tell which rows of two (n, width) arrays are the same vector, within *tolerance* per component.

    A NaN agrees with a NaN in the same place, so a row that was damaged all along is not taken for a changed one.
    """
    close = np.abs(left - right) <= tolerance if tolerance else left == right
    return np.asarray((close | (np.isnan(left) & np.isnan(right))).all(axis=1))


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows to fill a collection with: for fixtures only, since nudge-vdb itself never creates a row."""

    ids: Sequence[int] | Sequence[str]
    vectors: Vectors
    """A row of NaN stands for a row without the vector, where the engine allows that."""
    payloads: Sequence[Mapping[str, Any]]
    others: Vectors | None = None
    """A second vector per row, in a field of its own that must never change."""


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A row as the engine holds it, read round the adapter."""

    vector: Vectors | None
    """(width,), None where the row holds no vector."""
    payload: Mapping[str, Any]
    others: Mapping[str, Sequence[float]]


class Fixture(Protocol):
    """A collection together with a back door to the same engine that goes round the adapter.

    Registered under the entry point group ``nudge_vdb.fixtures``; used by the kit, the tests and the demo. What it can
    do beyond this is in :class:`Reopens`, :class:`Surrounds`, :class:`Interposes` and :class:`CutsOff`; the kit skips,
    visibly, the tests that need a member which it lacks.
    """

    @property
    def collection(self) -> Collection:
        """The collection, through the adapter."""

    def read(self) -> dict[str, StoredRow]:
        """Return every row by the text of its id."""

    def insert(self, rows: Rows) -> None:
        """Add rows, as another writer would."""

    def re_embed(self, ids: Sequence[int] | Sequence[str], vectors: Vectors) -> None:
        """Replace vectors, as another writer would."""

    def delete(self, ids: Sequence[int] | Sequence[str]) -> None:
        """Delete rows, as another writer would."""

    def close(self) -> None:
        """Let go of collection and back door; the rows stay."""


class Reopens(Protocol):
    """A fixture that can open its collection again."""

    def reopen(self) -> Collection:
        """Open the collection once more, as another process would; the kit closes it."""


class Surrounds(Protocol):
    """A fixture of a collection with a scope."""

    def surround(self, rows: Rows) -> None:
        """Add *rows* outside the scope, whose ids are not those of rows inside."""


class Interposes(Protocol):
    """A fixture that can act while a write is under way."""

    def interpose(self, act: Callable[[], None]) -> None:
        """Call *act* once in the next write: after its rows were looked at, before any is replaced.

        Needed of an engine that compares and replaces in two steps; where both are one step, *act* is called before it.
        """


class CutsOff(Protocol):
    """A fixture whose engine can be taken away."""

    def cut_off(self) -> AbstractContextManager[None]:
        """Return a context in which the engine does not answer the collection; afterwards it does again."""


class OpenCollection(Protocol):
    """What the entry point group ``nudge_vdb.backends`` holds."""

    def __call__(self, address: Address) -> Collection:
        """Open the collection that *address* names."""


class OpenFixture(Protocol):
    """What the entry point group ``nudge_vdb.fixtures`` holds."""

    def __call__(self, address: Address, rows: Rows, metric: Metric) -> Fixture:
        """Create the collection that *address* names, which must not exist yet, and fill it with *rows*."""
