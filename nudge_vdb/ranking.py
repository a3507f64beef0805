"""Scoring rows where they are: what a user's own search would score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nudge_vdb.budget import USUAL_BUDGET, Budget
from nudge_vdb.contract import Metric, Vectors
from nudge_vdb.judgements import Judgements
from nudge_vdb.metrics import Measure
from nudge_vdb.nudge import Floats, unit
from nudge_vdb.rivals import Best
from nudge_vdb.ties import Parts, Texts, first_rows

QUERIES_AT_ONCE = 2000


def scores(
    judgements: Judgements,
    parts: Parts,
    texts: Texts,
    metric: Metric,
    measures: Sequence[Measure],
    budget: Budget = USUAL_BUDGET,
) -> Floats:
    """Return what every query of *judgements* scores by each of *measures*, (measures, nq).

    *parts* streams the rows, as often as it is called. Rows of equal score are ordered by id,
    descending, as trec_eval does it; rows that are the same vector have equal scores, however many there are.
    """
    columns = []
    for first in range(0, len(judgements), QUERIES_AT_ONCE):
        queries = range(first, min(first + QUERIES_AT_ONCE, len(judgements)))
        best = _best(judgements.vectors[queries.start : queries.stop], parts, texts, metric, measures, budget)
        columns += [
            score_ranking(ranked(best, place, texts), dict(judgements.relevant(query)), measures)
            for place, query in enumerate(queries)
        ]
    return np.array(columns).T


def _best(
    queries: Vectors,
    parts: Parts,
    texts: Texts,
    metric: Metric,
    measures: Sequence[Measure],
    budget: Budget,
) -> Best:
    units, lengths = unit(queries)
    return first_rows(parts, units, lengths, max(measure.k for measure in measures), metric, texts, budget)


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
