"""The pairs of a query and a moving row that can reach the first places at some step.

A row whose best similarity on its path stays below the K-th best that is certain need not be looked at again. Products
in float32, and how far they may be off, tell which those are; what is left is computed in float64, pair by pair, so
that equal rows score equally and nothing depends on how many rows or queries are looked at together.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nudge_vdb.budget import Share
from nudge_vdb.contract import Vectors
from nudge_vdb.exam import Exam, Field, Traces, joined
from nudge_vdb.nudge import RAYS, Floats, Ints, Method, Rays, coefficients, unit
from nudge_vdb.rivals import Asked, dots

CONTENDER = 64
"""Bytes that a pair which may reach the first places takes until it is scored."""


@dataclass(frozen=True, slots=True)
class MovingRows:
    """Some consecutive wanted rows, and where they may go."""

    start: int
    pulls: Floats
    rays: Rays
    lengths: Floats

    @classmethod
    def of(cls, field: Field, part: slice) -> MovingRows:
        """Return the rows of *part*."""
        units, lengths = unit(field.base(part))
        pulls = field.pulls.of(part.start, part.stop)
        return cls(part.start, pulls, RAYS[field.method](units, pulls, None), lengths)


def certain_scores(rivals: Floats, k: int) -> Vectors:
    """Return, for each query, the *k* best scores that no step can take away, as far as *rivals* tell: (nq, k)."""
    known = np.concatenate([np.full((len(rivals), k), -np.inf, np.float32), rivals.astype(np.float32)], axis=1)
    return _best(known, k)


def _best(scores: Vectors, k: int) -> Vectors:
    """Return the *k* largest of each row of *scores* (nq, ≥ k), the least of them first."""
    return np.asarray(np.partition(scores, scores.shape[1] - k, axis=1)[:, scores.shape[1] - k :])


class Crowded(Exception):
    """More pairs can reach the first places than there is room for."""


@dataclass
class Pool:
    """Pairs that may reach the first places at some step; their number shrinks as more becomes certain."""

    field: Field
    exam: Exam
    farthest: float
    certain: Vectors
    """(nq, k): scores that some row is certain to reach at every step, the least of them first."""
    found: list[tuple[Ints, Ints, Vectors]] = dataclass_field(default_factory=list)
    """Query, place among the wanted rows, and the most that the pair may score, of c pairs."""

    def admit(self, rows: MovingRows, own: tuple[Ints, Ints]) -> None:
        """Take in *rows*, except the pairs *own* of a query and a row, which are traced by themselves."""
        low, high = self._bounds(rows)
        low[own] = high[own] = -np.inf
        self._make_certain(low)
        worst = np.maximum(self.certain[:, 0], np.finfo(np.float32).min)
        asked = np.flatnonzero(high.max(axis=1, initial=-np.inf) >= worst)
        which, row = np.nonzero(high[asked] >= worst[asked, None])
        query = asked[which]
        self.found.append((query.astype(np.int32), (rows.start + row).astype(np.int32), high[query, row]))
        self._thin_out()

    def _bounds(self, rows: MovingRows) -> tuple[Vectors, Vectors]:
        """Return what each row scores at least, and at most, on its path: (nq, c) each, float32."""
        asked = Asked(self.exam.units, self.exam.lengths, self.field.metric, self.field.budget)
        along, across = asked.units @ rows.rays.units.T, asked.units @ rows.rays.directions.T
        error = asked.error(float(rows.lengths.max(initial=0.0)))[:, None]
        low, high = bounds(rows.rays, along, across, self.farthest)
        low, high = (asked.score(bound, rows.lengths, asked.lengths[:, None]) for bound in (low, high))
        return np.subtract(low, error, out=low), np.add(high, error, out=high)

    def _make_certain(self, low: Vectors) -> None:
        """Take note of scores (nq, c) that no step can take away."""
        k = self.certain.shape[1]
        better = np.flatnonzero(low.max(axis=1, initial=-np.inf) > self.certain[:, 0])
        some = low[better] if low.shape[1] <= k else _best(low[better], k)
        self.certain[better] = _best(np.concatenate([self.certain[better], some], axis=1), k)

    def _thin_out(self) -> None:
        """Drop what can no longer reach the first places, when there is much of it."""
        room = self.field.budget.count(Share.CONTENDERS, CONTENDER)
        if self._size() <= room:
            return
        self.found = [self._reaching(*part) for part in self.found]
        if self._size() > room // 2 and len(self.exam.units) > 1:
            raise Crowded

    def _size(self) -> int:
        return sum(len(query) for query, _, _ in self.found)

    def _reaching(self, query: Ints, row: Ints, high: Vectors) -> tuple[Ints, Ints, Vectors]:
        """Return the pairs whose best scores *high* are not below what is certain."""
        kept = high >= self.certain[query, 0]
        return query[kept], row[kept], high[kept]

    def contenders(self) -> Traces:
        """Return the pairs that may still reach the first places, ordered by query."""
        kept = [self._reaching(*part) for part in self.found]
        self.found = []
        traces = [self._exact(query, row) for query, row, _ in kept if len(query)]
        everyone = joined(traces)
        return everyone.select(np.argsort(everyone.query, kind="stable"))

    def _exact(self, query: Ints, row: Ints) -> Traces:
        """Return the traces of pairs of a query and a row, in float64."""
        first, last = int(row.min()), int(row.max()) + 1
        chosen, which = np.unique(row - first, return_inverse=True)
        raw, pulls = self.field.base(slice(first, last))[chosen], self.field.pulls.of(first, last)[chosen]
        units, lengths = unit(raw)
        rays = RAYS[self.field.method](units, pulls, None)
        at = query.astype(np.int64)
        along, across = (
            dots(self.exam.units, side, at, which, self.field.budget) for side in (rays.units, rays.directions)
        )
        return Traces(at, along, across, rays.floor[which], lengths[which], self.field.order[row])


def bounds(rays: Rays, along: NDArray[Any], across: NDArray[Any], farthest: float) -> tuple[Any, Any]:
    """Return the least and the greatest similarity (nq, m) on the paths from step 0 to *farthest*.

    *along* and *across* (nq, m) are the queries' products with v and u; all is in their precision.
    """
    alpha, beta = (part[:, 0] for part in coefficients(rays.method, rays.floor, np.array([farthest])))
    alpha, beta = alpha.astype(along.dtype), beta.astype(along.dtype)
    end = alpha * along + beta * across
    low, high = np.minimum(along, end), np.maximum(along, end)
    if rays.method is Method.NUDGE_M:
        return low, high
    size = np.sqrt(along**2 + across**2)
    passed = (across >= 0) & (along >= alpha * size)  # the peak lies between v and the end of the path
    np.copyto(high, size, where=passed)
    np.copyto(low, -size, where=(along < 0) & (across < 0))
    return low, high
