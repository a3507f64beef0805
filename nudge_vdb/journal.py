"""What was done to the database and to the versions, one line an event, never rewritten."""

from __future__ import annotations

import hashlib
import json
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nudge_vdb.durable import append_line, read_sealed, sealed, write_json
from nudge_vdb.errors import StateDamaged
from nudge_vdb.foreign import parsed

Event = dict[str, Any]


class Journal:
    """An append-only file of events, and beside it how much of it there must be.

    A line is the CRC-32 of the rest in 8 hexadecimal digits, a space, and a JSON object. ``version`` (number, digest)
    says that a version is kept, ``prune`` (number, perhaps remains) that it no longer is; ``begin`` (to, from, rows,
    next) opens a move of the collection from one version to another, ``batch`` (rows, written, skipped, next, perhaps
    waited) says what the database has acknowledged, ``end`` (to, from) closes it. What is sent next, by first and last
    key, is noted before it is sent.

    The head holds the size of the file and a digest of it, so that events at its end cannot vanish unnoticed. It is
    written after the line: a run that died in between leaves a line more than the head tells of.
    """

    def __init__(self, path: Path, require_hold: Callable[[], None] = lambda: None) -> None:
        """Read the journal at *path*; *require_hold* raises where this run may no longer add to it."""
        self._require_hold = require_hold
        self.path, self._head = path, path.with_name(path.name + ".head")
        head = read_sealed(self._head) if self._head.exists() else None
        content = path.read_bytes() if path.exists() else b""
        self._events, self._size = _events(path, content)
        self._digest = hashlib.sha256(content[: self._size])
        if head is not None:
            _require_all(path, head, content)

    def add(self, event: str, **facts: Any) -> None:  # noqa: ANN401 - facts are JSON
        """Append an event; durable when it returns."""
        self._require_hold()
        entry: Event = {"event": event, "time": round(time.time(), 3), **facts}
        body = json.dumps(entry, sort_keys=True).encode()
        line = b"%08x %s\n" % (zlib.crc32(body), body)
        append_line(self.path, self._size, line)
        self._size += len(line)
        self._digest.update(line)
        self._events.append(entry)
        self.seal()

    def seal(self) -> None:
        """Write down how much of the journal there is."""
        write_json(self._head, sealed({"size": self._size, "sha256": self._digest.hexdigest()}))

    @property
    def live(self) -> int:
        """The version that the last finished move led to; 0 before any."""
        return next((int(entry["to"]) for entry in reversed(self._events) if entry["event"] == "end"), 0)

    @property
    def unfinished(self) -> int | None:
        """The version that an interrupted move was to lead to, None where the last one was finished."""
        last = self._last_move()
        return int(last["to"]) if last and last["event"] == "begin" else None

    def progress(self) -> tuple[int, int]:
        """Return how many rows of the last move are done with, and of how many."""
        done, total = 0, 0
        for entry in self._events:
            if entry["event"] == "begin":
                done, total = 0, int(entry.get("rows", 0))
            elif entry["event"] == "batch":
                done += int(entry.get("rows", 0))
        return done, total

    def in_doubt(self) -> list[tuple[bytes, bytes]]:
        """Return the first and last keys of batches that were sent, since the last finished move, without an answer."""
        doubted: list[tuple[bytes, bytes]] = []
        sent: Any = None
        for entry in self._events:
            if entry["event"] == "end":
                doubted, sent = [], None
            elif entry["event"] == "batch" and "unknown" not in entry["skipped"]:
                sent = entry.get("next")
            elif entry["event"] in ("begin", "batch"):
                doubted, sent = [*doubted, *_span(sent)], entry.get("next")
        return [*doubted, *_span(sent)]

    def large_move(self, fewest: int) -> tuple[float, int, int] | None:
        """Return seconds, rows and written rows of the last whole move that wrote *fewest* or more, None before any.

        What it waited so that users come first does not count.
        """
        found, started, rows, written = None, 0.0, 0, 0
        for entry in self._events:
            if entry["event"] == "begin":
                started, rows, written = float(entry["time"]), 0, 0
            elif entry["event"] == "batch":
                rows, written = rows + int(entry.get("rows", 0)), written + int(entry["written"])
                started += float(entry.get("waited", 0.0))
            elif entry["event"] == "end" and written >= fewest:
                found = (float(entry["time"]) - started, rows, written)
        return found

    def begun(self) -> set[int]:
        """Return the versions that some row may hold: every one that a move has ever headed for and that is kept."""
        return {int(entry["to"]) for entry in self._events if entry["event"] == "begin"} - {0} - self.pruned()

    def farthest(self) -> int:
        """Return the highest version that a move has ever headed for, 0 before any."""
        return max([0, *(int(entry["to"]) for entry in self._events if entry["event"] == "begin")])

    def newest(self) -> int:
        """Return the highest number that was ever given to a version."""
        named = ("number", "to")
        return max([0, *(int(entry[name]) for entry in self._events for name in named if name in entry)])

    def finished(self) -> list[tuple[int, int]]:
        """Return the finished moves in order as (from, to)."""
        return [(int(entry["from"]), int(entry["to"])) for entry in self._events if entry["event"] == "end"]

    def kept(self) -> Mapping[int, str]:
        """Return the digests of the manifests of the versions that must be there, by number."""
        kept = {int(entry["number"]): str(entry["digest"]) for entry in self._events if entry["event"] == "version"}
        pruned = self.pruned()
        return {number: digest for number, digest in kept.items() if number not in pruned}

    def pruned(self) -> set[int]:
        """Return the numbers of the versions that were dropped."""
        return {int(entry["number"]) for entry in self._events if entry["event"] == "prune"}

    def remains(self) -> Mapping[int, str]:
        """Return the digests of the manifests of what is kept of dropped versions, by number."""
        pruned = (entry for entry in self._events if entry["event"] == "prune" and "remains" in entry)
        return {int(entry["number"]): str(entry["remains"]) for entry in pruned}

    def _last_move(self) -> Event | None:
        return next((entry for entry in reversed(self._events) if entry["event"] in ("begin", "end")), None)


def _span(sent: Sequence[str] | None) -> list[tuple[bytes, bytes]]:
    return [(bytes.fromhex(sent[0]), bytes.fromhex(sent[1]))] if sent else []


def _require_all(path: Path, head: Mapping[str, Any], content: bytes) -> None:
    size = int(head["size"])
    if hashlib.sha256(content[:size]).hexdigest() != head["sha256"]:
        raise StateDamaged(f"{path} is not what was written; restore the state from a backup")


def _events(path: Path, content: bytes) -> tuple[list[Event], int]:
    """Return the events in *content* and the number of bytes they take; a torn last line is not one."""
    whole = content.rfind(b"\n") + 1
    lines = content[:whole].split(b"\n")[:-1]
    return [_event(path, number, line) for number, line in enumerate(lines, start=1)], whole


def _event(path: Path, number: int, line: bytes) -> Event:
    checksum, _, body = line.partition(b" ")
    try:
        if checksum != b"%08x" % zlib.crc32(body):
            raise ValueError("its checksum does not fit")
        entry = parsed(body)
        if not (isinstance(entry, dict) and isinstance(entry.get("event"), str)):
            raise ValueError("it holds no event")  # noqa: TRY004 - as for what is no JSON
    except ValueError as exc:
        raise StateDamaged(f"{path} line {number} is damaged: {exc}; restore the state from a backup") from exc
    return entry
