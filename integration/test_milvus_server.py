"""The contract over a Milvus 2.3.5 server, and what the adapter promises of one."""

from contextlib import closing

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient

import nudge_vdb
from integration.milvus_rows import (
    TIMEOUT,
    WIDTH,
    copies,
    create,
    entities,
    insert_raw,
    live,
    random_vectors,
    stored,
    vector_field,
)
from nudge_vdb.address import parse_address
from nudge_vdb.contract import Fixture, Metric, Outcome, Rows
from nudge_vdb.testing import CollectionContract, example_rows
from nudge_vdb.testing.kit import fetch, scan_all, turned, write
from nudge_vdb_milvus import MilvusCollection, open_collection
from nudge_vdb_milvus.connection import connect
from nudge_vdb_milvus.fixture import ID, VECTOR, MilvusFixture, open_fixture
from nudge_vdb_milvus.keys import key_of

pytestmark = pytest.mark.milvus_server

AWKWARD = ["", " lead", 'qu"ote', "sing'le", "back\\slash", "\\n", "new\nline", "c\r", "tab\t", "日本", "😀", "x" * 64]


class TestCosineIntegers(CollectionContract):
    ids = [*range(-20, 20), -(2**63), -(2**63) + 1, 2**53 + 1, 2**63 - 2]

    @pytest.fixture(autouse=True)
    def server(self, milvus_server):
        """The server that collections are made on."""
        self.milvus = milvus_server

    def open_filled(self, rows: Rows, metric: Metric, tmp_path) -> Fixture:
        # One collection for all: making and loading one costs more than most tests.
        return filled_again(parse_address(self.milvus.address(f"kit_{type(self).__name__}")), rows, metric)


class TestDotTexts(TestCosineIntegers):
    metric = Metric.DOT
    many = 0
    ids = [*AWKWARD, *map(str, range(30))]
    more_ids = ["z'z"]


class TestEuclidTexts(TestDotTexts):
    metric = Metric.EUCLID


def filled_again(address, rows, metric):
    """Return a fixture that holds *rows* and no others."""
    client = connect(address)
    if not client.has_collection(address.collection):
        client.close()
        return open_fixture(address, rows, metric)
    fixture = MilvusFixture(client, address.collection, VECTOR, TIMEOUT)
    foreign = set(fixture.read()) - set(map(str, rows.ids))
    if foreign:
        fixture.delete([type(rows.ids[0])(text) for text in foreign])
    held = zip(rows.ids, rows.vectors, rows.payloads, strict=True)
    client.upsert(address.collection, [{ID: pk, VECTOR: vector, **payload} for pk, vector, payload in held])
    return fixture


# What only a server can lose


RICH = [
    vector_field(),
    ("flag", DataType.BOOL, {}),
    ("tiny", DataType.INT8, {}),
    ("short", DataType.INT16, {}),
    ("plain", DataType.INT32, {}),
    ("long", DataType.INT64, {}),
    ("single", DataType.FLOAT, {}),
    ("double", DataType.DOUBLE, {}),
    ("text", DataType.VARCHAR, {"max_length": 99}),
    ("tree", DataType.JSON, {}),
    ("numbers", DataType.ARRAY, {"element_type": DataType.INT64, "max_capacity": 9}),
    ("bytes", DataType.ARRAY, {"element_type": DataType.INT8, "max_capacity": 9}),
    ("words", DataType.ARRAY, {"element_type": DataType.VARCHAR, "max_capacity": 9, "max_length": 9}),
    ("flags", DataType.ARRAY, {"element_type": DataType.BOOL, "max_capacity": 9}),
    ("reals", DataType.ARRAY, {"element_type": DataType.DOUBLE, "max_capacity": 9}),
    ("singles", DataType.ARRAY, {"element_type": DataType.FLOAT, "max_capacity": 9}),
    ("preset", DataType.INT64, {"default_value": 7}),
]


def rich_row(number):
    """One row of RICH: every third one with nothing in any array, every fourth one with the default's zero."""
    count = number % 3
    return {
        "flag": bool(number % 2),
        "tiny": -number,
        "short": -300 * number,
        "plain": 70_000 * number,
        "long": 2**62 + number,
        "single": number / 7,
        "double": number / 7,
        "text": "nul\0 日本 😀" * count,
        "tree": {"big": 2**63 - 1, "huge": 1.5e300, "none": None, "in": [number, {}, [], {"x": {}}]},
        "numbers": [2**60] * count,
        "bytes": [-1] * count,
        "words": ["ä", ""][:count],
        "flags": [True, False][:count],
        "reals": [0.1] * count,
        "singles": [0.1] * count,
        "preset": number % 4,
        "dynamic": {"list": [number, None, {"deep": True}], "empty": {}},
        "odd key $ 'x'": 0.1 * number,
    }


def test_every_field_of_a_row_survives_byte_for_byte_and_the_server_too(client, wire, name):
    create(client, name, *RICH)
    vectors = random_vectors(30)
    client.insert(name, [{ID: pk, VECTOR: vector, **rich_row(pk)} for pk, vector in enumerate(vectors)])
    before = stored(wire, name)
    assert any(row["numbers"] == b"" for row in before.values())
    collection = MilvusCollection(client, name)
    keys, read = scan_all(collection, 7)
    assert set(write(collection, keys, turned(read), read)) == {Outcome.WRITTEN}
    assert (live(client, name, *range(30)) == turned(read)).all()
    assert stored(wire, name) == before
    assert set(write(collection, keys, read, turned(read))) == {Outcome.WRITTEN}
    assert stored(wire, name) == before
    assert copies(client, name) == 30


def test_dynamic_fields_survive_a_server_that_takes_an_update_of_the_vector_for_the_whole_row(client, wire, docs):
    vectors = random_vectors(20)
    client.insert(docs, entities(range(20), vectors, title="kept", nested={"deep": [1, None]}))
    before = stored(wire, docs)
    collection = MilvusCollection(client, docs)
    keys, read = scan_all(collection, 1000)
    assert set(write(collection, keys[:15], turned(read)[:15], read[:15])) == {Outcome.WRITTEN}
    assert stored(wire, docs) == before
    assert (live(client, docs, *range(20)) == np.concatenate([turned(read)[:15], read[15:]])).all()


def test_text_of_json_is_kept_as_it_was_written(client, wire, name):
    create(client, name, vector_field(), ("tree", DataType.JSON, {}))
    vectors = random_vectors(3)
    odd = b'{ "b":1.50, "a" : 1E2,"b2":0.1000000000000000055 ,"n":123456789012345678901234567890}'
    insert_raw(wire, name, [1, 2, 3], vectors, tree=[odd, b"{ }", b'{"\\u00e9":[]}'])
    before = stored(wire, name)
    assert before[1]["tree"] == odd
    collection = MilvusCollection(client, name)
    keys, read = scan_all(collection, 7)
    assert set(write(collection, keys, turned(read), read)) == {Outcome.WRITTEN}
    assert stored(wire, name) == before


def test_rows_in_named_partitions_keep_one_copy_in_their_partition(client, wire, name):
    create(client, name)
    vectors = random_vectors(30)
    for place, partition in enumerate(["_default", "a", "a_b"]):
        if place:
            client.create_partition(name, partition)
        ids = range(place, 30, 3)
        client.insert(name, entities(ids, vectors[place::3], note=partition), partition_name=partition)
    before = {partition: stored(wire, name, partition) for partition in ("_default", "a", "a_b")}
    collection = MilvusCollection(client, name)
    keys, read = scan_all(collection, 4)
    assert len(keys) == len(set(keys)) == 30
    assert collection.locate([collection.text_of(key) for key in keys]) == keys
    assert set(write(collection, keys, turned(read), read)) == {Outcome.WRITTEN}
    assert (scan_all(collection, 1000)[1] == turned(read)).all()
    assert {partition: stored(wire, name, partition) for partition in before} == before
    assert [copies(client, name, "", partition) for partition in before] == [10, 10, 10]
    assert [hits[0] for hits in collection.search(turned(read), 3)] == keys


def test_rows_that_were_inserted_twice_are_paged_once_and_no_copy_is_dropped(client, docs, caplog):
    vectors = random_vectors(1000)
    client.insert(docs, entities(range(1000), vectors))
    client.insert(docs, entities(range(1, 20, 2), vectors[1:20:2], kept="the copy"))
    client.delete(docs, filter=f"{ID} >= 990")  # as many rows are gone as there are copies
    assert copies(client, docs) == 1000
    collection = MilvusCollection(client, docs)
    for limit in (100, 5000):
        keys, read = scan_all(collection, limit)
        assert [int(collection.text_of(key)) for key in keys] == list(range(990))
        assert (read == vectors[:990]).all()
    gone = [key_of("_default", pk) for pk in range(990, 1000)]
    outcomes = write(collection, [*keys, *gone], turned(vectors), vectors)
    twice = set(range(1, 20, 2))
    expected = [Outcome.REFUSED if pk in twice else Outcome.WRITTEN for pk in range(990)]
    assert outcomes == [*expected, *[Outcome.MISSING] * 10]
    assert copies(client, docs) == 1000
    assert "10 rows of shared_docs are there more than once (1, 3, 5, 7, 9)" in caplog.text
    after, _ = fetch(collection, keys)
    assert [(row == turned(vectors)[pk]).all() for pk, row in enumerate(after)] == [
        pk not in twice for pk in range(990)
    ]


def test_a_tune_of_rows_that_were_inserted_twice_drops_no_copy_and_names_them(client, docs, milvus_server, tmp_path):
    rows = random_vectors(120)
    client.insert(docs, entities(range(120), rows))
    client.insert(docs, entities(range(20), rows[:20]))
    queries = np.repeat(rows[:60], 4, axis=0) + 0.5 * random_vectors(1) + 0.3 * random_vectors(240, seed=1)
    judged = nudge_vdb.Judgements.from_arrays(queries, [[str(at // 4)] for at in range(240)])
    address = milvus_server.address(docs)
    plan = nudge_vdb.plan(address, judged, state=tmp_path / "state", cold_share=0)
    report = nudge_vdb.apply(plan, force=True).report
    assert copies(client, docs) == 140
    assert report["skipped"]["refused"] == [str(pk) for pk in range(20)]
    with closing(open_collection(parse_address(address))) as collection:
        nudge_vdb.rollback(collection, to=0, state=tmp_path / "state")
    assert copies(client, docs) == 140
    assert (live(client, docs, *range(120)) == rows).all()


@pytest.mark.parametrize("limit", [1, 4])
def test_awkward_texts_as_ids_are_paged_written_and_rolled_back(milvus_server, name, limit):
    fixture = open_fixture(parse_address(milvus_server.address(name)), example_rows(AWKWARD, WIDTH), Metric.DOT)
    before = fixture.read()
    keys, vectors = scan_all(fixture.collection, limit)
    assert [fixture.collection.text_of(key) for key in keys] == sorted(AWKWARD, key=str.encode)
    assert set(write(fixture.collection, keys, turned(vectors), vectors)) == {Outcome.WRITTEN}
    assert set(write(fixture.collection, keys, vectors, turned(vectors))) == {Outcome.WRITTEN}
    after = fixture.read()
    assert all((after[text].vector == row.vector).all() for text, row in before.items())
    assert all(after[text].payload == row.payload for text, row in before.items())
    fixture.close()


# Names


def test_only_the_collection_of_the_database_that_is_named_changes(milvus_server, name):
    database = f"db_{name}"[:60]
    MilvusClient(milvus_server.uri, timeout=TIMEOUT, dedicated=True).create_database(database)
    vectors = random_vectors(20)
    clients = {each: MilvusClient(milvus_server.uri, db_name=each, timeout=TIMEOUT) for each in ("default", database)}
    for client in clients.values():
        create(client, name)
        client.insert(name, entities(range(20), vectors, note="kept"))
    collection = open_collection(parse_address(milvus_server.address(f"{database}/{name}")))
    keys, read = scan_all(collection, 7)
    assert set(write(collection, keys, turned(read), read)) == {Outcome.WRITTEN}
    assert (live(clients["default"], name, *range(20)) == vectors).all()
    assert (live(clients[database], name, *range(20)) == turned(read)).all()
    assert f"/{database}/{name}?" in collection.traits.identity
    collection.close()
    for client in clients.values():
        client.close()


def test_an_alias_that_moves_does_not_take_a_run_along(milvus_server, client, name):
    vectors = random_vectors(20)
    for each in ("one", "two"):
        create(client, f"{name}_{each}")
        client.insert(f"{name}_{each}", entities(range(20), vectors))
    client.create_alias(f"{name}_one", f"live_{name}")
    address = parse_address(milvus_server.address(f"live_{name}"))
    before = open_collection(address)
    keys, read = scan_all(before, 7)
    client.alter_alias(f"{name}_two", f"live_{name}")
    assert set(write(before, keys, turned(read), read)) == {Outcome.WRITTEN}
    assert (live(client, f"{name}_two", *range(20)) == vectors).all()
    after = open_collection(address)
    assert after.traits.identity != before.traits.identity
    before.close()
    after.close()
