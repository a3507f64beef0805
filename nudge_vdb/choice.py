"""The choice of a step, and its figures: for rows that are judged, for rows that nobody judged, and for their mix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from nudge_vdb.carrying import CARRIES
from nudge_vdb.exam import Exam
from nudge_vdb.matching import Judged, evaluated, sample, some_queries
from nudge_vdb.nudge import Floats, Ints, Method
from nudge_vdb.options import Options
from nudge_vdb.planning import Course, set_course, sit_exam
from nudge_vdb.ridge import CARRY_STEPS, Carry
from nudge_vdb.scoring import Table
from nudge_vdb.selection import Change, Proof, candidates_for, change, choose, mixed, prove, scored_at

Figures = dict[str, Any]

USUAL_COLD_SHARE = 0.3
OTHER_SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Cold shares that are tried when a plan is stopped."""

CARRIED_SCORES = 1 << 31
"""How many scores of queries and unjudged rows are computed to choose how to carry them."""
FEWEST_CARRIED, MOST_CARRIED = 200, 500


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
class Family:
    """Candidates of one kind, the first of which is the base, and what every query scores at each."""

    table: Table
    steps: Floats
    """(candidates,)"""
    carries: Sequence[Carry | None]
    """(candidates,): None where unjudged rows stay."""

    def select(self, kept: Ints) -> Family:
        """Return the candidates *kept*."""
        table = Table(self.table.warm[kept], self.table.cold[kept])
        return Family(table, self.steps[kept], [self.carries[place] for place in kept])

    def best(self, share: float, options: Options) -> int:
        """Return the place of the best candidate for the mix; where the step is given, not of the base."""
        first = 0 if options.step is None else 1
        return first + choose(mixed(self.table, share)[first:])


@dataclass(frozen=True)
class Choice:
    """The candidate that was chosen, and what it was chosen by."""

    course: Course
    """Of the rows that were scored."""
    scored: Judged
    exam: Exam
    family: Family
    place: int
    share: ColdShare
    verdict: Verdict
    carrying: Figures
    """Whether unjudged rows are carried, and why."""
    alternatives: list[Figures]
    """Where the plan was stopped: what would pass, and its figures."""

    @property
    def step(self) -> float:
        """The step γ of the judged rows."""
        return float(self.family.steps[self.place])

    @property
    def carry(self) -> Carry | None:
        """How the others are carried."""
        return self.family.carries[self.place]

    @property
    def warm(self) -> Floats:
        """What each scored query scores, (nq,)."""
        return np.asarray(self.family.table.warm[self.place])


def choose_step(course: Course, train: Judged, options: Options) -> Choice:
    """Score the judged queries at every candidate, choose the best for the mix, and prove it."""
    share = cold_share(course, train, options)
    sitting = Sitting.of(course, train, options)
    carrying: Figures = {"carry": options.carry, "carry_reason": "asked for"}
    family = sitting.plain() if options.carry == "off" else sitting.carried()
    if options.carry == "auto":
        family, carrying = _better(sitting.plain(), family, share.value, course, options)
    verdict = judge(family.table, share.value, options)
    others = [] if verdict.proof.proven else list(alternatives(sitting, family, share.value, options))
    place = family.best(share.value, options)
    scored = some_queries(train, sitting.places)
    return Choice(sitting.course, scored, sitting.exam, family, place, share, verdict, carrying, others)


@dataclass(frozen=True)
class Sitting:
    """The queries that are scored, and the rows that they are scored on."""

    course: Course
    train: Judged
    places: Ints
    exam: Exam
    options: Options

    @classmethod
    def of(cls, course: Course, train: Judged, options: Options) -> Sitting:
        """Draw the queries: fewer of them where unjudged rows may be carried, which costs more."""
        if options.carry == "off":
            return cls._of(course, train, options, evaluated(train, options))
        alone = set_course(train, [], course.ground, options, course.traits)
        most = min(options.max_queries, affordable(len(course.ground.pages)))
        return cls._of(alone, train, options, sample(len(train.judgements), most, options.seed))

    @classmethod
    def _of(cls, course: Course, train: Judged, options: Options, places: Ints) -> Sitting:
        return cls(course, train, places, sit_exam(course, train, places, pull=1), options)

    def plain(self) -> Family:
        """Return the candidates that leave unjudged rows at their base."""
        steps = self.options.steps
        return Family(self._plain_table, steps, [None] * len(steps))

    def carried(self) -> Family:
        """Return the candidates that carry unjudged rows, and the base."""
        steps = CARRY_STEPS if self.options.step is None else np.array([self.options.step])
        base, table = self._plain_table, self.course.carried_table(self.exam, steps)
        joined = Table(np.concatenate([base.warm[:1], table.warm]), np.concatenate([base.cold[:1], table.cold]))
        return Family(joined, np.append(0.0, np.repeat(steps, len(CARRIES))), [None, *CARRIES * len(steps)])

    @cached_property
    def _plain_table(self) -> Table:
        return self.course.table(self.exam)


def affordable(rows: int) -> int:
    """Return how many queries can be scored against so many *rows* under every carry."""
    return int(np.clip(CARRIED_SCORES // (len(CARRIES) * max(1, rows)), FEWEST_CARRIED, MOST_CARRIED))


def _better(plain: Family, carried: Family, share: float, course: Course, options: Options) -> tuple[Family, Figures]:
    """Return *carried* if it is provably better than *plain* and not too many rows are written, else *plain*."""
    before, after = (_cross_fitted(each, share, options) for each in (plain, carried))
    found = change(before, after, options.confidence, options.seed)
    rows = len(course.ground.pages) - len(course.ground.pages.unfit)
    told = f"carrying changes the mix by {found.gain:+.4f} [{found.gain_low:+.4f}, {found.gain_high:+.4f}]"
    if rows > options.max_rows:
        return plain, {"carry": "off", "carry_reason": f"{rows:,} rows are more than --max-rows {options.max_rows:,}"}
    if found.gain_low <= 0:
        return plain, {"carry": "off", "carry_reason": f"{told}, which is not proven"}
    return carried, {"carry": "on", "carry_reason": told}


def _cross_fitted(family: Family, share: float, options: Options) -> Floats:
    """Return the mix of each query at a candidate that was chosen without it."""
    mix = mixed(family.table, share)
    return scored_at(mix, candidates_for(mix, options.seed))


def cold_share(course: Course, train: Judged, options: Options) -> ColdShare:
    """Return the cold share that was asked for, else the usual one, or 0 where every row in scope is judged."""
    if options.cold_share is not None:
        return ColdShare(options.cold_share, "asked for")
    pages = course.ground.pages  # of gathered ones, too: the best unjudged rows are among them, if there are any
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


def alternatives(sitting: Sitting, family: Family, share: float, options: Options) -> Iterator[Figures]:
    """Yield what would pass instead of a plan that was stopped: a smaller step, carrying, or other cold shares."""
    yield from _smaller_step(family, share, options)
    whole = sitting.course.ground.pages.whole  # to carry rows takes all of them
    if whole and family.carries[-1] is None and options.method == Method.NUDGE_N and share > 0:
        carry = Sitting.of(sitting.course, sitting.train, replace(options, carry="on"))
        yield from _passing(carry.carried().table, share, options, "--carry on")
    below = [each for each in reversed(OTHER_SHARES) if each < share]
    above = [each for each in OTHER_SHARES if each > share]
    for shares in (below, above):
        passing = (_passing(family.table, each, options, f"--cold-share {each:g}") for each in shares)
        yield from next((found for found in passing if found), [])


def _smaller_step(family: Family, share: float, options: Options) -> list[Figures]:
    """Return the best step among those that cost rows nobody judged no more than is allowed."""
    cold, most = family.table.cold.mean(axis=1), options.max_cold_loss or 0.0
    kept = np.flatnonzero(cold >= cold[0] - most)
    if len(kept) == len(cold):
        return []
    some = family.select(kept)
    step = some.steps[some.best(share, replace(options, step=None))]
    return _passing(some.table, share, options, f"--step {step:g}") if step > 0 else []


def _passing(table: Table, share: float, options: Options, option: str) -> list[Figures]:
    """Return the figures of choosing from *table*, if that is proven."""
    verdict = judge(table, share, options)
    return [{"option": option, **figures(verdict)}] if verdict.proof.proven else []


def figures(verdict: Verdict) -> Figures:
    """Return the figures of *verdict*, flat."""
    parts = {"warm": verdict.warm, "cold": verdict.cold}
    named = {f"{name}_{key}": value for name, part in parts.items() for key, value in asdict(part).items()}
    return {**asdict(verdict.proof), **named}
