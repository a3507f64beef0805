"""The best rows of each query, found by streaming all of them past."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nudge_vdb.contract import Metric, Vectors
from nudge_vdb.nudge import Floats, Ints, unit

SCORES_AT_ONCE = 1 << 23
"""How many scores, of queries and rows, are held at once."""

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


def best_rows(parts: Iterable[Part], units: Vectors | Floats, query_lengths: Floats, k: int, metric: Metric) -> Best:
    """Return the *k* best rows of each query by streaming *parts* past.

    *units* (nq, d) are the queries scaled to length 1, *query_lengths* (nq,) their own lengths. Rows that are not
    finite take no part. Scores are computed in the precision of *units* and rounded to float32.
    """
    best = Best.none(len(units), k)
    rows = max(64, SCORES_AT_ONCE // max(1, len(units)))
    for places, vectors in parts:
        for first in range(0, len(places), rows):
            some = slice(first, first + rows)
            best.admit(score_part(vectors[some], units, query_lengths, metric), places[some])
    return best


def score_part(vectors: Vectors, units: Vectors | Floats, query_lengths: Floats, metric: Metric) -> Vectors:
    """Return the engine's scores (nq, c) of raw *vectors* (c, d), −inf where a row cannot be scored."""
    with np.errstate(all="ignore"):
        rows, lengths = unit(vectors)
        scores = engine_score(metric, units @ rows.T, lengths.astype(units.dtype), query_lengths[:, None])
    return np.where(np.isfinite(lengths), scores, -np.inf).astype(np.float32)


def _top(scores: Vectors, k: int) -> Ints:
    """Return the columns (nq, k) of the *k* largest of each row, in no order."""
    if k == scores.shape[1]:
        return np.broadcast_to(np.arange(k), scores.shape)
    return np.asarray(np.argpartition(scores, scores.shape[1] - k, axis=1)[:, scores.shape[1] - k :])
