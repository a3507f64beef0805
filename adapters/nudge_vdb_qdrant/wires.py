"""Whether what answers gRPC is the server that answers REST: the two ports of an address are two addresses.

A server has an id of its own, its peer id, drawn at random at its first start and told over both wires; of a cluster,
every node tells which peers hold the shards of a collection.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import grpc
from qdrant_client import QdrantClient, models
from qdrant_client import grpc as messages
from qdrant_client.http.exceptions import UnexpectedResponse

from nudge_vdb_qdrant.failures import reading

ROWS = 5
"""Rows that are looked at over both wires where no peer id is told."""
LOOKS = 3
"""How often two answers may differ before it is no writer of the collection that makes them differ."""
FORBIDDEN = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
ABSENT = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED)
REFUSED = (401, 403, 404)


class Wires(Enum):
    """What is known of the server behind gRPC."""

    ONE = "the same server"
    OTHER = "another server"
    UNTOLD = "not told"


def compared(client: QdrantClient, collection: str, timeout: float) -> Wires:
    """Tell whether gRPC and REST of *client* lead to the same server, or cluster, that holds *collection*."""
    with reading(f"whether gRPC and REST are of one server, of {collection}"):
        by_rest = _allowed(lambda: _peers_by_rest(client, collection))
        by_grpc = _allowed(lambda: _peers_by_grpc(client, collection, timeout))
        if by_rest and by_grpc:
            return Wires.ONE if by_rest & by_grpc else Wires.OTHER
        if bool(by_rest) != bool(by_grpc):  # one takes the key, or has the collection, and the other does not
            return Wires.OTHER
        return Wires.UNTOLD if _alike(client, collection, timeout) else Wires.OTHER


def _allowed(asked: Callable[[], set[int]]) -> set[int]:
    """Return what *asked* returns, nothing where the key may not ask that, or there is no such collection."""
    try:
        return asked()
    except UnexpectedResponse as exc:
        if exc.status_code not in REFUSED:
            raise
    except grpc.RpcError as exc:
        if exc.code() not in FORBIDDEN + ABSENT:
            raise
    return set()


def _peers_by_rest(client: QdrantClient, collection: str) -> set[int]:
    told = client.http.distributed_api.collection_cluster_info(collection).result
    return set() if told is None else {told.peer_id, *(shard.peer_id for shard in told.remote_shards)}


def _peers_by_grpc(client: QdrantClient, collection: str, timeout: float) -> set[int]:
    request = messages.CollectionClusterInfoRequest(collection_name=collection)
    told = client.grpc_collections.CollectionClusterInfo(request, timeout=timeout)
    return {told.peer_id, *(shard.peer_id for shard in told.remote_shards)}


def _alike(client: QdrantClient, collection: str, timeout: float) -> bool:
    """Tell whether the first rows are the same by both wires; rows that others write meanwhile are looked at again."""
    looks = ((_ids_by_rest(client, collection), _ids_by_grpc(client, collection, timeout)) for _ in range(LOOKS))
    return any(by_rest == by_grpc for by_rest, by_grpc in looks)


def _ids_by_rest(client: QdrantClient, collection: str) -> list[str]:
    request = models.ScrollRequest(limit=ROWS, with_payload=False, with_vector=False)
    found = client.http.points_api.scroll_points(collection, scroll_request=request).result
    return [str(point.id) for point in found.points] if found else []


def _ids_by_grpc(client: QdrantClient, collection: str, timeout: float) -> list[str] | None:
    """Return the ids that gRPC tells, None where that knows another key, or no such collection."""
    nothing = messages.WithPayloadSelector(enable=False)
    request = messages.ScrollPoints(collection_name=collection, limit=ROWS, with_payload=nothing)
    try:
        points = client.grpc_points.Scroll(request, timeout=timeout).result
    except grpc.RpcError as exc:
        if exc.code() in FORBIDDEN + ABSENT:
            return None
        raise
    return [point.id.uuid or str(point.id.num) for point in points]
