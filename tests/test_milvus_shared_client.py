"""A client that an application shares with a collection goes on to other databases; the collection stays."""

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient

from nudge_vdb.contract import Outcome
from nudge_vdb.testing.kit import scan_all, turned, write
from nudge_vdb_milvus import MilvusCollection

WIDTH, ROWS = 8, 20
DATABASES = ("default", "other")


def a_client(tmp_path, database=""):
    return MilvusClient(f"{tmp_path}/shared.db", db_name=database, dedicated=True)


def fill(client, name="docs", seed=0):
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=WIDTH)
    index = client.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="COSINE")
    client.create_collection(name, schema=schema, index_params=index)
    rows = np.random.default_rng(seed).normal(size=(ROWS, WIDTH)).astype("f4")
    client.insert(name, [{"id": at, "vector": row.tolist()} for at, row in enumerate(rows)])


@pytest.fixture
def shared(tmp_path):
    """A client of a file whose two databases hold a collection of one name each, with other vectors."""
    client = a_client(tmp_path)
    client.create_database("other")
    for seed, database in enumerate(DATABASES):
        client.use_database(database)
        fill(client, seed=seed)
    client.use_database("default")
    yield client
    client.close()


def held(tmp_path, database, name="docs"):
    """Return the vectors of a database by id, and its notes, as another client sees them."""
    client = a_client(tmp_path, database)
    try:
        client.load_collection(name)
        rows = client.query(name, "id >= 0", output_fields=["id", "vector"])
        notes = [key for key in client.describe_collection(name).get("properties") or {} if "nudge_vdb" in key]
    finally:
        client.close()
    return {row["id"]: np.float32(row["vector"]).tobytes() for row in rows}, notes


def test_all_of_a_collection_stays_with_the_database_that_was_open(shared, tmp_path):
    before = {database: held(tmp_path, database) for database in DATABASES}
    docs = MilvusCollection(shared, "docs")
    identity = docs.traits.identity
    shared.use_database("other")
    keys, vectors = scan_all(docs, 7)
    assert [row.tobytes() for row in vectors] == list(before["default"][0].values())
    assert write(docs, keys, turned(vectors), vectors) == [Outcome.WRITTEN] * ROWS
    assert docs.leave_note("nudge_vdb/who", "me")
    assert dict(docs.notes()) == {"nudge_vdb/who": "me"}
    assert docs.search(turned(vectors)[:1], 1) == [keys[:1]]
    assert (docs.count(), docs.locate(["3"]), docs.traits.identity) == (ROWS, [keys[3]], identity)
    docs.diagnose()
    docs.close()
    assert held(tmp_path, "other") == before["other"]
    rows, notes = held(tmp_path, "default")
    assert (list(rows.values()), len(notes)) == ([row.tobytes() for row in turned(vectors)], 1)


def test_the_application_keeps_the_database_that_it_went_on_to(shared):
    docs = MilvusCollection(shared, "docs")
    shared.use_database("other")
    shared.create_collection("only_there", dimension=4)
    docs.leave_note("nudge_vdb/who", "me")
    docs.close()
    assert shared.has_collection("only_there")


def test_two_collections_of_one_client_stay_apart(shared):
    first = MilvusCollection(shared, "docs")
    shared.use_database("other")
    second = MilvusCollection(shared, "docs")
    assert first.traits.identity != second.traits.identity
    assert first.leave_note("nudge_vdb/who", "first")
    assert second.leave_note("nudge_vdb/who", "second")
    assert [collection.notes()["nudge_vdb/who"] for collection in (first, second)] == ["first", "second"]
    assert not (scan_all(first, 100)[1] == scan_all(second, 100)[1]).all()
    first.close()
    second.close()


def test_a_collection_does_not_follow_an_alias_that_moves(shared, tmp_path):
    fill(shared, "newer", seed=5)
    shared.create_alias("docs", "live")
    docs = MilvusCollection(shared, "live")
    shared.alter_alias("newer", "live")
    newer = held(tmp_path, "default", "newer")
    keys, vectors = scan_all(docs, 100)
    assert write(docs, keys, turned(vectors), vectors) == [Outcome.WRITTEN] * ROWS
    assert docs.leave_note("nudge_vdb/who", "me")
    docs.close()
    assert held(tmp_path, "default", "newer") == newer
    assert len(held(tmp_path, "default")[1]) == 1
