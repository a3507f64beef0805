"""Is it better than the authors' rule, and does it keep still where there is nothing to gain?

``python -m benchmarks.quality`` prints the test NDCG@10 over 10 random 70/10/20 splits of each set, and how often
judgements without signal are called proven.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import nudge_vdb
from benchmarks.page import record
from benchmarks.sets import RetrievalSet, load
from nudge_vdb.contract import Metric
from nudge_vdb.errors import NotProven
from nudge_vdb.exam import Exam, Field
from nudge_vdb.judgements import Judgements
from nudge_vdb.metrics import Measure
from nudge_vdb.nudge import Method, Pulls, unit
from nudge_vdb.scoring import score_table
from nudge_vdb.selection import authors_step

NDCG = Measure("ndcg", 10)


PAGE = """`python -m benchmarks.quality` (`make bench-quality`): test NDCG@10 over 10 random splits, 70 % of the queries
to train on, 10 % to choose by for the authors' rule (ours trains on both) and 20 % to test on; `--cold-share 0`.

"""


@dataclass(frozen=True)
class SplitResult:
    """Test NDCG@10 on one random split."""

    base: float
    authors: float
    ours: float
    proven: bool


def compare(data: RetrievalSet, seed: int) -> SplitResult:
    """Tune one split twice: as the authors do, and as this project does."""
    train, dev, test = data.random_split(seed)
    with tempfile.TemporaryDirectory() as state:
        plan = nudge_vdb.plan(
            data.fixture().collection,
            data.judged(np.sort(np.concatenate([train, dev]))),
            test=data.judged(np.sort(test)),
            state=state,
            cold_share=0,
        )
    found = plan.report["test"]
    return SplitResult(found["before"], authors_score(data, train, dev, test), found["after"], plan.proven)


def authors_score(data: RetrievalSet, train: np.ndarray, dev: np.ndarray, test: np.ndarray) -> float:
    """Return the test score of the authors' code: train on *train*, choose the step by top-1 accuracy on *dev*."""
    everything = np.arange(len(data.query))
    step = authors_choice(data, everything, train, dev)
    taught, exam = _authors_pulls(data, everything, train), _authors_exam(data, everything, test)
    return float(score_table(_field(data, taught, exam), exam, NDCG, np.array([0.0, step])).warm[-1].mean())


def authors_choice(data: RetrievalSet, pairs: np.ndarray, train: np.ndarray, dev: np.ndarray) -> float:
    """Return the step that the authors' code chooses, of all judgements knowing only *pairs*."""
    exam = _authors_exam(data, pairs, dev)
    return authors_step(_field(data, _authors_pulls(data, pairs, train), exam), exam, 1)


def _authors_pulls(data: RetrievalSet, pairs: np.ndarray, train: np.ndarray) -> Pulls:
    """Return who pulls on whom."""
    queries, _ = unit(data.queries)
    some = pairs[np.isin(data.query[pairs], train)]
    order = some[np.argsort(data.row[some], kind="stable")]
    return Pulls(queries, data.query[order], data.row[order], np.ones(len(order)), len(data.rows))


def _field(data: RetrievalSet, pulls: Pulls, sitting: Exam) -> Field:
    """Return the rows, all of which are wanted, so that there are no rivals."""
    rows, _ = unit(data.rows)
    nobody = np.empty((len(sitting.units), 0))
    return Field(Method.NUDGE_N, Metric.COSINE, pulls, lambda part: rows[part], np.zeros(len(rows)), nobody)


def _authors_exam(data: RetrievalSet, pairs: np.ndarray, asked: np.ndarray) -> Exam:
    asked, (queries, lengths) = np.sort(asked), unit(data.queries)
    judged = pairs[np.isin(data.query[pairs], asked)]
    judged = judged[np.argsort(data.query[judged], kind="stable")]
    places, ones = np.searchsorted(asked, data.query[judged]), np.ones(len(judged))
    return Exam(queries[asked], lengths[asked], places, data.row[judged], ones, np.zeros(len(judged)))


def without_signal(data: RetrievalSet, seed: int) -> int:
    """Tune with judgements without signal, rows drawn anew for every query; return how many rows were written."""
    rng = np.random.default_rng(seed)
    asked = np.unique(data.query)
    counts = [int((data.query == query).sum()) for query in asked]
    drawn = [(rng.choice(len(data.rows), count, replace=False) + 1).tolist() for count in counts]
    judgements = Judgements.from_arrays(data.queries[asked], drawn)
    with tempfile.TemporaryDirectory() as state:
        plan = nudge_vdb.plan(data.fixture().collection, judgements, state=state, seed=seed, cold_share=0)
        try:
            return nudge_vdb.apply(plan).written
        except NotProven:
            return 0


def summary(results: Sequence[SplitResult]) -> str:
    """Say the means of the splits and the ratio of the gains."""
    base = np.mean([each.base for each in results])
    authors = np.mean([each.authors for each in results])
    ours = np.mean([each.ours for each in results])
    ratio = (ours - base) / (authors - base)
    return (
        f"base {base:.4f}, authors' rule {authors:.4f}, ours {ours:.4f}: {ratio:.2f} times the gain; "
        f"proven {sum(each.proven for each in results)} of {len(results)}"
    )


def main() -> None:
    """Print everything, and write the page."""
    found = []
    for name in ("cranfield", "metatool"):
        data = load(name)
        if data is None:
            print(f"{name}: not at hand; set NUDGE_VDB_DATA to the folder that holds it")
            continue
        found.append(f"{name}, 10 splits: {summary([compare(data, seed) for seed in range(10)])}")
        print(found[-1], flush=True)
    cranfield = load("cranfield")
    assert cranfield is not None
    written = sum(without_signal(cranfield, seed) > 0 for seed in range(60))
    found.append(f"cranfield without signal: {written} of 60 seeds called proven and written")
    print(found[-1])
    record("Over random splits", PAGE + "\n".join(f"* {line}" for line in found))


if __name__ == "__main__":
    main()
