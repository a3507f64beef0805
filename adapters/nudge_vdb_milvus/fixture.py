"""A Milvus collection with a back door that asks Milvus itself, not the adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pymilvus import CollectionSchema, DataType, MilvusClient

from nudge_vdb.address import Address
from nudge_vdb.contract import Metric, Rows, StoredRow, Vectors
from nudge_vdb.errors import BadOption
from nudge_vdb_milvus import filters
from nudge_vdb_milvus.collection import MilvusCollection
from nudge_vdb_milvus.connection import DEFAULT_TIMEOUT, connect, lite_file, open_lite
from nudge_vdb_milvus.release import Release, release_of

ID = "id"
VECTOR = "vector"
OTHER = "other"

_METRICS = {Metric.COSINE: "COSINE", Metric.DOT: "IP", Metric.EUCLID: "L2"}
_SCALARS = {str: DataType.VARCHAR, int: DataType.INT64}
_LONGEST_TEXT = 65_535
_NULLABLE_SINCE = (2, 5)
_GAPS_SINCE = (3, 0)


@dataclass
class MilvusFixture:
    """A collection and the client that filled it."""

    client: MilvusClient
    name: str
    vector: str
    timeout: float

    def __post_init__(self) -> None:
        self._collection = MilvusCollection(self.client, self.name, vector=self.vector, timeout=self.timeout)
        self._release = release_of(self.client, self.timeout)

    @property
    def collection(self) -> MilvusCollection:
        """The collection, through the adapter."""
        return self._collection

    def read(self) -> dict[str, StoredRow]:
        """Return every row with all its fields; a nullable field without a value counts as left out."""
        fields = self.client.describe_collection(self.name, timeout=self.timeout)["fields"]
        nullable = {field["name"] for field in fields if field.get("nullable")}
        others = {field["name"] for field in fields if field["type"] == DataType.FLOAT_VECTOR} - {self.vector}
        rows = self.client.query(self.name, _everything(fields), output_fields=["*"], timeout=self.timeout)
        return {str(row[ID]): self._stored(row, others, nullable) for row in rows}

    def insert(self, rows: Rows) -> None:
        """Add rows to the default partition."""
        rows = replace(rows, others=None) if _is_plain(self._release) else rows
        self.client.insert(self.name, _entities(rows, self.vector), timeout=self.timeout)

    def re_embed(self, ids: Sequence[int] | Sequence[str], vectors: Vectors) -> None:
        """Replace vectors of rows in the default partition."""
        rows = [{ID: name, self.vector: vector} for name, vector in zip(ids, vectors, strict=True)]
        if self._release.merges:
            self.client.upsert(self.name, rows, timeout=self.timeout, partial_update=True)
        else:
            self.client.upsert(self.name, self._completed(rows), timeout=self.timeout)

    def delete(self, ids: Sequence[int] | Sequence[str]) -> None:
        """Delete rows."""
        self.client.delete(self.name, filter=filters.among(ID, ids), timeout=self.timeout)

    def reopen(self) -> MilvusCollection:
        """Return another collection through the same client."""
        return MilvusCollection(self.client, self.name, vector=self.vector, timeout=self.timeout)

    def close(self) -> None:
        """Close collection and client; the rows stay."""
        self._collection.close()
        self.client.close()

    def _completed(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return *rows* with all that they hold beside what they say: a server may replace rows only whole."""
        among = filters.among(ID, [row[ID] for row in rows])
        held = self.client.query(self.name, among, output_fields=["*"], timeout=self.timeout)
        fields = {row[ID]: dict(row) for row in held}
        return [{**fields[row[ID]], **row} for row in rows]

    def _stored(self, row: Mapping[str, Any], others: set[str], nullable: set[str]) -> StoredRow:
        payload = {
            name: value
            for name, value in row.items()
            if name not in others | {ID, self.vector} and not (value is None and name in nullable)
        }
        vector = row.get(self.vector)
        return StoredRow(
            vector=None if vector is None else np.asarray(vector, np.float32),
            payload=payload,
            others={name: list(row[name]) for name in others},
        )


def open_fixture(address: Address, rows: Rows, metric: Metric) -> MilvusFixture:
    """Create the collection that *address* names, with an exact index, and fill it with *rows*.

    Payload keys whose values are all texts or all integers become nullable fields, the others stay dynamic. A server
    before 2.5 has no nullable fields, so there only keys that every row has become fields, and no second vector. From
    Milvus 3.0 on, rows may lack the vector.

    Raises:
        BadOption: the collection exists.
    """
    timeout = address.seconds("timeout", DEFAULT_TIMEOUT)
    client = _client(address, timeout)
    try:
        vector = address.option("vector") or VECTOR
        release = release_of(client, timeout)
        plain = _is_plain(release)
        rows = replace(rows, others=None) if plain else rows
        _create(client, address.collection, _schema(rows, vector, release), metric, timeout)
        fixture = MilvusFixture(client, address.collection, vector, timeout)
        fixture.insert(rows)
    except BaseException:
        client.close()
        raise
    return fixture


def _client(address: Address, timeout: float) -> MilvusClient:
    if address.transport != "lite":
        return connect(address)
    file = lite_file(address)
    file.parent.mkdir(parents=True, exist_ok=True)
    return open_lite(file, timeout)


def _create(client: MilvusClient, name: str, schema: CollectionSchema, metric: Metric, timeout: float) -> None:
    if client.has_collection(name, timeout=timeout):
        raise BadOption(f"collection {name} exists already; name one that does not")
    index = client.prepare_index_params()
    for field in schema.fields:
        if field.dtype == DataType.FLOAT_VECTOR:
            index.add_index(field.name, index_type="FLAT", metric_type=_METRICS[metric])
    client.create_collection(name, schema=schema, consistency_level="Strong", timeout=timeout)
    # Unless told not to, the client sleeps half a second before it asks whether an index is built.
    client.create_index(name, index, timeout=timeout, sync=False)
    client.load_collection(name, timeout=timeout)


def _is_plain(release: Release) -> bool:
    return not release.lite and release.number < _NULLABLE_SINCE


def _may_lack_vectors(release: Release) -> bool:
    return not release.lite and release.number >= _GAPS_SINCE


def _schema(rows: Rows, vector: str, release: Release) -> CollectionSchema:
    plain, gaps = _is_plain(release), _may_lack_vectors(release)
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=True)
    kind = DataType.VARCHAR if all(isinstance(name, str) for name in rows.ids) else DataType.INT64
    schema.add_field(ID, kind, is_primary=True, max_length=_LONGEST_TEXT)
    for name, column in _columns(rows, vector).items():
        schema.add_field(name, DataType.FLOAT_VECTOR, dim=column.shape[1], nullable=gaps and name == vector)
    for name, scalar in _scalars(rows.payloads).items():
        if not plain or all(name in payload for payload in rows.payloads):
            schema.add_field(name, scalar, nullable=not plain, max_length=_LONGEST_TEXT)
    return schema


def _columns(rows: Rows, vector: str) -> dict[str, Vectors]:
    return {vector: rows.vectors} | ({} if rows.others is None else {OTHER: rows.others})


def _scalars(payloads: Sequence[Mapping[str, Any]]) -> dict[str, DataType]:
    """Return the payload keys that can be fields, with their types."""
    kinds: dict[str, set[type]] = {}
    for payload in payloads:
        for name, value in payload.items():
            kinds.setdefault(name, set()).add(type(value))
    only = {name: found.pop() for name, found in kinds.items() if len(found) == 1}
    return {name: _SCALARS[kind] for name, kind in only.items() if kind in _SCALARS}


def _entities(rows: Rows, vector: str) -> list[dict[str, Any]]:
    """Return *rows* as Milvus takes them."""
    columns = _columns(rows, vector).items()
    return [
        {ID: name, **{field: _cell(column[place]) for field, column in columns}, **payload}
        for place, (name, payload) in enumerate(zip(rows.ids, rows.payloads, strict=True))
    ]


def _cell(vector: Vectors) -> Vectors | None:
    return None if np.isnan(vector).all() else vector


def _everything(fields: Sequence[Mapping[str, Any]]) -> str:
    """Return a filter that every row passes: an empty one needs a limit."""
    kind = next(field["type"] for field in fields if field.get("is_primary"))
    return f"{ID} >= 0 or {ID} < 0" if kind == DataType.INT64 else f'{ID} >= ""'
