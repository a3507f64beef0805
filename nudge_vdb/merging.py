"""Equal queries made one, so that none vouches for itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nudge_vdb.contract import Vectors
from nudge_vdb.judgements import COMPARED_AT_ONCE, Ints, Judgements
from nudge_vdb.mapped import picked, release

SAME_QUERY = 5e-4
"""Two unit queries nearer than this are one query, embedded twice, or once kept as float16, which rounds by 2⁻¹¹."""
LINES = 8
"""On how many lines queries are compared before whole vectors are."""


def merged(judgements: Judgements) -> Judgements:
    """Return *judgements* with equal queries made one: weights added, the best grade kept.

    A query that stayed in twice would vouch for itself when it is left out once.
    """
    label = _equal_queries(judgements.vectors)
    kept, place = np.unique(label, return_inverse=True)
    pairs: list[dict[str, tuple[float, float]]] = [{} for _ in kept]
    for query, row, grade, weight in zip(
        place[judgements.query], judgements.rows, judgements.grades, judgements.weights, strict=True
    ):
        best, total = pairs[query].get(row, (0.0, 0.0))
        pairs[query][row] = (max(best, float(grade)), total + float(weight))
    flat = [(row, *values) for rows in pairs for row, values in rows.items()]
    return Judgements(
        tuple(judgements.query_ids[first] for first in kept),
        judgements.vectors if len(kept) == len(judgements) else picked(judgements.vectors, kept),
        np.repeat(np.arange(len(kept)), [len(rows) for rows in pairs]),
        tuple(row for row, _, _ in flat),
        np.array([grade for _, grade, _ in flat]),
        np.array([weight for _, _, weight in flat]),
    )


def _equal_queries(vectors: Vectors) -> Ints:
    """Return for each query the place of the first query that equals it.

    Equal queries have equal projections on any line, so they are near each other in the order of the projections on
    one. Others are near there too; those on a few more lines tell them apart before whole vectors are compared.
    """
    shadows = _projected(vectors)
    order = np.argsort(shadows[:, 0], kind="stable")
    shadows, label = shadows[order], order.astype(np.int64)
    for shift in range(1, len(order)):
        near = np.flatnonzero(shadows[shift:, 0] - shadows[:-shift, 0] <= SAME_QUERY)
        if not len(near):
            break
        near = near[label[near] != label[near + shift]]
        near = near[np.linalg.norm(shadows[near] - shadows[near + shift], axis=1) <= SAME_QUERY]
        same = near[_equal(vectors, order[near], order[near + shift])]
        label = _smallest_label(label, np.stack([same, same + shift])) if len(same) else label
    found = np.empty_like(label)
    found[order] = label
    return found


def _projected(vectors: Vectors) -> NDArray[np.float64]:
    """Return the projections of all queries, scaled to length 1, on a few random lines: (nq, lines)."""
    drawn = np.random.default_rng(0).normal(size=(vectors.shape[1], min(LINES, vectors.shape[1])))
    lines = np.linalg.qr(drawn)[0]
    shadows = np.empty((len(vectors), lines.shape[1]))
    for first in range(0, len(vectors), COMPARED_AT_ONCE):
        part = slice(first, first + COMPARED_AT_ONCE)
        shadows[part] = _unit(vectors[part]) @ lines
        release(vectors)
    return shadows


def _unit(vectors: Vectors) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True))


def _equal(vectors: Vectors, left: Ints, right: Ints) -> NDArray[np.bool_]:
    """Tell which queries at *left* and *right* are the same but for rounding."""
    parts = (slice(first, first + COMPARED_AT_ONCE) for first in range(0, len(left), COMPARED_AT_ONCE))
    apart = [
        np.linalg.norm(_unit(picked(vectors, left[part])) - _unit(picked(vectors, right[part])), axis=1)
        for part in parts
    ]
    return np.concatenate([np.empty(0), *apart]) <= SAME_QUERY


def _smallest_label(label: Ints, pairs: Ints) -> Ints:
    """Give all that have one of the labels of a pair of *pairs* (2, n), or hang together by others, the smallest."""
    least = np.arange(len(label))
    joined = label[pairs]
    while joined.size:
        smaller = np.minimum(least[joined[0]], least[joined[1]])
        before = least.copy()
        for side in joined:
            np.minimum.at(least, side, smaller)
        if (least == before).all():
            break
    return np.asarray(least[label])
