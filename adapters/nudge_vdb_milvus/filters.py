"""Filter expressions over the primary key, with texts escaped."""

from __future__ import annotations

from collections.abc import Iterable

from nudge_vdb_milvus.keys import Pk

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_LOWEST = -(2**63)  # Milvus 2.3 reads a sign and a number apart, and finds this number out of range


def literal(pk: Pk) -> str:
    """Return *pk* as Milvus reads it in a filter."""
    return str(pk) if isinstance(pk, int) else f'"{pk.translate(_ESCAPES)}"'


def after(field: str, pk: Pk | None) -> str:
    """Return the filter for the rows behind *pk*, for all of them where it is None."""
    if pk is None:
        return ""
    return f"{field} >= {_LOWEST + 1}" if pk == _LOWEST else f"{field} > {literal(pk)}"


def between(field: str, first: Pk, last: Pk) -> str:
    """Return the filter for the rows from *first* to *last*, both included."""
    if last == _LOWEST:
        return among(field, [_LOWEST])
    upper = f"{field} <= {literal(last)}"
    return upper if first == _LOWEST else f"{field} >= {literal(first)} and {upper}"


def among(field: str, pks: Iterable[Pk]) -> str:
    """Return the filter for the rows *pks*."""
    pks = list(pks)
    listed = f"{field} in [{', '.join(literal(pk) for pk in pks if pk != _LOWEST)}]"
    return f"({listed} or {field} < {_LOWEST + 1})" if _LOWEST in pks else listed
