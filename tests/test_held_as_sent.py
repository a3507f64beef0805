"""What is planned is what an engine can hold: of its precision, and of a length that it can compare."""

from dataclasses import replace

import pytest

import nudge_vdb
from nudge_vdb.contract import Metric, Precision, rounded
from nudge_vdb.errors import BadOption
from nudge_vdb.judgements import Judgements
from nudge_vdb.testing import MemoryCollection, MemoryFixture, example_rows, memory_fixture


def test_a_step_that_would_make_a_vector_vanish_is_refused_and_nothing_is_kept(tmp_path):
    rows = example_rows([f"{number:02}" for number in range(40)])
    collection = memory_fixture(rows, Metric.DOT).collection
    train = Judgements.from_arrays(-rows.vectors[:25], [[name] for name in rows.ids[:25]])
    with pytest.raises(BadOption, match=r"step 1 would leave row '00' with .* give a smaller --step"):
        nudge_vdb.plan(collection, train, state=tmp_path, method="nudge-m", step=1.0)
    assert nudge_vdb.history(collection, state=tmp_path) == []
    assert nudge_vdb.plan(collection, train, state=tmp_path, method="nudge-m", step=0.9).step == 0.9


@pytest.mark.parametrize("length", [1e20, 1e25])
def test_a_row_too_long_to_be_compared_is_refused(length, tmp_path):
    rows = example_rows([f"{number:02}" for number in range(40)])
    rows.vectors[3] *= length
    collection = memory_fixture(rows, Metric.DOT).collection
    train = Judgements.from_arrays(rows.vectors[10:35], [["03", name] for name in rows.ids[10:35]])
    with pytest.raises(BadOption, match="'03'"):
        nudge_vdb.plan(collection, train, state=tmp_path, step=0.5)


class Halving(MemoryCollection):
    """A collection that holds float16."""

    precision = Precision.HALF

    @property
    def traits(self):
        return replace(super().traits, precision=self.precision)

    def stored(self, vector):
        return rounded(super().stored(vector), self.precision)

    def write(self, keys, vectors, expected):
        assert (rounded(vectors, self.precision) == vectors).all()
        return super().write(keys, vectors, expected)


class Shortening(Halving):
    """A collection that holds bfloat16."""

    precision = Precision.BFLOAT16


@pytest.mark.parametrize("kind", [Halving, Shortening])
def test_a_version_holds_what_an_engine_of_half_precision_will_hold_and_is_undone_bit_for_bit(kind, world, tmp_path):
    collection = kind(Metric.DOT, world.collection.width)
    fixture = MemoryFixture(collection)
    for name, row in world.collection.rows.items():
        collection.rows[name] = replace(row, vector=collection.stored(row.vector))
    before = fixture.read()
    applied = nudge_vdb.apply(nudge_vdb.plan(collection, world.train, state=tmp_path))
    assert (applied.written, applied.skipped) == (80, {})
    assert nudge_vdb.verify(collection, state=tmp_path).tuned == 80
    nudge_vdb.rollback(collection, to=0, state=tmp_path)
    assert all((fixture.read()[name].vector == row.vector).all() for name, row in before.items())
