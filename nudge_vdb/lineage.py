"""Whose vector is it? The base of a live vector, told from the versions."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nudge_vdb.contract import Mask, RowKey, Vectors, agree
from nudge_vdb.dropped import Dropped, digests
from nudge_vdb.errors import StateDamaged
from nudge_vdb.keys import KeyTable
from nudge_vdb.nudge import unit
from nudge_vdb.snapshot import Content
from nudge_vdb.state import State

AT_ONCE = 4096
ALIKE = 0.99
"""The least cosine of a vector with the one before it if the same text was embedded again by the same model."""
NEARLY = 1e-3
"""How far a vector may be from what was sent, relative to its length, and be a change of the engine's making."""


class Lineage:
    """Every row that we may have moved, with each base and each tuned vector it ever had.

    A live vector that equals the base or the tuned vector of some version belongs to us, and its base is that
    version's; the newest version that knows it decides. Any other vector is its owner's: a new base. Versions that
    were dropped count too: what they put into a row may come back with a restored backup.
    """

    def __init__(self, state: State, towards: int = 0, without: int = 0, *, checked: bool = True) -> None:
        """Take in every version that some row may hold, and the one that the collection is to be moved to.

        *without* is a version to leave out, as if it were not there. Files that are not *checked* are good for a glance
        alone.
        """
        begun = {*state.journal.begun(), towards} - {without}
        self._width, self.tolerance = state.traits.width, state.traits.tolerance
        taken = (version for version in state.versions() if version.number in begun)
        self._versions = {each.number: each.content if checked else each.unchecked for each in taken}
        self._dropped = {number: Dropped.of(kept) for number, kept in state.dropped().items()}
        lost = sorted(begun - {0} - set(self._versions))
        if lost:
            raise StateDamaged(
                f"version {lost[0]} was written to the database and is not in {state.folder / 'versions'}; "
                "restore it from a backup of the state"
            )

    def before(self, content: Content) -> Lineage:
        """Return the lineage as it will be when *content* is kept as the newest version."""
        later = copy(self)
        later._versions = {**self._versions, self.newest + 1: content}
        later.__dict__.pop("_keys", None)
        return later

    @property
    def newest(self) -> int:
        """The highest version that is taken in, 0 where there is none."""
        return max([0, *self._versions, *self._dropped])

    def keys(self) -> KeyTable:
        """Return the keys of all rows that may not be at their base, ascending."""
        return self._keys

    @cached_property
    def _keys(self) -> KeyTable:
        return KeyTable.union(each.keys for each in self._all)

    @property
    def _all(self) -> list[Content | Dropped]:
        return [*self._versions.values(), *self._dropped.values()]

    def bases(self, keys: Sequence[RowKey], live: Vectors) -> tuple[Vectors, Mask]:
        """Return the base vectors (n, width) of rows whose *live* vectors (n, width) are given, and which are ours.

        A row that is not ours has its live vector as base.
        """
        base, ours = live.copy(), np.zeros(len(keys), bool)
        for number in sorted((*self._versions, *self._dropped), reverse=True):
            if ours.all():
                break
            if number in self._dropped:
                self._known_again(self._dropped[number], keys, live, base, ours)
                continue
            content = self._versions[number]
            places = content.keys.find(keys)
            open_rows = np.flatnonzero((places >= 0) & ~ours)
            held = places[open_rows]
            known = agree(live[open_rows], content.tuned[held], self.tolerance)
            known |= agree(live[open_rows], content.base[held], self.tolerance)
            base[open_rows[known]] = content.base[held[known]]
            ours[open_rows[known]] = True
            content.release()
        return base, ours

    def _known_again(self, dropped: Dropped, keys: Sequence[RowKey], live: Vectors, base: Vectors, ours: Mask) -> None:
        """Fill in *base* and *ours* for the rows that hold a vector of a *dropped* version."""
        places = dropped.keys.find(keys)
        rows = np.flatnonzero((places >= 0) & ~ours)
        tuned = rows[dropped.tuned(places[rows], live[rows], self.tolerance)]
        bases, found = self._dropped_bases(dropped, dropped.keys.at(places[tuned]), places[tuned])
        base[tuned[found]], ours[tuned[found]] = bases[found], True
        rows = rows[~ours[rows] & (dropped.base_places[places[rows]] >= 0)]
        ours[rows] = dropped.based(places[rows], live[rows], self.tolerance)

    def _dropped_bases(
        self, dropped: Dropped, keys: Sequence[RowKey], places: NDArray[np.int64]
    ) -> tuple[Vectors, Mask]:
        """Return the bases of the rows of *dropped* at *places*, and which are known: all, if files are whole."""
        base, own = np.zeros((len(keys), self._width), np.float32), dropped.base_places[places]
        base[own >= 0] = dropped.base[own[own >= 0]]
        found = own >= 0
        for other in self._all:
            if found.all():
                break
            at = other.keys.find(keys)
            if isinstance(other, Dropped):
                at = np.where(at >= 0, other.base_places[at], -1)
            rows = np.flatnonzero((at >= 0) & ~found)
            held = other.base[at[rows]]
            same = digests(held) == dropped.base_digests[places[rows]]
            base[rows[same]], found[rows[same]] = held[same], True
        return base, found

    def newest_bases(self, keys: Sequence[RowKey]) -> Vectors:
        """Return the base vectors (n, width) of rows of ours, each as the newest version that holds it has it."""
        base, found = np.zeros((len(keys), self._width), np.float32), np.zeros(len(keys), bool)
        for number in sorted(self._versions, reverse=True):
            content = self._versions[number]
            places = content.keys.find(keys)
            rows = np.flatnonzero((places >= 0) & ~found)
            base[rows] = content.base[places[rows]]
            found[rows] = True
            content.release()
        for number in sorted(self._dropped, reverse=True) if not found.all() else ():
            places = self._dropped[number].keys.find(keys)
            rows = np.flatnonzero((places >= 0) & ~found)
            some = self._dropped[number].keys.at(places[rows])
            base[rows], found[rows] = self._dropped_bases(self._dropped[number], some, places[rows])
        return base

    def targets(self, number: int, keys: Sequence[RowKey], base: Vectors) -> Vectors:
        """Return where version *number* puts the rows with these *base* vectors.

        A row whose base has changed since that version was made stays at its new base.
        """
        target = base.copy()
        if number == 0:
            return target
        content = self._versions[number]
        places = content.keys.find(keys)
        rows = np.flatnonzero(places >= 0)
        same = agree(base[rows], content.base[places[rows]], self.tolerance)
        target[rows[same]] = content.tuned[places[rows[same]]]
        content.release()
        return target

    def rebased(self, number: int, keys: Sequence[RowKey], base: Vectors) -> Mask:
        """Tell which rows had another base at the time of version *number* than *base*, their owner's since."""
        differs, judged = np.zeros(len(keys), bool), np.zeros(len(keys), bool)
        known = sorted((*self._versions, *self._dropped))
        before, after = ([each for each in known if (each > number) == later] for later in (False, True))
        for version in (*reversed(before), *after):
            rows, differ = self._differing(version, keys, base, ~judged)
            differs[rows], judged[rows] = differ, True
        return differs

    def _differing(
        self, version: int, keys: Sequence[RowKey], base: Vectors, asked: Mask
    ) -> tuple[NDArray[np.int64], Mask]:
        """Return the places of the rows *asked* for that *version* holds, and which have another *base* in it."""
        held = self._dropped.get(version) or self._versions[version]
        places = held.keys.find(keys)
        rows = np.flatnonzero((places >= 0) & asked)
        if isinstance(held, Dropped):
            return rows, ~held.based(places[rows], base[rows], self.tolerance)
        same = agree(base[rows], held.base[places[rows]], self.tolerance)
        held.release()
        return rows, ~same

    def nearly(self, number: int, keys: Sequence[RowKey], live: Vectors) -> Mask:
        """Tell which *live* vectors are nearly what version *number* put there, as if the engine had changed them."""
        near = np.zeros(len(keys), bool)
        if number == 0:
            return near
        content = self._versions[number]
        places = content.keys.find(keys)
        rows = np.flatnonzero(places >= 0)
        tuned = content.tuned[places[rows]].astype(np.float64)
        apart = np.linalg.norm(live[rows] - tuned, axis=1)
        near[rows] = apart <= NEARLY * np.linalg.norm(tuned, axis=1)
        return near

    def holds(self, number: int, keys: Sequence[RowKey]) -> Mask:
        """Tell which of *keys* version *number* holds, and had before it when it was made."""
        if number == 0:
            return np.zeros(len(keys), bool)
        content = self._versions[number]
        places = content.keys.find(keys)
        held = places >= 0
        return held if content.away is None else held & ~np.isin(places, content.away)

    def embedded_otherwise(self, number: int, keys: Sequence[RowKey], live: Vectors) -> Mask:
        """Tell which rows of version *number* have *live* vectors that are not nearly the base that it knows."""
        other = np.zeros(len(keys), bool)
        if number == 0:
            return other
        content = self._versions[number]
        places = content.keys.find(keys)
        rows = np.flatnonzero(places >= 0)
        now, then = (unit(vectors)[0] for vectors in (live[rows], content.base[places[rows]]))
        other[rows] = ~(np.einsum("ij,ij->i", now, then, dtype=np.float64) >= ALIKE)
        content.release()
        return other

    def only_in(self, number: int) -> NDArray[np.int64]:
        """Return the places of the rows of version *number* that no newer version holds with the same two vectors.

        Of every other row that version decides nothing: what it knows, bit for bit, a newer one knows and decides.
        """
        keys = self._versions[number].keys
        newer = [content for other, content in self._versions.items() if other > number]
        parts = [range(first, min(first + AT_ONCE, len(keys))) for first in range(0, len(keys), AT_ONCE)]
        found = [part.start + np.flatnonzero(~self._repeated(number, part, newer)) for part in parts]
        return np.concatenate([np.empty(0, np.int64), *found])

    def _repeated(self, number: int, part: range, others: Sequence[Content]) -> Mask:
        """Tell which of some rows of version *number* stand, bit for bit, in one of *others*."""
        content, repeated = self._versions[number], np.zeros(len(part), bool)
        keys, some = content.keys.at(part), slice(part.start, part.stop)
        for other in others:
            places = other.keys.find(keys)
            rows = np.flatnonzero(places >= 0)
            base = _identical(content.base[some][rows], other.base[places[rows]])
            repeated[rows] |= base & _identical(content.tuned[some][rows], other.tuned[places[rows]])
        return repeated


def _identical(left: Vectors, right: Vectors) -> Mask:
    """Tell which rows of two (n, width) arrays are the same to the last bit."""
    return np.asarray((left.view(np.uint32) == right.view(np.uint32)).all(axis=1))
