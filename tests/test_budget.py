"""One budget for all that a plan holds at once: it bounds memory, and changes nothing else."""

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

import nudge_vdb
from benchmarks.clustered import Clustered
from benchmarks.mapped import MappedCollection
from nudge_vdb.budget import LEAST, USUAL, Budget, Share, parse_size
from nudge_vdb.cli import main
from nudge_vdb.errors import BadOption
from nudge_vdb.judgements import Judgements
from nudge_vdb.mapped import picked, put, release
from nudge_vdb.options import Options
from nudge_vdb.pages import page_out
from nudge_vdb.planning import Course
from nudge_vdb.testing import example_rows, memory_fixture


@pytest.mark.parametrize(
    ("text", "size"),
    [("512MB", 512 * 10**6), ("1GiB", 2**30), ("64 mb", 64 * 10**6), ("1.5G", 15 * 10**8), ("80000000", 8 * 10**7)],
)
def test_a_size_is_read_as_people_write_it(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1MB", "5TB5", "MB", "1e9"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(BadOption, match="expected a size such as 512MB"):
        parse_size(text)


def test_a_budget_in_which_nothing_fits_is_refused_with_the_least_that_will_do():
    with pytest.raises(BadOption, match="memory 1000: expected 64MB and above"):
        Options(memory=1000)
    assert Options(memory=LEAST).budget == Budget(LEAST)


@pytest.mark.parametrize("command", ["plan", "evaluate", "carry"])
def test_the_command_line_takes_a_budget_and_refuses_one_that_is_too_small(command, monkeypatch, capsys, tmp_path):
    path = tmp_path / "judgements.jsonl"
    path.write_text(json.dumps({"query_id": "q", "vector": [1.0, 0.0], "relevant": ["1"]}))
    judged = [] if command == "carry" else ["--judgements", str(path)]
    call = [command, f"qdrant+local://{tmp_path}/none", *judged, "--memory", "1MB", "--json"]
    for module in ("arguments", "cli"):
        monkeypatch.setattr(f"nudge_vdb.{module}.opened", opened_world)
    monkeypatch.setattr("sys.argv", ["nudge-vdb", *call])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "64MB and above" in json.loads(capsys.readouterr().out)["message"]


class opened_world:  # noqa: N801 - stands for a function that is entered
    """A collection in memory, whatever the address."""

    def __init__(self, address):
        self.collection = memory_fixture(example_rows(["1", "2"], width=2)).collection

    def __enter__(self):
        return self.collection

    def __exit__(self, *told):
        return None


def test_every_share_leaves_room_for_at_least_one():
    assert all(Budget(1).count(share, 10**9) == 1 for share in Share)
    assert Budget(10**9).count(Share.CHUNK, 1000) == int(10**9 * Share.CHUNK.value) // 1000


@pytest.mark.parametrize("choices", [{}, {"carry": "on", "cold_share": 0.5}, {"method": "nudge-n", "step": 0.3}])
def test_a_plan_does_not_depend_on_its_budget(worlds, choices, tmp_path, monkeypatch):
    """Down to one row, one pair and one query at a time."""
    monkeypatch.setattr("nudge_vdb.budget.LEAST", 1)
    world = worlds(apart=0.5)
    plans = [
        nudge_vdb.plan(
            world.collection, world.train, test=world.test, state=tmp_path / str(size), memory=size, **choices
        )
        for size in (1, 100_000, 10**9)
    ]
    contents = [plan.version.content for plan in plans]
    for plan, content in zip(plans[1:], contents[1:], strict=True):
        assert list(content.keys) == list(contents[0].keys)
        np.testing.assert_allclose(content.tuned, contents[0].tuned, atol=0 if not choices.get("carry") else 1e-6)
        assert (content.base == contents[0].base).all()
        assert figures(plan) == pytest.approx(figures(plans[0]), abs=1e-12 if not choices.get("carry") else 1e-6)


def figures(plan):
    told = {name: plan.report[name] for name in ("step", "before", "after", "warm_after", "cold_after", "moved")}
    return told | {"test": plan.report["test"]["after"]}


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Rows mapped from a file, and judgements: 40,000 of 256 components, 3,000 queries for 600 of them."""
    data, path = Clustered(40_000, 256, 3000), tmp_path_factory.mktemp("large") / "rows.npy"
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (data.rows, data.width))
    for places, vectors in data.parts():
        rows[places.start : places.stop] = vectors
    queries, answers = data.judged()
    return MappedCollection(np.load(path, mmap_mode="r")), Judgements.from_arrays(queries, [[str(a)] for a in answers])


@pytest.mark.parametrize("carry", ["off", "on"])
def test_a_plan_holds_no_more_than_its_budget(large, carry, tmp_path):
    """The rows alone are 41 MB, their scores 320 MB."""
    collection, judgements = large
    choices = {"memory": LEAST, "carry": carry, "rivals": "scan"}
    assert peak(nudge_vdb.plan, collection, judgements, state=tmp_path, **choices) < LEAST


def test_held_out_queries_are_scored_in_portions_at_the_two_steps_that_count(worlds, tmp_path, monkeypatch):
    world = worlds(apart=0.5)
    whole = nudge_vdb.plan(world.collection, world.train, test=world.test, state=tmp_path / "whole")
    asked = []

    def table(course, exam, steps, work=Course.table):
        asked.append((len(exam.units), len(steps)))
        return work(course, exam, steps)

    monkeypatch.setattr(Course, "table", table)
    monkeypatch.setattr("nudge_vdb.proposal.QUERIES_AT_ONCE", 7)
    plan = nudge_vdb.plan(world.collection, world.train, test=world.test, state=tmp_path / "parts")
    assert plan.report["test"] == whole.report["test"]
    assert {steps for _, steps in asked[1:]} == {2}
    assert max(queries for queries, _ in asked[1:]) == 7
    assert sum(queries for queries, _ in asked[1:]) == len(world.test)


def test_scoring_a_collection_holds_less_where_its_budget_is_smaller(large):
    small, usual = (peak(nudge_vdb.evaluate, *large, memory=size) for size in (LEAST, USUAL))
    assert small < min(LEAST, 0.9 * usual)


def peak(work, *arguments, **options):
    """Return the most bytes that are held at once."""
    tracemalloc.start()
    try:
        work(*arguments, **options)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_what_was_written_to_pages_stays_when_they_are_let_go_of(tmp_path):
    rows = example_rows([f"{number:03}" for number in range(200)])
    pages = page_out(memory_fixture(rows).collection, tmp_path / "pages")
    pages = replace(pages, budget=Budget(1))
    for part in pages.chunks():
        pages.vectors[part] = part.start
    release(pages.vectors)
    assert pages.vectors[:, 0].tolist() == list(range(200))
    assert (pages.at(np.array([7, 3]))[:, 0] == [7, 3]).all()


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 200])
def test_rows_anywhere_in_a_file_are_read_and_written_a_few_at_a_time(count, tmp_path, monkeypatch):
    rng = np.random.default_rng(count)
    places, rows = rng.permutation(300)[:count], rng.normal(size=(300, 3)).astype(np.float32)
    mapped = np.memmap(tmp_path / "rows", np.float32, "w+", shape=rows.shape)
    mapped[:] = 7
    released = []
    monkeypatch.setattr("nudge_vdb.mapped.release", released.append)
    put(mapped, places, rows[places])
    assert len(released) == -(-count // 64)
    assert (picked(mapped, places) == rows[places]).all()
    assert len(released) == 2 * -(-count // 64)
    assert (np.delete(mapped, places, axis=0) == 7).all()


def test_places_and_rows_that_are_not_as_many_are_refused():
    held = np.zeros((9, 2))
    with pytest.raises(ValueError, match="1 rows for 3 places"):
        put(held, np.arange(3), np.ones((1, 2)))
    assert not held.any()


def test_what_somebody_changed_in_a_private_mapping_is_not_lost(tmp_path):
    np.save(tmp_path / "rows.npy", np.zeros((200, 3)))
    theirs = np.load(tmp_path / "rows.npy", mmap_mode="c")
    theirs[:] = 1
    assert (picked(theirs, np.arange(200)) == 1).all()
    assert (theirs == 1).all()


def test_letting_go_of_what_is_not_mapped_does_nothing():
    held = np.ones(3)
    release(held)
    assert held.tolist() == [1, 1, 1]
