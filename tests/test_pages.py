"""Paging out: every row once, whenever it was interrupted."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from nudge_vdb import pages as paging
from nudge_vdb.budget import Budget
from nudge_vdb.contract import Metric, StoredRow
from nudge_vdb.durable import read_sealed, sealed, write_json
from nudge_vdb.errors import Unreachable
from nudge_vdb.pages import forget, page_out
from nudge_vdb.testing import Faulty, example_rows, memory_fixture

ROWS = 53
SCANS = 4
"""How many pages of 16 rows, the smallest there are, hold 53 rows."""
TEN_ROWS = Budget(32 * 10 * 4 * 8)
"""A budget of which a chunk may take ten rows of eight components."""
FILES = ("vectors.f32", "keys.bin", "lengths.i64")


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    """Make pages as small as they get."""
    monkeypatch.setattr(paging, "PAGE_BYTES", 1)


def filled(count=ROWS, name="memory"):
    return memory_fixture(
        example_rows([f"row {number}" * (number % 3) + str(number) for number in range(count)]), name=name
    )


def died():
    raise Unreachable("the power went")


def interrupted(collection, folder, at):
    """Page out until scan number *at*, which fails; return how many rows were reported as done."""
    reported = [0]
    with pytest.raises(Unreachable):
        page_out(Faulty(collection, before={("scan", at): died}), folder, reported.append)
    return reported[-1]


def held(fixture):
    """Return {id: vector} as the collection holds them."""
    return {text: row.vector.tolist() for text, row in fixture.read().items() if row.vector is not None}


def paged(pages):
    """Return {id: vector} as the pages hold them; every row once."""
    texts = [key.decode() for key in pages.keys]
    assert len(set(texts)) == len(texts) == len(pages)
    return dict(zip(texts, pages.vectors.tolist(), strict=True))


def test_a_page_out_holds_every_row_of_the_collection(tmp_path):
    fixture, reported = filled(), []
    collection = Faulty(fixture.collection)
    pages = page_out(collection, tmp_path / "pages", reported.append)
    assert paged(pages) == held(fixture)
    assert (pages.absent, pages.unfit.tolist()) == (0, [])
    assert collection.calls["scan"] == SCANS
    assert reported == [16, 32, 48, ROWS]


def test_the_next_page_is_read_while_one_is_put_away(tmp_path):
    reading = threading.Event()
    seen = []
    collection = Faulty(filled().collection, before={("scan", 2): reading.set})
    page_out(collection, tmp_path / "pages", lambda _: seen.append(reading.wait(10)))
    assert seen == [True] * SCANS


def test_chunks_are_bounded_and_cover_every_row_in_order(tmp_path):
    pages = page_out(filled().collection, tmp_path / "pages", budget=TEN_ROWS)
    chunks = list(pages.chunks())
    assert [place for chunk in chunks for place in range(chunk.start, chunk.stop)] == list(range(ROWS))
    assert max(chunk.stop - chunk.start for chunk in chunks) == 10


def test_an_empty_collection_pages_out_to_nothing(tmp_path):
    pages = page_out(filled(0).collection, tmp_path / "pages")
    assert (len(pages), list(pages.keys), pages.vectors.shape, list(pages.chunks())) == (0, [], (0, 8), [])


@pytest.mark.parametrize("at", range(1, SCANS + 1))
def test_a_page_out_interrupted_at_any_scan_goes_on_where_it_stopped(at, tmp_path):
    fixture = filled()
    folder = tmp_path / "pages"
    done = interrupted(fixture.collection, folder, at)
    again, reported = Faulty(fixture.collection), []
    pages = page_out(again, folder, reported.append)
    assert paged(pages) == held(fixture)
    assert again.calls["scan"] == SCANS - (at - 1)
    assert done == 16 * (at - 1)
    assert min(reported) > done


@pytest.mark.parametrize("at", range(2, SCANS + 1))
@pytest.mark.parametrize("torn", FILES)
def test_the_torn_end_that_a_dying_run_left_is_dropped(torn, at, tmp_path):
    fixture, folder = filled(), tmp_path / "pages"
    interrupted(fixture.collection, folder, at)
    for name in FILES[: FILES.index(torn) + 1]:
        with (folder / name).open("ab") as file:
            file.write(b"\xff" * 1001)
    assert paged(page_out(fixture.collection, folder)) == held(fixture)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("lose", [lambda path: os.truncate(path, 40), Path.unlink], ids=["cut", "gone"])
def test_a_page_out_that_lost_what_it_says_it_has_is_begun_again(lose, name, tmp_path):
    fixture, folder = filled(), tmp_path / "pages"
    interrupted(fixture.collection, folder, 3)
    lose(folder / name)
    again = Faulty(fixture.collection)
    assert paged(page_out(again, folder)) == held(fixture)
    assert again.calls["scan"] == SCANS


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"identity": "memory:memory"}', '{"rows": 3}'])
def test_a_page_out_whose_progress_cannot_be_read_is_begun_again(damage, tmp_path):
    fixture, folder = filled(), tmp_path / "pages"
    interrupted(fixture.collection, folder, 3)
    (folder / "progress.json").write_text(damage)
    again = Faulty(fixture.collection)
    assert paged(page_out(again, folder)) == held(fixture)
    assert again.calls["scan"] == SCANS


def test_the_page_out_of_another_collection_is_not_continued(tmp_path):
    interrupted(filled(name="another").collection, tmp_path / "pages", 3)
    fixture = filled(40)
    assert paged(page_out(fixture.collection, tmp_path / "pages")) == held(fixture)


def test_the_page_out_of_a_collection_that_was_rebuilt_in_another_width_is_not_continued(tmp_path):
    interrupted(filled().collection, tmp_path / "pages", 3)
    rebuilt = memory_fixture(example_rows([str(number) for number in range(ROWS)], width=6))
    assert paged(page_out(rebuilt.collection, tmp_path / "pages")) == held(rebuilt)


@pytest.mark.parametrize(("age", "scans"), [(paging.STALE_AFTER - 60, SCANS - 2), (paging.STALE_AFTER + 1, SCANS)])
def test_a_page_out_is_continued_for_some_hours_and_then_begun_again(age, scans, tmp_path):
    fixture, folder = filled(), tmp_path / "pages"
    interrupted(fixture.collection, folder, 3)
    began(folder, -age)
    again = Faulty(fixture.collection)
    assert paged(page_out(again, folder)) == held(fixture)
    assert again.calls["scan"] == scans


def began(folder, later):
    """Let a page-out have begun so many seconds *later* than it did."""
    facts = read_sealed(folder / "progress.json")
    facts["started"] += later
    del facts["digest"]
    write_json(folder / "progress.json", sealed(facts))


def test_a_page_out_from_the_future_is_begun_again(tmp_path):
    fixture, folder = filled(), tmp_path / "pages"
    interrupted(fixture.collection, folder, 3)
    began(folder, 3600)
    again = Faulty(fixture.collection)
    page_out(again, folder)
    assert again.calls["scan"] == SCANS


def test_a_finished_page_out_is_not_taken_for_todays_collection(tmp_path):
    fixture, folder = filled(), tmp_path / "pages"
    page_out(fixture.collection, folder)
    fixture.re_embed(["0"], np.ones((1, 8), np.float32))
    assert paged(page_out(fixture.collection, folder)) == held(fixture)


def test_rows_without_a_vector_are_counted_and_left_out(tmp_path):
    fixture = filled()
    for text in sorted(fixture.collection.rows)[::5]:
        row = fixture.collection.rows[text]
        fixture.collection.rows[text] = StoredRow(None, row.payload, row.others)
    interrupted(fixture.collection, tmp_path / "pages", 3)
    pages = page_out(fixture.collection, tmp_path / "pages")
    assert pages.absent == len(range(0, ROWS, 5))
    assert paged(pages) == held(fixture)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_listed_as_unfit(broken, tmp_path):
    rows = example_rows([str(number) for number in range(ROWS)])
    rows.vectors[[3, 30, 52], [0, 5, 7]] = broken
    pages = page_out(memory_fixture(rows, Metric.DOT).collection, tmp_path / "pages", budget=TEN_ROWS)
    assert sorted(pages.keys.at(pages.unfit)) == [b"3", b"30", b"52"]
    assert pages.unfit.tolist() == sorted(pages.unfit.tolist())


def test_vectors_may_be_worked_on_without_touching_the_collection(tmp_path):
    fixture = filled()
    before = held(fixture)
    pages = page_out(fixture.collection, tmp_path / "pages")
    pages.vectors[:] = 0
    assert held(fixture) == before


def test_a_forgotten_page_out_is_gone_and_may_be_forgotten_again(tmp_path):
    interrupted(filled().collection, tmp_path / "pages", 3)
    forget(tmp_path / "pages")
    forget(tmp_path / "pages")
    assert list(tmp_path.iterdir()) == []
