"""The requests that the adapter sends about points, in numpy's terms, through the official client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from nudge_vdb.contract import Mask, Vectors
from nudge_vdb.errors import Refused
from nudge_vdb_qdrant.failures import reading, writing
from nudge_vdb_qdrant.fields import Field
from nudge_vdb_qdrant.keys import PointId, ShardKey
from nudge_vdb_qdrant.naming import is_local
from nudge_vdb_qdrant.scope import EVERYTHING, Scope
from nudge_vdb_qdrant.searching import Effort, Hits


class Vanished(Exception):
    """A point of an update was not there; of the others, nobody knows which were written."""


@dataclass(frozen=True, slots=True)
class Target:
    """What every request of a store is about."""

    collection: str
    field: Field
    scope: Scope = EVERYTHING
    """Only the points that meet its conditions."""
    shard_key: ShardKey | None = None
    """Only the points under it, where the users of the collection shard it themselves."""


@dataclass(frozen=True, slots=True)
class Points:
    """Some points: their ids, their vectors (n, width), and which of them hold one."""

    ids: list[PointId]
    vectors: Vectors
    present: Mask


class PointStore(Protocol):
    """One vector field of one collection, within one scope, perhaps of one shard key."""

    def scroll(
        self, start: PointId | None, limit: int, among: Sequence[PointId] | None = None
    ) -> tuple[Points, PointId | None]:
        """Return up to *limit* points from *start* on, and where to go on; of *among* only, if that is given."""

    def scroll_ids(
        self, start: PointId | None, limit: int, among: Sequence[PointId] | None = None
    ) -> tuple[list[PointId], PointId | None]:
        """Return the ids alone that :meth:`scroll` would meet."""

    def retrieve(self, ids: Sequence[PointId]) -> Points:
        """Return those of *ids* that exist in the scope, in any order."""

    def existing(self, ids: Sequence[PointId]) -> set[PointId]:
        """Return those of *ids* that exist in the scope."""

    def nearest(self, queries: Vectors, k: int, effort: Effort) -> list[Hits]:
        """Return the *k* best points of the scope for each query, with the engine's scores."""

    def update(self, ids: Sequence[PointId], vectors: Vectors) -> None:
        """Replace the vectors of points, and wait until every reader sees them.

        Raises:
            Vanished: a point is not there.
        """


class ClientPoints:
    """Through the methods of the official client: local mode, and servers whose gRPC port cannot be reached.

    Getting by id knows no conditions; :class:`~nudge_vdb_qdrant.reading.ScrolledPoints` gets within a scope.
    """

    def __init__(self, client: QdrantClient, target: Target) -> None:
        self._client, self._name, self._field = client, target.collection, target.field
        self._scope = target.scope
        self._selector: bool | list[str] = [self._field.name] if self._field.name else True
        self._shard_key = target.shard_key
        self._within: dict[str, Any] = {} if target.shard_key is None else {"shard_key_selector": target.shard_key}

    def scroll(
        self, start: PointId | None, limit: int, among: Sequence[PointId] | None = None
    ) -> tuple[Points, PointId | None]:
        """Return up to *limit* points from *start* on, and where to go on; of *among* only, if that is given."""
        records, following = self._scrolled(start, limit, among, self._selector)
        return self._decoded(records), following

    def scroll_ids(
        self, start: PointId | None, limit: int, among: Sequence[PointId] | None = None
    ) -> tuple[list[PointId], PointId | None]:
        """Return the ids alone that :meth:`scroll` would meet."""
        records, following = self._scrolled(start, limit, among, with_vectors=False)
        return [cast("PointId", record.id) for record in records], following

    def retrieve(self, ids: Sequence[PointId]) -> Points:
        """Return those of *ids* that exist, in any order."""
        return self._decoded(self._retrieved(ids, self._selector))

    def existing(self, ids: Sequence[PointId]) -> set[PointId]:
        """Return those of *ids* that exist."""
        return {cast("PointId", record.id) for record in self._retrieved(ids, with_vectors=False)}

    def nearest(self, queries: Vectors, k: int, effort: Effort) -> list[Hits]:
        """Return the *k* best points of the scope for each query, with the engine's scores."""
        requests = [
            models.QueryRequest(
                query=query.tolist(),
                using=self._field.name or None,
                filter=self._scope.filter,
                params=None if is_local(self._client) else effort.params,  # local mode knows one way only, and says so
                limit=k,
                with_payload=False,
                shard_key=self._shard_key,
            )
            for query in queries
        ]
        with reading(self._name):
            answers = self._client.query_batch_points(self._name, requests)
        return [[(point.score, cast("PointId", point.id)) for point in answer.points] for answer in answers]

    def update(self, ids: Sequence[PointId], vectors: Vectors) -> None:
        """Update the one vector of each point; payload and other vectors stay as they are."""
        points = [
            models.PointVectors(id=point, vector=self._named(vector.tolist()))
            for point, vector in zip(ids, vectors, strict=True)
        ]
        try:
            with writing(self._name):
                self._client.update_vectors(self._name, points, wait=True, **self._within)
        except Refused as exc:
            if isinstance(exc.__cause__, UnexpectedResponse) and exc.__cause__.status_code == 404:
                raise Vanished from exc
            raise
        except KeyError as exc:  # how local mode says it
            raise Vanished from exc
        if is_local(self._client) and len(self.existing(ids)) < len(ids):  # or, before client 1.17, does not
            raise Vanished

    def _scrolled(
        self, start: PointId | None, limit: int, among: Sequence[PointId] | None, with_vectors: bool | list[str]
    ) -> tuple[Sequence[models.Record], PointId | None]:
        with reading(self._name):
            records, following = self._client.scroll(
                self._name,
                scroll_filter=self._scope.filter if among is None else self._scope.among(among),
                limit=limit,
                offset=start,
                with_payload=False,
                with_vectors=with_vectors,
                **self._within,
            )
        return records, cast("PointId | None", following)

    def _retrieved(self, ids: Sequence[PointId], with_vectors: bool | list[str]) -> Sequence[models.Record]:
        with reading(self._name):
            return self._client.retrieve(self._name, ids, with_payload=False, with_vectors=with_vectors, **self._within)

    def _named(self, vector: list[float]) -> Any:  # noqa: ANN401 - the client's union of vector types
        return {self._field.name: vector} if self._field.name else vector

    def _decoded(self, records: Sequence[models.Record]) -> Points:
        vectors = np.zeros((len(records), self._field.width), np.float32)
        present = np.zeros(len(records), bool)
        for place, record in enumerate(records):
            held: Any = record.vector
            vector = held.get(self._field.name) if isinstance(held, Mapping) else held
            if vector:
                vectors[place], present[place] = vector, True
        return Points([cast("PointId", record.id) for record in records], vectors, present)
