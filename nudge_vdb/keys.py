"""Many row keys in two arrays, so that they can be mapped from files instead of held."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nudge_vdb.contract import Mask, RowKey

Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]

KEYS_AT_ONCE = 1 << 16
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""2⁶⁴ divided by the golden ratio, odd: multiplying by it spreads neighbouring numbers."""
HALF = np.uint64(32)
PADDED = 64
"""Keys no longer than this are put in order as numbers, longer ones as bytes, which takes a hundred bytes a key."""


@dataclass(frozen=True)
class KeyTable(Sequence[RowKey]):
    """n keys: key i is the bytes from offsets[i] to offsets[i + 1]."""

    offsets: NDArray[np.int64]
    """(n + 1,), ascending from 0."""
    content: NDArray[np.uint8]
    """(offsets[n],)"""

    @classmethod
    def of(cls, keys: Iterable[RowKey]) -> KeyTable:
        """Return the table of *keys*."""
        if isinstance(keys, KeyTable):
            return keys
        listed = list(keys)
        offsets = np.fromiter(accumulate(map(len, listed), initial=0), np.int64, len(listed) + 1)
        return cls(offsets, np.frombuffer(b"".join(listed), np.uint8))

    @classmethod
    def union(cls, tables: Iterable[KeyTable]) -> KeyTable:
        """Return the keys that are in any of *tables*, each once, ascending."""
        joined = cls.of([])
        for table in tables:
            new = table.select(np.flatnonzero(joined.find(table) < 0))
            offsets = np.concatenate([joined.offsets, joined.offsets[-1] + new.offsets[1:]])
            joined = cls(offsets, np.concatenate([joined.content, new.content]))
        return joined.select(joined.order())

    def same(self, other: KeyTable) -> bool:
        """Tell whether *other* holds the same keys in the same order."""
        return np.array_equal(self.offsets, other.offsets) and np.array_equal(self.content, other.content)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, place: int) -> RowKey:  # type: ignore[override]  # a slice is never asked for
        if not 0 <= place < len(self):
            raise IndexError(place)
        return self.content[self.offsets[place] : self.offsets[place + 1]].tobytes()

    def __iter__(self) -> Iterator[RowKey]:
        for part in self.parts():
            yield from self.at(range(part.start, part.stop))

    def at(self, places: Iterable[int]) -> list[RowKey]:
        """Return the keys at *places*."""
        some = _places(places)
        if len(some) and not 0 <= some.min() <= some.max() < len(self):
            raise IndexError(int(some.min() if some.min() < 0 else some.max()))
        content = np.ascontiguousarray(self.content).data
        ends = zip(self.offsets[some].tolist(), self.offsets[some + 1].tolist(), strict=True)
        return [bytes(content[start:end]) for start, end in ends]

    def select(self, places: Iterable[int]) -> KeyTable:
        """Return the table of the keys at *places*."""
        some = _places(places)
        lengths = self.offsets[some + 1] - self.offsets[some]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        content = np.empty(offsets[-1], np.uint8)
        for first in range(0, len(some), KEYS_AT_ONCE):
            last = min(first + KEYS_AT_ONCE, len(some))
            shift = np.repeat(self.offsets[some[first:last]] - offsets[first:last], lengths[first:last])
            part = slice(offsets[first], offsets[last])
            content[part] = self.content[np.arange(part.start, part.stop) + shift]
        return KeyTable(offsets, content)

    def parts(self) -> Iterator[slice]:
        """Yield consecutive slices of places."""
        for first in range(0, len(self), KEYS_AT_ONCE):
            yield slice(first, min(first + KEYS_AT_ONCE, len(self)))

    def order(self) -> Ints:
        """Return the places (n,) in the order of the keys."""
        if self._ascends():
            return np.arange(len(self))
        lengths = np.diff(self.offsets)
        if lengths.max() > PADDED:
            listed = list(self)
            return np.array(sorted(range(len(listed)), key=listed.__getitem__), np.int64)
        words = self._padded(lengths).view(">u8")
        return np.lexsort((lengths, *words.T[::-1]))

    def _padded(self, lengths: Ints) -> NDArray[np.uint8]:
        """Return all keys, which are as long as *lengths* (n,) say, as rows of whole words with zeros behind them."""
        padded = np.zeros((len(self), -(-int(lengths.max()) // 8) * 8), np.uint8)
        for length, rows in _by_length(lengths):
            padded[rows, :length] = self._bytes(rows, length)
        return padded

    def _ascends(self) -> bool:
        """Tell whether the keys are in order already, as those of most engines' scans are."""
        for part in self.parts():
            keys = self.at(range(part.start, min(part.stop + 1, len(self))))
            if any(map(RowKey.__gt__, keys, keys[1:])):
                return False
        return True

    def find(self, keys: Iterable[RowKey]) -> Ints:
        """Return the place of each of *keys*, −1 where it is not in the table."""
        asked = KeyTable.of(keys)
        found = [self._find(asked, part) for part in asked.parts()]
        return np.concatenate([np.empty(0, np.int64), *found])

    def _find(self, asked: KeyTable, part: slice) -> Ints:
        """Return the places of a part of the keys *asked*."""
        sorted_hashes, order = self._index
        hashes = asked._hashes(part)
        at = np.searchsorted(sorted_hashes, hashes)
        found = np.full(len(hashes), -1, np.int64)
        left = np.flatnonzero(at < len(order))
        while len(left):
            left = left[sorted_hashes[at[left]] == hashes[left]]
            places = order[at[left]].astype(np.int64)
            same = self._equal(places, asked, part.start + left)
            found[left[same]] = places[same]
            left = left[~same]  # another key with the same hash: the next of that hash may be it
            at[left] += 1
            left = left[at[left] < len(order)]
        return found

    def _equal(self, places: Ints, other: KeyTable, others: Ints) -> Mask:
        """Tell which keys at *places* are those at *others* of *other*."""
        lengths = self.offsets[places + 1] - self.offsets[places]
        same: Mask = lengths == other.offsets[others + 1] - other.offsets[others]
        for length, rows in _by_length(np.where(same, lengths, -1)):
            if length > 0:
                one, two = self._bytes(places[rows], length), other._bytes(others[rows], length)
                same[rows] = (one == two).all(axis=1)
        return same

    @cached_property
    def _index(self) -> tuple[Hashes, NDArray[Any]]:
        """The hashes of all keys, ascending, and their places: 12 bytes a key."""
        hashes = np.empty(len(self), np.uint64)
        for part in self.parts():
            hashes[part] = self._hashes(part)
        order = np.argsort(hashes, kind="stable")
        return hashes[order], order.astype(np.int32 if len(self) < 1 << 31 else np.int64)

    def _hashes(self, part: slice) -> Hashes:
        """Return a 64-bit hash of each key of *part*."""
        places = np.arange(part.start, part.stop)
        lengths = self.offsets[places + 1] - self.offsets[places]
        hashes: Hashes = lengths.astype(np.uint64)
        for length, rows in _by_length(lengths):
            words = np.zeros((len(rows), -(-length // 8) * 8), np.uint8)
            words[:, :length] = self._bytes(places[rows], length)
            for word in words.view(np.uint64).T:
                mixed = (hashes[rows] ^ word) * MULTIPLIER
                hashes[rows] = (mixed ^ (mixed >> HALF)) * MULTIPLIER
        return np.asarray(hashes)

    def _bytes(self, places: Ints, length: int) -> NDArray[np.uint8]:
        """Return the keys at *places*, all of so many bytes, as (len(places), length)."""
        return np.asarray(self.content[self.offsets[places][:, None] + np.arange(length)])


def _places(places: Iterable[int]) -> Ints:
    """Return *places* as an array."""
    if isinstance(places, range):
        return np.arange(places.start, places.stop, places.step)
    return np.asarray(places if isinstance(places, np.ndarray) else list(places), np.int64)


def _by_length(lengths: Ints) -> Iterator[tuple[int, Ints]]:
    """Yield each length with the places of the keys that are so long."""
    for length in np.unique(lengths):
        yield int(length), np.flatnonzero(lengths == length)
