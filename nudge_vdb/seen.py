"""The queries that a version was trained on, and whether another query is one of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nudge_vdb.contract import Mask, Vectors
from nudge_vdb.judgements import Judgements
from nudge_vdb.mapped import release
from nudge_vdb.nudge import Ints, unit

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
        units = np.empty(judgements.vectors.shape, np.float16)
        for some in _slices(len(units)):
            units[some] = unit(judgements.vectors[some])[0]
            release(judgements.vectors)
        distinct = _first_of_equals(units)
        kept = units if len(distinct) == len(units) else units[distinct]
        return cls(np.unique(_digests(judgements.vectors)), kept)

    def has(self, judgements: Judgements) -> Mask:
        """Tell which queries of *judgements* are among these, (nq,).

        A copy that differs by scale, or by what another batch, machine or precision of the model makes of it, counts.
        Where directions were not kept, only copies that are rounded alike do.
        """
        if self.units is None:
            return np.asarray(np.isin(_digests(judgements.vectors), self.digests))
        found = np.zeros(len(judgements), bool)
        for some in _slices(len(found)):
            asked, _ = unit(judgements.vectors[some])
            for trained in self._parts(self.units):
                found[some] |= (asked @ trained.T).max(axis=1) >= SAME_COSINE
        return found

    @staticmethod
    def _parts(units: NDArray[np.float16]) -> Iterator[Vectors]:
        """Stream *units* in float32; rounding has changed their lengths a little."""
        for some in _slices(len(units)):
            yield unit(units[some].astype(np.float32))[0]


def _digests(vectors: Vectors) -> NDArray[np.uint64]:
    """Return a 64-bit digest of the direction of each of *vectors*, rounded."""
    found = [np.empty(0, np.uint64)]
    for some in _slices(len(vectors)):
        rough = np.round(unit(vectors[some])[0], 2) + np.float32(0.0)  # the sum makes −0 and 0 one
        digests = b"".join(hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rough)
        found.append(np.frombuffer(digests, np.uint64))
        release(vectors)
    return np.concatenate(found)


def _first_of_equals(units: NDArray[np.float16]) -> Ints:
    """Return the places of *units* (q, width) but for those that equal an earlier one."""
    first = {hashlib.blake2b(row.tobytes(), digest_size=16).digest(): -place for place, row in enumerate(units[::-1])}
    return np.array(sorted(len(units) - 1 + place for place in first.values()), np.int64)


def _slices(count: int) -> Iterator[slice]:
    return (slice(first, first + COMPARED_AT_ONCE) for first in range(0, count, COMPARED_AT_ONCE))
