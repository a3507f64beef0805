"""A whole plan on rows that are mapped from a file: how much memory it takes, and where its time goes.

``python -m benchmarks.memory`` plans with 100,000 judgements, 2,000 of their queries evaluated by leave-one-out, on
made-up rows of 768 components, each time in a process of its own: few rows and many, with a small budget and the usual
one, with 20,000 rows that move and with 100,000, and in a container of 1 GB, which needs control groups that this user
may make. Then each phase is held against what the machine can do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.clustered import Clustered
from benchmarks.contained import contained, out_of_cache
from benchmarks.mapped import MappedCollection
from benchmarks.page import record, table
from benchmarks.peak import Watch
from benchmarks.where import Sampler
from nudge_vdb.judgements import Judgements
from nudge_vdb.run import plan

WIDTH, JUDGED, EVALUATED = 768, 100_000, 2_000

Figures = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """One plan."""

    rows: int
    per_row: int
    """How many queries ask for the same row."""
    memory: int
    carry: str = "off"
    container: int | None = None
    """Bytes that the process may hold, beyond which the kernel kills it."""


LARGEST = Trial(1_000_000, 5, 512 * 10**6)
TRIALS = (
    Trial(200_000, 5, 512 * 10**6),
    LARGEST,
    Trial(1_000_000, 5, 128 * 10**6),
    Trial(1_000_000, 1, 512 * 10**6),
    Trial(1_000_000, 1, 512 * 10**6, container=10**9),
    Trial(100_000, 5, 512 * 10**6, "on"),
)


def main() -> None:
    """Print everything as it comes, and write the page; called with a trial in JSON, only run that."""
    if len(sys.argv) > 2:
        print(json.dumps(planned(Trial(**json.loads(sys.argv[1])), Path(sys.argv[2]))))
        return
    found = [(trial, run(trial)) for trial in TRIALS]
    record("Memory", memory_told(found))
    record("Where the time goes", time_told(LARGEST, dict(found)[LARGEST], *machine()))


def run(trial: Trial) -> Figures:
    """Make the arrays of *trial*, and run it in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        make_arrays(trial, Path(folder))
        out_of_cache(Path(folder))
        command = [sys.executable, "-m", "benchmarks.memory", json.dumps(asdict(trial)), folder]
        place = nullcontext(command) if trial.container is None else contained(command, trial.container)
        with place as inside:
            done = subprocess.run(inside, check=True, text=True, stdout=subprocess.PIPE)
    figures: Figures = json.loads(done.stdout)
    print(trial, figures, flush=True)
    return figures


def make_arrays(trial: Trial, folder: Path) -> None:
    """Write rows, queries and the row that each asks for."""
    data = Clustered(trial.rows, WIDTH, JUDGED, trial.per_row)
    rows = np.lib.format.open_memmap(folder / "rows.npy", "w+", np.float32, (trial.rows, WIDTH))
    for places, vectors in data.parts():
        rows[places.start : places.stop] = vectors
    queries, answers = data.judged()
    np.save(folder / "queries.npy", queries)
    np.save(folder / "answers.npy", answers)


def planned(trial: Trial, folder: Path) -> Figures:
    """Plan, and return what it took."""
    rows = MappedCollection(np.load(folder / "rows.npy", mmap_mode="r"))
    queries, answers = np.load(folder / "queries.npy", mmap_mode="r"), np.load(folder / "answers.npy")
    with Watch() as watch, Sampler() as sampler:
        judgements = Judgements.from_arrays(queries, [[str(answer)] for answer in answers])
        told = plan(
            rows,
            judgements,
            state=folder / "state",
            max_queries=EVALUATED,
            memory=trial.memory,
            rivals="scan",
            carry=trial.carry,
        ).report
    kept = {name: told[name] for name in ("moved", "rows", "step", "gain", "proven", "scored_queries")}
    return {**watch.figures(), **kept, "phases": sampler.seconds()}


def machine() -> tuple[float, float]:
    """Return what this machine can do now: GFLOP/s of a product in float32, and GB/s of copying in memory."""
    square, long = np.ones((4096, 4096), np.float32), np.ones(1 << 27, np.float32)
    other = np.empty_like(long)
    product, copying = (best_of(lambda: square @ square), best_of(lambda: np.copyto(other, long)))
    return 2 * 4096**3 / product / 1e9, 2 * long.nbytes / copying / 1e9


def best_of(work: Any) -> float:
    """Return the least seconds of five runs of *work*."""
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def memory_told(found: Sequence[tuple[Trial, Figures]]) -> str:
    """Return the section on memory."""
    peaks = ("peak MB, anonymous", "peak MB, resident")
    head = ("rows", "rows that move", "--carry", "--memory", "container", *peaks, "seconds")
    lines = [
        [
            f"{trial.rows:,}",
            f"{figures['moved']:,}",
            trial.carry,
            f"{trial.memory // 10**6} MB",
            f"{trial.container // 10**9} GB" if trial.container else "",
            f"{figures['anonymous']:,.0f}",
            f"{figures['resident']:,.0f}",
            f"{figures['seconds']:.0f}",
        ]
        for trial, figures in found
    ]
    return f"""`python -m benchmarks.memory` (`make bench-memory`): a whole plan of {JUDGED:,} judgements, one a query,
{EVALUATED:,} of the queries evaluated by leave-one-out, on rows of {WIDTH} components. One run each, since each takes
minutes. Memory is above that of the interpreter with everything imported, and holds the judgements' ids as well; rows
and query vectors are mapped from files, and resident memory includes what is mapped of them. In a container, a control
group of the kernel, interpreter and page cache count as well, and the kernel kills what needs more.

{table(head, lines)}"""


def time_told(trial: Trial, figures: Figures, flops: float, bandwidth: float) -> str:
    """Return the section on time: what each phase did, and how near it is to what the machine can do."""
    work = {
        "best rivals": 2.0 * EVALUATED * trial.rows * WIDTH / 1e9,
        "tracing moving rows": 4.0 * EVALUATED * figures["moved"] * WIDTH / 1e9,
    }
    traffic = {"page out": 4.0 * trial.rows * WIDTH / 1e9, "snapshot": 8.0 * figures["moved"] * WIDTH / 1e9}
    lines = []
    for phase, seconds in sorted(figures["phases"].items(), key=lambda each: -each[1]):
        done, limit = (
            (f"{work[phase]:,.0f} GFLOP, {work[phase] / seconds:,.0f} GFLOP/s", work[phase] / seconds / flops)
            if phase in work
            else (f"{traffic[phase]:.1f} GB, {traffic[phase] / seconds:.2f} GB/s", traffic[phase] / seconds / bandwidth)
            if phase in traffic
            else ("", 0.0)
        )
        lines.append(
            (phase, f"{seconds:.1f}", f"{seconds / figures['seconds']:.0%}", done, f"{limit:.0%}" if limit else "")
        )
    return f"""The plan of {trial.rows:,} × {WIDTH} rows above, sampled every 5 ms. Measured right after it on the same
machine: {flops:,.0f} GFLOP/s for a product in float32 ({os.cpu_count()} threads), {bandwidth:.1f} GB/s for copying.

{table(("phase", "seconds", "share", "work", "of the machine's"), lines)}"""


if __name__ == "__main__":
    main()
