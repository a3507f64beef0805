"""A scan that does not get on is ended, and one whose cursor has expired is begun again."""

from dataclasses import replace

import numpy as np
import pytest

from nudge_vdb import scanning
from nudge_vdb.contract import Metric, Page
from nudge_vdb.doctor import diagnose
from nudge_vdb.errors import ContractBroken, CursorExpired, UnfitCollection
from nudge_vdb.pages import RESTARTS, page_out
from nudge_vdb.retry import Patient
from nudge_vdb.testing import MemoryCollection, example_rows, memory_fixture

ROWS = example_rows([f"{number:04}" for number in range(300)])


def of_kind(kind):
    """Return a filled collection of *kind*."""
    return kind(Metric.DOT, engine=memory_fixture(ROWS, Metric.DOT).collection.engine)


class Ring(MemoryCollection):
    """After the last of the rows comes one in the middle."""

    back_to = "0123"

    def scan(self, cursor, limit):
        page = super().scan(cursor, 10)
        return page if page.next else replace(page, next=self.back_to)


class Repeater(MemoryCollection):
    """A cache that answers every request with the first page, under a new cursor."""

    asked = 0

    def scan(self, cursor, limit):
        self.asked += 1
        return replace(super().scan(None, 300), next=f"page {self.asked}")


class Overlapping(MemoryCollection):
    """A page begins with the last row of the one before."""

    def scan(self, cursor, limit):
        page = super().scan(cursor, 10)
        return page if page.next is None else replace(page, next=list(page.keys)[-2].decode())


class SilentRing(MemoryCollection):
    """Two cursors that lead to each other, and no rows."""

    def scan(self, cursor, limit):
        return Page([], np.empty((0, self.width), np.float32), np.empty(0, bool), "a" if cursor == "b" else "b")


class Nothing(MemoryCollection):
    """Always another cursor, and no rows."""

    def scan(self, cursor, limit):
        return Page([], np.empty((0, self.width), np.float32), np.empty(0, bool), str(int(cursor or 0) + 1))


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        (Ring, UnfitCollection, "'0124' of memory:memory?vector= was met twice"),
        (Repeater, UnfitCollection, "'0000' of memory:memory?vector= was met twice"),
        (Overlapping, UnfitCollection, "was met twice"),
        (SilentRing, ContractBroken, "the cursor of an earlier page came again"),
        (Nothing, ContractBroken, "pages without a row came again"),
    ],
)
def test_a_scan_that_does_not_get_on_is_ended(kind, error, words, tmp_path, monkeypatch):
    monkeypatch.setattr(scanning, "MOST_EMPTY", 50)
    with pytest.raises(error, match=words.replace("?", "[?]")):
        page_out(Patient(of_kind(kind)), tmp_path / "pages")


@pytest.mark.parametrize("kind", [Ring, Repeater])
@pytest.mark.parametrize("remembered", [1, 64])
def test_rows_that_come_again_are_noticed_within_a_few_rounds_in_bounded_memory(kind, remembered, monkeypatch):
    monkeypatch.setattr(scanning, "REMEMBERED", remembered)
    progress, collection = scanning.Progression(of_kind(kind)), of_kind(kind)
    with pytest.raises((UnfitCollection, ContractBroken)):
        follow(progress, collection, pages=100)
    assert len(progress._seen) <= remembered


def follow(progress, collection, pages):
    """Note so many pages of a scan."""
    cursor = None
    for _ in range(pages):
        page = collection.scan(cursor, 10)
        progress.note(page)
        cursor = page.next


def test_a_right_scan_of_more_rows_than_are_remembered_goes_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(scanning, "REMEMBERED", 64)
    pages = page_out(of_kind(MemoryCollection), tmp_path / "pages")
    assert list(pages.keys) == [name.encode() for name in ROWS.ids]


class Forgetful(MemoryCollection):
    """An engine that no longer knows the cursors of its first *times* scans when they are half done."""

    times, scans = 1, 0

    def scan(self, cursor, limit):
        self.scans += cursor is None
        if cursor and cursor > "0100" and self.scans <= self.times:
            raise CursorExpired("the cursor is older than five minutes")
        return super().scan(cursor, 10)


def test_a_scan_whose_cursor_has_expired_is_begun_again_and_no_row_is_lost_or_there_twice(tmp_path):
    collection = of_kind(Forgetful)
    pages = page_out(Patient(collection), tmp_path / "pages")
    assert list(pages.keys) == [name.encode() for name in ROWS.ids]
    assert np.array_equal(pages.vectors, ROWS.vectors)
    assert collection.scans == 2


def test_an_interrupted_scan_whose_cursor_has_expired_is_begun_again(tmp_path):
    class Dies(Exception):
        pass

    def die(rows):
        if rows >= 50:
            raise Dies

    with pytest.raises(Dies):
        page_out(of_kind(Forgetful), tmp_path / "pages", die)
    late = of_kind(Forgetful)
    late.scans = 1  # so that even the cursor that is gone on with has expired
    pages = page_out(late, tmp_path / "pages")
    assert list(pages.keys) == [name.encode() for name in ROWS.ids]


def test_cursors_that_expire_again_and_again_end_the_scan_with_the_words_of_the_engine(tmp_path):
    collection = of_kind(Forgetful)
    collection.times = 100
    with pytest.raises(CursorExpired, match="older than five minutes"):
        page_out(Patient(collection), tmp_path / "pages")
    assert collection.scans == RESTARTS + 1


def test_a_diagnosis_goes_by_what_was_sampled_before_the_cursor_expired():
    collection = of_kind(Forgetful)
    collection.times = 100
    assert diagnose(collection)
