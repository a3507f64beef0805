"""Retrieval sets as arrays: Cranfield, which ships with the demo, and others where they are at hand."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nudge_vdb.contract import Metric, Rows
from nudge_vdb.demo import SPLITS, cranfield_rows, open_data
from nudge_vdb.judgements import Judgements
from nudge_vdb.nudge import unit
from nudge_vdb.testing import MemoryFixture, memory_fixture

ELSEWHERE = Path(os.environ.get("NUDGE_VDB_DATA", Path(__file__).parents[2] / "shared" / "data"))
"""Where sets lie that do not ship: folders with a ``vectors.npz`` each."""


@dataclass(frozen=True)
class RetrievalSet:
    """Rows numbered from 1, queries, and which row answers which query."""

    name: str
    rows: np.ndarray
    """Of length 1, as the model made them before they were stored in float16."""
    queries: np.ndarray
    query: np.ndarray
    row: np.ndarray
    split: np.ndarray
    """(queries,): 0 train, 1 dev, 2 test."""

    def judgements(self, *splits: str) -> Judgements:
        """Return the judgements of the set's own *splits*."""
        return self.judged(np.flatnonzero(np.isin(self.split, [SPLITS[split] for split in splits])))

    def judged(self, queries: np.ndarray) -> Judgements:
        """Return the judgements of *queries*."""
        rows = [(self.row[self.query == query] + 1).tolist() for query in queries]
        return Judgements.from_arrays(self.queries[queries], rows, [str(query) for query in queries])

    def fixture(self) -> MemoryFixture:
        """Return the rows as a cosine collection in memory."""
        ids = [str(number) for number in range(1, len(self.rows) + 1)]
        return memory_fixture(Rows(ids, self.rows, [{} for _ in ids]), Metric.COSINE, self.name)

    def random_split(self, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return 70 % of the queries to train on, 10 % to choose by and 20 % to test on."""
        order = np.random.default_rng(seed).permutation(np.unique(self.query))
        first, second = int(0.7 * len(order)), int(0.8 * len(order))
        return order[:first], order[first:second], order[second:]


def synthetic(seed: int = 0) -> RetrievalSet:
    """Return 1,500 made-up rows around 60 topics, 500 of which are asked for, from another part of the space."""
    rng = np.random.default_rng(seed)
    width, queries = 96, 1500
    topics = unit(rng.normal(size=(60, width)))[0]
    topic = rng.integers(0, 60, 1500)
    rows = unit(topics[topic] + 0.9 * unit(rng.normal(size=(1500, width)))[0] + rng.normal(size=(1, width)) / 12)[0]
    shift, turn = unit(rng.normal(size=(1, width)))[0], rng.normal(size=(width, width)) / np.sqrt(width)
    row = rng.integers(0, 500, queries)
    asked = rows[row] + 0.6 * shift + 0.5 * rows[row] @ turn + 0.8 * unit(rng.normal(size=(queries, width)))[0]
    # a third of the queries have a second answer, of the same topic
    also = np.array([rng.choice(np.flatnonzero(topic[:500] == topic[row[place]])) for place in range(queries // 3)])
    query = np.concatenate([np.arange(queries), np.flatnonzero(also != row[: len(also)])])
    answer = np.concatenate([row, also[also != row[: len(also)]]])
    split = rng.choice(3, queries, p=[0.7, 0.1, 0.2])
    return RetrievalSet("synthetic", rows, unit(asked)[0].astype(np.float32), query, answer, split)


def content(seed: int = 0) -> RetrievalSet:
    """Return 1,000 made-up rows, 300 of which are asked for, by queries that lie around them: nothing to gain."""
    rng = np.random.default_rng(seed)
    width, queries = 64, 600
    rows = unit(rng.normal(size=(1000, width)))[0]
    row = rng.integers(0, 300, queries)
    asked = unit(rows[row] + 1.9 * unit(rng.normal(size=(queries, width)))[0])[0].astype(np.float32)
    return RetrievalSet("content", rows, asked, np.arange(queries), row, rng.choice(3, queries, p=[0.7, 0.1, 0.2]))


def load(name: str) -> RetrievalSet | None:
    """Return the set *name*, None where it is not at hand."""
    if name == "cranfield":
        with open_data() as data:
            return RetrievalSet(
                name,
                unit(cranfield_rows().vectors)[0],
                data["queries"].astype(np.float32),
                data["qrel_query"],
                data["qrel_row"].astype(np.int64),
                data["split"],
            )
    path = ELSEWHERE / name / "vectors.npz"
    if not path.is_file():
        return None
    with np.load(path) as data:
        split = np.array([SPLITS[str(each)] for each in data["query_split"]])
        rows, queries = unit(data["doc_vectors"])[0], data["query_vectors"].astype(np.float32)
        return RetrievalSet(name, rows, queries, data["qrel_query"], data["qrel_doc"].astype(np.int64), split)
