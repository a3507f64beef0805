"""How fast vectors leave a server: an adapter against the loop that a user would write with the client it ships.

``python -m benchmarks.paging [qdrant] [qdrant-rest] [qdrant-cluster] [milvus]`` starts a server of each, fills it, and
prints rows per second, medians of 5 runs in turn. Without gRPC, the adapter falls back to REST; the cluster has three
nodes and six shards of two replicas each. The wire is the same pages asked for over gRPC, their bytes counted and
thrown away.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from pymilvus import DataType, MilvusClient
from pymilvus.grpc_gen import milvus_pb2
from qdrant_client import QdrantClient, models
from qdrant_client import grpc as messages

from benchmarks.page import record, table
from integration.engines import QdrantServer, qdrant_server
from integration.engines_cluster import qdrant_cluster_of_three
from integration.engines_milvus import running_milvus
from nudge_vdb.backends import connect
from nudge_vdb.pages import PAGE_BYTES, page_out

ROWS = {384: 20_000, 1024: 10_000}
MORE = {"milvus": 5}
"""An engine that is read faster, so that so many times as many rows take as long."""
PAGES = (1024, 4096, 8192)
"""Rows at once that the client's own loop tries; it runs with the fastest."""
RUNS = 5
HEAD = ("the client's own loop", "width", "rows a page", "loop", "page-out", "times", "the bare wire", "of the wire")
EVENTUALLY = 3
"""common_pb2.ConsistencyLevel"""
SPREAD = {"shard_number": 6, "replication_factor": 2}
NO_PORT = 1
USUAL = {"PROXY_TIMETICKINTERVAL": "200", "PROXY_GRPC_SERVERMAXSENDSIZE": str(64 << 20)}


@dataclass(frozen=True)
class Filled:
    """A collection of random rows on a server: its address, and the client's own loop through it."""

    address: str
    loop: str
    by_client: Callable[[int], int]
    """Reads all rows, so many at once, and returns how many there are."""
    by_wire: Callable[[], int]
    """Receives the bytes of all rows, and returns how many bytes that are."""


@contextmanager
def on_qdrant(folder: Path, width: int, rows: int) -> Iterator[Filled]:
    """Fill a collection of a Qdrant server."""
    with qdrant_server(folder) as server:
        yield filled_qdrant(server, width, rows)


@contextmanager
def on_qdrant_rest(folder: Path, width: int, rows: int) -> Iterator[Filled]:
    """Fill a collection of a Qdrant server whose gRPC port the adapter does not find."""
    with qdrant_server(folder) as server:
        filled = filled_qdrant(server, width, rows)
        yield replace(filled, address=server.address("rows", vector="text", grpc_port=str(NO_PORT)))


@contextmanager
def on_qdrant_cluster(folder: Path, width: int, rows: int) -> Iterator[Filled]:
    """Fill a collection that is spread over three Qdrant nodes."""
    with qdrant_cluster_of_three(folder) as cluster:
        yield filled_qdrant(cluster.nodes[0].server, width, rows, **SPREAD)


def filled_qdrant(server: QdrantServer, width: int, rows: int, **layout: int) -> Filled:
    """Make a collection of random rows with payloads."""
    client = QdrantClient(url=server.url, check_compatibility=False, timeout=60)
    size = models.VectorParams(size=width, distance=models.Distance.COSINE)
    client.create_collection("rows", vectors_config={"text": size}, **layout)
    for ids, vectors in batches(width, rows):
        payloads = [{"n": number} for number in ids]
        client.upsert("rows", models.Batch(ids=ids, vectors={"text": vectors.tolist()}, payloads=payloads))
    client.close()
    ports = {"port": server.port, "grpc_port": server.grpc_port}
    channel = f"127.0.0.1:{server.grpc_port}"
    return Filled(
        server.address("rows", vector="text"),
        "client.scroll",
        lambda page: scrolled(ports, page),
        lambda: received(channel, "/qdrant.Points/Scroll", qdrant_pages(width, rows)),
    )


def qdrant_pages(width: int, rows: int) -> Iterator[messages.ScrollPoints]:
    """Yield the requests for all rows, whose ids count up from 0."""
    page = PAGE_BYTES // (4 * width)
    for first in range(0, rows, page):
        yield messages.ScrollPoints(
            collection_name="rows",
            limit=page,
            offset=messages.PointId(num=first),
            with_payload=messages.WithPayloadSelector(enable=False),
            with_vectors=messages.WithVectorsSelector(enable=True),
        )


def received(address: str, method: str, requests: Iterator[Any]) -> int:
    """Send *requests* one after the other; return how many bytes come back."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.compression_enabled_algorithms_bitset", 1)]
    with grpc.insecure_channel(address, options) as channel:  # else the server compresses, which takes most of the time
        ask = channel.unary_unary(method, lambda request: request.SerializeToString(), len)
        return sum(ask(request) for request in requests)


def scrolled(ports: dict[str, int], page: int) -> int:
    """Scroll through the rows over gRPC, *page* of them at once; return how many there are."""
    client = QdrantClient(host="127.0.0.1", prefer_grpc=True, check_compatibility=False, **ports)
    count, offset = 0, None
    while True:
        records, offset = client.scroll("rows", limit=page, offset=offset, with_payload=False, with_vectors=["text"])
        count += len(np.array([record.vector["text"] for record in records], np.float32))
        if offset is None:
            client.close()
            return count


@contextmanager
def on_milvus(folder: Path, width: int, rows: int) -> Iterator[Filled]:
    """Fill a collection of a Milvus server that is set as it is shipped, flushed and loaded."""
    with running_milvus(folder, USUAL) as server:
        client = MilvusClient(server.uri, timeout=60, dedicated=True)
        schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=width)
        index = client.prepare_index_params()
        index.add_index("vector", index_type="FLAT", metric_type="COSINE")
        client.create_collection("rows", schema=schema, consistency_level="Strong")
        for ids, vectors in batches(width, rows):
            rows_ = zip(ids, vectors, strict=True)
            client.insert("rows", [{"id": pk, "vector": vector, "n": pk} for pk, vector in rows_])
        client.flush("rows")
        client.create_index("rows", index)
        client.load_collection("rows")
        yield Filled(
            server.address("rows"),
            "query_iterator",
            lambda page: iterated(client, page),
            lambda: received(
                server.uri.removeprefix("http://"),
                "/milvus.proto.milvus.MilvusService/Query",
                milvus_pages(width, rows),
            ),
        )
        client.close()


def milvus_pages(width: int, rows: int) -> Iterator[milvus_pb2.QueryRequest]:
    """Yield the requests for all rows, whose ids count up from 0."""
    page = PAGE_BYTES // (4 * width)
    for first in range(0, rows, page):
        request = milvus_pb2.QueryRequest(
            collection_name="rows",
            expr=f"id >= {first} and id < {first + page}",
            output_fields=["id", "vector"],
            guarantee_timestamp=1,  # which waits for nothing
            consistency_level=EVENTUALLY,
        )
        request.query_params.add(key="limit", value=str(page))
        yield request


def iterated(client: MilvusClient, page: int, which: str = "") -> int:
    """Iterate through the rows *which* are asked for, *page* of them at once; return how many there are."""
    iterator, count = client.query_iterator("rows", page, filter=which, output_fields=["id", "vector"]), 0
    while rows := iterator.next():
        count += len(np.array([row["vector"] for row in rows], np.float32))
    iterator.close()
    return count


def batches(width: int, rows: int) -> Iterator[tuple[list[int], np.ndarray]]:
    """Yield ids and vectors, a thousand at a time."""
    rng = np.random.default_rng(0)
    for first in range(0, rows, 1000):
        yield list(range(first, first + 1000)), rng.normal(size=(1000, width)).astype(np.float32)


def by_adapter(address: str) -> int:
    """Page the collection at *address* out into mapped files."""
    collection = connect(address)
    with tempfile.TemporaryDirectory() as folder:
        count = len(page_out(collection, Path(folder) / "pages"))
    collection.close()
    return count


def seconds(way: Callable[[], int], expected: int) -> float:
    """Return how long one run of *way* takes, which must return what is *expected*."""
    start = time.perf_counter()
    if (found := way()) != expected:
        raise RuntimeError(f"expected {expected}, got {found}")
    return time.perf_counter() - start


def main() -> None:
    """Print the rates and their ratio."""
    engines = {
        "qdrant": on_qdrant,
        "qdrant-rest": on_qdrant_rest,
        "qdrant-cluster": on_qdrant_cluster,
        "milvus": on_milvus,
    }
    for engine in sys.argv[1:] or engines:
        lines = []
        for width, least in ROWS.items():
            rows = least * MORE.get(engine, 1)
            with tempfile.TemporaryDirectory() as folder, engines[engine](Path(folder), width, rows) as filled:
                lines.append(measured(filled, width, rows))
            print(engine, *lines[-1], sep=" | ", flush=True)
        record(f"Page-out: {engine}", told(engine, lines))


def told(engine: str, lines: list[list[str]]) -> str:
    """Return the section on *engine*."""
    return f"""`python -m benchmarks.paging {engine}`, rows per second, medians of {RUNS} runs in turn. The client's
loop reads pages of the size of {", ".join(map(str, PAGES))} that was fastest; the wire is pages of 8 MiB, as the
adapter asks for them, received by one request after the other, and thrown away.

{table(HEAD, lines)}"""


def measured(filled: Filled, width: int, rows: int) -> list[str]:
    """Run all ways in turn; return their rates."""
    size = filled.by_wire()
    page = min(PAGES, key=lambda page: seconds(lambda: filled.by_client(page), rows))
    runs = [
        (
            seconds(lambda: filled.by_client(page), rows),
            seconds(lambda: by_adapter(filled.address), rows),
            seconds(filled.by_wire, size),
        )
        for _ in range(RUNS)
    ]
    theirs, ours, wire = (rows / statistics.median(column) for column in zip(*runs, strict=True))
    ratio, reached = (statistics.median(column) for column in zip(*((a / b, c / b) for a, b, c in runs), strict=True))
    return [
        f"`{filled.loop}`",
        str(width),
        str(page),
        f"{theirs:,.0f}",
        f"{ours:,.0f}",
        f"{ratio:.1f}",
        f"{wire:,.0f}",
        f"{reached:.0%}",
    ]


if __name__ == "__main__":
    main()
