"""The contract's tests over the stranger's backend, by the names that adapters/README.md gives."""

from nudge_vdb_sqlite import open_fixture

from nudge_vdb.address import parse_address
from nudge_vdb.contract import Metric
from nudge_vdb.testing import CollectionContract
from nudge_vdb.testing.kit import fetch, scan_all, turned, write  # noqa: F401 - where strangers found them so far


class TestSqlite(CollectionContract):
    def open_filled(self, rows, metric, tmp_path):
        return open_fixture(parse_address(f"sqlite://{tmp_path}/rows.db/{tmp_path.name}"), rows, metric)


class TestTexts(TestSqlite):
    ids = ["", "a", "b/c", *map(str, range(40))]
    more_ids = ["zz"]
    metric = Metric.DOT
    many = 0


class TestEuclid(TestSqlite):
    metric = Metric.EUCLID
    many = 0
