"""The rows of a plan: all of ours at their base, all others where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nudge_vdb.contract import Collection, RowKey, Vectors, agree
from nudge_vdb.errors import UnfitCollection
from nudge_vdb.keys import KeyTable
from nudge_vdb.lineage import Lineage
from nudge_vdb.mapped import put, release
from nudge_vdb.nudge import Floats, Ints
from nudge_vdb.pages import Pages
from nudge_vdb.rivals import Part

SETTLED_AT_ONCE = 4096


@dataclass(frozen=True)
class Ground:
    """The rows as planning sees them: everything of ours at its base, everything else where it is."""

    pages: Pages
    """With base vectors in place of the tuned ones that are live."""
    place: Mapping[RowKey, int]
    """The place in the pages of every row that is judged."""
    moved: Ints
    """Places of the rows that were ever moved, ascending."""
    live: Vectors
    """(len(moved), width): what those rows hold now."""
    re_embedded: list[str]
    """Ids of rows of the live version that hold a vector of their owner's now."""
    text_of: Callable[[RowKey], str]
    at_base_again: int
    """Rows at their base that the live version had moved: another has written them."""

    def texts(self, places: Ints) -> list[str]:
        """Return the ids of the rows at *places*."""
        return [self.text_of(key) for key in self.pages.keys.at(places)]

    def by_id(self, *places: Ints) -> list[Floats]:
        """Return, for arrays of places, numbers in 0 … 1 that ascend with the ids of the rows there."""
        named = np.unique(np.concatenate([each.reshape(-1) for each in places]))
        texts = self.texts(named[named >= 0])
        ranks = np.zeros(len(named))
        ranks[len(named) - len(texts) :][sorted(range(len(texts)), key=texts.__getitem__)] = np.arange(len(texts))
        return [ranks[np.searchsorted(named, each)] / max(1, len(texts)) for each in places]

    def live_parts(self) -> Iterator[Part]:
        """Stream all rows as they are now."""
        for part in self.pages.counted_chunks():
            vectors = np.array(self.pages.vectors[part])
            first, last = np.searchsorted(self.moved, [part.start, part.stop])
            vectors[self.moved[first:last] - part.start] = self.live[first:last]
            release(self.live)
            yield np.arange(part.start, part.stop), vectors

    def parts_without(self, places: Ints) -> Iterator[Part]:
        """Stream the rows at their base; those at *places* and those that cannot be scored have the place −1."""
        left_out = np.union1d(places, self.pages.unfit)
        for part in self.pages.counted_chunks():
            taking_part = np.arange(part.start, part.stop)
            taking_part[left_out[slice(*np.searchsorted(left_out, [part.start, part.stop]))] - part.start] = -1
            yield taking_part, self.pages.vectors[part]


def places_of(pages: Pages, keys: Iterable[RowKey]) -> dict[RowKey, int]:
    """Return the place in *pages* of each of *keys* that is there.

    Raises:
        UnfitCollection: one is there twice.
    """
    places = places_among(pages, KeyTable.of(keys))
    return dict(zip(pages.keys.at(places), places.tolist(), strict=True))


def places_among(pages: Pages, keys: KeyTable) -> Ints:
    """Return the places in *pages* of those of *keys* that are there, ascending.

    Raises:
        UnfitCollection: one is there twice.
    """
    found, places = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for part in pages.keys.parts():
        at = keys.find(pages.keys.select(range(part.start, part.stop)))
        found.append(at[at >= 0])
        places.append(part.start + np.flatnonzero(at >= 0))
    _, counts = np.unique(np.concatenate(found), return_counts=True)
    if (counts > 1).any():
        raise UnfitCollection(f"{(counts > 1).sum()} rows were met twice in one scan; remove the doubles first")
    return np.concatenate(places)


def place_at(version: int, pages: Pages, lineage: Lineage) -> None:
    """Put every row that is ours where *version* has it, in the pages only; 0 is the base."""
    moved = places_among(pages, lineage.keys())
    for first in range(0, len(moved), SETTLED_AT_ONCE):
        some = moved[first : first + SETTLED_AT_ONCE]
        keys = pages.keys.at(some)
        base, ours = lineage.bases(keys, pages.at(some))
        put(pages.vectors, some[ours], lineage.targets(version, keys, base)[ours])


def settle(collection: Collection, pages: Pages, lineage: Lineage, judged: Sequence[RowKey], version: int) -> Ground:
    """Put every row that is ours back to its base, in the pages only, so that no plan is built on an earlier one.

    *version* is the one that is live.
    """
    place, moved = places_of(pages, set(judged)), places_among(pages, lineage.keys())
    again = 0
    live, strangers = pages.scratch("live", len(moved)), []
    for first in range(0, len(moved), SETTLED_AT_ONCE):
        some = slice(first, min(first + SETTLED_AT_ONCE, len(moved)))
        keys, held = pages.keys.at(moved[some]), pages.at(moved[some])
        base, known = lineage.bases(keys, held)
        live[some] = held
        release(live)
        put(pages.vectors, moved[some][known], base[known])
        fallen = known & agree(held, base, lineage.tolerance)
        again += int((fallen & ~agree(base, lineage.targets(version, keys, base), 0.0)).sum())
        strange = ~known & lineage.holds(version, keys)
        strangers += [collection.text_of(key) for key, theirs in zip(keys, strange, strict=True) if theirs]
    return Ground(pages, place, moved, live, strangers, collection.text_of, again)
