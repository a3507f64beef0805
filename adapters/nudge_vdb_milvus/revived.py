"""Rows that an update of ours brought back after another writer had deleted them, and how they are known.

Where an update holds the vector alone, the engine merges it into the row that it finds, and makes a row of it where it
finds none. Such a row holds its key and its vector, and nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from pymilvus import DataType

from nudge_vdb.contract import Vectors
from nudge_vdb.errors import Refused
from nudge_vdb_milvus import filters
from nudge_vdb_milvus.columns import pks_of, vectors_of
from nudge_vdb_milvus.fitness import Description, Shape
from nudge_vdb_milvus.keys import Pk
from nudge_vdb_milvus.wire import LATEST, FieldData, Wire

log = logging.getLogger("nudge_vdb.milvus")
_NOTHING = (b"", b"{}", b"null")
_SHOWN = 5


class Revived:
    """Tells rows that we alone brought back from others, and deletes them again."""

    def __init__(self, wire: Wire, shape: Shape, description: Description) -> None:
        self._wire = wire
        self._shape = shape
        others = [field for field in description["fields"] if field["name"] not in (shape.pk, shape.vector)]
        stored = [field for field in others if not field.get("is_function_output")]
        # An update of a row that is gone is refused where a field must have a value and has no default.
        self._impossible = any(not field.get("nullable") and not _has_default(field) for field in stored)
        self._telling = {field["name"] for field in stored if field.get("nullable") and not _has_default(field)}
        self._dynamic = bool(description.get("enable_dynamic_field"))

    @property
    def told(self) -> bool:
        """Whether there can be such rows, and they can be told from others."""
        return not self._impossible and (self._dynamic or bool(self._telling))

    def holding(self, partition: str, pks: Sequence[Pk]) -> set[Pk]:
        """Return those of *pks* that hold more than key and vector now."""
        if not self.told:
            return set()
        columns = self._read(partition, pks)
        found = pks_of(columns[self._shape.pk])
        return {pk for place, pk in enumerate(found) if self._holds_more(columns, place)}

    def taken_back(self, partition: str, sent: Mapping[Pk, Vectors], holding: set[Pk]) -> set[Pk]:
        """Delete those rows of *sent* again that were *holding* more before, and hold nothing but what was sent now.

        Return them. Where they may not be deleted they are named in the log, and returned all the same.
        """
        revived = self._revived(partition, sent, holding) if holding else []
        if revived:
            # Looked at once more: a row that its owner has filled since must not be deleted.
            revived = self._revived(partition, {pk: sent[pk] for pk in revived}, holding)
            self._delete(partition, revived)
        return set(revived)

    def _revived(self, partition: str, sent: Mapping[Pk, Vectors], holding: set[Pk]) -> list[Pk]:
        columns = self._read(partition, list(sent))
        found = pks_of(columns[self._shape.pk])
        vectors, _ = vectors_of(columns[self._shape.vector], len(found), self._shape.width)
        return [
            pk
            for place, pk in enumerate(found)
            if pk in holding and not self._holds_more(columns, place) and (vectors[place] == sent[pk]).all()
        ]

    def _delete(self, partition: str, pks: list[Pk]) -> None:
        try:
            self._wire.delete(filters.among(self._shape.pk, pks), partition)
        except Refused as exc:
            log.warning(
                "%d rows of %s (%s) were deleted by another writer while they were written, so Milvus made them anew, "
                "with key and vector only, and this user may not delete them (%s); delete them",
                *(len(pks), self._shape.collection, ", ".join(map(str, pks[:_SHOWN])), exc),
            )

    def _read(self, partition: str, pks: Sequence[Pk]) -> Mapping[str, FieldData]:
        return self._wire.query(filters.among(self._shape.pk, pks), ["*"], partition, LATEST)

    def _holds_more(self, columns: Mapping[str, FieldData], place: int) -> bool:
        return any(_holds(column, place) for name, column in columns.items() if name in self._telling) or any(
            bytes(column.scalars.json_data.data[place]) not in _NOTHING
            for column in columns.values()
            if column.is_dynamic
        )


def _has_default(field: Mapping[str, Any]) -> bool:
    return field.get("default_value") is not None


def _holds(column: FieldData, place: int) -> bool:
    """Tell whether the row at *place* has a value in a *column* that may be empty."""
    if column.valid_data:
        return bool(column.valid_data[place])
    return column.type not in (DataType.NONE, DataType.UNKNOWN)
