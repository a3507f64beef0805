"""Carrying the rows that came after a plan, or were embedded again since, by the map of the version that is live."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from nudge_vdb.budget import USUAL, Budget, budget_of
from nudge_vdb.contract import Collection, Mask, Traits, Vectors
from nudge_vdb.errors import StateConflict
from nudge_vdb.given import taking_addresses
from nudge_vdb.ground import Ground, settle
from nudge_vdb.lineage import Lineage
from nudge_vdb.notes import require_own
from nudge_vdb.nudge import Ints
from nudge_vdb.pace import require_rate
from nudge_vdb.pages import Pages, forget, page_out
from nudge_vdb.phases import Phases
from nudge_vdb.placing import Away, carried, gathered
from nudge_vdb.prune import drop_superseded
from nudge_vdb.report import INTERNAL, now
from nudge_vdb.retry import Patient
from nudge_vdb.ridge import Map
from nudge_vdb.run import Applied, apply, as_plan, resume, same_content
from nudge_vdb.snapshot import Content, Version
from nudge_vdb.standing import Folder, known_state
from nudge_vdb.state import State
from nudge_vdb.verify import refuse_another_model

NOT_OF_NEWCOMERS = (*INTERNAL, "version", "rivals", "rows_read", "rows_to_write", "snapshot_bytes", "minutes")
"""Beginnings of the names of figures that were those of the plan alone."""
TUNE = "'nudge-vdb tune ADDRESS --judgements PATH --carry on'"


@taking_addresses
def carry(
    collection: Collection,
    *,
    gone: bool = False,
    state: Folder = None,
    throttle: float | None = None,
    memory: int = USUAL,
    phases: Phases | None = None,
) -> Applied:
    """Move the rows that the live version does not know, or knows with another base, by the map of that version.

    The other rows of the version stay where they are. What is written is a new version, which can be undone like any
    other; where there is nothing to carry, there is none. Nothing is tuned again, so no judgements are needed. Rows of
    the live version that are not there may come back, so they stay in it; with *gone*, they are gone for good. No more
    than *throttle* rows are written, and afterwards read back, in a second, and no more than *memory* bytes held at
    once to find where rows go.

    The new version holds all that the one before it held. So versions of earlier carries are dropped, except the one
    that the live version came from, and those that alone know the base of a row.

    Raises:
        BadOption: *throttle* is no number of rows per second, or *memory* is too little.
        StateConflict: no version is live, the live one carries nothing, most of its rows were embedded again by another
            model, or a move was interrupted.
    """
    require_rate(throttle)
    budget = budget_of(memory)
    home, phases = known_state(collection, state), phases or Phases()
    if _died_carrying(home):
        refuse_another_model(int(home.journal.unfinished or 0), Patient(collection), home)  # before anything is written
        resume(collection, state=state, throttle=throttle, phases=phases)
        home = known_state(collection, state)
    with home.locked():
        require_own(Patient(collection), home)
        live = _live(home)
        refuse_another_model(live.number, Patient(collection), home, throttle)
        version = _extended(Patient(collection, after_reading=home.require_hold), home, live, phases, budget, gone=gone)
        forget(home.pages)
    applied = apply(as_plan(collection, home, version, phases), force=True, throttle=throttle)
    with home.locked(), phases("prune"):
        dropped = _drop_superseded(Patient(collection), home, version, gone=gone)
    new = 0 if version is live else version.manifest["newly_carried"]
    return replace(applied, report={**applied.report, "newly_carried": new, "dropped": dropped})


def _drop_superseded(collection: Collection, home: State, version: Version, *, gone: bool) -> list[int]:
    """Drop what *version* stands for as well, if it is live: a row of a move that is unfinished may hold anything."""
    if home.journal.unfinished is not None or home.journal.live != version.number:
        return []
    require_own(collection, home)
    return drop_superseded(collection, home, gone=gone)


def _died_carrying(home: State) -> bool:
    """Tell whether the move that was interrupted is one of these."""
    unfinished = home.journal.unfinished
    return bool(unfinished) and "newly_carried" in home.version(int(unfinished or 0)).manifest


def _live(home: State) -> Version:
    """Return the live version, which must be one that carries."""
    number = home.journal.live
    if home.journal.unfinished is not None:
        raise StateConflict("a move was interrupted; finish it with 'nudge-vdb resume ADDRESS' first")
    if number == 0:
        raise StateConflict(f"{home.traits.identity} is at its base; tune it with --carry on first: {TUNE}")
    version = home.version(number)
    if version.content.map is None:
        raise StateConflict(
            f"version {number}, which is live, carries no unjudged rows; tune again with --carry on: {TUNE}"
        )
    return version


def _extended(
    collection: Collection, home: State, live: Version, phases: Phases, budget: Budget, *, gone: bool
) -> Version:
    """Return the live version with newcomers, or as it is if there are none."""
    with phases("page out", collection.count()) as step:
        pages = page_out(collection, home.pages, step, budget)
    with phases("compute"):
        ground = settle(collection, pages, Lineage(home), [], live.number)
        placement = Extension(ground, live.content, float(live.manifest["reach"]), home.traits)
        new, moving = placement.looked_through()
        if not new:
            return live
        content = placement.content(moving, Away(live.content, np.empty(0, np.int64) if gone else _away(live, ground)))
    waiting = _waiting(home, live)
    if waiting is not None and same_content(waiting.content, content, home):
        return waiting
    with phases("snapshot"):
        return home.add_version(content, _facts(live, ground, content, new))


def _waiting(home: State, live: Version) -> Version | None:
    """Return what a carry from *live* made that died before it wrote, None where none did."""
    begun = home.journal.begun()
    left = [each for each in home.versions() if "newly_carried" in each.manifest and each.number not in begun]
    return next((each for each in left if each.manifest["parent"] == live.number), None)


def _away(live: Version, ground: Ground) -> Ints:
    """Return the places of the rows of *live* that are not there."""
    return np.flatnonzero(ground.pages.keys.find(live.content.keys) < 0)


class Extension:
    """The rows of the live version, and those that are to be carried by its map."""

    def __init__(self, ground: Ground, content: Content, reach: float, traits: Traits) -> None:
        self._pages, self._content, self._reach, self._traits = ground.pages, content, reach, traits
        self._map = Map(np.asarray(content.map))

    def looked_through(self) -> tuple[int, Mask]:
        """Return how many rows are new, and which rows belong to the version, (n,)."""
        new, all_moving = 0, [np.zeros(0, bool)]
        for part in self._pages.chunks():
            moving, known, _ = self._placed(part)
            new += int((moving & ~known).sum())
            all_moving.append(moving)
        return new, np.concatenate(all_moving)

    def content(self, moving: Mask, away: Away) -> Content:
        """Return the rows that are *moving*, and those that are *away*."""
        return gathered(self._pages, moving, lambda part: self._placed(part)[2], self._content.seen, self._map, away)

    def _placed(self, part: slice) -> tuple[Mask, Mask, Vectors]:
        """Return which rows of a slice move, which of them the version knows, and where each stands."""
        base = np.array(self._pages.vectors[part])
        moving, placed = carried(base, self._map, self._reach, self._traits)
        places = self._content.keys.find(self._pages.keys.select(range(part.start, part.stop)))
        rows = np.flatnonzero(places >= 0)
        rows = rows[(self._content.base[places[rows]] == base[rows]).all(axis=1)]
        placed[rows] = self._content.tuned[places[rows]]
        self._content.release()
        known = np.zeros(len(base), bool)
        known[rows] = True
        return moving | known, known, placed


def _facts(live: Version, ground: Ground, content: Content, new: int) -> dict[str, Any]:
    """Return the figures of the live version that still hold, with the new counts of rows."""
    pages: Pages = ground.pages
    kept = {name: value for name, value in live.facts().items() if not name.startswith(NOT_OF_NEWCOMERS)}
    judged = int(kept["moved"]) - int(kept["carried"])
    there = len(content.keys) - (0 if content.away is None else len(content.away))
    return {
        **kept,
        "created": now(),
        "parent": live.number,
        "rows": len(pages),
        "moved": there,
        "carried": there - judged,
        "away": len(content.keys) - there,
        "newly_carried": new,
        "rows_without_vector": pages.absent,
        "rows_not_finite": ground.texts(pages.unfit),
        "re_embedded": ground.re_embedded,
        "alternatives": [],
        "warnings": [],
    }
