"""What the diagnosis of a collection on a Qdrant server says."""

import os
import re
import signal
from contextlib import closing

import numpy as np
import pytest
from google.protobuf.internal import api_implementation
from qdrant_client import QdrantClient, models

from integration.engines import for_tests, free_ports, own_name, qdrant_server
from nudge_vdb.backends import connect, fill
from nudge_vdb.contract import Ability, Metric, Remark, Weight
from nudge_vdb.testing import example_rows
from nudge_vdb_qdrant.notes import keeps_notes
from nudge_vdb_qdrant.replicas import replica_remarks


@pytest.fixture
def articles(qdrant, tmp_path):
    """Thirty rows: the server, their address and their back door."""
    address = qdrant.address(own_name(tmp_path.name), vector="v")
    fixture = fill(address, example_rows(list(range(30)), 8), Metric.DOT)
    yield address, fixture
    fixture.close()


def remarks(address: str, topic: str) -> list[Remark]:
    with closing(connect(address)) as collection:
        return [remark for remark in collection.diagnose() if remark.topic == topic]


def test_a_sound_collection_gets_no_warning(articles):
    with closing(connect(articles[0])) as collection:
        found = collection.diagnose()
    assert {remark.weight for remark in found} == {Weight.FINE}
    topics = {"engine", "reading", "writing", "notes", "permissions", "index", "limits", "replicas"}
    assert {remark.topic for remark in found} == topics
    assert all(remark.text.endswith(".") for remark in found)


def test_reading_by_rest_and_by_a_slow_protobuf_are_warnings(articles, monkeypatch):
    by_rest = re.sub(r"grpc_port=\d+", "grpc_port=1", articles[0])
    (remark,) = remarks(by_rest, "reading")
    assert remark.weight is Weight.WARNING
    assert "REST, three to four times slower" in remark.text
    monkeypatch.setattr(api_implementation, "Type", lambda: "python")
    (remark,) = remarks(articles[0], "reading")
    assert remark.weight is Weight.WARNING
    assert "pure Python" in remark.text


def test_limits_of_strict_mode_are_listed_and_those_on_the_rate_are_a_warning(articles):
    address, fixture = articles
    client, name = fixture._client, fixture._name
    strict = models.StrictModeConfig(enabled=True, max_query_limit=10, upsert_max_batchsize=20)
    client.update_collection(name, strict_mode_config=strict)
    (remark,) = remarks(address, "limits")
    assert remark == Remark("limits", "Strict mode is on: max_query_limit=10, upsert_max_batchsize=20.")
    assert "at most 20 points at a time" in remarks(address, "writing")[0].text
    client.update_collection(name, strict_mode_config=models.StrictModeConfig(enabled=True, write_rate_limit=1000))
    (remark,) = remarks(address, "limits")
    assert remark.weight is Weight.WARNING
    assert "write_rate_limit=1000" in remark.text


def test_quantization_is_told(articles):
    address, fixture = articles
    scalar = models.ScalarQuantization(scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8))
    fixture._client.update_collection(fixture._name, quantization_config=scalar)
    assert any("scalar quantization" in remark.text for remark in remarks(address, "index"))


def test_a_collection_whose_optimisation_waits_after_a_crash_gets_a_warning_and_is_not_waited_for(tmp_path):
    ports = free_ports(2)
    with for_tests(qdrant_server(tmp_path / "server", ports=ports)) as server:
        vectors = np.random.default_rng(0).normal(size=(3000, 256)).tolist()
        with closing(QdrantClient(url=server.url, check_compatibility=False)) as client:
            soon = models.OptimizersConfigDiff(indexing_threshold=1)
            params = models.VectorParams(size=256, distance=models.Distance.DOT)
            client.create_collection("rows", vectors_config=params, optimizers_config=soon)
            client.upsert("rows", models.Batch(ids=list(range(3000)), vectors=vectors), wait=True)
        os.kill(server.process, signal.SIGKILL)
    with for_tests(qdrant_server(tmp_path / "server", ports=ports)) as server:
        (remark,) = remarks(server.address("rows"), "index")
        assert remark.weight is Weight.WARNING
        assert remark.text.startswith("Grey: ")
        assert "any write starts it" in remark.text


@pytest.mark.parametrize(
    ("engine", "kept"),
    [("Qdrant 1.15.5", False), ("Qdrant 1.16.0", True), ("Qdrant 2.0.0", True), ("Qdrant 1.9.0", False)],
)
def test_notes_are_claimed_from_the_first_server_that_keeps_them(engine, kept):
    assert keeps_notes(engine) is kept


def test_notes_are_shared_by_all_fields_and_scopes_and_leave_other_metadata_alone(articles):
    address, fixture = articles
    fixture._client.update_collection(fixture._name, metadata={"owner": "us", "nudge_vdb/n": {"not": "ours"}})
    with closing(connect(address)) as collection, closing(connect(f"{address}&where=year:1901")) as part:
        assert Ability.NOTES in collection.traits.abilities
        assert collection.leave_note("nudge_vdb/live", "3")
        assert dict(part.notes()) == {"nudge_vdb/live": "3"}
        assert part.leave_note("nudge_vdb/live", "")
        assert dict(collection.notes()) == {}
    held = fixture._client.get_collection(fixture._name).config.metadata
    assert held == {"owner": "us", "nudge_vdb/n": {"not": "ours"}}


def cluster(*states: models.ReplicaState, transfers: int = 0) -> models.CollectionClusterInfo:
    here, there = states[:1], states[1:]
    move = models.ShardTransferInfo(shard_id=0, **{"from": 1, "to": 2}, sync=True)
    return models.CollectionClusterInfo(
        peer_id=1,
        shard_count=1,
        local_shards=[models.LocalShardInfo(shard_id=0, points_count=1, state=state) for state in here],
        remote_shards=[models.RemoteShardInfo(shard_id=0, peer_id=2, state=state) for state in there],
        shard_transfers=[move] * transfers,
    )


@pytest.mark.parametrize(
    ("factor", "found", "words"),
    [
        (1, cluster(models.ReplicaState.ACTIVE, models.ReplicaState.DEAD), "shard 0 on 2: Dead"),
        (1, cluster(models.ReplicaState.ACTIVE, transfers=2), "2 shards are on the move"),
        (2, cluster(models.ReplicaState.ACTIVE), "Write consistency factor 2"),
    ],
)
def test_replicas_that_are_away_or_on_the_move_are_warnings(factor, found, words):
    params = models.CollectionParams(replication_factor=2, shard_number=1, write_consistency_factor=factor)
    told = [remark.text for remark in replica_remarks(params, found) if remark.weight is Weight.WARNING]
    assert len(told) == 1
    assert words in told[0]
