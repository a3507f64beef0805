"""Which Milvus answers, and what it can and cannot do."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pymilvus import MilvusClient

from nudge_vdb.errors import Refused
from nudge_vdb_milvus.failures import reading
from nudge_vdb_milvus.wire import CAN_MERGE

_UPSERT_SINCE = (2, 3, 0)
_SORTING_ONLY_FOR_ITERATORS_SINCE = (2, 4, 0)
_KEEPING_PARTITION_KEYS_SINCE = (2, 4, 0)
_PARTIAL_UPDATE_SINCE = (2, 6, 2)


@dataclass(frozen=True, slots=True)
class Release:
    """An engine and its version."""

    lite: bool
    number: tuple[int, ...]

    def __str__(self) -> str:
        return f"{'Milvus Lite' if self.lite else 'Milvus'} {'.'.join(map(str, self.number))}"

    @property
    def merges(self) -> bool:
        """Whether an update that holds the vector alone leaves the rest of the row alone.

        Servers before 2.6.2 accept the request and drop every field it does not hold, and so does a client whose
        requests have no place for the flag; neither complains. Milvus Lite merges whatever it is sent.
        """
        return self.lite or (self.number >= _PARTIAL_UPDATE_SINCE and CAN_MERGE)

    @property
    def sorts_for_iterators_only(self) -> bool:
        """Whether rows come in the order of their keys only if the request is marked as an iterator's.

        Servers before 2.4 always sort, and answer a marked request with every segment's own page.
        """
        return self.lite or self.number >= _SORTING_ONLY_FOR_ITERATORS_SINCE

    @property
    def flickers(self) -> bool:
        """Whether a read may miss rows that others are upserting at that moment: seen on 2.3, if rarely."""
        return not self.lite

    @property
    def scatters_by_key(self) -> bool:
        """Whether an upsert puts a row into the wrong partition of a partition key (milvus#30607)."""
        return not self.lite and self.number < _KEEPING_PARTITION_KEYS_SINCE


def release_of(client: MilvusClient, timeout: float) -> Release:
    """Ask the engine for its version."""
    with reading("the version of Milvus"):
        return parse_release(client.get_server_version(timeout=timeout))


def parse_release(text: str) -> Release:
    """Read the version as engines write it: ``milvus_lite-3.2.2``, ``v2.6.3``; ``v2.3.5-lite`` is a server."""
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", text)
    if found is None:
        raise Refused(f"Milvus calls its version {text!r}; expected three numbers, as in v2.6.3")
    return Release(text.startswith("milvus_lite"), tuple(map(int, found.groups())))


def require_upsert(release: Release) -> None:
    """Refuse an engine that cannot replace a row."""
    if not release.lite and release.number < _UPSERT_SINCE:
        raise Refused(f"{release} cannot replace rows; expected Milvus 2.3 or later, or Milvus Lite")
