"""Rows that are there more than once, since their key was inserted twice: an update would leave one of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from nudge_vdb_milvus import filters
from nudge_vdb_milvus.columns import pks_of
from nudge_vdb_milvus.fitness import Shape
from nudge_vdb_milvus.keys import Pk
from nudge_vdb_milvus.wire import LATEST, MOST_ROWS, Wire

log = logging.getLogger("nudge_vdb.milvus")
_AT_ONCE = 4096
_SHOWN = 5
_LOOKS = 3  # while another writer replaces a row, a server may count it twice for a moment
_NOW_OR_EARLIER = 1
"""A time long past: the server answers at once from what it holds, and need not wait for its clock."""


class Copies:
    """Tells which rows of a collection on a server are there more than once."""

    def __init__(self, wire: Wire, shape: Shape) -> None:
        self._wire = wire
        self._shape = shape

    def among(self, partition: str, pks: Sequence[Pk]) -> set[Pk]:
        """Return those of *pks* that are there more than once, in *partition*, whatever else they hold."""
        parts = (pks[first : first + _AT_ONCE] for first in range(0, len(pks), _AT_ONCE))
        copied = {pk for part in parts for pk in self._search(partition, part)}
        for _ in range(_LOOKS):
            copied = {pk for pk in copied if self._more(partition, [pk], LATEST)}
        if copied:
            log.warning(
                "%d rows of %s are there more than once (%s): an update would leave one copy of each, so they are not "
                "written and counted as refused; delete the copies that are not wanted",
                *(len(copied), self._shape.collection, ", ".join(map(str, sorted(copied)[:_SHOWN]))),
            )
        return copied

    def _search(self, partition: str, pks: Sequence[Pk]) -> Iterator[Pk]:
        """Yield those that seem to be there more than once, halving the parts that hold any."""
        if not self._more(partition, pks, _NOW_OR_EARLIER):
            return
        if len(pks) == 1:
            yield pks[0]
            return
        half = len(pks) // 2
        yield from self._search(partition, pks[:half])
        yield from self._search(partition, pks[half:])

    def _more(self, partition: str, pks: Sequence[Pk], at: int) -> bool:
        """Tell whether more rows are counted than there are keys; some of *pks* may be gone, so these are read."""
        where = filters.among(self._shape.pk, pks)
        counted = self._wire.query(where, ["count(*)"], partition, at)["count(*)"].scalars.long_data.data[0]
        if counted <= 1:
            return False
        held = self._wire.query(where, [self._shape.pk], partition, at, {"limit": str(MOST_ROWS)})
        return int(counted) > len(set(pks_of(held[self._shape.pk])))
