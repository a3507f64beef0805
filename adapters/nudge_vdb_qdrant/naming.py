"""The one name of a collection, however it was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from qdrant_client import QdrantClient, models
from qdrant_client.local.qdrant_local import QdrantLocal

from nudge_vdb.address import canonical_host
from nudge_vdb.errors import UnfitCollection
from nudge_vdb_qdrant.failures import reading

T = TypeVar("T")
DEFAULT_PORTS = {"http": 80, "https": 443}
"""Where HTTP is, for a client that was told no port."""


def is_local(client: QdrantClient) -> bool:
    """Tell whether *client* holds its collections itself."""
    return isinstance(client._client, QdrantLocal)


def resolved(client: QdrantClient, name: str) -> str:
    """Return the collection's own name where *name* is an alias; a key for one collection sees no aliases.

    A server is asked over REST, whose port names it: the names that gRPC tells may be another server's.
    """
    with reading(f"{place_of(client)}/{name}"):
        aliases = {each.alias_name: each.collection_name for each in _aliases(client).aliases}
        own = aliases.get(name, name)
        if _exists(client, own):
            return own
        names = sorted(each.name for each in _collections(client).collections)
    raise UnfitCollection(f"there is no collection {name!r}; there are: {', '.join([*names, *aliases]) or 'none'}")


def _aliases(client: QdrantClient) -> models.CollectionsAliasesResponse:
    if is_local(client):
        return client.get_aliases()
    return _answered(client.http.aliases_api.get_collections_aliases().result)


def _exists(client: QdrantClient, name: str) -> bool:
    if is_local(client):
        return client.collection_exists(name)
    return _answered(client.http.collections_api.collection_exists(name).result).exists


def _collections(client: QdrantClient) -> models.CollectionsResponse:
    if is_local(client):
        return client.get_collections()
    return _answered(client.http.collections_api.get_collections().result)


def _answered(result: T | None) -> T:
    if result is None:
        raise AssertionError("an answer without a result")  # as the client says it of a server that it does not know
    return result


def engine_of(client: QdrantClient) -> str:
    """Return engine and version, for people."""
    if is_local(client):
        return "Qdrant local mode"
    with reading("version"):
        return f"Qdrant {client.info().version}"


def place_of(client: QdrantClient) -> str:
    """Return where the collection lives, spelled in one way."""
    options = client.init_options
    if options["path"]:
        return f"qdrant+local:{Path(options['path']).resolve()}"
    if options["location"] == ":memory:":
        return f"qdrant+memory:{id(client)}"
    remote: Any = client._client
    port = remote._port or DEFAULT_PORTS[remote._scheme]
    prefix = "".join(f"/{part}" for part in (remote._prefix or "").split("/") if part)
    return f"qdrant:{canonical_host(remote._host)}:{port}{prefix}"
