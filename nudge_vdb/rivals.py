"""The best rows of each query, found by streaming all of them past."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nudge_vdb.budget import USUAL_BUDGET, Budget, Share
from nudge_vdb.contract import Mask, Metric, Vectors
from nudge_vdb.nudge import Floats, Ints, unit

TIES = 32
"""How many rows beyond those that count are had of each query, so that rows of equal score can be put in order."""
CROWDED = 16
"""Where more than one pair in so many may be among the best, as where most rows are equal, all are scored exactly."""
ROUNDING = 2.0**-24
"""Half the distance between 1 and the next float32 number."""
LOWEST = np.finfo(np.float32).min
PLAIN_SQUARES = (1e-30, 1e30)
"""A squared length between these is as good in float32 as in float64."""

Part = tuple[Ints, Vectors]
"""Places (c,) and raw vectors (c, d) of some rows; one whose place is −1 takes no part."""


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


def best_rows(
    parts: Iterable[Part],
    units: Vectors,
    query_lengths: Floats,
    k: int,
    metric: Metric,
    budget: Budget = USUAL_BUDGET,
) -> Best:
    """Return the *k* best rows of each query by streaming *parts* past.

    *units* (nq, d) are the queries scaled to length 1, *query_lengths* (nq,) their own lengths. Rows that are not
    finite take no part. Scores are computed in float64 and rounded to float32, so that equal rows score equally; a
    product in float32, at half the price, finds those for which that is worth while.
    """
    best, asked = Best.none(len(units), k), Asked(units, query_lengths, metric, budget)
    rows = budget.block(Share.SCORES, 4 * max(1, len(units)), least=64)
    for places, vectors in parts:
        for first in range(0, len(places), rows):
            some = slice(first, first + rows)
            _look_at(best, Scored(places[some], vectors[some], asked))
    return best


@dataclass(frozen=True, slots=True)
class Asked:
    """What rows are compared with, and how."""

    units: Vectors
    """(nq, d): the queries, length 1."""
    lengths: Floats
    """(nq,): their own lengths."""
    metric: Metric
    budget: Budget

    def error(self, longest: float) -> Vectors:
        """Return how far each query's float32 scores of rows no longer than *longest* may be off, (nq,)."""
        size = {
            Metric.COSINE: np.ones_like(self.lengths),
            Metric.DOT: np.full_like(self.lengths, longest),
            Metric.EUCLID: 2 * self.lengths * longest + longest**2,
        }[self.metric]
        return np.asarray(2 * (self.units.shape[1] + 8) * ROUNDING * size, np.float32)

    def score(self, cosines: NDArray[Any], lengths: Floats, query_lengths: Floats) -> NDArray[Any]:
        """Return the engine's scores in the precision of *cosines*."""
        kind = cosines.dtype
        return engine_score(self.metric, cosines, lengths.astype(kind), query_lengths.astype(kind))


class Scored:
    """Some rows, to be scored by the queries that they are compared with."""

    def __init__(self, places: Ints, vectors: Vectors, asked: Asked) -> None:
        self.asked, self.places, self.vectors = asked, places, vectors
        self.rows, self.lengths = _roughly_unit(vectors)
        self.unfit: Mask = ~np.isfinite(self.lengths) | (places < 0)
        self.rows[self.unfit], self.lengths[self.unfit] = 0.0, 0.0

    def rough(self) -> Vectors:
        """Return the scores (nq, c) of all rows in float32, −inf where a row cannot be scored."""
        scores = self.asked.score(self.asked.units @ self.rows.T, self.lengths, self.asked.lengths[:, None])
        if self.unfit.any():
            scores[:, self.unfit] = -np.inf
        return scores

    def error(self) -> Vectors:
        """Return how far each query's rough scores may be off, (nq,)."""
        return self.asked.error(float(self.lengths.max(initial=0.0)))

    def exact(self, queries: Ints, columns: Ints) -> Vectors:
        """Return the scores (c,) of pairs of a query and a row that can be scored, rounded from float64."""
        chosen, which = np.unique(columns, return_inverse=True)
        rows, lengths = unit(self.vectors[chosen])
        cosines = dots(self.asked.units, rows, queries, which, self.asked.budget)
        return np.asarray(self.asked.score(cosines, lengths[which], self.asked.lengths[queries]), np.float32)

    def all_exact(self) -> Vectors:
        """Return the scores (nq, c) of all rows, rounded from float64, −inf where a row cannot be scored."""
        rows, lengths = unit(np.where(self.unfit[:, None], np.float32(0.0), self.vectors))
        cosines = self.asked.units.astype(np.float64) @ rows.T.astype(np.float64)
        scores = self.asked.score(cosines, lengths, self.asked.lengths[:, None]).astype(np.float32)
        scores[:, self.unfit] = -np.inf
        return scores


def _roughly_unit(vectors: Vectors) -> tuple[Vectors, Floats]:
    """Return *vectors* (n, d) scaled to length 1 and their lengths (n,), in float32 wherever that is good enough."""
    with np.errstate(all="ignore"):
        squares = np.einsum("ij,ij->i", vectors, vectors)
        lengths = np.sqrt(squares)
        rows: Vectors = np.asarray(vectors / np.where(lengths > 0, lengths, np.float32(1.0))[:, None], np.float32)
        odd = np.flatnonzero(~((squares > PLAIN_SQUARES[0]) & (squares < PLAIN_SQUARES[1])))
        wide = lengths.astype(np.float64)
        rows[odd], wide[odd] = unit(vectors[odd])
    return rows, wide


def dots(left: Vectors, right: Vectors, at: Ints, by: Ints, budget: Budget) -> Floats:
    """Return the products (p,) of the rows *at* of *left* with the rows *by* of *right*, summed in float64."""
    found = np.empty(len(at))
    at_once = budget.block(Share.PAIRS, 32 * left.shape[1])
    for first in range(0, len(at), at_once):
        some = slice(first, first + at_once)
        found[some] = np.einsum("pd,pd->p", left[at[some]], right[by[some]], dtype=np.float64)
    return found


def _look_at(best: Best, block: Scored) -> None:
    """Let in the rows of *block* that are not certain to be worse than all those in *best*."""
    rough, error = block.rough(), block.error()
    floor = np.maximum(best.scores.min(axis=1), _reached(rough, best) - error) - error
    floor = np.maximum(floor, LOWEST)
    asked = np.flatnonzero(rough.max(axis=1, initial=-np.inf) >= floor)
    which, columns = np.nonzero(rough[asked] >= floor[asked, None])
    if len(which) > rough.size // CROWDED:
        best.admit(block.all_exact(), block.places)
    elif len(which):
        best.admit_pairs(asked[which], block.exact(asked[which], columns), block.places[columns])


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
