"""Dropping old versions, except those that some live row still needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from nudge_vdb.contract import Collection, RowKey, agree
from nudge_vdb.dropped import remains_of
from nudge_vdb.errors import BadOption, StateConflict
from nudge_vdb.given import taking_addresses
from nudge_vdb.lineage import Lineage
from nudge_vdb.notes import require_own
from nudge_vdb.phases import Phases
from nudge_vdb.retry import Patient
from nudge_vdb.standing import Folder, known_state
from nudge_vdb.state import State
from nudge_vdb.writeback import batches


@dataclass
class Pruned:
    """What became of the versions."""

    dropped: list[int] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    needed: dict[int, int] = field(default_factory=dict)
    """Versions that were to go and stay, with the number of rows whose base only they know."""
    remembered: int = 0
    """Rows of the dropped versions whose vectors are known again, should they come back with a restored backup."""
    remembered_bytes: int = 0
    """What that takes on the disk."""


@taking_addresses
def prune(
    collection: Collection, *, keep: int, gone: bool = False, state: Folder = None, phases: Phases | None = None
) -> Pruned:
    """Drop all versions but the newest *keep*, the live one, and those that alone know the base of a row.

    A row that is not there counts too, since it may come back, for instance into the scope; with *gone*, rows that are
    not there are gone for good.

    Raises:
        BadOption: *keep* is negative.
        StateConflict: a move was interrupted; or the vectors belong to another state.
    """
    if keep < 0:
        raise BadOption(f"keep {keep}: expected 0 and above")
    home, phases = known_state(collection, state), phases or Phases()
    with home.locked(), phases("prune"):
        patient = Patient(collection)
        require_own(patient, home)
        if home.journal.unfinished is not None:
            raise StateConflict("a move was interrupted; finish it with 'nudge-vdb resume ADDRESS', then prune")
        return _prune(patient, home, keep, gone=gone)


def drop_superseded(collection: Collection, home: State, *, gone: bool) -> list[int]:
    """Drop the versions that earlier carries made, and return their numbers; *home* is held, and no move unfinished.

    The one that the live version came from stays, so that the last carry can be undone, and so does every one that
    alone knows the base of a row.
    """
    live = home.version(home.journal.live)
    stay = (live.number, live.manifest["parent"])
    carried = [each.number for each in home.versions() if "newly_carried" in each.manifest]
    earlier = [number for number in carried if number < live.number and number not in stay]
    return _dropped(collection, home, earlier, gone=gone).dropped


def _prune(collection: Collection, home: State, keep: int, *, gone: bool) -> Pruned:
    numbers = [version.number for version in home.versions()]
    old = [number for number in numbers[: max(0, len(numbers) - keep)] if number != home.journal.live]
    return _dropped(collection, home, old, gone=gone)


def _dropped(collection: Collection, home: State, old: Sequence[int], *, gone: bool) -> Pruned:
    """Drop the versions *old*, except those that alone know the base of a row."""
    numbers, pruned = [version.number for version in home.versions()], Pruned()
    for number in old:
        needed = _rows_that_need(number, collection, home, gone=gone)
        if needed:
            pruned.needed[number] = needed
        else:
            _drop(home, number, pruned)
    pruned.kept = [number for number in numbers if number not in pruned.dropped]
    return pruned


def _drop(home: State, number: int, pruned: Pruned) -> None:
    """Drop version *number*; of rows that it alone holds so, what tells its vectors again is kept, and every base."""
    pruned.dropped.append(number)
    places = Lineage(home).only_in(number) if number in home.journal.begun() else ()
    if not len(places):
        home.drop(number)
        return
    others = [home.version(each).content for each in sorted(home.journal.begun() - {number})]
    with remains_of(home.version(number).content, np.asarray(places), others, home.folder) as remains:
        arrays = remains.arrays()
        home.drop(number, arrays)
        pruned.remembered += len(remains.keys)
        pruned.remembered_bytes += sum(array.nbytes for array in arrays.values())


def _rows_that_need(number: int, collection: Collection, home: State, *, gone: bool) -> int:
    """Return how many rows would have another base, or none, if version *number* were not there."""
    if number not in home.journal.begun():
        return 0
    known, rest = Lineage(home), Lineage(home, without=number)
    keys, own = home.version(number).content.keys, known.only_in(number)
    parts = (own[part.start : part.stop] for part in batches(len(own), home.traits.width))
    return sum(_needing(collection, known, rest, keys.at(part), keep_away=not gone) for part in parts)


def _needing(collection: Collection, known: Lineage, rest: Lineage, keys: Sequence[RowKey], *, keep_away: bool) -> int:
    live = np.zeros((len(keys), collection.traits.width), np.float32)
    found = collection.fetch(keys, live)
    base, ours = known.bases(keys, live)
    differs = ~agree(base, rest.bases(keys, live)[0], collection.traits.tolerance)
    away = ~found & keep_away  # whatever vector it comes back with
    return int((away | (found & ours & differs)).sum())
