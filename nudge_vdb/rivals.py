"""The best rows of each query, found by streaming all of them past."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nudge_vdb.contract import Metric, Vectors
from nudge_vdb.nudge import Floats, Ints, unit

SCORES_AT_ONCE = 1 << 23
"""How many scores, of queries and rows, are held at once."""
EXACT_BYTES = 32 << 20
"""What the vectors of the pairs that are scored exactly may take at once."""
CROWDED = 16
"""Where more than one pair in so many may be among the best, as where most rows are equal, all are scored exactly."""
ROUNDING = 2.0**-24
"""Half the distance between 1 and the next float32 number."""

Part = tuple[Ints, Vectors]
"""Places (c,) and raw vectors (c, d) of some rows."""


def engine_score(
    metric: Metric, cosines: NDArray[np.floating], lengths: NDArray[np.floating], query_lengths: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Return scores that order rows as the engine does, more is nearer.

    *cosines* are those of query and row, *lengths* the rows' and *query_lengths* the queries' own lengths, all of
    shapes that broadcast. Euclidean distance is compared as 2·‖q‖·r·cos − r², which differs from the negative
    squared distance by a constant of the query.
    """
    if metric is Metric.COSINE:
        return cosines
    if metric is Metric.DOT:
        return np.asarray(cosines * lengths)
    return np.asarray(2 * query_lengths * lengths * cosines - lengths**2)


@dataclass
class Best:
    """The best rows so far of each of nq queries, in no order."""

    scores: Vectors
    """(nq, k), −inf where there are fewer than k rows."""
    places: Ints
    """(nq, k), −1 there."""

    @classmethod
    def none(cls, queries: int, k: int) -> Best:
        """Return room for the best *k* rows of each query."""
        return cls(np.full((queries, k), -np.inf, np.float32), np.full((queries, k), -1, np.int64))

    def admit(self, scores: Vectors, places: Ints) -> None:
        """Let the rows at *places* (c,) in where their *scores* (nq, c) are better than the worst so far."""
        k = self.scores.shape[1]
        first = _top(scores, min(k, scores.shape[1]))
        joined = np.concatenate([self.scores, np.take_along_axis(scores, first, 1)], axis=1)
        named = np.concatenate([self.places, places[first]], axis=1)
        kept = _top(joined, k)
        self.scores = np.take_along_axis(joined, kept, 1)
        self.places = np.take_along_axis(named, kept, 1)

    def admit_pairs(self, queries: Ints, scores: Vectors, places: Ints) -> None:
        """Let single rows in: to each of *queries* (c,) the row at one of *places* (c,) with one of *scores* (c,)."""
        asked, k = np.unique(queries), self.scores.shape[1]
        query = np.concatenate([np.repeat(asked, k), queries])
        score = np.concatenate([self.scores[asked].reshape(-1), scores])
        place = np.concatenate([self.places[asked].reshape(-1), places])
        order = np.lexsort((-score, query))
        starts = np.searchsorted(query[order], asked)
        kept = order[starts[:, None] + np.arange(k)]
        self.scores[asked], self.places[asked] = score[kept], place[kept]


def best_rows(parts: Iterable[Part], units: Vectors, query_lengths: Floats, k: int, metric: Metric) -> Best:
    """Return the *k* best rows of each query by streaming *parts* past.

    *units* (nq, d) are the queries scaled to length 1, *query_lengths* (nq,) their own lengths. Rows that are not
    finite take no part. Scores are computed in float64 and rounded to float32, so that equal rows score equally; a
    product in float32, at half the price, finds those for which that is worth while.
    """
    best = Best.none(len(units), k)
    rows = max(64, SCORES_AT_ONCE // max(1, len(units)))
    for places, vectors in parts:
        for first in range(0, len(places), rows):
            some = slice(first, first + rows)
            _look_at(best, _Block(vectors[some], units, query_lengths, metric), places[some])
    return best


class _Block:
    """Some rows, and the queries that they are compared with."""

    def __init__(self, vectors: Vectors, units: Vectors, query_lengths: Floats, metric: Metric) -> None:
        self.units, self.query_lengths, self.metric = units, query_lengths, metric
        with np.errstate(all="ignore"):
            self.rows, self.lengths = unit(vectors)
        self.unfit = ~np.isfinite(self.lengths)
        self.rows[self.unfit], self.lengths[self.unfit] = 0.0, 0.0

    def rough(self) -> Vectors:
        """Return the scores (nq, c) of all rows in float32, −inf where a row cannot be scored."""
        scores = self._engine(self.units @ self.rows.T, self.lengths, self.query_lengths[:, None])
        scores[:, self.unfit] = -np.inf
        return scores

    def error(self) -> Vectors:
        """Return how far each query's rough scores may be off, (nq,)."""
        longest = self.lengths.max(initial=0.0)
        size = {
            Metric.COSINE: np.ones_like(self.query_lengths),
            Metric.DOT: np.full_like(self.query_lengths, longest),
            Metric.EUCLID: 2 * self.query_lengths * longest + longest**2,
        }[self.metric]
        return np.asarray((self.rows.shape[1] + 8) * ROUNDING * size, np.float32)

    def exact(self, queries: Ints, columns: Ints) -> Vectors:
        """Return the scores (c,) of pairs of a query and a row that can be scored, rounded from float64."""
        scores = np.empty(len(queries), np.float32)
        at_once = max(1, EXACT_BYTES // (16 * self.rows.shape[1]))
        for first in range(0, len(queries), at_once):
            asked, chosen = queries[first : first + at_once], columns[first : first + at_once]
            cosines = np.einsum("pd,pd->p", self.units[asked], self.rows[chosen], dtype=np.float64)
            scores[first : first + at_once] = self._engine(cosines, self.lengths[chosen], self.query_lengths[asked])
        return scores

    def all_exact(self) -> Vectors:
        """Return the scores (nq, c) of all rows, rounded from float64, −inf where a row cannot be scored."""
        cosines = self.units.astype(np.float64) @ self.rows.T
        scores = self._engine(cosines, self.lengths, self.query_lengths[:, None]).astype(np.float32)
        scores[:, self.unfit] = -np.inf
        return scores

    def _engine(self, cosines: NDArray[Any], lengths: Floats, query_lengths: Floats) -> NDArray[Any]:
        kind = cosines.dtype
        return engine_score(self.metric, cosines, lengths.astype(kind), query_lengths.astype(kind))


def _look_at(best: Best, block: _Block, places: Ints) -> None:
    """Let in the rows of *block*, at *places*, that are not certain to be worse than all those in *best*."""
    rough, error = block.rough(), block.error()
    floor = np.maximum(best.scores.min(axis=1), _reached(rough, best) - error)
    queries, columns = np.nonzero((rough >= (floor - error)[:, None]) & (rough > -np.inf))
    if len(queries) > rough.size // CROWDED:
        best.admit(block.all_exact(), places)
    elif len(queries):
        best.admit_pairs(queries, block.exact(queries, columns), places[columns])


def _reached(rough: Vectors, best: Best) -> Vectors:
    """Return the k-th best of the *rough* scores (nq, c) of each query, if there are none to compare with yet."""
    k = best.scores.shape[1]
    if rough.shape[1] < k or np.isfinite(best.scores).all():
        return np.full(len(rough), -np.inf, np.float32)
    return np.partition(rough, rough.shape[1] - k, axis=1)[:, rough.shape[1] - k]


def _top(scores: Vectors, k: int) -> Ints:
    """Return the columns (nq, k) of the *k* largest of each row, in no order."""
    if k == scores.shape[1]:
        return np.broadcast_to(np.arange(k), scores.shape)
    return np.asarray(np.argpartition(scores, scores.shape[1] - k, axis=1)[:, scores.shape[1] - k :])
