"""One run of this project by the authors' rule, from mapped arrays, with no database.

``python -m benchmarks.our_side FOLDER MEMORY`` reads the arrays that :mod:`benchmarks.compute` made in FOLDER, writes
where the wanted rows go, and prints one line of JSON: seconds, memory, step and what each phase took.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.peak import Watch
from nudge_vdb.budget import Budget, parse_size
from nudge_vdb.contract import Metric, Vectors
from nudge_vdb.exam import Exam, Field
from nudge_vdb.mapped import release
from nudge_vdb.nudge import Ints, Method, Pulls, rays_n, unit
from nudge_vdb.rivals import Part, best_rows
from nudge_vdb.selection import authors_step

ROWS_AT_ONCE = 512
SECONDS: dict[str, float] = {}


@contextmanager
def timed(phase: str) -> Iterator[None]:
    """Take note of how long *phase* lasts."""
    start = time.perf_counter()
    yield
    SECONDS[phase] = time.perf_counter() - start


def main() -> None:
    """Run, and print the figures."""
    folder, budget = Path(sys.argv[1]), Budget(parse_size(sys.argv[2]))
    with Watch() as watch:
        step, found = tuned(folder, budget)
    np.save(folder / "our_tuned.npy", found)
    print(json.dumps({**watch.figures(), "step": step, "phases": SECONDS, "product": product_alone(folder)}))


def tuned(folder: Path, budget: Budget) -> tuple[float, Vectors]:
    """Return the step that the authors' rule chooses, and where it puts the wanted rows."""
    rows, wanted = np.load(folder / "rows.npy", mmap_mode="r"), np.load(folder / "wanted_places.npy")
    with timed("reading queries"):
        queries, query, row = judged(folder, "train", wanted)
        by_row = np.argsort(row, kind="stable")
        pulls = Pulls(queries, query[by_row], row[by_row], np.ones(len(row)), len(wanted))
        asked, query, row = judged(folder, "validation", wanted)
        exam = Exam(asked, np.ones(len(asked)), query, row, np.ones(len(row)), np.zeros(len(row)))
    with timed("best rivals"):
        best = best_rows(without(rows, wanted, budget), exam.units, exam.lengths, 1, Metric.COSINE, budget)
    with timed("choosing the step"):
        rivals, order = best.scores.astype(np.float64), np.zeros(len(wanted))
        field = Field(Method.NUDGE_N, Metric.COSINE, pulls, partial(fresh, rows, wanted), order, rivals, budget)
        step = authors_step(field, exam, 1)
    with timed("moving the rows"):
        return step, placed(rows, wanted, pulls, step)


def fresh(rows: Vectors, wanted: Ints, some: slice) -> Vectors:
    """Return a copy of some of the wanted rows, and let go of what was mapped of them."""
    copied = np.array(rows[wanted[some]])
    release(rows)
    return copied


def product_alone(folder: Path) -> float:
    """Return how many seconds the product of the validation queries with the rivals takes, in float32."""
    queries, rivals = np.load(folder / "validation.npy"), np.load(folder / "rivals.npy", mmap_mode="r")
    seconds = 0.0
    for first in range(0, len(rivals), 2048):
        block = np.array(rivals[first : first + 2048])
        start = time.perf_counter()
        queries @ block.T
        seconds += time.perf_counter() - start
    return seconds


def judged(folder: Path, name: str, wanted: Ints) -> tuple[Vectors, Ints, Ints]:
    """Return queries of length 1, and pairs of a query and the place of its row among the wanted ones."""
    answers, queries = np.load(folder / f"{name}_rows.npy"), np.load(folder / f"{name}.npy", mmap_mode="r")
    units = np.empty(queries.shape, np.float32)
    for first in range(0, len(queries), ROWS_AT_ONCE):
        units[first : first + ROWS_AT_ONCE] = unit(queries[first : first + ROWS_AT_ONCE])[0]
    release(queries)
    query = np.repeat(np.arange(len(answers)), answers.shape[1])
    return units, query, np.searchsorted(wanted, answers.reshape(-1))


def without(rows: Vectors, wanted: Ints, budget: Budget) -> Iterator[Part]:
    """Stream all rows but the wanted ones."""
    at_once = budget.bytes // 32 // (4 * rows.shape[1])
    for first in range(0, len(rows), at_once):
        last = min(first + at_once, len(rows))
        places = np.arange(first, last)
        places[wanted[slice(*np.searchsorted(wanted, [first, last]))] - first] = -1
        yield places, rows[first:last]
        release(rows)


def placed(rows: Vectors, wanted: Ints, pulls: Pulls, step: float) -> Vectors:
    """Return where *step* puts the wanted rows."""
    found = np.empty((len(wanted), rows.shape[1]), np.float32)
    for first in range(0, len(wanted), ROWS_AT_ONCE):
        last = min(first + ROWS_AT_ONCE, len(wanted))
        found[first:last] = rays_n(unit(fresh(rows, wanted, slice(first, last)))[0], pulls.of(first, last)).at(step)
    return found


if __name__ == "__main__":
    main()
