"""The requests that the adapter sends to one vector field, with every failure translated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pymilvus import MilvusClient

from nudge_vdb.contract import Mask, Vectors
from nudge_vdb_milvus import columns, filters
from nudge_vdb_milvus.failures import reading, writing
from nudge_vdb_milvus.fitness import Shape
from nudge_vdb_milvus.keys import Pk
from nudge_vdb_milvus.release import Release, release_of
from nudge_vdb_milvus.wire import LATEST, MOST_ROWS, Wire

LOOKS = 4
"""How often a row is looked for before it counts as gone, where a row can be missing for a moment."""

_PAGE_BYTES = 8 << 20
_LISTED_ROWS = 4096  # a quarter of what a reply may hold: a key that was inserted four times is found yet


@dataclass(frozen=True, slots=True)
class Found:
    """Rows as a reply holds them."""

    pks: list[Pk]
    vectors: Vectors
    """(len(pks), width), float32"""
    absent: Mask
    """(len(pks),): True where the row has no vector."""


class Table:
    """One vector field of one collection, asked partition by partition; an empty name asks all of them."""

    def __init__(self, client: MilvusClient, shape: Shape, timeout: float, release: Release | None = None) -> None:
        self.shape = shape
        self._client = client
        self._timeout = timeout
        self._release = release or release_of(client, timeout)
        self._wire = Wire(client, shape.collection, timeout)

    @property
    def looks(self) -> int:
        """How often a row is to be looked for before it counts as gone."""
        return LOOKS if self._release.flickers else 1

    def now(self) -> int:
        """Return the engine's time, for reads that need not wait again for what came before it."""
        return self._wire.now()

    def partitions(self) -> list[str]:
        """Return the partitions in the order they are paged in; a partition key's are one, being Milvus's own."""
        if self.shape.partition_key is not None:
            return [""]
        with reading(self.shape.collection):
            return sorted(self._client.list_partitions(self.shape.collection, timeout=self._timeout))

    def page(self, partition: str, after: Pk | None, limit: int, at: int = LATEST) -> Found:
        """Return about *limit* rows behind *after* in the order of their keys; none at all only at the end."""
        limit = min(limit, MOST_ROWS, self._rows_of(_PAGE_BYTES))
        behind = filters.after(self.shape.pk, after)
        if not self._release.flickers:
            return self._ask(partition, behind, at, self._sorted(limit))
        # Keys first, then the range they span: as fast as one request for both, and a second look at each row.
        for time in (at, LATEST):
            reply = self._wire.query(behind, [self.shape.pk], partition, time, self._sorted(limit))
            pks = columns.pks_of(reply[self.shape.pk])[:limit]
            if pks:
                return self._range(partition, pks, time)
        return _joined([], self.shape.width)

    def rows(self, partition: str, pks: Sequence[Pk]) -> Found:
        """Return those of the rows *pks* that exist, with their vectors."""
        at = self.now()
        parts = [self._ask(partition, filters.among(self.shape.pk, part), at) for part in self._portions(pks)]
        for _ in range(self.looks - 1):
            missing = set(pks).difference(*(part.pks for part in parts))
            if not missing:
                break
            again = self._portions(sorted(missing))
            parts += [self._ask(partition, filters.among(self.shape.pk, part), LATEST) for part in again]
        return _joined(parts, self.shape.width)

    def existing(self, partition: str, pks: Sequence[Pk]) -> list[Pk]:
        """Return those of *pks* that were met in one look."""
        at = self.now()
        name = self.shape.pk
        replies = (
            self._wire.query(filters.among(name, part), [name], partition, at, _unsorted())
            for part in self._portions(pks)
        )
        return [pk for reply in replies for pk in columns.pks_of(reply[name])]

    def replace(self, partition: str, vectors: Mapping[Pk, Vectors]) -> None:
        """Replace the vectors of rows that were seen just now: a row that is gone would be created."""
        rows = [{self.shape.pk: pk, self.shape.vector: vector} for pk, vector in vectors.items()]
        with writing(self.shape.collection):
            self._client.upsert(
                self.shape.collection, rows, timeout=self._timeout, partition_name=partition, partial_update=True
            )

    def nearest(self, partition: str, queries: Vectors, k: int) -> list[list[tuple[float, Pk]]]:
        """Return for each query the *k* best rows, best first, as score and primary key."""
        with reading(self.shape.collection):
            found = self._client.search(
                self.shape.collection,
                list(queries),
                anns_field=self.shape.vector,
                limit=k,
                # Milvus Lite sends whole rows unless told which fields.
                output_fields=[self.shape.pk],
                consistency_level="Strong",
                timeout=self._timeout,
                partition_names=[partition] if partition else None,
            )
        return [[(hit["distance"], hit[self.shape.pk]) for hit in hits] for hits in found]

    def count(self) -> int:
        """Return how many rows there are."""
        counted = self._wire.query("", ["count(*)"], "", LATEST)["count(*)"]
        return int(counted.scalars.long_data.data[0])

    def _range(self, partition: str, pks: list[Pk], at: int) -> Found:
        """Return the rows from the first to the last of *pks*, and those of *pks* that were missing among them."""
        found = self._ask(partition, filters.between(self.shape.pk, pks[0], pks[-1]), at)
        missing = sorted(set(pks).difference(found.pks))
        if not missing:
            return found
        both = _joined([found, self.rows(partition, missing)], self.shape.width)
        order = sorted(range(len(both.pks)), key=both.pks.__getitem__)
        return Found([both.pks[place] for place in order], both.vectors[order], both.absent[order])

    def _ask(self, partition: str, where: str, at: int, options: Mapping[str, str] | None = None) -> Found:
        names = [self.shape.pk, self.shape.vector]
        reply = self._wire.query(where, names, partition, at, options or _unsorted())
        pks = columns.pks_of(reply[self.shape.pk])
        vectors, absent = columns.vectors_of(reply[self.shape.vector], len(pks), self.shape.width)
        if self.shape.nullable:  # Milvus Lite stores zeros for a vector that was left out and keeps no note of it
            absent = absent | ~vectors.any(axis=1)
        return Found(pks, vectors, absent)

    def _sorted(self, limit: int) -> dict[str, str]:
        # Any value of "iterator" makes Milvus Lite sort by primary key; without it a cursor loses rows.
        return {"limit": str(limit)} | ({"iterator": "True"} if self._release.sorts_for_iterators_only else {})

    def _rows_of(self, size: int) -> int:
        return max(16, size // (4 * self.shape.width))

    def _portions(self, pks: Sequence[Pk]) -> Iterator[Sequence[Pk]]:
        rows = min(_LISTED_ROWS, self._rows_of(_PAGE_BYTES))
        return (pks[first : first + rows] for first in range(0, len(pks), rows))


def _unsorted() -> dict[str, str]:
    """Return the options that make a server give all the rows asked for: without a limit, copies crowd others out."""
    return {"limit": str(MOST_ROWS)}


def _joined(parts: Sequence[Found], width: int) -> Found:
    vectors = [np.empty((0, width), np.float32), *(part.vectors for part in parts)]
    absent = [np.zeros(0, bool), *(part.absent for part in parts)]
    return Found([pk for part in parts for pk in part.pks], np.concatenate(vectors), np.concatenate(absent))
