"""From an address to an open collection."""

from __future__ import annotations

import logging
import sqlite3
import warnings
from pathlib import Path
from typing import Any

import grpc
from qdrant_client import QdrantClient
from qdrant_client import grpc as messages

from nudge_vdb.address import Address, is_exposed, require_sendable, secret_in
from nudge_vdb.errors import BadAddress, Refused, Unreachable
from nudge_vdb.secret import hidden
from nudge_vdb_qdrant.collection import DEFAULT_TIMEOUT, QdrantCollection
from nudge_vdb_qdrant.scope import Scope, scope_of
from nudge_vdb_qdrant.tls import OPTIONS, papers_of
from nudge_vdb_qdrant.wires import Wires

log = logging.getLogger(__name__)

DEFAULT_PORT = 6333
DEFAULT_GRPC_PORT = 6334
PROBE_SECONDS = 5.0
REFUSALS = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
)
UNCOMPRESSED: dict[str, Any] = {"grpc.compression_enabled_algorithms_bitset": 1}


_SLOWER = "using REST, three to four times slower"
_OTHER = "the {} belongs to another server than the {}; name the one that belongs to it with grpc_port="
_UNTOLD = (
    "whether the {} belongs to the server at the {} is told only to a key that may read the collection whole (access "
    "r, rw or m)"
)


class _OneWire(Exception):
    """What answers gRPC is not known to be the server that the address names."""

    def __init__(self, wires: Wires) -> None:
        super().__init__(wires.value)
        self.wires = wires


class OwnedCollection(QdrantCollection):
    """A collection that closes its client when it is closed."""

    def _settle(self, wires: Wires) -> None:
        if wires is not Wires.ONE:
            raise _OneWire(wires)

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
    address.allow("vector", "where", "filter", "shard_key", "timeout", "grpc_port", *OPTIONS)
    scope = scope_of(address)
    try:
        return _opened(open_client(address), address, scope)
    except _OneWire as exc:
        if exc.wires is Wires.OTHER and address.option("grpc_port") is not None:
            raise BadAddress(_OTHER.format(_grpc_place(address), _place(address))) from exc
        why = _OTHER if exc.wires is Wires.OTHER else _UNTOLD
        log.warning("%s; %s", why.format(_grpc_place(address), _place(address)), _SLOWER)
    return _opened(_rest_client(address), address, scope)


def _opened(client: QdrantClient, address: Address, scope: Scope) -> OwnedCollection:
    try:
        timeout = address.seconds("timeout", DEFAULT_TIMEOUT)
        vector, shard_key = address.option("vector"), address.option("shard_key")
        return OwnedCollection(client, address.collection, vector, timeout=timeout, scope=scope, shard_key=shard_key)
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
    if _key() and not address.transport and is_exposed(address.host):
        log.warning(
            "the key in QDRANT_API_KEY is sent to %s unencrypted, for all on the way to read; write qdrant+https://",
            address.host,
        )
    return _server_client(address)


def _server_client(address: Address) -> QdrantClient:
    """Return a client that talks gRPC, or REST where the gRPC port does not answer; responses are not compressed.

    The client asks for gzip by default, and packing vectors costs the server ten times what sending them does.
    """
    options = {**UNCOMPRESSED, **papers_of(address).for_grpc()}
    fast = _client(address, grpc_port=_grpc_port(address), prefer_grpc=True, grpc_options=options)
    why = _silence(fast, min(address.seconds("timeout", DEFAULT_TIMEOUT), PROBE_SECONDS))
    if why is None:
        return fast
    fast.close()
    log.warning("the %s does not answer (%s); %s", _grpc_place(address), hidden(why), _SLOWER)
    return _rest_client(address)


def _rest_client(address: Address) -> QdrantClient:
    return _client(address, metadata={"accept-encoding": "identity"})


def _client(address: Address, **more: Any) -> QdrantClient:  # noqa: ANN401 - as the client takes them
    with warnings.catch_warnings():  # of a key without encryption, which is warned of where it leaves the machine
        warnings.filterwarnings("ignore", "Api key is used with an insecure connection")
        return QdrantClient(**_common(address), **more)


def _common(address: Address) -> dict[str, Any]:
    return {
        "host": address.host,
        "port": _port(address),
        "https": address.transport == "https",
        "prefix": address.path.strip("/") or None,
        "api_key": _key(),
        "timeout": max(1, round(address.seconds("timeout", DEFAULT_TIMEOUT))),
        "check_compatibility": False,
        **papers_of(address).for_rest(),
    }


def _key() -> str | None:
    """Return the key in QDRANT_API_KEY."""
    key = secret_in("QDRANT_API_KEY")
    require_sendable(key, "QDRANT_API_KEY")
    return key


def _place(address: Address) -> str:
    return f"REST port {_port(address)} of {address.host}"


def _grpc_place(address: Address) -> str:
    return f"gRPC port {_grpc_port(address)} of {address.host}"


def _port(address: Address) -> int:
    return address.port or DEFAULT_PORT


def _silence(client: QdrantClient, timeout: float) -> str | None:
    """Return why the server cannot be spoken to over gRPC; one that refuses what it is asked has been spoken to."""
    try:
        client.grpc_points.Get(messages.GetPoints(collection_name=""), timeout=timeout)
    except grpc.RpcError as exc:
        if exc.code() in REFUSALS:
            return None
        return f"{exc.code().name}: {exc.details()}"[:300]
    return None


def _grpc_port(address: Address) -> int:
    text = address.option("grpc_port") or str(DEFAULT_GRPC_PORT)
    if not text.isascii() or not text.isdigit() or len(text) > 5 or not 0 < int(text) < 2**16:
        raise BadAddress(f"option grpc_port={text}: give a port number")
    return int(text)


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
            f"{folder} is open in another process, and local mode allows one; close it there, or run a Qdrant server",
            passes=False,
        ) from exc
    except (sqlite3.Error, ValueError, KeyError, TypeError, AttributeError, OSError) as exc:  # whatever its files hold
        raise Refused(
            f"{folder} cannot be opened as a folder of Qdrant's local mode: {exc}; look at its permissions and at the "
            "disk, or restore it from a backup"
        ) from exc
