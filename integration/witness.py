"""What a collection holds, as the engine's own client tells it: round the adapter, round any proxy, to compare with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from pymilvus import DataType, MilvusClient
from qdrant_client import QdrantClient, models
from qdrant_client import grpc as messages

from integration.engines import QdrantServer
from integration.engines_milvus import MilvusServer
from nudge_vdb.contract import Vectors

VECTOR = "text"
OTHER = "other"
AT_ONCE = 1000
LONGEST_WAIT = 60


@dataclass(frozen=True)
class Copy:
    """All rows, ascending by id."""

    ids: list[int]
    vectors: Vectors
    """(len(ids), width)"""
    beside: list[Any]
    """Of each row, whatever it holds beside the vector: payload, other vectors."""

    def vector_of(self) -> dict[int, Vectors]:
        """Return the vectors by id."""
        return dict(zip(self.ids, self.vectors, strict=True))

    def beside_of(self) -> dict[int, Any]:
        """Return the rest by id."""
        return dict(zip(self.ids, self.beside, strict=True))


def differences(wanted: Copy, found: Copy) -> Counter[str]:
    """Count what is not as it should be, by kind; what is counts as 0."""
    vectors, beside = found.vector_of(), found.beside_of()
    there = [place for place, row in enumerate(wanted.ids) if row in vectors]
    return Counter(
        {
            "rows created": len(vectors.keys() - set(wanted.ids)),
            "rows lost": len(wanted.ids) - len(there),
            "payloads changed": sum(beside[wanted.ids[place]] != wanted.beside[place] for place in there),
            "vectors astray": sum(bool((vectors[wanted.ids[place]] != wanted.vectors[place]).any()) for place in there),
        }
    )


def damage(count: Counter[str]) -> str:
    """Return what the comparisons have found, in words."""
    kinds = ("payloads changed", "rows created", "rows lost", "vectors astray")
    return f"{count['comparisons']} comparisons: " + ", ".join(f"{count[kind]} {kind}" for kind in kinds)


class Witness(Protocol):
    """The engine's own client, at one collection."""

    address: str

    def fill(self, vectors: Vectors) -> None:
        """Make the collection anew, with a row for each of *vectors*, numbered from 1, and payloads."""

    def read(self) -> Copy:
        """Return all rows."""

    def re_embed(self, ids: Sequence[int], vectors: Vectors) -> None:
        """Replace vectors, as the owner would."""

    def delete(self, ids: Sequence[int]) -> None:
        """Delete rows."""

    def edit(self, ids: Sequence[int], payload: Mapping[str, Any], vectors: Vectors) -> None:
        """Add *payload* to that of rows; an engine that replaces rows only whole is given their *vectors* too."""

    def insert(self, ids: Sequence[int], vectors: Vectors) -> None:
        """Add rows."""

    def close(self) -> None:
        """Close the client."""


def payload_of(number: int) -> dict[str, Any]:
    """Return what a row holds beside its vectors."""
    return {"n": number, "said": f"“row” {number} \\ 日本 ' \" \n", "tags": ["a", {"deep": [1, None, number / 7]}]}


def other_of(number: int) -> list[float]:
    """Return the other vector of a row."""
    return [float(number), 0.5, -1.0]


class QdrantWitness:
    """A collection of a Qdrant server."""

    def __init__(self, server: QdrantServer, name: str, **options: str) -> None:
        self.address = server.address(name, vector=VECTOR, **options)
        self._name = name
        self._client = QdrantClient(
            url=server.url,
            grpc_port=server.grpc_port,
            prefer_grpc=True,
            check_compatibility=False,
            timeout=LONGEST_WAIT,
            grpc_options={"grpc.compression_enabled_algorithms_bitset": 1},
        )

    def fill(self, vectors: Vectors) -> None:
        sizes = {VECTOR: vectors.shape[1], OTHER: len(other_of(0))}
        config = {name: models.VectorParams(size=size, distance=models.Distance.DOT) for name, size in sizes.items()}
        self._client.delete_collection(self._name)
        self._client.create_collection(self._name, vectors_config=config)
        self.insert(range(1, len(vectors) + 1), vectors)

    def read(self) -> Copy:
        found: list[Any] = []
        request = messages.ScrollPoints(
            collection_name=self._name,
            limit=AT_ONCE,
            with_payload=messages.WithPayloadSelector(enable=True),
            with_vectors=messages.WithVectorsSelector(enable=True),
        )
        while True:
            answer = self._client.grpc_points.Scroll(request, timeout=LONGEST_WAIT)
            found += answer.result
            if not answer.HasField("next_page_offset"):
                break
            request.offset.CopyFrom(answer.next_page_offset)
        held = [point.vectors.vectors.vectors for point in found]
        beside = [
            (list(each[OTHER].data), {name: value.SerializeToString() for name, value in point.payload.items()})
            for each, point in zip(held, found, strict=True)
        ]
        vectors = np.array([each[VECTOR].data for each in held], np.float32)
        return Copy([point.id.num for point in found], vectors, beside)

    def re_embed(self, ids: Sequence[int], vectors: Vectors) -> None:
        points = [
            models.PointVectors(id=row, vector={VECTOR: vector.tolist()})
            for row, vector in zip(ids, vectors, strict=True)
        ]
        self._client.update_vectors(self._name, points, wait=True)

    def delete(self, ids: Sequence[int]) -> None:
        self._client.delete(self._name, models.PointIdsList(points=list(ids)), wait=True)

    def edit(self, ids: Sequence[int], payload: Mapping[str, Any], vectors: Vectors) -> None:
        self._client.set_payload(self._name, dict(payload), list(ids), wait=True)

    def insert(self, ids: Sequence[int], vectors: Vectors) -> None:
        for first in range(0, len(ids), AT_ONCE):
            points = [
                models.PointStruct(
                    id=row, vector={VECTOR: vector.tolist(), OTHER: other_of(row)}, payload=payload_of(row)
                )
                for row, vector in zip(ids[first : first + AT_ONCE], vectors[first : first + AT_ONCE], strict=True)
            ]
            self._client.upsert(self._name, points, wait=True)

    def close(self) -> None:
        self._client.close()


class MilvusWitness:
    """A collection of a Milvus server, which before 2.4 has but one vector field and replaces rows only whole."""

    def __init__(self, server: MilvusServer, name: str, **options: str) -> None:
        self.address = server.address(name, vector=VECTOR, **options)
        self._name = name
        self._client = MilvusClient(server.uri, timeout=LONGEST_WAIT, dedicated=True)

    def fill(self, vectors: Vectors) -> None:
        client = self._client
        client.drop_collection(self._name)
        schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("n", DataType.INT64)
        schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=vectors.shape[1])
        client.create_collection(self._name, schema=schema, consistency_level="Strong")
        index = client.prepare_index_params()
        index.add_index(VECTOR, index_type="FLAT", metric_type="IP")
        client.create_index(self._name, index, sync=False)
        client.load_collection(self._name)
        self.insert(range(1, len(vectors) + 1), vectors)

    def read(self) -> Copy:
        rows: list[dict[str, Any]] = []
        while page := self._after(rows[-1]["id"] if rows else 0):
            rows += page
        vectors = np.array([row.pop(VECTOR) for row in rows], np.float32)
        return Copy([row["id"] for row in rows], vectors, rows)

    def _after(self, row: int) -> list[dict[str, Any]]:
        """Return the rows that come next, as many as an answer holds."""
        found = self._client.query(
            self._name, f"id > {row}", output_fields=["*"], limit=AT_ONCE, consistency_level="Strong"
        )
        return sorted(map(dict, found), key=lambda each: each["id"])

    def re_embed(self, ids: Sequence[int], vectors: Vectors) -> None:
        self._client.upsert(self._name, self._rows(ids, vectors))

    def delete(self, ids: Sequence[int]) -> None:
        self._client.delete(self._name, filter=f"id in {list(ids)}")

    def edit(self, ids: Sequence[int], payload: Mapping[str, Any], vectors: Vectors) -> None:
        self._client.upsert(self._name, [{**row, **payload} for row in self._rows(ids, vectors)])

    def insert(self, ids: Sequence[int], vectors: Vectors) -> None:
        for first in range(0, len(ids), AT_ONCE):
            part = slice(first, first + AT_ONCE)
            self._client.insert(self._name, self._rows(ids[part], vectors[part]))

    def close(self) -> None:
        self._client.close()

    def _rows(self, ids: Sequence[int], vectors: Vectors) -> list[dict[str, Any]]:
        return [{"id": row, VECTOR: vector, **payload_of(row)} for row, vector in zip(ids, vectors, strict=True)]
