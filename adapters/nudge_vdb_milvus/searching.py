"""What an index has to be told to look hard, and when a search in it is as good as comparing with every row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nudge_vdb.contract import Accuracy
from nudge_vdb.errors import Refused
from nudge_vdb.foreign import number_in
from nudge_vdb_milvus.wire import MOST_ROWS

EXACT = ("FLAT", "BRUTE_FORCE")
"""Indexes that compare with every row."""
LEAST_EF, MOST_EF = 64, 32_768
LEAST_LISTS = 32

_BY_GRAPH = {"ef": lambda k, _: min(max(LEAST_EF, 2 * k), MOST_EF)}
_BY_LISTS = {"nprobe": lambda _, lists: max(LEAST_LISTS, lists // 4)}
_EFFORTS: Mapping[str, Mapping[str, Callable[[int, int], int]]] = {
    "HNSW": _BY_GRAPH,
    "IVF": _BY_LISTS,
    "SCANN": {**_BY_LISTS, "reorder_k": lambda k, _: 4 * k},
    "DISKANN": {"search_list": lambda k, _: max(LEAST_EF, 2 * k)},
}


@dataclass(frozen=True, slots=True)
class Index:
    """The index on a vector field."""

    kind: str
    """Such as FLAT, IVF_SQ8 or HNSW."""
    lists: int
    """Into how many lists it parts the rows; 0 where it does not."""

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Index:
        """Return what ``describe_index`` says."""
        return cls(str(described.get("index_type", "")).upper(), int(number_in(str(described.get("nlist"))) or 0))

    @property
    def exact(self) -> bool:
        """Whether a search compares with every row."""
        return self.kind in EXACT

    def effort(self, k: int) -> dict[str, Any]:
        """Return the parameters of a search for *k* rows that is to miss few; none where the index knows none."""
        rules = next((rules for kind, rules in _EFFORTS.items() if self.kind.startswith(kind)), {})
        held = {name: rule(k, self.lists) for name, rule in rules.items()}
        if "nprobe" in held and self.lists:
            held["nprobe"] = min(held["nprobe"], self.lists)
        return {"params": held}

    def refuse(self, collection: str, k: int, accuracy: Accuracy) -> None:
        """Refuse a search that the engine would not let through, or not do."""
        if k > MOST_ROWS:
            raise Refused(f"{collection}: a search for {k} rows is more than Milvus allows ({MOST_ROWS})")
        if accuracy is Accuracy.EXACT and not self.exact:
            raise Refused(f"{collection}: an index of type {self.kind} does not compare a query with every row")
