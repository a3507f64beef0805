"""Milvus Lite merges an update into whatever it finds: what becomes of rows that others delete and edit meanwhile."""

import logging
import random
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient, MilvusException

from nudge_vdb.contract import Outcome
from nudge_vdb.errors import Refused
from nudge_vdb_milvus import MilvusCollection

ROWS, WIDTH = 60, 8
OTHER_FIELDS = {
    "dynamic": {},
    "nullable": {"note": {"datatype": DataType.VARCHAR, "max_length": 20, "nullable": True}},
    "required": {"note": {"datatype": DataType.VARCHAR, "max_length": 20}},
    "default and nullable": {
        "note": {"datatype": DataType.VARCHAR, "max_length": 20, "nullable": True},
        "rank": {"datatype": DataType.INT64, "default_value": 7},
    },
}


def vectors(count=ROWS, seed=0):
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)


@pytest.fixture
def lite(tmp_path):
    client = MilvusClient(str(tmp_path / "lite.db"))
    yield client
    client.close()


@pytest.fixture
def made(lite):
    """Make and fill a collection with some other fields; return it as the adapter sees it."""

    def make(fields, rows=ROWS, payload=True):
        schema = lite.create_schema(auto_id=False, enable_dynamic_field=fields == "dynamic")
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("v", DataType.FLOAT_VECTOR, dim=WIDTH)
        for name, facts in OTHER_FIELDS.get(fields, {}).items():
            schema.add_field(name, **facts)
        index = lite.prepare_index_params()
        index.add_index("v", index_type="FLAT", metric_type="COSINE")
        lite.create_collection("docs", schema=schema, index_params=index)
        others = {"note": "ours"} if payload else {}
        lite.insert("docs", [{"id": pk, "v": row.tolist(), **others} for pk, row in enumerate(vectors(rows))])
        return MilvusCollection(lite, "docs")

    return make


def before_each_update(collection, act):
    """Let another writer *act* between the look at some rows and their update: act(the keys that are sent)."""
    replace = collection._table.replace

    def late(partition, changes):
        act(list(changes))
        return replace(partition, changes)

    collection._table.replace = late


def written(collection, count=ROWS):
    keys = collection.locate([str(pk) for pk in range(count)])
    return collection.write(keys, vectors(count) + 1, vectors(count))


def held(client):
    return {row["id"]: row for row in client.query("docs", filter="id >= 0", output_fields=["*"], limit=1000)}


@pytest.mark.parametrize("fields", OTHER_FIELDS)
def test_a_row_that_is_deleted_between_look_and_update_stays_deleted_and_counts_as_missing(made, lite, fields):
    collection, gone = made(fields), [3, 17, 41]
    before_each_update(collection, lambda pks: [lite.delete("docs", ids=[pk]) for pk in pks if pk in gone])
    outcomes = written(collection)
    assert {pk for pk, outcome in enumerate(outcomes) if outcome is Outcome.MISSING} == set(gone)
    assert held(lite).keys() == set(range(ROWS)) - set(gone)
    assert all(row["note"] == "ours" for row in held(lite).values())


def test_rows_of_one_request_that_are_deleted_do_not_take_the_others_along(made, lite, monkeypatch):
    """As on a server, where a request holds many rows: all of them are refused over one that is gone."""
    monkeypatch.setattr("nudge_vdb_milvus.merging.LITE_ROWS", ROWS)
    for fields in ("required", "dynamic"):
        collection, act = made(fields), iter([[3, 17]])
        before_each_update(collection, lambda _, act=act: [lite.delete("docs", ids=pks) for pks in act])
        outcomes = written(collection)
        assert [pk for pk, outcome in enumerate(outcomes) if outcome is Outcome.MISSING] == [3, 17]
        assert outcomes.count(Outcome.WRITTEN) == ROWS - 2
        assert held(lite).keys() == set(range(ROWS)) - {3, 17}
        lite.drop_collection("docs")


def test_a_row_that_another_writer_puts_in_the_place_of_a_deleted_one_is_left_to_it(made, lite):
    collection = made("dynamic")

    def replaced(pks):
        if 5 in pks:
            lite.delete("docs", ids=[5])
            lite.insert("docs", [{"id": 5, "v": vectors()[5].tolist(), "note": "theirs"}])

    before_each_update(collection, replaced)
    written(collection)
    assert held(lite)[5]["note"] == "theirs"


def test_a_row_that_never_held_more_than_key_and_vector_is_never_deleted(made, lite, monkeypatch):
    """Beside rows of the same request that do."""
    monkeypatch.setattr("nudge_vdb_milvus.merging.LITE_ROWS", ROWS)
    collection = made("dynamic", payload=False)
    lite.upsert("docs", [{"id": pk, "note": "ours"} for pk in range(0, ROWS, 2)], partial_update=True)
    assert set(written(collection)) == {Outcome.WRITTEN}
    assert held(lite).keys() == set(range(ROWS))


def test_a_row_that_another_writer_fills_before_it_is_taken_back_is_left_to_it(made, lite):
    """It came back by our update, and its owner wrote it anew before we had looked twice."""
    collection = made("dynamic")
    before_each_update(collection, lambda pks: 5 in pks and lite.delete("docs", ids=[5]))
    revived = collection._writing._revived
    look = revived._revived

    def filled_in_between(partition, sent, holding):
        found = look(partition, sent, holding)
        if 5 in found:
            lite.upsert("docs", [{"id": 5, "note": "theirs"}], partial_update=True)
        return found

    revived._revived = filled_in_between
    written(collection)
    assert held(lite)[5]["note"] == "theirs"


def test_a_row_that_may_not_be_taken_back_is_named(made, lite, caplog):
    collection = made("dynamic")
    before_each_update(collection, lambda pks: 5 in pks and lite.delete("docs", ids=[5]))

    def refused(where, partition):
        raise Refused("no permission to delete")

    collection._wire.delete = refused
    with caplog.at_level(logging.WARNING, "nudge_vdb"):
        assert written(collection)[5] is Outcome.MISSING
    assert "1 rows of docs (5) were deleted by another writer" in caplog.text
    assert "no permission to delete" in caplog.text


def test_others_that_delete_and_edit_all_the_while_lose_nothing_that_can_be_told(made, lite, figure):
    collection, stop = made("dynamic", rows=600), threading.Event()
    gone, edits = [], {}

    def delete():
        left = random.Random(0).sample(range(300), 300)
        while left and not stop.wait(0.004):
            with suppress(MilvusException):
                lite.delete("docs", ids=[pk := left.pop()])
                gone.append(pk)

    def edit():
        chosen = random.Random(1)
        while not stop.wait(0.002):
            pk, text = chosen.randrange(300, 600), str(time.monotonic())
            lite.upsert("docs", [{"id": pk, "note": text}], partial_update=True)
            edits[pk] = text

    keys = collection.locate([str(pk) for pk in range(600)])
    threads = [threading.Thread(target=act) for act in (delete, edit)]
    [thread.start() for thread in threads]
    try:
        outcomes = collection.write(keys, vectors(600) + 1, vectors(600))
    finally:
        stop.set()
        [thread.join() for thread in threads]
    now = held(lite)
    back, lost = [pk for pk in gone if pk in now], [pk for pk, text in edits.items() if now[pk].get("note") != text]
    figure(
        f"Milvus Lite, {len(gone)} rows deleted and {len(edits)} edited while 600 were written: "
        f"{len(back)} back, {len(lost)} edits lost"
    )
    assert gone
    assert edits
    assert [pk for pk in back if "note" not in now[pk]] == []
    assert {pk for pk in back if outcomes[pk] is not Outcome.WRITTEN} == set()
