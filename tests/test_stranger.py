"""A backend that was written from adapters/README.md alone, installed from outside this repository."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

STRANGER = Path(__file__).parent / "data" / "stranger"
POINTS = """
[nudge_vdb.backends]
sqlite = nudge_vdb_sqlite:open_collection
[nudge_vdb.fixtures]
sqlite = nudge_vdb_sqlite:open_fixture
"""


@pytest.fixture
def elsewhere(tmp_path):
    """Install the stranger's package as pip does; return how to run a Python of its own there."""
    site = tmp_path / "site-packages"
    shutil.copytree(STRANGER, site)
    folder = site / "nudge_vdb_sqlite-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: nudge-vdb-sqlite\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(POINTS)

    def run(*arguments):
        given = {**os.environ, "PYTHONPATH": str(site), "NUDGE_VDB_STATE": str(tmp_path / "state")}
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=tmp_path, env=given, capture_output=True, text=True, check=False)

    return run


def test_the_kit_passes_over_a_backend_that_is_installed_from_elsewhere(elsewhere, tmp_path):
    done = elsewhere("-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "site-packages" / "kit_sqlite.py"))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert " failed" not in done.stdout


TUNE = """
import sys
import numpy as np
import nudge_vdb
from nudge_vdb.backends import fill
from nudge_vdb.contract import Metric
from nudge_vdb.testing import example_rows

address = sys.argv[1]
rows = example_rows(list(range(200)), 16)
fill(address, rows, Metric.COSINE).close()
rng = np.random.default_rng(0)
turned = np.eye(16) + 1.6 * rng.normal(size=(16, 16)) / 4
asked = np.repeat(np.arange(200), 2)
queries = rows.vectors[asked] @ turned + 0.1 * rng.normal(size=(400, 16))
judged = nudge_vdb.Judgements.from_arrays(queries.astype(np.float32), [[int(number)] for number in asked])
plan = nudge_vdb.plan(address, judged, step=0.3, max_queries=60)
written = nudge_vdb.apply(plan, force=True).written
assert nudge_vdb.verify(address).clean
assert nudge_vdb.rollback(address, to=0).written == written > 0
assert nudge_vdb.status(address)["live"] == 0
print("tuned and undone")
"""


def test_such_a_backend_is_tuned_and_undone_by_its_address(elsewhere, tmp_path):
    done = elsewhere("-c", TUNE, f"sqlite://{tmp_path}/rows.db/articles")
    assert done.stdout == "tuned and undone\n", done.stderr[-3000:]
