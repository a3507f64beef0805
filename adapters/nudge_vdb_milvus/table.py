"""The rows of one vector field within one scope, asked for partition by partition."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pymilvus import MilvusClient

from nudge_vdb.contract import Vectors
from nudge_vdb.errors import Refused
from nudge_vdb_milvus import filters
from nudge_vdb_milvus.failures import is_forbidden, reading
from nudge_vdb_milvus.fitness import Shape
from nudge_vdb_milvus.keys import Pk
from nudge_vdb_milvus.release import Release
from nudge_vdb_milvus.scope import Bounds
from nudge_vdb_milvus.sources import Found, Source, joined, require_whole, unsorted
from nudge_vdb_milvus.wire import LATEST, MOST_ROWS

LOOKS = 4
"""How often a row is looked for before it counts as gone, where a row can be missing for a moment."""

_LISTED_ROWS = 4096  # a quarter of what a reply may hold: a key that was inserted four times is found yet
_PAGES_LISTED = 8
_DEFAULT = "_default"


@dataclass(frozen=True, slots=True)
class Pace:
    """How much an engine is asked for at a time, and by how many requests at once."""

    request_bytes: int
    lanes: int

    @property
    def text(self) -> str:
        """How it is asked, for people."""
        return f"up to {self.lanes} requests at once, of {self.request_bytes >> 20} MiB each"


# Measured on 2.3.5: a reply of 8 MiB takes 2.4 times as long per row as one of 4 MiB or less. Milvus Lite reads the
# whole collection for every request, one at a time.
_OF_SERVER = Pace(2 << 20, 4)
_OF_LITE = Pace(8 << 20, 1)
_PAGE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Listing:
    """Primary keys of a partition that were listed in one request, for the pages to come."""

    partition: str
    at: int
    after: Pk | None
    pks: list[Pk]

    def behind(self, partition: str, after: Pk | None, at: int) -> list[Pk]:
        """Return the keys behind *after*, none where this is not the listing to look at."""
        # What is there now is not what was there when it was last asked for.
        if at == LATEST or (self.partition, self.at) != (partition, at):
            return []
        if after is None or (self.after is not None and after < self.after):  # type: ignore[operator]
            return self.pks if after == self.after else []
        return self.pks[bisect_right(self.pks, after) :]


class Table:
    """One vector field of one collection within *bounds*; an empty name of a partition asks all of them."""

    def __init__(
        self, client: MilvusClient, source: Source, shape: Shape, release: Release, bounds: Bounds, timeout: float
    ) -> None:
        self.shape = shape
        self.bounds = bounds
        self._client = client
        self._source = source
        self._release = release
        self._timeout = timeout
        self.pace = _OF_LITE if release.lite else _OF_SERVER
        self._listing = Listing("", LATEST, None, [])

    @property
    def looks(self) -> int:
        """How often a row is to be looked for before it counts as gone."""
        return LOOKS if self._release.flickers else 1

    def now(self) -> int:
        """Return the engine's time, for reads that need not wait again for what came before it."""
        return LATEST if self._release.lite else self._source.now()

    def partitions(self) -> list[str]:
        """Return the partitions in the order they are paged in; a partition key's are one, being Milvus's own."""
        if self.shape.partition_key is not None:
            return [""]
        if self.bounds.partition:
            return [self.bounds.partition]
        try:
            with reading(self.shape.collection):
                return sorted(self._client.list_partitions(self.shape.collection, timeout=self._timeout))
        except Refused as exc:
            if self.shape.undivided and is_forbidden(exc):
                return [_DEFAULT]
            raise

    def page(self, partition: str, after: Pk | None, limit: int, at: int = LATEST) -> Found:
        """Return about *limit* rows behind *after* in the order of their keys; none at all only at the end."""
        limit = min(limit, MOST_ROWS, self._rows_of(_PAGE_BYTES))
        if not self._release.flickers:
            return self._ask(partition, filters.after(self.shape.pk, after), at, self._sorted(limit))
        while pks := self._listed(partition, after, limit, at):
            found = self._spanned(partition, after, pks, at)
            if found.pks:
                return found
            after = pks[-1]  # every row that was listed has been deleted since
        return joined([], self.shape.width)

    def rows(self, partition: str, pks: Sequence[Pk], at: int | None = None) -> Found:
        """Return those of the rows *pks* that exist, with their vectors, now or at a time that was asked for before."""
        at = self.now() if at is None else at
        found = self._together([self._among(partition, part, at) for part in self._portions(pks)])
        for _ in range(self.looks - 1):
            missing = sorted(set(pks).difference(found.pks))
            if not missing:
                break
            again = self._together([self._among(partition, part, LATEST) for part in self._portions(missing)])
            found = joined([found, again], self.shape.width)
        return found

    def listed(self, partition: str) -> list[Pk]:
        """Return the first primary keys of *partition*, as many as one reply holds, each copy of a row once."""
        return self._source.pks(self.bounds.expression, partition, LATEST, self._sorted(MOST_ROWS))

    def existing(self, partition: str, pks: Sequence[Pk], at: int) -> list[Pk]:
        """Return those of *pks* that were met in one look."""
        field = self.shape.pk
        parts = (self.bounds.within(filters.among(field, part)) for part in self._portions(pks))
        return [pk for where in parts for pk in self._source.pks(where, partition, at, unsorted())]

    def replace(self, partition: str, vectors: Mapping[Pk, Vectors]) -> None:
        """Replace the vectors of rows that were seen just now: a row that is gone would be created."""
        self._source.replace(partition, vectors)

    def nearest(
        self, partition: str, queries: Vectors, k: int, effort: Mapping[str, Any], at: int
    ) -> list[list[tuple[float, Pk]]]:
        """Return for each query the *k* best rows, best first, as score and primary key."""
        with reading(self.shape.collection):
            found = self._client.search(
                self.shape.collection,
                list(queries),
                filter=self.bounds.expression,
                anns_field=self.shape.vector,
                limit=k,
                search_params=effort,
                # Milvus Lite sends whole rows unless told which fields.
                output_fields=[self.shape.pk],
                # At a time that is given, only the first of many partitions waits for the server's clock.
                consistency_level="Customized" if at else "Strong",
                guarantee_timestamp=at,
                timeout=self._timeout,
                partition_names=[partition] if partition else None,
            )
        return [[(hit["distance"], hit[self.shape.pk]) for hit in hits] for hits in found]

    def count(self) -> int:
        """Return how many rows there are."""
        where, partition = self.bounds.expression, self.bounds.partition
        if partition and self._release.lite:  # which counts the rows of all partitions
            return len(self._source.pks(where, partition, LATEST, {}))
        return self._source.count(where, partition)

    def _listed(self, partition: str, after: Pk | None, limit: int, at: int) -> list[Pk]:
        """Return the first *limit* keys behind *after*; at the end, look once more at what is there now."""
        known = self._listing.behind(partition, after, at)
        if known:
            return known[:limit]
        where = self.bounds.within(filters.after(self.shape.pk, after))
        for time in (at, LATEST):
            pks = self._source.pks(where, partition, time, self._sorted(min(MOST_ROWS, _PAGES_LISTED * limit)))
            if pks:
                self._listing = Listing(partition, at, after, pks)
                return pks[:limit]
        return []

    def _spanned(self, partition: str, after: Pk | None, pks: list[Pk], at: int) -> Found:
        """Return the rows behind *after* up to the last of *pks*, those that were not listed among them."""
        parts = list(self._portions(pks))
        begins = [after, *(part[-1] for part in parts)]  # each part with what was not listed before it
        spans = [filters.up_to(self.shape.pk, begin, part[-1]) for begin, part in zip(begins, parts, strict=False)]
        asks = [self._spanning(partition, span, at) for span in spans]
        found = self._together(asks)
        missing = sorted(set(pks).difference(found.pks))
        if missing:
            found = joined([found, self.rows(partition, missing)], self.shape.width)
        return _in_order(found)

    def _spanning(self, partition: str, span: str, at: int) -> Callable[[], Found]:
        return lambda: require_whole(self._ask(partition, span, at, unsorted()))

    def _among(self, partition: str, pks: Sequence[Pk], at: int) -> Callable[[], Found]:
        return lambda: self._ask(partition, filters.among(self.shape.pk, pks), at, unsorted())

    def _together(self, asks: Sequence[Callable[[], Found]]) -> Found:
        """Return the rows of all requests, several of which are under way at once."""
        if len(asks) < 2 or self.pace.lanes < 2:
            return joined([ask() for ask in asks], self.shape.width)
        with ThreadPoolExecutor(min(self.pace.lanes, len(asks))) as pool:
            return joined(list(pool.map(lambda ask: ask(), asks)), self.shape.width)

    def _ask(self, partition: str, where: str, at: int, options: Mapping[str, str]) -> Found:
        found = self._source.rows(self.bounds.within(where), partition, at, options)
        if self.shape.nullable and self._release.lite:  # which stores zeros for a vector that was left out
            return Found(found.pks, found.vectors, found.absent | ~found.vectors.any(axis=1))
        return found

    def _sorted(self, limit: int) -> dict[str, str]:
        # Any value of "iterator" makes Milvus Lite sort by primary key; without it a cursor loses rows.
        return {"limit": str(limit)} | ({"iterator": "True"} if self._release.sorts_for_iterators_only else {})

    def _rows_of(self, size: int) -> int:
        return max(16, size // (4 * self.shape.width))

    def _portions(self, pks: Sequence[Pk]) -> Iterator[Sequence[Pk]]:
        most = min(_LISTED_ROWS, self._rows_of(self.pace.request_bytes))
        rows = -(-len(pks) // max(1, -(-len(pks) // most)))  # parts of about one size
        return (pks[first : first + rows] for first in range(0, len(pks), max(1, rows)))


def _in_order(found: Found) -> Found:
    """Return each row of *found* once, in the order of their keys: servers after 2.3 keep none of their own."""
    places = {pk: place for place, pk in enumerate(found.pks)}
    order = [places[pk] for pk in sorted(places)]
    return found if order == list(range(len(found.pks))) else found.taken(order)
