"""Gathering some rows of a collection: those that are named, and the best of the others for each query, by search.

A row can only stand among the first places of a query if it is named or one of the best that are not, so scores come
out as if all rows had been paged out, as far as the search found the best.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from nudge_vdb.contract import Ability, Accuracy, Collection, Page, RowKey, Vectors
from nudge_vdb.errors import Refused, Unreachable
from nudge_vdb.pages import Filling, Progress, finite

log = logging.getLogger(__name__)

FETCHED_BYTES = 4 << 20
"""What the vectors of one request for rows take."""
FIRST_ASKED, MOST_ASKED = 1, 256
"""How many queries are searched for at once, to begin with and at most: an exact search of 10⁹ rows takes long."""
QUICK, SLOW = 0.5, 10.0
"""Seconds: below, the next request is twice as large, above, half as large."""
WORTH = 0.7
"""In between it is twice as large where that brought the time of a query below this share of what it was."""
SPARES = (1.5, 3.0, 6.0)
"""How many times as many rows as are kept are asked for: a few more, since some of them will be named ones, and more
where the index would find too few, since a graph is walked with more candidates in hand for them."""
TRIED_QUERIES = 20
"""How many queries the recall of the index is measured on."""
ENOUGH_RECALL = 0.98
"""Where the index finds no less, there is no need to ask for more."""

Hits = list[RowKey]


@dataclass
class Gathering:
    """Rows that are copied as they are found, each once; the best *depth* of each query besides the *named* ones."""

    collection: Collection
    named: Set[RowKey]
    depth: int
    filling: Filling
    most: float = math.inf
    """How many rows all deeper searches together may name."""
    scorable: dict[RowKey, bool] = field(default_factory=dict)
    """Of every row that was fetched, whether it has a vector that can be scored."""

    def fetch(self, keys: Sequence[RowKey]) -> list[RowKey]:
        """Copy those of *keys*, distinct and new, that hold a vector, and return them."""
        width = self.collection.traits.width
        rows = max(16, FETCHED_BYTES // (4 * width))
        parts = (keys[first : first + rows] for first in range(0, len(keys), rows))
        return [key for part in parts for key in self._copied(part, np.empty((len(part), width), np.float32))]

    def add_best(self, queries: Vectors, accuracy: Accuracy, spare: float, progress: Progress = lambda _: None) -> None:
        """Copy the best rows of each of *queries* (n, width) that are not named, *spare* times as many asked for."""
        done = 0
        for found in paced(lambda part: self._searched(part, math.ceil(spare * self.depth), accuracy), queries):
            done += len(found)
            progress(done)

    def _copied(self, keys: Sequence[RowKey], room: Vectors) -> list[RowKey]:
        there = self.collection.fetch(keys, room)
        self.filling.add(Page(keys, room, ~there, None))
        self.scorable.update(zip(keys, (there & finite(room)).tolist(), strict=True))
        return [key for key, held in zip(keys, there.tolist(), strict=True) if held]

    def _searched(self, queries: Vectors, k: int, accuracy: Accuracy) -> list[Hits]:
        """Return the best rows that are not named, having copied them; search deeper where there are too few."""
        hits = self.collection.search(queries, k, accuracy)
        while new := {key for found in hits for key in self._best(found)} - self.scorable.keys():
            self.fetch(sorted(new))
        best = [self._best(found) for found in hits]
        short = [place for place, found in enumerate(best) if len(found) < self.depth and len(hits[place]) >= k]
        for place, found in zip(short, self._deeper(queries[short], 2 * k, accuracy), strict=True):
            best[place] = found
        return best

    def _deeper(self, queries: Vectors, k: int, accuracy: Accuracy) -> list[Hits]:
        """Search deeper than before, for half as many queries at once.

        Raises:
            Refused: that would name too many rows.
        """
        self.most -= len(queries) * k
        if self.most < 0:
            raise Refused("so many rows that may move stand before all others that searches would name most rows")
        halves = (half for half in np.array_split(queries, 2) if len(half))
        return [found for half in halves for found in self._searched(half, k, accuracy)]

    def _best(self, hits: Hits) -> Hits:
        """Return the first *depth* of *hits* that are not named and, as far as is known, can be scored."""
        fit = (key for key in hits if key not in self.named and self.scorable.get(key, True))
        return list(islice(fit, self.depth))


def paced(ask: Callable[[Vectors], list[Hits]], queries: Vectors) -> Iterator[list[Hits]]:
    """Yield what *ask* says of all *queries*, in portions as large as are answered in good time."""
    first, size, before = 0, FIRST_ASKED, np.inf
    while first < len(queries):
        some, start = queries[first : first + size], time.perf_counter()
        yield ask(some)
        lasted, first = time.perf_counter() - start, first + size
        size, before = _next(size, lasted, before), lasted / len(some)


def _next(size: int, lasted: float, before: float) -> int:
    """Return how many queries go out after *size* of them *lasted* so many seconds, and one took *before* till then."""
    if lasted > SLOW:
        return max(1, size // 2)
    larger = lasted < QUICK or lasted / size < WORTH * before
    return min(MOST_ASKED, 2 * size) if larger else size


def tried(collection: Collection, queries: Vectors, depth: int) -> tuple[float, float | None]:
    """Return how many times as many rows to ask the index for, so that it finds the best *depth* as far as it can.

    And the share of them that it then finds, None where that cannot be told: where the engine cannot search exactly, or
    is not done in time.
    """
    some = queries[np.linspace(0, len(queries) - 1, min(TRIED_QUERIES, len(queries))).astype(int)]
    best = _searched_exactly(collection, some, depth)
    if not best:
        return _allowed(collection, some, depth), None
    found = [(_shared(_first(collection, some, depth, SPARES[0], Accuracy.INDEX), best), SPARES[0])]
    with suppress(Refused):  # it goes no deeper, and what was found so far may do
        for spare in SPARES[1:]:
            if found[-1][0] >= ENOUGH_RECALL:
                break
            found.append((_shared(_first(collection, some, depth, spare, Accuracy.INDEX), best), spare))
    recall, spare = max(found, key=lambda each: each[0])
    return spare, recall


def _searched_exactly(collection: Collection, some: Vectors, depth: int) -> list[set[RowKey]]:
    """Return the best *depth* rows of each of *some* queries, nothing where they cannot be had."""
    if Ability.EXACT_SEARCH not in collection.traits.abilities:
        return []
    try:
        return _first(collection, some, depth, SPARES[0], Accuracy.EXACT)
    except Unreachable as exc:
        log.warning("the recall of the index is not measured, since an exact search is not answered: %s", exc)
        return []


def _allowed(collection: Collection, some: Vectors, depth: int) -> float:
    """Return how many times as many rows to ask for where nobody can tell what is found: more, if they may be had."""
    try:
        _first(collection, some, depth, SPARES[1], Accuracy.INDEX)
    except Refused:
        return SPARES[0]
    return SPARES[1]


def _first(collection: Collection, queries: Vectors, depth: int, spare: float, accuracy: Accuracy) -> list[set[RowKey]]:
    """Return the first *depth* rows of each query where *spare* times as many are asked for."""
    parts = paced(lambda part: collection.search(part, math.ceil(spare * depth), accuracy), queries)
    return [set(hits[:depth]) for part in parts for hits in part]


def _shared(told: list[set[RowKey]], best: list[set[RowKey]]) -> float:
    """Return the share of the *best* rows that are among those that were *told*."""
    found = sum(len(left & right) for left, right in zip(told, best, strict=True))
    return found / max(1, sum(map(len, best)))
