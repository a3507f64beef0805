"""How often a plan is called proven where there is nothing to gain, and how often it then does harm.

``python -m benchmarks.false_proofs [SEEDS]`` tunes on judgements without signal (Cranfield, rows drawn anew for every
query) and on a made-up set whose rows already lie where their queries are, the judgements of 30 % of its rows hidden.
Harm is what a tune, forced, really costs: more than 0.01 of the mix (1 − ρ)·warm + ρ·cold, on rows drawn once more for
the first, on test queries for the second.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.cold_rows import Hidden, Outcome, tuned
from benchmarks.page import record, table
from benchmarks.sets import RetrievalSet, content, load
from nudge_vdb.judgements import Judgements

SEEDS = 60
HARM = 0.01
WAYS: Mapping[str, Mapping[str, Any]] = {
    "ρ = 0.3": {"cold_share": 0.3},
    "ρ = 0.3, carried": {"cold_share": 0.3, "carry": "on"},
    "ρ = 0.3, auto": {"cold_share": 0.3, "carry": "auto"},
}


@dataclass(frozen=True)
class Noise(Hidden):
    """Judgements without signal, and others of the same kind to test with."""

    drawn: RetrievalSet
    """The set with the rows that it is tuned on; *data* has those that it is tested with."""

    @classmethod
    def drawn_for(cls, data: RetrievalSet, seed: int) -> Noise:
        """Draw rows twice for every query of *data*."""
        first, second = (redrawn(data, np.random.default_rng([seed, time])) for time in range(2))
        nobody, everybody = np.empty(0, int), np.unique(data.query)
        unjudged = ~np.isin(np.arange(len(data.rows)), first.row)
        return cls(second, nobody, nobody, everybody, unjudged, first)

    def known(self) -> Judgements:
        """Return the judgements to tune on."""
        return self.drawn.judged(self.test)


def redrawn(data: RetrievalSet, rng: np.random.Generator) -> RetrievalSet:
    """Return *data* with as many rows for each query, any rows."""
    counts = np.unique(data.query, return_counts=True)[1]
    row = np.concatenate([rng.choice(len(data.rows), count, replace=False) for count in counts])
    return replace(data, query=np.repeat(np.unique(data.query), counts), row=row)


def without_signal(seed: int) -> Hidden:
    """Return Cranfield with judgements that mean nothing."""
    cranfield = load("cranfield")
    assert cranfield is not None  # it ships with the demo
    return Noise.drawn_for(cranfield, seed)


def nothing_to_gain(seed: int) -> Hidden:
    """Return a set that needs no tuning."""
    return Hidden.of(content(seed), seed, 0.3)


KINDS = {"no signal (cranfield)": without_signal, "nothing to gain (made up)": nothing_to_gain}


def lost(found: Outcome, share: float) -> float:
    """Return how much of the mix a tune really cost."""
    warm, cold = (before - after for before, after in zip(found.base, found.real, strict=True))
    return (1 - share) * warm + share * cold


def counted(seeds: int) -> Iterator[tuple[str, str, int, int, int]]:
    """Yield, for each kind of set and way, how many plans were proven, and how many of these did harm."""
    for kind, made in KINDS.items():
        for way, choices in WAYS.items():
            proven = [
                found for seed in range(seeds) if (found := tuned(made(seed), way, {**choices, "seed": seed})).proven
            ]
            harmful = sum(lost(each, choices["cold_share"]) > HARM for each in proven)
            print(f"{kind}, {way}: {len(proven)} of {seeds} proven, {harmful} lose more than {HARM}", flush=True)
            yield kind, way, seeds, len(proven), harmful


def main() -> None:
    """Print everything as it comes, and write the page."""
    rows = list(counted(int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS))
    head = ("set", "way", "seeds", "called proven", f"and really lose more than {HARM}")
    record(
        "Where there is nothing to gain",
        f"""`python -m benchmarks.false_proofs` (`make bench-cold`). Without signal, the rows of every query of
Cranfield are drawn at random, and a loss is measured on rows drawn once more. Where there is nothing to gain, queries
lie around their rows as they are; the judgements of 30 % of the rows are hidden, and a loss is that of test queries.
Nominally 2.5 % of plans without signal are called proven.

{table(head, rows)}""",
    )


if __name__ == "__main__":
    main()
