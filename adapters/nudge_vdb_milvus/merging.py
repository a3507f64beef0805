"""Writing where an update may hold the vector alone, and the judgement on rows that every way of writing shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from nudge_vdb.contract import Mask, Outcome, Vectors, agree, request_guard
from nudge_vdb.errors import Refused
from nudge_vdb_milvus.keys import Pk
from nudge_vdb_milvus.release import Release
from nudge_vdb_milvus.revived import Revived
from nudge_vdb_milvus.scope import Bounds
from nudge_vdb_milvus.table import Pace, Table

LITE_ROWS, SERVER_ROWS = 1, 256
"""How many rows are sent at once: what others do to them meanwhile may be lost.

Milvus Lite answers in a millisecond or two, so there it can be few; a server lets every read wait for its clock.
"""
LITE_PRICE = 40.0
"""How many rows Milvus Lite fetches while one is written: seen, 29 to 47 at 768 to 64 components."""
TOLERANCE = 0.0
"""Milvus keeps vectors bit for bit."""


def rows_fetched_while_one_is_written(width: int) -> float:
    """Return how many rows of *width* components are fetched in the time that one takes to be written.

    A part of that time does not depend on the width. Seen on a server of 2.3.5, under HNSW: 2.1 to 3.6 at 384, 1.2 to
    2.0 at 1,024; and more at 384 without an index, where rows are fetched faster. The two numbers were fitted to these.
    """
    return 0.6 + 1100 / width


def portions_of(release: Release, bounds: Bounds, pace: Pace) -> tuple[int, int]:
    """Return how many rows to send at once, and how many such portions at a time.

    Under a filter Milvus Lite reads the whole collection for every look, so there they are larger.
    """
    return LITE_ROWS if release.lite and not bounds.expression else SERVER_ROWS, pace.lanes


class Writing(Protocol):
    """A way to replace vectors."""

    def move(self, partition: str, pks: Sequence[Pk], vectors: Vectors, expected: Vectors) -> dict[Pk, Outcome]:
        """Replace the vectors of the rows *pks* that still are *expected*; one that holds the new one is written."""


class Merging:
    """An update of the vector alone, which the engine merges into the row that it finds.

    The engine does that in steps of its own: what another writer changes between them is lost, and a row that is
    deleted between them is made anew. So rows go in small portions, each of which is looked at just before and right
    after, and rows that we alone brought back are deleted again.
    """

    def __init__(self, table: Table, revived: Revived, rows_at_once: int, lanes: int) -> None:
        self._table = table
        self._revived = revived
        self._rows_at_once = rows_at_once
        self._lanes = lanes

    def move(self, partition: str, pks: Sequence[Pk], vectors: Vectors, expected: Vectors) -> dict[Pk, Outcome]:
        """Replace the vectors of the rows *pks* that still are *expected*."""
        guard = request_guard()
        starts = range(0, len(pks), self._rows_at_once)

        def moved(first: int) -> dict[Pk, Outcome]:
            part = slice(first, first + self._rows_at_once)
            return self._moved(partition, pks[part], vectors[part], expected[part], guard)

        met = dict.fromkeys(pks, Outcome.MISSING)
        if self._lanes < 2 or len(starts) < 2:
            return met | {pk: outcome for first in starts for pk, outcome in moved(first).items()}
        with ThreadPoolExecutor(self._lanes) as pool:
            return met | {pk: outcome for part in pool.map(moved, starts) for pk, outcome in part.items()}

    def _moved(
        self, partition: str, pks: Sequence[Pk], vectors: Vectors, expected: Vectors, guard: Callable[[], None]
    ) -> dict[Pk, Outcome]:
        holding = self._revived.holding(partition, pks)  # before the vectors: what is compared is looked at last
        found = self._table.rows(partition, pks)
        seen = [pk for pk, none in zip(found.pks, found.absent, strict=True) if not none]
        places = places_of(seen, pks)
        there, due = judged(found.vectors[~found.absent], vectors[places], expected[places])
        changes = {seen[row]: vectors[places[row]] for row in np.flatnonzero(due)}
        gone: set[Pk] = set()
        if changes:
            guard()  # after the reads: a run may have slept in them
            gone = self._replaced(partition, changes)
            gone |= self._revived.taken_back(partition, changes, holding - gone)
        return outcomes(seen, there | due) | dict.fromkeys(gone, Outcome.MISSING)

    def _replaced(self, partition: str, changes: Mapping[Pk, Vectors]) -> set[Pk]:
        """Send *changes*; return the rows that are gone, over one of which an engine may refuse all of a portion."""
        try:
            self._table.replace(partition, changes)
        except Refused:
            there = set(self._table.rows(partition, list(changes)).pks)
            left = {pk: vector for pk, vector in changes.items() if pk in there}
            if len(left) == len(changes):
                raise
            return (changes.keys() - there) | (self._replaced(partition, left) if left else set())
        return set()


def places_of(some: Sequence[Pk], pks: Sequence[Pk]) -> list[int]:
    """Return where in *pks* each of *some* stands."""
    places = {pk: place for place, pk in enumerate(pks)}
    return [places[pk] for pk in some]


def judged(live: Vectors, vectors: Vectors, expected: Vectors) -> tuple[Mask, Mask]:
    """Tell which *live* rows are what they are to become, and which are to be replaced."""
    there = agree(live, vectors, TOLERANCE)
    return there, ~there & agree(live, expected, TOLERANCE)


def outcomes(pks: Sequence[Pk], written: Mask) -> dict[Pk, Outcome]:
    """Return what became of rows that were met."""
    return {pk: Outcome.WRITTEN if done else Outcome.CHANGED for pk, done in zip(pks, written, strict=True)}
