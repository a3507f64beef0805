"""Plans whose rivals the database finds, on servers: by indexes that are built, over shards, and while a node dies."""

from contextlib import closing

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient
from qdrant_client import QdrantClient, models

import nudge_vdb
from integration.clustered import WIDTH, judgements, plans, told, world
from integration.engines import own_name
from integration.engines_cluster import wait_until
from nudge_vdb.backends import connect
from nudge_vdb.contract import Accuracy
from nudge_vdb.errors import Refused, Unreachable
from nudge_vdb.retry import Patient
from nudge_vdb.testing.kit import nearest, scan_all
from nudge_vdb_qdrant.stub_points import StubPoints
from tests.crowd import arrays, figures

MANY, SOME = 20_000, 6_000
GRID = 0.01
"""Between two steps that are tried."""
GOOD = 0.95
AT_ONCE = 2000


def put(client, name, clustered, shard_key_of=lambda _: None, **layout):
    """Make a collection of the rows of *clustered*, and return when its index is built."""
    size = models.VectorParams(size=WIDTH, distance=models.Distance.COSINE)
    client.create_collection(
        name, vectors_config=size, optimizers_config=models.OptimizersConfigDiff(indexing_threshold=50), **layout
    )
    for shard_key in sorted({shard_key_of(place) for place in range(clustered.rows)} - {None}):
        client.create_shard_key(name, shard_key)
    for places, vectors in clustered.parts():
        for shard_key in {shard_key_of(place) for place in places}:
            inside = [number for number, place in enumerate(places) if shard_key_of(place) == shard_key]
            ids = [places[number] + 1 for number in inside]
            client.upsert(
                name, models.Batch(ids=ids, vectors=vectors[inside].tolist()), wait=True, shard_key_selector=shard_key
            )


def wait_until_indexed(client, name):
    def indexed():
        info = client.get_collection(name)
        return info.status == models.CollectionStatus.GREEN and (info.indexed_vectors_count or 0) > 0

    wait_until(indexed, f"an index on {name}")


def recall_at(collection, queries, depth):
    """The share of the best rows that the index finds, by brute force over all rows."""
    keys, vectors = scan_all(collection, 2000)
    hits = [
        hit for first in range(0, len(queries), 50) for hit in collection.search(queries[first : first + 50], depth)
    ]
    best = nearest(queries, vectors, collection.traits.metric, depth)
    right = [len(set(row) & {keys[place] for place in places}) for row, places in zip(hits, best, strict=True)]
    return float(np.mean(right) / depth)


def must_be_near(found, recall):
    """A search makes the plan of a scan where it finds the best rows, and one that is near where it finds most."""
    scan, search = found["scan"], found["search"]
    assert recall >= GOOD
    assert abs(search.step - scan.step) <= 2 * GRID + 1e-9
    assert abs(search.gain - scan.gain) < 0.01
    if "exact" in found:
        must_be_the_same(scan, found["exact"])


def must_be_the_same(scan, exact):
    assert figures(exact) == figures(scan)
    assert arrays(exact) == arrays(scan)
    assert exact.report["rows_read"] < scan.report["rows_read"]


@pytest.fixture
def client(qdrant):
    with closing(QdrantClient(url=qdrant.url, check_compatibility=False, timeout=60)) as client:
        yield client


@pytest.mark.parametrize("quantized", [False, True], ids=["plain", "quantized"])
def test_a_search_in_the_index_of_a_qdrant_server_makes_nearly_the_plan_of_a_scan(
    qdrant, client, tmp_path, figure, quantized
):
    clustered, name = world(MANY), own_name(tmp_path.name)
    scalar = models.ScalarQuantization(scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8))
    poor = models.HnswConfigDiff(m=5, ef_construct=12)
    put(client, name, clustered, hnsw_config=poor, quantization_config=scalar if quantized else None)
    wait_until_indexed(client, name)
    with closing(connect(qdrant.address(name))) as collection:
        given = judgements(clustered)
        found = plans(collection, given, tmp_path, "scan", "search", "exact")
        recall = recall_at(collection, given.vectors, 100)
        figure(f"Qdrant server, HNSW over {MANY:,} rows{', int8' * quantized}: {told(found)}, recall@100 {recall:.3f}")
        must_be_near(found, recall)
        assert nudge_vdb.apply(found["search"], force=True).skipped == {}
        again = nudge_vdb.plan(collection, given, state=tmp_path / "search", rivals="search")
        assert abs(again.step - found["search"].step) <= 2 * GRID + 1e-9
        nudge_vdb.rollback(collection, to=0, state=tmp_path / "search")


def test_both_transports_find_the_same_rows(qdrant, client, tmp_path):
    clustered, name = world(SOME), own_name(tmp_path.name)
    put(client, name, clustered)
    queries = judgements(clustered).vectors[:20]
    hits = []
    for options in ({}, {"grpc_port": 1}):
        with closing(connect(qdrant.address(name, **options))) as collection:
            hits.append(collection.search(queries, 50, Accuracy.EXACT))
    assert hits[0] == hits[1]


@pytest.mark.parametrize("options", [{}, {"grpc_port": 1}], ids=["grpc", "rest"])
def test_what_strict_mode_says_of_searches_is_kept(qdrant, client, tmp_path, options):
    clustered, name = world(SOME), own_name(tmp_path.name)
    put(client, name, clustered)
    given = judgements(clustered)
    limits = {"search_max_batchsize": 3, "max_query_limit": 150, "search_max_hnsw_ef": 60, "search_allow_exact": False}
    client.update_collection(name, strict_mode_config=models.StrictModeConfig(enabled=True, **limits))
    with closing(connect(qdrant.address(name, **options))) as collection:
        found = plans(collection, given, tmp_path, "scan", "search")
        assert found["search"].report["rivals_recall"] is None
        assert found["search"].step == pytest.approx(found["scan"].step, abs=2 * GRID)
        with pytest.raises(nudge_vdb.errors.BadOption, match="--rivals scan"):
            plans(collection, given, tmp_path, "exact")
        with pytest.raises(Refused, match="max_query_limit=150"):
            Patient(collection).search(given.vectors, 151)


@pytest.fixture
def spread(qdrant_cluster, tmp_path):
    """Clustered rows in six shards of two replicas each, and what their queries ask for."""
    clustered, name = world(SOME), own_name(tmp_path.name)
    with closing(QdrantClient(url=qdrant_cluster.nodes[0].server.url, check_compatibility=False, timeout=60)) as client:
        put(client, name, clustered, shard_number=6, replication_factor=2)
        wait_until_indexed(client, name)
        with closing(connect(qdrant_cluster.address(name))) as collection:
            yield collection, judgements(clustered)
        client.delete_collection(name)


def test_the_nodes_of_a_cluster_find_the_rivals_together(spread, tmp_path, figure):
    collection, given = spread
    found = plans(collection, given, tmp_path, "scan", "search", "exact")
    recall = recall_at(collection, given.vectors, 100)
    figure(f"Qdrant cluster, six shards, {SOME:,} rows: {told(found)}, recall@100 {recall:.3f}")
    must_be_near(found, recall)


def test_rivals_are_found_under_every_shard_key(qdrant_cluster, tmp_path):
    clustered, name = world(SOME), own_name(tmp_path.name)
    with closing(QdrantClient(url=qdrant_cluster.nodes[0].server.url, check_compatibility=False, timeout=60)) as client:
        custom = {"sharding_method": models.ShardingMethod.CUSTOM, "replication_factor": 2}
        put(client, name, clustered, lambda place: "odd" if place % 2 else "even", **custom)
        with closing(connect(qdrant_cluster.address(name))) as collection:
            found = plans(collection, judgements(clustered), tmp_path, "scan", "exact")
            must_be_the_same(found["scan"], found["exact"])
        client.delete_collection(name)


@pytest.fixture
def at_call(monkeypatch):
    """Do something at the n-th search or write, before it is sent: at_call("nearest", 3, something)."""

    def planned(name, number, something):
        send, calls = getattr(StubPoints, name), []

        def called(*arguments):
            calls.append(arguments)
            if len(calls) == number:
                something()
            return send(*arguments)

        monkeypatch.setattr(StubPoints, name, called)

    return planned


@pytest.mark.parametrize(("name", "number"), [("nearest", 1), ("nearest", 4), ("update", 1)])
def test_a_node_that_is_killed_during_a_tune_by_search_costs_nothing(
    qdrant_cluster, spread, tmp_path, at_call, name, number
):
    collection, given = spread
    before = scan_all(collection, 2000)[1]
    (scan,) = plans(collection, given, tmp_path, "scan").values()
    at_call(name, number, qdrant_cluster.nodes[2].kill)
    try:
        (exact,) = plans(collection, given, tmp_path, "exact").values()
        must_be_the_same(scan, exact)
        assert nudge_vdb.apply(exact, force=True).skipped == {}
        assert qdrant_cluster.nodes[2].process.poll() is not None
    finally:
        qdrant_cluster.restart(2)
    qdrant_cluster.wait_until_whole(collection._name)
    assert nudge_vdb.verify(collection, state=tmp_path / "exact").clean
    after = scan_all(collection, 2000)[1]
    for node in qdrant_cluster.nodes[1:]:
        with closing(connect(node.server.address(collection._name))) as there:
            assert (scan_all(there, 2000)[1] == after).all()
    nudge_vdb.rollback(collection, to=0, state=tmp_path / "exact")
    assert (scan_all(collection, 2000)[1] == before).all()


def test_a_plan_whose_only_way_to_the_cluster_dies_stops_and_can_be_made_again(
    qdrant_cluster, spread, tmp_path, at_call, monkeypatch
):
    collection, given = spread
    (scan,) = plans(collection, given, tmp_path, "scan").values()
    at_call("nearest", 3, qdrant_cluster.nodes[0].kill)
    monkeypatch.setenv("NUDGE_VDB_PATIENCE", "1")
    try:
        with pytest.raises(Unreachable):
            plans(collection, given, tmp_path, "exact")
        assert not list(tmp_path.rglob("vectors.f32"))
    finally:
        qdrant_cluster.restart(0)
    monkeypatch.delenv("NUDGE_VDB_PATIENCE")
    qdrant_cluster.wait_until_whole(collection._name)
    (exact,) = plans(collection, given, tmp_path, "exact").values()
    must_be_the_same(scan, exact)


INDEXES = {
    "FLAT": {},
    "HNSW": {"M": 8, "efConstruction": 40},
    "IVF_FLAT": {"nlist": 128},
    "IVF_SQ8": {"nlist": 128},
}


@pytest.mark.milvus_server
@pytest.mark.parametrize("kind", INDEXES)
def test_a_search_in_an_index_of_a_milvus_server_makes_nearly_the_plan_of_a_scan(milvus_server, tmp_path, figure, kind):
    clustered, name = world(MANY), own_name(tmp_path.name)
    with closing(MilvusClient(milvus_server.uri, timeout=60, dedicated=True)) as client:
        put_milvus(client, name, clustered, kind)
        with closing(connect(milvus_server.address(name))) as collection:
            given = judgements(clustered)
            found = plans(collection, given, tmp_path, "scan", "search", *["exact"] * (kind == "FLAT"))
            recall = recall_at(collection, given.vectors, 100)
            figure(f"Milvus server, {kind} over {MANY:,} rows: {told(found)}, recall@100 {recall:.3f}")
            must_be_near(found, recall)
            assert nudge_vdb.apply(found["search"], force=True).skipped == {}
            again = nudge_vdb.plan(collection, given, state=tmp_path / "search", rivals="search")
            assert abs(again.step - found["search"].step) <= 2 * GRID + 1e-9
            nudge_vdb.rollback(collection, to=0, state=tmp_path / "search")
        client.drop_collection(name)


def put_milvus(client, name, clustered, kind):
    """Make a collection of the rows of *clustered*, and return when its index is built."""
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=WIDTH)
    client.create_collection(name, schema=schema, consistency_level="Strong")
    for places, vectors in clustered.parts():
        client.insert(
            name, [{"id": place + 1, "vector": vector} for place, vector in zip(places, vectors, strict=True)]
        )
    client.flush(name)
    index = client.prepare_index_params()
    index.add_index("vector", index_type=kind, metric_type="COSINE", params=INDEXES[kind])
    client.create_index(name, index, sync=False)
    wait_until(lambda: client.describe_index(name, "vector").get("state") == "Finished", f"an index on {name}")
    client.load_collection(name)
