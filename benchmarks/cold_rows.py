"""What becomes of rows that nobody judged: as a plan estimates it, and as it is.

``python -m benchmarks.cold_rows`` hides the judgements of 30 % and of 70 % of the rows of each set, tunes on what is
left of the training queries, and looks at the test queries: *warm* counts only the rows whose judgements were not
hidden, *cold* only those whose were, the others being taken out of the list. Means of 10 seeds, NDCG@10.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

import nudge_vdb
from benchmarks.page import record, table
from benchmarks.quality import authors_choice
from benchmarks.sets import RetrievalSet, load, synthetic
from nudge_vdb.judgements import Judgements

SHARES = (0.3, 0.7)
SEEDS = 10
WAYS: Mapping[str, Mapping[str, Any]] = {
    "authors' rule": {"cold_share": 0},
    "leave-one-out, ρ = 0": {"cold_share": 0},
    "ρ = 0.3": {"cold_share": 0.3},
    "ρ = 0.5": {"cold_share": 0.5},
    "ρ = 0.3, carried": {"cold_share": 0.3, "carry": "on"},
    "ρ = 0.5, carried": {"cold_share": 0.5, "carry": "on"},
    "ρ = 0.3, auto": {"cold_share": 0.3, "carry": "auto"},
}


@dataclass(frozen=True)
class Hidden:
    """A set with the judgements of some rows hidden."""

    data: RetrievalSet
    train: np.ndarray
    dev: np.ndarray
    test: np.ndarray
    cold: np.ndarray
    """(rows,): True where a row's judgements are hidden."""

    @classmethod
    def of(cls, data: RetrievalSet, seed: int, share: float) -> Hidden:
        """Hide the judgements of a *share* of the judged rows."""
        judged = np.unique(data.row)
        cold = np.zeros(len(data.rows), bool)
        cold[np.random.default_rng(1000 + seed).choice(judged, round(share * len(judged)), replace=False)] = True
        return cls(data, *data.random_split(seed), cold)

    def judged(self, queries: np.ndarray, *, cold: bool) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return those of *queries* that some row of a kind answers, and these rows."""
        kept = np.isin(self.data.query, queries) & (self.cold[self.data.row] == cold)
        asked = np.unique(self.data.query[kept])
        return asked, [self.data.row[kept & (self.data.query == query)] for query in asked]

    def known(self) -> Judgements:
        """Return the training judgements that are not hidden."""
        asked, rows = self.judged(np.concatenate([self.train, self.dev]), cold=False)
        return Judgements.from_arrays(
            self.data.queries[asked], [(each + 1).tolist() for each in rows], list(map(str, asked))
        )

    def score(self, vectors: np.ndarray, *, cold: bool) -> float:
        """Return the NDCG@10 of the test queries for the rows of a kind, at unit *vectors*."""
        asked, rows = self.judged(self.test, cold=cold)
        queries = self.data.queries[asked]
        scores = queries @ vectors.T
        answers = [self.data.row[self.data.query == query] for query in asked]
        return float(np.mean([_ndcg(*each) for each in zip(scores, rows, answers, strict=True)]))


def _ndcg(scores: np.ndarray, counted: np.ndarray, answers: np.ndarray) -> float:
    """Return the NDCG@10 of rows *counted*, other *answers* taken out of the list."""
    listed = scores.astype(np.float64)
    listed[np.setdiff1d(answers, counted)] = -np.inf
    first = np.argsort(-listed, kind="stable")[:10]
    discounts = 1 / np.log2(np.arange(2, 12))
    return float((np.isin(first, counted) * discounts[: len(first)]).sum() / discounts[: len(counted)].sum())


@dataclass(frozen=True)
class Outcome:
    """Scores of the test queries before and after, and the changes that the plan estimates."""

    proven: bool
    base: tuple[float, float]
    """Warm and cold."""
    real: tuple[float, float]
    estimated: tuple[float, float]
    """Changes."""


def tuned(hidden: Hidden, way: str, choices: Mapping[str, Any]) -> Outcome:
    """Tune one way, proven or not, and look."""
    fixture = hidden.data.fixture()
    base = stored(fixture)
    if way == "authors' rule":
        choices = {**choices, "step": authors_choice(hidden.data, *_known_pairs(hidden)) or None}
    with tempfile.TemporaryDirectory() as state:
        plan = nudge_vdb.plan(fixture.collection, hidden.known(), state=state, **choices)
        nudge_vdb.apply(plan, force=True)
    after, told = stored(fixture), plan.report
    return Outcome(
        plan.proven,
        (hidden.score(base, cold=False), hidden.score(base, cold=True)),
        (hidden.score(after, cold=False), hidden.score(after, cold=True)),
        (told["warm_gain"], told["cold_gain"]),
    )


def _known_pairs(hidden: Hidden) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pairs that are not hidden, and the queries to train on and to choose by that have one."""
    kept = np.flatnonzero(~hidden.cold[hidden.data.row])
    left = np.unique(hidden.data.query[kept])
    return kept, np.intersect1d(hidden.train, left), np.intersect1d(hidden.dev, left)


def stored(fixture: Any) -> np.ndarray:
    """Return the vectors of all rows, in order of their numbers."""
    rows = fixture.read()
    return np.stack([rows[str(number)].vector for number in range(1, len(rows) + 1)])


@dataclass(frozen=True)
class Means:
    """What one way comes to on one set with a share of its rows hidden: means of all seeds, warm and cold."""

    name: str
    share: float
    way: str
    seeds: int
    base: tuple[float, float]
    real: tuple[float, float]
    estimated: tuple[float, float]
    """Changes."""
    proven: int

    def cells(self) -> list[str]:
        """Return what stands in the table."""
        changes = zip(self.change, self.estimated, strict=True)
        off = self.estimated[1] - self.change[1]
        told = [f"{value:+.3f}" for pair in changes for value in pair]
        return [*(f"{score:.3f}" for score in self.real), *told, f"{off:+.3f}", f"{self.proven} of {self.seeds}"]

    @property
    def change(self) -> tuple[float, float]:
        """The real changes."""
        return self.real[0] - self.base[0], self.real[1] - self.base[1]

    def __str__(self) -> str:
        (warm, cold), (new_warm, new_cold) = self.base, self.real
        return (
            f"{self.name} {self.share:.0%} {self.way:22s} warm {warm:.3f} → {new_warm:.3f} ({self.change[0]:+.3f}, "
            f"estimated {self.estimated[0]:+.3f})  cold {cold:.3f} → {new_cold:.3f} ({self.change[1]:+.3f}, "
            f"estimated {self.estimated[1]:+.3f})  proven {self.proven} of {self.seeds}"
        )


def compared(data: RetrievalSet, share: float, seeds: int, way: str) -> Means:
    """Tune one way with every seed."""
    found = [tuned(Hidden.of(data, seed, share), way, WAYS[way]) for seed in range(seeds)]
    base, real, estimated = (
        tuple(np.mean([getattr(each, name) for each in found], axis=0).tolist())
        for name in ("base", "real", "estimated")
    )
    return Means(data.name, share, way, seeds, base, real, estimated, sum(each.proven for each in found))


def page(found: Sequence[Means]) -> str:
    """Return what stands in docs/benchmarks.md."""
    rows = []
    for each in found:
        hidden = f"{each.name}, {each.share:.0%}"
        if not rows or rows[-1][0] != hidden:
            rows.append([hidden, "as they were", f"{each.base[0]:.3f}", f"{each.base[1]:.3f}", *[""] * 6])
        rows.append([hidden, each.way, *each.cells()])
    changes = (f"{kind}: {name}" for kind in ("warm", "cold") for name in ("change", "estimated"))
    head = ("set, rows hidden", "way", "warm", "cold", *changes, "cold: off by", "proven")
    off = {name: max(_off(each) for each in found if each.name == name) for name in dict.fromkeys(_names(found))}
    told = ", ".join(f"{name} {most:.3f}" for name, most in off.items())
    return (
        f"`make bench-cold`: test NDCG@10, means of {found[0].seeds} seeds, each with the judgements of other rows "
        "hidden. Warm counts the rows whose judgements were not hidden, cold those whose were.\n\n"
        f"{table(head, rows)}\n\nThe estimate of the change of cold was off at most by: {told}."
    )


def _names(found: Sequence[Means]) -> list[str]:
    return [each.name for each in found]


def _off(means: Means) -> float:
    return abs(means.estimated[1] - means.change[1])


def main() -> None:
    """Print everything."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("sets", nargs="*", default=["cranfield", "metatool", "synthetic"])
    asked.add_argument("--seeds", type=int, default=SEEDS)
    asked.add_argument("--share", type=float, action="append")
    asked.add_argument("--way", action="append")
    asked.add_argument("--kept", type=Path, help="a file of what was worked out, to go on from")
    asked.add_argument("--record", action="store_true", help="write the section of docs/benchmarks.md")
    given = asked.parse_args()
    found = list(_all(given, _kept(given.kept)))
    if given.record and found:
        record("Rows that nobody judged", page(found))


def _all(given: argparse.Namespace, known: Sequence[Means]) -> Iterator[Means]:
    """Yield and print what every way comes to on every set; what is *known* already is not worked out again."""
    for name in given.sets:
        data = synthetic() if name == "synthetic" else load(name)
        if data is None:
            print(f"{name}: not at hand; set NUDGE_VDB_DATA to the folder that holds it")
            continue
        for share, way in product(given.share or SHARES, given.way or WAYS):
            asked = (name, share, way, given.seeds)
            means = next((each for each in known if (each.name, each.share, each.way, each.seeds) == asked), None)
            if means is None:
                means = compared(data, share, given.seeds, way)
                _keep(given.kept, means)
            print(means, flush=True)
            yield means


def _kept(path: Path | None) -> list[Means]:
    """Return what an interrupted run worked out."""
    if path is None or not path.exists():
        return []
    return [Means(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def _keep(path: Path | None, means: Means) -> None:
    if path is not None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(means)) + "\n")


if __name__ == "__main__":
    main()
