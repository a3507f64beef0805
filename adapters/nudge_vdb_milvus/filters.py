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


def up_to(field: str, pk: Pk | None, last: Pk) -> str:
    """Return the filter for the rows behind *pk* (None: from the start) up to and with *last*, which is behind it."""
    if last == _LOWEST:
        return among(field, [_LOWEST])
    lower, upper = after(field, pk), f"{field} <= {literal(last)}"
    return f"{lower} and {upper}" if lower else upper


def among(field: str, pks: Iterable[Pk]) -> str:
    """Return the filter for the rows *pks*."""
    pks = list(pks)
    listed = f"{field} in [{', '.join(literal(pk) for pk in pks if pk != _LOWEST)}]"
    return f"({listed} or {field} < {_LOWEST + 1})" if _LOWEST in pks else listed
