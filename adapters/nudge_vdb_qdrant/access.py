"""What a key may do, found out without doing it."""

from __future__ import annotations

import base64
import time
from typing import Any

import grpc
from qdrant_client import QdrantClient
from qdrant_client.http.exceptions import UnexpectedResponse

from nudge_vdb.errors import Refused
from nudge_vdb.foreign import number_in, parsed
from nudge_vdb_qdrant.failures import reading


def may_write(client: QdrantClient, collection: str) -> bool:
    """Tell whether points may be updated: the server looks at the key before it finds that no point is named."""
    try:
        with reading(collection):
            client.set_payload(collection, {}, points=[])
    except Refused as exc:
        return not _forbidden(exc.__cause__)
    return True


def claims_of(key: str | None) -> dict[str, Any]:
    """Return what the token *key* says of itself, nothing where it is no token."""
    try:
        body = (key or "").split(".")[1]
        told = parsed(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (IndexError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def manages(key: str | None) -> bool:
    """Tell whether a *key* that may write also manages collections: a token for some collections does not."""
    return bool(claims_of(key).get("access", "m") == "m")


def minutes_left(key: str | None) -> float | None:
    """Return for how many minutes *key* is still good, None where that has no end."""
    expiry = number_in(str(claims_of(key).get("exp")))
    return None if expiry is None else (expiry - time.time()) / 60


def _forbidden(failure: BaseException | None) -> bool:
    if isinstance(failure, UnexpectedResponse):
        return failure.status_code in (401, 403)
    return isinstance(failure, grpc.RpcError) and failure.code() in (
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
    )


def key_of_client(client: QdrantClient) -> str | None:
    """Return the key that *client* shows, None where it has none."""
    return client.init_options.get("api_key")
