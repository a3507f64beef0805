"""What was done to the database, one line an event, never rewritten."""

from __future__ import annotations

import json
import time
import zlib
from pathlib import Path
from typing import Any

from nudge_vdb.durable import append_line
from nudge_vdb.errors import StateDamaged

Event = dict[str, Any]


class Journal:
    """An append-only file of events.

    A line is the CRC-32 of the rest in 8 hexadecimal digits, a space, and a JSON object. ``begin`` (to, from) opens
    a move of the collection from one version to another, ``batch`` (counts and skipped rows) says what the
    database has acknowledged, ``end`` (to) closes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._events, self._size = _read(path)

    def add(self, event: str, **facts: Any) -> None:  # noqa: ANN401 - facts are JSON
        """Append an event; durable when it returns."""
        entry: Event = {"event": event, "time": round(time.time(), 3), **facts}
        body = json.dumps(entry, sort_keys=True).encode()
        line = b"%08x %s\n" % (zlib.crc32(body), body)
        append_line(self.path, self._size, line)
        self._size += len(line)
        self._events.append(entry)

    @property
    def live(self) -> int:
        """The version that the last finished move led to; 0 before any."""
        return next((int(entry["to"]) for entry in reversed(self._events) if entry["event"] == "end"), 0)

    @property
    def unfinished(self) -> int | None:
        """The version that an interrupted move was to lead to, None where the last one was finished."""
        last = next((entry for entry in reversed(self._events) if entry["event"] in ("begin", "end")), None)
        return None if last is None or last["event"] == "end" else int(last["to"])

    def begun(self) -> set[int]:
        """Return the versions that some row may hold: every one that a move has ever headed for."""
        return {int(entry["to"]) for entry in self._events if entry["event"] == "begin"} - {0}

    def finished(self) -> list[tuple[int, int]]:
        """Return the finished moves in order as (from, to)."""
        return [(int(entry["from"]), int(entry["to"])) for entry in self._events if entry["event"] == "end"]


def _read(path: Path) -> tuple[list[Event], int]:
    """Return the events in *path* and the number of bytes they take; a torn last line is not one."""
    content = path.read_bytes() if path.exists() else b""
    whole = content.rfind(b"\n") + 1
    lines = content[:whole].split(b"\n")[:-1]
    return [_event(path, number, line) for number, line in enumerate(lines, start=1)], whole


def _event(path: Path, number: int, line: bytes) -> Event:
    checksum, _, body = line.partition(b" ")
    try:
        if checksum != b"%08x" % zlib.crc32(body):
            raise ValueError("its checksum does not fit")
        entry: Event = json.loads(body)
    except ValueError as exc:
        raise StateDamaged(f"{path} line {number} is damaged: {exc}; restore the state from a backup") from exc
    return entry
