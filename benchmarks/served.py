"""Servers that hold clustered rows under HNSW: filled, written as a user would write them, and searched."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pymilvus import DataType, MilvusClient
from qdrant_client import QdrantClient, models

from benchmarks.clustered import Clustered
from integration.engines import QdrantServer, qdrant_server
from integration.engines_milvus import MilvusServer, running_milvus
from nudge_vdb.contract import Metric, Vectors
from nudge_vdb_qdrant.fields import Field
from nudge_vdb_qdrant.points import Target
from nudge_vdb_qdrant.stub_points import StubPoints

NAME, FIELD = "rows", "text"
FOUND = 10
BUILD = {"M": 16, "efConstruction": 100}
AS_SHIPPED = {"PROXY_TIMETICKINTERVAL": "200", "PROXY_GRPC_SERVERMAXSENDSIZE": str(64 << 20)}
LONGEST, SOON = 120.0, 10.0
"""Seconds that an index is waited for at most."""
Loop = Callable[[Sequence[int], Vectors, int], None]
"""Writes the vectors of ids, so many a batch."""
Search = Callable[[Vectors], object]


class Served(Protocol):
    """A collection on a server."""

    address: str
    loops: Mapping[str, Loop]
    """The ways that a user would write vectors, by name."""

    def settle(self) -> None:
        """Return when the engine has finished its index."""

    def search(self) -> Callable[[], Search]:
        """Return what opens a client of its own, to be called in another process."""


class OnQdrant:
    """A collection of a Qdrant server."""

    def __init__(self, server: QdrantServer, made: Clustered) -> None:
        self._ports = {"port": server.port, "grpc_port": server.grpc_port}
        self.address = server.address(NAME, vector=FIELD)
        self._grpc, rest = (_qdrant(self._ports, prefer_grpc=preferred) for preferred in (True, False))
        self.loops = {
            "client.update_vectors, REST": partial(_updated, rest),
            "client.update_vectors, gRPC": partial(_updated, self._grpc),
            "the bare wire": partial(_sent, self._stubs(made.width)),
        }
        size = models.VectorParams(size=made.width, distance=models.Distance.COSINE)
        self._grpc.create_collection(NAME, vectors_config={FIELD: size})
        for places, vectors in made.parts():
            payloads = [{"n": place} for place in places]
            batch = models.Batch(ids=list(places), vectors={FIELD: vectors.tolist()}, payloads=payloads)
            self._grpc.upsert(NAME, batch)
        self.settle()

    def _stubs(self, width: int) -> StubPoints:
        return StubPoints(self._grpc, Target(NAME, Field(FIELD, width, Metric.COSINE)), timeout=300)

    def settle(self) -> None:
        """Return when the collection is green: when no segment waits to be indexed."""
        deadline = time.monotonic() + LONGEST
        while self._grpc.get_collection(NAME).status != models.CollectionStatus.GREEN and time.monotonic() < deadline:
            time.sleep(0.2)

    def search(self) -> Callable[[], Search]:
        """Search over gRPC."""
        return partial(_qdrant_search, self._ports)


def _qdrant(ports: Mapping[str, int], **options: Any) -> QdrantClient:
    return QdrantClient(host="127.0.0.1", check_compatibility=False, timeout=300, **ports, **options)


def _updated(client: QdrantClient, ids: Sequence[int], vectors: Vectors, size: int) -> None:
    for first in range(0, len(ids), size):
        part = slice(first, first + size)
        pairs = zip(ids[part], vectors[part].tolist(), strict=True)
        client.update_vectors(NAME, [models.PointVectors(id=each, vector={FIELD: vector}) for each, vector in pairs])


def _sent(points: StubPoints, ids: Sequence[int], vectors: Vectors, size: int) -> None:
    for first in range(0, len(ids), size):
        points.update(ids[first : first + size], vectors[first : first + size])


def _qdrant_search(ports: Mapping[str, int]) -> Search:
    client = _qdrant(ports, prefer_grpc=True)
    return lambda query: client.query_points(NAME, query.tolist(), using=FIELD, limit=FOUND, with_payload=False)


class OnMilvus:
    """A collection of a Milvus server that is set as it is shipped, flushed, indexed and loaded."""

    def __init__(self, server: MilvusServer, made: Clustered) -> None:
        self._uri, self.address = server.uri, server.address(NAME)
        self._client = MilvusClient(server.uri, timeout=300, dedicated=True)
        self.loops = {"client.query, then upsert": partial(_upserted, self._client)}
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=True)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field(FIELD, DataType.FLOAT_VECTOR, dim=made.width)
        index = self._client.prepare_index_params()
        index.add_index(FIELD, index_type="HNSW", metric_type="COSINE", params=BUILD)
        self._client.create_collection(NAME, schema=schema)
        for places, vectors in made.parts():
            rows = zip(places, vectors, strict=True)
            self._client.insert(NAME, [{"id": place, FIELD: vector, "n": place} for place, vector in rows])
        self._client.flush(NAME)
        self._client.create_index(NAME, index)
        self._client.load_collection(NAME)

    def settle(self) -> None:
        """Return when no row waits for an index, or soon: rows just written wait for as long as their segment grows."""
        deadline = time.monotonic() + SOON
        while self._pending() and time.monotonic() < deadline:
            time.sleep(0.2)

    def search(self) -> Callable[[], Search]:
        """Search with the collection's own, bounded, consistency."""
        return partial(_milvus_search, self._uri)

    def _pending(self) -> int:
        return int(self._client.describe_index(NAME, FIELD).get("pending_index_rows", 0))


def _upserted(client: MilvusClient, ids: Sequence[int], vectors: Vectors, size: int) -> None:
    for first in range(0, len(ids), size):
        wanted = dict(zip(ids[first : first + size], vectors[first : first + size], strict=True))
        found = client.query(NAME, filter=f"id in {list(wanted)}", output_fields=["*"], consistency_level="Strong")
        client.upsert(NAME, [{**row, FIELD: wanted[row["id"]]} for row in found])


def _milvus_search(uri: str) -> Search:
    client = MilvusClient(uri, timeout=300, dedicated=True)
    return lambda query: client.search(NAME, [query], limit=FOUND, search_params={"params": {"ef": 64}})


@contextmanager
def served(engine: str, folder: Path, made: Clustered) -> Iterator[Served]:
    """Run a server of *engine* that holds the rows."""
    if engine == "qdrant":
        with qdrant_server(folder) as qdrant:
            yield OnQdrant(qdrant, made)
    else:
        with running_milvus(folder, AS_SHIPPED) as milvus:
            yield OnMilvus(milvus, made)


def random_units(rows: int, width: int, seed: int = 0) -> Vectors:
    """Return (rows, width) vectors of length 1."""
    vectors = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
