"""From an address to an open collection."""

from __future__ import annotations

import os
from pathlib import Path

from qdrant_client import QdrantClient

from nudge_vdb.address import Address
from nudge_vdb.errors import BadAddress, Unreachable
from nudge_vdb_qdrant.collection import QdrantCollection

DEFAULT_TIMEOUT = 60.0
DEFAULT_PORT = 6333


class OwnedCollection(QdrantCollection):
    """A collection that closes its client when it is closed."""

    def close(self) -> None:
        """Close the client; a local folder is free for others afterwards."""
        self._client.close()


def open_collection(address: Address) -> OwnedCollection:
    """Open the collection at a ``qdrant``, ``qdrant+https`` or ``qdrant+local`` address.

    Raises:
        BadAddress: an unknown transport or option, or a folder that is not there.
        UnfitCollection: no such collection or vector, or one that cannot be tuned.
        Unreachable: nobody answers, or another process has the folder open.
    """
    address.allow("vector", "timeout")
    client = open_client(address)
    try:
        return OwnedCollection(client, address.collection, address.option("vector"))
    except BaseException:
        client.close()
        raise


def open_client(address: Address) -> QdrantClient:
    """Return a client of the engine at *address*."""
    if address.transport == "local":
        return _local_client(address)
    if address.transport not in ("", "https"):
        raise BadAddress(f"qdrant+{address.transport} is not known; use qdrant, qdrant+https or qdrant+local")
    if not address.host:
        raise BadAddress("a qdrant address names a host, such as qdrant://localhost:6333/articles")
    return QdrantClient(
        host=address.host,
        port=address.port or DEFAULT_PORT,
        https=address.transport == "https",
        prefix=address.path.strip("/") or None,
        api_key=os.environ.get("QDRANT_API_KEY"),
        timeout=max(1, round(address.seconds("timeout", DEFAULT_TIMEOUT))),
        check_compatibility=False,
    )


def _local_client(address: Address) -> QdrantClient:
    if not (Path(address.file) / "meta.json").is_file():
        raise BadAddress(f"{address.file} is no folder of Qdrant's local mode: it holds no meta.json")
    return open_folder(address.file)


def open_folder(folder: str) -> QdrantClient:
    """Return a client of the local-mode folder *folder*, made if it is not there."""
    try:
        return QdrantClient(path=folder)
    except RuntimeError as exc:
        raise Unreachable(
            f"{folder} is open in another process, and local mode allows one; close it there, or run a Qdrant server"
        ) from exc
