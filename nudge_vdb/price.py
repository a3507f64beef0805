"""What a plan will cost: rows to write, bytes to keep, minutes."""

from __future__ import annotations

import time
from itertools import islice
from typing import Any

import numpy as np

from nudge_vdb.contract import Collection, agree
from nudge_vdb.lineage import Lineage
from nudge_vdb.snapshot import Content
from nudge_vdb.state import State
from nudge_vdb.writeback import batches

SAMPLED_BATCHES = 6
READS_PER_WRITE = 2.5
"""How many times as long as reading a row writing it takes, before a large write was measured: 2 to 3.5 on servers."""
LARGE = 1000
"""A move that wrote fewer rows says nothing of how fast rows are written."""


def price(collection: Collection, home: State, content: Content) -> dict[str, Any]:
    """Return what applying *content* costs, as far as can be told without writing.

    A move reads every row that any version holds twice, before it writes and afterwards.
    """
    rows, writes = len({*Lineage(home).keys(), *content.keys}), _writes(home, content)
    reading = _seconds_to_read(collection, content)
    measured = home.journal.large_move(LARGE)
    writing = READS_PER_WRITE * reading if measured is None else _seconds_to_write(*measured, reading)
    return {
        "rows_to_write": writes,
        "snapshot_bytes": sum(int(array.nbytes) for array in content.arrays().values()),
        "minutes": float(f"{(2 * rows * reading + writes * writing) / 60:.3g}"),
        "minutes_by": "reading alone; no large write was measured yet" if measured is None else "the last large write",
    }


def _writes(home: State, content: Content) -> int:
    """Return how many rows of *content* are elsewhere in the live version, and how many of that one are not in it."""
    if not home.journal.live:
        return len(content.keys)
    live, written, shared = home.version(home.journal.live).content, 0, 0
    for own in batches(len(content.keys), home.traits.width):
        places = live.keys.find(content.keys.at(own))
        known = np.flatnonzero(places >= 0)
        same = agree(live.tuned[places[known]], content.tuned[own.start + known], home.traits.tolerance)
        written, shared = written + len(own) - int(same.sum()), shared + len(known)
    return written + len(live.keys) - shared


def _seconds_to_write(seconds: float, rows: int, written: int, reading: float) -> float:
    """Return how long a row took in a move, without the time to read it."""
    return max(seconds - rows * reading, 0.0) / written


def _seconds_to_read(collection: Collection, content: Content) -> float:
    """Return how long a row takes, of a few portions that are read and compared as a move does it."""
    seconds, rows, traits = 0.0, 0, collection.traits
    for part in islice(batches(len(content.keys), traits.width), SAMPLED_BATCHES):
        start = time.perf_counter()
        room = np.empty((len(part), traits.width), np.float32)
        collection.fetch(content.keys.at(part), room)
        agree(room, content.base[part.start : part.stop], traits.tolerance)
        seconds, rows = seconds + time.perf_counter() - start, rows + len(part)
    return seconds / rows if rows else 0.0
