"""What a collection promises to those who read it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
import pytest

from nudge_vdb.contract import Collection, Fixture, Mask, Metric, Outcome, Precision, RowKey, Vectors, agree
from nudge_vdb.errors import CursorExpired
from nudge_vdb.testing.asking import (
    fetch,
    precision_of,
    scan_all,
    texts_located,
    texts_of,
    turned,
    vectors_of,
    write,
)
from nudge_vdb.testing.examples import example_rows
from nudge_vdb.testing.filled import Filled

PAGE = 10
BETWEEN_READS = 0.001
STRANGE = [
    "",
    " ",
    "-1",
    "1e3",
    "0x1",
    "1.0",
    " 1",
    "01",
    "+1",
    "9" * 5000,
    "'",
    '"',
    "\\",
    "%",
    "a\0b",
    "null",
    "None",
    "{}",
]


class Reads(Filled):
    """Traits, scan, locate and fetch."""

    strange_texts: ClassVar[Any] = STRANGE

    def test_the_traits_say_what_the_collection_is(self, collection: Collection) -> None:
        traits = collection.traits
        assert (traits.width, traits.metric) == (self.width, self.metric)
        assert 0 <= traits.tolerance < 1e-3
        assert traits.collection
        assert traits.engine
        assert collection.count() == len(self.ids)

    @pytest.mark.parametrize("limit", [1, 7, 1000])
    def test_a_scan_meets_every_row_once_with_the_vector_the_engine_holds(self, fixture: Fixture, limit: int) -> None:
        keys, vectors = scan_all(fixture.collection, limit)
        texts = [fixture.collection.text_of(key) for key in keys]
        assert sorted(texts) == sorted(map(str, self.ids))
        held = fixture.read()
        assert agree(vectors, vectors_of(held, texts), 0.0).all()

    def test_the_order_of_a_scan_depends_neither_on_the_limit_nor_on_writes(self, collection: Collection) -> None:
        keys, vectors = scan_all(collection, 1000)
        first = collection.scan(None, 5)
        write(collection, keys[:20], vectors[::-1][:20].copy(), vectors[:20])
        rest, _ = scan_all(collection, 3, first.next)
        assert [*first.keys, *rest] == keys

    def test_a_cursor_is_text_that_another_scan_can_go_on_from(self, collection: Collection) -> None:
        keys, _ = scan_all(collection, 1000)
        page = collection.scan(None, 5)
        assert isinstance(page.next, str)
        copied = page.next.encode().decode()
        assert [*page.keys, *scan_all(collection, 7, copied)[0]] == keys
        assert scan_all(collection, 7, copied)[0] == keys[len(page.keys) :]

    def test_rows_are_located_by_the_text_of_their_id(self, collection: Collection) -> None:
        texts = [str(name) for name in self.ids[:5]]
        keys = collection.locate([*texts, "no such row"])
        assert keys[-1] is None
        assert [collection.text_of(key) for key in keys[:-1] if key is not None] == texts
        assert collection.locate([]) == []

    def test_the_same_row_has_the_same_key_however_it_is_reached(self, collection: Collection) -> None:
        scanned, _ = scan_all(collection, 1000)
        located = collection.locate([collection.text_of(key) for key in scanned])
        assert located == scanned
        assert all(isinstance(key, bytes) for key in scanned)

    def test_fetch_keeps_the_order_asked_and_tells_what_is_gone(self, fixture: Fixture) -> None:
        keys, vectors = scan_all(fixture.collection, 1000)
        order = list(range(len(keys)))[::-1]
        fixture.delete([self.ids[3]])
        out, found = fetch(fixture.collection, [keys[place] for place in order])
        texts = [fixture.collection.text_of(keys[place]) for place in order]
        assert [bool(mark) for mark in found] == [text != str(self.ids[3]) for text in texts]
        assert agree(out[found], vectors[order][found], 0.0).all()

    def test_fetch_may_be_called_from_several_threads(self, collection: Collection) -> None:
        keys, vectors = scan_all(collection, 1000)
        parts = [keys[first::4] for first in range(4)] * 3
        with ThreadPoolExecutor(4) as pool:
            fetched = list(pool.map(lambda part: fetch(collection, part), parts))
        for number, (out, found) in enumerate(fetched):
            assert found.all()
            assert agree(out, vectors[number % 4 :: 4], 0.0).all()

    def test_rows_may_be_fetched_while_others_are_written(self, collection: Collection) -> None:
        keys, vectors = scan_all(collection, 1000)
        written, rest, held = keys[::2], keys[1::2], vectors[::2]
        target, done = turned(held), threading.Event()

        def fetched() -> list[tuple[Vectors, Mask]]:
            looks = [fetch(collection, rest)]
            while not done.is_set():
                looks.append(fetch(collection, rest))
                time.sleep(BETWEEN_READS)  # or a writer in this process gets no turn
            return looks

        with ThreadPoolExecutor(1) as pool:
            looks = pool.submit(fetched)
            try:
                for old, new in ((held, target), (target, held), (held, target)):
                    assert write(collection, written, new, old) == [Outcome.WRITTEN] * len(written)
            finally:
                done.set()
        for out, found in looks.result():
            assert found.all()
            assert agree(out, vectors[1::2], 0.0).all()
        assert agree(fetch(collection, written)[0], target, collection.traits.tolerance).all()

    def test_fetching_nothing_is_fine(self, collection: Collection) -> None:
        out, found = fetch(collection, [])
        assert len(out) == len(found) == 0

    def test_rows_that_others_add_are_seen_by_the_next_scan(self, fixture: Fixture) -> None:
        scan_all(fixture.collection, 1000)
        fixture.insert(example_rows(self.more_ids, self.width, seed=1))
        texts = [fixture.collection.text_of(key) for key in scan_all(fixture.collection, 1000)[0]]
        assert sorted(texts) == sorted(map(str, [*self.ids, *self.more_ids]))

    def test_the_precision_that_the_traits_claim_is_the_one_that_vectors_are_held_in(self, fixture: Fixture) -> None:
        held, _ = fetch(fixture.collection, scan_all(fixture.collection, 1000)[0])
        if precision_of(held) is not Precision.SINGLE:
            assert fixture.collection.traits.precision is precision_of(held)

    def test_the_traits_say_whether_vectors_are_scaled(self, fixture: Fixture) -> None:
        collection = fixture.collection
        keys, vectors = scan_all(collection, 1000)
        longer = np.asarray(vectors[:3] * np.float32(4))
        fixture.re_embed([self._id_of(text) for text in texts_of(collection, keys[:3])], longer)
        expected = longer / np.linalg.norm(longer, axis=1, keepdims=True) if collection.traits.rescales else longer
        rounding = 1e-6 if collection.traits.precision is Precision.SINGLE else 2e-2
        assert np.allclose(fetch(collection, keys[:3])[0], expected, rtol=rounding, atol=collection.traits.tolerance)

    def test_what_is_returned_is_of_the_types_that_the_contract_names(self, collection: Collection) -> None:
        page = collection.scan(None, PAGE)
        assert page.vectors.dtype == np.dtype(np.float32)  # and so of the byte order of this machine
        assert page.vectors.shape == (len(page.keys), self.width)
        assert (page.absent.dtype, page.absent.shape) == (np.dtype(bool), (len(page.keys),))
        keys = list(page.keys)
        assert {type(key) for key in keys} == {bytes}
        vectors, found = fetch(collection, keys)
        assert isinstance(found, np.ndarray)
        assert (found.dtype, found.shape) == (np.dtype(bool), (len(keys),))
        outcomes = write(collection, keys, turned(vectors), vectors)
        assert {type(outcome) for outcome in outcomes} == {Outcome}
        assert {type(key) for hits in collection.search(vectors[:2], 3) for key in hits} == {bytes}
        assert {type(collection.text_of(key)) for key in keys} == {str}
        assert isinstance(collection.count(), int)

    def test_a_page_holds_about_as_many_rows_as_were_asked_for(self, collection: Collection) -> None:
        sizes, cursor = [], None
        for _ in range(100 * len(self.ids)):
            page = collection.scan(cursor, PAGE)
            sizes.append(len(page.keys))
            cursor = page.next
            if cursor is None:
                break
        assert cursor is None, "the scan does not end"
        assert max(sizes) <= 2 * PAGE

    def test_a_page_stays_as_it_is_while_the_next_is_read(self, collection: Collection) -> None:
        first = collection.scan(None, PAGE)
        keys, vectors, absent = list(first.keys), first.vectors.copy(), first.absent.copy()
        second = collection.scan(first.next, PAGE)
        write(collection, list(second.keys), turned(second.vectors), second.vectors.copy())
        assert list(first.keys) == keys
        assert agree(first.vectors, vectors, 0.0).all()
        assert (first.absent == absent).all()

    def test_a_scan_may_be_followed_from_another_thread(self, collection: Collection) -> None:
        keys, _ = scan_all(collection, 1000)
        first = collection.scan(None, PAGE)
        with ThreadPoolExecutor(1) as pool:
            rest, _ = pool.submit(scan_all, collection, PAGE, first.next).result()
        assert [*first.keys, *rest] == keys

    def test_a_scan_meets_the_rows_that_live_throughout_once_though_others_come_and_go(self, fixture: Fixture) -> None:
        collection = fixture.collection
        keys, _ = scan_all(collection, 1000)
        first = collection.scan(None, 5)
        met = len(first.keys)
        gone = {*first.keys[-2:], keys[met]}  # before the cursor, and on either side of it
        texts = texts_of(collection, sorted(gone))
        fixture.delete([self._id_of(text) for text in texts])
        fixture.insert(example_rows(self.more_ids, self.width, seed=1))
        try:
            seen = [*first.keys, *scan_all(collection, 7, first.next)[0]]
        except CursorExpired:
            seen = scan_all(collection, 7)[0]
        lived = [key for key in keys if key not in gone]
        assert [key for key in seen if key in set(lived)] == lived

    def test_what_others_change_is_seen_by_every_way_of_reading(self, fixture: Fixture) -> None:
        collection = fixture.collection
        keys, vectors = scan_all(collection, 1000)
        texts = texts_of(collection, keys)
        self._read_in_every_way(collection, keys, vectors)
        fixture.re_embed([self._id_of(texts[1]), self._id_of(texts[4])], turned(vectors, 2.0)[[1, 4]])
        self._assert_as_held(fixture, keys, keys)
        self._read_in_every_way(collection, keys, vectors)
        fixture.delete([self._id_of(texts[2])])
        self._assert_as_held(fixture, keys, [*keys[:2], *keys[3:]])
        assert texts_located(collection, texts[:3]) == [texts[0], texts[1], None]
        assert collection.search(vectors[2:3], 1)[0] != [keys[2]]

    def _assert_as_held(self, fixture: Fixture, keys: list[RowKey], left: list[RowKey]) -> None:
        """Read in every way; compare with the back door. Rows 1 and 4 of *left* are not where they were."""
        collection = fixture.collection
        held = vectors_of(fixture.read(), texts_of(collection, left))
        out, found = fetch(collection, keys)
        assert [key for key, there in zip(keys, found, strict=True) if there] == left
        assert agree(out[found], held, collection.traits.tolerance).all()
        for limit in (5, 1000):
            scanned, live = scan_all(collection, limit)
            assert scanned == left
            assert agree(live, held, collection.traits.tolerance).all()
        assert collection.count() == len(left)
        best = collection.search(held, len(keys))
        assert [sorted(hits) for hits in best] == [sorted(left)] * len(left)
        if self.metric is not Metric.DOT:  # by inner product a longer row may stand before the row itself
            assert [hits[0] for hits in best] == left

    def _read_in_every_way(self, collection: Collection, keys: list[RowKey], vectors: Vectors) -> None:
        """Give every cache that there may be its chance."""
        scan_all(collection, 5)
        fetch(collection, keys)
        collection.locate(texts_of(collection, keys[:3]))
        collection.search(vectors[[1, 4]], len(keys))
        collection.search(vectors[2:3], 1)
        collection.count()

    def test_rows_are_located_in_the_order_asked_and_as_often_as_asked(self, collection: Collection) -> None:
        texts = [str(name) for name in self.ids[:6]]
        asked = [*reversed(texts), "no such row", texts[0], texts[0], texts[5]]
        assert texts_located(collection, asked) == [text if text in texts else None for text in asked]

    def test_whatever_text_is_asked_for_is_a_row_that_is_there_or_none(self, collection: Collection) -> None:
        located = texts_located(collection, self.strange_texts)
        assert len(located) == len(self.strange_texts)
        assert set(located) <= {None, *map(str, self.ids)}

    def test_a_collection_without_rows_is_read_like_any_other(self, fixture: Fixture) -> None:
        collection = fixture.collection
        keys, vectors = scan_all(collection, 1000)
        fixture.delete(list(self.ids))
        assert scan_all(collection, 1000)[0] == []
        assert collection.count() == 0
        assert collection.search(vectors[:2], 3) == [[], []]
        assert collection.locate([str(self.ids[0])]) == [None]
        assert not fetch(collection, keys)[1].any()
        assert write(collection, keys[:2], turned(vectors)[:2], vectors[:2]) == [Outcome.MISSING] * 2
