"""A whole tune of a Qdrant cluster, by search and by scan, against what a user would do with the clients as they are.

``python -m benchmarks.pushdown [rows …]`` uses the collections of :mod:`benchmarks.kept_cluster`, which it builds first
where they are not there: three nodes on this machine, six shards of two replicas each.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models

from benchmarks.clustered import Clustered
from benchmarks.compute import command, run
from benchmarks.kept_cluster import (
    LAYOUT,
    QUERIES,
    SIZES,
    WIDTH,
    client_of,
    complete,
    kept_cluster,
    name_of,
    rows_of,
    wait_until_green,
)
from benchmarks.nudge_ft import VALIDATION, interpreter, make_arrays
from benchmarks.page import record, table
from benchmarks.paging import PAGES
from integration.engines_cluster import QdrantCluster

RUNS = {"search": 3, "exact": 1, "scan": 1}
"""By the way of finding rivals; the last two take minutes where rows are many."""
PAGE = 1000
READ_PART, WRITTEN_PART = 50_000, 50_000
"""What of a large collection is read, and written, to tell from it how long all of it takes."""
FITS = 100_000
"""The authors' package is run on no more rows than this as published; its time is taken to grow with the rows."""
UNCOMPRESSED = {"grpc.compression_enabled_algorithms_bitset": 1}
COMMAND = Path(sys.executable).parent / "nudge-vdb"


@dataclass(frozen=True)
class Took:
    """How long a path takes, part by part, in seconds."""

    parts: dict[str, float]
    note: str = ""

    @property
    def seconds(self) -> float:
        """All of it."""
        return sum(self.parts.values())

    def told(self) -> str:
        """Return the parts in words."""
        return ", ".join(f"{name} {seconds:,.1f}" for name, seconds in self.parts.items()) + self.note


def tuned(address: str, rivals: str, judgements: Path) -> tuple[float, dict[str, Any]]:
    """Tune by the command line, from a state of its own; return the seconds and the report, everything undone again."""
    with tempfile.TemporaryDirectory() as state:
        start = time.perf_counter()
        options = ["--judgements", str(judgements), "--rivals", rivals]
        report = told(["tune", address, *options, "--state", state, "--json"])
        seconds = time.perf_counter() - start
        told(["rollback", address, "--to", "0", "--state", state, "--json"])
    return seconds, report


def told(arguments: list[str]) -> dict[str, Any]:
    """Return what the command line prints for *arguments*."""
    done = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"nudge-vdb {arguments[0]} ended with {done.returncode}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout))


def as_folder(rows: Clustered, folder: Path) -> Path:
    """Write the judgements on *rows* as BEIR does, with the vectors of the queries beside them."""
    queries, wanted = rows.judged()
    (folder / "qrels").mkdir(parents=True)
    ids = [f"q{number}" for number in range(len(queries))]
    (folder / "queries.jsonl").write_text("".join(json.dumps({"_id": each, "text": ""}) + "\n" for each in ids))
    pairs = "".join(f"{each}\t{place}\t1\n" for each, place in zip(ids, wanted.tolist(), strict=True))
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\n" + pairs)
    np.save(folder / "queries.npy", queries)
    return folder


def by_hand(cluster: QdrantCluster, size: int) -> Took:
    """Do it as the clients are shipped: read everything over REST, tune with the package, upsert everything."""
    with client_of(cluster) as client:
        part = min(size, READ_PART)
        reading, points = timed(lambda: list(scrolled(client, size, part)))
        some = min(size, FITS)
        tuning = finetuned(some, "published")
        writing, _ = timed(lambda: upserted(client, points[: min(size, WRITTEN_PART)]))
    return Took(
        {
            "read": reading * size / part,
            "tune": tuning * size / some,
            "write": writing * size / min(size, WRITTEN_PART),
        },
        extrapolated(size, {"read": part, "tune": some, "write": min(size, WRITTEN_PART)}),
    )


def by_an_expert(cluster: QdrantCluster, size: int) -> Took:
    """Do it as well as it can be done by hand: gRPC uncompressed, vectors alone in pages of the best size, rows split.

    Only the moved rows are written.
    """
    with client_of(cluster, prefer_grpc=True, grpc_options=UNCOMPRESSED) as client:
        part = min(size, READ_PART)
        reading = min(timed(lambda: read_vectors(client, size, part, page))[0] for page in PAGES)  # noqa: B023
        tuning = finetuned(size, "split")
        wanted = np.unique(rows_of(size).judged()[1])
        held = client.retrieve(name_of(size), wanted.tolist(), with_vectors=True)
        writing, _ = timed(lambda: updated(client, size, held))
    return Took(
        {"read": reading * size / part, "tune": tuning, "write": writing},
        extrapolated(size, {"read": part}),
    )


def extrapolated(size: int, parts: dict[str, int]) -> str:
    """Say what was measured on a part of the rows."""
    short = [f"{name} from {rows:,} rows" for name, rows in parts.items() if rows < size]
    return f" ({', '.join(short)})" if short else ""


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return how long *work* takes, and what it returns."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def read_vectors(client: QdrantClient, size: int, part: int, page: int) -> int:
    """Read the vectors of the first *part* rows into arrays, *page* of them at once; return how many there were."""
    records = scrolled(client, size, part, page, with_payload=False)
    return len([np.array(record.vector, np.float32) for record in records])


def scrolled(
    client: QdrantClient, size: int, part: int, page: int = PAGE, *, with_payload: bool = True
) -> Iterator[models.Record]:
    """Yield the first *part* rows with their vectors."""
    offset, met = None, 0
    while met < part:
        records, offset = client.scroll(
            name_of(size), limit=page, offset=offset, with_vectors=True, with_payload=with_payload
        )
        met += len(records)
        yield from records
        if offset is None:
            return


def upserted(client: QdrantClient, points: list[models.Record]) -> None:
    """Write *points* to a collection of the same layout, which has no index to keep."""
    client.delete_collection("scratch")
    size = models.VectorParams(size=len(points[0].vector), distance=models.Distance.COSINE)
    client.create_collection("scratch", vectors_config=size, **LAYOUT)
    for first in range(0, len(points), PAGE):
        some = points[first : first + PAGE]
        structs = [models.PointStruct(id=each.id, vector=each.vector, payload=each.payload) for each in some]
        client.upsert("scratch", structs, wait=True)
    client.delete_collection("scratch")


def updated(client: QdrantClient, size: int, points: list[models.Record]) -> None:
    """Write the vectors of *points* as they are."""
    for first in range(0, len(points), PAGE):
        some = points[first : first + PAGE]
        vectors = [models.PointVectors(id=each.id, vector=each.vector) for each in some]
        client.update_vectors(name_of(size), vectors, wait=True)


def finetuned(rows: int, way: str) -> float:
    """Return how many seconds the authors' package takes for so many rows."""
    with tempfile.TemporaryDirectory() as folder:
        make_arrays(Path(folder), rows, WIDTH, QUERIES - VALIDATION)
        return float(run(command(interpreter(), way, Path(folder)))["seconds"])


def compared(cluster: QdrantCluster, size: int) -> list[list[str]]:
    """Return a line of the table for each way of tuning *size* rows."""
    address, runs = cluster.address(name_of(size), timeout="300"), []
    with tempfile.TemporaryDirectory() as folder:
        judgements = as_folder(rows_of(size), Path(folder))
        for way in (way for way, times in RUNS.items() for _ in range(times)):
            runs.append((way, *tuned(address, way, judgements)))
            for node in cluster.nodes:
                wait_until_green(node.server.url, name_of(size))
    return lines(size, runs, by_hand(cluster, size), by_an_expert(cluster, size))


def lines(size: int, runs: Sequence[tuple[str, float, dict[str, Any]]], naive: Took, expert: Took) -> list[list[str]]:
    """Return the lines of *runs*, by way with their seconds and reports, and of the two paths by hand."""
    found = []
    for way in dict.fromkeys(way for way, _, _ in runs):
        seconds = statistics.median(lasted for name, lasted, _ in runs if name == way)
        report = next(report for name, _, report in runs if name == way)
        spent = ", ".join(f"{name} {each:.1f}" for name, each in report["seconds"].items())
        ratios = [f"{path.seconds / seconds:.1f}" for path in (naive, expert)]
        recall = report.get("rivals_recall")
        gamma = f"{report['step']:g}" + ("" if recall is None else f", recall {recall:.3f}")
        found.append([f"{size:,}", f"`--rivals {way}`", f"{seconds:,.1f}", *ratios, gamma, spent])
    found.append([f"{size:,}", "clients and package as shipped", f"{naive.seconds:,.0f}", "1", "", "", naive.told()])
    found.append([f"{size:,}", "an expert, by hand", f"{expert.seconds:,.0f}", "", "1", "", expert.told()])
    for line in found:
        print(*line, sep=" | ", flush=True)
    return found


HEAD = ("rows", "way", "seconds", "times as fast as shipped", "as an expert", "γ", "of which")


def main() -> None:
    """Measure each size, and write the section."""
    sizes = [int(text.replace("_", "")) for text in sys.argv[1:]] or SIZES
    with kept_cluster() as cluster:
        for size in sizes:
            complete(cluster, size)
        found = [line for size in sizes for line in compared(cluster, size)]
    record("A whole tune of a cluster", f"{ABOUT}\n\n{table(HEAD, found)}")


ABOUT = """`python -m benchmarks.pushdown` (`make bench-cluster`). Qdrant 1.16.3, three nodes on one machine, six
shards of two replicas, 384 components, HNSW built with its defaults; 10,000 judged queries that want
2,000 rows, of which 2,000 queries are scored. Whole commands, by search the median of 3, the others
once. What was measured on a part of the rows and scaled up is marked. "As shipped" is REST and pages of
1,000, with payloads, nudge-ft as published, and all rows upserted, into a collection without an index,
which spares that path the time to build it again. The expert reads vectors alone by gRPC without
compression, in pages of the best size, splits the rows for nudge-ft, and writes the vectors of the
moved rows."""


if __name__ == "__main__":
    main()
