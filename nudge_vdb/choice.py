"""The choice of a step, and its figures: for rows that are judged, for rows that nobody judged, and for their mix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from nudge_vdb.nudge import Floats
from nudge_vdb.options import Options
from nudge_vdb.planning import Course, Judged, sample, sit_exam, some_queries
from nudge_vdb.scoring import Exam, Table
from nudge_vdb.selection import Change, Proof, candidates_for, change, choose, mixed, prove, scored_at

Figures = dict[str, Any]

USUAL_COLD_SHARE = 0.3
OTHER_SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Cold shares that are tried when a plan is stopped."""


@dataclass(frozen=True, slots=True)
class ColdShare:
    """The share of searches for rows that nobody judged."""

    value: float
    reason: str
    """Why this one, in words."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the evaluated queries say of choosing the best candidate; all is cross-fitted."""

    proof: Proof
    """Of the mix."""
    warm: Change
    cold: Change


@dataclass(frozen=True)
class Choice:
    """The step that was chosen, and what it was chosen by."""

    scored: Judged
    exam: Exam
    table: Table
    place: int
    step: float
    share: ColdShare
    verdict: Verdict
    alternatives: list[Figures]
    """Where the plan was stopped: what would pass, and its figures."""


def choose_step(course: Course, train: Judged, options: Options) -> Choice:
    """Score the judged queries at every step, choose the best for the mix, and prove it."""
    places = sample(len(train.judgements), options.max_queries, options.seed)
    exam = sit_exam(course, train, places, pull=1)
    table = course.table(exam)
    share = cold_share(course, train, options)
    place = choose(mixed(table, share.value)) if options.step is None else 1
    verdict = judge(table, share.value, options)
    others = [] if verdict.proof.proven else list(alternatives(table, options.steps, share.value, options))
    step = float(options.steps[place])
    return Choice(some_queries(train, places), exam, table, place, step, share, verdict, others)


def cold_share(course: Course, train: Judged, options: Options) -> ColdShare:
    """Return the cold share that was asked for, else the usual one, or 0 where every row in scope is judged."""
    if options.cold_share is not None:
        return ColdShare(options.cold_share, "asked for")
    pages = course.ground.pages
    if len(np.unique(train.places)) == len(pages) - len(pages.unfit):
        return ColdShare(0.0, "every row in scope is judged")
    return ColdShare(USUAL_COLD_SHARE, "the default where some rows are not judged")


def judge(table: Table, share: float, options: Options) -> Verdict:
    """Return what *table* says of choosing its best candidate for the mix at the cold *share*."""
    mix, confidence, seed = mixed(table, share), options.confidence, options.seed
    chosen = candidates_for(mix, seed)
    warm, cold = (change(scores[0], scored_at(scores, chosen), confidence, seed) for scores in (table.warm, table.cold))
    return Verdict(_stopped(prove(mix, confidence, options.min_gain, seed), cold, options.max_cold_loss), warm, cold)


def _stopped(proof: Proof, cold: Change, most: float | None) -> Proof:
    """Return *proof*, no longer proven if the cold score falls by more than *most*."""
    if most is None or -cold.gain <= most:
        return proof
    reason = f"the score of rows that nobody judged would fall by {-cold.gain:.4f}, and {most:g} is the most allowed"
    return replace(proof, proven=False, reason=reason)


def alternatives(table: Table, steps: Floats, share: float, options: Options) -> Iterator[Figures]:
    """Yield what would pass instead of a plan that was stopped: a smaller step, or the nearest other cold shares."""
    yield from _smaller_step(table, steps, share, options)
    below = [each for each in reversed(OTHER_SHARES) if each < share]
    above = [each for each in OTHER_SHARES if each > share]
    for shares in (below, above):
        passing = (_passing(table, each, options, f"--cold-share {each:g}") for each in shares)
        yield from [found for found in passing if found][:1]


def _smaller_step(table: Table, steps: Floats, share: float, options: Options) -> Iterator[Figures]:
    """Yield the best step among those that cost rows nobody judged no more than is allowed."""
    most = options.max_cold_loss or 0.0
    kept = np.flatnonzero(table.cold.mean(axis=1) >= table.cold[0].mean() - most)
    if len(kept) < 2 or len(kept) == len(steps):
        return
    some = Table(table.warm[kept], table.cold[kept])
    step = steps[kept[choose(mixed(some, share))]]
    if step > 0 and (found := _passing(some, share, options, f"--step {step:g}")):
        yield found


def _passing(table: Table, share: float, options: Options, option: str) -> Figures | None:
    verdict = judge(table, share, options)
    return {"option": option, **figures(verdict)} if verdict.proof.proven else None


def figures(verdict: Verdict) -> Figures:
    """Return the figures of *verdict*, flat."""
    parts = {"warm": verdict.warm, "cold": verdict.cold}
    named = {f"{name}_{key}": value for name, part in parts.items() for key, value in asdict(part).items()}
    return {**asdict(verdict.proof), **named}
