"""Choosing the step, and proving that it helps."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from nudge_vdb.exam import Exam, Field
from nudge_vdb.nudge import Floats, Ints
from nudge_vdb.scoring import Table, score_table

AUTHORS_STEPS = np.round(np.arange(25) * 0.02, 2)
FOLDS = 10
SPLITS = 20
RESAMPLES = 2000
FEWEST_QUERIES = 20
"""Below this many queries a bootstrap interval is too narrow to be believed."""
DRAWN_AT_ONCE = 1 << 19


@dataclass(frozen=True, slots=True)
class Change:
    """A score before and after, as means over the evaluated queries, in 0 … 1."""

    before: float
    """At the base."""
    after: float
    """With every query scored at a candidate that was chosen without it."""
    gain: float
    """after − before"""
    gain_low: float
    """Lower end of the bootstrap interval of the gain."""
    gain_high: float


@dataclass(frozen=True, slots=True)
class Proof(Change):
    """What can be said of the gain of a plan."""

    proven: bool
    reason: str
    """Why it is proven or not, in words."""


def choose(table: Floats) -> int:
    """Return the place of the best of the candidates, by the mean over the queries of *table* (candidates, nq).

    Ties, to rounding, go to the first: of steps, to the smaller.
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


def chosen_by_others(table: Floats, seed: int) -> Ints:
    """Return for each query the place in *table* (candidates, nq) of what the other queries choose, (20, nq).

    The queries are split at random into 10 folds, and each fold gets what is best on the other nine; since one split
    is a lottery, there are 20.
    """
    rng = np.random.default_rng(seed)
    queries = table.shape[1]
    return np.stack(
        [_best_on_other_folds(table, rng.permutation(queries) % min(FOLDS, queries)) for _ in range(SPLITS)]
    )


def _best_on_other_folds(table: Floats, fold: Ints) -> Ints:
    inside = np.stack([table[:, fold == number].sum(axis=1) for number in range(fold.max() + 1)], axis=1)
    best = np.argmax(np.round(inside.sum(axis=1, keepdims=True) - inside, 12), axis=0)
    return np.asarray(best[fold])


def candidates_for(table: Floats, seed: int, first: int = 0) -> Ints:
    """Return for each query the places of the candidates that it is scored at in a proof, (20, nq).

    Candidates before the *first* are not chosen.
    """
    return first + chosen_by_others(table[first:], seed)


def scored_at(table: Floats, chosen: Ints) -> Floats:
    """Return the mean score of each query in *table* (candidates, nq) at the places *chosen* (splits, nq)."""
    return np.asarray(np.take_along_axis(table, chosen, axis=0).mean(axis=0))


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
    return round(float(low), 12), round(float(high), 12)  # means of equal numbers differ in the last bit


def cross_fitted(table: Floats, seed: int, first: int = 0) -> Floats:
    """Return for each query its score in *table* (candidates, nq) at a candidate chosen on other queries, (nq,)."""
    return scored_at(table, candidates_for(table, seed, first))


def mixed(table: Table, cold_share: float) -> Floats:
    """Return (1 − ρ)·warm + ρ·cold of *table*, ρ being *cold_share* in 0 … 1: (candidates, nq)."""
    return np.asarray((1 - cold_share) * table.warm + cold_share * table.cold)


def change(before: Floats, after: Floats, confidence: float, seed: int) -> Change:
    """Return the change from *before* to *after*, both (nq,), with its bootstrap interval."""
    low, high = interval(after - before, confidence, seed)
    return Change(float(before.mean()), float(after.mean()), float((after - before).mean()), low, high)


def prove(table: Floats, confidence: float, min_gain: float, seed: int, first: int = 0) -> Proof:
    """Return what *table* (candidates, nq), the first being the base, proves about the gain of choosing its best.

    Candidates before the *first* are not chosen.

    Proven means: the lower end of the interval of the per-query gain, cross-fitted, is above *min_gain*.
    """
    found = change(table[0], cross_fitted(table, seed, first), confidence, seed)
    enough, clear = table.shape[1] >= FEWEST_QUERIES, found.gain_low > min_gain
    reason = _reason(table.shape[1], found.gain_low, confidence, min_gain)
    return Proof(**asdict(found), proven=enough and clear, reason=reason)


def _reason(queries: int, low: float, confidence: float, min_gain: float) -> str:
    if queries < FEWEST_QUERIES:
        return f"{queries} scored queries are too few to prove anything; {FEWEST_QUERIES} are needed, 100 are good"
    lower_end = f"the lower end of the {100 * confidence:g} % interval of the gain is {low:+.4f}"
    if low > min_gain:
        return f"{lower_end}, above {min_gain:g}"
    return f"{lower_end}, not above {min_gain:g}"
