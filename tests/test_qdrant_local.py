"""The contract over Qdrant's local mode, and what only Qdrant has."""

import gc
import sqlite3
import warnings
from uuid import UUID

import httpx
import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from nudge_vdb.backends import connect, fill
from nudge_vdb.contract import Fixture, Metric, Outcome, Rows, agree
from nudge_vdb.errors import BadAddress, Busy, Refused, TooLarge, UnfitCollection, Unknown, Unreachable
from nudge_vdb.testing import CollectionContract, example_rows
from nudge_vdb.testing.kit import scan_all
from nudge_vdb_qdrant import QdrantCollection
from nudge_vdb_qdrant.failures import reading, writing
from nudge_vdb_qdrant.keys import id_of, key_of, parsed_id, prefix_of, shard_key_of, shard_prefix
from nudge_vdb_qdrant.naming import place_of

UUIDS = [str(UUID(int=(number * 0x9E3779B97F4A7C15F39CC0605CEDC835) % 2**128)) for number in range(1, 41)]


class TestUnnamedCosine(CollectionContract):
    vector = ""

    def open_filled(self, rows: Rows, metric: Metric, tmp_path) -> Fixture:
        query = f"?vector={self.vector}" if self.vector else ""
        return fill(f"qdrant+local://{tmp_path}/db/articles{query}", rows, metric)

    @pytest.mark.xfail(strict=True, reason="Qdrant cannot compare and replace in one request; docs/engines.md")
    def test_a_vector_that_is_changed_between_look_and_write_is_left_alone(self, fixture):
        super().test_a_vector_that_is_changed_between_look_and_write_is_left_alone(fixture)


class TestUnnamedDot(TestUnnamedCosine):
    metric = Metric.DOT
    many = 0


class TestUnnamedEuclid(TestUnnamedCosine):
    metric = Metric.EUCLID
    many = 0


class TestNamedCosine(TestUnnamedCosine):
    vector = "title"
    many = 0


class TestNamedDot(TestNamedCosine):
    metric = Metric.DOT


class TestNamedEuclid(TestNamedCosine):
    metric = Metric.EUCLID


class TestUuids(TestNamedCosine):
    ids = UUIDS
    more_ids = ["ffffffff-ffff-ffff-ffff-ffffffffffff"]


class TestIntegersAndUuidsTogether(TestNamedCosine):
    ids = [0, 2**63, 2**64 - 1, *UUIDS]
    more_ids = [7, "00000000-0000-0000-0000-000000000000"]


def test_a_cosine_row_reads_the_same_before_and_after_the_folder_is_reopened(tmp_path):
    """Local mode scales what it is sent only in memory: after a restart it hands out the rows as they came."""
    address = f"qdrant+local://{tmp_path}/db/articles"
    rows = example_rows(list(range(20)), 8)
    fixture = fill(address, rows, Metric.COSINE)
    before = scan_all(fixture.collection, 100)[1]
    fixture.close()
    collection = connect(address)
    assert agree(scan_all(collection, 100)[1], before, collection.traits.tolerance).all()
    collection.close()


@pytest.fixture
def client(tmp_path):
    client = QdrantClient(path=str(tmp_path / "db"))
    yield client
    client.close()


def dense(size=4, distance=models.Distance.COSINE, **more):
    return models.VectorParams(size=size, distance=distance, **more)


@pytest.mark.parametrize(
    ("config", "vector", "words"),
    [
        ({"vectors_config": {"a": dense(), "b": dense()}}, None, "choose one with \\?vector=NAME: a, b"),
        ({"vectors_config": {"a": dense()}}, "b", "no vector 'b'; its dense vectors: a"),
        ({"vectors_config": dense()}, "b", "no vector 'b'; its dense vectors: '' \\(the unnamed one\\)"),
        (
            {"vectors_config": {"a": dense()}, "sparse_vectors_config": {"s": models.SparseVectorParams()}},
            "s",
            "sparse",
        ),
        ({"vectors_config": {}, "sparse_vectors_config": {"s": models.SparseVectorParams()}}, None, "only sparse"),
        ({"vectors_config": dense(distance=models.Distance.MANHATTAN)}, None, "Manhattan; expected one of Cosine"),
        ({"vectors_config": dense(datatype=models.Datatype.UINT8)}, None, "uint8; only float32 and float16"),
        (
            {
                "vectors_config": dense(
                    multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
                )
            },
            None,
            "several vectors per row",
        ),
    ],
)
def test_a_field_that_cannot_be_tuned_is_refused_with_what_there_is(client, config, vector, words):
    client.create_collection("articles", **config)
    with pytest.raises(UnfitCollection, match=words):
        QdrantCollection(client, "articles", vector)


def test_a_collection_that_is_not_there_is_refused_with_those_that_are(client):
    client.create_collection("articles", vectors_config=dense())
    with pytest.raises(UnfitCollection, match="'books'; there are: articles"):
        QdrantCollection(client, "books")


def test_an_alias_is_the_collection_it_stands_for(client):
    client.create_collection("articles", vectors_config=dense())
    client.update_collection_aliases(
        [models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name="articles", alias_name="live"))]
    )
    assert QdrantCollection(client, "live").traits == QdrantCollection(client, "articles").traits


def test_rows_without_the_vector_are_marked_and_never_given_one(client):
    client.create_collection("articles", vectors_config={"a": dense(), "b": dense()})
    client.upsert(
        "articles",
        [
            models.PointStruct(id=1, vector={"a": [1.0, 0, 0, 0], "b": [0, 1.0, 0, 0]}),
            models.PointStruct(id=2, vector={"b": [0, 1.0, 0, 0]}),
        ],
    )
    collection = QdrantCollection(client, "articles", "a")
    page = collection.scan(None, 10)
    assert page.absent.tolist() == [False, True]
    target = np.eye(4, dtype=np.float32)[[2, 2]]
    assert collection.write(list(page.keys), target, page.vectors) == [Outcome.WRITTEN, Outcome.MISSING]
    points, _ = client.scroll("articles", with_vectors=True)
    assert "a" not in points[1].vector


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 0.0, 1e20])
def test_what_would_not_be_held_as_sent_is_refused_before_anything_is_written(client, wrong):
    client.create_collection("articles", vectors_config=dense())
    before = np.eye(4, dtype=np.float32)
    client.upsert("articles", [models.PointStruct(id=number, vector=before[number].tolist()) for number in range(4)])
    collection = QdrantCollection(client, "articles")
    keys = collection.scan(None, 10).keys
    target = before[::-1].copy()
    target[2] = wrong
    with pytest.raises(Refused, match="expected"):
        collection.write(keys, target, before)
    assert (collection.scan(None, 10).vectors == before).all()


def test_a_folder_open_in_another_client_is_unreachable_and_says_why(client, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the client forgets to close a file that it could not lock
        with pytest.raises(Unreachable, match="open in another process"):
            connect(f"qdrant+local://{tmp_path}/db/articles")
        gc.collect()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("qdrant+ftp://host/articles", "qdrant\\+ftp is not known"),
        ("qdrant+local:///nowhere/articles", "no folder of Qdrant's local mode"),
        (
            "qdrant+local:///nowhere/articles?colour=red",
            "no option colour; known: vector, where, filter, shard_key, timeout",
        ),
        ("qdrant:///articles", "names a host"),
    ],
)
def test_an_address_that_leads_nowhere_is_refused(address, words):
    with pytest.raises(BadAddress, match=words):
        connect(address)


def test_a_point_that_vanishes_during_the_write_leaves_the_others_unknown(client, monkeypatch):
    """Part of the batch was applied, nobody knows which: the caller must read back."""
    client.create_collection("articles", vectors_config=dense())
    vectors = np.eye(4, dtype=np.float32)
    client.upsert("articles", [models.PointStruct(id=number, vector=vectors[number].tolist()) for number in range(4)])
    collection = QdrantCollection(client, "articles")
    keys = collection.scan(None, 10).keys
    update = client.update_vectors

    def deleted_first(*arguments, **options):
        client.delete("articles", [2])
        return update(*arguments, **options)

    monkeypatch.setattr(client, "update_vectors", deleted_first)
    assert collection.write(keys, vectors[::-1].copy(), vectors) == [Outcome.UNKNOWN] * 4
    monkeypatch.undo()
    again = collection.write(keys, vectors[::-1].copy(), vectors)
    assert again == [Outcome.WRITTEN, Outcome.WRITTEN, Outcome.MISSING, Outcome.WRITTEN]
    assert len(client.scroll("articles")[0]) == 3


def answer(status, text="", headers=None):
    return UnexpectedResponse(status, "reason", text.encode(), httpx.Headers(headers or {}))


@pytest.mark.parametrize(
    ("failure", "read", "write"),
    [
        (ResponseHandlingException(httpx.ConnectError("refused")), Unreachable, Unknown),
        (answer(503), Unreachable, Unknown),
        (answer(500), Unreachable, Unknown),
        (answer(401), Refused, Refused),
        (answer(403), Refused, Refused),
        (answer(400, "Wrong input"), Refused, Refused),
        (answer(400, "Payload error: JSON payload (40 bytes) is larger than allowed"), TooLarge, TooLarge),
        (answer(429, "rate limit: split your request"), TooLarge, TooLarge),
        (answer(429), Busy, Busy),
        (ResourceExhaustedResponse("slow down", 7), Busy, Busy),
    ],
)
def test_what_the_client_raises_is_told_apart(failure, read, write):
    for translated, expected in ((reading, read), (writing, write)):
        with pytest.raises(expected) as raised, translated("articles"):
            raise failure
        assert raised.value.__cause__ is failure
    if expected is Busy and isinstance(failure, ResourceExhaustedResponse):
        assert raised.value.retry_after == 7


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("0", 0),
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", None),
        ("007", None),
        ("-1", None),
        ("1.0", None),
        ("²", None),
        ("", None),
        ("936DA01F9ABD4d9d80C702AF85C822A8", "936da01f-9abd-4d9d-80c7-02af85c822a8"),
        ("urn:uuid:936da01f-9abd-4d9d-80c7-02af85c822a8", "936da01f-9abd-4d9d-80c7-02af85c822a8"),
    ],
)
def test_ids_are_read_as_the_engine_spells_them(text, point):
    assert parsed_id(text) == point


def test_keys_sort_as_the_engine_scrolls_and_hold_the_id():
    points = [0, 1, 255, 256, 2**63, 2**64 - 1, *sorted(UUIDS)]
    keys = [key_of(point) for point in points]
    assert keys == sorted(keys)
    assert [id_of(key) for key in keys] == points


@pytest.mark.parametrize("shard_key", [0, 2**64 - 1, "", "a", "a/b", "ü" * 300, "i"])
@pytest.mark.parametrize("point", [0, 2**64 - 1, UUIDS[0]])
def test_a_key_holds_its_shard_key_and_its_id(shard_key, point):
    key = key_of(point, prefix_of(shard_key))
    assert (shard_key_of(shard_prefix(key)), id_of(key)) == (shard_key, point)


def test_a_key_without_a_shard_key_is_as_it_always_was():
    assert (key_of(7), shard_prefix(key_of(7))) == (b"i\0\0\0\0\0\0\0\7", b"")
    assert (key_of(UUIDS[0]), shard_key_of(b"")) == (b"u" + UUID(UUIDS[0]).bytes, None)


PLACES = {
    "qdrant:db.example:6333": [
        {"host": "db.example", "port": 6333},
        {"host": "DB.example.", "port": 6333},
        {"url": "http://db.example:6333/"},
        {"url": "http://db.example:6333//"},
        {"location": "http://db.example"},
        {"host": "db.example", "prefix": "/"},
    ],
    "qdrant:db.example:443/api/v1": [
        {"url": "https://db.example:443/api/v1"},
        {"url": "https://db.example/api/v1/", "port": None},
        {"url": "https://db.example", "port": None, "prefix": "api/v1/"},
        {"host": "db.example", "port": 443, "https": True, "prefix": "/api//v1"},
    ],
    "qdrant:db.example:80": [{"url": "http://db.example", "port": None}, {"host": "db.example", "port": 80}],
    "qdrant:localhost:6333": [{"url": "localhost"}, {"host": "127.0.0.1"}, {"url": "http://[::1]:6333"}],
}


@pytest.mark.parametrize("place", PLACES)
def test_a_server_has_one_name_however_its_client_was_spelled(place):
    for options in PLACES[place]:
        client = QdrantClient(**options, check_compatibility=False)
        assert place_of(client) == place, options
        client.close()


def test_digits_are_an_integer_or_a_uuid_as_the_engine_has_it():
    digits = "10474983846767374479765544369770"
    spelled = str(UUID(digits))
    for text in (digits, spelled, spelled.upper(), f"urn:uuid:{spelled}", f"{{{spelled}}}"):
        assert parsed_id(text) == spelled
    assert parsed_id(str(2**64 - 1)) == 2**64 - 1
    for none in (str(2**64), digits[:31], f"{digits}1", "\u0661" * 32, "1_0" + digits[3:]):
        assert parsed_id(none) is None


DAMAGE = {
    "a database of rubbish": ("storage.sqlite", b"rubbish"),
    "no database but a folder": ("storage.sqlite", None),
    "half of the facts": ("meta.json", b'{"collections": {'),
    "facts of another shape": ("meta.json", b"[1]"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_of_local_mode_is_refused_in_words(tmp_path, damage):
    where = f"qdrant+local://{tmp_path}/db/docs"
    fill(where, Rows([1, 2], np.eye(2, dtype=np.float32), [{}, {}]), Metric.COSINE).close()
    name, content = DAMAGE[damage]
    (file,) = (tmp_path / "db").rglob(name)
    file.unlink()
    file.mkdir() if content is None else file.write_bytes(content)
    with pytest.raises(Refused, match="local mode"):
        connect(where)


@pytest.mark.parametrize(("said", "kind"), [("database is locked", Busy), ("disk I/O error", Refused)])
def test_what_the_file_of_local_mode_says_is_told_in_words(said, kind):
    with pytest.raises(kind, match=said), writing("docs"):
        raise sqlite3.OperationalError(said)
