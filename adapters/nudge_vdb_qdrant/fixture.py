"""Collections to try things on, with a back door that goes round the adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models

from nudge_vdb.address import Address
from nudge_vdb.contract import Metric, RowKey, Rows, StoredRow, Vectors
from nudge_vdb.errors import BadOption
from nudge_vdb_qdrant.collection import QdrantCollection
from nudge_vdb_qdrant.keys import ShardKey, parsed_id
from nudge_vdb_qdrant.opening import open_client, open_folder
from nudge_vdb_qdrant.scope import EVERYTHING, Scope, scope_of

DISTANCES = {
    Metric.COSINE: models.Distance.COSINE,
    Metric.DOT: models.Distance.DOT,
    Metric.EUCLID: models.Distance.EUCLID,
}
OTHER = "other"
AT_ONCE = 500
PATIENCE = 60
"""Seconds that the nodes of a cluster may take to agree on a new collection."""


def open_fixture(address: Address, rows: Rows, metric: Metric) -> QdrantFixture:
    """Create the collection at *address* and fill it with *rows*.

    With ``?vector=name`` the vectors are named and the rows' other vectors stand beside them; without, the vectors
    are unnamed and the others are kept as sparse ones. With ``?where=key:value`` the payload of every row says so too.

    Raises:
        BadOption: the collection exists.
    """
    if address.transport == "local":
        Path(address.file).mkdir(parents=True, exist_ok=True)
        return laid_out(open_folder(address.file), address, rows, metric)
    return laid_out(open_client(address), address, rows, metric)


def laid_out(
    client: QdrantClient,
    address: Address,
    rows: Rows,
    metric: Metric,
    datatype: models.Datatype | None = None,
    shard_keys: Sequence[str] = (),
    **layout: Any,  # noqa: ANN401 - whatever a collection can be created with
) -> QdrantFixture:
    """Create and fill a collection like :func:`open_fixture`, with more of a say in how it is laid out.

    With *shard_keys*, users spread the rows: ids are texts, ``shard key/point id``, unless the address names one.
    """
    if client.collection_exists(address.collection):
        client.close()
        raise BadOption(f"the collection {address.collection!r} exists already; choose another name")
    name = address.option("vector") or ""
    dense = models.VectorParams(size=rows.vectors.shape[1], distance=DISTANCES[metric], datatype=datatype)
    client.create_collection(address.collection, timeout=PATIENCE, **_layout(name, rows, dense), **layout)
    for shard_key in shard_keys:
        client.create_shard_key(address.collection, shard_key, timeout=PATIENCE)
    fixture = QdrantFixture(client, address.collection, name, scope_of(address), address.option("shard_key"))
    fixture.insert(rows)
    return fixture


class QdrantFixture:
    """A collection of one dense vector, and perhaps another, through a client of its own."""

    def __init__(
        self,
        client: QdrantClient,
        name: str,
        vector: str,
        scope: Scope = EVERYTHING,
        shard_key: str | None = None,
    ) -> None:
        self._client, self._name, self._vector = client, name, vector
        self._scope, self._shard_key = scope, shard_key
        self.collection = QdrantCollection(client, name, vector, scope=scope, shard_key=shard_key)

    def read(self) -> dict[str, StoredRow]:
        """Scroll through everything within the scope."""
        named = not self._shard_key
        stored: dict[str, StoredRow] = {}
        for shard_key in self.collection.shard_keys:
            before = f"{shard_key}/" if named and shard_key is not None else ""
            stored |= {f"{before}{record.id}": self._stored(record) for record in self._records(shard_key)}
        return stored

    def insert(self, rows: Rows) -> None:
        """Upsert rows."""
        self._upsert(rows, self._scope.values)

    @property
    def surround(self) -> Callable[[Rows], None]:
        """Upserts rows whose payload does not say that they are of the scope; there is none such for other scopes.

        Raises:
            AttributeError: the scope is no matter of values in the payload.
        """
        if not self._scope.values:
            raise AttributeError("surround")
        return lambda rows: self._upsert(rows, {})

    def reopen(self) -> QdrantCollection:
        """Return another collection through the same client: a folder of local mode is one client's alone."""
        return QdrantCollection(self._client, self._name, self._vector, scope=self._scope, shard_key=self._shard_key)

    def interpose(self, act: Callable[[], None]) -> None:
        """Act when the next write has looked at its rows, and is about to update them."""
        shards = self.collection._shards
        update = shards.update

        def acted(keys: Sequence[RowKey], vectors: Vectors) -> Any:  # noqa: ANN401 - as what it stands for
            shards.update = update  # type: ignore[method-assign]
            act()
            return update(keys, vectors)

        shards.update = acted  # type: ignore[method-assign]

    def _upsert(self, rows: Rows, values: Mapping[str, Any]) -> None:
        for shard_key, places in self._parted(rows.ids).items():
            for first in range(0, len(places), AT_ONCE):
                points = [self._point(rows, place, values) for place in places[first : first + AT_ONCE]]
                self._client.upsert(self._name, points, wait=True, shard_key_selector=shard_key)

    def re_embed(self, ids: Sequence[int] | Sequence[str], vectors: Vectors) -> None:
        """Update vectors."""
        for shard_key, places in self._parted(ids).items():
            points = [
                models.PointVectors(id=_point_id(ids[place]), vector=self._named(vectors[place].tolist()))
                for place in places
            ]
            self._client.update_vectors(self._name, points, wait=True, shard_key_selector=shard_key)

    def delete(self, ids: Sequence[int] | Sequence[str]) -> None:
        """Delete points."""
        for shard_key, places in self._parted(ids).items():
            points = models.PointIdsList(points=[_point_id(ids[place]) for place in places])
            self._client.delete(self._name, points, wait=True, shard_key_selector=shard_key)

    def close(self) -> None:
        """Close the client."""
        self._client.close()

    def _parted(self, ids: Sequence[int] | Sequence[str]) -> dict[str | None, list[int]]:
        """Return the places of *ids* by the shard key that each is under."""
        parts: dict[str | None, list[int]] = {}
        for place, name in enumerate(ids):
            shard_key = str(name).rpartition("/")[0] or None
            parts.setdefault(self._shard_key or shard_key, []).append(place)
        return parts

    def _records(self, shard_key: ShardKey | None) -> Iterator[models.Record]:
        offset: Any = None
        while True:
            records, offset = self._client.scroll(
                self._name,
                scroll_filter=self._scope.filter,
                limit=AT_ONCE,
                offset=offset,
                with_payload=True,
                with_vectors=True,
                shard_key_selector=shard_key,
            )
            yield from records
            if offset is None:
                return

    def _point(self, rows: Rows, place: int, values: Mapping[str, Any]) -> models.PointStruct:
        vector: Any = {}
        if not np.isnan(rows.vectors[place]).all():
            vector[self._vector] = rows.vectors[place].tolist()
        if rows.others is not None:
            vector[OTHER] = _other(rows.others[place], sparse=not self._vector)
        payload = {**rows.payloads[place], **values}
        return models.PointStruct(id=_point_id(rows.ids[place]), vector=vector, payload=payload)

    def _named(self, vector: list[float]) -> Any:  # noqa: ANN401 - the client's union of vector types
        return {self._vector: vector} if self._vector else vector

    def _stored(self, record: models.Record) -> StoredRow:
        held: Any = record.vector if isinstance(record.vector, Mapping) else {"": record.vector}
        others = {name: _numbers(vector) for name, vector in held.items() if name != self._vector}
        return StoredRow(held.get(self._vector), record.payload or {}, others)


def _layout(name: str, rows: Rows, dense: models.VectorParams) -> dict[str, Any]:
    if rows.others is None:
        return {"vectors_config": {name: dense} if name else dense}
    if not name:
        return {"vectors_config": dense, "sparse_vectors_config": {OTHER: models.SparseVectorParams()}}
    other = models.VectorParams(size=rows.others.shape[1], distance=models.Distance.DOT)
    return {"vectors_config": {name: dense, OTHER: other}}


def _point_id(name: int | str) -> int | str:
    """Return the point id in a row id that may name a shard key."""
    point = parsed_id(str(name).rpartition("/")[2])
    if point is None:
        raise BadOption(f"{name!r} is no id that Qdrant takes; give an integer from 0 to 2^64 - 1, or a UUID")
    return point


def _other(vector: Vectors, *, sparse: bool) -> Any:  # noqa: ANN401 - the client's union of vector types
    if sparse:
        return models.SparseVector(indices=list(range(len(vector))), values=vector.tolist())
    return vector.tolist()


def _numbers(vector: Any) -> list[float]:  # noqa: ANN401 - the client's union of vector types
    return [*vector.indices, *vector.values] if isinstance(vector, models.SparseVector) else list(vector)
