"""The contract over Qdrant's local mode, and what only Qdrant has."""

from uuid import UUID

from nudge_vdb.backends import fill
from nudge_vdb.contract import Fixture, Metric, Rows
from nudge_vdb.testing import CollectionContract

UUIDS = [str(UUID(int=(number * 0x9E3779B97F4A7C15F39CC0605CEDC835) % 2**128)) for number in range(1, 41)]


class TestUnnamedCosine(CollectionContract):
    vector = ""

    def open_filled(self, rows: Rows, metric: Metric, tmp_path) -> Fixture:
        query = f"?vector={self.vector}" if self.vector else ""
        return fill(f"qdrant+local://{tmp_path}/db/articles{query}", rows, metric)


class TestUnnamedDot(TestUnnamedCosine):
    metric = Metric.DOT


class TestUnnamedEuclid(TestUnnamedCosine):
    metric = Metric.EUCLID


class TestNamedCosine(TestUnnamedCosine):
    vector = "title"


class TestNamedDot(TestNamedCosine):
    metric = Metric.DOT


class TestNamedEuclid(TestNamedCosine):
    metric = Metric.EUCLID


class TestUuids(TestNamedCosine):
    ids = UUIDS
    more_ids = ["ffffffff-ffff-ffff-ffff-ffffffffffff"]


class TestIntegersAndUuidsTogether(TestNamedCosine):
    ids = [0, 2**63, 2**64 - 1, *UUIDS]
    more_ids = [7, "00000000-0000-0000-0000-000000000000"]
