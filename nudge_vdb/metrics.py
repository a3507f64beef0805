"""Measures of a ranking, computed from the ranks of the relevant rows alone.

All are those of trec_eval: linear gain, binary relevance wherever a measure does not use grades.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nudge_vdb.errors import BadOption

Ranks = NDArray[np.int64]
"""(R, …): the rank of each of a query's R relevant rows, 1 is best; beyond the cutoff any number above it will do."""
Grades = NDArray[np.float64]
"""(R,): the grade of each relevant row, above 0."""
Scores = NDArray[np.float64]


def ndcg(ranks: Ranks, grades: Grades, k: int) -> Scores:
    """Return Σ grade / log2(rank + 1) over the ranks up to *k*, as a share of the best possible sum.

    Source: Järvelin & Kekäläinen 2002, in trec_eval's form (``ndcg_cut``).
    """
    gains = grades.reshape(-1, *[1] * (ranks.ndim - 1))
    reached = np.where(ranks <= k, gains / np.log2(ranks + 1.0), 0.0).sum(axis=0)
    ideal = np.sort(grades)[::-1][:k]
    return np.asarray(reached / (ideal / np.log2(np.arange(2.0, len(ideal) + 2))).sum())


def recall(ranks: Ranks, grades: Grades, k: int) -> Scores:
    """Return the share of the relevant rows that stand among the first *k* (trec_eval ``recall``)."""
    return np.asarray((ranks <= k).sum(axis=0) / len(grades))


def precision(ranks: Ranks, _grades: Grades, k: int) -> Scores:
    """Return the share of the first *k* places that hold relevant rows (trec_eval ``P``)."""
    return np.asarray((ranks <= k).sum(axis=0) / k)


def mrr(ranks: Ranks, _grades: Grades, k: int) -> Scores:
    """Return 1 / rank of the first relevant row, 0 beyond *k* (trec_eval ``recip_rank`` over the first *k*)."""
    first = ranks.min(axis=0)
    return np.asarray(np.where(first <= k, 1.0 / first, 0.0))


MEASURES: dict[str, Callable[[Ranks, Grades, int], Scores]] = {
    "ndcg": ndcg,
    "recall": recall,
    "precision": precision,
    "mrr": mrr,
}


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure with its cutoff, such as ndcg@10."""

    name: str
    k: int

    def __str__(self) -> str:
        return f"{self.name}@{self.k}"

    def score(self, ranks: Ranks, grades: Grades) -> Scores:
        """Return the score in 0 … 1, one per column of *ranks* (R, …)."""
        return MEASURES[self.name](ranks, grades, self.k)


def parse_measure(text: str) -> Measure:
    """Read ``name@K``.

    Raises:
        BadOption: an unknown name, or a K outside 1 … 1000.
    """
    match = re.fullmatch(r"(\w+)@(\d{1,4})", text.strip().lower())
    if not match or match[1] not in MEASURES or not 1 <= int(match[2]) <= 1000:
        known = ", ".join(f"{name}@K" for name in MEASURES)
        raise BadOption(f"metric {text!r}: expected one of {known}, with K from 1 to 1000, such as ndcg@10")
    return Measure(match[1], int(match[2]))
