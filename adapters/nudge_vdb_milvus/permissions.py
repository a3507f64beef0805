"""What the credentials in use may do, as far as Milvus tells without trying."""

from __future__ import annotations

from collections.abc import Iterator

from pymilvus import MilvusClient

from nudge_vdb.contract import Remark, Weight
from nudge_vdb.errors import Refused
from nudge_vdb_milvus.endpoint import Endpoint
from nudge_vdb_milvus.failures import reading

NEEDED = ("Query", "Upsert")
_ALL = {"admin"}
_EVERY = {"*", "All", "CollectionAdmin", "COLL_ADMIN", "CollectionReadWrite", "COLL_RW", "ReadWrite", "ClusterAdmin"}


def permissions(client: MilvusClient, endpoint: Endpoint, collection: str, timeout: float) -> Iterator[Remark]:
    """Yield what is known of the privileges on *collection*."""
    user = endpoint.token.partition(":")[0] if ":" in endpoint.token else ""
    if not endpoint.token:
        yield Remark("permissions", "no credentials are sent (MILVUS_TOKEN is empty), and none are asked for")
        return
    try:
        with reading(collection):
            roles = list(client.describe_user(user, timeout=timeout).get("roles", ())) if user else []
            held = {privilege for role in roles for privilege in _granted(client, role, collection, timeout)}
    except Refused:
        roles, held = [], set()
    yield _remark(user, roles, held)


def _remark(user: str, roles: list[str], held: set[str]) -> Remark:
    if user == "root" or _ALL & set(roles) or held & _EVERY:
        return Remark("permissions", f"{user} may read and write")
    if not held:
        return Remark(
            "permissions",
            f"reading works; whether {user or 'the key'} may write is not told before the first write; "
            f"the privileges needed are {', '.join(NEEDED)}, DescribeCollection and IndexDetail",
        )
    missing = [privilege for privilege in NEEDED if privilege not in held]
    if missing:
        return Remark(
            "permissions",
            f"{user} lacks the privilege {', '.join(missing)}; grant it, as in client.grant_privilege",
            Weight.OBSTACLE,
        )
    return Remark("permissions", f"{user} may read and write")


def _granted(client: MilvusClient, role: str, collection: str, timeout: float) -> set[str]:
    grants = client.describe_role(role, timeout=timeout).get("privileges", ())
    return {
        str(grant["privilege"])
        for grant in grants
        if grant.get("object_name") in (collection, "*") or grant.get("object_type") == "Global"
    }
