"""What a plan says that applying it will cost."""

import pytest

import nudge_vdb
from nudge_vdb.run import open_state
from nudge_vdb.testing import Faulty


def planned(world, folder, **choices):
    return nudge_vdb.plan(world.collection, world.train, state=folder, carry="on", **choices)


def test_the_rows_to_write_are_the_rows_that_are_written(worlds, tmp_path):
    world = worlds(apart=1.0)
    plan = planned(world, tmp_path, step=0.2)
    assert plan.report["rows_to_write"] == nudge_vdb.apply(plan).written == 200
    again = nudge_vdb.plan(world.collection, world.train, state=tmp_path, step=0.4)
    assert again.report["rows_to_write"] == nudge_vdb.apply(again).written == 200
    same = nudge_vdb.plan(world.collection, world.fewer, state=tmp_path, step=0.4)
    assert same.report["rows_to_write"] == nudge_vdb.apply(same).written


def test_the_bytes_of_a_version_are_those_of_its_files(worlds, tmp_path):
    world = worlds(apart=1.0)
    plan = planned(world, tmp_path)
    files = [path for path in plan.version.folder.iterdir() if path.suffix == ".npy"]
    assert 0 <= sum(path.stat().st_size for path in files) - plan.report["snapshot_bytes"] <= 200 * len(files)


def test_nothing_is_written_to_tell_the_price(worlds, tmp_path):
    world = worlds(apart=1.0)
    before = world.vectors()
    told = planned(world, tmp_path).report
    assert told["minutes"] > 0
    assert all((world.vectors()[text] == before[text]).all() for text in before)


def test_a_large_write_is_the_measure_of_the_next(worlds, tmp_path, monkeypatch):
    monkeypatch.setattr("nudge_vdb.price.LARGE", 100)
    world = worlds(apart=1.0)
    plan = planned(world, tmp_path, step=0.2)
    assert "reading alone" in plan.report["minutes_by"]
    nudge_vdb.apply(plan)
    assert planned(world, tmp_path, step=0.3).report["minutes_by"] == "the last large write"
    seconds, rows, written = open_state(world.collection, tmp_path).journal.large_move(100)
    assert (rows, written) == (200, 200)
    assert seconds >= 0


def test_the_first_price_is_what_this_engine_takes_to_write_and_a_look_at_every_row(worlds, tmp_path, monkeypatch):
    world = worlds(apart=1.0)
    monkeypatch.setattr("nudge_vdb.price._seconds_to_read", lambda *_: (0.03, 0.06))
    slow = world.collection.traits.writing
    assert planned(world, tmp_path).report["minutes"] == pytest.approx(200 * (slow * 0.03 + 0.06) / 60, rel=0.01)


def test_rows_are_timed_all_over_the_collection(worlds, tmp_path, monkeypatch):
    monkeypatch.setattr("nudge_vdb.writeback.BATCH_BYTES", 4 * 24 * 10)
    world = worlds(apart=1.0)
    counted = Fetched(world.collection)
    nudge_vdb.plan(counted, world.train, state=tmp_path, carry="on")
    assert len(counted.keys) == 80
    assert {b"row 000", b"row 199"} < set(counted.keys)


class Fetched(Faulty):
    """A collection that remembers which rows were fetched."""

    def fetch(self, keys, out):
        self.keys = [*getattr(self, "keys", []), *keys]
        return super().fetch(keys, out)
