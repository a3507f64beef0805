"""What is given by mistake is said in words, and an address stands for its collection everywhere."""

import inspect
import warnings
from pathlib import Path

import pytest
from pymilvus import AsyncMilvusClient, MilvusClient
from qdrant_client import AsyncQdrantClient, QdrantClient

import nudge_vdb
from nudge_vdb.backends import MEMBERS
from nudge_vdb.contract import CONTRACT
from nudge_vdb.errors import BackendUnavailable, BadAddress, BadJudgements, BadOption
from nudge_vdb.testing import MemoryCollection
from nudge_vdb_milvus import MilvusCollection
from nudge_vdb_qdrant import QdrantCollection
from tests.conftest import make_world

VERBS = {
    "adopt": {},
    "carry": {},
    "diagnose": {},
    "diff": {"one": 0, "other": 0},
    "evaluate": {"judgements": None},
    "export_map": {"path": "map.npy", "version": 1},
    "history": {},
    "plan": {"judgements": None},
    "prepared": {},
    "prune": {"keep": 1},
    "resume": {},
    "rollback": {"to": 0},
    "status": {},
    "verify": {},
}


async def nobody():
    """Do nothing, as a method of an asynchronous client would."""


def coroutine():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nobody()


WRONG = {
    "nothing": (lambda: None, "a NoneType was given"),
    "a path": (lambda: Path("articles"), "PosixPath was given"),
    "a client": (lambda: QdrantClient(":memory:"), "a QdrantClient was given"),
    "a class": (lambda: MemoryCollection, "the class MemoryCollection, not an object of it"),
    "a number": (lambda: 7, "a int was given"),
    "judgements": (lambda: make_world().train, "a Judgements was given"),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(("make", "words"), WRONG.values(), ids=WRONG)
def test_a_verb_says_what_was_given_in_place_of_a_collection(verb, make, words):
    with pytest.raises(BadOption, match="expected a collection, such as") as refusal:
        getattr(nudge_vdb, verb)(make(), **VERBS[verb])
    assert words in str(refusal.value)


def test_a_coroutine_is_said_to_be_one():
    given = coroutine()
    with pytest.raises(BadOption, match="asynchronous clients cannot be used"):
        nudge_vdb.status(given)
    given.close()


@pytest.mark.parametrize("given", [None, 7, Path("qdrant://h/c"), b"qdrant://h/c", MemoryCollection()])
def test_connect_says_what_was_given_in_place_of_an_address(given):
    with pytest.raises(BadAddress, match=f"a {type(given).__name__} was given; expected an address as text"):
        nudge_vdb.connect(given)


@pytest.mark.parametrize("given", [None, "log.jsonl", [{"query_id": "a"}], {}])
def test_what_is_given_in_place_of_judgements_is_said(given, world, tmp_path):
    calls = [
        lambda: nudge_vdb.plan(world.collection, given or {}, state=tmp_path),
        lambda: nudge_vdb.plan(world.collection, world.train, test=given or {}, state=tmp_path),
        lambda: nudge_vdb.evaluate(world.collection, given or {}, state=tmp_path),
        lambda: nudge_vdb.export_map(world.collection, tmp_path / "m.npy", version=1, test=given or {}, state=tmp_path),
    ]
    for call in calls:
        with pytest.raises(BadJudgements, match="was given; expected judgements, such as"):
            call()


def test_apply_says_what_was_given_in_place_of_a_plan(world):
    with pytest.raises(BadOption, match="a MemoryCollection was given; expected a plan"):
        nudge_vdb.apply(world.collection)


@pytest.mark.parametrize("client", [None, "http://localhost:6333", AsyncQdrantClient])
def test_an_adapter_of_qdrant_says_what_was_given_in_place_of_a_client(client):
    given = client(":memory:") if isinstance(client, type) else client
    with pytest.raises(BadOption, match="expected a QdrantClient"):
        QdrantCollection(given, "articles")


@pytest.mark.parametrize("client", [None, "http://localhost:19530", AsyncMilvusClient])
def test_an_adapter_of_milvus_says_what_was_given_in_place_of_a_client(client):
    given = client.__new__(client) if isinstance(client, type) else client
    with pytest.raises(BadOption, match="expected a MilvusClient"):
        MilvusCollection(given, "articles")


def test_the_client_of_another_engine_is_refused_by_both_adapters():
    with pytest.raises(BadOption, match="a MilvusClient was given; expected a QdrantClient"):
        QdrantCollection(MilvusClient.__new__(MilvusClient), "articles")
    with pytest.raises(BadOption, match="a QdrantClient was given; expected a MilvusClient"):
        MilvusCollection(QdrantClient(":memory:"), "articles")


@pytest.fixture
def opened(world, monkeypatch):
    """Let one address open the collection of the world; return how often it was opened and closed."""
    counted = {"opened": 0, "closed": 0}
    held = world.collection

    class Counted(MemoryCollection):
        def close(self):
            counted["closed"] += 1

    def connect(address):
        assert address == "memory://h/articles"
        counted["opened"] += 1
        return Counted(held.metric, held.width, held.name, engine=held.engine)

    monkeypatch.setattr("nudge_vdb.given.connect", connect)
    return counted


def test_every_verb_takes_an_address_and_closes_what_it_opened(world, opened, tmp_path):
    at, state = "memory://h/articles", {"state": tmp_path}
    plan = nudge_vdb.plan(at, world.train, step=0.3, max_queries=30, **state)
    assert opened == {"opened": 1, "closed": 0}, "a plan needs its collection"
    applied = nudge_vdb.apply(plan, force=True)
    assert applied.written > 0
    assert nudge_vdb.status(at, **state)["live"] == 1
    assert nudge_vdb.verify(at, **state).clean
    assert len(nudge_vdb.history(at, **state)) == 1
    assert nudge_vdb.resume(at, **state) is None
    assert nudge_vdb.evaluate(at, world.train, **state).scores
    assert nudge_vdb.diagnose(at)
    assert nudge_vdb.diff(collection=at, one=0, other=1, **state)
    assert nudge_vdb.rollback(at, to=0, **state).written > 0
    assert opened == {"opened": 9, "closed": 8}


def test_a_verb_that_fails_closes_what_it_opened(opened, tmp_path):
    with pytest.raises(BadOption):
        nudge_vdb.prepared("memory://h/articles", 7, state=tmp_path)
    assert opened == {"opened": 1, "closed": 1}


def test_a_collection_of_a_newer_contract_is_refused_in_words(tmp_path):
    class Newer(MemoryCollection):
        contract = CONTRACT + 1

    with pytest.raises(
        BackendUnavailable, match=f"keeps contract {CONTRACT + 1}, and this nudge-vdb knows contracts up"
    ):
        nudge_vdb.status(Newer(), state=tmp_path)


@pytest.mark.parametrize("member", [name for name in MEMBERS if name != "traits"])
def test_a_collection_that_lacks_a_member_is_refused_before_anything_is_done(member, tmp_path):
    class Held:
        def __getattr__(self, name):
            if name == member or name == "contract":
                raise AttributeError(name)
            return getattr(MemoryCollection(), name)

    with pytest.raises((BackendUnavailable, BadOption)):
        nudge_vdb.status(Held(), state=tmp_path)
    older = type("Older", (), {name: getattr(MemoryCollection, name) for name in MEMBERS if name != member})
    with pytest.raises(
        BackendUnavailable, match=f"Older lacks what contract 1 wants of a collection: {member}; upgrade"
    ):
        nudge_vdb.status(older(), state=tmp_path)


def test_a_collection_without_a_number_is_of_contract_1_and_goes_on_working(world, tmp_path):
    held = world.collection
    names = {name: value for name, value in vars(MemoryCollection).items() if not name.startswith("__")}
    optional = ("contract", "before_move", "after_move")
    old = type("Old", (), {name: value for name, value in names.items() if name not in optional})()
    old.metric, old.width, old.name, old.engine = held.metric, held.width, held.name, held.engine
    plan = nudge_vdb.plan(old, world.train, state=tmp_path, step=0.3, max_queries=30)
    assert [each["topic"] for each in plan.report["advice"]] == ["index"]
    assert nudge_vdb.apply(plan, force=True).written > 0


def test_only_public_names_are_listed():
    assert dir(nudge_vdb) == sorted(nudge_vdb.__all__)
    assert not [name for name in dir(nudge_vdb) if inspect.ismodule(getattr(nudge_vdb, name))]
