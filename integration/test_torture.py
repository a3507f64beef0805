"""A handful of what `make torture` does for long: the command line dies, a server dies or stands still, somewhere."""

import os

import pytest

from integration import outages, torture
from integration.engines import for_tests
from integration.mortal import mortal
from integration.outages import LONG, SHORT
from integration.scene import ROLLBACK, TUNE, scene_at
from tests.figures import noted

KILLS = int(os.environ.get("NUDGE_VDB_KILLS", "4"))
SECONDS = 120
TOPICS = 21
"""Enough for two batches."""


@pytest.fixture(scope="module", params=["qdrant", pytest.param("milvus", marks=pytest.mark.milvus_server)])
def engine(request):
    return request.param


@pytest.fixture(scope="module")
def server(engine, tmp_path_factory):
    """A server that may be killed."""
    with for_tests(mortal(engine, tmp_path_factory.mktemp(engine))) as server:
        yield server


@pytest.fixture(scope="module")
def scene(server, engine, request, tmp_path_factory):
    """A collection of it, judged widely."""
    with scene_at(server, tmp_path_factory.mktemp("scene"), TOPICS) as scene:
        yield scene
        noted(request)(f"{engine}: {torture.summary(scene)}")


def test_a_run_killed_at_any_instant_is_finished_or_undone_and_nothing_else_has_changed(scene):
    torture.kill_often(scene, KILLS, seed=1, seconds=SECONDS, told=lambda _: None)
    assert torture.kills_of(scene) >= KILLS


def test_what_was_on_its_way_to_a_server_that_stood_still_does_not_undo_the_roll_back(server, scene):
    outages.paused(server, scene, TUNE, SHORT, 0.1)
    assert scene.trace.live() == 0


# What a Qdrant server that dies makes of a run is seen in test_qdrant_failures.py.
@pytest.mark.milvus_server
@pytest.mark.parametrize("engine", ["milvus"], indirect=True, scope="module")
def test_a_server_killed_amid_writing_comes_back_and_the_run_is_finished(server, scene):
    outages.killed(server, scene, TUNE, LONG, 0.2)
    assert scene.trace.live() > 0
    scene.finish(ROLLBACK)
    scene.must_hold(0)
