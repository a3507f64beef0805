"""A small collection with judgements that are worth something, for tests of the whole command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from nudge_vdb.backends import fill
from nudge_vdb.contract import Fixture, Metric, Rows

ROWS = 200
ASKED = 60
WIDTH = 16


def judged_rows(seed: int = 0) -> tuple[Rows, np.ndarray]:
    """Return rows, and four queries to each of the first 60, all of them a step away from the row they ask for."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(ROWS, WIDTH))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    shift = 1.6 * rng.normal(size=(ASKED, 1, WIDTH)) / np.sqrt(WIDTH)
    noise = 0.6 * rng.normal(size=(ASKED, 4, WIDTH)) / np.sqrt(WIDTH)
    queries = vectors[:ASKED, None] + shift + noise
    payloads = [{"number": number, "nested": {"list": [number, None]}} for number in range(ROWS)]
    others = rng.normal(size=(ROWS, 3)).astype(np.float32)
    return Rows(list(range(1, ROWS + 1)), vectors.astype(np.float32), payloads, others), queries.astype(np.float32)


def judged(address: str, folder: Path) -> tuple[Fixture, Path]:
    """Fill the collection at *address*; return it with the file of its judgements."""
    rows, queries = judged_rows()
    return fill(address, rows, Metric.COSINE), write_judgements(folder / "judgements.jsonl", queries)


def write_judgements(file: Path, queries: np.ndarray) -> Path:
    """Write the judgements that say of each query which row it asks for."""
    lines = [
        {"query_id": f"{row}-{number}", "vector": query.tolist(), "relevant": [str(row + 1)]}
        for row, near in enumerate(queries)
        for number, query in enumerate(near)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def vectors_of(fixture: Fixture) -> dict[str, bytes | None]:
    """Return the bits of every row's vector, read round the adapter."""
    held = {text: row.vector for text, row in fixture.read().items()}
    return {text: None if vector is None else np.asarray(vector, "<f4").tobytes() for text, vector in held.items()}


def beside(fixture: Fixture) -> dict[str, object]:
    """Return what else every row holds, read round the adapter."""
    return {
        text: (row.payload, {name: np.asarray(other, "<f4").tolist() for name, other in row.others.items()})
        for text, row in fixture.read().items()
    }
