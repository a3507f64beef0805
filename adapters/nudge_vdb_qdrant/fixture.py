"""Collections to try things on, with a back door that goes round the adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from qdrant_client import QdrantClient, models

from nudge_vdb.address import Address
from nudge_vdb.contract import Metric, Rows, StoredRow, Vectors
from nudge_vdb.errors import BadOption
from nudge_vdb_qdrant.collection import QdrantCollection
from nudge_vdb_qdrant.opening import open_client, open_folder
from nudge_vdb_qdrant.scope import EVERYTHING, Scope, scope_of

DISTANCES = {
    Metric.COSINE: models.Distance.COSINE,
    Metric.DOT: models.Distance.DOT,
    Metric.EUCLID: models.Distance.EUCLID,
}
OTHER = "other"
AT_ONCE = 500


def open_fixture(address: Address, rows: Rows, metric: Metric) -> QdrantFixture:
    """Create the collection at *address* and fill it with *rows*.

    With ``?vector=name`` the vectors are named and the rows' other vectors stand beside them; without, the vectors
    are unnamed and the others are kept as sparse ones. With ``?where=key:value`` the payload of every row says so too.

    Raises:
        BadOption: the collection exists.
    """
    if address.transport == "local":
        Path(address.file).mkdir(parents=True, exist_ok=True)
        client = open_folder(address.file)
    else:
        client = open_client(address)
    if client.collection_exists(address.collection):
        client.close()
        raise BadOption(f"the collection {address.collection!r} exists already; choose another name")
    name = address.option("vector") or ""
    client.create_collection(address.collection, **_layout(name, rows, DISTANCES[metric]))
    fixture = QdrantFixture(client, address.collection, name, scope_of(address))
    fixture.insert(rows)
    return fixture


class QdrantFixture:
    """A collection of one dense vector, and perhaps another, through a client of its own."""

    def __init__(self, client: QdrantClient, name: str, vector: str, scope: Scope = EVERYTHING) -> None:
        self._client, self._name, self._vector, self._scope = client, name, vector, scope
        self.collection = QdrantCollection(client, name, vector, scope=scope)

    def read(self) -> dict[str, StoredRow]:
        """Scroll through the scope."""
        stored: dict[str, StoredRow] = {}
        offset: Any = None
        while True:
            records, offset = self._client.scroll(
                self._name, self._scope.filter, AT_ONCE, offset=offset, with_payload=True, with_vectors=True
            )
            stored |= {str(record.id): self._stored(record) for record in records}
            if offset is None:
                return stored

    def insert(self, rows: Rows) -> None:
        """Upsert rows."""
        for first in range(0, len(rows.ids), AT_ONCE):
            places = range(first, min(first + AT_ONCE, len(rows.ids)))
            self._client.upsert(self._name, [self._point(rows, place) for place in places], wait=True)

    def re_embed(self, ids: Sequence[int] | Sequence[str], vectors: Vectors) -> None:
        """Update vectors."""
        points = [
            models.PointVectors(id=name, vector=self._named(vector.tolist()))
            for name, vector in zip(_ids(ids), vectors, strict=True)
        ]
        self._client.update_vectors(self._name, points, wait=True)

    def delete(self, ids: Sequence[int] | Sequence[str]) -> None:
        """Delete points."""
        self._client.delete(self._name, models.PointIdsList(points=_ids(ids)), wait=True)

    def close(self) -> None:
        """Close the client."""
        self._client.close()

    def _point(self, rows: Rows, place: int) -> models.PointStruct:
        vector: Any = {self._vector: rows.vectors[place].tolist()}
        if rows.others is not None:
            vector[OTHER] = _other(rows.others[place], sparse=not self._vector)
        return models.PointStruct(
            id=rows.ids[place], vector=vector, payload={**rows.payloads[place], **self._scope.values}
        )

    def _named(self, vector: list[float]) -> Any:  # noqa: ANN401 - the client's union of vector types
        return {self._vector: vector} if self._vector else vector

    def _stored(self, record: models.Record) -> StoredRow:
        held: Any = record.vector if isinstance(record.vector, Mapping) else {"": record.vector}
        others = {name: _numbers(vector) for name, vector in held.items() if name != self._vector}
        return StoredRow(held.get(self._vector), record.payload or {}, others)


def _layout(name: str, rows: Rows, distance: models.Distance) -> dict[str, Any]:
    dense = models.VectorParams(size=rows.vectors.shape[1], distance=distance)
    if rows.others is None:
        return {"vectors_config": {name: dense} if name else dense}
    if not name:
        return {"vectors_config": dense, "sparse_vectors_config": {OTHER: models.SparseVectorParams()}}
    other = models.VectorParams(size=rows.others.shape[1], distance=models.Distance.DOT)
    return {"vectors_config": {name: dense, OTHER: other}}


def _ids(ids: Sequence[int] | Sequence[str]) -> list[int | str | UUID]:
    return list(ids)


def _other(vector: Vectors, *, sparse: bool) -> Any:  # noqa: ANN401 - the client's union of vector types
    if sparse:
        return models.SparseVector(indices=list(range(len(vector))), values=vector.tolist())
    return vector.tolist()


def _numbers(vector: Any) -> list[float]:  # noqa: ANN401 - the client's union of vector types
    return [*vector.indices, *vector.values] if isinstance(vector, models.SparseVector) else list(vector)
