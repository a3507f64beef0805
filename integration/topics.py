"""A collection that is judged widely: every row answers some query, so that a tune moves all of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nudge_vdb.contract import Vectors
from nudge_vdb.judgements import Judgements

CHOICES = {"step": 0.3, "max_queries": 40}
"""A fixed step, and few queries to score: what is tried out here is the way, not the goal."""
OPTIONS = ["--step", "0.3", "--max-queries", "40", "--force"]


@dataclass(frozen=True)
class Topics:
    """Rows numbered from 1; each topic has as many, and queries that ask for all of them."""

    rows: Vectors
    queries: Vectors
    relevant: list[list[str]]

    def judgements(self) -> Judgements:
        """Return what answers what."""
        return Judgements.from_arrays(self.queries, self.relevant)

    def as_file(self, path: Path) -> Path:
        """Write the judgements to *path*."""
        pairs = enumerate(zip(self.queries, self.relevant, strict=True))
        lines = [
            json.dumps({"query_id": f"q{number}", "vector": vector.tolist(), "relevant": rows})
            for number, (vector, rows) in pairs
        ]
        path.write_text("\n".join(lines))
        return path


def topics(count: int, rows: int, width: int, queries: int = 2, seed: int = 0) -> Topics:
    """Return *count* topics of *rows* rows and of *queries* queries each."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(count, 1, width))
    near = (centres + rng.normal(size=(count, rows, width))).reshape(-1, width)
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    asked = (centres + 0.5 * rng.normal(size=(count, queries, width))).reshape(-1, width)
    numbers = np.arange(1, count * rows + 1).reshape(count, rows)
    relevant = [list(map(str, each)) for each in numbers.repeat(queries, axis=0)]
    return Topics(near.astype(np.float32), asked.astype(np.float32), relevant)
