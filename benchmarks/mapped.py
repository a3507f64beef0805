"""A collection whose rows are mapped from a file: as large as the disk, with next to nothing held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nudge_vdb.contract import Accuracy, Mask, Metric, Outcome, Page, Remark, RowKey, Traits, Vectors
from nudge_vdb.mapped import picked, release


@dataclass(frozen=True)
class MappedCollection:
    """Rows of length 1 that are only read; the key of row i is i in eight bytes, its id is i in decimal."""

    vectors: Vectors

    @property
    def traits(self) -> Traits:
        """A cosine collection that rescales."""
        return Traits("mapped:rows", "", "mapped", self.vectors.shape[1], Metric.COSINE, rescales=True, tolerance=1e-6)

    def scan(self, cursor: str | None, limit: int) -> Page:
        """Return the rows after *cursor*."""
        first = int(cursor or 0)
        last = min(first + limit, len(self.vectors))
        vectors = np.array(self.vectors[first:last])
        release(self.vectors)
        keys = [place.to_bytes(8, "big") for place in range(first, last)]
        return Page(keys, vectors, np.zeros(len(keys), bool), str(last) if last < len(self.vectors) else None)

    def locate(self, texts: Sequence[str]) -> list[RowKey | None]:
        """Return the keys of the ids; all of them exist."""
        return [int(text).to_bytes(8, "big") for text in texts]

    def text_of(self, key: RowKey) -> str:
        """Return the id."""
        return str(int.from_bytes(key, "big"))

    def fetch(self, keys: Sequence[RowKey], out: Vectors) -> Mask:
        """Copy vectors."""
        out[:] = picked(self.vectors, np.array([int.from_bytes(key, "big") for key in keys]))
        return np.ones(len(keys), bool)

    def write(self, keys: Sequence[RowKey], vectors: Vectors, expected: Vectors) -> list[Outcome]:
        """Refuse."""
        return [Outcome.REFUSED for _ in keys]

    def search(self, queries: Vectors, k: int, accuracy: Accuracy = Accuracy.INDEX) -> list[list[RowKey]]:
        """Refuse."""
        raise NotImplementedError

    def count(self) -> int:
        """Return the number of rows."""
        return len(self.vectors)

    def notes(self) -> Mapping[str, str]:
        """Return none."""
        return {}

    def leave_note(self, name: str, text: str) -> bool:
        """Keep none."""
        return False

    def diagnose(self) -> list[Remark]:
        """Say nothing."""
        return []

    def close(self) -> None:
        """Do nothing."""
