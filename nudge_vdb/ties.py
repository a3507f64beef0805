"""The best rows of each query where more rows are equal than are had beyond those that count.

Boilerplate pages and empty texts are often one vector thousands of times. Of rows that score alike, those with the
larger id stand first, as trec_eval has it, so which of them are among the best depends on all of their ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from nudge_vdb.budget import Budget, Share
from nudge_vdb.contract import Mask, Metric, Vectors
from nudge_vdb.nudge import Floats, Ints
from nudge_vdb.rivals import TIES, Asked, Best, Part, Scored, best_rows

Parts = Callable[[], Iterable[Part]]
"""Streams the rows, as often as it is called."""
Texts = Callable[[Ints], Sequence[str]]
"""The row ids at some places."""
Named = set[tuple[str, int]]
"""Ids and places of rows."""

TIED_AT_ONCE = 1024
NAMED_AT_ONCE = 1 << 16


def first_rows(
    parts: Parts, units: Vectors, lengths: Floats, k: int, metric: Metric, texts: Texts, budget: Budget
) -> Best:
    """Return k + 32 rows of each query, among which are the first *k* by score, equal ones by id descending.

    *units* (nq, d) are the queries scaled to length 1, *lengths* (nq,) their own. The rows are streamed a second time
    if a query has so many equal rows at its *k*-th place that some may have been left out.
    """
    best = best_rows(parts(), units, lengths, k + TIES, metric, budget)
    tied = tied_queries(best, k + TIES)
    for first in range(0, len(tied), TIED_AT_ONCE):
        some = tied[first : first + TIED_AT_ONCE]
        _settle(best, some, parts(), Asked(units[some], lengths[some], metric, budget), texts)
    return best


def tied_queries(best: Best, depth: int) -> Ints:
    """Return the queries of which equals of the last row that counts may have been left out.

    The best *depth* rows of each query are known to be there: k + 32 of *best*, or fewer where they were searched for.
    """
    last = _last_that_counts(best)
    level_or_above = (best.scores >= last[:, None]).sum(axis=1)
    return np.flatnonzero((level_or_above >= depth) & (last > -np.inf))


def _last_that_counts(best: Best) -> Vectors:
    return np.asarray(np.partition(best.scores, TIES, axis=1)[:, TIES])


def _settle(best: Best, tied: Ints, parts: Iterable[Part], asked: Asked, texts: Texts) -> None:
    """Replace the rows of each of the *tied* queries that score as its last does by those with the largest ids."""
    level = best.scores[tied].min(axis=1)
    equals = [
        _named(best.places[query, best.scores[query] == last], texts) for query, last in zip(tied, level, strict=True)
    ]
    rows = min(NAMED_AT_ONCE, asked.budget.block(Share.SCORES, 8 * len(tied), least=64))
    for places, vectors in parts:
        for first in range(0, len(places), rows):
            some = slice(first, first + rows)
            level_with = Scored(places[some], vectors[some], asked).all_exact() == level[:, None]
            _admit(equals, level_with, places[some], texts, best.scores.shape[1])
    for query, last, named in zip(tied, level, equals, strict=True):
        free = np.flatnonzero(best.scores[query] == last)
        best.places[query, free] = [place for _, place in sorted(named, reverse=True)[: len(free)]]


def _named(places: Ints, texts: Texts) -> Named:
    return set(zip(texts(places), places.tolist(), strict=True))


def _admit(equals: list[Named], level_with: Mask, places: Ints, texts: Texts, most: int) -> None:
    """Let the rows at *places* (c,) in that are *level_with* (nq, c) a query's last one; keep the *most* by id."""
    columns = np.flatnonzero(level_with.any(axis=0))
    names = texts(places[columns])
    descending = sorted(range(len(columns)), key=names.__getitem__, reverse=True)
    columns, names = columns[descending], [names[place] for place in descending]
    for query in np.flatnonzero(level_with.any(axis=1)):
        mine = np.flatnonzero(level_with[query, columns])[:most]
        found = equals[query] | {(names[place], int(places[columns[place]])) for place in mine}
        equals[query] = set(sorted(found, reverse=True)[:most])
