"""Collections in strict mode: what is limited is done in portions, what is counted is waited for."""

import time
from types import SimpleNamespace

import pytest
from qdrant_client import QdrantClient, models

import nudge_vdb
from integration.test_qdrant_cluster import judged
from integration.test_qdrant_server import name_of
from nudge_vdb.backends import connect, fill
from nudge_vdb.contract import Metric, Outcome
from nudge_vdb.errors import Busy, TooLarge
from nudge_vdb.retry import Patient
from nudge_vdb.testing import example_rows
from nudge_vdb.testing.kit import scan_all, turned


@pytest.fixture
def waited(monkeypatch):
    """Note how long each wait is."""
    pauses, sleep = [], time.sleep
    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=lambda pause: (pauses.append(pause), sleep(pause))))
    return pauses


GRPC = pytest.mark.parametrize("options", [{}, {"grpc_port": "1"}], ids=["grpc", "rest"])


@pytest.fixture
def client(qdrant):
    client = QdrantClient(url=qdrant.url, check_compatibility=False)
    yield client
    client.close()


@pytest.fixture
def limited(qdrant, client, tmp_path):
    """Fill a collection, limit it, and open it."""
    rows, opened = example_rows(list(range(60)), 8), []

    def make(options, **limits):
        name = name_of(tmp_path)
        fill(qdrant.address(name, vector="v"), rows, Metric.DOT).close()
        client.update_collection(name, strict_mode_config=models.StrictModeConfig(enabled=True, **limits))
        opened.append(connect(qdrant.address(name, vector="v", **options)))
        return opened[0]

    yield make
    for collection in opened:
        collection.close()


@GRPC
def test_limits_on_the_size_of_pages_and_batches_are_kept(limited, options):
    collection = Patient(limited(options, max_query_limit=10, upsert_max_batchsize=10))
    keys, before = scan_all(collection, 1000)
    assert len(keys) == 60
    assert collection.write(keys, turned(before), before) == [Outcome.WRITTEN] * 60
    assert (scan_all(collection, 1000)[1] == turned(before)).all()


@GRPC
def test_a_limit_on_reads_lets_a_collection_be_read_by_few_of_them(limited, options):
    """Getting 60 points by id would count 60 times, and never pass."""
    collection = limited(options, read_rate_limit=5)
    keys, before = scan_all(collection, 1000)
    out = before.copy()
    assert collection.fetch(keys, out).all()
    assert (out == before).all()
    assert collection.locate(["3", "no"])[0] == keys[3]


@GRPC
def test_a_collection_that_has_been_read_too_often_says_how_long_to_wait(limited, options):
    collection = limited(options, read_rate_limit=3)
    for _ in range(3):
        collection.scan(None, 10)
    with pytest.raises(Busy) as busy:
        collection.scan(None, 10)
    assert 0 < busy.value.retry_after <= 60


@GRPC
def test_a_collection_that_has_been_written_too_often_says_how_long_to_wait(limited, options):
    collection = limited(options, write_rate_limit=40)
    keys, before = scan_all(collection, 1000)
    with pytest.raises(TooLarge, match="at most 40"):
        collection.write(keys, turned(before), before)
    collection.write(keys[:40], turned(before)[:40], before[:40])
    with pytest.raises(Busy) as busy:
        collection.write(keys[40:], turned(before)[40:], before[40:])
    assert 0 < busy.value.retry_after <= 60


@GRPC
def test_a_rate_that_was_limited_after_opening_is_met_in_portions(limited, client, options):
    collection = limited(options)
    keys, before = scan_all(collection, 1000)
    strict = models.StrictModeConfig(enabled=True, write_rate_limit=40, read_rate_limit=40)
    client.update_collection(collection._name, strict_mode_config=strict)
    with pytest.raises(TooLarge, match="split your request"):
        collection.fetch(keys, before.copy())


def test_a_collection_whose_rates_are_used_up_is_tuned_to_the_end_and_undone(limited, client, tmp_path, waited):
    rows = example_rows(list(range(60)), 8)
    collection = limited({}, write_rate_limit=600, read_rate_limit=600)
    before = scan_all(collection, 1000)[1]
    same = [models.PointVectors(id=place % 60, vector={"v": rows.vectors[place % 60].tolist()}) for place in range(600)]
    client.update_vectors(collection._name, same)
    client.retrieve(collection._name, [0] * 590)
    plan = nudge_vdb.plan(collection, judged(rows, 50), state=tmp_path, step=0.3)
    assert nudge_vdb.apply(plan, force=True).written == 50
    assert nudge_vdb.rollback(collection, to=0, state=tmp_path).written == 50
    assert sum(waited) > 1
    assert (scan_all(collection, 1000)[1] == before).all()
