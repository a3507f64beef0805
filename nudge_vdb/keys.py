"""Many row keys in two arrays, so that they can be mapped from files instead of held."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from nudge_vdb.contract import RowKey


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
        listed = list(keys)
        offsets = np.fromiter(accumulate(map(len, listed), initial=0), np.int64, len(listed) + 1)
        return cls(offsets, np.frombuffer(b"".join(listed), np.uint8))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, place: int) -> RowKey:  # type: ignore[override]  # a slice is never asked for
        if not 0 <= place < len(self):
            raise IndexError(place)
        return self.content[self.offsets[place] : self.offsets[place + 1]].tobytes()

    def __iter__(self) -> Iterator[RowKey]:
        return (self[place] for place in range(len(self)))

    def at(self, places: Iterable[int]) -> list[RowKey]:
        """Return the keys at *places*."""
        return [self[int(place)] for place in places]

    def find(self, keys: Iterable[RowKey]) -> NDArray[np.int64]:
        """Return the place of each of *keys*, −1 where it is not in the table."""
        return np.array([self._places.get(key, -1) for key in keys], np.int64)

    @cached_property
    def _places(self) -> dict[RowKey, int]:
        return {key: place for place, key in enumerate(self)}
