"""Rows within the scope of an address, and none of the others."""

import re
from urllib.parse import quote

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient

from nudge_vdb.address import parse_address
from nudge_vdb.contract import Outcome
from nudge_vdb.errors import BadAddress, UnfitCollection
from nudge_vdb.testing import example_rows
from nudge_vdb.testing.kit import fetch, scan_all, turned, write
from nudge_vdb_milvus import MilvusCollection, open_collection
from nudge_vdb_milvus.keys import key_of
from nudge_vdb_milvus.saying import require_conditions
from nudge_vdb_milvus.scope import Scope

WIDTH = 8
IDS = range(30)
VECTORS = example_rows(list(IDS), WIDTH).vectors


def payload(pk):
    return {
        "lang": ["de", "en", 'a,"b":c'][pk % 3],
        "year": 2000 + pk % 4,
        "code": str(pk % 2),
        "open": pk % 5 == 0,
        "tree": {"a": {"b": pk % 3}, "odd key": str(pk % 2)},
        "tenant": pk % 2,
        "nested": {"deep": f"v{pk % 2}"},
    }


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A database with a collection of fields, JSON, dynamic fields and three partitions."""
    file = tmp_path_factory.mktemp("milvus") / "scope.db"
    client = MilvusClient(str(file))
    schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=WIDTH)
    for name, kind in {"lang": DataType.VARCHAR, "code": DataType.VARCHAR, "year": DataType.INT32}.items():
        schema.add_field(name, kind, max_length=99)
    schema.add_field("open", DataType.BOOL)
    schema.add_field("tree", DataType.JSON)
    schema.add_field("list", DataType.ARRAY, element_type=DataType.INT64, max_capacity=9, nullable=True)
    index = client.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="COSINE")
    client.create_collection("docs", schema=schema)
    client.create_index("docs", index, sync=False)
    for partition in ("a", "a_b"):
        client.create_partition("docs", partition)
    client.close()
    return file


@pytest.fixture
def client(file):
    """A client; the rows are as they were at first."""
    client = MilvusClient(str(file))
    client.load_collection("docs")
    for place, partition in enumerate(("_default", "a", "a_b")):
        rows = [{"id": pk, "vector": VECTORS[pk], **payload(pk)} for pk in IDS if pk % 3 == place]
        client.upsert("docs", rows, partition_name=partition)
    yield client
    client.close()


def opened(file, options, collection="docs"):
    return open_collection(parse_address(f"milvus+lite://{file}/{collection}?{options}"))


def option(name, text):
    return f"{name}={quote(text)}"


SCOPES = {
    "a text": (option("where", "lang:de"), lambda row: row["lang"] == "de"),
    "a text in quotes": (option("where", 'lang:"a,\\"b\\":c"'), lambda row: row["lang"] == 'a,"b":c'),
    "a number": (option("where", "year:2002"), lambda row: row["year"] == 2002),
    "a text of digits": (option("where", "code:1"), lambda row: row["code"] == "1"),
    "a truth": (option("where", "open:true"), lambda row: row["open"]),
    "two conditions": (
        option("where", "lang:en,year:2001"),
        lambda row: (row["lang"], row["year"]) == ("en", 2001),
    ),
    "a path into JSON": (option("where", "tree.a.b:1"), lambda row: row["tree"]["a"]["b"] == 1),
    "a path with a blank": (option("where", 'tree.odd key:"1"'), lambda row: row["tree"]["odd key"] == "1"),
    "a dynamic field": (option("where", "tenant:1"), lambda row: row["tenant"] == 1),
    "a path into a dynamic field": (option("where", "nested.deep:v1"), lambda row: row["nested"]["deep"] == "v1"),
    "a filter": (
        option("filter", 'year > 2002 or lang == "de"'),
        lambda row: row["year"] > 2002 or row["lang"] == "de",
    ),
    "a filter and a condition": (
        option("filter", 'year > 2002 or lang == "de"') + "&where=tenant:0",
        lambda row: (row["year"] > 2002 or row["lang"] == "de") and row["tenant"] == 0,
    ),
}


@pytest.mark.parametrize("scope", SCOPES)
def test_every_method_stays_within_the_conditions(scope, file, client):
    options, meets = SCOPES[scope]
    inside = [pk for pk in IDS if meets(payload(pk))]
    assert 0 < len(inside) < len(IDS)
    assert_stays_within(opened(file, options), client, inside)


@pytest.mark.parametrize("partition", ["_default", "a", "a_b"])
def test_every_method_stays_within_the_partition(partition, file, client):
    inside = [pk for pk in IDS if pk % 3 == ("_default", "a", "a_b").index(partition)]
    assert_stays_within(opened(file, f"partition={partition}"), client, inside)


def test_conditions_within_a_partition_are_both_kept(file, client):
    inside = [pk for pk in IDS if pk % 3 == 1 and pk % 4 == 2]
    assert_stays_within(opened(file, "partition=a&where=year:2002"), client, inside)


def assert_stays_within(collection, client, inside):
    everywhere = open_collection(parse_address(re.sub(r"\?.*", "", address_of(collection))))
    keys, _ = scan_all(collection, 4)
    assert sorted(int(collection.text_of(key)) for key in keys) == inside
    assert collection.count() == len(inside)
    located = collection.locate([str(pk) for pk in IDS])
    assert [pk for pk, key in zip(IDS, located, strict=True) if key] == inside
    hits = collection.search(VECTORS[:3], len(IDS))
    assert [sorted(int(collection.text_of(key)) for key in found) for found in hits] == [inside] * 3
    every, before = scan_all(everywhere, 1000)
    found = fetch(collection, every)[1]
    assert [int(everywhere.text_of(key)) for key, here in zip(every, found, strict=True) if here] == [
        pk for pk in map(int, map(everywhere.text_of, every)) if pk in inside
    ]
    outcomes = write(collection, every, turned(before), before)
    written = [int(everywhere.text_of(key)) in inside for key in every]
    assert outcomes == [Outcome.WRITTEN if here else Outcome.MISSING for here in written]
    after = fetch(everywhere, every)[0]
    assert (after == np.where(np.array(written)[:, None], turned(before), before)).all()
    collection.close()
    everywhere.close()


def address_of(collection):
    engine, _, name = collection.traits.collection.rpartition("/default/")
    return f"{engine}/{name}"


def test_a_row_that_leaves_the_scope_is_gone_from_it(file, client):
    collection = opened(file, "where=lang:de")
    keys, vectors = scan_all(collection, 100)
    client.upsert("docs", [{"id": 0, "vector": VECTORS[0], **payload(0), "lang": "fr"}], partition_name="_default")
    assert collection.locate(["0", "3"]) == [None, key_of("_default", 3)]
    assert fetch(collection, keys[:2])[1].tolist() == [False, True]
    assert write(collection, keys[:2], turned(vectors[:2]), vectors[:2]) == [Outcome.MISSING, Outcome.WRITTEN]
    assert (client.get("docs", [0])[0]["vector"] == VECTORS[0]).all()
    collection.close()


@pytest.mark.parametrize(
    ("options", "scope"),
    [
        ("where=lang:de,year:2002.0", {"where:lang": '"de"', "where:year": "2002"}),
        ("where=code:1", {"where:code": '"1"'}),
        ("where=tenant:1", {"where:tenant": "1"}),
        ('where=tenant:"1"', {"where:tenant": '"1"'}),
        ("partition=a", {"partition": "a"}),
        ("", {}),
    ],
)
def test_conditions_have_one_spelling_and_one_name_per_key(options, scope, file, client):
    collection = opened(file, options)
    assert dict(collection.traits.scope) == scope
    collection.close()


def test_filters_that_are_not_known_to_be_apart_share_no_name(file, client):
    one, two = (opened(file, option("filter", text)) for text in ("year > 2001", "year > 2002"))
    assert one.traits.scope.keys().isdisjoint(two.traits.scope)
    assert list(one.traits.scope.values()) == ["year > 2001"]
    assert one.traits.identity != two.traits.identity
    one.close()
    two.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("where=nope.a:1&vector=vector", None),
        ("where=lang.x:1", r"where=lang\.x.*no such field; its fields: .*lang"),
        ("where=list:1", "field is ARRAY and holds no single value; use filter="),
        ("where=tree:1", "field is JSON and holds no single value; use filter="),
        ("where=vector:1", "field is FLOAT_VECTOR and holds no single value"),
        ("where=lang", "'lang' is not understood; expected where=key:value"),
        ("where=lang:de,lang:en", "a key stands there twice"),
        ("where=year:null", "no single value to look for"),
        ("where=year:[1]", "no single value to look for"),
        ("where=", "option where= is empty"),
        ("filter=", "option filter= is empty"),
        ("partition=", "option partition= is empty"),
        ("partition=nope", "has no such partition; its partitions: _default, a, a_b"),
        (option("filter", "year >"), "Milvus does not understand the condition year >"),
        (option("filter", "year > 2002) or (id >= 0"), "Milvus does not understand the condition"),
        (option("filter", "year > 2002) or (id >= 0") + "&where=tenant:0", "Milvus does not understand the condition"),
    ],
)
def test_a_scope_that_cannot_be_meant_is_refused_when_the_collection_is_opened(options, message, file, client):
    if message is None:
        opened(file, options).close()
        return
    with pytest.raises(BadAddress, match=message):
        opened(file, options)


VACUOUS = [
    "lang not in []",
    "lang in [ ]",
    "not (lang in [])",
    "year > 2001 and (tenant == 1 or lang not in [\n])",
    "ARRAY_CONTAINS_ALL(list, [])",
    "json_contains_any(tree['a'], [])",
    'lang like "%"',
    "lang LIKE '%%'",
    'year > 2001 and lang like ""',
    "true",
    "not false",
    "year > 2001 or true",
    "1 == 1",
    "year > 2001 or (1 == 1)",
    "'a' != 'b'",
    "2 > 1 and year > 2001",
    " ",
    "\n",
]


@pytest.mark.parametrize("given", VACUOUS)
def test_a_filter_of_which_a_part_says_nothing_is_refused_at_any_depth(given, file, client):
    with pytest.raises(BadAddress, match=r"says nothing of the rows|is empty"):
        opened(file, option("filter", given))
    with pytest.raises(BadAddress, match="says nothing of the rows"):
        MilvusCollection(client, "docs", vector="vector", scope=Scope(given=given))


@pytest.mark.parametrize(
    "given",
    [
        'lang != "[]"',
        "lang != 'like \"%\"'",
        "lang != 'true' and not (year == 1)",
        "flag != true or year in [1, 2]",
        'lang like "d%" or lang like "%e"',
        "1 < year and year < 3000",
        "year + 1 != 1",
        "lang != ''",
        "array_length(list) != 0",
    ],
)
def test_a_filter_whose_every_part_says_something_is_taken(given):
    require_conditions(given)


@pytest.mark.parametrize("options", ["where=lang:", "where=lang:%20", "where=tenant:1,lang:"])
def test_a_condition_without_a_value_is_refused_and_the_empty_text_has_a_spelling(options, file, client):
    with pytest.raises(BadAddress, match='the empty text is written where=lang:""'):
        opened(file, options)
    collection = opened(file, option("where", 'lang:""'))
    assert dict(collection.traits.scope) == {"where:lang": '""'}
    collection.close()


def test_a_blank_partition_is_none_of_the_collections(client):
    with pytest.raises(BadAddress, match="no such partition"):
        MilvusCollection(client, "docs", vector="vector", scope=Scope(partition=" "))


def test_a_partition_that_milvus_chose_is_no_scope(file, client):
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=WIDTH)
    schema.add_field("tenant", DataType.VARCHAR, max_length=9, is_partition_key=True)
    client.create_collection("keyed", schema=schema)
    with pytest.raises(UnfitCollection, match=r"spread over partitions by Milvus.*where=tenant:value"):
        opened(file, "partition=a", "keyed")
