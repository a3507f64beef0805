"""Where and as whom requests are sent: all that a channel of our own needs, and the one name of an engine."""

from __future__ import annotations

import base64
import copy
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grpc
from pymilvus import MilvusClient, connections

from nudge_vdb.address import canonical_host
from nudge_vdb.errors import BackendUnavailable, BadAddress
from nudge_vdb.secret import remember

DEFAULT_PORTS = {"http": 19530, "https": 443}
_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    # Left alone, a channel waits up to two minutes before it looks whether a server is back.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]


@dataclass(frozen=True, slots=True)
class Certificates:
    """The files that an encrypted connection is checked with."""

    ca: str = ""
    """Whom to believe; empty for the authorities that the system believes."""
    certificate: str = ""
    """Who we are, if the server asks, and the key that proves it."""
    key: str = ""

    def for_client(self) -> dict[str, str]:
        """Return the files as the client takes them: it knows a certificate of its own only with the authority."""
        if self.certificate:
            return {"ca_pem_path": self.ca, "client_pem_path": self.certificate, "client_key_path": self.key}
        return {"server_pem_path": self.ca} if self.ca else {}

    def credentials(self) -> grpc.ChannelCredentials:
        """Return the files' contents for a channel."""
        return grpc.ssl_channel_credentials(_content(self.ca), _content(self.key), _content(self.certificate))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An engine's address with everything that belongs to talking to it."""

    target: str
    """host:port"""
    database: str = ""
    token: str = field(default="", repr=False)
    """user:password or a key, empty for none."""
    certificates: Certificates | None = None
    """None where the connection is not encrypted."""

    def __post_init__(self) -> None:
        """Keep the token out of every message."""
        remember(self.token)

    def channel(self) -> grpc.Channel:
        """Open a channel of our own; nothing is sent yet."""
        if self.certificates is None:
            return grpc.insecure_channel(self.target, _OPTIONS)
        return grpc.secure_channel(self.target, self.certificates.credentials(), _OPTIONS)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every request."""
        if not self.token:
            return ()
        return (("authorization", base64.b64encode(self.token.encode()).decode()),)

    def name_of(self, collection: str) -> str:
        """Return the canonical name of *collection*, the same for every client of the engine."""
        file = _file_behind(self.target)
        host, _, port = self.target.rpartition(":")
        engine = f"milvus://{canonical_host(host)}:{port}" if file is None else f"milvus+lite://{file}"
        return f"{engine}/{self.database or 'default'}/{collection}"


def endpoint_of(client: MilvusClient) -> Endpoint:
    """Return where *client* sends its requests.

    Raises:
        BackendUnavailable: this release of the client does not tell.
    """
    config = getattr(client, "_config", None)  # not public, nor is there anything public that tells
    known = _told_by(config) if config is not None else _told_by_alias(getattr(client, "_using", None))
    if known is None:
        raise BackendUnavailable(
            "this release of pymilvus does not tell where its client is connected; open the collection by its address, "
            "as in nudge_vdb.connect('milvus://host:19530/collection')"
        )
    return known


def bound(client: MilvusClient) -> MilvusClient:
    """Return a view of *client* that stays with the database of now, over the same connection.

    ``client.use_database`` sends all later requests of a client elsewhere: rows would go to one database, and the note
    that guards them to another.
    """
    view = copy.copy(client)
    if hasattr(client, "_config"):  # where the client keeps its database, for which there is no public parameter
        view._config = copy.copy(client._config)
    return view


def _told_by(config: Any) -> Endpoint | None:  # noqa: ANN401 - pymilvus.client.connection_manager.ConnectionConfig
    try:
        options = config.get_handler_kwargs()
        return Endpoint(config.address, config.db_name, config.token, _certificates(options))
    except AttributeError:
        return None


def _told_by_alias(alias: str | None) -> Endpoint | None:
    """Return what clients before 2.6 tell by the name of their connection; they keep passwords to themselves."""
    told = connections.get_connection_addr(alias) if alias else {}
    if not told.get("address") or told.get("user"):
        return None
    return Endpoint(told["address"], told.get("db_name", ""), certificates=_certificates(told))


def _certificates(options: dict[str, Any]) -> Certificates | None:
    if not options.get("secure"):
        return None
    authority = options.get("server_pem_path") or options.get("ca_pem_path", "")
    return Certificates(authority, options.get("client_pem_path", ""), options.get("client_key_path", ""))


def _content(file: str) -> bytes | None:
    try:
        return Path(file).read_bytes() if file else None
    except OSError as exc:
        raise BadAddress(f"the certificate or key {file} cannot be read: {exc.strerror}") from exc


def _file_behind(target: str) -> Path | None:
    """Return the file that the Milvus Lite of this process serves at *target*, None where it is not ours."""
    if find_spec("milvus_lite") is None:
        return None
    from milvus_lite.server_manager import server_manager_instance

    served = server_manager_instance._servers.items()  # no public list
    return next((Path(file).resolve() for file, (_, _, port) in served if target == f"127.0.0.1:{port}"), None)
