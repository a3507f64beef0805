"""A Qdrant cluster for the tests: nodes that can be killed, frozen and started again."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from integration.engines import (
    BETWEEN_LOOKS,
    PATIENCE,
    QdrantServer,
    free_ports,
    qdrant_binary,
    running,
    wait_until_it_answers,
)

NODES = 3


@dataclass
class Node:
    """One member of a cluster; it keeps its ports and its data when it is started again."""

    folder: Path
    ports: Sequence[int]
    """REST, gRPC and the cluster's own."""
    first: Node | None = None
    """Whom to join; None for the one that begins the cluster."""
    process: subprocess.Popen[bytes] | None = None
    _running: ExitStack = field(default_factory=ExitStack)

    @property
    def server(self) -> QdrantServer:
        """The node as a server of its own."""
        return QdrantServer(self.ports[0], self.ports[1], 0 if self.process is None else self.process.pid)

    @property
    def uri(self) -> str:
        """Where the other nodes find it."""
        return f"http://127.0.0.1:{self.ports[2]}"

    def start(self) -> None:
        """Start the node, without waiting for it."""
        settings = {
            "QDRANT__SERVICE__HOST": "127.0.0.1",
            "QDRANT__SERVICE__HTTP_PORT": str(self.ports[0]),
            "QDRANT__SERVICE__GRPC_PORT": str(self.ports[1]),
            "QDRANT__CLUSTER__P2P__PORT": str(self.ports[2]),
            "QDRANT__CLUSTER__ENABLED": "true",
            "QDRANT__TELEMETRY_DISABLED": "true",
        }
        joining = [] if self.first is None else ["--bootstrap", self.first.uri]
        command = [str(qdrant_binary()), "--uri", self.uri, *joining]
        self.process = self._running.enter_context(running(command, self.folder, settings))

    def ready(self) -> None:
        """Return when the node answers."""
        assert self.process is not None
        wait_until_it_answers(f"{self.server.url}/readyz", self.process, self.folder)

    def kill(self) -> None:
        """End the node as a power cut would."""
        self._signal(signal.SIGKILL)
        self.stop()

    def freeze(self) -> None:
        """Let the node hang, its connections open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen node go on."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """End the node."""
        self._running.close()

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)


@dataclass(frozen=True)
class QdrantCluster:
    """Three nodes that know each other."""

    nodes: Sequence[Node]

    def address(self, collection: str, **options: str) -> str:
        """Return the address of *collection* at the first node."""
        return self.nodes[0].server.address(collection, **options)

    @contextmanager
    def without(self, place: int) -> Iterator[None]:
        """Go on without the node at *place*; it is killed, and started again afterwards."""
        self.nodes[place].kill()
        try:
            yield
        finally:
            self.restart(place)

    def restart(self, place: int) -> None:
        """Start the node at *place* again, and wait until it answers."""
        self.nodes[place].start()
        self.nodes[place].ready()

    def wait_until_whole(self, collection: str) -> None:
        """Return when every replica of *collection* is active, as every node sees it."""
        wait_until(lambda: all(_whole(node, collection) for node in self.nodes), f"{collection} whole on every node")


@contextmanager
def qdrant_cluster_of_three(folder: Path, ports: Sequence[int] = ()) -> Iterator[QdrantCluster]:
    """Run three nodes with their data in *folder*, perhaps at the *ports* they had before."""
    qdrant_binary()
    ports = ports or free_ports(3 * NODES)
    first = Node(folder / "node0", ports[:3])
    others = [Node(folder / f"node{place}", ports[3 * place : 3 * place + 3], first) for place in range(1, NODES)]
    with ExitStack() as stack:
        for node in (first, *others):
            stack.callback(node.stop)
            node.start()
            if node is first:
                node.ready()
        for node in others:
            node.ready()
        wait_until(lambda: all(_members(node) == NODES for node in (first, *others)), "three members of the cluster")
        yield QdrantCluster([first, *others])


def wait_until(condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Return when *condition* holds; fail, naming *what* was waited for, when *patience* seconds are not enough."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"never seen: {what}")
        time.sleep(BETWEEN_LOOKS)


def _members(node: Node) -> int:
    return len(_told(node, "cluster").get("peers", {}))


def _whole(node: Node, collection: str) -> bool:
    told = _told(node, f"collections/{collection}/cluster")
    replicas = [*told.get("local_shards", []), *told.get("remote_shards", [])]
    return bool(replicas) and all(each["state"] == "Active" for each in replicas) and not told["shard_transfers"]


def _told(node: Node, path: str) -> dict[str, Any]:
    """Return what *node* says at *path*, nothing where it cannot say yet."""
    try:
        with urlopen(f"{node.server.url}/{path}", timeout=2) as answer:
            return dict(json.load(answer)["result"])
    except (URLError, ConnectionError, TimeoutError):
        return {}
