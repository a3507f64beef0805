"""The queries that a version was trained on, and whether another query is one of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nudge_vdb.contract import Mask, Vectors
from nudge_vdb.judgements import Judgements
from nudge_vdb.nudge import unit

SAME_COSINE = 1 - 1e-4
"""A query at least so near to one that trained is that query, embedded again."""
COMPARED_AT_ONCE = 2048


@dataclass(frozen=True)
class Seen:
    """The queries that a version was trained on."""

    digests: NDArray[np.uint64]
    """Digests of their rounded directions, ascending: all that versions of early days hold."""
    units: NDArray[np.float16] | None
    """(q, width): their directions; None in a version of early days."""

    @classmethod
    def of(cls, judgements: Judgements) -> Seen:
        """Return the queries of *judgements*."""
        units = unit(judgements.vectors)[0].astype(np.float16)
        return cls(np.unique(_digests(judgements.vectors)), np.unique(units, axis=0))

    def has(self, judgements: Judgements) -> Mask:
        """Tell which queries of *judgements* are among these, (nq,).

        A copy that differs by scale, or by what another batch, machine or precision of the model makes of it, counts.
        Where directions were not kept, only copies that are rounded alike do.
        """
        if self.units is None:
            return np.asarray(np.isin(_digests(judgements.vectors), self.digests))
        asked, _ = unit(judgements.vectors)
        found = np.zeros(len(asked), bool)
        for trained in self._parts(self.units):
            for first in range(0, len(asked), COMPARED_AT_ONCE):
                some = slice(first, first + COMPARED_AT_ONCE)
                found[some] |= (asked[some] @ trained.T).max(axis=1) >= SAME_COSINE
        return found

    @staticmethod
    def _parts(units: NDArray[np.float16]) -> Iterator[Vectors]:
        """Stream *units* in float32; rounding has changed their lengths a little."""
        for first in range(0, len(units), COMPARED_AT_ONCE):
            yield unit(units[first : first + COMPARED_AT_ONCE].astype(np.float32))[0]


def _digests(vectors: Vectors) -> NDArray[np.uint64]:
    """Return a 64-bit digest of the direction of each of *vectors*, rounded."""
    rough = np.round(unit(vectors)[0], 2) + np.float32(0.0)  # the sum makes −0 and 0 one
    digests = b"".join(hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rough)
    return np.frombuffer(digests, np.uint64)
