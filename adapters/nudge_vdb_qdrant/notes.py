"""Notes of ours with a collection, kept in its metadata."""

from __future__ import annotations

import re
import time

from qdrant_client import QdrantClient
from qdrant_client.http.models import CollectionInfo

from nudge_vdb.errors import Refused
from nudge_vdb_qdrant.failures import reading

OURS = "nudge_vdb"
FIRST_TO_KEEP_NOTES = (1, 16)
LOOKS = 100
BETWEEN_LOOKS = 0.05
"""Seconds."""


def keeps_notes(engine: str) -> bool:
    """Tell whether a server such as "Qdrant 1.16.3" knows metadata; older ones drop them silently."""
    return version_of(engine) >= FIRST_TO_KEEP_NOTES


def version_of(engine: str) -> tuple[int, int]:
    """Return major and minor version of a server such as "Qdrant 1.16.3", (0, 0) where that says none."""
    found = re.search(r"(\d{1,9})\.(\d{1,9})", engine)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def notes_in(info: CollectionInfo) -> dict[str, str]:
    """Return our notes among the metadata of a collection."""
    held = info.config.metadata or {}
    return {name: text for name, text in held.items() if name.startswith(OURS) and isinstance(text, str) and text}


def leave_note(client: QdrantClient, collection: str, name: str, text: str) -> bool:
    """Keep *text* under *name*, nothing if it is ""; tell whether the key may do that, for which it must manage all.

    The server merges what it is sent into what there is, and drops names whose value is null.
    """
    try:
        with reading(collection):
            kept = bool(client.update_collection(collection, metadata={name: text or None}))
            return kept and _seen(client, collection, name, text)
    except Refused:
        return False


def _seen(client: QdrantClient, collection: str, name: str, text: str) -> bool:
    """Wait until the note reads as it was left: a node of a cluster may show it 50 ms later (1 time of 60)."""
    for _ in range(LOOKS):
        if notes_in(client.get_collection(collection)).get(name, "") == text:
            return True
        time.sleep(BETWEEN_LOOKS)
    return False
