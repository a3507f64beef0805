"""Which Milvus answers, and what it can and cannot do."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pymilvus import MilvusClient

from nudge_vdb.errors import BadOption, EngineError, Refused
from nudge_vdb_milvus.failures import reading
from nudge_vdb_milvus.wire import CAN_MERGE

_UPSERT_SINCE = (2, 3)
_SORTING_ONLY_FOR_ITERATORS_SINCE = (2, 4)
_KEEPING_PARTITION_KEYS_SINCE = (2, 4)
_PARTIAL_UPDATE_SINCE = (2, 6, 2)
_COMPLETE = 3
_LITE = "milvus_lite"
_NUMBERS = re.compile(r"(?<![\w.])v?(\d{1,3}(?:\.\d{1,3}){1,2})(?![\d])")


@dataclass(frozen=True, slots=True)
class Release:
    """An engine and its version."""

    lite: bool
    number: tuple[int, ...]
    """Two or three numbers; with two, nothing is done that only some of such releases can do."""
    named: bool = False
    """Whether it was named by the user, as the engine does not tell it."""

    def __str__(self) -> str:
        name = f"{'Milvus Lite' if self.lite else 'Milvus'} {'.'.join(map(str, self.number))}"
        return f"{name}, as release= says" if self.named else name

    @property
    def merges(self) -> bool:
        """Whether an update that holds the vector alone leaves the rest of the row alone.

        Servers before 2.6.2 accept the request and drop every field it does not hold, and so does a client whose
        requests have no place for the flag; neither complains. Milvus Lite merges whatever it is sent. The word of a
        user is not enough for that: were it wrong, every row would lose its payload.
        """
        return self.lite or (self.number >= _PARTIAL_UPDATE_SINCE and CAN_MERGE and not self.named)

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


def release_of(client: MilvusClient, timeout: float, named: str | None = None) -> Release:
    """Ask the engine for its version; where it tells none, it is the one that is *named*.

    Raises:
        Refused: the engine tells none and none is named, or tells another.
        BadOption: *named* is no version.
    """
    with reading("the version of Milvus"):
        told = str(client.get_server_version(timeout=timeout))
    release = _read(told)
    if release is None or len(release.number) < _COMPLETE:
        release = _read(_detail(client, timeout)) or release
    return _agreed(release, told, named) if named is not None else _known(release, told)


def parse_release(text: str) -> Release:
    """Read the version as engines write it.

    ``milvus_lite-3.2.2``, ``v2.6.3``, ``2.6-20260404-31fb3fc``, ``Zilliz Cloud … (Compatible with Milvus 2.6)``;
    ``v2.3.5-lite`` is a server.

    Raises:
        Refused: *text* holds no version.
    """
    return _known(_read(text), text)


def _known(release: Release | None, told: str) -> Release:
    if release is None:
        raise Refused(
            f"Milvus calls its version {told!r}, which does not tell what it can do; if it is a build of a release, "
            "name that: release=2.6 in the address, or MilvusCollection(…, release='2.6')"
        )
    return release


def _agreed(release: Release | None, told: str, named: str) -> Release:
    wanted = _read(named)
    if wanted is None or wanted.lite:
        raise BadOption(f"release={named}: expected two or three numbers, as in 2.6 or 2.6.3")
    if release is None:
        return Release(False, wanted.number, named=True)
    if release.lite or wanted.number[: len(release.number)] != release.number[: len(wanted.number)]:
        raise Refused(f"release={named}: Milvus calls its version {told!r}; leave the option away")
    return release


def _read(text: str) -> Release | None:
    lite = text.startswith(_LITE)
    found = _NUMBERS.search(text.removeprefix(_LITE).lstrip("-_ "))
    return Release(lite, tuple(map(int, found[1].split(".")))) if found else None


def _detail(client: MilvusClient, timeout: float) -> str:
    """Return the version that the engine tells to whom it greets, "" where it tells none."""
    try:
        with reading("the version of Milvus"):
            told = client.get_server_version(timeout=timeout, detail=True)
    except EngineError:
        return ""
    return str(told.get("version", "")) if isinstance(told, dict) else ""


def require_upsert(release: Release) -> None:
    """Refuse an engine that cannot replace a row."""
    if not release.lite and release.number < _UPSERT_SINCE:
        raise Refused(f"{release} cannot replace rows; expected Milvus 2.3 or later, or Milvus Lite")
