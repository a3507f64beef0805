"""How fast vectors leave a Qdrant server: this adapter against the loop that a user would write.

``python -m benchmarks.paging`` starts a server, fills it, and prints rows per second, medians of 5 runs in turn.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from qdrant_client import QdrantClient, models

from integration.engines import QdrantServer, qdrant_server
from nudge_vdb.backends import connect
from nudge_vdb.pages import page_out

ROWS = {384: 40_000, 1024: 20_000}
PAGE = 1024
RUNS = 5


def fill(server: QdrantServer, width: int, rows: int) -> str:
    """Make a collection of random rows with payloads; return its name."""
    client = QdrantClient(url=server.url, check_compatibility=False, timeout=60)
    name, rng = f"rows_{width}", np.random.default_rng(0)
    size = models.VectorParams(size=width, distance=models.Distance.COSINE)
    client.create_collection(name, vectors_config={"text": size})
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


def by_adapter(server: QdrantServer, name: str) -> int:
    """Page *name* out into mapped files."""
    collection = connect(server.address(name, vector="text"))
    with tempfile.TemporaryDirectory() as folder:
        count = len(page_out(collection, Path(folder) / "pages"))
    collection.close()
    return count


def rate(way: Callable[[QdrantServer, str], int], server: QdrantServer, name: str) -> float:
    """Return rows per second of one run."""
    start = time.perf_counter()
    return way(server, name) / (time.perf_counter() - start)


def main() -> None:
    """Print the rates and their ratio."""
    with tempfile.TemporaryDirectory() as folder, qdrant_server(Path(folder)) as server:
        for width, rows in ROWS.items():
            name = fill(server, width, rows)
            pairs = [(rate(by_client, server, name), rate(by_adapter, server, name)) for _ in range(RUNS)]
            shipped, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
            ratio = statistics.median(mine / theirs for theirs, mine in pairs)
            print(f"d = {width}: client.scroll {shipped:,.0f} rows/s, page-out {ours:,.0f} rows/s, {ratio:.1f} times")


if __name__ == "__main__":
    main()
