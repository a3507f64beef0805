"""How every query would score at every step, without moving a row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nudge_vdb.budget import Share
from nudge_vdb.contract import Vectors
from nudge_vdb.exam import Exam, Field, Traces
from nudge_vdb.nudge import Floats, Ints, coefficients
from nudge_vdb.phases import counted
from nudge_vdb.rivals import engine_score
from nudge_vdb.tracing import traced

TIE = 2.0**-25
"""Less than half of the distance between neighbouring float32 numbers, relative to them."""
MATRICES = 40
"""Bytes that a pair takes at each step until the best of its query are known."""

RANKED = 128
"""Bytes that an answer takes at each step while it is ranked."""


class Rule(Protocol):
    """A measure with a cutoff."""

    @property
    def k(self) -> int:
        """Only the first k places count."""

    def score(self, ranks: NDArray[np.int64], grades: Floats) -> Floats:
        """Return the score of each column of *ranks* (R, …)."""


@dataclass(frozen=True, slots=True)
class Table:
    """What each query scores at each step, both (steps, nq)."""

    warm: Floats
    """With the query's own pull left out of the rows that answer it, and all other rows where the step puts them."""
    cold: Floats
    """With the rows that answer the query at their base, as if nobody had judged them."""


def score_table(field: Field, exam: Exam, rule: Rule, steps: Floats) -> Table:
    """Return what every query of *exam* scores by *rule* at every one of *steps*, the first of which is 0."""
    warm = np.empty((len(steps), len(exam.units)))
    cold = np.empty_like(warm)
    queries = len(exam.units)
    for query, (own, crowd) in enumerate(counted(standings(field, exam, rule.k, steps), queries, "queries")):
        grades = exam.grades[slice(*np.searchsorted(exam.query, [query, query + 1]))]
        at_once = field.budget.block(Share.STEPS, RANKED * len(own))
        for first in range(0, len(steps), at_once):
            some = slice(first, first + at_once)
            here, others = own[:, some], crowd[:, some]
            warm[some, query] = rule.score(_ranks(here, others), grades)
            cold[some, query] = rule.score(_ranks(np.broadcast_to(own[:, :1], here.shape), others), grades)
    return Table(warm, cold)


def standings(field: Field, exam: Exam, k: int, steps: Floats) -> Iterator[tuple[Floats, Floats]]:
    """Yield for each query, at every step, the scores of its answers (R, steps) and the *k* best others' (≤ k, steps).

    The others are the moving rows that do not answer it, and its rivals.
    """
    for some, answers, others in traced(field, exam, k, steps):
        lengths, rivals = exam.lengths[some], field.rivals[some]
        own = _scores_by_query(field, answers, steps, lengths)
        crowds = _crowds(field, others, steps, lengths, rivals, k)
        yield from zip(own, crowds, strict=True)


def _scores_by_query(field: Field, traces: Traces, steps: Floats, lengths: Floats) -> Iterator[Floats]:
    """Yield the scores of each query's pairs, (c, steps), in the order of the queries."""
    starts = np.searchsorted(traces.query, np.arange(len(lengths) + 1))
    room = field.budget.block(Share.STEPS, MATRICES * len(steps))
    for first, last in _runs(starts, room):
        begin = starts[first]
        if starts[last] - begin > room:  # one query with so many answers
            yield _in_parts(field, traces, (begin, starts[last]), steps, lengths, room)
            continue
        scores = scores_along(field, traces.select(slice(begin, starts[last])), steps, lengths)
        yield from (scores[starts[query] - begin : starts[query + 1] - begin] for query in range(first, last))


def _in_parts(
    field: Field, traces: Traces, pairs: tuple[int, int], steps: Floats, lengths: Floats, room: int
) -> Floats:
    """Return the scores (c, steps) of the *pairs* from one to before the other, of no more than *room* at once."""
    begin, end = pairs
    scores = np.empty((end - begin, len(steps)))
    for first in range(begin, end, room):
        some = slice(first, min(first + room, end))
        scores[some.start - begin : some.stop - begin] = scores_along(field, traces.select(some), steps, lengths)
    return scores


def _runs(starts: Ints, room: int) -> Iterator[tuple[int, int]]:
    """Yield runs of queries that have no more pairs than there is *room* for, or one query that has more."""
    first, queries = 0, len(starts) - 1
    while first < queries:
        last = int(np.searchsorted(starts, starts[first] + room, side="right")) - 1
        last = min(max(last, first + 1), queries)
        yield first, last
        first = last


def _crowds(field: Field, others: Traces, steps: Floats, lengths: Floats, rivals: Floats, k: int) -> Iterator[Floats]:
    """Yield for each query the *k* best scores of *others* and *rivals*, at every step: (≤ k, steps)."""
    starts = np.searchsorted(others.query, np.arange(len(lengths) + 1))
    room = field.budget.block(Share.STEPS, MATRICES * len(steps))
    for first, last in _runs(starts, room):
        crowds = [np.broadcast_to(known[:, None], (rivals.shape[1], len(steps))) for known in rivals[first:last]]
        for begin in range(starts[first], starts[last], room):
            end = min(begin + room, starts[last])
            scores = scores_along(field, others.select(slice(begin, end)), steps, lengths)
            for query in range(first, last):
                own = slice(max(starts[query], begin) - begin, max(min(starts[query + 1], end) - begin, 0))
                crowds[query - first] = best_of_all(scores[own], crowds[query - first], k)
        yield from crowds


def scores_along(field: Field, traces: Traces, steps: Floats, query_lengths: Floats) -> Floats:
    """Return the engine's scores (c, steps) of pairs; *query_lengths* (nq,) are their queries' own lengths."""
    alpha, beta = coefficients(field.method, traces.floor, steps)
    cosines = alpha * traces.along[:, None] + beta * traces.across[:, None]
    scores = engine_score(field.metric, cosines, traces.length[:, None], query_lengths[traces.query, None])
    return in_order(scores.astype(np.float32), traces.order[:, None])


def in_order(scores: Vectors, order: Floats) -> Floats:
    """Return *scores* with *order* in 0 … 1 where float32 ends, so that only equal ones are put in order by it."""
    wide = scores.astype(np.float64)
    return np.asarray(wide + np.where(np.isfinite(wide), np.abs(wide), 0.0) * order * TIE)


def best_of_all(moving: Floats, known: Floats, k: int) -> Floats:
    """Return the *k* best of *moving* (c, steps) and of those *known* already (r, steps): (≤ k, steps)."""
    if not len(moving) and len(known) <= k:
        return known
    crowd = np.concatenate([moving, known])
    return crowd if len(crowd) <= k else np.partition(crowd, len(crowd) - k, axis=0)[-k:]


def _ranks(own: Floats, crowd: Floats) -> NDArray[np.int64]:
    """Return the ranks (R, steps) of the rows that answer; a tie with a row that does not counts against them."""
    above = (crowd[None] >= own[:, None]).sum(axis=1)
    if len(own) == 1:
        return np.asarray(1 + above)
    order = np.argsort(-own, axis=0, kind="stable")
    return np.asarray(1 + above + np.argsort(order, axis=0))
