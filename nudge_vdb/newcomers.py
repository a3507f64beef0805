"""Carrying the rows that came after a plan, or were embedded again since, by the map of the version that is live."""

from __future__ import annotations

from typing import Any

import numpy as np

from nudge_vdb.contract import Collection, Mask, Traits, Vectors
from nudge_vdb.errors import StateConflict
from nudge_vdb.lineage import Lineage
from nudge_vdb.notes import require_own
from nudge_vdb.pages import Pages, forget, page_out
from nudge_vdb.phases import Phases
from nudge_vdb.placing import carried, gathered
from nudge_vdb.planning import Ground, settle
from nudge_vdb.report import INTERNAL, now
from nudge_vdb.retry import Patient
from nudge_vdb.ridge import Map
from nudge_vdb.run import Applied, apply, as_plan, resume
from nudge_vdb.snapshot import Content, Version
from nudge_vdb.standing import Folder, known_state
from nudge_vdb.state import State


def carry(collection: Collection, *, state: Folder = None, phases: Phases | None = None) -> Applied:
    """Move the rows that the live version does not know, or knows with another base, by the map of that version.

    The other rows of the version stay where they are. What is written is a new version, which can be undone like any
    other; where there is nothing to carry, there is none. Nothing is tuned again, so no judgements are needed.

    Raises:
        StateConflict: no version is live, the live one carries nothing, or a move was interrupted.
    """
    home, phases = known_state(collection, state), phases or Phases()
    if _died_carrying(home):
        resume(collection, state=state, phases=phases)
        home = known_state(collection, state)
    with home.locked():
        require_own(Patient(collection), home)
        live = _live(home)
        version = _extended(Patient(collection), home, live, phases)
        forget(home.pages)
    return apply(as_plan(collection, home, version, phases), force=True)


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
        raise StateConflict(f"{home.traits.identity} is at its base; tune it with --carry on first")
    version = home.version(number)
    if version.content.map is None:
        raise StateConflict(f"version {number}, which is live, carries no unjudged rows; tune again with --carry on")
    return version


def _extended(collection: Collection, home: State, live: Version, phases: Phases) -> Version:
    """Return the live version with newcomers, or as it is if there are none."""
    with phases("page out", collection.count()) as step:
        pages = page_out(collection, home.pages, step)
    with phases("compute"):
        ground = settle(collection, pages, Lineage(home), [], live.number)
        placement = Extension(ground, live.content, float(live.manifest["reach"]), home.traits)
        new, moving = placement.looked_through()
        if not new:
            return live
        content = placement.content(moving)
    with phases("snapshot"):
        return home.add_version(content, _facts(live, ground, content, new))


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

    def content(self, moving: Mask) -> Content:
        """Return the rows that are *moving*."""
        return gathered(self._pages, moving, lambda part: self._placed(part)[2], self._content.seen, self._map)

    def _placed(self, part: slice) -> tuple[Mask, Mask, Vectors]:
        """Return which rows of a slice move, which of them the version knows, and where each stands."""
        base = np.array(self._pages.vectors[part])
        moving, placed = carried(base, self._map, self._reach, self._traits)
        places = self._content.keys.find(self._pages.keys.at(range(part.start, part.stop)))
        rows = np.flatnonzero(places >= 0)
        rows = rows[(self._content.base[places[rows]] == base[rows]).all(axis=1)]
        placed[rows] = self._content.tuned[places[rows]]
        known = np.zeros(len(base), bool)
        known[rows] = True
        return moving | known, known, placed


def _facts(live: Version, ground: Ground, content: Content, new: int) -> dict[str, Any]:
    """Return the figures of the live version, which still hold, with the new counts of rows."""
    pages: Pages = ground.pages
    kept = {name: value for name, value in live.manifest.items() if name not in (*INTERNAL, "version")}
    judged = int(kept["moved"]) - int(kept["carried"])
    return {
        **kept,
        "created": now(),
        "parent": live.number,
        "rows": len(pages),
        "moved": len(content.keys),
        "carried": len(content.keys) - judged,
        "newly_carried": new,
        "rows_without_vector": pages.absent,
        "rows_not_finite": ground.texts(pages.unfit),
        "re_embedded": ground.re_embedded,
        "warnings": [],
    }
