"""Where a plan puts the rows: the judged ones, and, carried along, the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from nudge_vdb.budget import Share
from nudge_vdb.choice import Choice
from nudge_vdb.contract import Mask, RowKey, Traits, Vectors, as_stored
from nudge_vdb.errors import BadOption
from nudge_vdb.judgements import Judgements
from nudge_vdb.keys import KeyTable
from nudge_vdb.mapped import picked, put, release
from nudge_vdb.nudge import RAYS, Floats, Ints, Method, Rays, unit
from nudge_vdb.pages import Pages
from nudge_vdb.planning import Course
from nudge_vdb.ranking import scores
from nudge_vdb.ridge import RIDGES, Carry, Map, turned
from nudge_vdb.rivals import Part
from nudge_vdb.seen import Seen
from nudge_vdb.snapshot import Content

SHORTEST = 1e-3
"""The part of its length that a row must keep: engines keep the direction of nothing."""
LONGEST = 1e19
"""The square of a longer one is no float32."""
COMPARED_AT_ONCE = 1024
EACH = 96
"""Bytes that a component of a row takes while the row is moved."""


def moved_rows(course: Course, step: float, seen: Seen) -> Content:
    """Return every row that *step* moves, with its base and its tuned vector; one that stays is left out."""
    pages = course.ground.pages
    moving = np.concatenate([np.zeros(0, bool), *(_moving(course, part, step) for part in _slices(course))])
    at, keys = in_key_order(pages.keys.select(course.wanted[moving]))
    base, tuned = (pages.scratch(name, len(keys)) for name in ("base", "tuned"))
    done = 0
    for part in _slices(course):
        some = at[done : done + int(moving[part].sum())]
        put(base, some, course.base(part)[moving[part]])
        put(tuned, some, nudged(course, part, step)[1][moving[part]])
        done += len(some)
    return Content(keys, base, tuned, seen)


def _slices(course: Course) -> Iterator[slice]:
    """Yield slices of the wanted rows, as large as the budget allows."""
    rows = course.ground.pages.budget.count(Share.RAYS, EACH * course.traits.width)
    return (slice(first, min(first + rows, len(course.wanted))) for first in range(0, len(course.wanted), rows))


def nudged(course: Course, part: slice, step: float) -> tuple[Mask, Vectors]:
    """Return which of a slice of the wanted rows *step* moves, and where it puts each."""
    rays, lengths = _rays(course, part)
    return (rays.floor < 1) & (step > 0), _scaled(course, rays.at(step), lengths)


def _moving(course: Course, part: slice, step: float) -> Mask:
    """Return which of a slice of the wanted rows *step* moves."""
    return (_rays(course, part)[0].floor < 1) & (step > 0)


def _rays(course: Course, part: slice) -> tuple[Rays, Floats]:
    """Return the paths of a slice of the wanted rows, and their lengths."""
    units, lengths = unit(course.base(part))
    return RAYS[Method(course.options.method)](units, course.pulls.of(part.start, part.stop), None), lengths


def refuse_vanishing(content: Content, step: float, text_of: Callable[[RowKey], str]) -> None:
    """Refuse a *step* after which a row would have lost its length, or have one that no engine can compare with.

    Raises:
        BadOption: such a row, and what to do.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        before, after = (_lengths(vectors) for vectors in (content.base, content.tuned))
        lost = np.flatnonzero(~((after >= SHORTEST * before) & (after <= LONGEST)))
    if len(lost):
        worst = int(lost[0])
        raise BadOption(
            f"step {step:g} would leave row {text_of(content.keys[worst])!r} with a vector of length "
            f"{after[worst]:.3g} (it is {before[worst]:.3g} long now), which cannot be searched for; "
            "give a smaller --step, or --method nudge-n, which keeps lengths"
        )


def _lengths(vectors: Vectors) -> Floats:
    """Return the lengths of *vectors* (n, d), which may be mapped and too many to be held: (n,)."""
    parts = (vectors[first : first + COMPARED_AT_ONCE] for first in range(0, len(vectors), COMPARED_AT_ONCE))
    found = []
    for part in parts:
        found.append(np.linalg.norm(part.astype(np.float64), axis=1))
        release(vectors)
    return np.concatenate([np.empty(0), *found])


def _scaled(course: Course, units: Vectors, lengths: Floats) -> Vectors:
    """Return *units* at *lengths*, or as they are where the engine scales them anyway."""
    scale = np.ones_like(lengths) if course.traits.rescales else lengths
    return as_stored((units.astype(np.float64) * scale[:, None]).astype(np.float32), course.traits)


def carried(vectors: Vectors, mapped: Map, reach: float, traits: Traits) -> tuple[Mask, Vectors]:
    """Return which of raw *vectors* (c, d) are carried, and where to; one that is zero or too long stays."""
    with np.errstate(all="ignore"):
        units, lengths = unit(vectors)
    fit = _can_be_carried(lengths)
    units[~fit] = 0
    moved = turned(units, mapped.directions(units), reach)
    scale = np.ones_like(lengths) if traits.rescales else lengths
    placed = as_stored((moved * scale[:, None]).astype(np.float32), traits)
    return fit, np.where(fit[:, None], placed, vectors)


def _can_be_carried(lengths: Floats) -> Mask:
    """Tell which rows of such *lengths* (c,) have a direction, and a length that an engine can compute with."""
    return np.asarray((lengths > 0) & (lengths <= LONGEST))


@dataclass(frozen=True)
class Placement:
    """A plan that carries: judged rows moved by a step, every other row by a map."""

    course: Course
    """Of the judged rows alone."""
    step: float
    carry: Carry
    map: Map

    def chunk(self, part: slice) -> tuple[Mask, Vectors]:
        """Return which rows of a slice of the pages move, and where each stands."""
        course = self.course
        vectors = np.array(course.ground.pages.vectors[part])
        moving, placed = carried(vectors, self.map, self.carry.reach, course.traits)
        wanted = slice(*(int(each) for each in np.searchsorted(course.wanted, [part.start, part.stop])))
        judged = course.wanted[wanted] - part.start
        moving[judged], tuned = nudged(course, wanted, self.step)
        placed[judged] = np.where(moving[judged, None], tuned, vectors[judged])
        return moving, placed

    def parts(self) -> Iterator[Part]:
        """Stream all rows where the plan puts them."""
        for part in self.course.ground.pages.counted_chunks():
            yield np.arange(part.start, part.stop), self.chunk(part)[1]

    def content(self, seen: Seen) -> Content:
        """Return every row that moves, in arrays mapped from files beside the pages."""
        pages = self.course.ground.pages
        moving = np.concatenate([self._moving(part) for part in pages.chunks()])
        return gathered(pages, moving, lambda part: self.chunk(part)[1], seen, self.map)

    def _moving(self, part: slice) -> Mask:
        course = self.course
        moving = _can_be_carried(_lengths(course.ground.pages.vectors[part]))
        wanted = slice(*(int(each) for each in np.searchsorted(course.wanted, [part.start, part.stop])))
        moving[course.wanted[wanted] - part.start] = True  # also one that stays: it belongs to the version, at its base
        return np.asarray(moving)

    def scores(self, judgements: Judgements) -> tuple[Floats, Floats]:
        """Return what each query scores at the base and where the plan puts the rows, both (nq,)."""
        ground, metric, rule = self.course.ground, self.course.traits.metric, [self.course.options.measure]
        ways = (lambda: ground.parts_without(np.empty(0, np.int64)), self.parts)
        before, after = (scores(judgements, way, ground.texts, metric, rule, ground.pages.budget)[0] for way in ways)
        return before, after


def placed(choice: Choice) -> Placement | None:
    """Return where *choice* puts the rows, None where it leaves the unjudged ones at their base."""
    if choice.carry is None:
        return None
    fitted = choice.course.examples().fits()
    return Placement(choice.course, choice.step, choice.carry, fitted[RIDGES.index(choice.carry.ridge)].map)


def moved(choice: Choice, placement: Placement | None, seen: Seen) -> Content:
    """Return every row that moves, with its base and its tuned vector."""
    return moved_rows(choice.course, choice.step, seen) if placement is None else placement.content(seen)


@dataclass(frozen=True)
class Away:
    """Rows of a version that are not there now, and may come back."""

    content: Content
    places: Ints

    @property
    def keys(self) -> list[RowKey]:
        """Their keys."""
        return self.content.keys.at(self.places)


def gathered(
    pages: Pages,
    moving: Mask,
    tuned_of: Callable[[slice], Vectors],
    seen: Seen,
    mapped: Map,
    away: Away | None = None,
) -> Content:
    """Return the rows of *pages* that are *moving* (n,), and those that are *away*, in arrays mapped from files.

    *tuned_of* gives the tuned vectors of all rows of a slice. Nothing is held but a slice, the keys, and their order.
    """
    places, absent = np.flatnonzero(moving), [] if away is None else away.keys
    there = pages.keys.select(places)
    at, keys = in_key_order(KeyTable.of([*there, *absent]) if absent else there)
    base, tuned = (pages.scratch(name, len(keys)) for name in ("base", "tuned"))
    for part in pages.chunks():
        some = slice(*np.searchsorted(places, [part.start, part.stop]))
        put(base, at[some], pages.vectors[places[some]])
        put(tuned, at[some], tuned_of(part)[places[some] - part.start])
    if away is None or not absent:
        return Content(keys, base, tuned, seen, mapped.matrix)
    theirs = at[len(places) :]
    for first in range(0, len(theirs), COMPARED_AT_ONCE):
        some = slice(first, first + COMPARED_AT_ONCE)
        put(base, theirs[some], picked(away.content.base, away.places[some]))
        put(tuned, theirs[some], picked(away.content.tuned, away.places[some]))
    return Content(keys, base, tuned, seen, mapped.matrix, away=np.sort(theirs))


def in_key_order(keys: KeyTable) -> tuple[Ints, KeyTable]:
    """Return where each of *keys* stands when they are in order, and the keys in that order."""
    order = keys.order()
    at = np.empty(len(keys), np.int64)
    at[order] = np.arange(len(keys))
    return at, keys.select(order)
