"""What a collection promises besides: notes, gaps, scope, failures, opening, closing, and what comes round a move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from nudge_vdb.contract import Ability, Collection, Fixture, Outcome, Remark, RowKey, StoredRow, Vectors, Weight, agree
from nudge_vdb.errors import Busy, EngineError, Unknown, Unreachable
from nudge_vdb.testing.asking import (
    ability_of,
    fetch,
    notes_in_the_end,
    scan_all,
    texts_located,
    texts_of,
    turned,
    vectors_of,
    write,
)
from nudge_vdb.testing.examples import example_rows
from nudge_vdb.testing.filled import Filled

PASSING = (Busy, Unreachable, Unknown)
"""The failures that the core takes for one that passes."""


class Terms(Filled):
    """What holds beside reading, writing and searching."""

    def test_a_note_stays_with_the_collection_until_it_is_taken_back(self, fixture: Fixture) -> None:
        collection = fixture.collection
        if Ability.NOTES not in collection.traits.abilities:
            assert (collection.leave_note("nudge_vdb/a", "text"), dict(collection.notes())) == (False, {})
            pytest.skip("the collection does not claim to keep notes")
        before = fixture.read()
        assert dict(collection.notes()) == {}
        texts = {"nudge_vdb/a?b=c": '{"quoted": "\\"}', "nudge_vdb/b": "x" * 1000}
        assert [collection.leave_note(name, text) for name, text in texts.items()] == [True, True]
        assert notes_in_the_end(collection, texts) == texts
        assert collection.leave_note("nudge_vdb/b", "changed")
        assert collection.leave_note("nudge_vdb/a?b=c", "")
        assert notes_in_the_end(collection, {"nudge_vdb/b": "changed"}) == {"nudge_vdb/b": "changed"}
        assert collection.leave_note("nudge_vdb/never", "")
        after = fixture.read()
        assert {text: row.payload for text, row in after.items()} == {text: row.payload for text, row in before.items()}
        assert agree(vectors_of(after, list(before)), vectors_of(before, list(before)), 0.0).all()

    def test_a_diagnosis_is_in_sentences_and_changes_nothing(self, fixture: Fixture) -> None:
        before = fixture.read().keys()
        remarks = fixture.collection.diagnose()
        assert {"reading", "writing"} <= {remark.topic for remark in remarks}
        assert all(remark.topic and remark.text and remark.weight in Weight for remark in remarks)
        assert not [remark for remark in remarks if remark.weight is Weight.OBSTACLE]
        assert fixture.read().keys() == before

    def test_a_row_without_the_vector_is_absent_and_is_given_none(self, fixture: Fixture) -> None:
        collection = fixture.collection
        text = str(self.more_ids[0])
        if Ability.GAPS not in collection.traits.abilities:
            assert not self._takes_a_row_without_the_vector(fixture), "a row may lack the vector: claim GAPS"
            pytest.skip("every row of such a collection has the vector")
        added = example_rows(self.more_ids, self.width, seed=1)
        fixture.insert(replace(added, vectors=np.full_like(added.vectors, np.nan)))
        assert fixture.read()[text].vector is None
        assert text not in {collection.text_of(key) for key in scan_all(collection, 1000)[0]}
        assert text in absent_texts(collection)
        (key,) = collection.locate([text])
        assert key is not None
        assert not fetch(collection, [key])[1].any()
        assert key not in collection.search(added.vectors[:1], 1000)[0]
        some = turned(added.vectors[:1])
        assert write(collection, [key], some, some) == [Outcome.MISSING]
        assert fixture.read()[text].vector is None

    def test_closing_twice_is_fine(self, fixture: Fixture) -> None:
        fixture.collection.close()
        fixture.collection.close()

    def test_a_closed_collection_answers_truly_or_with_an_error_of_the_contract(self, fixture: Fixture) -> None:
        collection = fixture.collection
        keys, vectors = scan_all(collection, 1000)
        calls = reads_of(collection, keys, vectors)
        before = {name: call() for name, call in calls.items()}
        collection.close()
        for name, call in calls.items():
            try:
                answer = call()
            except Exception as exc:
                assert isinstance(exc, EngineError), f"{name} raised {type(exc).__name__}: {exc}"  # noqa: PT017
            else:
                assert answer == before[name], name

    def test_a_collection_that_is_opened_anew_is_the_same(self, fixture: Fixture) -> None:
        collection = fixture.collection
        reopen = ability_of(fixture, "reopen")
        keys, vectors = scan_all(collection, 1000)
        first, texts = collection.scan(None, 5), texts_of(collection, keys)
        write(collection, keys[:3], turned(vectors)[:3], vectors[:3])
        left = {"nudge_vdb/again": "text"} if Ability.NOTES in collection.traits.abilities else {}
        notes = {**collection.notes(), **left}
        assert [collection.leave_note(*note) for note in left.items()] == [True] * len(left)
        again = reopen()
        try:
            assert again.traits == collection.traits
            assert scan_all(again, 1000)[0] == keys
            assert [*first.keys, *scan_all(again, 7, first.next)[0]] == keys
            assert (again.locate(texts), texts_of(again, keys)) == (keys, texts)
            live, _ = fetch(again, keys)
            assert agree(live, vectors_of(fixture.read(), texts), again.traits.tolerance).all()
            assert notes_in_the_end(again, notes) == notes
            assert [again.leave_note(name, "") for name in left] == [True] * len(left)
            assert set(write(again, keys[:3], vectors[:3], live[:3])) == {Outcome.WRITTEN}
        finally:
            again.close()
        assert agree(fetch(collection, keys)[0], vectors, collection.traits.tolerance).all()

    def test_nothing_outside_the_scope_is_seen_counted_found_or_written(self, fixture: Fixture) -> None:
        collection = fixture.collection
        if not collection.traits.scope:
            pytest.skip("the collection has no scope")
        surround = ability_of(fixture, "surround")
        keys, vectors = scan_all(collection, 1000)
        inside, outside = fixture.read(), self.further_ids(5)
        surround(replace(example_rows(outside, self.width, seed=3), vectors=vectors[:5].copy()))
        assert scan_all(collection, 7)[0] == keys
        assert collection.count() == len(keys)
        assert texts_located(collection, [str(name) for name in outside]) == [None] * len(outside)
        hits = collection.search(vectors[:5], len(keys) + len(outside))
        assert [sorted(found) for found in hits] == [sorted(keys)] * 5
        assert set(write(collection, keys, turned(vectors), vectors)) == {Outcome.WRITTEN}
        assert fixture.read().keys() == inside.keys()

    def test_an_engine_that_is_away_is_told_from_one_that_holds_nothing(self, fixture: Fixture) -> None:
        collection = fixture.collection
        cut_off = ability_of(fixture, "cut_off")
        keys, vectors = scan_all(collection, 1000)
        target = turned(vectors)
        calls = reads_of(collection, keys, vectors)
        calls["write"] = lambda: write(collection, keys, target, vectors)
        with cut_off():
            for name, call in calls.items():
                answer: object = None
                try:
                    answer = call()
                except Exception as exc:
                    assert isinstance(exc, PASSING), f"{name} raised {type(exc).__name__}: {exc}"  # noqa: PT017
                assert answer is None or answer == [Outcome.UNKNOWN] * len(keys), f"{name} answered without its engine"
        assert scan_all(collection, 7)[0] == keys
        live, _ = fetch(collection, keys)
        assert set(write(collection, keys, target, live)) == {Outcome.WRITTEN}

    def test_advice_before_a_move_is_in_sentences_and_changes_nothing(self, fixture: Fixture) -> None:
        advise: Callable[[int], list[Remark]] | None = getattr(fixture.collection, "before_move", None)
        if advise is None:
            pytest.skip("the collection has no before_move(): the core says what it can")
        before = fixture.read()
        remarks = [*advise(1), *advise(10_000_000)]
        assert all(remark.topic and remark.text and remark.weight in Weight for remark in remarks)
        self._assert_unchanged(fixture, before)

    def test_work_after_a_move_leaves_the_rows_as_they_are(self, fixture: Fixture) -> None:
        collection = fixture.collection
        work: Callable[[int], None] | None = getattr(collection, "after_move", None)
        if work is None:
            pytest.skip("the collection has no after_move(): there is nothing to do")
        keys, vectors = scan_all(collection, 1000)
        write(collection, keys[:5], turned(vectors)[:5], vectors[:5])
        before = fixture.read()
        for rows in (5, 5, 0):
            work(rows)
        self._assert_unchanged(fixture, before)
        assert scan_all(collection, 7)[0] == keys

    def _assert_unchanged(self, fixture: Fixture, before: dict[str, StoredRow]) -> None:
        after = fixture.read()
        assert {text: row.payload for text, row in after.items()} == {text: row.payload for text, row in before.items()}
        assert agree(vectors_of(after, list(before)), vectors_of(before, list(before)), 0.0).all()

    def _takes_a_row_without_the_vector(self, fixture: Fixture) -> bool:
        added = example_rows(self.more_ids, self.width, seed=1)
        try:
            fixture.insert(replace(added, vectors=np.full_like(added.vectors, np.nan)))
        except Exception:  # the engine refuses, in whatever words
            return False
        row = fixture.read().get(str(self.more_ids[0]))
        return row is not None and row.vector is None


def absent_texts(collection: Collection) -> set[str]:
    """Return the ids of the rows that a scan marks as without the vector."""
    found, cursor = set(), None
    while True:
        page = collection.scan(cursor, 7)
        found |= {collection.text_of(key) for key, lacking in zip(page.keys, page.absent, strict=True) if lacking}
        cursor = page.next
        if cursor is None:
            return found


def reads_of(collection: Collection, keys: list[RowKey], vectors: Vectors) -> dict[str, Callable[[], object]]:
    """Return every way of reading, by name; each returns what can be compared."""
    texts = texts_of(collection, keys[:3])

    def fetched() -> object:
        out, found = fetch(collection, keys)
        return agree(out, vectors, collection.traits.tolerance).tolist(), found.tolist()

    return {
        "scan": lambda: scan_all(collection, 7)[0],
        "fetch": fetched,
        "locate": lambda: collection.locate(texts),
        "search": lambda: collection.search(vectors[:2], 3),
        "count": collection.count,
    }
