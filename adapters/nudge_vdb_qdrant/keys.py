"""Row keys of Qdrant: a kind byte and the id, so that the order of the bytes is the order of a scroll.

An integer id is ``i`` and 8 bytes, big-endian; a UUID is ``u`` and its 16 bytes. Where the users of a collection shard
it themselves, one id may stand once under each shard key, so the shard key goes before: ``k``, the length of its UTF-8
in 2 bytes and the UTF-8, or, if it is a number, ``n`` and 8 bytes.
"""

from __future__ import annotations

import re
from uuid import UUID

from nudge_vdb.contract import RowKey

PointId = int | str
ShardKey = int | str
LARGEST = 2**64 - 1


def key_of(point: PointId, prefix: bytes = b"") -> RowKey:
    """Return the key of a point id as the client gives it; *prefix* is that of its shard key, if it has one."""
    if isinstance(point, int):
        return prefix + b"i" + point.to_bytes(8, "big")
    return prefix + b"u" + UUID(str(point)).bytes


def id_of(key: RowKey) -> PointId:
    """Return the point id as the client takes it."""
    own = key[len(shard_prefix(key)) :]
    if own[:1] == b"i":
        return int.from_bytes(own[1:], "big")
    return str(UUID(bytes=own[1:]))


def prefix_of(shard_key: ShardKey | None) -> bytes:
    """Return what the keys of the rows under *shard_key* begin with: nothing, where the engine spreads the rows."""
    if shard_key is None:
        return b""
    if isinstance(shard_key, int):
        return b"n" + shard_key.to_bytes(8, "big")
    name = shard_key.encode()
    return b"k" + len(name).to_bytes(2, "big") + name


def shard_prefix(key: RowKey) -> bytes:
    """Return the part of *key* that stands for its shard key."""
    if key[:1] == b"n":
        return key[:9]
    if key[:1] == b"k":
        return key[: 3 + int.from_bytes(key[1:3], "big")]
    return b""


def shard_key_of(prefix: bytes) -> ShardKey | None:
    """Return the shard key that *prefix* stands for."""
    if prefix[:1] == b"n":
        return int.from_bytes(prefix[1:], "big")
    return prefix[3:].decode() if prefix else None


DIGITS = 32
"""Of a UUID without hyphens; an integer has fewer."""
SPELLED = re.compile(r"(urn:)?(uuid:)?\{?[0-9a-fA-F-]{32,36}\}?")


def parsed_id(text: str) -> PointId | None:
    """Return the point id that *text* means, in the spelling of the engine; None if it can be no id."""
    if text.isascii() and text.isdigit() and len(text) < DIGITS:  # as many of them are a UUID, as the engine has it
        return int(text) if str(int(text)) == text and int(text) <= LARGEST else None
    if not SPELLED.fullmatch(text):  # UUID takes digits of other scripts, too, and underscores
        return None
    try:
        return str(UUID(text))
    except ValueError:
        return None
