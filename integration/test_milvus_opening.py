"""What cannot be tuned on a Milvus server, or only with care."""

import pytest
from pymilvus import DataType
from pymilvus.client.types import LoadState

from integration.milvus_rows import copies, create, entities, random_vectors, vector_field
from nudge_vdb.address import parse_address
from nudge_vdb.contract import Outcome
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


def test_a_binary_vector_is_unfit(client, name):
    create(client, name, ("bits", DataType.BINARY_VECTOR, {"dim": 16}), index=False)
    with pytest.raises(UnfitCollection, match=r"field bits .* is BINARY_VECTOR; expected FLOAT_VECTOR"):
        MilvusCollection(client, name, vector="bits")


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
