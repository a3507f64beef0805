"""The same requests through the gRPC stubs that the client ships, several times as fast.

The client's own methods spend their time turning every number into a Python object. Here a vector goes from the
message to the array and back as it is. Responses come uncompressed, see :mod:`nudge_vdb_qdrant.opening`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import grpc
import numpy as np
from qdrant_client import QdrantClient
from qdrant_client import grpc as messages

from nudge_vdb.contract import Vectors
from nudge_vdb.errors import Refused
from nudge_vdb_qdrant.failures import reading, writing
from nudge_vdb_qdrant.keys import PointId, ShardKey
from nudge_vdb_qdrant.points import Points, Target, Vanished
from nudge_vdb_qdrant.searching import Effort, Hits

NO_PAYLOAD = messages.WithPayloadSelector(enable=False)  # unless told so, the server sends all of it
NO_VECTORS = messages.WithVectorsSelector(enable=False)


class StubPoints:
    """Points of a server, over gRPC.

    Getting by id knows no conditions; :class:`~nudge_vdb_qdrant.reading.ScrolledPoints` gets within a scope.
    """

    def __init__(self, client: QdrantClient, target: Target, timeout: float) -> None:
        self._client = client  # a stub dies with its client
        self._name, self._field, self._timeout = target.collection, target.field, timeout
        self._scope = target.scope
        names = messages.VectorsSelector(names=[self._field.name])
        self._selector = messages.WithVectorsSelector(**({"include": names} if self._field.name else {"enable": True}))
        self._shard_key = None if target.shard_key is None else _shard_message(target.shard_key)

    def scroll(
        self, start: PointId | None, limit: int, among: Sequence[PointId] | None = None
    ) -> tuple[Points, PointId | None]:
        """Return up to *limit* points from *start* on, and where to go on; of *among* only, if that is given."""
        found, following = self._scrolled(start, limit, among, self._selector)
        return self._decoded(found), following

    def scroll_ids(
        self, start: PointId | None, limit: int, among: Sequence[PointId] | None = None
    ) -> tuple[list[PointId], PointId | None]:
        """Return the ids alone that :meth:`scroll` would meet."""
        found, following = self._scrolled(start, limit, among, NO_VECTORS)
        return [_id_of_message(point.id) for point in found], following

    def retrieve(self, ids: Sequence[PointId]) -> Points:
        """Return those of *ids* that exist, in any order."""
        return self._decoded(self._get(ids, self._selector))

    def existing(self, ids: Sequence[PointId]) -> set[PointId]:
        """Return those of *ids* that exist."""
        return {_id_of_message(point.id) for point in self._get(ids, NO_VECTORS)}

    def nearest(self, queries: Vectors, k: int, effort: Effort) -> list[Hits]:
        """Return the *k* best points of the scope for each query, with the engine's scores."""
        asked = [
            messages.QueryPoints(
                collection_name=self._name,
                query=_query_message(query),
                using=self._field.name or None,
                filter=self._scope.message,
                params=effort.message,
                limit=k,
                with_payload=NO_PAYLOAD,
                with_vectors=NO_VECTORS,
                shard_key_selector=self._shard_key,
            )
            for query in queries
        ]
        request = messages.QueryBatchPoints(collection_name=self._name, query_points=asked)
        with reading(self._name):
            answer = self._client.grpc_points.QueryBatch(request, timeout=self._timeout)
        return [[(point.score, _id_of_message(point.id)) for point in found.result] for found in answer.result]

    def update(self, ids: Sequence[PointId], vectors: Vectors) -> None:
        """Update the one vector of each point; payload and other vectors stay as they are."""
        points = [
            messages.PointVectors(id=_id_message(point), vectors=self._named(_vector_message(vector)))
            for point, vector in zip(ids, np.ascontiguousarray(vectors, "<f4"), strict=True)
        ]
        request = messages.UpdatePointVectors(
            collection_name=self._name, wait=True, points=points, shard_key_selector=self._shard_key
        )
        try:
            with writing(self._name):
                self._client.grpc_points.UpdateVectors(request, timeout=self._timeout)
        except Refused as exc:
            if isinstance(exc.__cause__, grpc.RpcError) and exc.__cause__.code() is grpc.StatusCode.NOT_FOUND:
                raise Vanished from exc
            raise

    def _scrolled(
        self,
        start: PointId | None,
        limit: int,
        among: Sequence[PointId] | None,
        selector: messages.WithVectorsSelector,
    ) -> tuple[Sequence[messages.RetrievedPoint], PointId | None]:
        request = messages.ScrollPoints(
            collection_name=self._name,
            filter=self._inside(among),
            limit=limit,
            offset=None if start is None else _id_message(start),
            with_payload=NO_PAYLOAD,
            with_vectors=selector,
            shard_key_selector=self._shard_key,
        )
        with reading(self._name):
            answer = self._client.grpc_points.Scroll(request, timeout=self._timeout)
        following = _id_of_message(answer.next_page_offset) if answer.HasField("next_page_offset") else None
        return cast("Sequence[messages.RetrievedPoint]", answer.result), following

    def _inside(self, among: Sequence[PointId] | None) -> messages.Filter | None:
        if among is None:
            return self._scope.message
        return self._scope.message_among(_id_message(point) for point in among)

    def _get(self, ids: Sequence[PointId], selector: messages.WithVectorsSelector) -> Sequence[messages.RetrievedPoint]:
        request = messages.GetPoints(
            collection_name=self._name,
            ids=[_id_message(point) for point in ids],
            with_payload=NO_PAYLOAD,
            with_vectors=selector,
            shard_key_selector=self._shard_key,
        )
        with reading(self._name):
            answer = self._client.grpc_points.Get(request, timeout=self._timeout)
        return cast("Sequence[messages.RetrievedPoint]", answer.result)

    def _named(self, vector: messages.Vector) -> messages.Vectors:
        if not self._field.name:
            return messages.Vectors(vector=vector)
        return messages.Vectors(vectors=messages.NamedVectors(vectors={self._field.name: vector}))

    def _decoded(self, points: Sequence[messages.RetrievedPoint]) -> Points:
        vectors = np.zeros((len(points), self._field.width), np.float32)
        present = np.zeros(len(points), bool)
        for place, point in enumerate(points):
            numbers = self._numbers(point.vectors)
            if numbers:
                vectors[place], present[place] = numbers, True
        return Points([_id_of_message(point.id) for point in points], vectors, present)

    def _numbers(self, held: messages.VectorsOutput) -> Sequence[float]:
        """Return the numbers of this field, none where the point lacks it."""
        if held.WhichOneof("vectors_options") == "vectors":
            if self._field.name not in held.vectors.vectors:
                return ()
            vector = held.vectors.vectors[self._field.name]
        else:
            vector = held.vector
        # Servers up to 1.16 fill the field that newer ones call deprecated.
        dense = vector.WhichOneof("vector") == "dense"
        return cast("Sequence[float]", vector.dense.data if dense else vector.data)


def _shard_message(shard_key: ShardKey) -> messages.ShardKeySelector:
    one = messages.ShardKey(number=shard_key) if isinstance(shard_key, int) else messages.ShardKey(keyword=shard_key)
    return messages.ShardKeySelector(shard_keys=[one])


def _id_message(point: PointId) -> messages.PointId:
    return messages.PointId(num=point) if isinstance(point, int) else messages.PointId(uuid=point)


def _id_of_message(message: messages.PointId) -> PointId:
    return message.num if message.WhichOneof("point_id_options") == "num" else message.uuid


def _vector_message(vector: Vectors) -> messages.Vector:
    return messages.Vector(dense=_dense_message(vector))


def _query_message(vector: Vectors) -> messages.Query:
    return messages.Query(nearest=messages.VectorInput(dense=_dense_message(np.ascontiguousarray(vector, "<f4"))))


def _dense_message(vector: Vectors) -> messages.DenseVector:
    """Return the message that holds *vector*, made from its bytes: one packed field of numbers, tag 1."""
    content = vector.tobytes()
    found: messages.DenseVector = messages.DenseVector.FromString(b"\x0a" + _varint(len(content)) + content)
    return found


def _varint(number: int) -> bytes:
    """Return *number* as protobuf counts: seven bits a byte, the lowest first."""
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])
