"""NUDGE: where a row goes when the queries that want it pull on it.

Symbols are those of the paper (Zeighami, Wellmer, Parameswaran, *NUDGE*, ICLR 2025, arXiv 2409.02343): a row has a
unit vector v and a pull G, the weighted sum of the unit queries that want it. Both methods move it along a ray in
the plane of v and one unit direction u:

    v(γ) = α(γ)·v + β(γ)·u

so that its similarity to any query is linear in two numbers that do not depend on the step γ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from nudge_vdb.contract import Vectors
from nudge_vdb.mapped import picked

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ROUNDING = 1e-6
"""A component of the pull this small beside the pull itself is what float32 vectors leave over, not a direction."""
CANCELLED = 1e-12
"""A pull this small beside the one that a query was taken out of is what the subtraction leaves over."""


class Method(StrEnum):
    """How a row moves."""

    NUDGE_N = "nudge-n"
    """On the unit sphere; γ bounds the squared distance, γ = 2 − 2·cos θ."""
    NUDGE_M = "nudge-m"
    """Straight along the pull; γ is a length. It leaves the sphere."""


@dataclass(frozen=True, slots=True)
class Rays:
    """The paths of m rows, whatever the step."""

    method: Method
    units: Vectors
    """(m, d): v, length 1."""
    directions: Vectors
    """(m, d): u, length 1; 0 for a row that stays."""
    floor: Floats
    """(m,): the cosine of v and G, which a NUDGE-N row never falls below; −1 for NUDGE-M; 1 for a row that stays."""

    def at(self, step: float) -> Vectors:
        """Return v(γ), (m, d) float32, for one *step* γ ≥ 0."""
        alpha, beta = coefficients(self.method, self.floor, np.array([step]))
        return np.asarray((alpha * self.units + beta * self.directions).astype(np.float32))


def coefficients(method: Method, floor: Floats, steps: Floats) -> tuple[Floats, Floats]:
    """Return α and β, each (m, number of steps), for rows with *floor* (m,) and *steps* γ ≥ 0.

    NUDGE-N turns v towards G by the angle whose cosine is 1 − γ/2, and never past G (Theorem 2 of the paper, written
    as a rotation). NUDGE-M adds γ·u (Theorem 1).
    """
    if method is Method.NUDGE_M:
        moving = floor[:, None] < 1
        return np.ones((len(floor), len(steps))), np.where(moving, steps, 0.0)
    alpha = np.maximum(1.0 - steps[None] / 2.0, floor[:, None])
    return alpha, np.sqrt(np.maximum(0.0, 1.0 - alpha**2))


def unit(vectors: Vectors | Floats) -> tuple[Vectors, Floats]:
    """Return *vectors* (n, d) scaled to length 1, zero ones left zero, and their lengths (n,); in float64 sums."""
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1)
    wide /= np.where(lengths > 0, lengths, 1.0)[:, None]
    return wide.astype(np.float32), lengths


def rays_n(units: Vectors, pulls: Floats, scale: Floats | None = None) -> Rays:
    """Return the NUDGE-N paths of *units* (m, d) under *pulls* (m, d).

    A row stays when its pull is zero, points along v or points away from it, as in the authors' code. *scale* (m,)
    is the length of the pulls before a query was taken out of them, where one was.
    """
    along = np.einsum("ij,ij->i", units, pulls)
    across = pulls - along[:, None] * units
    lengths = np.linalg.norm(pulls, axis=1)
    leaning = np.linalg.norm(across, axis=1)
    nothing = 0.0 if scale is None else CANCELLED * scale
    stays = (leaning <= np.maximum(ROUNDING * lengths, nothing)) | (along < 0)
    directions = np.divide(across, leaning[:, None], out=np.zeros_like(across), where=~stays[:, None])
    floor = np.divide(along, lengths, out=np.ones_like(along), where=~stays)
    return Rays(Method.NUDGE_N, units, directions.astype(np.float32), floor)


def rays_m(units: Vectors, pulls: Floats, scale: Floats | None = None) -> Rays:
    """Return the NUDGE-M paths of *units* (m, d) under *pulls* (m, d); a row without a pull stays."""
    lengths = np.linalg.norm(pulls, axis=1)
    stays = lengths <= (0.0 if scale is None else CANCELLED * scale)
    directions = np.divide(pulls, lengths[:, None], out=np.zeros_like(pulls), where=~stays[:, None])
    return Rays(Method.NUDGE_M, units, directions.astype(np.float32), np.where(stays, 1.0, -1.0))


RAYS: dict[Method, Callable[[Vectors, Floats, Floats | None], Rays]] = {
    Method.NUDGE_N: rays_n,
    Method.NUDGE_M: rays_m,
}

STEPS: dict[Method, Floats] = {
    Method.NUDGE_N: np.round(np.arange(151) * 0.01, 2),
    Method.NUDGE_M: np.round(np.arange(151) * 0.02, 2),
}
"""The steps that are tried; the first is 0, which is the base."""


@dataclass(frozen=True, slots=True)
class Pulls:
    """Who pulls on whom: p judgements, ordered by row."""

    queries: Vectors
    """(nq, d), length 1."""
    query: Ints
    """(p,): the query of each judgement."""
    row: Ints
    """(p,): its row, 0 … rows − 1, ascending."""
    weight: Floats
    """(p,): its weight, above 0."""
    rows: int
    """How many rows there are."""

    def of(self, first: int, last: int) -> Floats:
        """Return G of the rows *first* … *last* − 1 as (last − first, d), summed in float64."""
        total = np.zeros((last - first, self.queries.shape[1]))
        start, stop = np.searchsorted(self.row, [first, last])
        for part in self._parts(int(start), int(stop)):
            pushes = picked(self.queries, self.query[part]) * self.weight[part, None]
            rows, starts = np.unique(self.row[part], return_index=True)
            total[rows - first] += np.add.reduceat(pushes, starts, axis=0)
        return total

    def _parts(self, start: int, stop: int) -> Iterator[slice]:
        """Yield slices of judgements that end where a row's end, so that no sum depends on where the first begins."""
        at_once = max(1, PUSHES_BYTES // (8 * self.queries.shape[1]))
        while start < stop:
            end = min(start + at_once, stop)
            whole = end if end == stop else int(np.searchsorted(self.row, self.row[end]))
            end = whole if whole > start else end
            yield slice(start, end)
            start = end


PUSHES_BYTES = 4 << 20
"""What the queries of some judgements may take at once, in float64."""
