"""How every query would score if unjudged rows were carried, at every step, ridge and reach, without moving a row.

Judged rows depend on the step, carried ones on ridge and reach. So the best of each are found by themselves, and a
row that answers a query is held against both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from nudge_vdb.budget import Share
from nudge_vdb.contract import Mask, Metric, Vectors
from nudge_vdb.exam import Exam, Field
from nudge_vdb.nudge import RAYS, Floats, Ints, Pulls, unit
from nudge_vdb.phases import counted
from nudge_vdb.ridge import REACHES, RIDGES, Carry, Fit, Map, Neighbours
from nudge_vdb.rivals import Best, Part, engine_score
from nudge_vdb.scoring import RANKED, Rule, Table, standings

ROWS_AT_ONCE = 4096
EACH = 96
"""Bytes that a component of a row, or a query that sees it, takes while it is carried at every landmark."""
CARRIES = tuple(Carry(ridge, float(reach)) for ridge in RIDGES for reach in REACHES)
"""What is tried with every step."""
CONTENDERS = 2
"""How many times as many rows as count are looked at closely: the best under the maps that saw all judgements."""
LANDMARKS = np.array([0.1, 0.5, 1.5])
"""The reaches that they are the best at; between two of them hardly any other row gets among the first."""


@dataclass(frozen=True)
class Unjudged:
    """The rows that nobody judged."""

    parts: Iterable[Part]
    """All of them, to be read once."""
    at: Callable[[Ints], Vectors]
    """The raw vectors at some places."""


@dataclass(frozen=True)
class Examples:
    """What the judged rows teach: their base vectors, and the directions that they move in."""

    field: Field

    def parts(self) -> Iterator[tuple[Vectors, Vectors]]:
        """Stream units and directions of all judged rows."""
        rows = min(ROWS_AT_ONCE, self.field.budget.count(Share.RAYS, EACH * self._width))
        for first in range(0, self.field.pulls.rows, rows):
            part = slice(first, min(first + rows, self.field.pulls.rows))
            units, _ = unit(self.field.base(part))
            yield units, RAYS[self.field.method](units, self.field.pulls.of(part.start, part.stop), None).directions

    def fits(self) -> list[Fit]:
        """Return a fit for each of :data:`RIDGES`."""
        return Fit.of(self.parts(), self._width, RIDGES)

    def of(self, rows: Ints) -> tuple[Vectors, Vectors]:
        """Return units and directions of *rows*, ascending."""
        units, directions = np.empty((2, len(rows), self._width), np.float32)
        first = 0
        for some_units, some_directions in self.parts():
            some = slice(*np.searchsorted(rows, [first, first + len(some_units)]))
            units[some], directions[some] = some_units[rows[some] - first], some_directions[rows[some] - first]
            first += len(some_units)
        return units, directions

    @property
    def _width(self) -> int:
        return int(self.field.pulls.queries.shape[1])


def carried_table(field: Field, exam: Exam, rule: Rule, steps: Floats, unjudged: Unjudged) -> Table:
    """Return what every query of *exam* scores at each of *steps* with each of :data:`CARRIES`, carries innermost.

    *field* holds the judged rows and no rivals. Warm: as if the query had never been asked; its pull is taken out of
    the rows that answer it, and out of what they teach the map, and a row that nobody else asked for is carried. Cold:
    as if nobody had judged the rows that answer it; they are carried by a map that was fitted without them and without
    every row that shares a query with one of them.
    """
    examples = Examples(field)
    fitted = examples.fits()
    contenders = _contenders(field, unjudged.parts, exam, fitted, CONTENDERS * rule.k)
    warm = np.empty((len(steps), len(CARRIES), len(exam.units)))
    cold = np.empty_like(warm)
    by_query = zip(_left_out(examples, exam, fitted), standings(field, exam, rule.k, steps), strict=True)
    for query, (left, (own_scores, judged)) in enumerate(counted(by_query, len(exam.units), "queries")):
        asked = (field.metric, exam.units[query].astype(np.float64), float(exam.lengths[query]))
        own = np.concatenate([field.base(slice(row, row + 1)) for row in exam.row[left.pairs]])
        others, grades = unjudged.at(contenders[query]), exam.grades[left.pairs]
        for table, maps, carried in ((warm, left.unasked, left.lone), (cold, left.unjudged, np.ones_like(left.lone))):
            turned = _carried_scores(maps, own, *asked)[:, None]
            crowd = _best(_carried_scores(maps, others, *asked), rule.k)
            at_once = field.budget.block(Share.STEPS, RANKED * len(CARRIES) * len(own))
            for first in range(0, len(steps), at_once):
                some = slice(first, first + at_once)
                placed = np.where(carried[:, None, None], turned, own_scores[:, some, None])
                table[some, :, query] = rule.score(_ranks(placed, judged[:, some], crowd), grades)
    return Table(warm.reshape(-1, len(exam.units)), cold.reshape(-1, len(exam.units)))


def _contenders(field: Field, parts: Iterable[Part], exam: Exam, fitted: list[Fit], most: int) -> list[Ints]:
    """Return for each query the places of the unjudged rows that are among the best *most* under some carry."""
    best = [Best.none(len(exam.units), most) for _ in range(len(fitted) * len(LANDMARKS))]
    rows = min(ROWS_AT_ONCE, field.budget.count(Share.RAYS, EACH * (exam.units.shape[1] + len(exam.units))))
    for places, vectors in parts:
        for first in range(0, len(vectors), rows):
            some = slice(first, first + rows)
            _admit(best, field.metric, exam, fitted, (places[some], np.asarray(vectors[some])))
    found = [np.unique(np.concatenate(rows)) for rows in zip(*(each.places for each in best), strict=True)]
    return [places[places >= 0] for places in found]


def _admit(best: list[Best], metric: Metric, exam: Exam, fitted: list[Fit], part: Part) -> None:
    """Let the rows of *part* in where they are among the best under a carry."""
    places, vectors = part
    units, lengths = unit(vectors)
    queries = exam.units.astype(np.float32)
    along = queries @ units.T
    for number, fit in enumerate(fitted):
        directions = fit.map.directions(units).astype(np.float32)
        across = queries @ directions.T
        scale = _turned_lengths(units, directions, LANDMARKS).astype(np.float32)
        for offset, reach in enumerate(LANDMARKS.astype(np.float32)):
            cosines = (along + reach * across) / scale[:, offset]
            scores = engine_score(metric, cosines, lengths, exam.lengths[:, None])
            best[number * len(LANDMARKS) + offset].admit(scores.astype(np.float32), places)


def _turned_lengths(units: Vectors, directions: Vectors | Floats, reaches: Floats) -> Floats:
    """Return ‖v + x·δ‖ of rows v with directions δ, both (n, d), at all *reaches* x: (n, reaches)."""
    leaning = np.einsum("ij,ij->i", units, directions, dtype=np.float64)[:, None]
    size = np.einsum("ij,ij->i", directions, directions, dtype=np.float64)[:, None]
    return np.asarray(np.sqrt(1 + 2 * reaches * leaning + reaches**2 * size))


def _carried_scores(maps: list[Map], vectors: Vectors, metric: Metric, query: Floats, query_length: float) -> Floats:
    """Return the engine's scores of raw *vectors* (c, d) under every carry, (c, carries)."""
    units, lengths = unit(vectors)
    found = []
    for each in maps:
        directions = each.directions(units)
        cosines = (units @ query)[:, None] + REACHES * (directions @ query)[:, None]
        cosines /= _turned_lengths(units, directions, REACHES)
        found.append(engine_score(metric, cosines, lengths[:, None], np.array(query_length)))
    return np.concatenate(found, axis=1).astype(np.float32).astype(np.float64)


def _best(scores: Floats, k: int) -> Floats:
    """Return the *k* best of *scores* (c, carries) under each carry, (≤ k, carries)."""
    return scores if len(scores) <= k else np.partition(scores, len(scores) - k, axis=0)[-k:]


def _ranks(own: Floats, judged: Floats, crowd: Floats) -> Ints:
    """Return the ranks (R, steps, carries) of *own* among *judged* (c, steps), *crowd* (k, carries) and each other."""
    above = (judged[None, :, :, None] >= own[:, None]).sum(axis=1)
    above += (crowd[None, :, None, :] >= own[:, None]).sum(axis=1)
    order = np.argsort(-own, axis=0, kind="stable")
    return np.asarray(1 + above + np.argsort(order, axis=0))


@dataclass(frozen=True)
class LeftOut:
    """What is left of the fits without a query."""

    pairs: slice
    """Those of the query, in the exam."""
    lone: Mask
    """(R,): which of its answers nobody else asked for."""
    unasked: list[Map]
    """As if the query had never been asked."""
    unjudged: list[Map]
    """As if nobody had judged its answers, nor the rows that share a query with one of them."""


def _left_out(examples: Examples, exam: Exam, fitted: list[Fit]) -> Iterator[LeftOut]:
    """Yield for each query what is left of the fits without it."""
    pulls = examples.field.pulls
    once = np.bincount(pulls.row, minlength=pulls.rows) == 1
    around = _neighbourhoods(exam, pulls)
    for group in _groups(around, examples.field.budget.count(Share.CONTENDERS, 8 * exam.units.shape[1])):
        needed = np.unique(np.concatenate([rows for _, rows in group]))
        units, directions = examples.of(needed)
        for pairs, rows in group:
            own, some = (np.searchsorted(needed, each) for each in (exam.row[pairs], rows))
            lone = once[exam.row[pairs]] & (exam.left_out[pairs] > 0)
            unasked = _unasked(examples.field, exam, pairs, (units[own], directions[own]), lone, fitted)
            yield LeftOut(pairs, lone, unasked, [fit.without(units[some], directions[some]) for fit in fitted])


def _unasked(
    field: Field, exam: Exam, pairs: slice, own: tuple[Vectors, Vectors], lone: Mask, fitted: list[Fit]
) -> list[Map]:
    """Return the maps as if the query of *pairs* had never been asked, given units and directions of its *own* rows.

    Rows that others asked for teach the direction that they would move in then; *lone* ones teach nothing.
    """
    units, directions = own
    pulls = np.concatenate([field.pulls.of(row, row + 1) for row in exam.row[pairs]])
    query = exam.units[exam.query[pairs]].astype(np.float64)
    rays = RAYS[field.method](units, pulls - exam.left_out[pairs, None] * query, np.linalg.norm(pulls, axis=1))
    kept = ~lone
    retaught = (fit.retaught(units[kept], directions[kept], rays.directions[kept]) for fit in fitted)
    return [fit.without(units[lone], directions[lone]) for fit in retaught]


def _groups(around: list[tuple[slice, Ints]], room: int) -> Iterator[list[tuple[slice, Ints]]]:
    """Yield runs of neighbourhoods whose rows are no more than there is *room* for, or one that has more."""
    group: list[tuple[slice, Ints]] = []
    rows: set[int] = set()
    for each in around:
        rows |= set(each[1].tolist())
        if group and len(rows) > room:
            yield group
            group, rows = [], set(each[1].tolist())
        group.append(each)
    yield group


def _neighbourhoods(exam: Exam, pulls: Pulls) -> list[tuple[slice, Ints]]:
    """Return for each query its pairs, and the rows that answer it with those that share a query with them."""
    graph = Neighbours.of(pulls.query, pulls.row)
    spans = [slice(*np.searchsorted(exam.query, [query, query + 1])) for query in range(len(exam.units))]
    return [(pairs, graph.around(np.unique(exam.row[pairs]))) for pairs in spans]
