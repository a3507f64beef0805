"""What a collection promises to those who write its vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nudge_vdb.contract import Collection, Fixture, Outcome, Precision, RowKey, Vectors, agree, rounded
from nudge_vdb.errors import EngineError, Refused
from nudge_vdb.testing.asking import (
    ability_of,
    fetch,
    precision_of,
    scan_all,
    texts_of,
    turned,
    vectors_of,
    write,
)
from nudge_vdb.testing.examples import example_rows
from nudge_vdb.testing.filled import Filled

FEW = 12
BATCH = 2730
DEEP = 1000
SAME_DIRECTION = 0.999
ENOUGH_FOUND = 0.9
"""The share of rows that an index must find by their own vectors."""


class Writes(Filled):
    """Writing, and what others see of it."""

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

    def test_a_row_that_is_not_written_keeps_no_other_from_being_written(self, fixture: Fixture) -> None:
        collection = fixture.collection
        keys, vectors = scan_all(collection, 1000)
        texts, target = texts_of(collection, keys[:FEW]), turned(vectors)[:FEW]
        fixture.re_embed([self._id_of(texts[4])], turned(vectors, 2.0)[[4]])
        fixture.delete([self._id_of(texts[7])])
        outcomes = write(collection, keys[:FEW], target, vectors[:FEW])
        apart = {4: Outcome.CHANGED, 7: Outcome.MISSING}
        assert outcomes == [apart.get(place, Outcome.WRITTEN) for place in range(FEW)]
        rest = [place for place in range(FEW) if place not in apart]
        held = vectors_of(fixture.read(), [texts[place] for place in rest])
        assert agree(held, target[rest], collection.traits.tolerance).all()

    def test_a_vector_that_somebody_moved_a_little_is_left_alone(self, fixture: Fixture) -> None:
        collection = fixture.collection
        keys, vectors = scan_all(collection, 1000)
        theirs = moved_a_little(vectors, rescales=collection.traits.rescales)
        moved = len(theirs)
        texts = texts_of(collection, keys[:moved])
        fixture.re_embed([self._id_of(text) for text in texts], theirs)
        before = vectors_of(fixture.read(), texts)
        assert not agree(before, vectors[:moved], collection.traits.tolerance).any()
        outcomes = write(collection, keys[:moved], turned(vectors)[:moved], vectors[:moved])
        assert outcomes == [Outcome.CHANGED] * moved
        assert agree(vectors_of(fixture.read(), texts), before, 0.0).all()

    def test_a_vector_within_the_tolerance_of_the_expected_one_is_replaced(self, collection: Collection) -> None:
        tolerance = collection.traits.tolerance
        if not tolerance:
            pytest.skip("vectors are compared bit for bit")
        keys, vectors = scan_all(collection, 1000)
        near = (vectors + np.float32(tolerance / 2)).astype(np.float32)
        assert write(collection, keys, turned(vectors), near) == [Outcome.WRITTEN] * len(keys)

    def test_rows_are_written_in_whatever_order_they_are_given(self, fixture: Fixture) -> None:
        collection = fixture.collection
        keys, vectors = scan_all(collection, 1000)
        order = np.random.default_rng(7).permutation(len(keys))
        shuffled, target = [keys[place] for place in order], turned(vectors)[order]
        texts = texts_of(collection, shuffled)
        fixture.delete([self._id_of(texts[0])])
        expected = [Outcome.MISSING] + [Outcome.WRITTEN] * (len(keys) - 1)
        assert write(collection, shuffled, target, vectors[order]) == expected
        held = vectors_of(fixture.read(), texts[1:])
        assert agree(held, target[1:], collection.traits.tolerance).all()

    def test_a_write_leaves_the_arrays_it_is_given_as_they_are(self, collection: Collection) -> None:
        keys, vectors = scan_all(collection, 1000)
        target, held = turned(vectors), vectors.copy()
        sent, every_other = target.copy(), slice(None, None, 2)  # and so not in one piece
        for array in (sent, vectors):
            array.flags.writeable = False
        asked = keys[every_other]
        outcomes = write(collection, asked, sent[every_other], vectors[every_other])
        assert set(outcomes) == {Outcome.WRITTEN}
        assert agree(sent, target, 0.0).all()
        assert agree(vectors, held, 0.0).all()
        assert asked == keys[every_other]

    def test_vectors_of_another_width_are_an_error_of_the_contract(self, fixture: Fixture) -> None:
        collection = fixture.collection
        keys, vectors = scan_all(collection, 1000)
        wider = np.concatenate([vectors, vectors], axis=1)[:3]
        before = fixture.read()
        try:
            outcomes = write(collection, keys[:3], turned(wider), wider)
        except Exception as exc:
            assert isinstance(exc, EngineError), f"{type(exc).__name__} is no error of the contract"  # noqa: PT017
            outcomes = [Outcome.REFUSED] * 3
        assert outcomes == [Outcome.REFUSED] * 3
        texts = texts_of(collection, keys)
        assert agree(vectors_of(fixture.read(), texts), vectors_of(before, texts), 0.0).all()

    def test_a_row_that_is_deleted_between_look_and_write_stays_deleted(self, fixture: Fixture) -> None:
        texts, outcomes = self._written_while(fixture, lambda texts: fixture.delete([self._id_of(texts[3])]))
        assert texts[3] not in fixture.read(), "a row that was deleted meanwhile has come back"
        assert outcomes[3] is not Outcome.WRITTEN

    def test_a_vector_that_is_changed_between_look_and_write_is_left_alone(self, fixture: Fixture) -> None:
        theirs = turned(scan_all(fixture.collection, 1000)[1], 2.0)[[1]]
        texts, outcomes = self._written_while(fixture, lambda texts: fixture.re_embed([self._id_of(texts[1])], theirs))
        assert outcomes[1] is not Outcome.WRITTEN
        held = vectors_of(fixture.read(), [texts[1]])
        assert agree(held, self._fetched(fixture.collection, texts[1]), 0.0).all()
        direction = held @ theirs.T / np.linalg.norm(held) / np.linalg.norm(theirs)
        assert direction > SAME_DIRECTION, "a vector of another writer was overwritten"

    def _fetched(self, collection: Collection, text: str) -> Vectors:
        return fetch(collection, [key for key in collection.locate([text]) if key is not None])[0]

    def _written_while(self, fixture: Fixture, act: Callable[[list[str]], None]) -> tuple[list[str], list[Outcome]]:
        """Write five rows while another writer acts; return their texts and outcomes."""
        collection = fixture.collection
        interpose = ability_of(fixture, "interpose")
        keys, vectors = scan_all(collection, 1000)
        texts = texts_of(collection, keys[:5])
        interpose(lambda: act(texts))
        return texts, write(collection, keys[:5], turned(vectors)[:5], vectors[:5])

    def test_thousands_of_rows_are_read_written_and_found_like_a_few(self, fixture: Fixture) -> None:
        if not self.many:
            pytest.skip(f"{type(self).__name__}.many is 0: another class does this for all")
        collection = fixture.collection
        added = self.further_ids(self.many)
        fixture.insert(example_rows(added, self.width, seed=2))
        keys, vectors = scan_all(collection, 5000)
        assert sorted(texts_of(collection, keys)) == sorted(map(str, [*self.ids, *added]))
        assert scan_all(collection, 999)[0] == keys
        self._write_thousands(fixture, keys, vectors, {str(name): name for name in [*self.ids, *added]})

    def _write_thousands(self, fixture: Fixture, keys: list[RowKey], vectors: Vectors, ids: dict[str, Any]) -> None:
        collection, size = fixture.collection, min(BATCH, len(keys))
        texts, target = texts_of(collection, keys), turned(vectors)
        changed, gone = size // 2, size - 3
        fixture.re_embed([ids[texts[changed]]], turned(vectors, 2.0)[[changed]])
        fixture.delete([ids[texts[gone]]])
        apart = {changed: Outcome.CHANGED, gone: Outcome.MISSING}
        outcomes = write(collection, keys[:size], target[:size], vectors[:size])
        assert outcomes == [apart.get(place, Outcome.WRITTEN) for place in range(size)]
        rest = [place for place in range(size) if place not in apart]
        live, found = fetch(collection, keys)
        assert np.flatnonzero(~found).tolist() == [gone]
        assert agree(live[rest], target[rest], collection.traits.tolerance).all()
        assert agree(live[size:], vectors[size:], 0.0).all()
        held = fixture.read()
        assert agree(
            vectors_of(held, [texts[place] for place in rest]), target[rest], collection.traits.tolerance
        ).all()
        self._find(collection, keys, live, [*rest[:: len(rest) // 50], gone])

    def _find(self, collection: Collection, keys: list[RowKey], live: Vectors, places: list[int]) -> None:
        """Search as deep as many rows; the last of *places* is of a row that is gone."""
        *there, gone = places
        depth = min(DEEP, len(keys) - 1)
        try:
            deep = collection.search(live[there], depth)
        except Refused:
            depth = depth // 10
            deep = collection.search(live[there], depth)
        assert {len(hits) for hits in deep} == {depth}
        assert not [hits for hits in deep if keys[gone] in hits]
        found = [keys[place] in hits for place, hits in zip(there, deep, strict=True)]
        assert np.mean(found) >= ENOUGH_FOUND


def moved_a_little(vectors: Vectors, *, rescales: bool) -> Vectors:
    """Return the first rows of *vectors*, each moved in a way of its own by little: a component, an angle, a length."""
    width = vectors.shape[1]
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    coarse = precision_of(vectors) is not Precision.SINGLE
    little = 0.05 if coarse else 2e-3
    moves = [unit * share for unit in np.eye(width)[[0, 1, width // 2, -1]] for share in (0.05, little)]
    moved = [vectors[row] + lengths[row] * move for row, move in enumerate(moves)]
    turned_off = turned(vectors, 2.0)
    for cosine in (0.9, 0.99):
        row = len(moved)
        ours = vectors[row] / lengths[row]
        other = turned_off[row] - (turned_off[row] @ ours) * ours
        moved.append(lengths[row] * (cosine * ours + np.sqrt(1 - cosine**2) * other / np.linalg.norm(other)))
    for component in (0, width // 2, -1):  # of the same length, and all other components stay
        flipped = vectors[len(moved)].copy()
        flipped[component] *= -1
        moved.append(flipped)
    swapped = vectors[len(moved)].copy()
    swapped[[0, -1]] = swapped[[-1, 0]]
    moved.append(swapped)
    if not rescales:
        moved.append(vectors[len(moved)] * 1.1)
    return rounded(np.asarray(moved, np.float32), precision_of(vectors))
