"""Carrying: where rows that nobody judged go, learned from the rows that somebody did.

Queries live in another part of the space than rows, so rows with a pull come nearer to every query and the others
fall behind them. A ridge map from a judged row's base vector to the direction it moves in says, for any other row, in
which direction judgements would have moved it. Such a row is turned by

    v' = (v + x·δ) / ‖v + x·δ‖,    δ = (v, 1)·W

x being the *reach*: how far a row goes, of which the map is certain (‖δ‖ = 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nudge_vdb.contract import Vectors
from nudge_vdb.nudge import Floats, Ints, unit

RIDGES = (1.0, 3.0)
"""Weights of the ridge that are tried, in rows."""
REACHES = np.array([0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.2])
"""Reaches that are tried."""
CARRY_STEPS = np.array([0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.55, 0.75, 1.0, 1.3])
"""Steps of the judged rows that are tried together with them."""
MOST_NEIGHBOURS = 300
"""How many rows are left out of a fit at most: of a larger neighbourhood, so many drawn at random."""


MATRICES = 14
"""How many matrices of width × width are there at once, of all ridges together."""


@dataclass(frozen=True, slots=True)
class Carry:
    """How unjudged rows are carried."""

    ridge: float
    reach: float


def with_constant(units: Vectors | Floats) -> Floats:
    """Return *units* (n, d) with a column of ones: (n, d + 1)."""
    return np.hstack([units.astype(np.float64), np.ones((len(units), 1))])


def turned(units: Vectors, directions: Floats, reach: float) -> Vectors:
    """Return *units* (n, d) turned along *directions* (n, d), length 1, float32; zero ones stay zero."""
    return unit(units + reach * directions)[0]


@dataclass(frozen=True, slots=True)
class Map:
    """A linear map with a constant."""

    matrix: Floats
    """(d + 1, d)"""

    def directions(self, units: Vectors) -> Floats:
        """Return δ of *units* (n, d): (n, d); of a zero vector, which has no direction, 0."""
        directions = with_constant(units) @ self.matrix
        return np.where(np.any(units, axis=1)[:, None], directions, 0.0)


@dataclass(frozen=True)
class Fit:
    """A ridge regression of m judged rows' directions on their base vectors, and what it is without some of them."""

    inverse: Floats
    """(d + 1, d + 1): (XᵀX + λ)⁻¹"""
    map: Map

    @classmethod
    def of(cls, parts: Iterator[tuple[Vectors, Vectors]], width: int, ridges: Sequence[float]) -> list[Fit]:
        """Return a fit per ridge λ, from *parts* of units (c, d) and directions (c, d), each read once."""
        square: Floats = np.zeros((width + 1, width + 1))
        product: Floats = np.zeros((width + 1, width))
        for units, directions in parts:
            rows = with_constant(units)
            square += rows.T @ rows
            product += rows.T @ directions
        inverses = [np.asarray(np.linalg.inv(square + each * np.eye(width + 1)), np.float64) for each in ridges]
        return [cls(inverse, Map(inverse @ product)) for inverse in inverses]

    def retaught(self, units: Vectors, before: Vectors, after: Vectors) -> Fit:
        """Return the fit that k of the rows, whose *units* (k, d) are given, teach *after* instead of *before*."""
        changed = self.inverse @ with_constant(units).T @ (after.astype(np.float64) - before)
        return Fit(self.inverse, Map(self.map.matrix + changed))

    def without(self, units: Vectors, directions: Vectors) -> Map:
        """Return the map of a fit without k of the rows, whose *units* and *directions* (k, d) are given.

        Exact: W less A·Xᵀ·(1 − H)⁻¹ times the residuals of those rows X, H = X·A·Xᵀ being their part of the hat matrix.
        Of more rows than components, it is solved in the components: (A⁻¹ − XᵀX)⁻¹ times (A⁻¹·W − XᵀΔ).
        """
        rows = with_constant(units)
        if len(rows) > len(self.inverse):
            whole = np.linalg.inv(self.inverse)
            taught = whole @ self.map.matrix - rows.T @ directions
            return Map(np.asarray(np.linalg.solve(whole - rows.T @ rows, taught), np.float64))
        reached = self.inverse @ rows.T
        residuals = directions - rows @ self.map.matrix
        return Map(self.map.matrix - reached @ np.linalg.solve(np.eye(len(rows)) - rows @ reached, residuals))


def held_bytes(width: int, answers: int) -> int:
    """Return about how many bytes fits hold while a query with so many *answers* is left out of them."""
    rows = answers + MOST_NEIGHBOURS
    return 8 * (MATRICES * (width + 1) ** 2 + 4 * rows * width + 3 * min(rows, width + 1) ** 2)


@dataclass(frozen=True)
class Neighbours:
    """Who shares a query with whom: p judgements, in two orders."""

    by_query: tuple[Ints, Ints]
    """Queries (p,), ascending, and their rows (p,)."""
    by_row: tuple[Ints, Ints]
    """Rows (p,), ascending, and their queries (p,)."""

    @classmethod
    def of(cls, query: Ints, row: Ints) -> Neighbours:
        """Return the judgement graph of p judgements, in any order."""
        one, other = np.argsort(query, kind="stable"), np.argsort(row, kind="stable")
        return cls((query[one], row[one]), (row[other], query[other]))

    def around(self, own: Ints) -> Ints:
        """Return the rows *own*, ascending, then those that share a query with one of them, up to a bound."""
        others = np.setdiff1d(_across(self.by_query, _across(self.by_row, own)), own)
        if len(others) > MOST_NEIGHBOURS:
            others = np.random.default_rng(0).choice(others, MOST_NEIGHBOURS, replace=False)
        return np.concatenate([own, others])


def _across(edges: tuple[Ints, Ints], nodes: Ints) -> Ints:
    """Return the far ends of *edges*, ascending by their near ends, from *nodes*; each once."""
    near, far = edges
    firsts, lasts = np.searchsorted(near, nodes), np.searchsorted(near, nodes, side="right")
    parts = [far[first:last] for first, last in zip(firsts, lasts, strict=True)]
    return np.unique(np.concatenate([np.empty(0, np.int64), *parts]))
