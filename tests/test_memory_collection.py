"""The contract over the collection in memory, which is the model for all others."""

from nudge_vdb.contract import Fixture, Metric, Rows
from nudge_vdb.testing import CollectionContract, memory_fixture


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
