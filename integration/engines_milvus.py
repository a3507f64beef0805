"""A Milvus 2.3.5 server: fetched once per user, started on free ports, stopped by its process.

The package is Milvus's own, with the whole server inside. It answers on every interface of the machine, whatever it is
told; only its etcd can be kept to the loopback interface.
"""

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from integration.engines import CACHE, Absent, for_tests, free_ports, running, wait_until_it_answers

VERSION = "2.3.5"
HOME = CACHE / "engines" / f"milvus-{VERSION}"
_MOST_SECONDS_TO_FETCH = 600
_SETTLED_PORTS = 2  # the one it tells its health on, the one its etcd looks for others of its kind on

# The package's own way to start it leaves the server behind when its starter is killed, unpacks 250 MB every time, and
# lets etcd take ports that another one may hold; this becomes the server, so that there is one process to stop.
_BECOME_SERVER = """
import json, os, socket, sys
from milvus import default_server
home, folder, health, peers, *ports = sys.argv[1:]
names = [name for name in default_server.config_keys if name.endswith("_port")]
default_server.config.update(data_dir=folder, **dict(zip(names, ports)))
# It would take ports for taken that a server which was killed has left, and which another can have at once.
default_server.config.try_bind_port = lambda port: socket.socket()
default_server.config.resolve()
client, peer = f"http://127.0.0.1:{ports[names.index('etcd_port')]}", f"http://127.0.0.1:{peers}"
etcd = os.path.join(folder, "configs", "etcd.yaml")
with open(etcd, "w") as file:
    json.dump({
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"default={peer}",
    }, file)
libraries = os.path.join(home, "bin")
settings = {
    "DEPLOY_MODE": "STANDALONE",
    "METRICS_PORT": health,
    "ETCD_CONFIG_PATH": etcd,
    "MILVUS_RUN_DIR": os.path.join(folder, "run"),
    "LD_LIBRARY_PATH": libraries,
}
os.execve(os.path.join(libraries, "milvus"), ["milvus", "run", "standalone"], os.environ | settings)
"""
_QUICK = {
    "PROXY_TIMETICKINTERVAL": "20",  # a read of the latest waits for the server's clock, which else beats at 200 ms
    "PROXY_GRPC_SERVERMAXSENDSIZE": str(8 << 20),  # an eighth of what is usual, so that eight times less fills it
}
PORTS = _SETTLED_PORTS + 10
"""How many ports a server takes."""
_PROXY = 2  # which of them clients connect to


@dataclass(frozen=True)
class MilvusServer:
    """A running Milvus."""

    port: int
    process: int

    @property
    def uri(self) -> str:
        """Where clients connect."""
        return f"http://127.0.0.1:{self.port}"

    def address(self, collection: str, **options: str) -> str:
        """Return the address of *collection*, which may be database/collection."""
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"milvus://127.0.0.1:{self.port}/{collection}" + (f"?{query}" if query else "")


@contextmanager
def running_milvus(
    folder: Path, settings: Mapping[str, str] | None = None, ports: Sequence[int] = ()
) -> Iterator[MilvusServer]:
    """Run a Milvus server with its data in *folder*, perhaps with more *settings* and at the *ports* it had before.

    Raises:
        Absent: it cannot be fetched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ports = ports or free_ports(PORTS)
    command = [str(milvus_python()), "-c", _BECOME_SERVER, str(HOME), str(folder), *map(str, ports)]
    with running(command, folder, {**_QUICK, **(settings or {})}) as process:
        wait_until_it_answers(f"http://127.0.0.1:{ports[0]}/healthz", process, folder)
        yield MilvusServer(ports[_SETTLED_PORTS + _PROXY], process.pid)
        process.kill()  # asked to end, it takes longer than anybody waits


def milvus_for_tests(folder: Path, settings: Mapping[str, str] | None = None) -> AbstractContextManager[MilvusServer]:
    """Run a Milvus server; where there is none, skip the test, or fail it if engines are required."""
    return for_tests(running_milvus(folder, settings))


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory):
    """A Milvus server for all tests."""
    folder = tmp_path_factory.mktemp("milvus_server")
    with milvus_for_tests(folder) as server:
        yield server
    shutil.rmtree(folder, ignore_errors=True)  # a quarter of a GB


def milvus_python() -> Path:
    """Return the Python of the environment that holds the server, which is made the first time.

    Raises:
        Absent: it cannot be made.
    """
    HOME.mkdir(parents=True, exist_ok=True)
    complete = HOME / "complete"
    with (HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            _fetch()
            complete.touch()
    return _PYTHON


_PYTHON = HOME / "venv" / "bin" / "python"


def _fetch() -> None:
    if sys.platform != "linux":
        raise Absent(f"no Milvus: the package milvus=={VERSION} is for Linux")
    _run(sys.executable, "-m", "venv", "--clear", str(HOME / "venv"))
    _run(str(_PYTHON), "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", f"milvus=={VERSION}")
    _run(str(_PYTHON), "-c", f"from milvus import _initialize_data_files as unpack; unpack({str(HOME)!r})")


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_MOST_SECONDS_TO_FETCH)
    except subprocess.CalledProcessError as exc:
        raise Absent(f"no Milvus: {command[-1]} failed: {exc.stderr.strip()[-500:]}") from exc
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise Absent(f"no Milvus: {exc}") from exc
