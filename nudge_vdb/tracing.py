"""What the score of every pair that matters follows from, whatever the step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nudge_vdb.budget import Share
from nudge_vdb.contenders import Crowded, MovingRows, Pool, certain_scores
from nudge_vdb.exam import Exam, Field, Traces, joined
from nudge_vdb.nudge import RAYS, Floats, Ints

MATRICES = 40
"""Bytes that a pair of a query and a row of one part takes in all matrices together."""
VECTORS = 48
"""Bytes that a component of a row takes in its unit vector, pull, direction and what they are made of."""


def traced(field: Field, exam: Exam, k: int, steps: Floats) -> Iterator[tuple[slice, Traces, Traces]]:
    """Yield runs of queries with the traces of their pairs, and of all others that can reach the first *k* places.

    Traces are ordered by query, which is counted from the first of the run. A run holds as many queries as the budget
    allows: all of them, unless very many pairs can reach the first places.
    """
    try:
        yield slice(0, len(exam.units)), *trace(field, exam, k, steps)
    except Crowded:
        half = len(exam.units) // 2
        for first, last in ((0, half), (half, len(exam.units))):
            for some, answers, others in traced(field.part(first, last), exam.part(first, last), k, steps):
                yield slice(first + some.start, first + some.stop), answers, others


def trace(field: Field, exam: Exam, k: int, steps: Floats) -> tuple[Traces, Traces]:
    """Return the traces of all pairs of *exam*, and of every other pair that can reach the first *k* places."""
    pool = Pool(field, exam, float(steps[-1]), certain_scores(field.rivals, k))
    answers = []
    by_row = np.argsort(exam.row, kind="stable")
    for part in _parts(field, len(exam.units)):
        pairs = by_row[slice(*np.searchsorted(exam.row[by_row], [part.start, part.stop]))]
        rows = MovingRows.of(field, part)
        answers.append(_left_out(field, exam, pairs, rows))
        pool.admit(rows, (exam.query[pairs], exam.row[pairs] - part.start))
    return joined(answers).select(np.argsort(by_row, kind="stable")), pool.contenders()


def _parts(field: Field, queries: int) -> Iterator[slice]:
    """Yield slices of the wanted rows, as large as the budget allows."""
    each = VECTORS * field.pulls.queries.shape[1] + MATRICES * queries
    size = field.budget.count(Share.RAYS, each, least=16)
    for first in range(0, field.pulls.rows, size):
        yield slice(first, min(first + size, field.pulls.rows))


def _left_out(field: Field, exam: Exam, pairs: Ints, some_rows: MovingRows) -> Traces:
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
