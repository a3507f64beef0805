"""Asking a collection, and comparing what it says with what is right."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nudge_vdb.contract import (
    Collection,
    Fixture,
    Mask,
    Metric,
    Outcome,
    Precision,
    RowKey,
    StoredRow,
    Vectors,
    rounded,
)
from nudge_vdb.errors import TooLarge

LOOKS, BETWEEN_LOOKS = 300, 0.1
ROUNDING = (Precision.BFLOAT16, Precision.HALF)  # most numbers of the first are numbers of the second, too


def ability_of(fixture: Fixture, name: str) -> Any:  # noqa: ANN401 - the member of that name
    """Return the member *name* of *fixture*; skip the test, visibly, where there is none."""
    member = getattr(fixture, name, None)
    if member is None:
        pytest.skip(f"{type(fixture).__name__} has no member {name}(); nudge_vdb.contract says what it is for")
    return member


def texts_of(collection: Collection, keys: list[RowKey]) -> list[str]:
    """Return the row ids of *keys* as text."""
    return [collection.text_of(key) for key in keys]


def texts_located(collection: Collection, texts: list[str]) -> list[str | None]:
    """Locate *texts*; return the text of each key, None where there is no row."""
    return [None if key is None else collection.text_of(key) for key in collection.locate(texts)]


def precision_of(vectors: Vectors) -> Precision:
    """Return the coarsest precision in which all *vectors* are what they are."""
    for precision in ROUNDING:
        if (rounded(vectors, precision) == vectors).all():
            return precision
    return Precision.SINGLE


def notes_in_the_end(collection: Collection, expected: dict[str, str]) -> dict[str, str]:
    """Return the notes when they are as *expected*, or after half a minute: the nodes of a cluster agree in time."""
    seen = dict(collection.notes())
    for _ in range(LOOKS):
        if seen == expected:
            break
        time.sleep(BETWEEN_LOOKS)
        seen = dict(collection.notes())
    return seen  # looked at once more, another node might answer


def scan_all(collection: Collection, limit: int, cursor: str | None = None) -> tuple[list[RowKey], Vectors]:
    """Follow a scan to its end; return its keys and vectors (n, width), rows without a vector left out."""
    keys: list[RowKey] = []
    vectors: list[Vectors] = [np.empty((0, collection.traits.width), np.float32)]
    while True:
        page = collection.scan(cursor, limit)
        present = ~page.absent
        keys += [key for key, here in zip(page.keys, present, strict=True) if here]
        vectors.append(page.vectors[present])
        if page.next is None:
            return keys, np.concatenate(vectors)
        cursor = page.next


def fetch(collection: Collection, keys: list[RowKey]) -> tuple[Vectors, Mask]:
    """Fetch into a new array."""
    out = np.zeros((len(keys), collection.traits.width), np.float32)
    return out, collection.fetch(keys, out)


def write(collection: Collection, keys: list[RowKey], vectors: Vectors, expected: Vectors) -> list[Outcome]:
    """Write, in halves where the engine finds it too large, and return the outcomes, one per key."""
    try:
        outcomes = collection.write(keys, vectors, expected)
    except TooLarge:
        assert len(keys) > 1, "a single row is said to be too large"
        half = len(keys) // 2
        first = write(collection, keys[:half], vectors[:half], expected[:half])
        return [*first, *write(collection, keys[half:], vectors[half:], expected[half:])]
    assert len(outcomes) == len(keys)
    return outcomes


def turned(vectors: Vectors, share: float = 0.7) -> Vectors:
    """Turn each row of *vectors* towards a fixed direction of its own, keeping its length and its precision."""
    rng = np.random.default_rng(5)
    moved = vectors + share * rng.normal(size=vectors.shape) / np.sqrt(vectors.shape[1])
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    moved *= lengths / np.linalg.norm(moved, axis=1, keepdims=True)
    return rounded(np.asarray(moved.astype(np.float32)), precision_of(vectors))


def nearest(queries: Vectors, vectors: Vectors, metric: Metric, k: int) -> list[list[int]]:
    """Return the places of the *k* nearest rows of each query, by brute force in float64."""
    scores = nearness(queries, vectors, metric)
    return [list(row) for row in np.argsort(-scores, axis=1)[:, :k].tolist()]


def nearness(queries: Vectors, vectors: Vectors, metric: Metric) -> NDArray[np.float64]:
    """Return scores (n, m) of which more is nearer, in float64."""
    left, right = queries.astype(np.float64), vectors.astype(np.float64)
    scores = left @ right.T
    if metric is Metric.COSINE:
        scores = scores / np.linalg.norm(right, axis=1)
    if metric is Metric.EUCLID:
        scores = 2 * scores - (right**2).sum(axis=1)
    return np.asarray(scores)


def vectors_of(held: dict[str, StoredRow], texts: list[str]) -> Vectors:
    """Stack the vectors of the rows named *texts*, as read through the back door."""
    return np.stack([np.asarray(held[text].vector, np.float32) for text in texts])
