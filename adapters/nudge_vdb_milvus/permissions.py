"""What the credentials in use may do."""

from __future__ import annotations

from collections.abc import Iterator

from nudge_vdb.contract import Remark, Weight
from nudge_vdb.errors import Refused
from nudge_vdb_milvus.endpoint import Endpoint
from nudge_vdb_milvus.failures import is_forbidden
from nudge_vdb_milvus.wire import Wire

NEEDED = "Query and Upsert on the collection, DescribeCollection and IndexDetail"


def permissions(endpoint: Endpoint, wire: Wire) -> Iterator[Remark]:
    """Yield whether rows may be read and written; reading has been done by then."""
    if not endpoint.token:
        yield Remark("permissions", "no credentials are sent, since MILVUS_TOKEN is empty, and none are asked for")
    elif _may_upsert(wire):
        yield Remark("permissions", "the credentials may read and write rows")
    else:
        yield Remark(
            "permissions",
            f"the credentials may read but not write; grant the privilege Upsert (needed are {NEEDED})",
            Weight.OBSTACLE,
        )


def _may_upsert(wire: Wire) -> bool:
    """Ask to write no rows: Milvus looks at the privilege first, and then refuses a request without rows."""
    try:
        wire.upsert([], 0, "")
    except Refused as exc:
        return not is_forbidden(exc)
    return True
