"""Answers of Milvus that make no sense, and damaged files of Milvus Lite, are told in words."""

import copy

import pytest
from milvus_lite.server_manager import server_manager_instance
from pymilvus import MilvusClient

from nudge_vdb.address import parse_address
from nudge_vdb.errors import NudgeError, Refused, Unknown
from nudge_vdb.testing.kit import scan_all
from nudge_vdb_milvus import MilvusCollection, open_collection
from nudge_vdb_milvus.columns import dense, listed
from nudge_vdb_milvus.failures import writing

ROWS = 6


@pytest.fixture
def client(tmp_path):
    client = MilvusClient(f"{tmp_path}/docs.db", dedicated=True)
    client.create_collection("docs", dimension=4)
    client.insert("docs", [{"id": pk, "vector": [1.0, pk, 0, 0], "text": "a"} for pk in range(ROWS)])
    yield client
    client.close()


def without(*path):
    def lacking(answer):
        answer = copy.deepcopy(dict(answer))
        *outer, last = path
        holder = answer
        for key in outer:
            holder = holder[key]
        del holder[last]
        return answer

    return lacking


@pytest.mark.parametrize(
    ("method", "absurd"),
    [
        ("describe_collection", without("fields")),
        ("describe_collection", without("collection_name")),
        ("describe_collection", without("fields", 0)),
        ("describe_collection", without("fields", 0, "type")),
        ("describe_collection", without("fields", 1, "params", "dim")),
        ("describe_collection", lambda answer: {**answer, "fields": None}),
        ("describe_collection", lambda _: {}),
        ("describe_index", without("metric_type")),
        ("describe_index", lambda answer: {**answer, "metric_type": 7}),
        ("get_server_version", lambda _: None),
    ],
)
def test_an_answer_without_what_it_must_hold_is_refused_in_words(method, absurd, client):
    asked = getattr(client, method)
    setattr(client, method, lambda *given, **named: absurd(asked(*given, **named)))
    with pytest.raises(NudgeError, match=r"makes no sense|calls its version"):
        MilvusCollection(client, "docs")


def columns_of(pks, vectors):
    return {"id": listed("id", 5, pks), "vector": dense("vector", vectors, nullable=False)}


@pytest.mark.parametrize("kept", [slice(0, 3), slice(0, 0)])
def test_keys_and_vectors_of_different_number_are_no_page(kept, client, caplog):
    collection = MilvusCollection(client, "docs")
    _, vectors = scan_all(MilvusCollection(client, "docs"), 100)
    collection._wire.query = lambda *_: columns_of(range(ROWS), vectors[kept])
    keys, read = scan_all(collection, 100)  # through the client, since our channel does not do
    assert (len(keys), (read == vectors).all()) == (ROWS, True)
    assert f"{ROWS} keys and {len(vectors[kept])} vectors" in caplog.text


def test_once_our_channel_is_proven_an_absurd_page_is_refused(client):
    collection = MilvusCollection(client, "docs")
    _, vectors = scan_all(collection, 100)
    collection._wire.query = lambda *_: columns_of(range(ROWS), vectors[:2])
    with pytest.raises(Refused, match=r"makes no sense .*6 keys and 2 vectors"):
        collection.scan(None, 100)


def test_an_answer_to_a_write_that_makes_no_sense_leaves_open_what_was_written():
    with pytest.raises(Unknown, match="makes no sense"), writing("docs"):
        raise KeyError("status")


@pytest.mark.parametrize("suffix", [".parquet", ".idx", "schema.json"])
def test_a_damaged_file_of_milvus_lite_is_told_in_words(suffix, client, tmp_path):
    client.flush("docs")
    client.close()
    server_manager_instance.release_server(f"{tmp_path}/docs.db")
    damaged = next(file for file in (tmp_path / "docs.db").rglob(f"*{suffix}") if file.is_file())
    damaged.write_bytes(b"\xfa" * 300)
    with pytest.raises(Refused, match="a file of it may be damaged"):
        open_collection(parse_address(f"milvus+lite://{tmp_path}/docs.db/docs"))
