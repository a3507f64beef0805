"""Writing where an update must hold the whole row: read it, put the new vector in, send all of it back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from nudge_vdb.contract import Outcome, Vectors, request_guard
from nudge_vdb.errors import Refused
from nudge_vdb_milvus import filters
from nudge_vdb_milvus.columns import filled, mended, picked, pks_of, vectors_of
from nudge_vdb_milvus.fitness import Shape
from nudge_vdb_milvus.keys import Pk
from nudge_vdb_milvus.merging import judged, outcomes, places_of
from nudge_vdb_milvus.scope import EVERYTHING, Bounds
from nudge_vdb_milvus.table import LOOKS
from nudge_vdb_milvus.wire import LATEST, MOST_ROWS, FieldData, Wire

ROWS_AT_ONCE = 500  # another writer's change is lost if it falls between reading and sending them: 60 ms, median
_WORKERS = 4  # a server lets every read that is to see the latest wait 200 ms for its clock
_REQUEST_BYTES = 8 << 20
_CANARIES = 8
_CHANCES = 3  # how often some of them may vanish while they are tried, deleted by others


@dataclass(frozen=True, slots=True)
class Whole:
    """Rows with all their columns."""

    pks: list[Pk]
    vectors: Vectors
    columns: Mapping[str, FieldData]

    def with_vectors(self, name: str, places: Sequence[int], vectors: Vectors) -> list[FieldData]:
        """Return the columns of the rows at *places*, with *vectors* in the field *name*."""
        rest = [picked(column, places, len(self.pks)) for field, column in self.columns.items() if field != name]
        return [*rest, filled(self.columns[name], vectors)]

    def payload(self, name: str, place: int) -> list[bytes]:
        """Return the row at *place* without the field *name*, as bytes that are equal for equal rows."""
        fields = sorted(self.columns.keys() - {name})
        return [picked(self.columns[field], [place], len(self.pks)).SerializeToString() for field in fields]


class Rewriting:
    """A replacement of the whole row, which loses whatever another writer changed since the row was read."""

    def __init__(self, wire: Wire, shape: Shape, bounds: Bounds = EVERYTHING) -> None:
        self._wire = wire
        self._shape = shape
        self._bounds = bounds
        self._proven = False
        self._chances = _CHANCES

    def move(self, partition: str, pks: Sequence[Pk], vectors: Vectors, expected: Vectors) -> dict[Pk, Outcome]:
        """Replace the vectors of the rows *pks* that still are *expected*.

        Raises:
            Refused: the first rows did not come back as they were sent; they are as they were.
        """
        guard = request_guard()
        slices = [slice(first, first + ROWS_AT_ONCE) for first in range(0, len(pks), ROWS_AT_ONCE)]

        def move(part: slice) -> dict[Pk, Outcome]:
            return self._move(partition, pks[part], vectors[part], expected[part], guard)

        met = dict.fromkeys(pks, Outcome.MISSING)
        while slices and not self._proven:
            met |= move(slices.pop(0))
        with ThreadPoolExecutor(_WORKERS) as pool:
            for part in pool.map(move, slices):
                met |= part
        return met

    def _move(
        self, partition: str, pks: Sequence[Pk], vectors: Vectors, expected: Vectors, guard: Callable[[], None]
    ) -> dict[Pk, Outcome]:
        met: dict[Pk, Outcome] = {}
        for _ in range(LOOKS):
            rows = self._read(partition, [pk for pk in pks if pk not in met])
            places = places_of(rows.pks, pks)
            there, due = judged(rows.vectors, vectors[places], expected[places])
            guard()  # after the read: a run may have slept in it
            self._replace(partition, rows, np.flatnonzero(due).tolist(), vectors[places][due])
            met |= outcomes(rows.pks, there | due)
            if len(met) == len(pks):
                break
        return met

    def _read(self, partition: str, pks: Sequence[Pk]) -> Whole:
        where = filters.among(self._shape.pk, pks)
        columns = self._wire.query(self._bounds.within(where), ["*"], partition, LATEST, {"limit": str(MOST_ROWS)})
        lost = self._shape.elements.keys() - columns.keys()
        if lost:
            raise Refused(
                f"collection {self._shape.collection} does not give its fields {', '.join(sorted(lost))} back, "
                "so its rows cannot be written without losing them"
            )
        for name, element in self._shape.elements.items():
            columns[name] = columns[name] if element is None else mended(columns[name], element)
        found = pks_of(columns[self._shape.pk])
        return Whole(found, vectors_of(columns[self._shape.vector], len(found), self._shape.width)[0], columns)

    def _replace(self, partition: str, rows: Whole, places: list[int], vectors: Vectors) -> None:
        first = 0
        while not self._proven and first < len(places):
            tried = slice(first, first + _CANARIES)
            self._prove(partition, rows, places[tried], vectors[tried])
            first = tried.stop
        if places[first:]:
            self._send(partition, rows, places[first:], vectors[first:])

    def _send(self, partition: str, rows: Whole, places: list[int], vectors: Vectors) -> None:
        columns = rows.with_vectors(self._shape.vector, places, vectors)
        if len(places) > 1 and sum(column.ByteSize() for column in columns) > _REQUEST_BYTES:
            for part in _halves(len(places)):
                self._send(partition, rows, places[part], vectors[part])
        else:
            self._wire.upsert(columns, len(places), partition)

    def _prove(self, partition: str, rows: Whole, places: list[int], vectors: Vectors) -> None:
        """Replace a few rows and see that they are what they were but for the vector; else put them back.

        Where some are gone and the rest is whole, another writer may have deleted them: that proves nothing, and others
        are tried.
        """
        self._send(partition, rows, places, vectors)
        pks = [rows.pks[place] for place in places]
        for _ in range(LOOKS):
            lost = self._lost(partition, rows, places, vectors)
            if not lost:
                self._proven = True
                return
        there = self._read(partition, pks).pks
        left = np.array([pk in there for pk in pks])
        back = [place for place, here in zip(places, left, strict=True) if here]
        if 0 < len(back) < len(places) and self._chances and not self._lost(partition, rows, back, vectors[left]):
            self._chances -= 1
            return
        self._send(partition, rows, back, rows.vectors[back])
        raise Refused(
            f"rows of collection {self._shape.collection} do not survive being written ({lost}); "
            f"the {len(back)} rows tried are as they were, and no other was written"
        )

    def _lost(self, partition: str, before: Whole, places: list[int], vectors: Vectors) -> str:
        """Return what rows that were just sent have lost, nothing where they hold all they held."""
        pks = [before.pks[place] for place in places]
        after = self._read(partition, pks)
        if len(after.pks) < len(pks):
            return f"{len(pks)} were sent and {len(after.pks)} are there"
        if self._copies(partition, pks) != len(pks):
            return "some are there more than once"
        for place, at in zip(places, places_of(pks, after.pks), strict=True):
            # A row with another vector was written once more, by somebody else.
            ours = bool((after.vectors[at] == vectors[places.index(place)]).all())
            if ours and after.payload(self._shape.vector, at) != before.payload(self._shape.vector, place):
                return f"row {before.pks[place]} has other fields than before"
        return ""

    def _copies(self, partition: str, pks: Sequence[Pk]) -> int:
        counted = self._wire.query(filters.among(self._shape.pk, pks), ["count(*)"], partition, LATEST)["count(*)"]
        return int(counted.scalars.long_data.data[0])


def _halves(count: int) -> Iterator[slice]:
    yield slice(0, count // 2)
    yield slice(count // 2, count)
