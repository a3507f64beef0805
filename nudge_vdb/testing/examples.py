"""Example rows: vectors of several lengths, payloads of every kind, and a second vector that must never change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nudge_vdb.contract import Rows


def example_rows(ids: Sequence[int] | Sequence[str], width: int = 8, seed: int = 0) -> Rows:
    """Return one row per id, the same for the same *seed*; vectors are float32, of lengths 0.5 to 2."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(len(ids), width))
    lengths = rng.uniform(0.5, 2.0, size=(len(ids), 1))
    vectors *= lengths / np.linalg.norm(vectors, axis=1, keepdims=True)
    others = rng.normal(size=(len(ids), 3))
    payloads = [_payload(number) for number in range(len(ids))]
    return Rows(ids, vectors.astype(np.float32), payloads, others.astype(np.float32))


def _payload(number: int) -> dict[str, Any]:
    """Nest, leave out and vary: every shape that an adapter might lose."""
    payload: dict[str, Any] = {
        "title": f"row {number} – “quoted”, 日本, \\ and ' too",
        "nested": {"list": [number, None, {"deep": True}], "empty": {}},
        "score": number / 7,
    }
    if number % 3:
        payload["year"] = 1900 + number
    return payload
