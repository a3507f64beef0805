"""What may be chosen: steps, and ways to carry, with what every scored query scores at each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nudge_vdb.carrying import CARRIES
from nudge_vdb.exam import Exam
from nudge_vdb.matching import Judged, evaluated, sample
from nudge_vdb.nudge import Floats, Ints
from nudge_vdb.options import Options
from nudge_vdb.planning import Course, set_course, sit_exam
from nudge_vdb.ridge import CARRY_STEPS, Carry
from nudge_vdb.scoring import Table
from nudge_vdb.selection import choose, mixed

CARRIED_SCORES = 1 << 31
"""How many scores of queries and unjudged rows are computed to choose how to carry them."""
FEWEST_CARRIED, MOST_CARRIED = 200, 500


@dataclass(frozen=True)
class Family:
    """Candidates of one kind, the first of which is the base, and what every query scores at each."""

    table: Table
    steps: Floats
    """(candidates,)"""
    carries: Sequence[Carry | None]
    """(candidates,): None where unjudged rows stay."""
    queries: Ints
    """(nq,): the places of the scored queries among those that train."""

    @property
    def carrying(self) -> bool:
        """Whether unjudged rows are carried by all candidates but the base."""
        return self.carries[-1] is not None

    def select(self, kept: Ints) -> Family:
        """Return the candidates *kept*."""
        table = Table(self.table.warm[kept], self.table.cold[kept])
        return Family(table, self.steps[kept], [self.carries[place] for place in kept], self.queries)

    def among(self, steps: Floats) -> Family:
        """Return the base and the candidates at one of *steps*."""
        return self.select(np.flatnonzero(np.isin(self.steps, np.append(0.0, steps))))

    def best(self, share: float, options: Options) -> int:
        """Return the place of the best candidate for the mix; where the step is given, not of the base."""
        return options.first + choose(mixed(self.table, share)[options.first :])


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

    @cached_property
    def plain(self) -> Family:
        """The candidates that leave unjudged rows at their base."""
        steps = self.options.steps
        return Family(self.course.table(self.exam, steps), steps, [None] * len(steps), self.places)

    @cached_property
    def carried(self) -> Family:
        """The candidates that carry unjudged rows, and the base."""
        steps = CARRY_STEPS if self.options.step is None else np.array([self.options.step])
        base, table = self.plain.table, self.course.carried_table(self.exam, steps)
        joined = Table(np.concatenate([base.warm[:1], table.warm]), np.concatenate([base.cold[:1], table.cold]))
        every = np.append(0.0, np.repeat(steps, len(CARRIES)))
        return Family(joined, every, [None, *CARRIES * len(steps)], self.places)


def affordable(rows: int) -> int:
    """Return how many queries can be scored against so many *rows* under every carry."""
    return int(np.clip(CARRIED_SCORES // (len(CARRIES) * max(1, rows)), FEWEST_CARRIED, MOST_CARRIED))
