"""What cannot be tuned on a Milvus server, or only with care."""

import numpy as np
import pytest
from pymilvus import DataType
from pymilvus.client.types import LoadState

from integration.milvus_rows import copies, create, entities, random_vectors, stored, vector_field
from nudge_vdb.address import parse_address
from nudge_vdb.contract import Outcome, Weight
from nudge_vdb.errors import BadAddress, UnfitCollection
from nudge_vdb.testing.kit import fetch, scan_all, turned, write
from nudge_vdb_milvus import MilvusCollection, open_collection
from nudge_vdb_milvus.fixture import ID

pytestmark = pytest.mark.milvus_server

# What cannot be tuned, or only with care


def test_a_collection_spread_by_a_partition_key_is_unfit_and_untouched(client, wire, name):
    tenant = ("tenant", DataType.VARCHAR, {"max_length": 9, "is_partition_key": True})
    create(client, name, vector_field(), tenant)
    client.insert(name, [row | {"tenant": f"t{row[ID] % 3}"} for row in entities(range(30), random_vectors(30))])
    with pytest.raises(UnfitCollection, match=r"spread over partitions by the field tenant.*Milvus 2\.3\.5.*30607"):
        MilvusCollection(client, name)
    assert [copies(client, name, f'tenant == "t{each}"') for each in range(3)] == [10, 10, 10]


def test_a_collection_whose_ids_milvus_makes_is_unfit(client, name):
    create(client, name, auto_id=True)
    with pytest.raises(UnfitCollection, match="ids of your own"):
        MilvusCollection(client, name)


def test_a_collection_without_an_index_is_unfit(client, name):
    create(client, name, index=False)
    with pytest.raises(UnfitCollection, match=r"has no index.*create_index"):
        MilvusCollection(client, name)


@pytest.mark.parametrize("kind", [DataType.BINARY_VECTOR, DataType.FLOAT16_VECTOR, DataType.BFLOAT16_VECTOR])
def test_a_vector_of_another_kind_is_unfit_and_says_why(kind, client, name):
    create(client, name, ("other", kind, {"dim": 16}), index=False)
    with pytest.raises(UnfitCollection, match=rf"field other .* is {kind.name}, .*; expected FLOAT_VECTOR"):
        MilvusCollection(client, name, vector="other")


def test_a_collection_that_is_not_loaded_says_so_and_is_loaded_and_released_only_on_demand(milvus_server, client, name):
    create(client, name, load=False)
    client.insert(name, entities(range(5), random_vectors(5)))
    address = milvus_server.address(name)
    with pytest.raises(UnfitCollection, match=r"is not loaded.*load=true"):
        open_collection(parse_address(address))
    with pytest.raises(BadAddress, match="load=maybe"):
        open_collection(parse_address(f"{address}?load=maybe"))
    collection = open_collection(parse_address(f"{address}?load=true"))
    keys, read = scan_all(collection, 2)
    assert set(write(collection, keys, turned(read), read)) == {Outcome.WRITTEN}
    collection.close()
    assert client.get_load_state(name)["state"] == LoadState.NotLoad


def test_a_collection_that_was_loaded_stays_loaded(milvus_server, client, name):
    create(client, name)
    open_collection(parse_address(f"{milvus_server.address(name)}?load=true")).close()
    assert client.get_load_state(name)["state"] == LoadState.Loaded


def test_an_empty_collection_is_paged_to_its_end(client, docs):
    collection = MilvusCollection(client, docs)
    assert scan_all(collection, 10)[0] == []
    assert (collection.count(), collection.locate(["1"])) == (0, [None])


def test_the_lowest_id_of_all_is_paged_and_written_and_the_highest_is_not_seen(client, name):
    create(client, name)
    ids = [-(2**63), -(2**63) + 1, 2**63 - 2, 2**63 - 1]
    client.insert(name, entities(ids, random_vectors(4)))
    collection = MilvusCollection(client, name)
    for limit in (1, 2, 9):
        keys, read = scan_all(collection, limit)
        assert [int(collection.text_of(key)) for key in keys] == ids[:3]
    assert set(write(collection, keys, turned(read), read)) == {Outcome.WRITTEN}
    assert (fetch(collection, keys)[0] == turned(read)).all()
    # Milvus 2.3 counts it, and answers no request for it.
    assert (collection.count(), collection.locate(list(map(str, ids)))) == (4, [*keys, None])


# Scope


@pytest.mark.parametrize(
    ("options", "inside"),
    [
        ("where=lang:de", lambda pk: pk % 2),
        ("where=lang:de,year:2001", lambda pk: pk % 2 and pk % 3 == 1),
        ("where=nested.deep:true", lambda pk: pk % 5 == 0),
        ("filter=year%20%3E%202000", lambda pk: pk % 3 > 0),
        ("filter=year%20%3E%202001%20or%20year%20%3C%202001&where=lang:de", lambda pk: pk % 3 != 1 and pk % 2),
    ],
)
def test_every_method_stays_within_the_conditions(options, inside, milvus_server, client, wire, docs):
    vectors = random_vectors(30)
    rows = [
        row | {"lang": "de" if row[ID] % 2 else "en", "year": 2000 + row[ID] % 3, "nested": {"deep": row[ID] % 5 == 0}}
        for row in entities(range(30), vectors)
    ]
    client.insert(docs, rows)
    before, pks = stored(wire, docs), [pk for pk in range(30) if inside(pk)]
    collection = open_collection(parse_address(f"{milvus_server.address(docs)}?{options}"))
    everywhere = MilvusCollection(client, docs)
    assert_within(collection, everywhere, vectors, pks)
    assert stored(wire, docs) == before
    collection.close()


def test_every_method_stays_within_the_partition(milvus_server, client, name):
    vectors = random_vectors(30)
    create(client, name)
    client.create_partition(name, "a")
    client.insert(name, entities(range(0, 30, 2), vectors[::2]))
    client.insert(name, entities(range(1, 30, 2), vectors[1::2]), partition_name="a")
    collection = open_collection(parse_address(milvus_server.address(name, partition="a")))
    assert_within(collection, MilvusCollection(client, name), vectors, list(range(1, 30, 2)))
    assert dict(collection.traits.scope) == {"partition": "a"}
    collection.close()


def assert_within(collection, everywhere, vectors, inside):
    keys, _ = scan_all(collection, 4)
    assert sorted(int(collection.text_of(key)) for key in keys) == inside
    assert collection.count() == len(inside)
    assert [pk for pk, key in enumerate(collection.locate(list(map(str, range(30))))) if key] == inside
    hits = collection.search(vectors[:2], 30)
    assert [sorted(int(collection.text_of(key)) for key in found) for found in hits] == [inside] * 2
    every, before = scan_all(everywhere, 1000)
    within = [int(everywhere.text_of(key)) in inside for key in every]
    assert fetch(collection, every)[1].tolist() == within
    outcomes = write(collection, every, turned(before), before)
    assert outcomes == [Outcome.WRITTEN if here else Outcome.MISSING for here in within]
    after = fetch(everywhere, every)[0]
    assert (after == np.where(np.array(within)[:, None], turned(before), before)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("partition=nope", "has no such partition; its partitions: _default"),
        ("filter=year%20%3E", "Milvus does not understand the condition year >"),
        ("filter=year%20%3E%202)%20or%20(id%20%3E%200", "Milvus does not understand the condition"),
    ],
)
def test_a_scope_that_cannot_be_meant_is_refused_when_the_collection_is_opened(options, message, milvus_server, docs):
    with pytest.raises(BadAddress, match=message):
        open_collection(parse_address(f"{milvus_server.address(docs)}?{options}"))


# Diagnosis


def test_a_diagnosis_warns_of_the_window_and_of_keys_that_are_there_twice(client, docs):
    vectors = random_vectors(30)
    client.insert(docs, entities(range(30), vectors))
    client.insert(docs, entities(range(5), vectors[:5]))
    remarks = {remark.topic: remark for remark in MilvusCollection(client, docs).diagnose()}
    assert (remarks["window"].weight, remarks["duplicates"].weight) == (Weight.WARNING, Weight.WARNING)
    assert "35 rows are counted and 30 keys are read" in remarks["duplicates"].text
    assert "whole rows are read and sent back" in remarks["writing"].text
    assert "Milvus 2.3.5 is not known to be 2.6.2 or later" in remarks["writing"].text
