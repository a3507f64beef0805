"""What a collection promises to those who search it."""

from __future__ import annotations

import numpy as np
import pytest

from nudge_vdb.contract import Ability, Accuracy, Collection, Fixture, Metric
from nudge_vdb.errors import EngineError, Refused
from nudge_vdb.testing.asking import fetch, nearest, nearness, scan_all, turned, write
from nudge_vdb.testing.filled import Filled

NEAR = 5e-3
"""Rows whose scores are nearer than this may change places: an engine of half precision rounds the query, too."""
VERY_MANY = 10_000_000


class Searches(Filled):
    """Searching, by the index and without."""

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

    def test_a_search_goes_by_the_vectors_that_were_written_last(self, collection: Collection) -> None:
        keys, vectors = scan_all(collection, 1000)
        collection.search(vectors[:1], 3)
        write(collection, keys, turned(vectors, 2.0), vectors)
        live, _ = fetch(collection, keys)
        queries = turned(live, 0.3)[:5]
        expected = [[keys[place] for place in places] for places in nearest(queries, live, self.metric, 3)]
        assert collection.search(queries, 3) == expected
        if Ability.EXACT_SEARCH in collection.traits.abilities:
            assert collection.search(queries, 3, Accuracy.EXACT) == expected

    def test_a_search_for_more_rows_than_there_are_gives_all_or_is_refused(self, collection: Collection) -> None:
        keys, vectors = scan_all(collection, 1000)
        try:
            hits = collection.search(vectors[:2], VERY_MANY)
        except Exception as exc:
            assert isinstance(exc, Refused), f"{type(exc).__name__} is not Refused"  # noqa: PT017
            return
        assert [sorted(found) for found in hits] == [sorted(keys)] * 2

    def test_queries_of_another_width_are_an_error_of_the_contract(self, collection: Collection) -> None:
        queries = np.ones((2, self.width + 1), np.float32)
        answer: object = None
        try:
            answer = collection.search(queries, 3)
        except Exception as exc:
            assert isinstance(exc, EngineError), f"{type(exc).__name__} is no error of the contract"  # noqa: PT017
        assert answer is None, "queries of another width were answered"

    def test_the_length_of_a_query_is_no_matter_to_cosine_and_inner_product(self, collection: Collection) -> None:
        if self.metric is Metric.EUCLID:
            pytest.skip("it matters to Euclidean distance")
        _, vectors = scan_all(collection, 1000)
        queries = turned(vectors, 0.3)[:5]
        assert collection.search(queries * np.float32(7), 4) == collection.search(queries, 4)
