"""The contract over the Milvus server at MILVUS_URI, for releases that cannot be fetched: 2.4 to 3.x."""

import os
import re

import pytest
from pymilvus import DataType, MilvusClient

from integration.milvus_rows import TIMEOUT, create, entities, live, random_vectors, vector_field
from nudge_vdb.address import parse_address
from nudge_vdb.contract import Fixture, Metric, Outcome, Rows
from nudge_vdb.errors import UnfitCollection
from nudge_vdb.testing import CollectionContract
from nudge_vdb.testing.kit import scan_all, turned, write
from nudge_vdb_milvus import MilvusCollection
from nudge_vdb_milvus.fixture import ID, open_fixture
from nudge_vdb_milvus.release import release_of

URI = os.environ.get("MILVUS_URI", "")

pytestmark = [
    pytest.mark.milvus_server,
    pytest.mark.skipif(not URI, reason="no newer Milvus server: set MILVUS_URI to http://host:port (and MILVUS_TOKEN)"),
]


@pytest.fixture
def given():
    """A client of the server."""
    client = MilvusClient(URI, token=os.environ.get("MILVUS_TOKEN", ""), timeout=TIMEOUT, dedicated=True)
    yield client
    client.close()


@pytest.fixture
def own(given, tmp_path):
    """A name for a collection that is dropped behind the test."""
    name = "nudge_" + re.sub(r"\W", "_", tmp_path.name)
    yield name
    given.drop_collection(name)


class TestCosineIntegers(CollectionContract):
    @pytest.fixture(autouse=True)
    def server(self, given, own):
        self.name = own

    def open_filled(self, rows: Rows, metric: Metric, tmp_path) -> Fixture:
        address = URI.replace("http://", "milvus://").replace("https://", "milvus+https://")
        return open_fixture(parse_address(f"{address}/{self.name}?vector=vector"), rows, metric)


class TestDotTexts(TestCosineIntegers):
    metric = Metric.DOT
    many = 0
    ids = ["", " lead", 'qu"ote', "back\\slash", "new\nline", "日本", "😀", *map(str, range(30))]
    more_ids = ["z'z"]


def test_all_other_fields_stay_as_they_are_and_a_deleted_row_stays_deleted(given, own):
    more = [
        ("second", DataType.FLOAT_VECTOR, {"dim": 3}),
        ("maybe", DataType.INT64, {"nullable": True}),
        ("preset", DataType.INT64, {"default_value": 7}),
        ("numbers", DataType.ARRAY, {"element_type": DataType.INT64, "max_capacity": 9}),
    ]
    create(given, own, vector_field(), *more, index=False)
    index = given.prepare_index_params()
    for name in ("vector", "second"):
        index.add_index(name, index_type="FLAT", metric_type="COSINE")
    given.create_index(own, index)
    given.load_collection(own)
    vectors, others = random_vectors(30), random_vectors(30, 3)
    rows = [
        row
        | {"second": others[row[ID]], "numbers": [row[ID]] * (row[ID] % 3), "n": row[ID]}
        | ({"maybe": 1} if row[ID] % 2 else {})
        for row in entities(range(30), vectors)
    ]
    given.insert(own, rows)
    fields = ["second", "maybe", "preset", "numbers", "n"]
    before = {row[ID]: dict(row) for row in given.query(own, f"{ID} >= 0", output_fields=fields)}
    collection = MilvusCollection(given, own, vector="vector")
    keys, read = scan_all(collection, 7)
    given.delete(own, ids=[3])
    outcomes = write(collection, keys, turned(read), read)
    assert [place for place, outcome in enumerate(outcomes) if outcome is Outcome.MISSING] == [3]
    after = {row[ID]: dict(row) for row in given.query(own, f"{ID} >= 0", output_fields=fields)}
    assert after == {pk: row for pk, row in before.items() if pk != 3}
    collection.close()


def test_rows_spread_by_a_partition_key_stay_where_their_key_says(given, own):
    if release_of(given, TIMEOUT).scatters_by_key:
        pytest.skip("this release moves such rows; it is refused")
    create(given, own, vector_field(), ("tenant", DataType.VARCHAR, {"max_length": 9, "is_partition_key": True}))
    vectors = random_vectors(30)
    given.insert(own, [row | {"tenant": f"t{row[ID] % 3}"} for row in entities(range(30), vectors)])
    collection = MilvusCollection(given, own)
    keys, read = scan_all(collection, 7)
    assert set(write(collection, keys, turned(read), read)) == {Outcome.WRITTEN}
    assert [len(given.query(own, f'tenant == "t{each}"', limit=100)) for each in range(3)] == [10, 10, 10]
    assert (live(given, own, *range(30)) == turned(vectors)).all()
    collection.close()


def test_a_collection_whose_ids_milvus_makes_is_unfit(given, own):
    create(given, own, auto_id=True)
    with pytest.raises(UnfitCollection, match="ids of your own"):
        MilvusCollection(given, own)
