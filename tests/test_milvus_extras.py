"""Milvus Lite beyond the contract: notes, diagnosis, the channel of our own, and fields that stay as they are."""

import logging
import re

import grpc
import pytest
from milvus_lite.server_manager import server_manager_instance
from pymilvus import DataType, Function, FunctionType, MilvusClient
from pymilvus.client.prepare import Prepare

from nudge_vdb.address import parse_address
from nudge_vdb.contract import Metric, Outcome, Weight
from nudge_vdb.errors import Refused, UnfitCollection
from nudge_vdb.testing import example_rows
from nudge_vdb.testing.kit import fetch, scan_all, turned, write
from nudge_vdb_milvus import MilvusCollection, open_collection
from nudge_vdb_milvus.columns import dense, listed
from nudge_vdb_milvus.endpoint import Certificates, Endpoint, endpoint_of
from nudge_vdb_milvus.failures import reading
from nudge_vdb_milvus.fitness import require_rewritable, shape_of
from nudge_vdb_milvus.fixture import open_fixture
from nudge_vdb_milvus.pacing import Pacing
from nudge_vdb_milvus.sources import Found, OwnChannel

WIDTH = 8


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("milvus") / "extras.db"


@pytest.fixture
def filled(file, tmp_path):
    name = re.sub(r"\W", "_", tmp_path.name)
    address = parse_address(f"milvus+lite://{file}/{name}?vector=vector")
    fixture = open_fixture(address, example_rows(list(range(30)), WIDTH), Metric.COSINE)
    yield fixture
    fixture.close()


# Notes


def test_notes_outlive_the_process_that_left_them(tmp_path):
    address = parse_address(f"milvus+lite://{tmp_path}/kept.db/docs?vector=vector")
    fixture = open_fixture(address, example_rows([1, 2, 3], WIDTH), Metric.DOT)
    assert fixture.collection.leave_note("nudge_vdb/who", "me")
    fixture.close()
    server_manager_instance.release_server(str(tmp_path / "kept.db"))
    collection = open_collection(address)
    assert dict(collection.notes()) == {"nudge_vdb/who": "me"}
    collection.close()


def test_properties_of_others_are_no_notes_and_stay(filled):
    filled.client.alter_collection_properties(filled.name, {"owner": "somebody", "collection.ttl.seconds": "9999"})
    assert filled.collection.leave_note("nudge_vdb/a", "text")
    assert filled.collection.leave_note("nudge_vdb/a", "")
    assert dict(filled.collection.notes()) == {}
    properties = filled.client.describe_collection(filled.name)["properties"]
    assert (properties["owner"], properties["collection.ttl.seconds"]) == ("somebody", "9999")


# Diagnosis


def test_a_diagnosis_tells_of_rows_that_expire_and_of_keys_that_are_there_twice(filled):
    quiet = {remark.topic: remark for remark in filled.collection.diagnose()}
    assert quiet["duplicates"].text == "none among 30 rows"
    assert "expiry" not in quiet
    filled.client.alter_collection_properties(filled.name, {"collection.ttl.seconds": "9999"})
    remarks = {remark.topic: remark for remark in filled.collection.diagnose()}
    assert (remarks["expiry"].weight, "9999 seconds" in remarks["expiry"].text) == (Weight.WARNING, True)


@pytest.mark.parametrize(
    ("topic", "words"),
    [
        ("permissions", "no credentials are sent"),
        ("index", "FLAT by COSINE"),
        ("load", "is loaded"),
        ("reading", "Milvus Lite 3.2.2 over a channel of our own"),
        ("writing", "the vector alone is sent"),
        ("partitions", "1, paged in turn: _default"),
        ("notes", "are kept among the properties"),
    ],
)
def test_a_diagnosis_says_how_the_collection_is(topic, words, filled):
    remarks = [remark for remark in filled.collection.diagnose() if remark.topic == topic]
    assert words in remarks[0].text
    assert remarks[0].weight is Weight.FINE


# The channel of our own


class Broken:
    """A channel that cannot do what the client's can."""

    def __getattr__(self, name):
        def fail(*_):
            raise Refused("nobody here understands you")

        return fail


class Lying(OwnChannel):
    """A channel that leads to other rows than the client's."""

    def rows(self, *question):
        found = super().rows(*question)
        return Found(found.pks, found.vectors + 0.5, found.absent)


@pytest.mark.parametrize("way", ["broken", "lying"])
def test_where_our_channel_fails_or_tells_other_rows_the_client_is_asked_and_that_is_said(way, filled, caplog):
    expected = scan_all(filled.collection, 1000)
    collection = MilvusCollection(filled.client, filled.name, vector="vector")
    checked = collection._table._source
    checked._source = Broken() if way == "broken" else Lying(collection._wire, collection._table.shape)
    with caplog.at_level(logging.WARNING):
        assert (collection.count(), collection.locate(["7"])) == (30, filled.collection.locate(["7"]))
        keys, vectors = scan_all(collection, 7)
    assert keys == expected[0]
    assert (vectors == expected[1]).all()
    assert [line for line in caplog.messages if "reading through the client, which is slower" in line]
    assert (fetch(collection, keys)[0] == vectors).all()
    assert set(write(collection, keys, turned(vectors), vectors)) == {Outcome.WRITTEN}
    assert (scan_all(filled.collection, 1000)[1] == turned(vectors)).all()
    collection.close()


def test_our_channel_is_used_where_it_tells_what_the_client_tells(filled, caplog):
    collection = MilvusCollection(filled.client, filled.name, vector="vector")
    with caplog.at_level(logging.WARNING):
        scan_all(collection, 7)
    assert caplog.messages == []
    assert isinstance(collection._table._source._source, OwnChannel)
    collection.close()


def test_an_update_of_the_vector_alone_is_the_message_that_the_client_sends():
    vectors = example_rows([1, 2], WIDTH).vectors
    fields = [
        {"name": "id", "type": DataType.INT64, "is_primary": True, "params": {}},
        {"name": "vector", "type": DataType.FLOAT_VECTOR, "params": {"dim": WIDTH}, "nullable": True},
        {"name": "title", "type": DataType.VARCHAR, "params": {"max_length": 9}},
    ]
    rows = [{"id": pk, "vector": vector} for pk, vector in zip((1, 2), vectors, strict=True)]
    theirs = Prepare.row_upsert_param("docs", rows, "a", fields, None, enable_dynamic=False, partial_update=True)
    ours = {"id": listed("id", DataType.INT64, [1, 2]), "vector": dense("vector", vectors, nullable=True)}
    sent = {column.field_name: column for column in theirs.fields_data}
    assert sent.keys() == ours.keys()
    assert {name: column.SerializeToString(deterministic=True) for name, column in ours.items()} == {
        name: column.SerializeToString(deterministic=True) for name, column in sent.items()
    }
    assert (theirs.partial_update, theirs.num_rows, theirs.partition_name) == (True, 2, "a")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "LOCALHOST", "127.0.0.2"])
def test_one_engine_has_one_name_whatever_its_host_is_called(host):
    assert Endpoint(f"{host}:19530", "db").name_of("docs") == "milvus://localhost:19530/db/docs"


def test_a_client_tells_where_it_is_connected_and_its_token_is_never_shown(filled):
    endpoint = endpoint_of(filled.client)
    assert endpoint.target == filled.client._config.address
    secret = Endpoint("host:1", token="root:hunter2", certificates=Certificates("ca.pem"))
    assert "hunter2" not in repr(secret)
    assert secret.metadata == (("authorization", "cm9vdDpodW50ZXIy"),)


def test_a_rate_is_kept_to_unless_it_is_too_low_to_wait_for(monkeypatch):
    slept = []
    monkeypatch.setattr("nudge_vdb_milvus.pacing.time.sleep", slept.append)
    monkeypatch.setattr("nudge_vdb_milvus.pacing.time.monotonic", lambda: 0.0)
    pacing = Pacing(most=30)
    pacing.turn()
    pacing.slow_down(100.0)
    pacing.slow_down(None)
    pacing.turn()
    pacing.slow_down(2.0)
    pacing.turn()
    pacing.turn()
    assert slept == [0, 0, 2, 4]


# Fields that stay as they are


def test_all_other_fields_of_a_row_stay_as_they_are_even_those_that_milvus_computes(file):
    client = MilvusClient(str(file))
    schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=WIDTH)
    schema.add_field("second", DataType.FLOAT_VECTOR, dim=3)
    schema.add_field("text", DataType.VARCHAR, max_length=99, enable_analyzer=True)
    schema.add_field("maybe", DataType.INT64, nullable=True)
    schema.add_field("preset", DataType.INT64, default_value=7)
    schema.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_function(Function("bm25", FunctionType.BM25, ["text"], ["words"]))
    index = client.prepare_index_params()
    for name, kind, metric in (
        ("vector", "FLAT", "COSINE"),
        ("second", "FLAT", "L2"),
        ("words", "SPARSE_INVERTED_INDEX", "BM25"),
    ):
        index.add_index(name, index_type=kind, metric_type=metric)
    client.create_collection("many", schema=schema)
    client.create_index("many", index, sync=False)
    client.load_collection("many")
    rows = example_rows(list(range(12)), WIDTH)
    client.insert(
        "many",
        [
            {"id": pk, "vector": rows.vectors[pk], "second": rows.others[pk], "text": f"word{pk} shared", "n": pk}
            | ({"maybe": pk} if pk % 2 else {"preset": pk})
            for pk in range(12)
        ],
    )
    fields = ["second", "text", "maybe", "preset", "n"]
    before = client.query("many", "id >= 0", output_fields=fields)
    found = client.search("many", ["word3"], anns_field="words", limit=3, output_fields=["id"])
    with pytest.raises(UnfitCollection, match="2 dense vector fields"):
        MilvusCollection(client, "many")
    collection = MilvusCollection(client, "many", vector="vector")
    keys, vectors = scan_all(collection, 5)
    assert set(write(collection, keys, turned(vectors), vectors)) == {Outcome.WRITTEN}
    assert list(client.query("many", "id >= 0", output_fields=fields)) == list(before)
    again = client.search("many", ["word3"], anns_field="words", limit=3, output_fields=["id"])
    assert [hit["id"] for hit in again[0]] == [hit["id"] for hit in found[0]] == [3]
    collection.close()
    client.close()


def test_ids_that_milvus_lite_made_stay_the_ids_of_their_rows(file):
    client = MilvusClient(str(file))
    schema = client.create_schema(auto_id=True, enable_dynamic_field=True)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=WIDTH)
    index = client.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="COSINE")
    client.create_collection("made", schema=schema)
    client.create_index("made", index, sync=False)
    client.load_collection("made")
    vectors = example_rows(list(range(9)), WIDTH).vectors
    client.insert("made", [{"vector": vector, "n": number} for number, vector in enumerate(vectors)])
    before = {row["id"]: row["n"] for row in client.query("made", "id >= 0", output_fields=["n"])}
    collection = MilvusCollection(client, "made")
    keys, read = scan_all(collection, 4)
    assert set(write(collection, keys, turned(read), read)) == {Outcome.WRITTEN}
    assert {row["id"]: row["n"] for row in client.query("made", "id >= 0", output_fields=["n"])} == before
    assert (fetch(collection, keys)[0] == turned(read)).all()
    collection.close()
    client.close()


PK = {"name": "id", "type": DataType.INT64, "is_primary": True, "params": {}}


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (DataType.FLOAT16_VECTOR, "rounds away most of what a step moves"),
        (DataType.BFLOAT16_VECTOR, "rounds away most of what a step moves"),
        (DataType.INT8_VECTOR, "rounds away most of what a step moves"),
        (DataType.BINARY_VECTOR, "whose bits cannot be moved by a step"),
        (DataType.SPARSE_FLOAT_VECTOR, "whose terms a step would fill in"),
    ],
)
def test_a_vector_of_another_kind_is_refused_with_its_reason(kind, why):
    fields = [PK, {"name": "v", "type": kind, "params": {"dim": 8}}]
    with pytest.raises(UnfitCollection, match=rf"field v .* is {kind.name}, .*{why}; expected FLOAT_VECTOR"):
        shape_of({"collection_name": "docs", "fields": fields}, "v")


VECTOR = {"name": "v", "type": DataType.FLOAT_VECTOR, "params": {"dim": 8}}


@pytest.mark.parametrize(
    "more",
    [
        {"fields": [PK, VECTOR, {"name": "x", "type": DataType.INT64, "nullable": True}]},
        {"fields": [PK, VECTOR, {"name": "x", "type": DataType.SPARSE_FLOAT_VECTOR, "is_function_output": True}]},
        {"fields": [PK, VECTOR, {"name": "x", "type": DataType.INT8_VECTOR}]},
        {"fields": [PK, VECTOR], "struct_array_fields": [{"name": "x", "fields": []}]},
    ],
    ids=["nullable", "computed", "of an unknown type", "a list of structures"],
)
def test_a_field_that_cannot_be_written_back_as_it_was_read_is_named(more):
    with pytest.raises(UnfitCollection, match=r"field x .* cannot be written back as it was read.*2\.6\.2"):
        require_rewritable({"collection_name": "docs", **more})


@pytest.mark.parametrize("kind", ["CERTIFICATE_VERIFY_FAILED", "Peer name 127.0.0.1 is not in peer certificate"])
def test_a_certificate_that_is_not_trusted_is_told_apart_from_a_server_that_is_away(kind):
    class Handshake(grpc.RpcError):
        def code(self):
            return grpc.StatusCode.UNAVAILABLE

        def details(self):
            return f"Tls handshake failed: {kind}"

    with pytest.raises(Refused, match="tls_ca=FILE"), reading("docs"):
        raise Handshake
