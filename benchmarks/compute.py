"""The authors' rule, by the authors' package and by this project: how long, and how much memory.

``python -m benchmarks.compute [ROWSxWIDTH …]`` makes an environment that holds nudge-ft (CPU torch), made-up rows with
10,000 training and 1,000 validation queries, and runs both sides in turn, each in a process of its own that reads the
arrays from files: nudge-ft as published, nudge-ft with the rows that nobody wants given as ``nontrain_embeddings``, and
this project. All sides tune by the same rule, and must put every row to the same place.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.nudge_ft import VALIDATION, interpreter, make_arrays
from benchmarks.page import record, table

SHAPES = ((100_000, 384), (100_000, 768), (100_000, 1536), (10_000, 384), (1_000_000, 384))
TRAINING = 10_000
RUNS = {"published": 5, "split": 5, "ours": 5}
FEW = {(100_000, 768): {"published": 3}, (100_000, 1536): {"published": 3}, (1_000_000, 384): {"published": 0}}
"""Where runs take minutes, or do not fit."""
MEMORY = "512MB"
THREADS = os.environ.get("NUDGE_VDB_BENCH_THREADS", str(os.cpu_count()))
"""As many for every side. Where other work takes the cores, give 1: threads that wait for each other then starve."""
SAME = 1e-5
SIDE = Path(__file__).with_name("nudge_ft_side.py")

Figures = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """All runs of one shape."""

    rows: int
    width: int
    runs: dict[str, list[Figures]]
    apart: float
    """The largest difference of a component between our rows and theirs."""

    def median(self, way: str, figure: str) -> float:
        """Return the median of a figure over the runs of *way*."""
        return statistics.median(float(run[figure]) for run in self.runs[way])

    def ratio(self, way: str, figure: str) -> float:
        """Return how many times as much *way* takes as we do, the median over runs that followed one another."""
        pairs = zip(self.runs[way], self.runs["ours"], strict=False)
        return statistics.median(theirs[figure] / ours[figure] for theirs, ours in pairs)

    def lines(self) -> list[list[str]]:
        """Return a line of the table for each side."""
        return [self._line(way, runs) for way, runs in self.runs.items() if runs]

    def _line(self, way: str, runs: list[Figures]) -> list[str]:
        least = min(self.median(each, "anonymous") for each in ("published", "split") if self.runs[each])
        memory = f"{self.median(way, 'anonymous'):,.0f}"
        told = f"1 / {least / self.median('ours', 'anonymous'):.1f} of the better" if way == "ours" else ""
        return [
            f"{self.rows:,} × {self.width:,}",
            {"published": "nudge-ft as published", "split": "nudge-ft, split by hand", "ours": "nudge-vdb"}[way],
            *self._times(way, "seconds"),
            *self._times(way, "processor"),
            memory,
            f"{self.median(way, 'resident'):,.0f}",
            told,
            str(len(runs)),
        ]

    def _times(self, way: str, figure: str) -> tuple[str, str]:
        """Return seconds, and how many times as many as ours they are."""
        return f"{self.median(way, figure):.2f}", "" if way == "ours" else f"{self.ratio(way, figure):.1f}"

    def near_the_floor(self) -> str:
        """Say what share of our time the product with the rivals alone takes."""
        share = statistics.median(run["product"] / run["seconds"] for run in self.runs["ours"])
        phases = {name: statistics.median(run["phases"][name] for run in self.runs["ours"]) for name in self._phases()}
        told = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in phases.items())
        return (
            f"{self.rows:,} × {self.width:,}: the product with the rivals alone is {share:.0%} of our time ({told}); "
            f"step {self.runs['ours'][0]['step']:g}; rows differ from theirs by {self.apart:.1e} at most."
        )

    def _phases(self) -> list[str]:
        return list(self.runs["ours"][0]["phases"])


def main() -> None:
    """Print everything as it comes, and write the page."""
    shapes = [tuple(map(int, each.split("x"))) for each in sys.argv[1:]] or SHAPES
    found = [compared(rows, width) for rows, width in shapes]
    record("Compute against nudge-ft", told(found))


def compared(rows: int, width: int) -> Comparison:
    """Run all sides in turn on arrays of one shape."""
    python, counts = interpreter(), RUNS | FEW.get((rows, width), {})
    runs: dict[str, list[Figures]] = {way: [] for way in RUNS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_arrays(folder, rows, width, TRAINING)
        for number in range(max(counts.values())):
            for way in (way for way in RUNS if number < counts[way]):
                runs[way].append(run(command(python, way, folder)))
                print(f"{rows:,} × {width}, {way}: {runs[way][-1]}", flush=True)
        apart = max(distance(folder, way) for way in ("published", "split") if runs[way])
    if apart > SAME:
        raise RuntimeError(f"the sides put rows to places that are {apart:g} apart")
    return Comparison(rows, width, runs, apart)


def command(python: Path, way: str, folder: Path) -> list[str]:
    """Return what runs one side."""
    ours = [sys.executable, "-m", "benchmarks.our_side", str(folder), MEMORY]
    return ours if way == "ours" else [str(python), str(SIDE), str(folder), way]


def run(command: Sequence[str]) -> Figures:
    """Run one side with a thread a core, and return what it prints."""
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), THREADS)
    passive = {"OMP_WAIT_POLICY": "PASSIVE"}  # threads that spin while they wait starve on a machine that others use
    done = subprocess.run(
        command,
        env={**os.environ, **threads, **passive},
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    figures: Figures = json.loads(done.stdout)
    return figures


def distance(folder: Path, way: str) -> float:
    """Return the largest difference of a component between our rows and those of another *way*."""
    theirs, ours = (np.load(folder / f"{name}_tuned.npy") for name in (way, "our"))
    return float(np.abs(theirs - ours).max())


def told(found: Sequence[Comparison]) -> str:
    """Return the section of the page."""
    memory = ("peak MB, anonymous", "peak MB, resident", "memory")
    head = ("rows", "side", "seconds", "times ours", "processor s", "times ours", *memory, "runs")
    return f"""`python -m benchmarks.compute` (`make bench-compute`): {TRAINING:,} training and
{VALIDATION:,} validation queries, 5 for each wanted row; the step by the authors' rule (25 steps, accuracy of the first
place), every side in a process of its own with {THREADS} threads. Seconds include reading the arrays from files in the
page cache; processor seconds are those of all threads. Memory is above that of the interpreter with everything
imported; ours was given the usual budget, {MEMORY}.

{table(head, [line for each in found for line in each.lines()])}

{chr(10).join(f"* {each.near_the_floor()}" for each in found)}

As published, nudge-ft holds several matrices of rows × validation queries: 12 GB and more at a million rows, where it
was not run."""


if __name__ == "__main__":
    main()
