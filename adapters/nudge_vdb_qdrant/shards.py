"""The rows of a collection by their keys, whoever spreads them over shards: the engine, or its users.

Where users do, a point id may stand once under each shard key, and every request names the one it means.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from qdrant_client import QdrantClient, models
from qdrant_client.http.models import CollectionInfo

from nudge_vdb.contract import Metric, Outcome, RowKey, Vectors
from nudge_vdb.errors import UnfitCollection
from nudge_vdb_qdrant.failures import reading
from nudge_vdb_qdrant.keys import PointId, ShardKey, id_of, key_of, parsed_id, prefix_of, shard_key_of, shard_prefix
from nudge_vdb_qdrant.points import Points, PointStore, Vanished
from nudge_vdb_qdrant.scope import Scope
from nudge_vdb_qdrant.searching import Effort


def shard_keys_of(
    client: QdrantClient, collection: str, info: CollectionInfo, name: str | None
) -> Sequence[ShardKey | None]:
    """Return the shard keys to work on: the one that reads *name*, else all; None stands for the engine's own shards.

    Raises:
        UnfitCollection: *name* is no shard key of this collection.
    """
    custom = info.config.params.sharding_method is models.ShardingMethod.CUSTOM
    if not custom and name is None:
        return [None]
    known = _known_shard_keys(client, collection) if custom else []
    chosen = [key for key in known if name in (None, str(key))]
    if name is not None and len(chosen) != 1:
        have = ", ".join(map(repr, known)) or "none"
        raise UnfitCollection(f"{collection}: expected one shard key that reads {name}; its shard keys: {have}")
    return chosen


def within(scope: Scope, shard_key: str | None) -> dict[str, str]:
    """Return the conditions of *scope*, and the shard key where it is one, by the names of the options."""
    return scope.conditions | ({} if shard_key is None else {"shard_key": shard_key})


def _known_shard_keys(client: QdrantClient, collection: str) -> list[ShardKey]:
    with reading(collection):
        told = client.collection_cluster_info(collection)
    held = [*(each.shard_key for each in told.local_shards), *(each.shard_key for each in told.remote_shards)]
    return sorted({key for key in held if key is not None}, key=prefix_of)


@dataclass(frozen=True)
class Shard:
    """The points under one shard key, or all those that the engine spreads itself."""

    shard_key: ShardKey | None
    store: PointStore

    @property
    def prefix(self) -> bytes:
        """What the keys of its rows begin with."""
        return prefix_of(self.shard_key)

    def keys(self, points: Sequence[PointId]) -> list[RowKey]:
        """Return the row keys of *points*."""
        return [key_of(point, self.prefix) for point in points]


class Shards:
    """Rows by their keys, in the order of their keys.

    A row id is a point id; where users spread the points and *scope* names no shard key, ``shard key/point id``.
    """

    def __init__(self, stores: Mapping[ShardKey | None, PointStore], scope: str | None) -> None:
        shards = sorted((Shard(*pair) for pair in stores.items()), key=lambda shard: shard.prefix)
        self._shards, self._scope = {shard.prefix: shard for shard in shards}, scope

    def page(self, cursor: str | None, limit: int) -> tuple[list[RowKey], Points | None, str | None]:
        """Return the rows after *cursor*, one shard key after the other, and where to go on."""
        prefix, start = _place(cursor)
        ahead = [shard for shard in self._shards.values() if shard.prefix >= prefix]
        if not ahead:
            return [], None, None
        shard, *others = ahead
        found, following = shard.store.scroll(start if shard.prefix == prefix else None, limit)
        if following is not None:
            return shard.keys(found.ids), found, _cursor(shard.prefix, str(following))
        return shard.keys(found.ids), found, _cursor(others[0].prefix, "") if others else None

    def retrieve(self, keys: Sequence[RowKey]) -> Iterator[tuple[list[RowKey], Points]]:
        """Yield those of *keys* that exist, shard key by shard key."""
        for prefix, some in _parted(keys).items():
            if prefix in self._shards:
                found = self._shards[prefix].store.retrieve([id_of(key) for key in some])
                yield self._shards[prefix].keys(found.ids), found

    def nearest(self, queries: Vectors, k: int, effort: Effort, metric: Metric) -> list[list[RowKey]]:
        """Return the *k* best rows for each query, best first, those of all shard keys together."""
        found: list[list[tuple[float, RowKey]]] = [[] for _ in queries]
        sign = 1.0 if metric is Metric.EUCLID else -1.0
        for shard in self._shards.values():
            for hits, some in zip(found, shard.store.nearest(queries, k, effort), strict=True):
                hits += [(sign * score, key_of(point, shard.prefix)) for score, point in some]
        return [[key for _, key in sorted(hits, key=lambda hit: hit[0])[:k]] for hits in found]

    def locate(self, texts: Sequence[str]) -> list[RowKey | None]:
        """Return the key of each row id, None where there is no such row; a point id alone will do where it is one's.

        A UUID may be spelled in any of its forms.
        """
        found: list[list[RowKey]] = [[] for _ in texts]
        for shard in self._shards.values():
            asked = [self._meant(text, shard) for text in texts]
            wanted = [point for point in asked if point is not None]
            existing = shard.store.existing(wanted) if wanted else set()
            for keys, point in zip(found, asked, strict=True):
                keys += shard.keys([point] if point in existing else [])
        return [keys[0] if len(keys) == 1 else None for keys in found]

    def text_of(self, key: RowKey) -> str:
        """Return the row id; of a point id, decimal, or a UUID in its canonical form."""
        shard_key = shard_key_of(shard_prefix(key))
        return f"{'' if self._plain(shard_key) else f'{shard_key}/'}{id_of(key)}"

    def update(self, keys: Sequence[RowKey], vectors: Vectors) -> list[Outcome]:
        """Replace the vectors of rows, and wait until every reader sees them.

        Where a row of one shard key has vanished, nobody knows which others of that one were written.
        """
        outcomes = dict.fromkeys(keys, Outcome.WRITTEN)
        row = {key: place for place, key in enumerate(keys)}
        for prefix, some in _parted(keys).items():
            try:
                places = [row[key] for key in some]
                self._shards[prefix].store.update([id_of(key) for key in some], vectors[places])
            except Vanished:
                outcomes |= dict.fromkeys(some, Outcome.UNKNOWN)
        return [outcomes[key] for key in keys]

    def _plain(self, shard_key: ShardKey | None) -> bool:
        return shard_key is None or self._scope is not None

    def _meant(self, text: str, shard: Shard) -> PointId | None:
        """Return the point that *text* would mean under *shard*, None if it means none there."""
        before, _, point = text.rpartition("/")
        if before and (self._plain(shard.shard_key) or before != str(shard.shard_key)):
            return None
        return parsed_id(point if before else text)


def _parted(keys: Sequence[RowKey]) -> dict[bytes, list[RowKey]]:
    """Return *keys* by what stands for their shard key."""
    parts: dict[bytes, list[RowKey]] = {}
    for key in keys:
        parts.setdefault(shard_prefix(key), []).append(key)
    return parts


def _cursor(prefix: bytes, point: str) -> str:
    return f"{prefix.hex()}/{point}" if prefix else point


def _place(cursor: str | None) -> tuple[bytes, PointId | None]:
    """Return where *cursor* points to: what stands for a shard key, and a point, None for its first."""
    prefix, _, point = (cursor or "").rpartition("/")
    return bytes.fromhex(prefix), parsed_id(point)
