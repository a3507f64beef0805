"""How every query would score at every step, without moving a row.

A row's similarity to a query is linear in two numbers that do not depend on the step, so two matrix products serve
all steps; and a row whose best similarity on its path stays below the K-th best that is certain need not be looked
at again. What is left is elementwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from dataclasses import field as dataclass_field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nudge_vdb.contract import Metric, Vectors
from nudge_vdb.nudge import RAYS, Floats, Ints, Method, Pulls, Rays, coefficients, unit
from nudge_vdb.rivals import Best, engine_score

SCRATCH_BYTES = 256 << 20
"""What the matrices of one chunk of rows may take together."""
MATRICES = 24
"""How many (queries, rows) matrices, counted in float32, one chunk needs at once."""
TIE = 2.0**-25
"""Less than half of the distance between neighbouring float32 numbers, relative to them."""
PAIRS_AT_ONCE = 4096
SLACK = 1e-5
"""How far a float32 score may be off, relative to its size; pruning leaves that much room."""


class Rule(Protocol):
    """A measure with a cutoff."""

    @property
    def k(self) -> int:
        """Only the first k places count."""

    def score(self, ranks: NDArray[np.int64], grades: Floats) -> Floats:
        """Return the score of each column of *ranks* (R, …)."""


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


@dataclass(frozen=True, slots=True)
class Table:
    """What each query scores at each step, both (steps, nq)."""

    warm: Floats
    """With the query's own pull left out of the rows that answer it, and all other rows where the step puts them."""
    cold: Floats
    """With the rows that answer the query at their base, as if nobody had judged them."""


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


def score_table(field: Field, exam: Exam, rule: Rule, steps: Floats) -> Table:
    """Return what every query of *exam* scores by *rule* at every one of *steps*, the first of which is 0."""
    answers, others = trace(field, exam, rule.k, steps)
    warm = np.empty((len(steps), len(exam.units)))
    cold = np.empty_like(warm)
    for query in range(len(exam.units)):
        grades = exam.grades[slice(*np.searchsorted(exam.query, [query, query + 1]))]
        own = scores_along(field, answers.of(query), steps, exam.lengths[query])
        moving = scores_along(field, others.of(query), steps, exam.lengths[query])
        crowd = best_of_all(moving, field.rivals[query], rule.k)
        warm[:, query] = rule.score(_ranks(own, crowd), grades)
        cold[:, query] = rule.score(_ranks(np.broadcast_to(own[:, :1], own.shape), crowd), grades)
    return Table(warm, cold)


def scores_along(field: Field, traces: Traces, steps: Floats, query_length: float) -> Floats:
    """Return the engine's scores of one query's pairs (c, steps)."""
    alpha, beta = coefficients(field.method, traces.floor, steps)
    cosines = alpha * traces.along[:, None] + beta * traces.across[:, None]
    scores = engine_score(field.metric, cosines, traces.length[:, None], np.array(query_length))
    return in_order(scores.astype(np.float32), traces.order[:, None])


def in_order(scores: Vectors, order: Floats) -> Floats:
    """Return *scores* with *order* in 0 … 1 where float32 ends, so that only equal ones are put in order by it."""
    wide = scores.astype(np.float64)
    return np.asarray(wide + np.where(np.isfinite(wide), np.abs(wide), 0.0) * order * TIE)


def best_of_all(moving: Floats, rivals: Floats, k: int) -> Floats:
    """Return the *k* best scores of the rows that do not answer the query, at every step: (≤ k, steps)."""
    still = np.broadcast_to(rivals[:, None], (len(rivals), moving.shape[1]))
    crowd = np.concatenate([moving, still])
    return crowd if len(crowd) <= k else np.partition(crowd, len(crowd) - k, axis=0)[-k:]


def _ranks(own: Floats, crowd: Floats) -> NDArray[np.int64]:
    """Return the ranks (R, steps) of the rows that answer; a tie with a row that does not counts against them."""
    above = (crowd[None] >= own[:, None]).sum(axis=1)
    order = np.argsort(-own, axis=0, kind="stable")
    return np.asarray(1 + above + np.argsort(order, axis=0))


def trace(field: Field, exam: Exam, k: int, steps: Floats) -> tuple[Traces, Traces]:
    """Return the traces of all pairs of *exam*, and of every other pair that can reach the first *k* places."""
    pool = _Pool(field, exam, steps, _certain(field.rivals, k))
    answers = []
    by_row = np.argsort(exam.row, kind="stable")
    for part in _parts(field.pulls.rows, len(exam.units)):
        pairs = by_row[slice(*np.searchsorted(exam.row[by_row], [part.start, part.stop]))]
        units, lengths = unit(field.base(part))
        pulls = field.pulls.of(part.start, part.stop)
        rays = RAYS[field.method](units, pulls, None)
        answers.append(_left_out(field, exam, pairs, part.start, rays, lengths, pulls))
        pool.admit(rays, lengths, field.order[part], (exam.query[pairs], exam.row[pairs] - part.start))
    order = np.argsort(by_row, kind="stable")
    return _joined(answers).select(order), pool.contenders()


def _parts(rows: int, queries: int) -> Iterator[slice]:
    """Yield slices of the wanted rows, as large as the scratch memory allows."""
    size = max(64, SCRATCH_BYTES // (4 * MATRICES * max(1, queries)))
    for first in range(0, rows, size):
        yield slice(first, min(first + size, rows))


def _left_out(field: Field, exam: Exam, pairs: Ints, start: int, rays: Rays, lengths: Floats, pulls: Floats) -> Traces:
    """Trace *pairs* of *exam*, each row on the path it would take without the query of the pair.

    The pull without a query is exact: G − w·q. *rays*, *lengths* and *pulls* are those of the rows from *start*.
    """
    found = []
    for first in range(0, len(pairs), PAIRS_AT_ONCE):
        some = pairs[first : first + PAIRS_AT_ONCE]
        rows, queries = exam.row[some] - start, exam.units[exam.query[some]].astype(np.float64)
        whole = np.linalg.norm(pulls[rows], axis=1)
        without = RAYS[field.method](rays.units[rows], pulls[rows] - exam.left_out[some, None] * queries, whole)
        along = np.einsum("ij,ij->i", queries, without.units)
        across = np.einsum("ij,ij->i", queries, without.directions)
        order = field.order[exam.row[some]]
        found.append(Traces(exam.query[some], along, across, without.floor, lengths[rows], order))
    return _joined(found)


def _joined(parts: list[Traces]) -> Traces:
    nothing = Traces(np.empty(0, np.int64), *(np.empty(0) for _ in range(5)))
    columns = ([getattr(part, field.name) for part in [nothing, *parts]] for field in fields(Traces))
    return Traces(*(np.concatenate(column) for column in columns))


def _certain(rivals: Floats, k: int) -> Best:
    """Return, for each query, the *k* best scores that no step can take away, as far as *rivals* tell."""
    certain = Best.none(len(rivals), k)
    if rivals.shape[1]:
        certain.admit(rivals.astype(np.float32), np.zeros(rivals.shape[1], np.int64))
    return certain


@dataclass
class _Pool:
    """Pairs that may reach the first places at some step; their number shrinks as more becomes certain."""

    field: Field
    exam: Exam
    steps: Floats
    certain: Best
    found: list[tuple[Traces, Vectors]] = dataclass_field(default_factory=list)
    room: int = 1 << 21
    """How many pairs may be held before they are looked through again."""

    def admit(self, rays: Rays, lengths: Floats, order: Floats, own: tuple[Ints, Ints]) -> None:
        """Take in the rows of *rays*, except the pairs *own* of a query and a row, which are traced by themselves."""
        # In float64, rounded at the end: a float32 product gives equal rows unequal scores.
        queries = self.exam.units.astype(np.float64)
        along, across = queries @ rays.units.T, queries @ rays.directions.T
        bounds = _bounds(rays, along, across, self.steps[-1])
        scale = (lengths, self.exam.lengths[:, None])
        low, high = (engine_score(self.field.metric, bound, *scale).astype(np.float32) for bound in bounds)
        low[own] = high[own] = -np.inf
        self.certain.admit(low, np.zeros(low.shape[1], np.int64))
        query, row = np.nonzero(self._reaches(high, np.arange(len(high))[:, None]))
        traces = Traces(query, along[query, row], across[query, row], rays.floor[row], lengths[row], order[row])
        self.found.append((traces, high[query, row]))
        self._thin_out()

    def _thin_out(self) -> None:
        """Drop what can no longer reach the first places, when there is much of it."""
        if sum(len(high) for _, high in self.found) <= self.room:
            return
        kept = [(traces, high, self._reaches(high, traces.query)) for traces, high in self.found]
        self.found = [(traces.select(reaches), high[reaches]) for traces, high, reaches in kept]
        self.room = max(self.room, 2 * sum(len(high) for _, high in self.found))

    def contenders(self) -> Traces:
        """Return the pairs that may still reach the first places, ordered by query."""
        kept = [traces.select(self._reaches(high, traces.query)) for traces, high in self.found]
        everyone = _joined(kept)
        return everyone.select(np.argsort(everyone.query, kind="stable"))

    def _reaches(self, high: NDArray[np.floating], query: Ints) -> NDArray[np.bool_]:
        """Tell which best scores *high* are not below what is certain for *query*."""
        worst = self.certain.scores.min(axis=1)[query]
        return np.asarray((high > -np.inf) & (high >= worst - SLACK * (1 + np.abs(worst))))


def _bounds(rays: Rays, along: Floats, across: Floats, farthest: float) -> tuple[Floats, Floats]:
    """Return the least and the greatest similarity (nq, m) on the paths from step 0 to *farthest*."""
    alpha, beta = (part[:, 0] for part in coefficients(rays.method, rays.floor, np.array([farthest])))
    end = alpha * along + beta * across
    low, high = np.minimum(along, end), np.maximum(along, end)
    if rays.method is Method.NUDGE_M:
        return low, high
    peak, size = np.arctan2(across, along), np.hypot(along, across)
    passed = (peak >= 0) & (peak <= np.arccos(np.clip(alpha, -1, 1)))
    return np.where((along < 0) & (across < 0), -size, low), np.where(passed, size, high)
