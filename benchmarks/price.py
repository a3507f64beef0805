"""What a plan says that carrying costs, and what it costs.

``python -m benchmarks.price [qdrant] [qdrant-cluster] [milvus]`` starts a server of each, fills it, and moves all rows
to a version three times: as if it were the first move, back to the base, and forth again, when a large write is known.
One run each: a move takes minutes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import nudge_vdb
from benchmarks.page import record, table
from benchmarks.paging import on_milvus, on_qdrant, on_qdrant_cluster
from nudge_vdb.backends import connect
from nudge_vdb.contract import Collection, as_stored
from nudge_vdb.judgements import Judgements
from nudge_vdb.nudge import unit
from nudge_vdb.pages import Pages, forget, page_out
from nudge_vdb.phases import Phases
from nudge_vdb.placing import in_key_order
from nudge_vdb.price import price
from nudge_vdb.run import as_plan
from nudge_vdb.seen import Seen
from nudge_vdb.snapshot import Content, Version
from nudge_vdb.standing import open_state
from nudge_vdb.state import State

ENGINES = {"qdrant": on_qdrant, "qdrant-cluster": on_qdrant_cluster, "milvus": on_milvus}
SIZES = ((384, 20_000), (1024, 20_000), (384, 100_000))
HEAD = ("width", "rows", "move", "minutes said", "taken", "said / taken", "a row written, in rows fetched")


@dataclass(frozen=True)
class Moved:
    """One move."""

    name: str
    said: float
    taken: float
    """Both in minutes."""
    fetching: float
    writing: float
    """Seconds a row."""

    def row(self) -> list[str]:
        """Return a row of the table."""
        ratio = f"{self.said / self.taken:.2f}"
        return [self.name, f"{self.said:.2f}", f"{self.taken:.2f}", ratio, f"{self.writing / self.fetching:.1f}"]


def moves(collection: Collection, folder: Path) -> Iterator[Moved]:
    """Move all rows forth, back, and forth again."""
    home = open_state(collection, folder)
    with home.locked():
        pages = page_out(collection, home.pages)
        content = turned(pages, collection)
        said = price(collection, home, content)
        version = home.add_version(
            content,
            {"created": "", "parent": 0, "proven": True, "engine": "", "judgements": ""}
            | {"collection": collection.traits.identity}
            | said,
        )
        forget(home.pages)
    yield timed("first", collection, home, version, said["minutes"])
    nudge_vdb.rollback(collection, to=0, state=folder)
    home = open_state(collection, folder)
    with home.locked():
        said = price(collection, home, version.content)
    yield timed("next", collection, home, version, said["minutes"])


def turned(pages: Pages, collection: Collection) -> Content:
    """Return a version of all rows, each turned a little."""
    at, keys = in_key_order(pages.keys)
    base = np.empty_like(pages.vectors)
    base[at] = pages.vectors
    noise = np.random.default_rng(0).normal(size=base.shape[1:]).astype(np.float32)
    tuned = as_stored(unit(base + 0.1 * noise / np.linalg.norm(noise))[0].astype(np.float32), collection.traits)
    nobody = Judgements.from_arrays(base[:1], [["0"]])
    return Content(keys, base, tuned, Seen.of(nobody), np.zeros((base.shape[1] + 1, base.shape[1])))


def timed(name: str, collection: Collection, home: State, version: Version, said: float) -> Moved:
    """Apply *version*, and return how long that took."""
    start = time.perf_counter()
    applied = nudge_vdb.apply(as_plan(collection, home, version, Phases()), force=True)
    taken = time.perf_counter() - start
    fetching = seconds_to_fetch(collection, version.content)
    rows, seconds = len(version.content.keys), applied.report["seconds"]
    return Moved(name, said, taken / 60, fetching, seconds["write"] / rows)


def seconds_to_fetch(collection: Collection, content: Content) -> float:
    """Return how long fetching a row takes, in portions as they are read by a move."""
    size = max(1, (4 << 20) // (4 * collection.traits.width))
    firsts, found = range(0, len(content.keys) - size, max(size, len(content.keys) // 20)), []
    room = np.empty((size, collection.traits.width), np.float32)
    for first in firsts:
        keys = content.keys.at(range(first, first + size))
        start = time.perf_counter()
        collection.fetch(keys, room)
        found.append((time.perf_counter() - start) / size)
    return float(np.median(found))


def size(text: str) -> tuple[int, int]:
    """Return width and rows of "width x rows"."""
    width, rows = text.split("x")
    return int(width), int(rows)


def main() -> None:
    """Print what was said and what was taken."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("engines", nargs="*", default=list(ENGINES))
    asked.add_argument("--size", type=size, action="append", help="width x rows, such as 384x20000")
    given = asked.parse_args()
    for engine in given.engines:
        lines = []
        for width, rows in given.size or SIZES:
            with tempfile.TemporaryDirectory() as folder, ENGINES[engine](Path(folder), width, rows) as filled:
                collection = connect(filled.address)
                for moved in moves(collection, Path(folder) / "state"):
                    lines.append([str(width), f"{rows:,}", *moved.row()])
                    print(engine, *lines[-1], moved, sep=" | ", flush=True)
                collection.close()
        record(f"Price: {engine}", f"`python -m benchmarks.price {engine}`, one run each.\n\n{table(HEAD, lines)}")


if __name__ == "__main__":
    main()
