"""From judgements and rows to scores: which rows are wanted, who pulls on them, and what each query would score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nudge_vdb.carrying import Examples, Unjudged, carried_table
from nudge_vdb.contract import Traits, Vectors
from nudge_vdb.exam import Exam, Field
from nudge_vdb.ground import Ground
from nudge_vdb.mapped import release
from nudge_vdb.matching import Judged, sample, some_queries
from nudge_vdb.nudge import Floats, Ints, Method, Pulls, unit
from nudge_vdb.options import Options
from nudge_vdb.pages import Pages
from nudge_vdb.rivals import TIES, Best
from nudge_vdb.scoring import Table, in_order, score_table
from nudge_vdb.selection import FEWEST_QUERIES
from nudge_vdb.ties import first_rows

UNITS_AT_ONCE = 4096
COMPARED_PAIRS = 1000
"""How many pairs are enough to tell whether judged ones are more similar than random ones."""


@dataclass(frozen=True)
class Course:
    """Everything that follows from the judgements, before a step is chosen."""

    wanted: Ints
    """(m,): places of the rows that a judgement names, ascending."""
    pulls: Pulls
    ground: Ground
    options: Options
    traits: Traits

    def base(self, part: slice) -> Vectors:
        """Return the raw base vectors of a slice of the wanted rows."""
        return self.ground.pages.at(self.wanted[part])

    def carried_table(self, exam: Exam, steps: Floats) -> Table:
        """Return the scores of *exam* at each of *steps* with every carry; every wanted row must be judged."""
        pages, order, nobody = self.ground.pages, np.zeros(len(self.wanted)), np.empty((len(exam.units), 0))
        field = Field(
            Method(self.options.method), self.traits.metric, self.pulls, self.base, order, nobody, pages.budget
        )
        parts = ((places[places >= 0], rows[places >= 0]) for places, rows in self.ground.parts_without(self.wanted))
        unjudged = Unjudged(parts, pages.at)
        return carried_table(field, exam, self.options.measure, steps, unjudged)

    def examples(self) -> Examples:
        """Return what the judged rows teach of the directions that rows move in."""
        nobody = np.empty((0, 0))
        method = Method(self.options.method)
        return Examples(
            Field(method, self.traits.metric, self.pulls, self.base, np.empty(0), nobody, self.ground.pages.budget)
        )

    def table(self, exam: Exam, steps: Floats) -> Table:
        """Return the scores of *exam* at each of *steps*, the first of which is 0."""
        rule, budget, best = self.options.measure, self.ground.pages.budget, self.rivals(exam)
        order, rivals_order = self.ground.by_id(self.wanted, best.places)
        rivals = np.partition(in_order(best.scores, rivals_order), TIES, axis=1)[:, TIES:]
        field = Field(Method(self.options.method), self.traits.metric, self.pulls, self.base, order, rivals, budget)
        return score_table(field, exam, rule, steps)

    def rivals(self, exam: Exam) -> Best:
        """Return the best rows of each query of *exam* that nobody wants, the first that count by score and id."""
        return first_rows(
            lambda: self.ground.parts_without(self.wanted),
            exam.units,
            exam.lengths,
            self.options.measure.k,
            self.traits.metric,
            self.ground.texts,
            self.ground.pages.budget,
        )


def set_course(train: Judged, others: Sequence[Judged], ground: Ground, options: Options, traits: Traits) -> Course:
    """Work out who pulls on whom; rows of *others* that no training query wants are wanted but not pulled."""
    wanted = np.unique(np.concatenate([judged.places for judged in (train, *others)]))
    order = np.argsort(train.places, kind="stable")
    units = _kept(ground.pages, train.judgements.vectors)
    pulls = Pulls(
        units,
        train.judgements.query[order],
        np.searchsorted(wanted, train.places[order]),
        train.judgements.weights[order],
        len(wanted),
    )
    return Course(wanted, pulls, ground, options, traits)


def _kept(pages: Pages, queries: Vectors) -> Vectors:
    """Return *queries* scaled to length 1, mapped from a file beside *pages*: there may be more than rows."""
    units = pages.scratch("queries", len(queries))
    for first in range(0, len(queries), UNITS_AT_ONCE):
        some = slice(first, first + UNITS_AT_ONCE)
        units[some] = unit(queries[some])[0]
        release(queries)
        release(units)
    return units


def sit_exam(course: Course, judged: Judged, queries: Ints, pull: float) -> Exam:
    """Return the exam of some *queries* of *judged*; *pull* is 1 if they pull on the rows that answer them, else 0."""
    taken = some_queries(judged, queries)
    units, lengths = unit(taken.judgements.vectors)
    rows = np.searchsorted(course.wanted, taken.places)
    left_out = pull * taken.judgements.weights
    return Exam(units, lengths, taken.judgements.query, rows, taken.judgements.grades, left_out)


def unlike(course: Course, exam: Exam, seed: int) -> str | None:
    """Return a warning if judged pairs are no more similar than random ones, None if they are, as they should be."""
    some = sample(len(exam.query), COMPARED_PAIRS, seed)
    if len(some) < FEWEST_QUERIES:
        return None
    drawn = _drawn(course, len(some), seed)
    if drawn is None:
        return None
    judged = _cosines(course, exam, some, course.wanted[exam.row[some]])
    chance = _cosines(course, exam, some, drawn)
    noise: Floats = np.sqrt((judged.var() + chance.var()) / len(some))
    if judged.mean() > chance.mean() + 2 * noise:
        return None
    return (
        f"judged pairs are no more similar ({judged.mean():.3f}) than random pairs ({chance.mean():.3f}): were the "
        "queries embedded with the model of this collection?"
    )


def _drawn(course: Course, count: int, seed: int) -> Ints | None:
    """Return the places of random rows, None where there are too few: of gathered ones judged, others being near."""
    pages, rng = course.ground.pages, np.random.default_rng(seed)
    fit = len(pages) - len(pages.unfit) if pages.whole else len(course.wanted)
    if fit < FEWEST_QUERIES:
        return None
    drawn = rng.integers(0, fit, count)
    if not pages.whole:
        return np.asarray(course.wanted[drawn])
    return drawn + np.searchsorted(pages.unfit - np.arange(len(pages.unfit)), drawn, side="right")


def _cosines(course: Course, exam: Exam, pairs: Ints, places: Ints) -> Floats:
    """Return the cosines of the queries of *pairs* with the rows at *places*."""
    rows, _ = unit(course.ground.pages.at(places))
    return np.asarray(np.einsum("ij,ij->i", exam.units[exam.query[pairs]], rows, dtype=np.float64))
