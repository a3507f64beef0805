"""The contract over Milvus Lite, and what the adapter promises beyond it."""

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from milvus_lite.server_manager import server_manager_instance
from pymilvus import DataType, MilvusClient, MilvusException

from nudge_vdb.address import parse_address
from nudge_vdb.contract import Fixture, Metric, Outcome, Rows
from nudge_vdb.errors import (
    BadAddress,
    BadOption,
    Busy,
    EngineError,
    Refused,
    TooLarge,
    UnfitCollection,
    Unknown,
    Unreachable,
)
from nudge_vdb.testing import CollectionContract, example_rows
from nudge_vdb.testing.kit import fetch, scan_all, turned, write
from nudge_vdb_milvus import MilvusCollection, open_collection
from nudge_vdb_milvus.failures import reading, writing
from nudge_vdb_milvus.fixture import open_fixture
from nudge_vdb_milvus.keys import key_of, places_by_partition, row_of
from nudge_vdb_milvus.release import parse_release

AWKWARD = [
    "",
    " lead",
    'qu"ote',
    "sing'le",
    "back\\slash",
    "\\n",
    "new\nline",
    "c\r",
    "tab\t",
    "nul\0",
    "日本",
    "😀",
    "x" * 64,
]
WIDTH = 8


class TestCosineIntegers(CollectionContract):
    ids = [*range(-20, 20), -(2**63), -(2**63) + 1, 2**53 + 1, 2**63 - 1]
    more_ids = [77_777]

    def open_filled(self, rows: Rows, metric: Metric, tmp_path: Path) -> Fixture:
        # One database for all: starting its server costs more than most tests.
        name = re.sub(r"\W", "_", tmp_path.name)
        return open_fixture(parse_address(f"milvus+lite://{tmp_path.parent}/kit.db/{name}"), rows, metric)


class TestDotIntegers(TestCosineIntegers):
    metric = Metric.DOT
    many = 0


class TestEuclidIntegers(TestCosineIntegers):
    metric = Metric.EUCLID
    many = 0


class TestCosineTexts(TestCosineIntegers):
    many = 0
    ids = [*AWKWARD, *map(str, range(30))]
    more_ids = ["z'z"]


class TestDotTexts(TestCosineTexts):
    metric = Metric.DOT


class TestEuclidTexts(TestCosineTexts):
    metric = Metric.EUCLID


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("milvus") / "all.db"


@pytest.fixture
def name(tmp_path):
    """A name for a collection that no other test has."""
    return re.sub(r"\W", "_", tmp_path.name)


@pytest.fixture
def client(file):
    client = MilvusClient(str(file))
    yield client
    client.close()


@pytest.fixture
def filled(file, name):
    """A collection with integer ids, one vector field to tune and another one."""
    rows = example_rows(list(range(30)), WIDTH)
    fixture = open_fixture(parse_address(f"milvus+lite://{file}/{name}"), rows, Metric.COSINE)
    yield fixture
    fixture.close()


def create(client, name, *fields, index="vector", pk="id"):
    """Create a collection with the primary key *pk* and *fields*, each given as name, type and options."""
    schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
    schema.add_field(pk, DataType.INT64, is_primary=True)
    for field, kind, options in fields or [vector_field()]:
        schema.add_field(field, kind, **options)
    client.create_collection(name, schema=schema)
    if index:
        params = client.prepare_index_params()
        params.add_index(index, index_type="FLAT", metric_type="COSINE")
        client.create_index(name, params, sync=False)
        client.load_collection(name)


def vector_field(name="vector", **options):
    return name, DataType.FLOAT_VECTOR, {"dim": WIDTH, **options}


def entities(ids, vectors, **payload):
    return [{"id": pk, "vector": vector, **payload} for pk, vector in zip(ids, vectors, strict=True)]


def contents(client, name, *partitions):
    """Every row of *partitions*, as Milvus itself tells it."""
    rows = client.query(name, "id >= 0 or id < 0", output_fields=["*"], partition_names=list(partitions) or None)
    return {row["id"]: dict(row) for row in rows}


# Ids


@pytest.mark.parametrize("limit", [1, 4, 1000])
def test_awkward_texts_as_ids_are_paged_written_and_rolled_back(file, name, limit):
    rows = example_rows(AWKWARD, WIDTH)
    fixture = open_fixture(parse_address(f"milvus+lite://{file}/{name}"), rows, Metric.DOT)
    before = fixture.read()
    keys, vectors = scan_all(fixture.collection, limit)
    assert [fixture.collection.text_of(key) for key in keys] == sorted(AWKWARD, key=str.encode)
    assert set(write(fixture.collection, keys, turned(vectors), vectors)) == {Outcome.WRITTEN}
    assert set(write(fixture.collection, keys, vectors, turned(vectors))) == {Outcome.WRITTEN}
    after = fixture.read()
    assert all((after[text].vector == row.vector).all() for text, row in before.items())
    assert all(after[text].payload == row.payload for text, row in before.items())
    fixture.close()


@pytest.mark.parametrize(
    "text", ["017", "+17", " 17", "17 ", "1_7", "-0", "١٧", "", "x", "1.0", str(2**63), "9" * 5000]
)
def test_a_text_that_is_not_how_an_integer_is_written_is_no_row(filled, text):
    assert filled.collection.locate([text, "17"]) == [None, key_of("_default", 17)]


def test_a_text_that_utf8_cannot_carry_is_no_row(file, name):
    fixture = open_fixture(parse_address(f"milvus+lite://{file}/{name}"), example_rows(["a"], WIDTH), Metric.DOT)
    assert fixture.collection.locate(["\ud800", "a"]) == [None, key_of("_default", "a")]
    fixture.close()


def test_keys_of_another_kind_of_id_are_gone_and_never_asked_for(filled):
    assert fetch(filled.collection, [key_of("_default", "17")])[1].tolist() == [False]
    keys = [key_of("a", "17"), key_of("a", 17), key_of("b", 17), key_of("a", 17)]
    assert places_by_partition(keys, int) == {"a": {17: [1, 3]}, "b": {17: [2]}}


@pytest.mark.parametrize("pks", [[-(2**63), -257, -1, 0, 1, 256, 2**63 - 1], sorted(AWKWARD, key=str.encode)])
def test_keys_hold_their_row_and_sort_as_milvus_does(pks):
    rows = [(partition, pk) for partition in ("_default", "a", "a_b", "ab") for pk in pks]
    keys = [key_of(*row) for row in rows]
    assert keys == sorted(keys)
    assert [row_of(key) for key in keys] == rows


def test_the_primary_key_may_have_any_name(client, name):
    create(client, name, vector_field("embedding"), pk="number", index="embedding")
    rows = example_rows([3, 1, 2], WIDTH)
    client.insert(name, [{"number": pk, "embedding": row} for pk, row in zip(rows.ids, rows.vectors, strict=True)])
    collection = MilvusCollection(client, name)
    keys, vectors = scan_all(collection, 2)
    assert keys == collection.locate(["1", "2", "3"]) == [hits[0] for hits in collection.search(vectors, 1)]
    assert set(write(collection, keys, turned(vectors), vectors)) == {Outcome.WRITTEN}
    assert (fetch(collection, keys)[0] == turned(vectors)).all()


# Partitions


@pytest.fixture
def parted(client, name):
    """A collection whose rows lie in three partitions, ids mixed; returns (collection, ids, vectors)."""
    create(client, name)
    ids, vectors = np.arange(30), example_rows(list(range(30)), WIDTH).vectors
    for place, partition in enumerate(["_default", "a", "a_b"]):
        if partition != "_default":
            client.create_partition(name, partition)
        rows = entities(ids[place::3].tolist(), vectors[place::3], note=partition)
        client.insert(name, rows, partition_name=partition)
    return MilvusCollection(client, name), vectors


def test_rows_in_named_partitions_keep_one_copy_in_their_partition(client, name, parted):
    collection, _ = parted
    before = {partition: contents(client, name, partition) for partition in ("_default", "a", "a_b")}
    keys, read = scan_all(collection, 4)
    assert set(write(collection, keys, turned(read), read)) == {Outcome.WRITTEN}
    assert (scan_all(collection, 1000)[1] == turned(read)).all()
    for partition, rows in before.items():
        after = contents(client, name, partition)
        assert {pk: row["note"] for pk, row in after.items()} == {pk: row["note"] for pk, row in rows.items()}
    assert set(write(collection, keys, read, turned(read))) == {Outcome.WRITTEN}
    assert contents(client, name) == before["_default"] | before["a"] | before["a_b"]


def test_rows_in_named_partitions_are_found_however_they_are_looked_for(parted):
    collection, _ = parted
    keys, read = scan_all(collection, 1000)
    assert keys == sorted(keys)
    assert sorted(map(collection.text_of, keys), key=int) == [str(pk) for pk in range(30)]
    assert collection.locate([collection.text_of(key) for key in keys]) == keys
    out, found = fetch(collection, keys[::-1])
    assert found.all()
    assert (out == read[::-1]).all()
    assert [hits[0] for hits in collection.search(read, 3)] == keys
    assert {len(hits) for hits in collection.search(read, 30)} == {30}


def test_a_row_that_moved_to_another_partition_is_not_written(client, name, parted):
    collection, vectors = parted
    keys = collection.locate(["1"])
    client.upsert(name, entities([1], vectors[1:2]), partition_name="a_b")
    assert write(collection, keys, vectors[:1], vectors[1:2]) == [Outcome.MISSING]
    assert (np.array(contents(client, name)[1]["vector"], np.float32) == vectors[1]).all()


def test_rows_spread_by_a_partition_key_stay_where_their_key_says(client, name):
    create(client, name, vector_field(), ("tenant", DataType.VARCHAR, {"max_length": 9, "is_partition_key": True}))
    vectors = example_rows(list(range(12)), WIDTH).vectors
    client.insert(name, [row | {"tenant": f"t{row['id'] % 3}"} for row in entities(range(12), vectors)])
    collection = MilvusCollection(client, name)
    keys, read = scan_all(collection, 5)
    assert set(write(collection, keys, turned(read), read)) == {Outcome.WRITTEN}
    assert [len(client.query(name, f'tenant == "t{tenant}"')) for tenant in range(3)] == [4, 4, 4]
    assert collection.locate(["7"]) == [keys[7]]


# Writing


def test_a_write_that_is_repeated_counts_as_written(filled):
    keys, vectors = scan_all(filled.collection, 1000)
    write(filled.collection, keys[:5], turned(vectors)[:5], vectors[:5])
    assert set(write(filled.collection, keys, turned(vectors), vectors)) == {Outcome.WRITTEN}


def test_vectors_come_back_bit_for_bit(filled):
    keys, vectors = scan_all(filled.collection, 1000)
    odd = np.array([[1e-45, -1e-45, 3.4e38, -3.4e38, 1 / 3, 1e-38, 16_777_217.0, 0.1]], np.float32)
    assert write(filled.collection, keys[:1], odd, vectors[:1]) == [Outcome.WRITTEN]
    assert fetch(filled.collection, keys[:1])[0].tobytes() == odd.tobytes()
    assert filled.collection.traits.tolerance == 0


@pytest.mark.parametrize("shape", [(2, WIDTH - 1), (1, WIDTH)])
def test_vectors_of_the_wrong_shape_are_never_sent(filled, shape):
    keys, vectors = scan_all(filled.collection, 1000)
    with pytest.raises(Refused, match="expected 2 finite vectors of 8"):
        filled.collection.write(keys[:2], np.ones(shape, np.float32), vectors[:2])


def test_a_row_without_a_vector_is_absent_and_never_given_one(client, name):
    create(client, name, vector_field(nullable=True))
    vectors = example_rows([1, 2], WIDTH).vectors
    client.insert(name, [*entities([1, 2], vectors), {"id": 3, "vector": None}])
    collection = MilvusCollection(client, name)
    page = collection.scan(None, 10)
    assert page.absent.tolist() == [False, False, True]
    zero = np.zeros((1, WIDTH), np.float32)
    assert fetch(collection, list(page.keys))[1].tolist() == [True, True, False]
    assert write(collection, list(page.keys[2:]), vectors[:1], zero) == [Outcome.MISSING]
    assert collection.scan(None, 10).absent.tolist() == [False, False, True]


def test_a_deleted_row_is_not_created_even_where_zeros_are_expected(filled):
    keys, vectors = scan_all(filled.collection, 1000)
    filled.delete([0])
    assert write(filled.collection, keys[:1], vectors[:1], np.zeros_like(vectors[:1])) == [Outcome.MISSING]
    assert "0" not in filled.read()


# Opening


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (None, r"2 dense vector fields; name the one to tune with vector=; its fields: .*one \(FLOAT_VECTOR\), two"),
        ("three", r"has no field three; its fields: id \(INT64\), one \(FLOAT_VECTOR\), two .*sparse .*year"),
        ("year", r"field year .* is INT64; expected FLOAT_VECTOR; its fields: .*one \(FLOAT_VECTOR\)"),
        ("sparse", r"is SPARSE_FLOAT_VECTOR, .*; expected FLOAT_VECTOR; its fields: .*one \(FLOAT_VECTOR\)"),
        ("two", r"field two of collection .* has no index.*create_index"),
    ],
)
def test_a_field_that_cannot_be_tuned_is_named_with_those_that_may(client, name, vector, message):
    sparse, year = ("sparse", DataType.SPARSE_FLOAT_VECTOR, {}), ("year", DataType.INT64, {"nullable": True})
    create(client, name, vector_field("one"), vector_field("two"), sparse, year, index="one")
    with pytest.raises(UnfitCollection, match=message):
        MilvusCollection(client, name, vector=vector)
    assert MilvusCollection(client, name, vector="one").traits.width == WIDTH


def test_a_collection_without_a_dense_vector_is_unfit(client, name):
    create(client, name, ("sparse", DataType.SPARSE_FLOAT_VECTOR, {}), index=None)
    with pytest.raises(UnfitCollection, match=r"0 dense vector fields.*sparse \(SPARSE_FLOAT_VECTOR\)"):
        MilvusCollection(client, name)


def test_a_collection_that_does_not_exist_is_answered_with_those_that_do(file, filled, name):
    with pytest.raises(UnfitCollection, match=f"no collection nope; collections here: .*{name}"):
        open_collection(parse_address(f"milvus+lite://{file}/nope"))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("milvus+lite:///nowhere/x.db/docs", "no Milvus Lite database /nowhere/x.db"),
        ("milvus+lite:///nowhere/x.sqlite/docs", "x.sqlite is no Milvus Lite database; expected milvus"),
        ("milvus+lite:///nowhere/x.db/docs?load=yes&vector=v", "no option load; known: vector, timeout, partition"),
        ("milvus+grpc://host/docs", r"known: milvus://, milvus\+https://, milvus\+lite://"),
        ("milvus:///docs", "expected milvus://host"),
        ("milvus://host/a/b/docs", "expected milvus://host"),
        ("milvus://host/docs?timeout=soon", "give a number of seconds"),
    ],
)
def test_an_address_that_names_no_engine_is_refused(address, message):
    with pytest.raises(BadAddress, match=message):
        open_collection(parse_address(address))


def test_a_missing_database_is_not_created(tmp_path):
    with pytest.raises(BadAddress):
        open_collection(parse_address(f"milvus+lite://{tmp_path}/new.db/docs"))
    assert list(tmp_path.iterdir()) == []


def test_a_collection_has_one_identity_however_it_is_opened(file, filled, client, name, monkeypatch):
    client.create_alias(name, f"alias_{name}")
    monkeypatch.chdir(file.parent)
    opened = open_collection(parse_address(f"milvus+lite://./{file.name}/alias_{name}?vector=vector&timeout=9"))
    mine = MilvusCollection(client, name, vector="vector")
    other = MilvusCollection(client, name, vector="other")
    assert opened.traits == mine.traits == filled.collection.traits
    assert mine.traits.identity == f"milvus+lite://{file.resolve()}/default/{name}?vector=vector"
    assert mine.traits.engine == "Milvus Lite 3.2.2"
    assert (other.traits.identity != mine.traits.identity, other.traits.width) == (True, 3)
    opened.close()


def test_a_database_reached_through_a_link_has_the_identity_of_the_database(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    address = parse_address(f"milvus+lite://{tmp_path}/link/x.db/docs")
    fixture = open_fixture(address, example_rows([1], WIDTH), Metric.DOT)
    real = (tmp_path / "real" / "x.db").resolve()
    assert fixture.collection.traits.identity == f"milvus+lite://{real}/default/docs?vector=vector"
    fixture.close()


# Clients and files


def test_closing_a_collection_leaves_the_clients_of_others_open(file, filled, client, name):
    theirs = MilvusCollection(client, name, vector="vector")
    ours = open_collection(parse_address(f"milvus+lite://{file}/{name}?vector=vector"))
    keys, vectors = scan_all(ours, 1000)
    write(ours, keys, turned(vectors), vectors)
    ours.close()
    ours.close()
    theirs.close()
    again = MilvusCollection(client, name, vector="vector")
    assert (scan_all(again, 1000)[1] == turned(vectors)).all()


def test_a_database_that_was_closed_opens_with_its_collections_loaded(tmp_path):
    address = parse_address(f"milvus+lite://{tmp_path}/again.db/docs?vector=vector")
    fixture = open_fixture(address, example_rows([1, 2, 3], WIDTH), Metric.EUCLID)
    fixture.close()
    server_manager_instance.release_server(str(tmp_path / "again.db"))
    collection = open_collection(address)
    assert (collection.count(), len(scan_all(collection, 2)[0])) == (3, 3)
    collection.close()


SERVE = """
import sys
from pymilvus import MilvusClient
client = MilvusClient(sys.argv[1])
print(client._config.address, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Another process with a database of its own open: its file, its address and the process."""
    held = tmp_path_factory.mktemp("held") / "held.db"
    with subprocess.Popen([sys.executable, "-c", SERVE, held], stdin=-1, stdout=-1, text=True) as process:
        yield held, process.stdout.readline().strip(), process
        process.communicate()


def test_a_database_that_another_process_holds_cannot_be_reached(elsewhere):
    with pytest.raises(Unreachable, match=r"cannot open .*held\.db; if another process has it open"):
        open_collection(parse_address(f"milvus+lite://{elsewhere[0]}/docs"))


def test_a_fixture_never_fills_a_collection_that_exists(file, filled, name):
    with pytest.raises(BadOption, match="exists already"):
        open_fixture(parse_address(f"milvus+lite://{file}/{name}"), example_rows([1], WIDTH), Metric.COSINE)
    assert len(filled.read()) == 30


def test_the_back_door_tells_all_of_a_row(filled):
    rows = example_rows(list(range(30)), WIDTH)
    held = filled.read()
    assert [held[str(pk)].payload for pk in rows.ids] == rows.payloads
    assert [held[str(pk)].others["other"] for pk in rows.ids] == rows.others.tolist()
    fields = {field["name"]: field for field in filled.client.describe_collection(filled.name)["fields"]}
    assert {"title", "year"} <= fields.keys()
    assert "nested" not in fields


# Failures


class Status(grpc.RpcError):
    """An RPC error as the channel raises it."""

    def __init__(self, code):
        self.code = lambda: code
        self.details = lambda: "why"


class StartingUp(MilvusException):
    """An error that says it will pass, as clients since 3.0 tell it."""

    retriable = True


def from_itself(exc):
    """The client raises what it caught from itself."""
    exc.__cause__ = exc
    return exc


def masked(cause):
    """The client hides a wrong password behind a failure to connect."""
    exc = MilvusException(2, "Fail connecting to server")
    exc.__cause__ = cause
    return exc


@pytest.mark.parametrize(
    ("exc", "read", "written"),
    [
        (MilvusException(2, "Fail connecting to server"), Unreachable, Unknown),
        (MilvusException(8, "rate limit exceeded"), Busy, Busy),
        (MilvusException(9, "quota exceeded"), Refused, Refused),
        (MilvusException(101, "collection not loaded"), Busy, Busy),
        (MilvusException(100, "collection not found"), Refused, Refused),
        (MilvusException(65535, "unknown"), Refused, Refused),
        (MilvusException(65535, "proxy TaskCondition context Done"), Unreachable, Unknown),
        (StartingUp(1, "not ready"), Busy, Busy),
        (MilvusException(grpc.StatusCode.UNAVAILABLE, "Retry timeout: 30s"), Unreachable, Unknown),
        (Status(grpc.StatusCode.DEADLINE_EXCEEDED), Unreachable, Unknown),
        (from_itself(Status(grpc.StatusCode.UNAVAILABLE)), Unreachable, Unknown),
        (Status(grpc.StatusCode.RESOURCE_EXHAUSTED), TooLarge, TooLarge),
        (Status(grpc.StatusCode.PERMISSION_DENIED), Refused, Refused),
        (masked(Status(grpc.StatusCode.UNAUTHENTICATED)), Refused, Refused),
        (grpc.RpcError(), Unreachable, Unknown),
    ],
)
def test_a_failure_says_whether_anything_may_have_been_written(exc, read, written):
    for doing, kind in ((reading, read), (writing, written)):
        with pytest.raises(EngineError, match=f"^{doing.__name__} docs: ") as raised, doing("docs"):
            raise exc
        assert type(raised.value) is kind
        assert raised.value.__cause__ is exc


@contextmanager
def frozen(process):
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)  # until it stands still
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def test_no_answer_in_time_is_unknown_for_a_write_and_unreachable_for_a_read(elsewhere):
    _, address, process = elsewhere
    fixture = open_fixture(parse_address(f"milvus://{address}/slow"), example_rows([1], WIDTH), Metric.DOT)
    hasty = MilvusCollection(fixture.client, "slow", vector="vector", timeout=0.3)
    _, vectors = scan_all(hasty, 10)
    with frozen(process):
        with pytest.raises(Unreachable, match="DEADLINE_EXCEEDED"):
            hasty.scan(None, 10)
        with pytest.raises(Unknown, match="DEADLINE_EXCEEDED"):
            hasty._table.replace("_default", {1: vectors[0]})
    assert (
        fixture.collection.traits.identity
        == f"milvus://localhost:{address.rpartition(':')[2]}/default/slow?vector=vector"
    )
    fixture.close()


def test_a_connection_that_breaks_is_unknown_for_a_write_and_unreachable_for_a_read(tmp_path):
    address = parse_address(f"milvus+lite://{tmp_path}/gone.db/docs")
    fixture = open_fixture(address, example_rows([1], WIDTH), Metric.DOT)
    hasty = MilvusCollection(fixture.client, "docs", vector="vector", timeout=0.2)
    _, vectors = scan_all(hasty, 10)
    server_manager_instance.release_server(str(tmp_path / "gone.db"))
    with pytest.raises(Unreachable):
        hasty.scan(None, 10)
    with pytest.raises(Unknown):
        hasty._table.replace("_default", {1: vectors[0]})
    fixture.close()


def test_a_server_that_does_not_answer_is_given_up_and_the_token_kept_secret(monkeypatch):
    monkeypatch.setenv("MILVUS_TOKEN", "hunter2")
    monkeypatch.setenv("NUDGE_VDB_PATIENCE", "0")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(Unreachable, match=f"127.0.0.1:{port}") as raised:
            open_collection(parse_address(f"milvus://127.0.0.1:{port}/docs?timeout=0.2"))
    assert "hunter2" not in f"{raised.value!r} {raised.value.__cause__}"


@pytest.mark.parametrize(
    ("text", "name", "merges"),
    [
        ("milvus_lite-3.2.2", "Milvus Lite 3.2.2", True),
        ("v2.3.5-lite", "Milvus 2.3.5", False),
        ("v2.6.1", "Milvus 2.6.1", False),
        ("2.6.2", "Milvus 2.6.2", True),
        ("v3.0.0-beta", "Milvus 3.0.0", True),
        ("v2.10.0", "Milvus 2.10.0", True),
    ],
)
def test_only_an_engine_known_to_merge_is_sent_a_part_of_a_row(text, name, merges):
    release = parse_release(text)
    assert (str(release), release.merges) == (name, merges)
