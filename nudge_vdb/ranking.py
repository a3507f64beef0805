"""Scoring rows where they are: what a user's own search would score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from nudge_vdb.budget import USUAL_BUDGET, Budget
from nudge_vdb.contract import Metric, Vectors
from nudge_vdb.judgements import Judgements
from nudge_vdb.metrics import Measure
from nudge_vdb.nudge import Floats, Ints, unit
from nudge_vdb.rivals import TIES, Best, Part, best_rows

QUERIES_AT_ONCE = 2000

Texts = Callable[[Ints], Sequence[str]]
"""The row ids at some places."""


def scores(
    judgements: Judgements,
    parts: Callable[[], Iterable[Part]],
    texts: Texts,
    metric: Metric,
    measures: Sequence[Measure],
    budget: Budget = USUAL_BUDGET,
) -> Floats:
    """Return what every query of *judgements* scores by each of *measures*, (measures, nq).

    *parts* streams the rows, as often as it is called. Rows of equal score are ordered by id,
    descending, as trec_eval does it; rows that are the same vector have equal scores. Of more than 32 equal rows at
    the cutoff, any may be left out.
    """
    columns = []
    for first in range(0, len(judgements), QUERIES_AT_ONCE):
        queries = range(first, min(first + QUERIES_AT_ONCE, len(judgements)))
        best = _best(judgements.vectors[queries.start : queries.stop], parts, metric, measures, budget)
        columns += [
            score_ranking(ranked(best, place, texts), dict(judgements.relevant(query)), measures)
            for place, query in enumerate(queries)
        ]
    return np.array(columns).T


def _best(
    queries: Vectors,
    parts: Callable[[], Iterable[Part]],
    metric: Metric,
    measures: Sequence[Measure],
    budget: Budget,
) -> Best:
    units, lengths = unit(queries)
    depth = max(measure.k for measure in measures) + TIES
    return best_rows(parts(), units, lengths, depth, metric, budget)


def ranked(best: Best, query: int, texts: Texts) -> list[str]:
    """Return the ids of the best rows of *query*, best first, equal scores by id descending."""
    real = best.scores[query] > -np.inf
    names = texts(best.places[query][real])
    pairs = sorted(zip(best.scores[query][real].tolist(), names, strict=True), reverse=True)
    return [name for _, name in pairs]


def score_ranking(ranking: Sequence[str], relevant: dict[str, float], measures: Sequence[Measure]) -> list[float]:
    """Return the score by each of *measures* of row ids in *ranking*, best first, given *relevant* ids with grades."""
    rank_of = {name: rank for rank, name in enumerate(ranking, start=1)}
    ranks = np.array([rank_of.get(name, len(ranking) + 10_000) for name in relevant], np.int64)
    grades = np.array(list(relevant.values()))
    return [float(measure.score(ranks, grades)) for measure in measures]
