"""A small world in which tuning helps: documents and queries live in different parts of the space."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import settings

from nudge_vdb.contract import Metric, Rows
from nudge_vdb.judgements import Judgements
from nudge_vdb.nudge import unit
from nudge_vdb.testing import MemoryCollection, MemoryFixture, memory_fixture
from tests.figures import (  # noqa: F401 - a fixture and hooks
    figure,
    pytest_sessionfinish,
    pytest_terminal_summary,
    pytest_testnodedown,
)

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@dataclass
class World:
    """A filled collection in memory, with judgements that are worth something."""

    fixture: MemoryFixture
    train: Judgements
    test: Judgements
    fewer: Judgements
    """A part of those to train on."""

    @property
    def collection(self) -> MemoryCollection:
        return self.fixture.collection

    def vectors(self) -> dict[str, np.ndarray]:
        return {text: row.vector for text, row in self.fixture.read().items()}


def make_world(metric: Metric = Metric.COSINE, seed: int = 0, width: int = 24, apart: float = 0.0) -> World:
    """Return 200 rows, 80 of which are asked for, 4 times each, from a point away from the row.

    Beyond that all queries lie *apart* from all rows, in one direction.
    """
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(200, width))
    rows *= rng.uniform(0.8, 1.25, (200, 1)) / np.linalg.norm(rows, axis=1, keepdims=True)
    asked = np.repeat(np.arange(80), 4)
    shift = 1.6 * rng.normal(size=(80, width)) / np.sqrt(width)
    queries = rows[asked] + shift[asked] + 0.7 * rng.normal(size=(320, width)) / np.sqrt(width)
    if apart:
        queries = queries + apart * unit(rng.normal(size=(1, width)))[0]
    ids = [f"row {number:03}" for number in range(200)]
    payloads = [{"number": number} for number in range(200)]
    others = rng.normal(size=(200, 3)).astype(np.float32)
    fixture = memory_fixture(Rows(ids, rows.astype(np.float32), payloads, others), metric)

    def judged(places) -> Judgements:
        return Judgements.from_arrays(
            queries[places], [[ids[asked[place]]] for place in places], [f"q{place}" for place in places]
        )

    places = np.arange(320)
    return World(
        fixture, judged(places[places % 4 > 0]), judged(places[places % 4 == 0]), judged(places[places % 4 > 1])
    )


@pytest.fixture
def world() -> World:
    return make_world()


@pytest.fixture
def worlds():
    """Make worlds to order: worlds(metric, seed)."""
    return make_world


@pytest.fixture
def waits(monkeypatch):
    """Let time pass in no time, for tenacity alone; return how long each wait was."""
    waited = []
    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=waited.append))
    monkeypatch.setattr("tenacity.time", SimpleNamespace(monotonic=lambda: 1000.0 + sum(waited)))
    return waited
