"""Which Milvus answers, and whether it can replace a vector and leave the rest of the row alone."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pymilvus import MilvusClient
from pymilvus.grpc_gen import milvus_pb2

from nudge_vdb.errors import Refused
from nudge_vdb_milvus.failures import reading

_PARTIAL_UPDATE_SINCE = (2, 6, 2)


@dataclass(frozen=True, slots=True)
class Release:
    """An engine and its version."""

    lite: bool
    number: tuple[int, ...]

    def __str__(self) -> str:
        return f"{'Milvus Lite' if self.lite else 'Milvus'} {'.'.join(map(str, self.number))}"


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


def require_partial_update(release: Release) -> None:
    """Refuse an engine that would take an update of the vector for a replacement of the whole row.

    Servers before 2.6.2 accept the request and drop every field it does not hold, and so does a client whose
    requests have no place for the flag; neither complains. Milvus Lite merges whatever it is sent.
    """
    if release.lite:
        return
    if release.number < _PARTIAL_UPDATE_SINCE:
        raise Refused(f"writing to {release} is not supported yet; expected Milvus 2.6.2 or later, or Milvus Lite")
    if "partial_update" not in milvus_pb2.UpsertRequest.DESCRIPTOR.fields_by_name:
        raise Refused("the installed pymilvus cannot update single fields; upgrade with pip install -U pymilvus")
