"""Which pairs of a query and a moving row matter at any step, and what their scores follow from.

A row's similarity to a query is linear in two numbers that do not depend on the step. A row whose best similarity on
its path stays below the K-th best that is certain need not be looked at again. Products in float32 tell which those
are; what is left is computed in float64, pair by pair, so that equal rows score equally and nothing depends on how many
rows or queries are looked at together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from dataclasses import field as dataclass_field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nudge_vdb.budget import USUAL_BUDGET, Budget, Share
from nudge_vdb.contract import Metric, Vectors
from nudge_vdb.nudge import RAYS, Floats, Ints, Method, Pulls, Rays, coefficients, unit
from nudge_vdb.rivals import Asked, dots

MATRICES = 40
"""Bytes that a pair of a query and a row of one part takes in all matrices together."""
VECTORS = 48
"""Bytes that a component of a row takes in its unit vector, pull, direction and what they are made of."""
CONTENDER = 64
"""Bytes that a pair which may reach the first places takes until it is scored."""


@dataclass(frozen=True, slots=True)
class Exam:
    """nq queries to score, and p pairs of a query and a row that answers it, ordered by query."""

    units: Vectors
    """(nq, d), length 1."""
    lengths: Floats
    """(nq,): the queries' own lengths."""
    query: Ints
    """(p,), ascending."""
    row: Ints
    """(p,): the place among the wanted rows."""
    grades: Floats
    """(p,)"""
    left_out: Floats
    """(p,): the query's weight in the row's pull, taken out before the pair is scored; 0 if it has none."""

    def part(self, first: int, last: int) -> Exam:
        """Return the exam of the queries *first* … *last* − 1 alone."""
        pairs = slice(*np.searchsorted(self.query, [first, last]))
        asked, query = slice(first, last), self.query[pairs] - first
        return Exam(
            self.units[asked], self.lengths[asked], query, self.row[pairs], self.grades[pairs], self.left_out[pairs]
        )


@dataclass(frozen=True, slots=True)
class Field:
    """Everything that the scores depend on, except the step."""

    method: Method
    metric: Metric
    pulls: Pulls
    """On the m wanted rows; a row that answers only queries of an exam has no pull and stays."""
    base: Callable[[slice], Vectors]
    """The raw base vectors of a slice of the wanted rows."""
    order: Floats
    """(m,), in 0 … 1: of two rows with the same score, the one with the larger order stands first."""
    rivals: Floats
    """(nq, K): the scores of the best rows that nobody wants, in order, −inf where there are fewer."""
    budget: Budget = USUAL_BUDGET

    def part(self, first: int, last: int) -> Field:
        """Return the field as the queries *first* … *last* − 1 see it."""
        return replace(self, rivals=self.rivals[first:last])


@dataclass(frozen=True, slots=True)
class Traces:
    """What gives the score of c pairs of a query and a row at any step, each (c,)."""

    query: Ints
    along: Floats
    """q·v"""
    across: Floats
    """q·u"""
    floor: Floats
    length: Floats
    """The row's own length."""
    order: Floats

    def select(self, chosen: slice | NDArray[Any]) -> Traces:
        """Return the pairs *chosen*."""
        return Traces(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def of(self, query: int) -> Traces:
        """Return the pairs of *query*, these being ordered by query."""
        return self.select(slice(*np.searchsorted(self.query, [query, query + 1])))


def traced(field: Field, exam: Exam, k: int, steps: Floats) -> Iterator[tuple[slice, Traces, Traces]]:
    """Yield runs of queries with the traces of their pairs, and of all others that can reach the first *k* places.

    Traces are ordered by query, which is counted from the first of the run. A run holds as many queries as the budget
    allows: all of them, unless very many pairs can reach the first places.
    """
    try:
        yield slice(0, len(exam.units)), *trace(field, exam, k, steps)
    except _Crowded:
        half = len(exam.units) // 2
        for first, last in ((0, half), (half, len(exam.units))):
            for some, answers, others in traced(field.part(first, last), exam.part(first, last), k, steps):
                yield slice(first + some.start, first + some.stop), answers, others


def trace(field: Field, exam: Exam, k: int, steps: Floats) -> tuple[Traces, Traces]:
    """Return the traces of all pairs of *exam*, and of every other pair that can reach the first *k* places."""
    pool = _Pool(field, exam, float(steps[-1]), _certain(field.rivals, k))
    answers = []
    by_row = np.argsort(exam.row, kind="stable")
    for part in _parts(field, len(exam.units)):
        pairs = by_row[slice(*np.searchsorted(exam.row[by_row], [part.start, part.stop]))]
        rows = _Rows.of(field, part)
        answers.append(_left_out(field, exam, pairs, rows))
        pool.admit(rows, (exam.query[pairs], exam.row[pairs] - part.start))
    return joined(answers).select(np.argsort(by_row, kind="stable")), pool.contenders()


@dataclass(frozen=True, slots=True)
class _Rows:
    """Some consecutive wanted rows, and where they may go."""

    start: int
    pulls: Floats
    rays: Rays
    lengths: Floats

    @classmethod
    def of(cls, field: Field, part: slice) -> _Rows:
        """Return the rows of *part*."""
        units, lengths = unit(field.base(part))
        pulls = field.pulls.of(part.start, part.stop)
        return cls(part.start, pulls, RAYS[field.method](units, pulls, None), lengths)


def _parts(field: Field, queries: int) -> Iterator[slice]:
    """Yield slices of the wanted rows, as large as the budget allows."""
    each = VECTORS * field.pulls.queries.shape[1] + MATRICES * queries
    size = field.budget.count(Share.RAYS, each, least=16)
    for first in range(0, field.pulls.rows, size):
        yield slice(first, min(first + size, field.pulls.rows))


def _left_out(field: Field, exam: Exam, pairs: Ints, some_rows: _Rows) -> Traces:
    """Trace *pairs* of *exam*, each row on the path it would take without the query of the pair.

    The pull without a query is exact: G − w·q.
    """
    found, rays = [], some_rows.rays
    at_once = field.budget.block(Share.PAIRS, VECTORS * exam.units.shape[1])
    for first in range(0, len(pairs), at_once):
        some = pairs[first : first + at_once]
        rows, queries = exam.row[some] - some_rows.start, exam.units[exam.query[some]].astype(np.float64)
        pulls = some_rows.pulls[rows]
        whole = np.linalg.norm(pulls, axis=1)
        without = RAYS[field.method](rays.units[rows], pulls - exam.left_out[some, None] * queries, whole)
        along = np.einsum("ij,ij->i", queries, without.units)
        across = np.einsum("ij,ij->i", queries, without.directions)
        order = field.order[exam.row[some]]
        found.append(Traces(exam.query[some], along, across, without.floor, some_rows.lengths[rows], order))
    return joined(found)


def joined(parts: list[Traces]) -> Traces:
    """Return *parts* one behind the other."""
    nothing = Traces(np.empty(0, np.int64), *(np.empty(0) for _ in range(5)))
    columns = ([getattr(part, field.name) for part in [nothing, *parts]] for field in fields(Traces))
    return Traces(*(np.concatenate(column) for column in columns))


def _certain(rivals: Floats, k: int) -> Vectors:
    """Return, for each query, the *k* best scores that no step can take away, as far as *rivals* tell: (nq, k)."""
    known = np.concatenate([np.full((len(rivals), k), -np.inf, np.float32), rivals.astype(np.float32)], axis=1)
    return _best(known, k)


def _best(scores: Vectors, k: int) -> Vectors:
    """Return the *k* largest of each row of *scores* (nq, ≥ k), the least of them first."""
    return np.asarray(np.partition(scores, scores.shape[1] - k, axis=1)[:, scores.shape[1] - k :])


class _Crowded(Exception):
    """More pairs can reach the first places than there is room for."""


@dataclass
class _Pool:
    """Pairs that may reach the first places at some step; their number shrinks as more becomes certain."""

    field: Field
    exam: Exam
    farthest: float
    certain: Vectors
    """(nq, k): scores that some row is certain to reach at every step, the least of them first."""
    found: list[tuple[Ints, Ints, Vectors]] = dataclass_field(default_factory=list)
    """Query, place among the wanted rows, and the most that the pair may score, of c pairs."""

    def admit(self, rows: _Rows, own: tuple[Ints, Ints]) -> None:
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

    def _bounds(self, rows: _Rows) -> tuple[Vectors, Vectors]:
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
            raise _Crowded

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
