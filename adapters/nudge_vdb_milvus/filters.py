"""Filter expressions over the primary key, with texts escaped."""

from __future__ import annotations

from collections.abc import Iterable

from nudge_vdb_milvus.keys import Pk

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def literal(pk: Pk) -> str:
    """Return *pk* as Milvus reads it in a filter."""
    return str(pk) if isinstance(pk, int) else f'"{pk.translate(_ESCAPES)}"'


def after(field: str, pk: Pk | None) -> str:
    """Return the filter for the rows behind *pk*, for all of them where it is None."""
    return "" if pk is None else f"{field} > {literal(pk)}"


def among(field: str, pks: Iterable[Pk]) -> str:
    """Return the filter for the rows *pks*."""
    return f"{field} in [{', '.join(map(literal, pks))}]"
