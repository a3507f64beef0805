"""What a plan will cost: rows to write, bytes to keep, minutes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from nudge_vdb.contract import Collection, RowKey, agree
from nudge_vdb.lineage import Lineage
from nudge_vdb.snapshot import Content
from nudge_vdb.state import State
from nudge_vdb.writeback import batches

SAMPLED_BATCHES = 8
LARGE = 1000
"""A move that wrote fewer rows says nothing of how fast rows are written."""


def price(collection: Collection, home: State, content: Content, throttle: float | None = None) -> dict[str, Any]:
    """Return what applying *content* costs, as far as can be told without writing.

    A move looks at every row that any version holds and that it does not write, and at all of them afterwards; either
    time, no more than *throttle* rows pass in a second.
    """
    known, writes = Lineage(home).keys(), _writes(home, content)
    rows = len(known) + int((known.find(content.keys) < 0).sum())
    fetching, reading = _seconds_to_read(collection, Lineage(home).before(content), content)
    measured = home.journal.large_move(LARGE)
    writing = collection.traits.writing * fetching if measured is None else _seconds_to_write(*measured, reading)
    there, back = (rows - writes) * reading + writes * writing, rows * reading
    least = rows / throttle if throttle else 0.0
    return {
        "rows_to_write": writes,
        "snapshot_bytes": sum(int(array.nbytes) for array in content.arrays().values()),
        "minutes": float(f"{(max(there, least) + max(back, least)) / 60:.3g}"),
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
    """Return how long a written row took in a move, without the time to look at the others."""
    return max(seconds - (rows - written) * reading, 0.0) / written


def _seconds_to_read(collection: Collection, lineage: Lineage, content: Content) -> tuple[float, float]:
    """Return how long a row takes to be fetched, and to be fetched and looked at as a move does it.

    Medians of a few portions, spread over the keys: the first ones of an engine or of a table are slower.
    """
    parts = list(batches(len(content.keys), collection.traits.width))
    some = (
        [parts[place] for place in np.unique(np.linspace(0, len(parts) - 1, SAMPLED_BATCHES).astype(int))]
        if parts
        else []
    )
    taken = np.array([_look(collection, lineage, content.keys.at(part)) for part in some]).reshape(-1, 2)
    fetching, reading = np.median(taken, axis=0) if len(taken) else (0.0, 0.0)
    return float(fetching), float(reading)


def _look(collection: Collection, lineage: Lineage, keys: Sequence[RowKey]) -> tuple[float, float]:
    """Return how long one of *keys* takes to be fetched, and to be fetched and looked at, in seconds."""
    start, live = time.perf_counter(), np.empty((len(keys), collection.traits.width), np.float32)
    collection.fetch(keys, live)
    fetched = time.perf_counter()
    base, _ = lineage.bases(keys, live)
    target = lineage.targets(lineage.newest, keys, base)
    agree(live, target, collection.traits.tolerance)
    lineage.nearly(lineage.newest, keys, live)
    return (fetched - start) / len(keys), (time.perf_counter() - start) / len(keys)
