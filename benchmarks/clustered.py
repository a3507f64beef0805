"""Rows in clusters, and queries that stand away from the rows that answer them, so that tuning helps.

As embeddings do, they lie near a space of far fewer dimensions than they have components, which is what lets an
index find neighbours at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nudge_vdb.contract import Vectors
from nudge_vdb.nudge import Floats, Ints

DIMENSIONS = 32
PER_CLUSTER = 100
BLOCK = 1000
SPREAD = 0.3
"""Standard deviation of a row about the centre of its cluster; the centres' is 1."""
NOISE = 0.1
"""Standard deviation in the directions beside that space, all of them together."""
SHARED, OWN = 0.7, 0.7
"""How far a query stands from its row: what all queries for that row share, and what they do not."""


@dataclass(frozen=True)
class Clustered:
    """So many rows of length 1, and *queries* of which every *per_row* ask for the same row."""

    rows: int
    width: int
    queries: int
    per_row: int = 5
    seed: int = 0

    def parts(self) -> Iterator[tuple[range, Vectors]]:
        """Yield all rows, a thousand at a time: their places and their vectors."""
        for first in range(0, self.rows, BLOCK):
            yield range(first, min(first + BLOCK, self.rows)), self._block(first // BLOCK)[: self.rows - first]

    def judged(self) -> tuple[Vectors, Ints]:
        """Return the queries (queries, width), of length 1, and the place of the row that each asks for."""
        rng = np.random.default_rng([self.seed, 1])
        wanted = np.sort(rng.choice(self.rows, -(-self.queries // self.per_row), replace=False))
        shared = np.repeat(rng.normal(size=(len(wanted), DIMENSIONS)), self.per_row, axis=0)[: self.queries]
        away = SHARED * shared + OWN * rng.normal(size=shared.shape)
        places = np.repeat(wanted, self.per_row)[: self.queries]
        return _unit(self._rows_at(places) + away @ self._plane), places

    @cached_property
    def _plane(self) -> Floats:
        """The directions of the space that the rows lie near, (dimensions, width)."""
        return np.random.default_rng([self.seed, 0]).normal(size=(DIMENSIONS, self.width)) / np.sqrt(
            DIMENSIONS * self.width
        )

    @cached_property
    def _centres(self) -> Floats:
        count = max(1, self.rows // PER_CLUSTER)
        return np.random.default_rng([self.seed, 2]).normal(size=(count, DIMENSIONS))

    def _block(self, number: int) -> Vectors:
        rng = np.random.default_rng([self.seed, 3, number])
        near = self._centres[rng.integers(0, len(self._centres), BLOCK)] + SPREAD * rng.normal(size=(BLOCK, DIMENSIONS))
        return _unit(near @ self._plane + NOISE / np.sqrt(self.width) * rng.normal(size=(BLOCK, self.width)))

    def _rows_at(self, places: Ints) -> Vectors:
        """Return the rows at ascending *places*."""
        numbers, starts = np.unique(places // BLOCK, return_index=True)
        parts = np.split(places % BLOCK, starts[1:])
        return np.concatenate([self._block(number)[part] for number, part in zip(numbers, parts, strict=True)])


def _unit(vectors: np.ndarray) -> Vectors:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
