"""Ways of reading points that suit how a collection is laid out and what it allows."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from qdrant_client import QdrantClient
from qdrant_client.http.models import CollectionInfo

from nudge_vdb.contract import Vectors
from nudge_vdb.errors import TooLarge
from nudge_vdb_qdrant.fields import Limits
from nudge_vdb_qdrant.keys import PointId
from nudge_vdb_qdrant.naming import is_local
from nudge_vdb_qdrant.points import ClientPoints, Points, PointStore, Target
from nudge_vdb_qdrant.searching import Effort, Hits
from nudge_vdb_qdrant.stub_points import StubPoints

THREADS = 2


class _Around:
    """A store that passes on what it does not do better."""

    def __init__(self, inner: PointStore) -> None:
        self.inner = inner

    def scroll(
        self, start: PointId | None, limit: int, among: Sequence[PointId] | None = None
    ) -> tuple[Points, PointId | None]:
        """Ask the store inside."""
        return self.inner.scroll(start, limit, among)

    def scroll_ids(
        self, start: PointId | None, limit: int, among: Sequence[PointId] | None = None
    ) -> tuple[list[PointId], PointId | None]:
        """Ask the store inside."""
        return self.inner.scroll_ids(start, limit, among)

    def retrieve(self, ids: Sequence[PointId]) -> Points:
        """Ask the store inside."""
        return self.inner.retrieve(ids)

    def existing(self, ids: Sequence[PointId]) -> set[PointId]:
        """Ask the store inside."""
        return self.inner.existing(ids)

    def nearest(self, queries: Vectors, k: int, effort: Effort) -> list[Hits]:
        """Ask the store inside."""
        return self.inner.nearest(queries, k, effort)

    def update(self, ids: Sequence[PointId], vectors: Vectors) -> None:
        """Ask the store inside."""
        self.inner.update(ids, vectors)


class SpreadPoints(_Around):
    """Points that lie in several shards: a page is its ids, and then the vectors of those.

    A scroll makes every shard read a whole page of vectors, of which all but one page in the end is thrown away;
    measured on three nodes and six shards, getting them by id is 1.5 to 2 times as fast.
    """

    def scroll(
        self, start: PointId | None, limit: int, among: Sequence[PointId] | None = None
    ) -> tuple[Points, PointId | None]:
        """Return up to *limit* points from *start* on, and where to go on; one deleted meanwhile is left out."""
        ids, following = self.inner.scroll_ids(start, limit, among)
        if not ids:
            return self.inner.scroll(start, limit, among)
        with ThreadPoolExecutor(THREADS) as pool:
            parts = list(pool.map(self.inner.retrieve, [half for half in (ids[::2], ids[1::2]) if half]))
        return _in_order(parts, ids), following


class ScrolledPoints(_Around):
    """Points that are scrolled to even if their ids are known.

    Getting points by id knows no conditions, and where reads are limited it counts once for each of them, where a
    scroll counts once. *most* is how many points a scroll may return.
    """

    def __init__(self, inner: PointStore, most: int) -> None:
        super().__init__(inner)
        self._most = most

    def retrieve(self, ids: Sequence[PointId]) -> Points:
        """Return those of *ids* that exist in the scope, in any order."""
        return self.inner.scroll(None, self._fitting(ids), ids)[0]

    def existing(self, ids: Sequence[PointId]) -> set[PointId]:
        """Return those of *ids* that exist in the scope."""
        return set(self.inner.scroll_ids(None, self._fitting(ids), ids)[0])

    def _fitting(self, ids: Sequence[PointId]) -> int:
        if len(ids) > self._most:
            raise TooLarge(f"the collection returns at most {self._most} points at once (strict mode)")
        return len(ids)


def speaks_grpc(client: QdrantClient) -> bool:
    """Tell whether *client* reaches a server over gRPC."""
    return not is_local(client) and bool(client.init_options["prefer_grpc"])


def store_of(client: QdrantClient, target: Target, timeout: float) -> PointStore:
    """Return the fastest way to the points: stubs where the client talks gRPC, else its own methods."""
    return StubPoints(client, target, timeout) if speaks_grpc(client) else ClientPoints(client, target)


def suited(store: PointStore, target: Target, info: CollectionInfo, limits: Limits) -> PointStore:
    """Return *store* reading in the way that suits the collection."""
    if limits.reads is not None or target.scope.filter is not None:
        store = ScrolledPoints(store, limits.page)
    spread = (info.config.params.shard_number or 1) > 1 and limits.reads is None
    return SpreadPoints(store) if spread else store


def manner_of(store: PointStore) -> str:
    """Return how *store* reads, in words that begin a sentence."""
    return "By ids, and then by the vectors of those" if isinstance(store, SpreadPoints) else "By scroll"


def by_stubs(store: PointStore) -> bool:
    """Tell whether *store*, or the one inside it, talks gRPC through stubs."""
    return by_stubs(store.inner) if isinstance(store, _Around) else isinstance(store, StubPoints)


def _in_order(parts: Sequence[Points], ids: Sequence[PointId]) -> Points:
    """Return *parts* as one, in the order of *ids*."""
    found = [point for part in parts for point in part.ids]
    place = {point: number for number, point in enumerate(ids)}
    order = np.argsort([place[point] for point in found], kind="stable")
    return Points(
        [found[which] for which in order],
        np.concatenate([part.vectors for part in parts])[order],
        np.concatenate([part.present for part in parts])[order],
    )
