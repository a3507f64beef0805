"""The recipes of docs/scale.md, run as they stand there."""

from contextlib import closing

import pytest
from distributed import Client, LocalCluster

from integration.engines import own_name
from integration.recipes.dask_scan import SpreadScan
from nudge_vdb.backends import connect, fill
from nudge_vdb.contract import Metric
from tests.crowd import ROWS, arrays, figures, make_crowd, planned


@pytest.fixture(scope="module")
def dask():
    """Two workers, processes of their own."""
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1"}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        yield client


@pytest.mark.parametrize("metric", list(Metric))
def test_a_scan_spread_over_workers_makes_the_plan_of_a_scan_by_one(metric, qdrant, dask, tmp_path):
    crowd, address = make_crowd(), qdrant.address(own_name(tmp_path.name))
    fill(address, crowd.rows, metric).close()
    parts = [f"{address}&where=team:{team}" for team in ("a", "b")]
    with closing(connect(address)) as collection:
        scanned = planned(collection, crowd.train, tmp_path / "scan", rivals="scan", test=crowd.test)
        spread = SpreadScan(collection, parts, dask)
        found = planned(spread, crowd.train, tmp_path / "spread", rivals="exact", test=crowd.test)
    assert figures(found) == figures(scanned)
    assert arrays(found) == arrays(scanned)
    assert found.report["rows_read"] < 0.75 * ROWS
    assert found.report["moved"] > 0
