"""A TCP proxy that fails on demand, at the byte it is told to: what lies between a client and its server.

Faults are planned by how many bytes have passed in one direction, over all connections, since they were planned; none
happens by chance. They last for a moment, for some seconds, or until :meth:`Proxy.heal`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

CHUNK = 16 << 10
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Way(StrEnum):
    """A direction."""

    REQUEST = "request"
    RESPONSE = "response"


class Kind(StrEnum):
    """What may go wrong."""

    CUT = "cut"
    """The connection is reset after the last byte."""
    LOSE_ANSWER = "lose answer"
    """What was asked is carried out; the next answer never comes, and the connection is reset."""
    REFUSE = "refuse"
    """Connections are reset, and new ones refused."""
    SWALLOW = "swallow"
    """Connections are accepted, and nothing that is sent over any arrives."""
    DELAY = "delay"
    """Whatever is sent arrives *pace* seconds later, piece by piece."""
    THROTTLE = "throttle"
    """No more than *pace* bytes pass in a second."""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong once *after* bytes have passed one *way*."""

    kind: Kind
    way: Way = Way.REQUEST
    after: int = 0
    lasting: float | None = None
    """Seconds; None is until it is healed."""
    pace: float = 0.0


class Link:
    """One client, connected to the server."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.sinks = {Way.REQUEST: server, Way.RESPONSE: client}
        self.answers = Answers()
        self.swallowed = self.broken = False

    def reset(self) -> None:
        """End it as a broken network does, without a word of good-bye."""
        self.broken = True
        for writer in self.sinks.values():
            kernel: socket.socket = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                kernel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            writer.transport.abort()


class Answers:
    """Tells answers from the small talk of HTTP/2 in what a server sends; all of HTTP/1 is answers."""

    _HEAD = 9
    _ANSWERS = (0, 1)  # the types of frames that hold content and headers
    _PLAIN = b"H"  # of HTTP/1.1, which may come a byte at a time; a frame of HTTP/2 would be of 4.5 MiB to begin so

    def __init__(self) -> None:
        self._head, self._left, self._kind = b"", 0, -1
        self._plain: bool | None = None

    def in_(self, content: bytes) -> bool:
        """Tell whether any of *content*, which follows what was shown before, belongs to an answer."""
        if content and self._plain is None:
            self._plain = content.startswith(self._PLAIN)
        return bool(content and self._plain) or any(kind in self._ANSWERS for kind in list(self._kinds(content)))

    def _kinds(self, content: bytes) -> Iterator[int]:
        while content:
            if self._left:
                yield self._kind
                taken = min(self._left, len(content))
                self._left, content = self._left - taken, content[taken:]
                continue
            wanted = self._HEAD - len(self._head)
            self._head, content = self._head + content[:wanted], content[wanted:]
            if len(self._head) == self._HEAD:
                self._left, self._kind, self._head = int.from_bytes(self._head[:3], "big"), self._head[3], b""
                yield self._kind


class Proxy:
    """A port of the loopback interface behind which another one stands."""

    def __init__(self, target: int) -> None:
        self.faults: Counter[Kind] = Counter()
        """How often each has happened."""
        self.counted: Counter[Way] = Counter()
        """How many bytes have passed since faults were last planned."""
        self._target, self._links, self._planned, self._ongoing = target, set[Link](), list[Fault](), list[Fault]()
        self._listener: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port = 0
        self._do(self._listen())

    def plan(self, *faults: Fault) -> None:
        """Count from now on, and let *faults* happen, each once; those of before are over."""
        self._do(self._plan(faults))

    def heal(self) -> None:
        """Let nothing be wrong any more; a connection over which something was swallowed stays broken."""
        self.plan()

    def close(self) -> None:
        """Stop, and reset every connection."""
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        future: Future[None] = asyncio.run_coroutine_threadsafe(work, self._loop)
        future.result()

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener = await asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=CHUNK)
            self.port = self._listener.sockets[0].getsockname()[1]

    async def _plan(self, faults: tuple[Fault, ...]) -> None:
        await self._recover()
        self._planned = list(faults)
        self.counted.clear()

    async def _recover(self) -> None:
        self._ongoing.clear()
        for link in [link for link in self._links if link.swallowed]:
            link.reset()
        await self._listen()

    async def _stop(self) -> None:
        self._ongoing.clear()
        self._shut()
        others = asyncio.all_tasks(self._loop) - {asyncio.current_task()}
        await asyncio.wait([asyncio.ensure_future(asyncio.sleep(0)), *others])

    def _shut(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for link in list(self._links):
            link.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answers, server = await asyncio.open_connection("127.0.0.1", self._target, limit=CHUNK)
        except OSError:  # the server is not there
            writer.transport.abort()
            return
        link = Link(writer, server)
        self._links.add(link)
        ways = {Way.REQUEST: reader, Way.RESPONSE: answers}
        pumps = [asyncio.ensure_future(self._pump(link, way, source)) for way, source in ways.items()]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)  # where one way ends, the other does
        self._links.discard(link)
        link.reset()
        await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, link: Link, way: Way, source: asyncio.StreamReader) -> None:
        """Pass on what comes from *source*, until a side ends."""
        sink = link.sinks[way]
        while content := await source.read(CHUNK):
            for piece in self._pieces(link, way, content):
                await self._hold_up(len(piece))
                if piece and not sink.is_closing():
                    sink.write(piece)
                    await sink.drain()

    def _pieces(self, link: Link, way: Way, content: bytes) -> Iterator[bytes]:
        """Yield what passes of *content*, letting the faults happen that fall into it."""
        while content:
            due = min((each for each in self._planned if each.way is way), key=lambda each: each.after, default=None)
            reach = len(content) if due is None else max(0, due.after - self.counted[way])
            piece, content = content[:reach], content[reach:]
            if self._lost(link, way, piece):
                return
            self.counted[way] += len(piece)
            yield piece
            if content and due is not None:
                self._planned.remove(due)
                self._happen(due, link)

    def _lost(self, link: Link, way: Way, piece: bytes) -> bool:
        """Tell whether *piece* never arrives."""
        answers = way is Way.RESPONSE and link.answers.in_(piece)
        ongoing = {fault.kind: fault for fault in self._ongoing}
        if Kind.LOSE_ANSWER in ongoing and answers:
            self._ongoing.remove(ongoing[Kind.LOSE_ANSWER])
            link.reset()
            return True
        link.swallowed = link.swallowed or Kind.SWALLOW in ongoing
        return link.swallowed or link.broken

    def _happen(self, fault: Fault, link: Link) -> None:
        self.faults[fault.kind] += 1
        if fault.kind is Kind.CUT:
            link.reset()
            return
        self._ongoing.append(fault)
        if fault.kind is Kind.REFUSE:
            self._shut()
        if fault.lasting is not None:
            self._loop.call_later(fault.lasting, lambda: asyncio.ensure_future(self._end(fault)))

    async def _end(self, fault: Fault) -> None:
        if fault in self._ongoing:
            await self._recover()

    async def _hold_up(self, count: int) -> None:
        for fault in self._ongoing:
            if fault.kind is Kind.DELAY:
                await asyncio.sleep(fault.pace)
            if fault.kind is Kind.THROTTLE:
                await asyncio.sleep(count / fault.pace)


@contextmanager
def proxy_to(port: int) -> Iterator[Proxy]:
    """Yield a proxy to *port*, and stop it in the end."""
    proxy = Proxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
