"""Row keys: the partition and primary key of a row, as bytes that sort the way Milvus pages.

A key is one byte for the kind of primary key (``i`` or ``s``), the name of the partition in UTF-8, a zero byte,
and the primary key: 8 bytes big-endian with the sign bit turned for INT64, UTF-8 for VARCHAR. The partition is
in there because an upsert that does not name it moves the row on Milvus Lite and doubles it on a server.
"""

from __future__ import annotations

from collections.abc import Sequence

from nudge_vdb.contract import RowKey

Pk = int | str

_OFFSET = 2**63
_NAME_END = b"\0"  # no partition name holds it, so a shorter name sorts before a longer one that it begins


def key_of(partition: str, pk: Pk) -> RowKey:
    """Return the key of the row *pk* of *partition*; an empty name stands for all partitions together."""
    head = partition.encode() + _NAME_END
    if isinstance(pk, int):
        return b"i" + head + (pk + _OFFSET).to_bytes(8, "big")
    return b"s" + head + pk.encode()


def row_of(key: RowKey) -> tuple[str, Pk]:
    """Return the partition and the primary key that *key* was made of."""
    partition, _, rest = key[1:].partition(_NAME_END)
    pk = int.from_bytes(rest, "big") - _OFFSET if key[:1] == b"i" else rest.decode()
    return partition.decode(), pk


def pk_of(text: str, kind: type[Pk]) -> Pk | None:
    """Return the primary key that *text* spells, None where no key of that kind is spelled so.

    An integer has one spelling, the one Python prints; a text must be Unicode that UTF-8 can carry.
    """
    try:
        pk = kind(text)
        text.encode()
    except ValueError:
        return None
    if isinstance(pk, int) and not (str(pk) == text and -_OFFSET <= pk < _OFFSET):
        return None
    return pk


def places_by_partition(keys: Sequence[RowKey], kind: type[Pk]) -> dict[str, dict[Pk, list[int]]]:
    """Return for each partition and primary key where in *keys* it stands; keys of another kind stand nowhere."""
    places: dict[str, dict[Pk, list[int]]] = {}
    for place, key in enumerate(keys):
        partition, pk = row_of(key)
        if isinstance(pk, kind):
            places.setdefault(partition, {}).setdefault(pk, []).append(place)
    return places
