"""Choosing the step, and proving that it helps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nudge_vdb.nudge import Floats
from nudge_vdb.scoring import Exam, Field, score_table

AUTHORS_STEPS = np.round(np.arange(25) * 0.02, 2)
FOLDS = 10
SPLITS = 20
RESAMPLES = 2000
FEWEST_QUERIES = 20
"""Below this many queries a bootstrap interval is too narrow to be believed."""
DRAWN_AT_ONCE = 1 << 22


@dataclass(frozen=True, slots=True)
class Proof:
    """What can be said of the gain of a plan; all scores are means over the evaluated queries, in 0 … 1."""

    before: float
    """At the base."""
    after: float
    """With every query scored at a step that was chosen without it."""
    gain: float
    """after − before"""
    gain_low: float
    """Lower end of the bootstrap interval of the gain."""
    gain_high: float
    proven: bool
    reason: str
    """Why it is proven or not, in words."""


def choose(table: Floats) -> int:
    """Return the place of the best of the steps, by the mean over the queries of *table* (steps, nq).

    Ties, to rounding, go to the smaller step.
    """
    return int(np.argmax(np.round(table.mean(axis=1), 12)))


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The authors' measure: the share of min(k, R) answers that stand among the first k."""

    k: int

    def score(self, ranks: NDArray[np.int64], grades: Floats) -> Floats:
        """Return the score of each column of *ranks* (R, …)."""
        return np.asarray((ranks <= self.k).sum(axis=0) / min(self.k, len(grades)))


def authors_step(field: Field, validation: Exam, k: int) -> float:
    """Return the step that the authors' code chooses, to compare with: the most accurate on *validation* queries.

    Steps are 0, .02 … .48 and ties go to the smaller. Source: ``NUDGEN.finetune_embeddings`` of nudge-ft 0.1.2.
    """
    table = score_table(field, validation, Accuracy(k), AUTHORS_STEPS)
    return float(AUTHORS_STEPS[choose(table.warm)])


def cross_fitted(table: Floats, seed: int) -> Floats:
    """Return for each query its score at a step chosen on other queries, (nq,).

    The queries are split at random into 10 folds and each fold is scored at the step that is best on the other nine;
    since one split is a lottery, this is the mean over 20 of them.
    """
    rng = np.random.default_rng(seed)
    queries = table.shape[1]
    total = np.zeros(queries)
    for _ in range(SPLITS):
        fold = rng.permutation(queries) % min(FOLDS, queries)
        inside = np.stack([table[:, fold == number].sum(axis=1) for number in range(fold.max() + 1)], axis=1)
        best = np.argmax(np.round(inside.sum(axis=1, keepdims=True) - inside, 12), axis=0)
        total += table[best[fold], np.arange(queries)]
    return total / SPLITS


def interval(differences: Floats, confidence: float, seed: int) -> tuple[float, float]:
    """Return the bootstrap interval of the mean of *differences* (nq,) at *confidence* in 0 … 1.

    Source: Efron 1979, percentile interval of 2,000 resamples of the queries.
    """
    rng = np.random.default_rng(seed)
    queries = len(differences)
    at_once = max(1, DRAWN_AT_ONCE // queries)
    means = [
        differences[rng.integers(0, queries, (min(at_once, RESAMPLES - done), queries))].mean(axis=1)
        for done in range(0, RESAMPLES, at_once)
    ]
    outside = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [outside, 1 - outside])
    return float(low), float(high)


def prove(table: Floats, confidence: float, min_gain: float, seed: int) -> Proof:
    """Return what *table* (steps, nq), the first step being the base, proves about the gain of choosing its best step.

    Proven means: the lower end of the interval of the per-query gain, cross-fitted, is above *min_gain*. Where there
    is one step besides the base nothing is chosen, and it is scored as it is.
    """
    before = table[0]
    after = table[1] if len(table) == 2 else cross_fitted(table, seed)
    low, high = interval(after - before, confidence, seed)
    enough, clear = table.shape[1] >= FEWEST_QUERIES, low > min_gain
    return Proof(
        float(before.mean()),
        float(after.mean()),
        float((after - before).mean()),
        low,
        high,
        enough and clear,
        _reason(table.shape[1], low, confidence, min_gain),
    )


def _reason(queries: int, low: float, confidence: float, min_gain: float) -> str:
    if queries < FEWEST_QUERIES:
        return f"{queries} scored queries are too few to prove anything; {FEWEST_QUERIES} are needed, 100 are good"
    lower_end = f"the lower end of the {100 * confidence:g} % interval of the gain is {low:+.4f}"
    if low > min_gain:
        return f"{lower_end}, above {min_gain:g}"
    return f"{lower_end}, not above {min_gain:g}"
