"""What there is to say of the shards of a collection and their replicas."""

from __future__ import annotations

from qdrant_client import models

from nudge_vdb.contract import Remark, Weight

TOPIC = "replicas"


def replica_remarks(params: models.CollectionParams, cluster: models.CollectionClusterInfo) -> list[Remark]:
    """Return what layout and state of the shards mean for a run."""
    return [_layout(params), *_consistency(params), *_away(cluster), *_moving(cluster)]


def _layout(params: models.CollectionParams) -> Remark:
    shards, copies = params.shard_number or 1, params.replication_factor or 1
    return Remark(TOPIC, f"Shards: {shards}; replicas of each: {copies}.")


def _consistency(params: models.CollectionParams) -> list[Remark]:
    factor = params.write_consistency_factor or 1
    if factor < 2:
        return []
    told = (
        f"Write consistency factor {factor}: a write while a node is away fails and yet reaches the others; it is sent "
        "again until all agree, so bring every node up first."
    )
    return [Remark(TOPIC, told, Weight.WARNING)]


def _away(cluster: models.CollectionClusterInfo) -> list[Remark]:
    held = [(shard.shard_id, cluster.peer_id, shard.state) for shard in cluster.local_shards]
    held += [(shard.shard_id, shard.peer_id, shard.state) for shard in cluster.remote_shards]
    away = [f"shard {shard} on {peer}: {state.value}" for shard, peer, state in held if state.value != "Active"]
    if not away:
        return []
    told = (
        f"Not every replica is active ({'; '.join(away)}): wait until they are, else reads may miss what was written."
    )
    return [Remark(TOPIC, told, Weight.WARNING)]


def _moving(cluster: models.CollectionClusterInfo) -> list[Remark]:
    moves = len(cluster.shard_transfers) + len(cluster.resharding_operations or [])
    if not moves:
        return []
    return [Remark(TOPIC, f"{moves} shards are on the move: wait until they have arrived.", Weight.WARNING)]
