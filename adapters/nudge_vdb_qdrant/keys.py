"""Row keys of Qdrant: a kind byte and the id, so that the order of the bytes is the order of a scroll.

An integer id is ``i`` and 8 bytes, big-endian; a UUID is ``u`` and its 16 bytes.
"""

from __future__ import annotations

from uuid import UUID

from nudge_vdb.contract import RowKey

PointId = int | str
LARGEST = 2**64 - 1


def key_of(point: PointId) -> RowKey:
    """Return the key of a point id as the client gives it."""
    if isinstance(point, int):
        return b"i" + point.to_bytes(8, "big")
    return b"u" + UUID(str(point)).bytes


def id_of(key: RowKey) -> PointId:
    """Return the point id as the client takes it."""
    if key[:1] == b"i":
        return int.from_bytes(key[1:], "big")
    return str(UUID(bytes=key[1:]))


def parsed_id(text: str) -> PointId | None:
    """Return the point id that *text* means, in the spelling of the engine; None if it can be no id."""
    if text.isascii() and text.isdigit():
        return int(text) if str(int(text)) == text and int(text) <= LARGEST else None
    try:
        return str(UUID(text))
    except ValueError:
        return None
