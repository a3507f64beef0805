"""Clients for the engines that addresses name."""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec
from pathlib import Path

from pymilvus import MilvusClient
from pymilvus.exceptions import ConnectionConfigException

from nudge_vdb.address import Address, is_exposed, secret_in
from nudge_vdb.errors import BackendUnavailable, BadAddress, Unreachable
from nudge_vdb_milvus import scope
from nudge_vdb_milvus.endpoint import DEFAULT_PORTS, Certificates, Endpoint, endpoint_of
from nudge_vdb_milvus.failures import reading

log = logging.getLogger(__name__)

DEFAULT_TIMEOUT = 60.0
"""Seconds; without any, a server that hangs is waited for for ever."""

_SCHEMES = {"": "http", "https": "https"}
_LITE = "lite"
_OPTIONS = ("vector", "timeout", *scope.OPTIONS)
_TLS = ("tls_ca", "tls_cert", "tls_key")


def connect(address: Address) -> MilvusClient:
    """Return a client of the engine that *address* names, to be closed by the caller.

    Raises:
        BadAddress: an unknown transport or option, no such file, a path that names no database.
        Unreachable: nobody answers, or another process holds the file.
        Refused: the token in MILVUS_TOKEN is not accepted, or the certificate of the server.
    """
    # Every failure is translated and told once; the client's own log of it, with a traceback, would tell it again.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    if address.transport == _LITE:
        address.allow(*_OPTIONS)
        return open_lite(existing_file(address), address.seconds("timeout", DEFAULT_TIMEOUT))
    return _open_server(address, server_of(address))


def endpoint_behind(address: Address, client: MilvusClient) -> Endpoint:
    """Return where *client*, which was connected to *address*, sends its requests."""
    return endpoint_of(client) if address.transport == _LITE else server_of(address)


def existing_file(address: Address) -> Path:
    """Return the Milvus Lite database that *address* names; it exists, since opening would create it."""
    file = lite_file(address)
    if not file.is_dir():
        raise BadAddress(f"there is no Milvus Lite database {file}; check the path, a new one is never created")
    return file


def lite_file(address: Address) -> Path:
    """Return where the Milvus Lite database that *address* names is to be."""
    # Not resolved: Milvus Lite knows a database that is open already by this spelling of its path.
    file = Path(os.path.abspath(address.file))  # noqa: PTH100
    if file.suffix != ".db":
        raise BadAddress(f"{file} is no Milvus Lite database; expected milvus+lite:///folder/name.db/collection")
    return file


def open_lite(file: Path, timeout: float) -> MilvusClient:
    """Open the Milvus Lite database *file*, or create it."""
    if find_spec("milvus_lite") is None:
        raise BackendUnavailable("Milvus Lite is not installed; run: pip install 'nudge-vdb[milvus]'")
    with reading(str(file)):
        try:
            return MilvusClient(str(file), timeout=timeout, dedicated=True)
        except ConnectionConfigException as exc:
            raise Unreachable(
                f"Milvus Lite cannot open {file}; if another process has it open, let that end first: "
                "a database belongs to one process at a time; otherwise what it logged says why",
                passes=False,
            ) from exc


def server_of(address: Address) -> Endpoint:
    """Return the server that *address* names.

    Raises:
        BadAddress: an unknown transport or option, no host, a path that names no database.
    """
    scheme = _SCHEMES.get(address.transport)
    if scheme is None:
        known = ", ".join(f"{address.backend}{suffix}://" for suffix in ("", "+https", "+lite"))
        raise BadAddress(f"{address.backend}+{address.transport}:// is not known; known: {known}")
    encrypted = scheme == "https"
    address.allow(*_OPTIONS, "load", "release", *(_TLS if encrypted else ()))
    database = address.path.strip("/")
    if not address.host or "/" in database:
        raise BadAddress("expected milvus://host[:port]/[database/]collection")
    target = f"{address.host}:{address.port or DEFAULT_PORTS[scheme]}"
    certificates = _certificates(address) if encrypted else None
    return Endpoint(target, database, secret_in("MILVUS_TOKEN") or "", certificates)


def _certificates(address: Address) -> Certificates:
    given = {name: address.option(name) or "" for name in _TLS}
    if bool(given["tls_cert"]) != bool(given["tls_key"]) or (given["tls_cert"] and not given["tls_ca"]):
        raise BadAddress("tls_cert=, tls_key= and tls_ca= go together; tls_ca= may also stand alone")
    missing = [f"{name}={file}" for name, file in given.items() if file and not Path(file).is_file()]
    if missing:
        raise BadAddress(f"there is no such file: {', '.join(missing)}")
    return Certificates(*given.values())


def _open_server(address: Address, endpoint: Endpoint) -> MilvusClient:
    scheme = "http" if endpoint.certificates is None else "https"
    files = {} if endpoint.certificates is None else endpoint.certificates.for_client()
    if endpoint.token and endpoint.certificates is None and is_exposed(address.host):
        log.warning(
            "the token in MILVUS_TOKEN is sent to %s unencrypted, for all on the way to read; write milvus+https://",
            address.host,
        )
    with reading(endpoint.target):
        return MilvusClient(
            f"{scheme}://{endpoint.target}",
            token=endpoint.token,
            db_name=endpoint.database,
            timeout=address.seconds("timeout", DEFAULT_TIMEOUT),
            dedicated=True,
            **files,
        )
