"""What is kept of a dropped version: enough to know its vectors again, and every base that only it knew."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nudge_vdb.contract import Mask, Vectors
from nudge_vdb.durable import read_array
from nudge_vdb.keys import KeyTable
from nudge_vdb.mapped import release
from nudge_vdb.nudge import Ints
from nudge_vdb.snapshot import Content, Version

KNOWN_BY = 8
"""Components of a tuned vector that are kept, those that moved farthest: no other vector agrees in all of them."""
ROWS_AT_ONCE = 4096
ARRAYS = ("key_offsets", "key_bytes", "components", "values", "base_digests", "base_places", "base")


@dataclass(frozen=True)
class Dropped:
    """The m rows of a dropped version that no other version holds with the same two vectors, ordered by key."""

    keys: KeyTable
    components: NDArray[np.uint32]
    """(m, c): numbers of the components that are kept of each tuned vector, c being at most :data:`KNOWN_BY`."""
    values: Vectors
    """(m, c): what stood in them."""
    base_digests: NDArray[np.uint64]
    """(m,): digests of the base vectors, by which a base that another version holds is found."""
    base_places: Ints
    """(m,): places in :attr:`base`, −1 where another version held that base when this one was dropped."""
    base: Vectors
    """(b, width): the bases that only this version knew."""

    @classmethod
    def of(cls, version: Version) -> Dropped:
        """Return what *version*, a folder of arrays that :meth:`arrays` gave, holds; the files are checked first."""
        version.check()
        offsets, content, *others = (read_array(version.folder / f"{name}.npy") for name in ARRAYS)
        return cls(KeyTable(offsets, content), *others)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by the names that they are kept under."""
        held = (self.keys.offsets, self.keys.content, self.components, self.values)
        return dict(zip(ARRAYS, (*held, self.base_digests, self.base_places, self.base), strict=True))

    def tuned(self, places: Ints, live: Vectors, tolerance: float) -> Mask:
        """Tell which of *live* (n, width) are the tuned vectors of the rows at *places* (n,)."""
        here = np.take_along_axis(live, self.components[places].astype(np.int64), axis=1)
        return np.asarray((np.abs(here - self.values[places]) <= tolerance).all(axis=1))

    def based(self, places: Ints, base: Vectors, tolerance: float) -> Mask:
        """Tell which of *base* (n, width) are the bases of the rows at *places* (n,)."""
        own, same = self.base_places[places], digests(base) == self.base_digests[places]
        rows = np.flatnonzero((own >= 0) & ~same)
        same[rows] = (np.abs(base[rows] - self.base[own[rows]]) <= tolerance).all(axis=1)
        release(self.base)
        return np.asarray(same)


def digests(vectors: Vectors) -> NDArray[np.uint64]:
    """Return a digest of every row of *vectors* (n, width), to the last bit: (n,)."""
    found = (hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in np.ascontiguousarray(vectors, "<f4"))
    return np.frombuffer(b"".join(found), "<u8").astype(np.uint64)


@contextmanager
def remains_of(content: Content, places: Ints, others: list[Content], folder: Path) -> Iterator[Dropped]:
    """Give what is to be kept of the rows at *places* (m,) of *content*, a version that is to be dropped.

    *others* are the versions that stay. Bases that none of them holds are gathered in a nameless file in *folder*.
    """
    width = content.base.shape[1]
    parts = [places[first : first + ROWS_AT_ONCE] for first in range(0, len(places), ROWS_AT_ONCE)]
    alone = np.concatenate([np.zeros(0, bool), *(_alone(content, part, others) for part in parts)])
    base_places = np.where(alone, np.cumsum(alone) - 1, -1)
    components = np.empty((len(places), min(KNOWN_BY, width)), np.uint32)
    values, base_digests = np.empty(components.shape, np.float32), np.empty(len(places), np.uint64)
    with TemporaryFile(dir=folder) as file:
        for number, part in enumerate(parts):
            rows = slice(number * ROWS_AT_ONCE, number * ROWS_AT_ONCE + len(part))
            before, after, own = content.base[part], content.tuned[part], alone[rows]
            components[rows] = np.argsort(-np.abs(after - before), axis=1, kind="stable")[:, : components.shape[1]]
            values[rows] = np.take_along_axis(after, components[rows].astype(np.int64), axis=1)
            base_digests[rows] = digests(before)
            file.write(before[own].tobytes())  # a mapped file on a full disk would end the process by a signal
            content.release()
        file.flush()
        shape = (int(alone.sum()), width)
        base = np.memmap(file, np.float32, "r", shape=shape) if shape[0] else np.empty(shape, np.float32)
        keys = content.keys.select(places)
        yield Dropped(keys, components, values, base_digests, base_places.astype(np.int64), base)


def _alone(content: Content, places: Ints, others: list[Content]) -> Mask:
    """Tell which of the rows at *places* have a base that none of *others* holds, bit for bit."""
    keys, base, alone = content.keys.select(places), content.base[places], np.ones(len(places), bool)
    for other in others:
        at = other.keys.find(keys)
        rows = np.flatnonzero((at >= 0) & alone)
        alone[rows] = (other.base[at[rows]].view(np.uint32) != base[rows].view(np.uint32)).any(axis=1)
        other.release()
    return alone
