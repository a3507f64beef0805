"""A Qdrant cluster of three whose data outlives the run, since its index takes longer to build than to use.

``python -m benchmarks.kept_cluster`` fills the collections of :data:`SIZES` and builds their indexes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import platformdirs
from qdrant_client import QdrantClient, models
from qdrant_client import grpc as messages

from benchmarks.clustered import Clustered
from integration.engines import free_ports
from integration.engines_cluster import NODES, QdrantCluster, qdrant_cluster_of_three

FOLDER = Path(os.environ.get("NUDGE_VDB_BENCH_DATA") or platformdirs.user_cache_dir("nudge-vdb")) / "cluster"
SIZES = (100_000, 1_000_000)
WIDTH, QUERIES = 384, 10_000
LAYOUT = {"shard_number": 6, "replication_factor": 2}
NOT_YET = 0
"""As a threshold: no index is built while rows arrive, since it would be built again and again."""
INDEXED_FROM = 10_000
"""Kilobytes of a segment."""
BETWEEN_LOOKS = 5.0


def rows_of(size: int) -> Clustered:
    """Return the rows and queries of the collection of so many rows."""
    return Clustered(size, WIDTH, QUERIES)


def name_of(size: int) -> str:
    """Return the name of the collection of so many rows."""
    return f"rows_{size}"


@contextmanager
def kept_cluster() -> Iterator[QdrantCluster]:
    """Run the cluster on the ports that its data knows, with the collections that it has."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    kept = FOLDER / "ports.json"
    if not kept.exists():
        kept.write_text(json.dumps(free_ports(3 * NODES)))
    with qdrant_cluster_of_three(FOLDER, json.loads(kept.read_text())) as cluster:
        yield cluster


def client_of(cluster: QdrantCluster, **options: bool) -> closing[QdrantClient]:
    """Return a client of the first node."""
    server = cluster.nodes[0].server
    ports = {"port": server.port, "grpc_port": server.grpc_port}
    return closing(QdrantClient(host=server.host, check_compatibility=False, timeout=600, **ports, **options))


def complete(cluster: QdrantCluster, size: int) -> None:
    """Make sure that the collection of *size* rows is there, and its index on every node."""
    with client_of(cluster, prefer_grpc=True) as client:
        if not client.collection_exists(name_of(size)) or client.count(name_of(size)).count != size:
            fill(client, name_of(size), rows_of(size))
        client.update_collection(
            name_of(size), optimizers_config=models.OptimizersConfigDiff(indexing_threshold=INDEXED_FROM)
        )
    for node in cluster.nodes:
        wait_until_green(node.server.url, name_of(size))


def fill(client: QdrantClient, name: str, rows: Clustered) -> None:
    """Make the collection *name* anew, with a payload for each row, and no index yet."""
    client.delete_collection(name)
    client.create_collection(
        name,
        vectors_config=models.VectorParams(size=rows.width, distance=models.Distance.COSINE),
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=NOT_YET),
        **LAYOUT,
    )
    for places, vectors in rows.parts():
        points = [
            messages.PointStruct(
                id=messages.PointId(num=place),
                vectors=messages.Vectors(vector=messages.Vector(dense=messages.DenseVector(data=vector))),
                payload={"title": messages.Value(string_value=f"row {place}")},
            )
            for place, vector in zip(places, vectors, strict=True)
        ]
        client.grpc_points.Upsert(messages.UpsertPoints(collection_name=name, wait=True, points=points))


def wait_until_green(url: str, name: str) -> None:
    """Return when the node at *url* has nothing left to optimise."""
    with closing(QdrantClient(url=url, check_compatibility=False, timeout=60)) as client:
        while client.get_collection(name).status is not models.CollectionStatus.GREEN:
            time.sleep(BETWEEN_LOOKS)


def main() -> None:
    """Build what is not there yet."""
    with kept_cluster() as cluster:
        for size in SIZES:
            start = time.perf_counter()
            complete(cluster, size)
            print(f"{size:,} rows: there and indexed after {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
