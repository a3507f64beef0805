"""Before a move the engine is asked what it will do to index and disk, and after it to do what is due."""

import pytest
from rich.console import Console

import nudge_vdb
from nudge_vdb import render
from nudge_vdb.backends import fill
from nudge_vdb.contract import Metric, Remark, Weight
from nudge_vdb.errors import Refused
from nudge_vdb.testing import MemoryCollection, example_rows

CHEAP = {"step": 0.3, "max_queries": 30}


def of_kind(kind, world):
    held = world.collection
    return kind(held.metric, held.width, held.name, engine=held.engine)


class Indexed(MemoryCollection):
    """Has an index that is built anew, and remembers what it was told."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.asked, self.told = [], []

    def before_move(self, rows):
        self.asked.append(rows)
        return [Remark("disk", "0.1 GB"), Remark("index", "the index is built anew: an hour", Weight.WARNING)]

    def after_move(self, rows):
        self.told.append((rows, len([1 for row in self.rows.values() if row.vector is not None])))


def test_a_plan_holds_the_advice_and_warns_of_what_matters(world, tmp_path):
    collection = of_kind(Indexed, world)
    report = nudge_vdb.plan(collection, world.train, state=tmp_path, **CHEAP).report
    assert collection.asked == [report["rows_to_write"]]
    assert report["advice"] == [
        {"topic": "disk", "text": "0.1 GB", "weight": "fine"},
        {"topic": "index", "text": "the index is built anew: an hour", "weight": "warning"},
    ]
    assert "the index is built anew: an hour" in report["warnings"]
    assert "0.1 GB" not in report["warnings"]


def test_the_engine_is_told_after_a_move_how_many_rows_were_written_and_not_when_none_was(world, tmp_path):
    collection = of_kind(Indexed, world)
    plan = nudge_vdb.plan(collection, world.train, state=tmp_path, **CHEAP)
    written = nudge_vdb.apply(plan, force=True).written
    assert [rows for rows, _ in collection.told] == [written]
    nudge_vdb.rollback(collection, to=1, state=tmp_path)
    assert len(collection.told) == 1
    nudge_vdb.rollback(collection, to=0, state=tmp_path)
    assert [rows for rows, _ in collection.told] == [written, written]


@pytest.mark.parametrize(("rows", "shown"), [(999, False), (1000, True)])
def test_the_advice_is_shown_with_the_plan_of_a_large_move(rows, shown, world, tmp_path, capsys):
    collection = of_kind(Indexed, world)
    report = nudge_vdb.plan(collection, world.train, state=tmp_path, **CHEAP).report
    render.plan({**report, "rows_to_write": rows}, Console(width=200))
    said = capsys.readouterr().out
    assert ("disk: 0.1 GB" in said) is shown
    assert said.count("the index is built anew: an hour") == 1


@pytest.mark.parametrize("address", ["qdrant+local://{}/db/c", "milvus+lite://{}/all.db/c"])
def test_both_embedded_engines_say_what_a_move_does_to_the_index(address, tmp_path):
    fixture = fill(address.format(tmp_path), example_rows(list(range(20))), Metric.COSINE)
    assert "index" in {remark.topic for remark in fixture.collection.before_move(20)}
    fixture.close()


@pytest.mark.parametrize("member", ["before_move", "after_move"])
def test_an_engine_that_refuses_either_is_reported_and_ends_nothing(member, world, tmp_path):
    def refuse(self, rows):
        raise Refused("only the owner may analyze")

    collection = of_kind(type("Refusing", (Indexed,), {member: refuse}), world)
    plan = nudge_vdb.plan(collection, world.train, state=tmp_path, **CHEAP)
    applied = nudge_vdb.apply(plan, force=True)
    assert applied.written > 0
    warned = [*plan.report["warnings"], *applied.report["move_warnings"]]
    assert [each for each in warned if "only the owner may analyze" in each]
    assert nudge_vdb.verify(collection, state=tmp_path).clean
