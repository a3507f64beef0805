"""The contract over the collection in memory, which is the model for all others."""

from dataclasses import replace

import numpy as np
import pytest

from nudge_vdb.contract import Fixture, Metric, Precision, Rows, rounded
from nudge_vdb.errors import CursorExpired
from nudge_vdb.testing import CollectionContract, MemoryCollection, MemoryFixture, memory_fixture


class TestCosine(CollectionContract):
    def open_filled(self, rows: Rows, metric: Metric, tmp_path) -> Fixture:
        return memory_fixture(rows, metric)


class TestDot(TestCosine):
    metric = Metric.DOT


class TestEuclid(TestCosine):
    metric = Metric.EUCLID


class TestTextIds(TestCosine):
    ids = ["", "a", "b/c", "日本", *map(str, range(40))]
    more_ids = ["zz"]


class Rounding(MemoryCollection):
    """Holds components in another precision, and says so."""

    precision = Precision.HALF

    @property
    def traits(self):
        return replace(
            super().traits, precision=self.precision, tolerance=2e-3 if self.metric is Metric.COSINE else 0.0
        )

    def stored(self, vector):
        return rounded(super().stored(rounded(vector, self.precision)), self.precision)


class RoundingMore(Rounding):
    precision = Precision.BFLOAT16


class TestHalf(CollectionContract):
    metric = Metric.DOT
    kind = Rounding

    def open_filled(self, rows: Rows, metric: Metric, tmp_path) -> Fixture:
        fixture = MemoryFixture(self.kind(metric, rows.vectors.shape[1]))
        fixture.insert(rows)
        return fixture


class TestBfloat16(TestHalf):
    kind = RoundingMore


class Expiring(MemoryCollection):
    """Knows a cursor only as long as its row is there."""

    def scan(self, cursor, limit):
        if cursor is not None and cursor not in self.rows:
            raise CursorExpired(f"nobody knows the cursor {cursor!r} any more")
        return super().scan(cursor, limit)


class TestExpiringCursors(TestHalf):
    kind = Expiring


class Replacing(MemoryCollection):
    """Keeps contract 1: without a number, and without what later ones added."""

    contract = before_move = after_move = None

    def __getattribute__(self, name):
        if name in ("contract", "before_move", "after_move"):
            raise AttributeError(name)
        return super().__getattribute__(name)


class OldFixture:
    """What a fixture was before it could have more members than it must."""

    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        if name in ("reopen", "surround", "interpose", "cut_off"):
            raise AttributeError(name)
        return getattr(self._inner, name)


class TestContract1(TestHalf):
    kind = Replacing

    def open_filled(self, rows: Rows, metric: Metric, tmp_path) -> Fixture:
        return OldFixture(super().open_filled(rows, metric, tmp_path))


@pytest.mark.parametrize("precision", [Precision.HALF, Precision.BFLOAT16])
def test_rounded_is_the_nearest_number_that_such_an_engine_holds(precision):
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(500, 4)) * 10.0 ** rng.integers(-3, 4, size=(500, 4))).astype(np.float32)
    held = rounded(vectors, precision)
    assert (rounded(held, precision) == held).all()
    error = np.abs(held - vectors) / np.abs(vectors)
    digits = {Precision.HALF: 2.0**-11, Precision.BFLOAT16: 2.0**-8}[precision]
    assert 0 < error[np.abs(vectors) > 1e-3].max() <= digits


def test_bfloat16_keeps_nan_and_infinity_and_rounds_ties_to_even():
    given = np.array([[np.nan, np.inf, -np.inf, 3.4e38, 1.00390625, 1.01171875, 0.0, -0.0]], np.float32)
    held = rounded(given, Precision.BFLOAT16)[0]
    assert np.isnan(held[0])
    assert held[1:].tolist() == [np.inf, -np.inf, np.inf, 1.0, 1.015625, 0.0, 0.0]
