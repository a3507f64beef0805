"""The requests that the adapter sends to one vector field, with every failure translated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from pymilvus import MilvusClient

from nudge_vdb.contract import Vectors
from nudge_vdb_milvus import filters
from nudge_vdb_milvus.failures import reading, writing
from nudge_vdb_milvus.fitness import Shape
from nudge_vdb_milvus.keys import Pk

Row = tuple[Pk, Vectors | None]
"""Primary key and vector, None where the row has none."""

_LARGEST_PAGE = 16_384  # a server refuses more


class Table:
    """One vector field of one collection, asked partition by partition; an empty name asks all of them."""

    def __init__(self, client: MilvusClient, shape: Shape, timeout: float) -> None:
        self.shape = shape
        self._client = client
        self._timeout = timeout

    def partitions(self) -> list[str]:
        """Return the partitions in the order they are paged in; a partition key's are one, being Milvus's own."""
        if self.shape.partition_key is not None:
            return [""]
        with reading(self.shape.collection):
            return sorted(self._client.list_partitions(self.shape.collection, timeout=self._timeout))

    def page(self, partition: str, after: Pk | None, limit: int) -> list[Row]:
        """Return about *limit* rows behind *after* in the order of their keys; none at all only at the end."""
        # Any value of "iterator" makes Milvus sort by primary key; without it a cursor loses rows.
        options = {"limit": min(limit, _LARGEST_PAGE), "iterator": "True"}
        return [self._row(row) for row in self._query(partition, filters.after(self.shape.pk, after), **options)]

    def rows(self, partition: str, pks: Iterable[Pk]) -> dict[Pk, Vectors | None]:
        """Return those of the rows *pks* that exist, with their vectors."""
        return dict(self._row(row) for row in self._query(partition, filters.among(self.shape.pk, pks)))

    def existing(self, partition: str, pks: Iterable[Pk]) -> list[Pk]:
        """Return those of *pks* that exist."""
        return [
            row[self.shape.pk]
            for row in self._query(partition, filters.among(self.shape.pk, pks), output_fields=[self.shape.pk])
        ]

    def replace(self, partition: str, vectors: Mapping[Pk, Vectors]) -> None:
        """Replace the vectors of rows that were seen just now: a row that is gone would be created."""
        rows = [{self.shape.pk: pk, self.shape.vector: vector} for pk, vector in vectors.items()]
        with writing(self.shape.collection):
            self._client.upsert(
                self.shape.collection, rows, timeout=self._timeout, partition_name=partition, partial_update=True
            )

    def nearest(self, partition: str, queries: Vectors, k: int) -> list[list[tuple[float, Pk]]]:
        """Return for each query the *k* best rows, best first, as score and primary key."""
        with reading(self.shape.collection):
            found = self._client.search(
                self.shape.collection,
                list(queries),
                anns_field=self.shape.vector,
                limit=k,
                # Milvus Lite sends whole rows unless told which fields.
                output_fields=[self.shape.pk],
                consistency_level="Strong",
                timeout=self._timeout,
                **_only(partition),
            )
        return [[(hit["distance"], hit[self.shape.pk]) for hit in hits] for hits in found]

    def count(self) -> int:
        """Return how many rows there are."""
        return int(self._query("", "", output_fields=["count(*)"])[0]["count(*)"])

    def _query(self, partition: str, where: str, **options: Any) -> list[dict[str, Any]]:  # noqa: ANN401
        options = {"output_fields": [self.shape.pk, self.shape.vector], **options, **_only(partition)}
        with reading(self.shape.collection):
            return list(
                self._client.query(
                    self.shape.collection,
                    where,
                    consistency_level="Strong",
                    strict_float32=True,
                    timeout=self._timeout,
                    **options,
                )
            )

    def _row(self, row: Mapping[str, Any]) -> Row:
        vector = row[self.shape.vector]
        # Milvus Lite stores zeros for a vector that was left out and keeps no note of it.
        absent = vector is None or (self.shape.nullable and not np.any(vector))
        return row[self.shape.pk], None if absent else vector


def _only(partition: str) -> dict[str, list[str]]:
    return {"partition_names": [partition]} if partition else {}
