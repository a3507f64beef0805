"""Servers that can be killed, paused, and started again with the same data at the same ports."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from integration.engines import free_ports, qdrant_server
from integration.engines_milvus import PORTS, running_milvus
from integration.witness import MilvusWitness, QdrantWitness, Witness

Serve = Callable[..., AbstractContextManager[Any]]
ENGINES: dict[str, tuple[Serve, int, Callable[..., Witness]]] = {
    "qdrant": (qdrant_server, 2, QdrantWitness),
    "milvus": (running_milvus, PORTS, MilvusWitness),
}
"""How a server is run, how many ports it takes, and who tells what it holds."""


class Mortal:
    """A server of an engine, with its data in *folder*."""

    def __init__(self, engine: str, folder: Path) -> None:
        self._serve, count, self._witness = ENGINES[engine]
        self._folder, self._ports, self._running = folder, free_ports(count), ExitStack()
        self.start()

    def start(self) -> None:
        """Start it, and return when it answers."""
        self._server = self._running.enter_context(self._serve(self._folder, ports=self._ports))

    def kill(self) -> None:
        """Kill it as the kernel does when memory runs out."""
        os.kill(self._server.process, signal.SIGKILL)
        self.stop()

    def pause(self) -> None:
        """Let it stand still."""
        os.kill(self._server.process, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it work again."""
        os.kill(self._server.process, signal.SIGCONT)

    def stop(self) -> None:
        """Stop it."""
        self._running.close()

    def witness(self, name: str, **options: str) -> Witness:
        """Return the engine's own client at the collection *name*, and the address with *options*."""
        return self._witness(self._server, name, **options)


@contextmanager
def mortal(engine: str, folder: Path) -> Iterator[Mortal]:
    """Yield a server, and stop it in the end."""
    server = Mortal(engine, folder)
    try:
        yield server
    finally:
        server.stop()
