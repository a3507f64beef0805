"""One run of this project by the authors' rule: ``python -m benchmarks.our_side FOLDER``; arrays in, arrays out."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from benchmarks.peak import Watch
from nudge_vdb.contract import Metric, Vectors
from nudge_vdb.nudge import Method, Pulls, rays_n, unit
from nudge_vdb.rivals import best_rows
from nudge_vdb.selection import authors_step
from nudge_vdb.tracing import Exam, Field


def tuned(folder: Path) -> tuple[float, Vectors]:
    """Return the step that the authors' rule chooses, and where it puts the wanted rows."""
    rows, wanted = np.load(folder / "rows.npy", mmap_mode="r"), np.load(folder / "wanted_places.npy")
    queries, query, row = taught(folder, "train", wanted)
    by_row = np.argsort(row, kind="stable")
    pulls = Pulls(unit(queries)[0], query[by_row], row[by_row], np.ones(len(row)), len(wanted))
    asked, query, row = taught(folder, "validation", wanted)
    units, lengths = unit(asked)
    exam = Exam(units, lengths, query, row, np.ones(len(row)), np.zeros(len(row)))
    best = best_rows(without(rows, wanted), units, lengths, 1, Metric.COSINE)
    field = Field(
        Method.NUDGE_N,
        Metric.COSINE,
        pulls,
        lambda part: rows[wanted[part]],
        np.zeros(len(wanted)),
        best.scores.astype(np.float64),
    )
    step = authors_step(field, exam, 1)
    return step, rays_n(unit(rows[wanted])[0], pulls.of(0, len(wanted))).at(step)


def taught(folder, name, wanted):
    """Return queries, and pairs of a query and the place of its row among the wanted ones."""
    answers = np.load(folder / f"{name}_rows.npy")
    query = np.repeat(np.arange(len(answers)), answers.shape[1])
    return np.load(folder / f"{name}.npy"), query, np.searchsorted(wanted, answers.reshape(-1))


def without(rows, wanted):
    for first in range(0, len(rows), 8192):
        places = np.setdiff1d(np.arange(first, min(first + 8192, len(rows))), wanted)
        yield places, rows[places]


def main() -> None:
    folder = Path(sys.argv[1])
    with Watch() as watch:
        step, found = tuned(folder)
    np.save(folder / "our_tuned.npy", found)
    print(json.dumps({**watch.figures(), "step": step}))


if __name__ == "__main__":
    main()
