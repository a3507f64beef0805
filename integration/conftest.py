"""What the tests against whole engines share."""

import json
import sys

import pytest

from benchmarks.sets import load
from integration.engines import any_qdrant, for_tests
from integration.engines_cluster import qdrant_cluster_of_three
from integration.engines_milvus import milvus_server  # noqa: F401 - a fixture
from integration.judged import WIDTH
from integration.milvus_rows import client, docs, name, shared_docs, wire  # noqa: F401 - fixtures
from nudge_vdb import cli, writeback
from nudge_vdb_qdrant.points import ClientPoints
from nudge_vdb_qdrant.stub_points import StubPoints
from tests.figures import (  # noqa: F401 - a fixture and hooks
    figure,
    pytest_sessionfinish,
    pytest_terminal_summary,
    pytest_testnodedown,
)


@pytest.fixture(params=["cranfield", pytest.param("metatool", marks=pytest.mark.needs_data)])
def retrieval_set(request):
    """A real set; those that do not ship are skipped, visibly, where they are not at hand."""
    found = load(request.param)
    if found is None:
        pytest.skip(f"the set {request.param} is not at hand; set NUDGE_VDB_DATA to the folder that holds it")
    return found


@pytest.fixture
def nudge_vdb(monkeypatch, capsys, tmp_path):
    """Run the command line with --json; return its exit status and its JSON object."""
    monkeypatch.setenv("NUDGE_VDB_STATE", str(tmp_path / "state"))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["nudge-vdb", *map(str, arguments), "--json"])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code or 0, json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def at_write(monkeypatch):
    """Do something at the second write of every run to Qdrant, before it is sent: at_write(something)."""
    monkeypatch.setattr(writeback, "BATCH_BYTES", 4 * WIDTH * 20)
    calls = []

    def counted(update, something):
        def updated(*arguments):
            calls.append(arguments)
            if len(calls) == 2:
                something()
            return update(*arguments)

        return updated

    def planned(something):
        for points in (StubPoints, ClientPoints):
            monkeypatch.setattr(points, "update", counted(points.update, something))

    return planned


@pytest.fixture(scope="session")
def qdrant(tmp_path_factory):
    """A Qdrant server; a visible skip where there is none to be had, unless engines are required."""
    with for_tests(any_qdrant(tmp_path_factory.mktemp("qdrant"))) as server:
        yield server


@pytest.fixture(scope="session")
def qdrant_cluster(tmp_path_factory):
    """A Qdrant cluster of three nodes; a visible skip where there is none to be had, unless engines are required."""
    with for_tests(qdrant_cluster_of_three(tmp_path_factory.mktemp("cluster"))) as cluster:
        yield cluster
