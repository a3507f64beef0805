"""Writing back, and those who search meanwhile: ``python -m benchmarks.traffic [rates|searches] [qdrant] [milvus]``.

Rates: rows per second of a move, against the loop that a user would write with the engine's client, in batches of the
size that suits it best, medians of 5 runs in turn. Searches: how long a client of its own process waits for its answers
in quiet time, while a collection is tuned, and while it is tuned with a throttle.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import nudge_vdb
from benchmarks.clustered import Clustered
from benchmarks.page import record, table
from benchmarks.searching import Searching
from benchmarks.served import Loop, Served, random_units, served
from nudge_vdb.contract import Collection
from nudge_vdb.phases import Phases, Step, silent

Spans = dict[str, list[tuple[float, float]]]
ENGINES = ("qdrant", "milvus")
RUNS = 5
MOVED = {384: 16_000, 1024: 8_000}
"""Rows that each way writes in a run."""
SIZES = (64, 256, 1024)
PROBED = 1024
OURS, WHOLE = "written back", "written and read back"
QUIET, SETTLING = 30.0, 5.0
ROWS, WIDTH, WRITTEN = 100_000, 384, 50_000
CHOICES = {"step": 0.3, "max_queries": 100, "cold_share": 0.0}

RATES = f"""`python -m benchmarks.traffic rates`, medians of {RUNS} runs in turn, rows with a payload of one number.
Each way writes as many rows, and begins when the engine has finished its index. A move compares each row, writes it if
it still is as it was, and notes every batch in the journal before and after; the loop has ids and vectors at hand and
only writes, in batches of the size of {", ".join(map(str, SIZES))} that was fastest: on Qdrant
`update_vectors`; on Milvus 2.3.5 it must read whole rows with `query` and send them back with `upsert`. "The bare wire"
is what Qdrant takes from one who asks for nothing: messages made of bytes, one after the other. "The adapter alone" is
its `write` in batches of {PROBED}, which compares every row: no journal, no versions."""
SEARCHES = f"""`python -m benchmarks.traffic searches`: {ROWS:,} rows of {WIDTH} components under HNSW, of which a tune
writes {WRITTEN:,}. A client in a process of its own asks 40 queries a second for 10 rows each, at fixed times. A delay
counts from when the query was due, so that one that had to wait for the one before it is not made to look quick.
Server, tune and client share the cores of the machine. "Throttled" is `--throttle` at a quarter of the full rate.
Searches include whatever the engine does to its index after writes; "settling" is from the end of a tune until the
engine calls its index finished, and {SETTLING:.0f} s more."""


@contextmanager
def scene(engine: str, made: Clustered) -> Iterator[tuple[Served, Path]]:
    """Yield a server with the rows, and a folder."""
    with tempfile.TemporaryDirectory() as folder, served(engine, Path(folder) / "server", made) as there:
        yield there, Path(folder)


def planned(collection: Collection, made: Clustered, folder: Path, phases: Phases | None = None) -> nudge_vdb.Plan:
    """Return a plan that moves one row a query."""
    queries, places = made.judged()
    judgements = nudge_vdb.Judgements.from_arrays(queries, [[str(place)] for place in places])
    return nudge_vdb.plan(collection, judgements, state=folder / "state", phases=phases, **CHOICES)


@dataclass
class Runs:
    """Rows per second of each way, run by run."""

    rates: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def note(self, name: str, rows: int, seconds: float) -> None:
        """Keep what a run of a way took."""
        self.rates[name].append(rows / seconds)
        print(f"{name}: {rows / seconds:,.0f} rows/s", flush=True)

    def rows(self) -> Iterator[list[str]]:
        """Yield each way, its rate, and how many times that a move is."""
        for name, rates in self.rates.items():
            ratio = statistics.median(ours / theirs for ours, theirs in zip(self.rates[OURS], rates, strict=True))
            yield [name, f"{statistics.median(rates):,.0f}", "" if name in (OURS, WHOLE) else f"{ratio:.1f} times"]


def rates(engine: str, width: int) -> list[list[str]]:
    """Return rows per second: a loop and a move in turn."""
    made, runs = Clustered(2 * MOVED[width], width, MOVED[width], per_row=1), Runs()
    with scene(engine, made) as (there, folder), closing(nudge_vdb.connect(there.address)) as collection:
        planned(collection, made, folder)
        others = sorted(set(range(made.rows)) - set(made.judged()[1].tolist()))
        vectors = random_units(len(others), width)
        ways = {name: sized(loop, others[:PROBED], vectors) for name, loop in there.loops.items()}
        for number in range(RUNS):
            for name, (loop, size) in ways.items():
                there.settle()
                runs.note(f"{name}, {size} a batch", len(others), seconds(partial(loop, others, vectors, size)))
            there.settle()
            runs.note("the adapter alone", len(others), resent(collection, others, seed=number + 1))
            there.settle()
            applied = moved(collection, folder, 1 - number % 2)
            took = applied.report["seconds"]
            runs.note(OURS, applied.written, took["write"])
            runs.note(WHOLE, applied.written, took["write"] + took["verify"])
        told = collection.traits.engine
    return [[told, str(width), *row] for row in runs.rows()]


def sized(loop: Loop, ids: list[int], vectors: np.ndarray) -> tuple[Loop, int]:
    """Return *loop* with the size of batches that is fastest."""
    taken = {size: seconds(partial(loop, ids, vectors[: len(ids)], size)) for size in SIZES}
    print({size: f"{len(ids) / took:,.0f} rows/s" for size, took in taken.items()}, flush=True)
    return loop, min(taken, key=taken.__getitem__)


def seconds(act: Callable[[], object]) -> float:
    """Return how long *act* takes."""
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def resent(collection: Collection, ids: list[int], seed: int) -> float:
    """Write rows through the adapter alone, a batch of a thousand at a time; return how long the writes took."""
    keys = [key for key in collection.locate([str(each) for each in ids]) if key is not None]
    held = np.zeros((len(keys), collection.traits.width), np.float32)
    collection.fetch(keys, held)
    fresh, parts = random_units(len(keys), collection.traits.width, seed), range(0, len(keys), PROBED)
    slices = [slice(first, first + PROBED) for first in parts]
    return sum(seconds(partial(collection.write, keys[part], fresh[part], held[part])) for part in slices)


def moved(collection: Collection, folder: Path, to: int, **pace: Any) -> nudge_vdb.Applied:
    """Bring the collection to version 1 or to its base; every row must be written."""
    state = folder / "state"
    plan = nudge_vdb.prepared(collection, 1, state=state, phases=pace.pop("phases", None))
    if to:
        applied = nudge_vdb.apply(plan, force=True, **pace)
    else:
        applied = nudge_vdb.rollback(collection, to=0, state=state, phases=plan.phases, **pace)
    if applied.written != plan.report["moved"] or any(applied.skipped.values()):
        raise RuntimeError(f"expected {plan.report['moved']} rows written, not {applied.written}: {applied.skipped}")
    return applied


class Noted(Phases):
    """Notes when each phase began and ended, in *spans*, by the *name* of the run and of the phase."""

    def __init__(self, name: str, spans: Spans) -> None:
        super().__init__()
        self._name, self._spans = name, spans

    @contextmanager
    def shown(self, name: str, total: int | None) -> Iterator[Step]:
        """Note when the phase began and ended."""
        with noted(f"{self._name}: {name}", self._spans):
            yield silent


@contextmanager
def noted(name: str, spans: Spans) -> Iterator[None]:
    """Note when what happens inside began and ended."""
    start = time.monotonic()
    yield
    spans.setdefault(name, []).append((start, time.monotonic()))


def searches(engine: str) -> list[list[str]]:
    """Return how late answers are, phase by phase."""
    made, spans = Clustered(ROWS, WIDTH, WRITTEN, per_row=1), Spans()
    with scene(engine, made) as (there, folder), closing(nudge_vdb.connect(there.address)) as collection:
        there.settle()
        with Searching(there.search(), made.judged()[0][:1000], folder / "delays.npy") as searching:
            rates = tuned_amid(there, collection, made, folder, spans)
        due, late = searching.delays()
        told = collection.traits.engine
    return [[told, *summary(name, parts, due, late), rates.get(name, "")] for name, parts in spans.items()]


def tuned_amid(there: Served, collection: Collection, made: Clustered, folder: Path, spans: Spans) -> dict[str, str]:
    """Tune, undo it, tune again, undo that with a throttle of a quarter of the first rate; return rates of writing."""
    rates: dict[str, str] = {}
    with noted("quiet", spans):
        time.sleep(QUIET)
    planned(collection, made, folder, Noted("plan", spans))
    seen: list[float] = []
    for number, name in enumerate(("at full rate", "at full rate", "at full rate", "throttled")):
        phases = Noted(name, spans)
        pace = {"throttle": round(seen[0] / 4)} if name == "throttled" else {}
        applied = moved(collection, folder, 1 - number % 2, phases=phases, **pace)
        seen.append(applied.written / phases.seconds["write"])
        rates[f"{name}: write"] = f"{seen[-1] if pace else statistics.median(seen):,.0f}"
        print(f"{name}: {seen[-1]:,.0f} rows/s, waited {applied.report['waited']}", flush=True)
        with noted("settling", spans):
            there.settle()
            time.sleep(SETTLING)
    return rates


def summary(name: str, parts: list[tuple[float, float]], due: np.ndarray, late: np.ndarray) -> list[str]:
    """Return a line of the table: of all queries that were due during *parts*, the delays in milliseconds."""
    inside = np.any([(start <= due) & (due < end) for start, end in parts], axis=0)
    delays = 1000 * late[inside]
    if not len(delays):
        return [name, "0", "", "", ""]
    middle, slow = np.percentile(delays, [50, 99])
    return [name, f"{len(delays):,}", f"{middle:.1f}", f"{slow:.1f}", f"{delays.max():.0f}"]


def main() -> None:
    """Measure what is asked for, on the engines that are asked for."""
    for engine in [name for name in ENGINES if name in sys.argv] or ENGINES:
        if "searches" not in sys.argv:
            rows = [row for width in MOVED for row in rates(engine, width)]
            listed = table(["engine", "width", "way", "rows/s", "a move is"], rows)
            record(f"Write-back against a user's loop: {engine}", f"{RATES}\n\n{listed}")
        if "rates" not in sys.argv:
            listed = table(["engine", "while", "queries", "p50 ms", "p99 ms", "longest ms", "rows/s"], searches(engine))
            record(f"Searching while a collection is tuned: {engine}", f"{SEARCHES}\n\n{listed}")


if __name__ == "__main__":
    main()
