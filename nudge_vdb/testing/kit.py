"""The contract as tests: subclass :class:`CollectionContract` and run pytest."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from nudge_vdb.contract import (
    Ability,
    Accuracy,
    Collection,
    Fixture,
    Mask,
    Metric,
    Outcome,
    Precision,
    RowKey,
    Rows,
    StoredRow,
    Vectors,
    Weight,
    agree,
    rounded,
)
from nudge_vdb.errors import Refused
from nudge_vdb.testing.examples import example_rows

LOOKS, BETWEEN_LOOKS = 300, 0.1
NEAR = 5e-3
"""Rows whose scores are nearer than this may change places: an engine of half precision rounds the query, too."""
INTEGERS = [*range(1, 41), 500, 2**31, 2**53 + 1, 2**62]


class CollectionContract:
    """What every backend promises.

    A subclass says in :meth:`open_filled` how a collection is made. ``ids`` are the row ids that
    the collection is filled with, ``more_ids`` those that another writer adds. Overriding one of the tests fails the
    suite; mark it ``pytest.mark.xfail(strict=True, reason=…)`` in a subclass of its own if it cannot be kept.
    """

    ids: ClassVar[Any] = INTEGERS
    more_ids: ClassVar[Any] = [77_777]
    metric: ClassVar[Metric] = Metric.COSINE
    width: ClassVar[int] = 8

    def __init_subclass__(cls, **kwargs: Any) -> None:  # noqa: ANN401 - class keywords are anybody's
        super().__init_subclass__(**kwargs)
        for name in (name for name in vars(CollectionContract) if name.startswith("test_")):
            test = getattr(cls, name)
            if test is not getattr(CollectionContract, name) and not _expected_to_fail(test):
                raise TypeError(
                    f"{cls.__name__}.{name} overrides a promise of the contract; if the backend cannot keep it, "
                    "mark it pytest.mark.xfail(strict=True, reason=…) and call super()"
                )

    def open_filled(self, rows: Rows, metric: Metric, tmp_path: Any) -> Fixture:  # noqa: ANN401
        """Create a collection with *rows* and return it with its back door; to be overridden."""
        raise NotImplementedError

    @pytest.fixture
    def rows(self) -> Rows:
        """The rows that the collection is filled with."""
        return example_rows(self.ids, self.width)

    @pytest.fixture
    def fixture(self, rows: Rows, tmp_path: Any) -> Iterator[Fixture]:  # noqa: ANN401
        """The collection with its back door."""
        fixture = self.open_filled(rows, self.metric, tmp_path)
        yield fixture
        fixture.close()

    @pytest.fixture
    def collection(self, fixture: Fixture) -> Collection:
        """The collection, through the adapter."""
        return fixture.collection

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
            return [fetch(collection, rest), *iter(lambda: None if done.is_set() else fetch(collection, rest), None)]

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

    def test_a_written_vector_is_what_a_reader_sees(self, fixture: Fixture) -> None:
        keys, vectors = scan_all(fixture.collection, 1000)
        target = turned(vectors)
        outcomes = write(fixture.collection, keys, target, vectors)
        assert outcomes == [Outcome.WRITTEN] * len(keys)
        tolerance = fixture.collection.traits.tolerance
        assert agree(fetch(fixture.collection, keys)[0], target, tolerance).all()
        texts = [fixture.collection.text_of(key) for key in keys]
        assert agree(vectors_of(fixture.read(), texts), target, tolerance).all()

    def test_writing_touches_no_payload_no_other_vector_and_no_other_row(self, fixture: Fixture) -> None:
        before = fixture.read()
        keys, vectors = scan_all(fixture.collection, 1000)
        write(fixture.collection, keys[:10], turned(vectors)[:10], vectors[:10])
        after = fixture.read()
        assert after.keys() == before.keys()
        for text, row in before.items():
            assert after[text].payload == row.payload
            assert after[text].others == row.others
        still = [fixture.collection.text_of(key) for key in keys[10:]]
        assert agree(vectors_of(after, still), vectors_of(before, still), 0.0).all()

    def test_writing_back_what_was_read_restores_it(self, fixture: Fixture) -> None:
        keys, vectors = scan_all(fixture.collection, 1000)
        write(fixture.collection, keys, turned(vectors), vectors)
        live, _ = fetch(fixture.collection, keys)
        assert write(fixture.collection, keys, vectors, live) == [Outcome.WRITTEN] * len(keys)
        assert agree(fetch(fixture.collection, keys)[0], vectors, fixture.collection.traits.tolerance).all()

    def test_writing_twice_is_harmless(self, collection: Collection) -> None:
        keys, vectors = scan_all(collection, 1000)
        target = turned(vectors)
        write(collection, keys, target, vectors)
        assert write(collection, keys, target, vectors) == [Outcome.WRITTEN] * len(keys)

    def test_a_vector_that_somebody_changed_is_left_alone(self, fixture: Fixture) -> None:
        keys, vectors = scan_all(fixture.collection, 1000)
        theirs = turned(vectors, 2.0)[[1]]
        fixture.re_embed([self._id_of(fixture.collection.text_of(keys[1]))], theirs)
        held, _ = fetch(fixture.collection, keys)
        outcomes = write(fixture.collection, keys[:3], turned(vectors)[:3], vectors[:3])
        assert outcomes == [Outcome.WRITTEN, Outcome.CHANGED, Outcome.WRITTEN]
        assert agree(fetch(fixture.collection, keys[1:2])[0], held[[1]], 0.0).all()

    def test_a_deleted_row_is_missing_and_stays_deleted(self, fixture: Fixture) -> None:
        keys, vectors = scan_all(fixture.collection, 1000)
        gone = fixture.collection.text_of(keys[1])
        fixture.delete([self._id_of(gone)])
        outcomes = write(fixture.collection, keys[:3], turned(vectors)[:3], vectors[:3])
        assert outcomes == [Outcome.WRITTEN, Outcome.MISSING, Outcome.WRITTEN]
        assert gone not in fixture.read()
        assert len(fixture.read()) == len(self.ids) - 1

    def test_writing_nothing_is_fine(self, collection: Collection) -> None:
        nothing = np.empty((0, self.width), np.float32)
        assert write(collection, [], nothing, nothing) == []

    def test_a_vector_that_is_not_finite_is_never_stored(self, fixture: Fixture) -> None:
        keys, vectors = scan_all(fixture.collection, 1000)
        broken = turned(vectors)[:2]
        broken[0, 0] = np.nan
        before = fixture.read()
        try:
            outcomes = write(fixture.collection, keys[:2], broken, vectors[:2])
        except Exception:
            outcomes = [Outcome.REFUSED]
        assert outcomes[0] is Outcome.REFUSED
        text = fixture.collection.text_of(keys[0])
        assert agree(vectors_of(fixture.read(), [text]), vectors_of(before, [text]), 0.0).all()

    def test_rows_that_others_add_are_seen_by_the_next_scan(self, fixture: Fixture) -> None:
        scan_all(fixture.collection, 1000)
        fixture.insert(example_rows(self.more_ids, self.width, seed=1))
        texts = [fixture.collection.text_of(key) for key in scan_all(fixture.collection, 1000)[0]]
        assert sorted(texts) == sorted(map(str, [*self.ids, *self.more_ids]))

    def test_search_returns_the_nearest_rows_best_first(self, fixture: Fixture) -> None:
        keys, vectors = scan_all(fixture.collection, 1000)
        queries = turned(vectors, 0.3)[:5]
        hits = fixture.collection.search(queries, 4)
        assert [[fixture.collection.text_of(key) for key in row] for row in hits] == [
            [fixture.collection.text_of(keys[place]) for place in places]
            for places in nearest(queries, vectors, self.metric, 4)
        ]

    def test_an_exact_search_puts_every_row_in_its_place(self, fixture: Fixture) -> None:
        collection = fixture.collection
        keys, vectors = scan_all(collection, 1000)
        queries = turned(vectors, 0.3)[:5]
        if Ability.EXACT_SEARCH not in collection.traits.abilities:
            with pytest.raises(Refused):
                collection.search(queries, 4, Accuracy.EXACT)
            pytest.skip("the collection does not claim to search exactly")
        place_of = {key: place for place, key in enumerate(keys)}
        scores = nearness(queries, vectors, self.metric)
        for hits, row in zip(collection.search(queries, len(keys), Accuracy.EXACT), scores, strict=True):
            assert sorted(hits) == sorted(keys)
            assert np.allclose(row[[place_of[key] for key in hits]], np.sort(row)[::-1], atol=NEAR)

    @pytest.mark.parametrize("k", [1, 1000])
    def test_many_searches_are_answered_in_their_order_and_find_no_row_twice(
        self, collection: Collection, k: int
    ) -> None:
        keys, vectors = scan_all(collection, 1000)
        many = np.concatenate([turned(vectors, 0.3)] * 6)
        best = [keys[places[0]] for places in nearest(many, vectors, self.metric, 1)]
        hits = collection.search(many, k)
        assert [row[0] for row in hits] == best
        assert {len(set(row)) for row in hits} == {len(row) for row in hits} == {min(k, len(keys))}

    def test_searching_for_nothing_is_fine(self, collection: Collection) -> None:
        assert collection.search(np.empty((0, self.width), np.float32), 3) == []

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
        if Ability.GAPS not in collection.traits.abilities:
            pytest.skip("every row of such a collection has the vector")
        text = str(self.more_ids[0])
        added = example_rows(self.more_ids, self.width, seed=1)
        fixture.insert(replace(added, vectors=np.full_like(added.vectors, np.nan)))
        assert fixture.read()[text].vector is None
        assert text not in {collection.text_of(key) for key in scan_all(collection, 1000)[0]}
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

    def _id_of(self, text: str) -> Any:  # noqa: ANN401 - int or str, as the collection has it
        return next(name for name in self.ids if str(name) == text)


def _expected_to_fail(test: object) -> bool:
    marks = getattr(test, "pytestmark", [])
    return any(mark.name == "xfail" and mark.kwargs.get("strict") and mark.kwargs.get("reason") for mark in marks)


def notes_in_the_end(collection: Collection, expected: dict[str, str]) -> dict[str, str]:
    """Return the notes when they are as *expected*, or after half a minute: the nodes of a cluster agree in time."""
    for _ in range(LOOKS):
        if dict(collection.notes()) == expected:
            break
        time.sleep(BETWEEN_LOOKS)
    return dict(collection.notes())


def scan_all(collection: Collection, limit: int, cursor: str | None = None) -> tuple[list[RowKey], Vectors]:
    """Follow a scan to its end; return its keys and vectors (n, width), rows without a vector left out."""
    keys: list[RowKey] = []
    vectors: list[Vectors] = [np.empty((0, collection.traits.width), np.float32)]
    while True:
        page = collection.scan(cursor, limit)
        present = ~page.absent
        keys += [key for key, here in zip(page.keys, present, strict=True) if here]
        vectors.append(page.vectors[present])
        if page.next is None:
            return keys, np.concatenate(vectors)
        cursor = page.next


def fetch(collection: Collection, keys: list[RowKey]) -> tuple[Vectors, Mask]:
    """Fetch into a new array."""
    out = np.zeros((len(keys), collection.traits.width), np.float32)
    return out, collection.fetch(keys, out)


def write(collection: Collection, keys: list[RowKey], vectors: Vectors, expected: Vectors) -> list[Outcome]:
    """Write and return the outcomes, one per key."""
    outcomes = collection.write(keys, vectors, expected)
    assert len(outcomes) == len(keys)
    return outcomes


def turned(vectors: Vectors, share: float = 0.7) -> Vectors:
    """Turn each row of *vectors* towards a fixed direction of its own, keeping its length and its precision."""
    rng = np.random.default_rng(5)
    moved = vectors + share * rng.normal(size=vectors.shape) / np.sqrt(vectors.shape[1])
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    moved *= lengths / np.linalg.norm(moved, axis=1, keepdims=True)
    half = (rounded(vectors, Precision.HALF) == vectors).all()
    return rounded(np.asarray(moved.astype(np.float32)), Precision.HALF if half else Precision.SINGLE)


def nearest(queries: Vectors, vectors: Vectors, metric: Metric, k: int) -> list[list[int]]:
    """Return the places of the *k* nearest rows of each query, by brute force in float64."""
    scores = nearness(queries, vectors, metric)
    return [list(row) for row in np.argsort(-scores, axis=1)[:, :k].tolist()]


def nearness(queries: Vectors, vectors: Vectors, metric: Metric) -> NDArray[np.float64]:
    """Return scores (n, m) of which more is nearer, in float64."""
    left, right = queries.astype(np.float64), vectors.astype(np.float64)
    scores = left @ right.T
    if metric is Metric.COSINE:
        scores = scores / np.linalg.norm(right, axis=1)
    if metric is Metric.EUCLID:
        scores = 2 * scores - (right**2).sum(axis=1)
    return np.asarray(scores)


def vectors_of(held: dict[str, StoredRow], texts: list[str]) -> Vectors:
    """Stack the vectors of the rows named *texts*, as read through the back door."""
    return np.stack([np.asarray(held[text].vector, np.float32) for text in texts])
