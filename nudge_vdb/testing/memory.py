"""A collection in memory that keeps the contract: the model the other backends are held against."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from nudge_vdb.contract import (
    CONTRACT,
    Ability,
    Accuracy,
    Collection,
    Mask,
    Metric,
    Outcome,
    Page,
    Remark,
    RowKey,
    Rows,
    StoredRow,
    Traits,
    Vectors,
    agree,
    request_guard,
)
from nudge_vdb.errors import Refused, Unreachable


@dataclass
class MemoryEngine:
    """What a server would hold: rows and notes, which outlive the collections that are opened on them."""

    rows: dict[str, StoredRow] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    away: bool = False
    """Whether it does not answer."""
    act: Callable[[], None] | None = None
    """What another writer does amid the next write."""

    def interrupt(self) -> None:
        """Let the other writer act, once."""
        act, self.act = self.act, None
        if act is not None:
            act()


class MemoryCollection:
    """Rows of a :class:`MemoryEngine`, in the order of their ids as text."""

    contract = CONTRACT

    def __init__(
        self,
        metric: Metric = Metric.COSINE,
        width: int = 8,
        name: str = "memory",
        rows: dict[str, StoredRow] | None = None,
        kept: dict[str, str] | None = None,
        engine: MemoryEngine | None = None,
    ) -> None:
        """Open a collection on *engine*, or on a new one with these *rows* and notes *kept*."""
        self.metric, self.width, self.name = metric, width, name
        self.engine = engine or MemoryEngine({} if rows is None else rows, {} if kept is None else kept)

    @property
    def rows(self) -> dict[str, StoredRow]:
        """The rows that the engine holds.

        Raises:
            Unreachable: it is away.
        """
        if self.engine.away:
            raise Unreachable(f"memory:{self.name} does not answer")
        return self.engine.rows

    @rows.setter
    def rows(self, rows: dict[str, StoredRow]) -> None:
        self.engine.rows = rows

    @property
    def kept(self) -> dict[str, str]:
        """The notes that the engine holds."""
        return self.engine.notes

    @kept.setter
    def kept(self, notes: dict[str, str]) -> None:
        self.engine.notes = notes

    @property
    def traits(self) -> Traits:
        """Bit for bit, except that a cosine collection rescales."""
        rescales = self.metric is Metric.COSINE
        tolerance = 1e-6 if rescales else 0.0
        return Traits(
            f"memory:{self.name}",
            "",
            "memory",
            self.width,
            self.metric,
            rescales,
            tolerance,
            abilities=frozenset(Ability) - {Ability.SERVER},
        )

    def scan(self, cursor: str | None, limit: int) -> Page:
        """Return the rows whose id comes after *cursor*."""
        texts = sorted(text for text in self.rows if cursor is None or text > cursor)
        taken = texts[:limit]
        keys = [text.encode() for text in taken]
        vectors = np.empty((len(keys), self.width), np.float32)
        absent = ~self.fetch(keys, vectors)
        return Page(keys, vectors, absent, taken[-1] if len(texts) > limit else None)

    def locate(self, texts: Sequence[str]) -> list[RowKey | None]:
        """Return the keys of the ids that exist."""
        return [text.encode() if text in self.rows else None for text in texts]

    def text_of(self, key: RowKey) -> str:
        """Return the id."""
        return key.decode()

    def fetch(self, keys: Sequence[RowKey], out: Vectors) -> Mask:
        """Copy the live vectors."""
        found = np.zeros(len(keys), bool)
        for place, key in enumerate(keys):
            row = self.rows.get(key.decode())
            if row is not None and row.vector is not None:
                out[place] = row.vector
                found[place] = True
        return found

    def write(self, keys: Sequence[RowKey], vectors: Vectors, expected: Vectors) -> list[Outcome]:
        """Compare and replace, row by row."""
        if vectors.shape != (len(keys), self.width) or not np.isfinite(vectors).all():
            raise Refused(f"expected {len(keys)} finite vectors of {self.width} components")
        request_guard()()
        if vectors.shape != expected.shape:
            raise Refused(f"expected {len(keys)} vectors to compare with, of {self.width} components")
        self.engine.interrupt()
        return [self._write_one(*row) for row in zip(keys, vectors, expected, strict=True)]

    def _write_one(self, key: RowKey, vector: Vectors, expected: Vectors) -> Outcome:
        row = self.rows.get(key.decode())
        if row is None or row.vector is None:
            return Outcome.MISSING
        if agree(row.vector[None], vector[None], self.traits.tolerance)[0]:
            return Outcome.WRITTEN
        if not agree(row.vector[None], expected[None], self.traits.tolerance)[0]:
            return Outcome.CHANGED
        self.rows[key.decode()] = StoredRow(self.stored(vector), row.payload, row.others)
        return Outcome.WRITTEN

    def search(self, queries: Vectors, k: int, accuracy: Accuracy = Accuracy.INDEX) -> list[list[RowKey]]:  # noqa: ARG002
        """Compare with every row, there being no index."""
        if queries.shape[1:] != (self.width,):
            raise Refused(f"expected queries of {self.width} components")
        keys = [text.encode() for text, row in self.rows.items() if row.vector is not None]
        vectors = np.empty((len(keys), self.width), np.float32)
        self.fetch(keys, vectors)
        best = np.argsort(-self._scores(queries, vectors), axis=1, kind="stable")[:, :k]
        return [[keys[place] for place in places] for places in best]

    def _scores(self, queries: Vectors, vectors: Vectors) -> Vectors:
        if self.metric is Metric.EUCLID:
            return np.asarray(-np.linalg.norm(queries[:, None] - vectors[None], axis=2))
        return np.asarray(queries @ vectors.T)

    def count(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def notes(self) -> Mapping[str, str]:
        """Return the notes."""
        return dict(self.kept)

    def leave_note(self, name: str, text: str) -> bool:
        """Keep or drop a note."""
        self.kept |= {name: text}
        if not text:
            del self.kept[name]
        return True

    def diagnose(self) -> list[Remark]:
        """Say what there is to say."""
        return [Remark("reading", "from memory"), Remark("writing", "row by row")]

    def close(self) -> None:
        """Do nothing: the rows are the engine's."""

    def before_move(self, rows: int) -> list[Remark]:
        """Say what there is to say."""
        return [Remark("time", f"{rows:,} rows are written in memory, and there is no index")]

    def after_move(self, rows: int) -> None:
        """Do nothing: there is no index."""

    def stored(self, vector: Vectors) -> Vectors:
        """Return *vector* as the collection would hold it."""
        length = float(np.linalg.norm(vector.astype(np.float64)))
        if self.metric is not Metric.COSINE or length == 0.0:
            return vector.astype(np.float32)
        return (vector.astype(np.float64) / length).astype(np.float32)


@dataclass
class MemoryFixture:
    """The back door of a collection in memory."""

    collection: MemoryCollection

    def reopen(self) -> Collection:
        """Return another collection on the same engine."""
        held = self.collection
        return type(held)(held.metric, held.width, held.name, engine=held.engine)

    def interpose(self, act: Callable[[], None]) -> None:
        """Act before the next write: comparing and replacing are one step."""
        self.collection.engine.act = act

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """Let the engine not answer for a while."""
        self.collection.engine.away = True
        try:
            yield
        finally:
            self.collection.engine.away = False

    def read(self) -> dict[str, StoredRow]:
        """Return the rows as they are."""
        return dict(self.collection.engine.rows)

    def insert(self, rows: Rows) -> None:
        """Add or replace rows."""
        for place, (name, vector, payload) in enumerate(zip(rows.ids, rows.vectors, rows.payloads, strict=True)):
            others = {} if rows.others is None else {"other": rows.others[place].tolist()}
            held = None if np.isnan(vector).all() else self.collection.stored(vector)
            self.collection.engine.rows[str(name)] = StoredRow(held, payload, others)

    def re_embed(self, ids: Sequence[int] | Sequence[str], vectors: Vectors) -> None:
        """Replace vectors."""
        for name, vector in zip(ids, vectors, strict=True):
            row = self.collection.engine.rows[str(name)]
            self.collection.engine.rows[str(name)] = StoredRow(self.collection.stored(vector), row.payload, row.others)

    def delete(self, ids: Sequence[int] | Sequence[str]) -> None:
        """Delete rows."""
        for name in ids:
            del self.collection.engine.rows[str(name)]

    def close(self) -> None:
        """Do nothing."""


def memory_fixture(rows: Rows, metric: Metric = Metric.COSINE, name: str = "memory") -> MemoryFixture:
    """Return a filled collection in memory with its back door."""
    fixture = MemoryFixture(MemoryCollection(metric, rows.vectors.shape[1], name))
    fixture.insert(rows)
    return fixture
