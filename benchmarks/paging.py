"""How fast vectors leave a Qdrant server: this adapter against the loop that a user would write.

``python -m benchmarks.paging`` starts a server, fills it, and prints rows per second, medians of 5 runs in turn; with
``--cluster``, three nodes with six shards of two replicas each; with ``--rest``, where the adapter finds no gRPC port.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from qdrant_client import QdrantClient, models

from integration.engines import QdrantServer, qdrant_server
from integration.engines_cluster import qdrant_cluster_of_three
from nudge_vdb.backends import connect
from nudge_vdb.pages import page_out

ROWS = {384: 40_000, 1024: 20_000}
PAGE = 1024
RUNS = 5
SPREAD = {"shard_number": 6, "replication_factor": 2}
NO_PORT = 1


def fill(server: QdrantServer, width: int, rows: int, layout: dict[str, int]) -> str:
    """Make a collection of random rows with payloads; return its name."""
    client = QdrantClient(url=server.url, check_compatibility=False, timeout=60)
    name, rng = f"rows_{width}", np.random.default_rng(0)
    size = models.VectorParams(size=width, distance=models.Distance.COSINE)
    client.create_collection(name, vectors_config={"text": size}, **layout)
    for first in range(0, rows, 1000):
        vectors = {"text": rng.normal(size=(1000, width)).astype(np.float32).tolist()}
        ids = list(range(first, first + 1000))
        client.upsert(name, models.Batch(ids=ids, vectors=vectors, payloads=[{"n": number} for number in ids]))
    client.close()
    return name


def by_client(server: QdrantServer, name: str) -> int:
    """Scroll through *name* with the client as it is shipped, over gRPC."""
    client = QdrantClient(
        host="127.0.0.1", port=server.port, grpc_port=server.grpc_port, prefer_grpc=True, check_compatibility=False
    )
    count, offset = 0, None
    while True:
        records, offset = client.scroll(name, limit=PAGE, offset=offset, with_payload=False, with_vectors=["text"])
        count += len(np.array([record.vector["text"] for record in records], np.float32))
        if offset is None:
            client.close()
            return count


def by_adapter(server: QdrantServer, name: str, **options: str) -> int:
    """Page *name* out into mapped files."""
    collection = connect(server.address(name, vector="text", **options))
    with tempfile.TemporaryDirectory() as folder:
        count = len(page_out(collection, Path(folder) / "pages"))
    collection.close()
    return count


def rate(way: Callable[[QdrantServer, str], int], server: QdrantServer, name: str) -> float:
    """Return rows per second of one run."""
    start = time.perf_counter()
    return way(server, name) / (time.perf_counter() - start)


def by_rest(server: QdrantServer, name: str) -> int:
    """Do so where gRPC cannot be spoken."""
    return by_adapter(server, name, grpc_port=str(NO_PORT))


@contextmanager
def one_server(folder: Path) -> Iterator[tuple[QdrantServer, dict[str, int]]]:
    """Run one server; yield it with the layout of its collections."""
    with qdrant_server(folder) as server:
        yield server, {}


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[QdrantServer, dict[str, int]]]:
    """Run three nodes; yield the first with the layout of the collections."""
    with qdrant_cluster_of_three(folder) as nodes:
        yield nodes.nodes[0].server, SPREAD


def main() -> None:
    """Print the rates and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cluster", dest="engine", action="store_const", const=cluster, default=one_server)
    parser.add_argument("--rest", dest="ours", action="store_const", const=by_rest, default=by_adapter)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, asked.engine(Path(folder)) as (server, layout):
        for width, rows in ROWS.items():
            name = fill(server, width, rows, layout)
            pairs = [(rate(by_client, server, name), rate(asked.ours, server, name)) for _ in range(RUNS)]
            shipped, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
            ratio = statistics.median(mine / theirs for theirs, mine in pairs)
            print(f"d = {width}: client.scroll {shipped:,.0f} rows/s, page-out {ours:,.0f} rows/s, {ratio:.1f} times")


if __name__ == "__main__":
    main()
