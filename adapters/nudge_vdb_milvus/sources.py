"""Two ways to ask for the rows of one vector field: over a channel of our own, and through the public client."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import grpc
import numpy as np
from pymilvus import DataType, MilvusClient

from nudge_vdb.contract import Mask, Vectors
from nudge_vdb.errors import EngineError, Refused, TooLarge, Unreachable
from nudge_vdb_milvus import columns, filters
from nudge_vdb_milvus.failures import reading, status_of, writing
from nudge_vdb_milvus.fitness import Shape
from nudge_vdb_milvus.keys import Pk
from nudge_vdb_milvus.wire import LATEST, MOST_ROWS, FieldData, Wire

T = TypeVar("T")
Options = Mapping[str, str]

_log = logging.getLogger(__name__)
_PROBED_ROWS = 8
_LOOKS = 4  # another writer may come between the two


@dataclass(frozen=True, slots=True)
class Found:
    """Rows as a reply holds them."""

    pks: list[Pk]
    vectors: Vectors
    """(len(pks), width), float32"""
    absent: Mask
    """(len(pks),): True where the row has no vector."""

    def taken(self, places: Sequence[int]) -> Found:
        """Return the rows at *places*, in that order."""
        order = list(places)
        return Found([self.pks[place] for place in order], self.vectors[order], self.absent[order])


class Source(Protocol):
    """A way to ask; *where* is a filter, *partition* empty for all of them, *at* a time or ``LATEST``."""

    def now(self) -> int:
        """Return the engine's time."""

    def rows(self, where: str, partition: str, at: int, options: Options) -> Found:
        """Return rows with their vectors."""

    def pks(self, where: str, partition: str, at: int, options: Options) -> list[Pk]:
        """Return primary keys."""

    def count(self, where: str, partition: str) -> int:
        """Return how many rows there are."""

    def replace(self, partition: str, vectors: Mapping[Pk, Vectors]) -> None:
        """Replace vectors, on an engine that merges."""


class OwnChannel:
    """Columns of the protocol."""

    def __init__(self, wire: Wire, shape: Shape) -> None:
        self._wire = wire
        self._shape = shape

    def now(self) -> int:
        """Return the engine's time."""
        return self._wire.now()

    def rows(self, where: str, partition: str, at: int, options: Options) -> Found:
        """Return rows with their vectors."""
        shape = self._shape
        reply = self._wire.query(where, [shape.pk, shape.vector], partition, at, options)
        with reading(shape.collection):
            pks = columns.pks_of(_given(reply, shape.pk))
            return Found(pks, *columns.vectors_of(_given(reply, shape.vector), len(pks), shape.width))

    def pks(self, where: str, partition: str, at: int, options: Options) -> list[Pk]:
        """Return primary keys."""
        reply = self._wire.query(where, [self._shape.pk], partition, at, options)
        with reading(self._shape.collection):
            return columns.pks_of(_given(reply, self._shape.pk))

    def count(self, where: str, partition: str) -> int:
        """Return how many rows there are."""
        counted = _given(self._wire.query(where, ["count(*)"], partition, LATEST), "count(*)")
        with reading(self._shape.collection):
            return int(counted.scalars.long_data.data[0])

    def replace(self, partition: str, vectors: Mapping[Pk, Vectors]) -> None:
        """Replace the vectors of rows that were seen just now: a row that is gone would be created."""
        kind = DataType.INT64 if self._shape.kind is int else DataType.VARCHAR
        pks = columns.listed(self._shape.pk, kind, list(vectors))
        held = columns.dense(self._shape.vector, np.stack(list(vectors.values())), self._shape.nullable)
        self._wire.merge([pks, held], len(vectors), partition)


class PublicClient:
    """The client's own rows: slower by an order of magnitude, and of no use where whole rows are to be written back."""

    def __init__(self, client: MilvusClient, shape: Shape, timeout: float) -> None:
        self._client = client
        self._shape = shape
        self._timeout = timeout

    def now(self) -> int:
        """Return that everything is to be waited for."""
        return LATEST

    def rows(self, where: str, partition: str, at: int, options: Options) -> Found:  # noqa: ARG002
        """Return rows with their vectors."""
        rows = self._query(where, [self._shape.pk, self._shape.vector], partition, options)
        vectors = [row.get(self._shape.vector) for row in rows]
        absent = np.array([vector is None for vector in vectors], bool)
        filled = [np.zeros(self._shape.width) if vector is None else vector for vector in vectors]
        held = np.asarray(filled, np.float32).reshape(-1, self._shape.width)
        return Found([row[self._shape.pk] for row in rows], held, absent)

    def pks(self, where: str, partition: str, at: int, options: Options) -> list[Pk]:  # noqa: ARG002
        """Return primary keys."""
        return [row[self._shape.pk] for row in self._query(where, [self._shape.pk], partition, options)]

    def count(self, where: str, partition: str) -> int:
        """Return how many rows there are."""
        return int(self._query(where, ["count(*)"], partition, {})[0]["count(*)"])

    def replace(self, partition: str, vectors: Mapping[Pk, Vectors]) -> None:
        """Replace the vectors of rows that were seen just now."""
        rows = [{self._shape.pk: pk, self._shape.vector: vector} for pk, vector in vectors.items()]
        with writing(self._shape.collection):
            self._client.upsert(
                self._shape.collection, rows, timeout=self._timeout, partition_name=partition, partial_update=True
            )

    def _query(self, where: str, fields: list[str], partition: str, options: Options) -> list[dict[str, Any]]:
        more = {name: int(value) if name == "limit" else value for name, value in options.items()}
        with reading(self._shape.collection):
            found = self._client.query(
                self._shape.collection,
                where,
                output_fields=fields,
                timeout=self._timeout,
                partition_names=[partition] if partition else None,
                consistency_level="Strong",
                **more,
            )
        return list(found)


class Checked:
    """The first of two sources, until it fails or tells other rows than the second before it has been proven."""

    def __init__(self, first: Source, second: Source, pk: str) -> None:
        self._source = first
        self._second = second
        self._pk = pk
        self._proven = False

    def now(self) -> int:
        """Return the engine's time."""
        return self._ask(lambda source: source.now())

    def rows(self, where: str, partition: str, at: int, options: Options) -> Found:
        """Return rows with their vectors; the first that there are, only when both sources agree on some of them."""
        found = self._ask(lambda source: source.rows(where, partition, at, options))
        if (
            self._proven
            or not found.pks
            or self._agree(found.taken(range(min(_PROBED_ROWS, len(found.pks)))), partition)
        ):
            return found
        self._give_up("its first rows are not those that the client reads")
        return self.rows(where, partition, at, options)

    def pks(self, where: str, partition: str, at: int, options: Options) -> list[Pk]:
        """Return primary keys."""
        return self._ask(lambda source: source.pks(where, partition, at, options))

    def count(self, where: str, partition: str) -> int:
        """Return how many rows there are."""
        return self._ask(lambda source: source.count(where, partition))

    def replace(self, partition: str, vectors: Mapping[Pk, Vectors]) -> None:
        """Replace vectors; rows were read before, so by now it is known by which way."""
        self._source.replace(partition, vectors)

    def _ask(self, question: Callable[[Source], T]) -> T:
        try:
            return question(self._source)
        except (Refused, Unreachable) as exc:
            if self._proven or status_of(exc.__cause__) is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise
            try:
                answer = question(self._second)
            except EngineError:
                raise exc from exc.__cause__
            self._give_up(str(exc))
            return answer

    def _agree(self, ours: Found, partition: str) -> bool:
        """Tell whether the second source tells the same rows as *ours*; if so, that is proven."""
        where = filters.among(self._pk, ours.pks)
        for _ in range(_LOOKS):
            if _same(ours, self._second.rows(where, partition, LATEST, unsorted())):
                self._proven = True
                return True
            ours = self._source.rows(where, partition, LATEST, unsorted())
        return False

    def _give_up(self, why: str) -> None:
        _log.warning("reading through the client, which is slower, since a channel of our own does not do: %s", why)
        self._source, self._proven = self._second, True


def unsorted() -> dict[str, str]:
    """Return the options that make a server give all the rows asked for: without a limit, copies crowd others out."""
    return {"limit": str(MOST_ROWS)}


def joined(parts: Sequence[Found], width: int) -> Found:
    """Return the rows of all *parts*, one behind the other."""
    vectors = [np.empty((0, width), np.float32), *(part.vectors for part in parts)]
    absent = [np.zeros(0, bool), *(part.absent for part in parts)]
    return Found([pk for part in parts for pk in part.pks], np.concatenate(vectors), np.concatenate(absent))


def require_whole(found: Found) -> Found:
    """Return *found*, unless it holds as many rows as a reply may: then others may be missing."""
    if len(found.pks) >= MOST_ROWS:
        raise TooLarge(f"more than {MOST_ROWS} rows answer one request; fewer can be asked for")
    return found


def _same(ours: Found, theirs: Found) -> bool:
    mine, others = (dict(zip(rows.pks, _contents(rows), strict=True)) for rows in (ours, theirs))
    return mine == others


def _contents(found: Found) -> list[bytes]:
    return [b"" if none else vector.tobytes() for vector, none in zip(found.vectors, found.absent, strict=True)]


def _given(reply: Mapping[str, FieldData], name: str) -> FieldData:
    """Return the column *name*.

    Raises:
        Refused: the reply does not hold it.
    """
    if name not in reply:
        raise Refused(f"Milvus was asked for {name} and answers with {', '.join(sorted(reply)) or 'nothing'}")
    return reply[name]
