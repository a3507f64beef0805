"""Writing where an update may hold the vector alone, and the judgement on rows that every way of writing shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from nudge_vdb.contract import Mask, Outcome, Vectors, agree
from nudge_vdb_milvus.keys import Pk
from nudge_vdb_milvus.table import Table

TOLERANCE = 0.0
"""Milvus keeps vectors bit for bit."""


def rows_fetched_while_one_is_written(width: int) -> float:
    """Return how many rows of *width* components are fetched in the time that one takes to be written.

    A part of that time does not depend on the width. Seen on a server of 2.3.5, under HNSW: 2.1 to 3.6 at 384, 1.2 to
    2.0 at 1,024; and more at 384 without an index, where rows are fetched faster. The two numbers were fitted to these.
    """
    return 0.6 + 1100 / width


class Writing(Protocol):
    """A way to replace vectors."""

    def move(self, partition: str, pks: Sequence[Pk], vectors: Vectors, expected: Vectors) -> dict[Pk, Outcome]:
        """Replace the vectors of the rows *pks* that still are *expected*; one that holds the new one is written."""


class Merging:
    """An update of the vector alone, which the engine merges into the row."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def move(self, partition: str, pks: Sequence[Pk], vectors: Vectors, expected: Vectors) -> dict[Pk, Outcome]:
        """Replace the vectors of the rows *pks* that still are *expected*."""
        found = self._table.rows(partition, pks)
        seen = [pk for pk, none in zip(found.pks, found.absent, strict=True) if not none]
        places = places_of(seen, pks)
        there, due = judged(found.vectors[~found.absent], vectors[places], expected[places])
        changes = {seen[row]: vectors[places[row]] for row in np.flatnonzero(due)}
        if changes:
            self._table.replace(partition, changes)
        return dict.fromkeys(pks, Outcome.MISSING) | outcomes(seen, there | due)


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
