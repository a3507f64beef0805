"""The choice of a step, and its figures: for rows that are judged, for rows that nobody judged, and for their mix."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nudge_vdb.candidates import Family, Sitting
from nudge_vdb.exam import Exam
from nudge_vdb.live import Live
from nudge_vdb.matching import Judged, some_queries
from nudge_vdb.nudge import Floats
from nudge_vdb.options import Options
from nudge_vdb.planning import Course
from nudge_vdb.ridge import Carry, held_bytes
from nudge_vdb.selection import change, cross_fitted, mixed
from nudge_vdb.verdict import Figures, Verdict, alternatives, judge, left_out, most_answers

USUAL_COLD_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class ColdShare:
    """The share of searches for rows that nobody judged."""

    value: float
    reason: str
    """Why this one, in words."""
    exists: bool
    """Whether there is a row that nobody judged."""


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
    left_out: str | None
    """What was not tried then, and why."""

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


def choose_step(course: Course, train: Judged, options: Options, now: Live | None = None) -> Choice:
    """Score the judged queries at every candidate, choose the best for the mix, and prove it.

    Nothing is said to pass that is worse than the version that is live *now*.
    """
    share = cold_share(course, train, options)
    if not share.exists:
        options = replace(options, max_cold_loss=None)
    sitting, family, carrying = _drawn(course, train, share.value, options)
    verdict = judge(family.table, share.value, options)
    place = family.best(share.value, options)
    scored = some_queries(train, sitting.places)
    beaten = _beaten(now, train, family, place)
    stopped = share.exists and (beaten or not verdict.proof.proven)
    passing = alternatives(sitting, family, share.value, sitting.options) if stopped else iter(())
    others = [figures for figures, each, best in passing if not _beaten(now, train, each, best)]
    untried = left_out(sitting, family) if stopped else None
    return Choice(sitting.course, scored, sitting.exam, family, place, share, verdict, carrying, others, untried)


def _beaten(now: Live | None, train: Judged, family: Family, place: int) -> bool:
    """Tell whether the version that is live *now* is better than the candidate at *place*."""
    queries = some_queries(train, family.queries).judgements
    return now is not None and now.better(queries, family.table.warm[place])


def _drawn(course: Course, train: Judged, share: float, options: Options) -> tuple[Sitting, Family, Figures]:
    """Return the queries that are scored, the candidates for the mix at the cold *share*, and why these."""
    pages, carrying = course.ground.pages, {"carry": options.carry, "carry_reason": "asked for"}
    rows = len(pages) - len(pages.unfit)
    if options.carry == "auto" and rows > options.most_rows:
        reason = f"{rows:,} rows are more than --max-rows {options.most_rows:,}"
        options, carrying = replace(options, carry="off", max_rows=None), {"carry": "off", "carry_reason": reason}
    held, most = held_bytes(course.traits.width, most_answers(train)), pages.budget.bytes
    if options.carry == "auto" and held > most:
        reason = f"it would hold about {held >> 20:,} MB at once, and --memory is {most >> 20:,} MB"
        options, carrying = replace(options, carry="off"), {"carry": "off", "carry_reason": reason}
    sitting = Sitting.of(course, train, options)
    if options.carry == "off":
        return sitting, sitting.plain, carrying
    if options.carry == "on":
        return sitting, sitting.carried, carrying
    return sitting, *_better(sitting, share)


def _better(sitting: Sitting, share: float) -> tuple[Family, Figures]:
    """Return the candidates that carry if they are provably better than those that do not, at the same steps."""
    plain, carried, options = sitting.plain, sitting.carried, sitting.options
    before, after = (
        cross_fitted(mixed(each.table, share), options.seed, options.first)
        for each in (plain.among(carried.steps), carried)
    )
    found = change(before, after, options.confidence, options.seed)
    told = f"carrying changes the mix by {found.gain:+.4f} [{found.gain_low:+.4f}, {found.gain_high:+.4f}]"
    if found.gain_low <= 0:
        return plain, {"carry": "off", "carry_reason": f"{told}, which is not proven"}
    return carried, {"carry": "on", "carry_reason": told}


def cold_share(course: Course, train: Judged, options: Options) -> ColdShare:
    """Return the cold share that was asked for, else the usual one, or that of the unjudged rows where it is less.

    Rows that nobody judged are hardly wanted more often than others, so the share grows with each of them and does not
    jump; it is 0 where there are none.
    """
    pages = course.ground.pages
    judged = len(np.unique(train.places))
    here = len(pages) - len(
        pages.unfit
    )  # of gathered ones, too: the best unjudged rows are among them, if there are any
    if options.cold_share is not None:
        return ColdShare(options.cold_share, "asked for", judged < here)
    if judged >= here:
        return ColdShare(0.0, "every row in scope is judged", exists=False)
    unjudged = 1 - judged / max(here, pages.rows - len(pages.unfit))
    if unjudged < USUAL_COLD_SHARE:
        reason = f"so many of the rows are not judged; {USUAL_COLD_SHARE:g} at most by default"
        return ColdShare(round(unjudged, 4), reason, exists=True)
    return ColdShare(USUAL_COLD_SHARE, "the default where some rows are not judged", exists=True)
