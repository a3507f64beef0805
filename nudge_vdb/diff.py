"""What lies between two versions: which rows moved, and how far."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nudge_vdb.contract import Collection, RowKey
from nudge_vdb.given import taking_addresses
from nudge_vdb.keys import KeyTable
from nudge_vdb.nudge import Floats
from nudge_vdb.snapshot import Content
from nudge_vdb.standing import Folder, known_state, steady
from nudge_vdb.state import State
from nudge_vdb.writeback import batches


@dataclass(frozen=True, slots=True)
class Move:
    """How far a row is from one version to the other."""

    row: str
    """The row's id."""
    distance: float
    """Euclidean, between the two vectors as they are stored."""
    cosine: float
    """Between the two vectors, −1 … 1; 1 where one of them has no length."""

    @property
    def degrees(self) -> float:
        """The angle between the two vectors, 0 … 180."""
        return float(np.degrees(np.arccos(np.clip(self.cosine, -1.0, 1.0))))

    def as_report(self) -> dict[str, str | float]:
        """Return all of it as a report holds it."""
        return {"row": self.row, "distance": self.distance, "cosine": self.cosine, "degrees": self.degrees}


@dataclass
class Difference:
    """The rows that are not at the same place in two versions."""

    moves: list[Move] = field(default_factory=list)
    """The farthest first."""
    rebased: list[str] = field(default_factory=list)
    """Ids of rows that their owner embedded again between the two: they start from different bases."""

    @property
    def rows(self) -> list[tuple[str, float]]:
        """Id and Euclidean distance of every row; the farthest first."""
        return [(move.row, move.distance) for move in self.moves]

    def quantiles(self) -> dict[str, float]:
        """Return the least, the middle and the greatest distance; nothing where no row moved."""
        if not self.moves:
            return {}
        values = np.quantile([move.distance for move in self.moves], [0, 0.5, 1])
        return dict(zip(("least", "median", "greatest"), map(float, values), strict=True))


@taking_addresses
@steady
def diff(collection: Collection, one: int, other: int, *, state: Folder = None) -> Difference:
    """Compare versions *one* and *other*, 0 being the base; reads the state only.

    Raises:
        BadOption: there is no such version.
    """
    home = known_state(collection, state)
    left, right = _content(home, one), _content(home, other)
    found = Difference()
    both = _both(left, right)
    for part in batches(len(both), home.traits.width):
        keys = both.at(part)
        width = home.traits.width
        places, bases = _placed(left, right, keys, width)
        others, other_bases = _placed(right, left, keys, width)
        names = [collection.text_of(key) for key in keys]
        found.moves += _moves(names, places, others)
        rebased = (bases != other_bases).any(axis=1)
        found.rebased += [name for name, differs in zip(names, rebased, strict=True) if differs]
    found.moves.sort(key=lambda move: (-move.distance, move.row))
    return found


def _moves(names: list[str], places: Floats, others: Floats) -> list[Move]:
    """Return the rows of *names* (n,) whose vectors *places* and *others*, both (n, width), differ."""
    distances = np.linalg.norm(places - others, axis=1)
    lengths = np.linalg.norm(places, axis=1) * np.linalg.norm(others, axis=1)
    products = np.einsum("ij,ij->i", places, others)
    cosines = np.divide(products, lengths, out=np.ones_like(lengths), where=lengths > 0)
    every = zip(names, distances.tolist(), np.clip(cosines, -1, 1).tolist(), strict=True)
    return [Move(*each) for each in every if each[1] > 0]


def _content(home: State, number: int) -> Content | None:
    return home.version(number).content if number else None


def _both(left: Content | None, right: Content | None) -> KeyTable:
    return KeyTable.union(content.keys for content in (left, right) if content)


def _placed(content: Content | None, other: Content | None, keys: list[RowKey], width: int) -> tuple[Floats, Floats]:
    """Return where *content* has the rows of *keys*, and their base in it; a row it lacks is at the other's base."""
    bases = _bases(other, keys, width)
    places = bases.copy()
    if content is not None:
        at = content.keys.find(keys)
        inside = at >= 0
        places[inside], bases[inside] = content.tuned[at[inside]], content.base[at[inside]]
    return places, bases


def _bases(content: Content | None, keys: list[RowKey], width: int) -> Floats:
    """Return the bases of *keys* in *content*, anything for those that it lacks."""
    bases = np.zeros((len(keys), width))
    if content is not None:
        at = content.keys.find(keys)
        bases[at >= 0] = content.base[at[at >= 0]]
    return bases
