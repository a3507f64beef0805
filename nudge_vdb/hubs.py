"""Rows that are judged for an unusual share of the queries: NUDGE moves such a row into the way of many others."""

from __future__ import annotations

from collections import Counter
from statistics import NormalDist

import numpy as np

from nudge_vdb.foreign import shown
from nudge_vdb.judgements import Judgements

FEWEST_ROWS = 20
"""Of fewer judged rows nobody can say what is usual."""
FEWEST_QUERIES = 10
SMALLEST_SHARE = 0.01
"""A row that fewer queries want than this is in nobody's way, however rare such rows are."""
SMALLEST_SPREAD = 0.5
"""Of the logarithms: where all other rows have about equally many queries, seven times as many are unusual."""
CHANCE = 0.01
"""That any row is named where the numbers of queries a row are spread log-normally, as in real sets."""
NAMED = 5


def unusual_rows(judgements: Judgements) -> dict[str, float]:
    """Return the rows that are judged for an unusual share of the queries, with their shares, the largest first.

    The logarithms of how many queries want a row are held against their median and their upper half's spread, which a
    few rows cannot change; of n rows that are as usual, none is named but with probability :data:`CHANCE`.
    """
    wanted = Counter(judgements.rows)
    if len(wanted) < FEWEST_ROWS:
        return {}
    least = max(_bound(np.log(list(wanted.values()))), FEWEST_QUERIES, SMALLEST_SHARE * len(judgements))
    return {row: count / len(judgements) for row, count in wanted.most_common() if count > least}


def _bound(logarithms: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    """Return the number of queries above which a row is unusual."""
    middle, upper, tail = np.quantile(logarithms, [0.5, 0.75, 0.9])
    normal = NormalDist()
    spread = max((upper - middle) / normal.inv_cdf(0.75), (tail - middle) / normal.inv_cdf(0.9), SMALLEST_SPREAD)
    return float(np.exp(middle + spread * normal.inv_cdf(1 - CHANCE / len(logarithms))))


def warnings(judgements: Judgements) -> list[str]:
    """Name rows that are judged for an unusual share of the queries, and say what to do."""
    found = unusual_rows(judgements)
    if not found:
        return []
    usual = float(np.median(list(Counter(judgements.rows).values()))) / len(judgements)
    named = ", ".join(f"{shown(row)} ({share:.1%})" for row, share in list(found.items())[:NAMED])
    more = f" and {len(found) - NAMED:,} more" if len(found) > NAMED else ""
    return [
        f"judged for an unusual share of the {len(judgements):,} queries: row {named}{more}; a judged row usually has "
        f"{usual:.1%}. Such a row will be found by many other queries as well: look where these judgements come from, "
        "and leave out those that nobody meant"
    ]
