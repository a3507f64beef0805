"""A whole tune of a Milvus server, by search and by scan, against what a user would do with the client as it is.

``python -m benchmarks.pushdown_milvus [rows …]`` starts a server, fills it, and builds an index. Milvus writes whole
rows, so whoever moves a vector reads its row before.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pymilvus import DataType, MilvusClient

from benchmarks.clustered import Clustered
from benchmarks.page import record, table
from benchmarks.paging import PAGES, USUAL, iterated
from benchmarks.pushdown import HEAD, Took, as_folder, extrapolated, finetuned, lines, timed, tuned
from integration.engines_cluster import wait_until
from integration.engines_milvus import MilvusServer, running_milvus

SIZES = (100_000, 300_000)
WIDTH, QUERIES = 384, 10_000
RUNS = {"search": 3, "scan": 1}
PAGE = 1000
READ_PART, TUNED_PART, WRITTEN_PART = 50_000, 100_000, 20_000
"""What of a large collection is read, tuned and written, to tell from it how long all of it takes."""
LONGEST = 3600.0
"""Seconds that an index may take."""


def fill(client: MilvusClient, rows: Clustered) -> None:
    """Make a collection of *rows*, each with a title, and return when its index is built."""
    make(client, "rows")
    for places, vectors in rows.parts():
        together = zip(places, vectors, strict=True)
        client.insert("rows", [{"id": place, "vector": vector, "title": f"row {place}"} for place, vector in together])
    client.flush("rows", timeout=600)
    index = client.prepare_index_params()
    index.add_index("vector", index_type="HNSW", metric_type="COSINE", params={"M": 16, "efConstruction": 100})
    client.create_index("rows", index, sync=False)
    wait_until_indexed(client)
    client.load_collection("rows", timeout=600)


def wait_until_indexed(client: MilvusClient) -> None:
    """Return when the server says that its index is built, of what it has flushed."""

    def indexed() -> bool:
        told = client.describe_index("rows", "vector")
        if told.get("state") == "Failed":
            raise RuntimeError(f"the index is not built: {told}")
        return told.get("state") == "Finished" and not told.get("pending_index_rows")

    wait_until(indexed, "the index of all rows", LONGEST)


def make(client: MilvusClient, name: str) -> None:
    """Make an empty collection."""
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=WIDTH)
    schema.add_field("title", DataType.VARCHAR, max_length=64)
    client.create_collection(name, schema=schema, consistency_level="Strong")


def read(client: MilvusClient, part: int) -> list[dict[str, Any]]:
    """Return the first *part* rows with all they hold."""
    found: list[dict[str, Any]] = []
    iterator = client.query_iterator("rows", PAGE, filter=f"id < {part}", output_fields=["*"])
    while page := iterator.next():
        found.extend(page)
    iterator.close()
    return found


def upsert(client: MilvusClient, name: str, rows: list[dict[str, Any]]) -> None:
    """Write whole *rows*."""
    for first in range(0, len(rows), PAGE):
        client.upsert(name, rows[first : first + PAGE])


def by_hand(client: MilvusClient, size: int) -> Took:
    """Do it as the client is shipped: read everything, tune with the package, upsert everything."""
    part, some, written = (min(size, most) for most in (READ_PART, TUNED_PART, WRITTEN_PART))
    reading, rows = timed(lambda: read(client, part))
    make(client, "scratch")
    writing, _ = timed(lambda: upsert(client, "scratch", rows[:written]))
    client.drop_collection("scratch")
    parts = {
        "read": reading * size / part,
        "tune": finetuned(some, "published") * size / some,
        "write": writing * size / written,
    }
    return Took(parts, extrapolated(size, {"read": part, "tune": some, "write": written}))


def by_an_expert(client: MilvusClient, size: int, rows: Clustered) -> Took:
    """Do it as well as it can be done by hand: vectors alone in pages of the best size, only moved rows written."""
    part = min(size, READ_PART)
    reading = min(timed(lambda: iterated(client, page, f"id < {part}"))[0] for page in PAGES)  # noqa: B023
    writing, _ = timed(lambda: rewritten(client, np.unique(rows.judged()[1]).tolist()))
    parts = {"read": reading * size / part, "tune": finetuned(size, "split"), "write": writing}
    return Took(parts, extrapolated(size, {"read": part}))


def rewritten(client: MilvusClient, ids: list[int]) -> None:
    """Read the rows of *ids*, and write them as they are."""
    for first in range(0, len(ids), PAGE):
        some = ids[first : first + PAGE]
        upsert(client, "rows", client.query("rows", filter=f"id in {some}", output_fields=["*"]))


def compared(size: int) -> Iterator[list[str]]:
    """Yield a line of the table for each way of tuning *size* rows on a server of their own."""
    rows = Clustered(size, WIDTH, QUERIES)
    with tempfile.TemporaryDirectory() as folder, running_milvus(Path(folder) / "server", USUAL) as server:
        client = MilvusClient(server.uri, timeout=120, dedicated=True)
        fill(client, rows)
        runs = list(all_tuned(server, client, as_folder(rows, Path(folder) / "judged")))
        yield from lines(size, runs, by_hand(client, size), by_an_expert(client, size, rows))
        client.close()


def all_tuned(
    server: MilvusServer, client: MilvusClient, judgements: Path
) -> Iterator[tuple[str, float, dict[str, Any]]]:
    """Tune in every way, as often as it is measured, and wait each time until what was written is indexed."""
    for way in (way for way, times in RUNS.items() for _ in range(times)):
        yield way, *tuned(server.address("rows", timeout="300"), way, judgements)
        client.flush("rows", timeout=600)
        wait_until_indexed(client)


def main() -> None:
    """Measure each size, and write the section."""
    sizes = [int(text.replace("_", "")) for text in sys.argv[1:]] or SIZES
    found = [line for size in sizes for line in compared(size)]
    record("A whole tune of a Milvus server", f"{ABOUT}\n\n{table(HEAD, found)}")


ABOUT = """`python -m benchmarks.pushdown_milvus` (`make bench-cluster`). Milvus 2.3.5, standalone, 384 components,
HNSW (M = 16); 10,000 judged queries that want 2,000 rows, of which 2,000 queries are scored. Whole
commands, by search the median of 3, by scan once. What was measured on a part of the rows and scaled up
is marked. "As shipped" is `query_iterator` in pages of 1,000 with all fields, nudge-ft as published,
and all rows upserted, into a collection without an index. The expert reads vectors alone in pages of
the best size, splits the rows for nudge-ft, and reads and upserts the moved rows."""


if __name__ == "__main__":
    main()
