"""Clients for the engines that addresses name, and the one name that every spelling of an engine comes down to."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from pymilvus import MilvusClient
from pymilvus.exceptions import ConnectionConfigException

from nudge_vdb.address import Address
from nudge_vdb.errors import BackendUnavailable, BadAddress, Unreachable
from nudge_vdb_milvus.failures import reading

DEFAULT_TIMEOUT = 30.0
"""Seconds; without any, a server that hangs is waited for for ever."""

_SCHEMES = {"": "http", "https": "https"}
_LITE = "lite"


def connect(address: Address) -> MilvusClient:
    """Return a client of the engine that *address* names, to be closed by the caller.

    Raises:
        BadAddress: an unknown transport or option, no such file, a path that names no database.
        Unreachable: nobody answers, or another process holds the file.
        Refused: the token in MILVUS_TOKEN is not accepted.
    """
    if address.transport == _LITE:
        address.allow("vector", "timeout")
        return open_lite(existing_file(address), address.seconds("timeout", DEFAULT_TIMEOUT))
    if address.transport not in _SCHEMES:
        known = ", ".join(f"{address.backend}{suffix}://" for suffix in ("", "+https", "+lite"))
        raise BadAddress(f"{address.backend}+{address.transport}:// is not known; known: {known}")
    address.allow("vector", "timeout", "load")
    return _open_server(address)


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
                "a database belongs to one process at a time"
            ) from exc


def _open_server(address: Address) -> MilvusClient:
    database = address.path.strip("/")
    if not address.host or "/" in database:
        raise BadAddress("expected milvus://host[:port]/[database/]collection")
    port = "" if address.port is None else f":{address.port}"
    with reading(f"{address.host}{port}"):
        return MilvusClient(
            f"{_SCHEMES[address.transport]}://{address.host}{port}",
            token=os.environ.get("MILVUS_TOKEN", ""),
            db_name=database,
            timeout=address.seconds("timeout", DEFAULT_TIMEOUT),
            dedicated=True,
        )


def name_of(client: MilvusClient, collection: str) -> str:
    """Return the canonical name of a collection, the same for every client of the engine."""
    config = client._config  # the client tells neither its address nor its database in public
    file = _file_behind(config.address)
    engine = f"milvus://{config.address}" if file is None else f"milvus+lite://{file}"
    return f"{engine}/{config.db_name or 'default'}/{collection}"


def _file_behind(address: str) -> Path | None:
    """Return the file that the Milvus Lite of this process serves at *address*, None where it is not ours."""
    if find_spec("milvus_lite") is None:
        return None
    from milvus_lite.server_manager import server_manager_instance

    served = server_manager_instance._servers.items()  # no public list either
    return next((Path(file).resolve() for file, (_, _, port) in served if address == f"127.0.0.1:{port}"), None)
