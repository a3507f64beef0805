"""A scan spread over the workers of a Dask cluster: each keeps a part of the rows, and the parts search as one.

The parts are addresses that together make up the collection: its shard keys, partitions, or any other scopes. Each
worker pages its parts out once, onto its own disk, and then searches in them exactly; only what it finds reaches the
driver. ``docs/scale.md`` says when this is worth while.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import cache
from heapq import nlargest
from itertools import chain
from pathlib import Path

import numpy as np
from distributed import Client

from nudge_vdb.backends import connect
from nudge_vdb.contract import Ability, Accuracy, Collection, RowKey, Traits, Vectors
from nudge_vdb.nudge import unit
from nudge_vdb.pages import Pages, page_out
from nudge_vdb.retry import Patient
from nudge_vdb.rivals import best_rows

Hit = tuple[float, RowKey]

_folders: list[tempfile.TemporaryDirectory[str]] = []
"""Of this worker; they go when it ends."""


class SpreadScan:
    """A *collection* whose exact search is a scan of *parts* by the workers of *client*.

    The workers read their parts at the first search, so it is good for one plan; make another for the next.
    """

    def __init__(self, collection: Collection, parts: Sequence[str], client: Client) -> None:
        self._collection, self._client = collection, client
        workers = sorted(client.scheduler_info(n_workers=-1)["workers"])
        self._homes = {part: workers[number % len(workers)] for number, part in enumerate(parts)}

    @property
    def traits(self) -> Traits:
        """Those of the collection, which can now search exactly whatever its engine can."""
        traits = self._collection.traits
        return replace(traits, abilities=traits.abilities | {Ability.EXACT_SEARCH})

    def __getattr__(self, name: str) -> object:
        """Leave everything but searching to the collection."""
        return getattr(self._collection, name)

    def search(self, queries: Vectors, k: int, accuracy: Accuracy = Accuracy.EXACT) -> list[list[RowKey]]:
        """Return for each query (n, width) the keys of its *k* best rows, best first, of all parts together."""
        found = self._client.gather(
            [
                self._client.submit(best_of_part, part, queries, k, workers=[home], pure=False)
                for part, home in self._homes.items()
            ]
        )
        best = (nlargest(k, chain(*hits)) for hits in zip(*found, strict=True))
        return [[key for _, key in hits] for hits in best]


def best_of_part(address: str, queries: Vectors, k: int) -> list[list[Hit]]:
    """Return the *k* best rows of each query in the part at *address*, with their scores; runs on a worker."""
    traits, pages = paged_out(address)
    parts = ((np.arange(part.start, part.stop), pages.vectors[part]) for part in pages.chunks())
    best = best_rows(parts, *unit(queries), k, traits.metric)
    return [
        [(float(score), pages.keys[int(place)]) for score, place in zip(scores, places, strict=True) if place >= 0]
        for scores, places in zip(best.scores, best.places, strict=True)
    ]


@cache
def paged_out(address: str) -> tuple[Traits, Pages]:
    """Return the rows at *address*, kept on this worker's disk."""
    _folders.append(tempfile.TemporaryDirectory(prefix="nudge-vdb-part-"))
    with closing(connect(address)) as part:
        return part.traits, page_out(Patient(part), Path(_folders[-1].name) / "pages")
