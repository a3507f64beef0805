"""What is worth knowing of a Milvus collection before it is tuned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pymilvus
from pymilvus import MilvusClient
from pymilvus.client.types import LoadState

from nudge_vdb.contract import Remark, Weight
from nudge_vdb.errors import Refused
from nudge_vdb_milvus.endpoint import Endpoint
from nudge_vdb_milvus.failures import reading
from nudge_vdb_milvus.fitness import Description, Shape
from nudge_vdb_milvus.opening import index_of
from nudge_vdb_milvus.permissions import permissions
from nudge_vdb_milvus.release import Release
from nudge_vdb_milvus.rewriting import ROWS_AT_ONCE
from nudge_vdb_milvus.table import Table
from nudge_vdb_milvus.wire import CAN_MERGE, MOST_ROWS, Wire

_EXACT = {"FLAT", "BRUTE_FORCE"}
_TTL = "collection.ttl.seconds"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that is looked at; nothing is changed."""

    client: MilvusClient
    endpoint: Endpoint
    wire: Wire
    table: Table
    release: Release
    timeout: float

    @property
    def shape(self) -> Shape:
        """The key and the vector field."""
        return self.table.shape

    def remarks(self) -> list[Remark]:
        """Return everything there is to say."""
        with reading(self.shape.collection):
            description = self.client.describe_collection(self.shape.collection, timeout=self.timeout)
        return [
            *permissions(self.endpoint, self.wire),
            *self._index(),
            *self._load(),
            *self._reading(description),
            *self._writing(),
            *self._partitions(),
            *self._duplicates(),
            *_expiry(description.get("properties") or {}),
            Remark(
                "notes", "are kept among the properties of the collection, where the privilege to alter it is given"
            ),
        ]

    def _index(self) -> Iterator[Remark]:
        index = index_of(self.client, self.shape, self.timeout)
        if index is None:
            yield Remark("index", f"field {self.shape.vector} has none; create one", Weight.OBSTACLE)
            return
        kind, metric = index.get("index_type", "unknown"), index.get("metric_type", "unknown")
        exact = "" if kind in _EXACT else "; searches by it are approximate, evaluation here is exact"
        yield Remark("index", f"{kind} by {metric}{exact}")
        if index.get("state", "Finished") != "Finished" or index.get("pending_index_rows"):
            yield Remark(
                "index", f"is still being built ({_progress(index)}); search is slower until then", Weight.WARNING
            )

    def _load(self) -> Iterator[Remark]:
        try:
            with reading(self.shape.collection):
                state = self.client.get_load_state(self.shape.collection, timeout=self.timeout)["state"]
        except Refused:
            yield Remark("load", "is not told, since the privilege for that is missing; rows can be read")
            return
        if state == LoadState.Loaded:
            yield Remark("load", "the collection is loaded")
        else:
            yield Remark(
                "load", f"the collection is {LoadState(state).name}, so it cannot be read; load it", Weight.OBSTACLE
            )

    def _reading(self, description: Description) -> Iterator[Remark]:
        yield Remark(
            "reading",
            f"{self.release} over a channel of our own, checked on the first page against pymilvus "
            f"{pymilvus.__version__}; {self.table.pace.text}",
        )
        level = description.get("consistency_level_name") or description.get("consistency_level")
        yield Remark(
            "consistency",
            f"reads here see every acknowledged write; readers by the collection's own level, {level}, "
            f"{'do so too' if level in ('Strong', 0) else 'may see an old vector for a moment after it was written'}",
        )
        if self.release.flickers:
            yield Remark(
                "flicker",
                "a row that others are writing may be missing from a read for a moment, seen on 2.3; every row is "
                "looked for up to four times",
            )

    def _writing(self) -> Iterator[Remark]:
        if self.release.merges:
            window = (
                "what another writer changes in a row while the engine merges it would be lost, and a row that is "
                "deleted meanwhile is made anew and then deleted again; docs/engines.md has the windows"
            )
            yield Remark("writing", f"the vector alone is sent, and the engine merges it into the row; {window}")
            return
        why = f"{self.release} is not known to be 2.6.2 or later" if CAN_MERGE else "pymilvus is too old"
        yield Remark(
            "writing",
            "whole rows are read and sent back with another vector, since a part of a row is not known to be taken "
            f"({why}); the first 8 rows are compared field by field before any other is written; batches of "
            f"{ROWS_AT_ONCE} rows",
        )
        yield Remark(
            "window",
            "a change of any field, or a deletion, that another writer makes in the 50 to 250 ms between reading a row "
            "and sending it is lost; run it while writers of the same rows are quiet",
            Weight.WARNING,
        )

    def _partitions(self) -> Iterator[Remark]:
        if self.shape.partition_key is not None:
            yield Remark("partitions", f"are Milvus's own, by the field {self.shape.partition_key}")
        else:
            names = self.table.partitions()
            yield Remark(
                "partitions", f"{len(names)}, paged in turn: {', '.join(names[:10])}{' …' * (len(names) > 10)}"
            )

    def _duplicates(self) -> Iterator[Remark]:
        count = self.table.count()
        if count >= MOST_ROWS:
            yield Remark("duplicates", f"are looked for in collections below {MOST_ROWS} rows only; this holds {count}")
            return
        distinct = sum(len(set(self.table.listed(name))) for name in self.table.partitions())
        if distinct == count:
            yield Remark("duplicates", f"none among {count} rows")
        else:
            yield Remark(
                "duplicates",
                f"{count} rows are counted and {distinct} keys are read: keys were inserted twice, or a write is under "
                "way; a row that is there more than once is never written",
                Weight.WARNING,
            )


def _expiry(properties: Mapping[str, Any]) -> Iterator[Remark]:
    seconds = properties.get(_TTL)
    if seconds not in (None, "", "0", 0):
        yield Remark(
            "expiry",
            f"rows live {seconds} seconds ({_TTL}); writing a row may begin its time anew",
            Weight.WARNING,
        )


def _progress(index: Mapping[str, Any]) -> str:
    return f"{index.get('indexed_rows', '?')} of {index.get('total_rows', '?')} rows, {index.get('state', '?')}"
