"""A tune at size: 200,000 rows with payloads, every one of them compared before, after, and after undoing it.

Minutes on each engine, so only ``make test-large`` runs it. NUDGE_VDB_LARGE_ROWS sets another size.
"""

import hashlib
import json
import os
import time
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient
from qdrant_client import QdrantClient, models

pytestmark = pytest.mark.large

ROWS = int(os.environ.get("NUDGE_VDB_LARGE_ROWS", "200000"))
WIDTH = 384
CARRIED = ROWS // 2
PER_ROW = 3
AT_ONCE = 1000


@dataclass(frozen=True)
class Made:
    """Rows in clusters, and queries that stand away from the rows that answer them."""

    rows: np.ndarray
    queries: np.ndarray
    wanted: np.ndarray


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def made(count, shared):
    """Make *count* rows; a *shared* part, 0 to 1, of the way from row to query is the same for all."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(count // 100, WIDTH))
    rows = unit(centres[rng.integers(0, len(centres), count)] + 0.3 * rng.normal(size=(count, WIDTH)))
    judged = count // 20
    wanted = np.repeat(rng.choice(count, judged, replace=False), PER_ROW)
    own = np.repeat(rng.normal(size=(judged, WIDTH)), PER_ROW, axis=0)
    shift = shared * rng.normal(size=WIDTH) + (1 - shared) * own
    noise = 2.0 * shift + 1.0 * rng.normal(size=(len(wanted), WIDTH))
    return Made(rows, unit(rows[wanted] + noise / np.sqrt(WIDTH)), wanted)


def payload(number):
    return {"n": number, "title": f"row {number}", "tags": ["a", "b"][: number % 3], "deep": {"x": [number / 7, None]}}


def told(rest):
    """Return a digest of all of a row but its vector."""
    return hashlib.blake2b(json.dumps(rest, sort_keys=True).encode(), digest_size=12).digest()


class QdrantRows:
    """A collection of a server, filled and read by Qdrant's own client over REST."""

    shards = {}

    def __init__(self, request):
        self.server = request.getfixturevalue("qdrant")
        self.address = self.server.address("large", vector="text", timeout="300")

    def client(self):
        return closing(QdrantClient(url=self.server.url, check_compatibility=False, timeout=300))

    def fill(self, rows):
        sizes = {"text": WIDTH, "other": 4}
        config = {name: models.VectorParams(size=size, distance=models.Distance.COSINE) for name, size in sizes.items()}
        others = unit(np.random.default_rng(1).normal(size=(len(rows), 4)))
        with self.client() as client:
            client.delete_collection("large")
            client.create_collection("large", vectors_config=config, **self.shards)
            for first in range(0, len(rows), AT_ONCE):
                places = range(first, min(first + AT_ONCE, len(rows)))
                points = models.Batch(
                    ids=[place + 1 for place in places],
                    vectors={
                        "text": rows[first : first + AT_ONCE].tolist(),
                        "other": others[first : first + AT_ONCE].tolist(),
                    },
                    payloads=[payload(place) for place in places],
                )
                client.upsert("large", points, wait=True)

    def read(self, count):
        vectors, rest, offset = np.zeros((count, WIDTH), np.float32), {}, None
        with self.client() as client:
            while True:
                points, offset = client.scroll("large", limit=2000, offset=offset, with_vectors=True)
                for point in points:
                    vectors[point.id - 1] = point.vector["text"]
                    rest[point.id] = told([point.payload, point.vector["other"]])
                if offset is None:
                    return vectors, rest


class QdrantClusterRows(QdrantRows):
    """Six shards, each on two of three nodes."""

    shards = {"shard_number": 6, "replication_factor": 2}

    def __init__(self, request):
        self.server = request.getfixturevalue("qdrant_cluster").nodes[0].server
        self.address = self.server.address("large", vector="text", timeout="300")


class MilvusRows:
    """A collection of a server, filled and read by Milvus's own client."""

    def __init__(self, request):
        self.server = request.getfixturevalue("milvus_server")
        self.address = self.server.address("large", vector="text", timeout="120")

    def client(self):
        return closing(MilvusClient(self.server.uri, timeout=300))

    def fill(self, rows):
        with self.client() as client:
            client.drop_collection("large")
            schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
            schema.add_field("id", DataType.INT64, is_primary=True)
            schema.add_field("text", DataType.FLOAT_VECTOR, dim=WIDTH)
            schema.add_field("title", DataType.VARCHAR, max_length=64)
            schema.add_field("tags", DataType.ARRAY, element_type=DataType.VARCHAR, max_capacity=4, max_length=8)
            index = client.prepare_index_params()
            index.add_index("text", index_type="FLAT", metric_type="COSINE")
            client.create_collection("large", schema=schema, index_params=index)
            for first in range(0, len(rows), AT_ONCE):
                places = range(first, min(first + AT_ONCE, len(rows)))
                client.insert("large", [{"id": place + 1, "text": rows[place], **payload(place)} for place in places])
            client.query("large", filter="id == 1", consistency_level="Strong")

    def read(self, count):
        vectors, rest = np.zeros((count, WIDTH), np.float32), {}
        with self.client() as client:
            for first in range(1, count + 1, AT_ONCE):
                found = client.query(
                    "large", filter=f"id >= {first} and id < {first + AT_ONCE}", output_fields=["*"],
                    consistency_level="Strong" if first == 1 else "Bounded",
                )  # fmt: skip
                for row in found:
                    vectors[row["id"] - 1] = row.pop("text")
                    rest[row["id"]] = told({**row, "tags": list(row["tags"])})
        return vectors, rest


ENGINES = [QdrantRows, QdrantClusterRows, pytest.param(MilvusRows, marks=pytest.mark.milvus_server)]


def filled(engine, data):
    """Fill the collection; return its vectors, the digests of all else, and the seconds it took."""
    start = time.perf_counter()
    engine.fill(data.rows)
    seconds = time.perf_counter() - start
    vectors, rest = engine.read(len(data.rows))
    assert len(rest) == len(data.rows)
    return vectors, rest, seconds


def as_jsonl(path, data):
    with path.open("w") as file:
        for number, (query, row) in enumerate(zip(data.queries, data.wanted, strict=True)):
            line = {"query_id": str(number), "vector": query.tolist(), "relevant": [str(row + 1)]}
            file.write(json.dumps(line) + "\n")
    return path


@pytest.mark.parametrize("engine", ENGINES)
def test_a_large_tune_changes_the_rows_it_planned_and_nothing_else_and_can_be_undone(
    engine, request, nudge_vdb, figure, tmp_path
):
    engine, data = engine(request), made(ROWS, shared=0.0)
    vectors, rest, seconds = filled(engine, data)
    judgements = as_jsonl(tmp_path / "judgements.jsonl", data)

    status, report = nudge_vdb("tune", engine.address, "--judgements", judgements, "--cold-share", 0)
    assert (status, report["status"], report["proven"]) == (0, "applied", True)
    assert report["written"] == report["moved"] == len(set(data.wanted))
    tuned, tuned_rest = engine.read(ROWS)
    assert set(np.flatnonzero((tuned != vectors).any(axis=1))) == set(data.wanted)
    assert tuned_rest == rest
    figures = _figures(engine, seconds, report)

    status, report = nudge_vdb("rollback", engine.address, "--to", "0")
    assert (status, report["written"]) == (0, len(set(data.wanted)))
    undone, undone_rest = engine.read(ROWS)
    assert undone_rest == rest
    assert (undone == vectors).all()
    figure(figures)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_large_carried_tune_costs_what_the_plan_said_and_can_be_undone(engine, request, nudge_vdb, figure, tmp_path):
    engine, data = engine(request), made(CARRIED, shared=0.8)
    vectors, rest, seconds = filled(engine, data)
    judgements = as_jsonl(tmp_path / "judgements.jsonl", data)

    status, report = nudge_vdb("plan", engine.address, "--judgements", judgements, "--carry", "on")
    assert (status, report["proven"]) == (0, True)
    start = time.perf_counter()
    status, report = nudge_vdb("apply", engine.address)
    took = (time.perf_counter() - start) / 60
    assert (status, report["written"]) == (0, report["moved"])
    assert report["verified"]["tuned"] == CARRIED
    tuned, tuned_rest = engine.read(CARRIED)
    assert (tuned != vectors).any(axis=1).all()
    assert tuned_rest == rest
    figures = f"carried, {_figures(engine, seconds, report)}; price {report['minutes']:.2f} minutes, took {took:.2f}"

    status, report = nudge_vdb("rollback", engine.address, "--to", "0")
    assert (status, report["written"]) == (0, CARRIED)
    undone, undone_rest = engine.read(CARRIED)
    assert undone_rest == rest
    assert (undone == vectors).all()
    figure(figures)


def _figures(engine, seconds_to_fill, report):
    seconds = report["seconds"]
    rates = {"page out": report["rows"], "write": report["written"], "verify": report["written"]}
    told_rates = [f"{name} {rows / seconds[name]:,.0f} rows/s" for name, rows in rates.items() if name in seconds]
    return (
        f"{type(engine).__name__}: {report['rows']:,} rows of {WIDTH} (filled in {seconds_to_fill:.0f} s), "
        f"{report['moved']:,} moved; {', '.join(told_rates)}; {report['metric']} {report['before']:.3f} to "
        f"{report['after']:.3f}; 0 payloads, 0 other vectors and 0 other rows changed; undone bit for bit"
    )
