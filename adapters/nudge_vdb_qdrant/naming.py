"""The one name of a collection, however it was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qdrant_client import QdrantClient
from qdrant_client.local.qdrant_local import QdrantLocal

from nudge_vdb.address import canonical_host
from nudge_vdb.errors import UnfitCollection
from nudge_vdb_qdrant.failures import reading


def is_local(client: QdrantClient) -> bool:
    """Tell whether *client* holds its collections itself."""
    return isinstance(client._client, QdrantLocal)


def resolved(client: QdrantClient, name: str) -> str:
    """Return the collection's own name where *name* is an alias; a key for one collection sees no aliases."""
    with reading(f"{place_of(client)}/{name}"):
        aliases = {each.alias_name: each.collection_name for each in client.get_aliases().aliases}
        own = aliases.get(name, name)
        if client.collection_exists(own):
            return own
        names = sorted(each.name for each in client.get_collections().collections)
    raise UnfitCollection(f"there is no collection {name!r}; there are: {', '.join([*names, *aliases]) or 'none'}")


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
    return f"qdrant:{canonical_host(remote._host)}:{remote._port}{remote._prefix}"
