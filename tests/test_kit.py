"""The kit bites: one deliberately broken collection per promise."""

import inspect
import threading
from dataclasses import replace

import numpy as np
import pytest

from nudge_vdb.contract import Accuracy, Metric, Outcome, Page, Remark, StoredRow, Weight
from nudge_vdb.testing import CollectionContract, MemoryCollection, MemoryFixture, asking, example_rows
from tests import wrong_collections as wrong


class LiesAboutItsMetric(MemoryCollection):
    @property
    def traits(self):
        return replace(super().traits, metric=Metric.DOT)


class LosesTheLastRowOfEveryPage(MemoryCollection):
    def scan(self, cursor, limit):
        page = super().scan(cursor, limit)
        kept = max(1, len(page.keys) - 1)
        return Page(page.keys[:kept], page.vectors[:kept], page.absent[:kept], page.next)


class ScansInTheOrderOfItsVectors(MemoryCollection):
    def scan(self, cursor, limit):
        texts = sorted(self.rows, key=lambda text: float(self.rows[text].vector[0]))
        first = int(cursor or 0)
        keys = [text.encode() for text in texts[first : first + limit]]
        vectors = np.empty((len(keys), self.width), np.float32)
        absent = ~self.fetch(keys, vectors)
        return Page(keys, vectors, absent, str(first + limit) if first + limit < len(texts) else None)


class HandsOutACursorThatIsNoText(MemoryCollection):
    def scan(self, cursor, limit):
        page = super().scan(cursor and cursor[0], limit)
        return Page(page.keys, page.vectors, page.absent, page.next and (page.next,))


class LocatesRowsThatDoNotExist(MemoryCollection):
    def locate(self, texts):
        return [text.encode() for text in texts]


class LocatesByAnotherKeyThanItScans(MemoryCollection):
    def locate(self, texts):
        return [key and key + b"!" for key in super().locate(texts)]

    def text_of(self, key):
        return super().text_of(key.removesuffix(b"!"))


class FetchesInItsOwnOrder(MemoryCollection):
    def fetch(self, keys, out):
        return super().fetch(sorted(keys), out)


class FetchesInOneThreadOnly(MemoryCollection):
    def fetch(self, keys, out):
        assert threading.current_thread() is threading.main_thread()
        return super().fetch(keys, out)


class HandsOutZerosWhileItWrites(MemoryCollection):
    writing, looked = False, threading.Event()

    def write(self, keys, vectors, expected):
        self.writing = True
        self.looked.wait(10)
        outcomes = super().write(keys, vectors, expected)
        self.writing = False
        return outcomes

    def fetch(self, keys, out):
        found = super().fetch(keys, out)
        if self.writing:
            out[:] = 0
            self.looked.set()
        return found


class CannotFetchNothing(MemoryCollection):
    def fetch(self, keys, out):
        assert keys
        return super().fetch(keys, out)


class SaysWrittenAndWritesNothing(MemoryCollection):
    def write(self, keys, vectors, expected):
        return [Outcome.WRITTEN] * len(keys)


class ReplacesTheWholeRow(MemoryCollection):
    def _write_one(self, key, vector, expected):
        outcome = super()._write_one(key, vector, expected)
        if outcome is Outcome.WRITTEN:
            self.rows[key.decode()] = StoredRow(self.rows[key.decode()].vector, {}, {})
        return outcome


class RoundsWhatItStores(MemoryCollection):
    def stored(self, vector):
        return super().stored(vector).astype(np.float16).astype(np.float32) if self.rows else super().stored(vector)


class TakesAVectorOnce(MemoryCollection):
    def _write_one(self, key, vector, expected):
        if np.allclose(self.rows[key.decode()].vector, self.stored(vector)):
            return Outcome.REFUSED
        return super()._write_one(key, vector, expected)


class NeverCompares(MemoryCollection):
    def _write_one(self, key, vector, expected):
        row = self.rows.get(key.decode())
        return super()._write_one(key, vector, expected if row is None else row.vector)


class CreatesDeletedRowsAgain(MemoryCollection):
    def _write_one(self, key, vector, expected):
        self.rows.setdefault(key.decode(), StoredRow(self.stored(expected), {}, {}))
        return super()._write_one(key, vector, expected)


class CannotWriteNothing(MemoryCollection):
    def write(self, keys, vectors, expected):
        return super().write(keys, vectors, expected)[0:] if keys else [Outcome.WRITTEN]


class StoresNaN(MemoryCollection):
    def write(self, keys, vectors, expected):
        return [self._write_one(*row) for row in zip(keys, vectors, expected, strict=True)]


class RemembersItsFirstScan(MemoryCollection):
    def scan(self, cursor, limit):
        self.first = getattr(self, "first", None) or dict(self.rows)
        now, self.rows = self.rows, self.first
        try:
            return super().scan(cursor, limit)
        finally:
            self.rows = now


class AnswersWorstFirst(MemoryCollection):
    def search(self, queries, k, accuracy=Accuracy.INDEX):
        return [hits[::-1] for hits in super().search(queries, k, accuracy)]


class FindsTheFirstTenWhateverIsAsked(MemoryCollection):
    def search(self, queries, k, accuracy=Accuracy.INDEX):
        return super().search(queries, 10 if accuracy is Accuracy.EXACT else k)


class AnswersAHundredAtATime(MemoryCollection):
    def search(self, queries, k, accuracy=Accuracy.INDEX):
        return super().search(np.resize(queries[:100], queries.shape), k)


class CannotSearchForNothing(MemoryCollection):
    def search(self, queries, k, accuracy=Accuracy.INDEX):
        assert len(queries)
        return super().search(queries, k)


class KeepsNotesForEver(MemoryCollection):
    def leave_note(self, name, text):
        return super().leave_note(name, text) if text else True


class SeesAnObstacleEverywhere(MemoryCollection):
    def diagnose(self):
        return [*super().diagnose(), Remark("limits", "nothing is allowed", Weight.OBSTACLE)]


class FillsGaps(MemoryCollection):
    def _write_one(self, key, vector, expected):
        row = self.rows.get(key.decode())
        if row is not None and row.vector is None:
            self.rows[key.decode()] = StoredRow(self.stored(vector), row.payload, row.others)
        return super()._write_one(key, vector, expected)


class ClosesOnce(MemoryCollection):
    def close(self):
        assert not getattr(self, "closed", False)
        self.closed = True


BITES = {
    "test_the_traits_say_what_the_collection_is": LiesAboutItsMetric,
    "test_a_scan_meets_every_row_once_with_the_vector_the_engine_holds": LosesTheLastRowOfEveryPage,
    "test_the_order_of_a_scan_depends_neither_on_the_limit_nor_on_writes": ScansInTheOrderOfItsVectors,
    "test_a_cursor_is_text_that_another_scan_can_go_on_from": HandsOutACursorThatIsNoText,
    "test_rows_are_located_by_the_text_of_their_id": LocatesRowsThatDoNotExist,
    "test_the_same_row_has_the_same_key_however_it_is_reached": LocatesByAnotherKeyThanItScans,
    "test_fetch_keeps_the_order_asked_and_tells_what_is_gone": FetchesInItsOwnOrder,
    "test_fetch_may_be_called_from_several_threads": FetchesInOneThreadOnly,
    "test_rows_may_be_fetched_while_others_are_written": HandsOutZerosWhileItWrites,
    "test_fetching_nothing_is_fine": CannotFetchNothing,
    "test_a_written_vector_is_what_a_reader_sees": SaysWrittenAndWritesNothing,
    "test_writing_touches_no_payload_no_other_vector_and_no_other_row": ReplacesTheWholeRow,
    "test_writing_back_what_was_read_restores_it": RoundsWhatItStores,
    "test_writing_twice_is_harmless": TakesAVectorOnce,
    "test_a_vector_that_somebody_changed_is_left_alone": NeverCompares,
    "test_a_deleted_row_is_missing_and_stays_deleted": CreatesDeletedRowsAgain,
    "test_writing_nothing_is_fine": CannotWriteNothing,
    "test_a_vector_that_is_not_finite_is_never_stored": StoresNaN,
    "test_rows_that_others_add_are_seen_by_the_next_scan": RemembersItsFirstScan,
    "test_search_returns_the_nearest_rows_best_first": AnswersWorstFirst,
    "test_an_exact_search_puts_every_row_in_its_place": FindsTheFirstTenWhateverIsAsked,
    "test_many_searches_are_answered_in_their_order_and_find_no_row_twice": AnswersAHundredAtATime,
    "test_searching_for_nothing_is_fine": CannotSearchForNothing,
    "test_a_note_stays_with_the_collection_until_it_is_taken_back": KeepsNotesForEver,
    "test_a_diagnosis_is_in_sentences_and_changes_nothing": SeesAnObstacleEverywhere,
    "test_a_row_without_the_vector_is_absent_and_is_given_none": FillsGaps,
    "test_closing_twice_is_fine": ClosesOnce,
}


SUBTLE = {
    "test_a_row_that_is_not_written_keeps_no_other_from_being_written": [
        wrong.RollsTheWholeBatchBack,
        wrong.StopsAtTheFirstRowThatIsNotWritten,
    ],
    "test_a_vector_that_somebody_moved_a_little_is_left_alone": [
        wrong.ComparesByAngle,
        wrong.ComparesByLessAngle,
        wrong.ComparesSomeComponents,
        wrong.ComparesAllComponentsButTheLast,
        wrong.ComparesEverySecondComponent,
        wrong.ComparesTheSum,
        wrong.ComparesRoughly,
        wrong.ComparesDirectionsOnly,
    ],
    "test_a_vector_within_the_tolerance_of_the_expected_one_is_replaced": [wrong.ComparesBitForBit],
    "test_rows_are_written_in_whatever_order_they_are_given": [
        wrong.ReportsOutcomesInTheOrderOfItsKeys,
        wrong.WritesInTheOrderOfItsKeys,
    ],
    "test_a_write_leaves_the_arrays_it_is_given_as_they_are": [
        wrong.ScalesTheCallersArray,
        wrong.SortsTheCallersKeys,
    ],
    "test_vectors_of_another_width_are_an_error_of_the_contract": [
        wrong.StumblesOverVectorsOfAnotherWidth,
        wrong.CutsVectorsOfAnotherWidth,
    ],
    "test_a_row_that_is_deleted_between_look_and_write_stays_deleted": [
        wrong.LooksFirstAndWritesThen,
        wrong.LooksFirstAndUpdatesThen,
    ],
    "test_a_vector_that_is_changed_between_look_and_write_is_left_alone": [
        wrong.LooksFirstAndWritesThen,
        wrong.LooksFirstAndUpdatesThen,
    ],
    "test_thousands_of_rows_are_read_written_and_found_like_a_few": [
        wrong.WritesTheFirstThousand,
        wrong.ComparesTheFirstThousand,
        wrong.FetchesTheFirstThousand,
        wrong.PagesEndAtAThousandRows,
        wrong.CutsKAtAHundred,
        wrong.SearchesTheFirstThousandRows,
    ],
    "test_the_precision_that_the_traits_claim_is_the_one_that_vectors_are_held_in": [
        wrong.RoundsUnderATolerance,
        wrong.RoundsHarderUnderATolerance,
        wrong.ClaimsAnotherPrecisionThanItHas,
    ],
    "test_the_traits_say_whether_vectors_are_scaled": [wrong.ClaimsToScale, wrong.ScalesWithoutSayingSo],
    "test_what_is_returned_is_of_the_types_that_the_contract_names": [
        wrong.HandsOutDoubles,
        wrong.HandsOutBytesOfAnotherOrder,
        wrong.HandsOutMarksThatAreNumbers,
        wrong.SaysFoundByAList,
        wrong.SaysOutcomesAsText,
    ],
    "test_a_page_holds_about_as_many_rows_as_were_asked_for": [wrong.ScansAllAtOnce],
    "test_a_page_stays_as_it_is_while_the_next_is_read": [wrong.ReusesTheArraysOfItsPages],
    "test_a_scan_may_be_followed_from_another_thread": [wrong.ScansInOneThreadOnly],
    "test_a_scan_meets_the_rows_that_live_throughout_once_though_others_come_and_go": [
        wrong.CountsRowsForACursor,
        wrong.StartsAgainWhereTheRowOfTheCursorIsGone,
        wrong.EndsWhereTheRowOfTheCursorIsGone,
    ],
    "test_what_others_change_is_seen_by_every_way_of_reading": [
        wrong.FetchesFromACacheThatItsOwnWritesClear,
        wrong.ScansFromACacheThatItsOwnWritesClear,
        wrong.LocatesFromACache,
        wrong.CountsOnce,
        wrong.SearchesOverAnIndex,
        wrong.SearchesOverAnIndexOfThoseThatLive,
        wrong.FindsDeletedRows,
    ],
    "test_rows_are_located_in_the_order_asked_and_as_often_as_asked": [
        wrong.LocatesEachOnce,
        wrong.LocatesInItsOwnOrder,
    ],
    "test_whatever_text_is_asked_for_is_a_row_that_is_there_or_none": [
        wrong.StumblesOverTextsThatAreNoNumbers,
        wrong.TakesATextForTheNumberInIt,
    ],
    "test_a_collection_without_rows_is_read_like_any_other": [wrong.CannotScanNothing, wrong.CountsNothingAsUnknown],
    "test_a_row_without_the_vector_is_absent_and_is_given_none": [
        wrong.LeavesGapsOutOfTheScan,
        wrong.DoesNotClaimItsGaps,
    ],
    "test_a_search_goes_by_the_vectors_that_were_written_last": [
        wrong.SearchesOverAnIndex,
        wrong.SearchesExactlyOverOldVectors,
    ],
    "test_a_search_for_more_rows_than_there_are_gives_all_or_is_refused": [
        wrong.StumblesOverALargeK,
        wrong.FindsNothingForALargeK,
    ],
    "test_queries_of_another_width_are_an_error_of_the_contract": [
        wrong.StumblesOverQueriesOfAnotherWidth,
        wrong.CutsQueriesOfAnotherWidth,
    ],
    "test_the_length_of_a_query_is_no_matter_to_cosine_and_inner_product": [
        wrong.RanksByDistanceToTheQuery,
        wrong.RanksByProductsNearestToOne,
    ],
    "test_a_collection_that_is_opened_anew_is_the_same": [
        wrong.KeepsNotesInTheObject,
        wrong.KeepsCursorsInTheObject,
        wrong.NamesItselfAnewWhenItIsOpened,
        wrong.NumbersItsKeysWhenItIsOpened,
    ],
    "test_nothing_outside_the_scope_is_seen_counted_found_or_written": [
        wrong.SearchesOutsideItsScope,
        wrong.CountsOutsideItsScope,
        wrong.LocatesOutsideItsScope,
        wrong.ScansOutsideItsScope,
        wrong.FiltersAfterItSearched,
    ],
    "test_an_engine_that_is_away_is_told_from_one_that_holds_nothing": [
        wrong.TakesAnEngineThatIsAwayForAnEmptyOne,
        wrong.TakesRowsOfAnEngineThatIsAwayForMissing,
        wrong.RaisesItsClientsErrors,
        wrong.TakesABreakForARefusal,
    ],
    "test_a_closed_collection_answers_truly_or_with_an_error_of_the_contract": [
        wrong.ForgetsWhatItIsWhenItIsClosed,
        wrong.EndsItsScanWhenItIsClosed,
        wrong.StumblesOverItselfWhenItIsClosed,
    ],
    "test_advice_before_a_move_is_in_sentences_and_changes_nothing": [
        wrong.AdvisesWithoutWords,
        wrong.StartsTheMoveWhenItIsAskedForAdvice,
    ],
    "test_work_after_a_move_leaves_the_rows_as_they_are": [wrong.CompactsRowsAway, wrong.QuantizesAfterAMove],
}
"""Collections that are wrong in one way that is not seen at a glance, by the promise that they break."""

PAIRS = [*BITES.items(), *((promise, each) for promise, some in SUBTLE.items() for each in some)]


class ScopedFixture(MemoryFixture):
    """Rows are of team a, unless they are put round the scope."""

    def insert(self, rows):
        super().insert(replace(rows, payloads=[{**payload, "team": "a"} for payload in rows.payloads]))

    def surround(self, rows):
        super().insert(rows)

    def read(self):
        return {text: row for text, row in super().read().items() if row.payload.get("team") == "a"}


def filled(collection_type, metric):
    """Return a fixture of a collection of the given type, filled like any that the kit tests."""
    scoped = issubclass(collection_type, wrong.ScopedCollection)
    fixture = (ScopedFixture if scoped else MemoryFixture)(collection_type(metric, CollectionContract.width))
    fixture.insert(example_rows(CollectionContract.ids, CollectionContract.width))
    return fixture


def keep_promise(promise, collection_type, metric=Metric.COSINE):
    """Run one test of the kit over a collection of the given type."""
    case = type("Case", (CollectionContract,), {"metric": metric})()
    fixture = filled(collection_type, metric)
    given = {"fixture": fixture, "collection": fixture.collection, "limit": 7, "k": 1}
    test = getattr(case, promise)
    test(**{name: given[name] for name in inspect.signature(test).parameters})


def test_every_promise_has_a_collection_that_breaks_it():
    assert BITES.keys() | SUBTLE.keys() == {name for name in dir(CollectionContract) if name.startswith("test_")}


def test_every_wrong_collection_is_held_against_its_promise():
    defined = {each for each in vars(wrong).values() if isinstance(each, type) and each.__module__ == wrong.__name__}
    used = {each for some in SUBTLE.values() for each in some}
    helpers = {wrong.ScopedCollection, wrong._Inside, wrong.Found}
    assert defined == used | helpers


@pytest.mark.parametrize(("promise", "broken"), PAIRS, ids=lambda each: getattr(each, "__name__", None))
def test_a_broken_collection_fails_the_promise_it_breaks(promise, broken, monkeypatch):
    monkeypatch.setattr(asking, "LOOKS", 2)  # there are no nodes that would agree in time
    metric = wrong.METRICS.get(broken, Metric.COSINE)
    right = wrong.ScopedCollection if issubclass(broken, wrong.ScopedCollection) else MemoryCollection
    keep_promise(promise, right, metric)
    with pytest.raises((AssertionError, *wrong.STUMBLES.get(broken, ()))):
        keep_promise(promise, broken, metric)


def test_silently_overriding_a_promise_fails_the_suite():
    with pytest.raises(TypeError, match="overrides a promise"):
        type("Quiet", (CollectionContract,), {"test_closing_twice_is_fine": lambda self: None})


def test_overriding_a_promise_in_a_grandchild_fails_the_suite():
    child = type("Child", (CollectionContract,), {})
    with pytest.raises(TypeError, match="overrides a promise"):
        type("Quiet", (child,), {"test_closing_twice_is_fine": lambda self: None})


def test_overriding_a_promise_in_a_mixin_fails_the_suite():
    mixin = type("Mixin", (), {"test_closing_twice_is_fine": lambda self: None})
    with pytest.raises(TypeError, match="overrides a promise"):
        type("Quiet", (mixin, CollectionContract), {})


def test_a_promise_may_be_declared_broken_with_a_reason():
    def test_closing_twice_is_fine(self, fixture):
        super(Honest, self).test_closing_twice_is_fine(fixture)

    marked = pytest.mark.xfail(strict=True, reason="the client refuses")(test_closing_twice_is_fine)
    Honest = type("Honest", (CollectionContract,), {"test_closing_twice_is_fine": marked})  # noqa: N806


@pytest.mark.parametrize("mark", [pytest.mark.xfail, pytest.mark.xfail(strict=True), pytest.mark.skip(reason="no")])
def test_a_promise_is_not_declared_broken_without_a_reason_or_leniently(mark):
    marked = mark(lambda self: None)
    with pytest.raises(TypeError, match="overrides a promise"):
        type("Quiet", (CollectionContract,), {"test_closing_twice_is_fine": marked})
