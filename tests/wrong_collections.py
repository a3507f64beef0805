"""Collections that are wrong in one subtle way each, by the promise that they break."""

import threading
from dataclasses import replace
from uuid import uuid4

import numpy as np

from nudge_vdb.contract import (
    Ability,
    Accuracy,
    Metric,
    Outcome,
    Page,
    Precision,
    Remark,
    StoredRow,
    agree,
    rounded,
)
from nudge_vdb.errors import EngineError, Unreachable
from nudge_vdb.testing import MemoryCollection

# Writing


class RollsTheWholeBatchBack(MemoryCollection):
    def write(self, keys, vectors, expected):
        before = dict(self.rows)
        outcomes = super().write(keys, vectors, expected)
        if set(outcomes) - {Outcome.WRITTEN}:
            self.rows.clear()
            self.rows.update(before)
        return outcomes


class StopsAtTheFirstRowThatIsNotWritten(MemoryCollection):
    def write(self, keys, vectors, expected):
        outcomes = []
        for row in zip(keys, vectors, expected, strict=True):
            stopped = set(outcomes) - {Outcome.WRITTEN} and np.isfinite(vectors).all()
            outcomes.append(Outcome.WRITTEN if stopped else super().write([row[0]], row[1][None], row[2][None])[0])
        return outcomes


class ComparesByAngle(MemoryCollection):
    limit = 0.85

    def _write_one(self, key, vector, expected):
        row = self.rows.get(key.decode())
        if row is not None and row.vector is not None:
            lengths = np.linalg.norm(row.vector) * np.linalg.norm(expected)
            expected = row.vector if row.vector @ expected > self.limit * lengths else expected
        return super()._write_one(key, vector, expected)


class ComparesByLessAngle(ComparesByAngle):
    limit = 0.995


class ComparesSomeComponents(MemoryCollection):
    part = slice(1)

    def _write_one(self, key, vector, expected):
        row = self.rows.get(key.decode())
        if row is not None and row.vector is not None and np.allclose(row.vector[self.part], expected[self.part]):
            expected = row.vector
        return super()._write_one(key, vector, expected)


class ComparesAllComponentsButTheLast(ComparesSomeComponents):
    part = slice(-1)


class ComparesEverySecondComponent(ComparesSomeComponents):
    part = slice(None, None, 2)


class ComparesTheSum(MemoryCollection):
    def _write_one(self, key, vector, expected):
        row = self.rows.get(key.decode())
        if row is not None and row.vector is not None and abs(float(row.vector.sum() - expected.sum())) < 1e-6:
            expected = row.vector
        return super()._write_one(key, vector, expected)


class ComparesRoughly(MemoryCollection):
    def _write_one(self, key, vector, expected):
        row = self.rows.get(key.decode())
        if row is not None and row.vector is not None and np.allclose(row.vector, expected, atol=1e-2):
            expected = row.vector
        return super()._write_one(key, vector, expected)


class ComparesDirectionsOnly(MemoryCollection):
    def _write_one(self, key, vector, expected):
        row = self.rows.get(key.decode())
        if row is not None and row.vector is not None:
            ours, theirs = (each / np.linalg.norm(each) for each in (row.vector, expected))
            expected = row.vector if np.allclose(ours, theirs) else expected
        return super()._write_one(key, vector, expected)


class ComparesBitForBit(MemoryCollection):
    def _write_one(self, key, vector, expected):
        row = self.rows.get(key.decode())
        if row is not None and row.vector is not None and not (row.vector == expected).all():
            return Outcome.CHANGED
        return super()._write_one(key, vector, expected)


class ReportsOutcomesInTheOrderOfItsKeys(MemoryCollection):
    def write(self, keys, vectors, expected):
        outcomes = dict(zip(keys, super().write(keys, vectors, expected), strict=True))
        return [outcomes[key] for key in sorted(keys)]


class WritesInTheOrderOfItsKeys(MemoryCollection):
    def write(self, keys, vectors, expected):
        return super().write(sorted(keys), vectors, expected)


class ScalesTheCallersArray(MemoryCollection):
    def write(self, keys, vectors, expected):
        if len(vectors) and np.isfinite(vectors).all():
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return super().write(keys, vectors, expected)


class SortsTheCallersKeys(MemoryCollection):
    def write(self, keys, vectors, expected):
        outcomes = super().write(keys, vectors, expected)
        keys.sort(reverse=True)
        return outcomes


class WritesTheFirstThousand(MemoryCollection):
    def write(self, keys, vectors, expected):
        outcomes = super().write(keys[:1000], vectors[:1000], expected[:1000])
        return outcomes + [Outcome.WRITTEN] * (len(keys) - len(outcomes))


class ComparesTheFirstThousand(MemoryCollection):
    def write(self, keys, vectors, expected):
        live = expected.copy()
        self.fetch(keys[1000:], live[1000:])
        return super().write(keys, vectors, live)


class StumblesOverVectorsOfAnotherWidth(MemoryCollection):
    def write(self, keys, vectors, expected):
        return [self._write_one(*row) for row in zip(keys, vectors, expected, strict=True)]

    def _write_one(self, key, vector, expected):
        if not np.isfinite(vector).all():
            return Outcome.REFUSED
        return super()._write_one(key, vector, expected)


class CutsVectorsOfAnotherWidth(MemoryCollection):
    def write(self, keys, vectors, expected):
        return super().write(keys, vectors[:, : self.width], expected[:, : self.width])


class LooksFirstAndWritesThen(MemoryCollection):
    def write(self, keys, vectors, expected):
        act, self.engine.act = self.engine.act, None
        held = {key: self.rows.get(key.decode()) for key in keys}
        outcomes = super().write(keys, vectors, expected)
        written = {key: self.rows.get(key.decode()) for key in keys}
        self.rows.update({key.decode(): row for key, row in held.items() if row is not None})
        if act is not None:
            act()
        for key, outcome in zip(keys, outcomes, strict=True):
            if outcome is Outcome.WRITTEN:
                self.rows[key.decode()] = written[key]
        return outcomes


class LooksFirstAndUpdatesThen(MemoryCollection):
    """Never creates a row, and says that it wrote the one that is gone."""

    def write(self, keys, vectors, expected):
        act, self.engine.act = self.engine.act, None
        look = (
            [
                agree(self.rows[k.decode()].vector[None], e[None], 1e-6)[0] if k.decode() in self.rows else None
                for k, e in zip(keys, expected, strict=True)
            ]
            if act
            else []
        )
        if act is None:
            return super().write(keys, vectors, expected)
        act()
        for key, vector, same in zip(keys, vectors, look, strict=True):
            row = self.rows.get(key.decode())
            if row is not None and same:
                self.rows[key.decode()] = StoredRow(self.stored(vector), row.payload, row.others)
        return [Outcome.WRITTEN if same else Outcome.CHANGED for same in look]


# Reading what others changed


class FetchesFromACacheThatItsOwnWritesClear(MemoryCollection):
    def fetch(self, keys, out):
        cache = self.__dict__.setdefault("cache", {})
        found = super().fetch(keys, out)
        for place, key in enumerate(keys):
            if key not in cache:
                cache[key] = (out[place].copy(), found[place])
            out[place], found[place] = cache[key]
        return found

    def scan(self, cursor, limit):
        plain = MemoryCollection(self.metric, self.width, engine=self.engine)
        return plain.scan(cursor, limit)

    def write(self, keys, vectors, expected):
        self.__dict__.setdefault("cache", {}).clear()
        return super().write(keys, vectors, expected)


class ScansFromACacheThatItsOwnWritesClear(MemoryCollection):
    def scan(self, cursor, limit):
        cache = self.__dict__.setdefault("pages", {})
        if len(self.rows) != self.__dict__.setdefault("counted", len(self.rows)):
            cache.clear()
            self.counted = len(self.rows)
        if (cursor, limit) not in cache:
            cache[cursor, limit] = super().scan(cursor, limit)
        return cache[cursor, limit]

    def write(self, keys, vectors, expected):
        self.__dict__.setdefault("pages", {}).clear()
        return super().write(keys, vectors, expected)


class LocatesFromACache(MemoryCollection):
    def locate(self, texts):
        known = self.__dict__.setdefault("known", set())
        known |= {text for text in texts if text in self.rows}
        return [text.encode() if text in known else None for text in texts]


class CountsOnce(MemoryCollection):
    def count(self):
        return self.__dict__.setdefault("counted", super().count())


class SearchesOverAnIndex(MemoryCollection):
    """The index is built at the first search."""

    def search(self, queries, k, accuracy=Accuracy.INDEX):
        engine, now = self.engine, self.engine.rows
        engine.rows = self.__dict__.setdefault("index", dict(now))
        try:
            return super().search(queries, k, accuracy)
        finally:
            engine.rows = now


class SearchesOverAnIndexOfThoseThatLive(SearchesOverAnIndex):
    """Rows that are gone are left out, but the others are ranked by their old vectors."""

    def search(self, queries, k, accuracy=Accuracy.INDEX):
        hits = super().search(queries, len(self.rows) + 100, accuracy)
        return [[key for key in found if key.decode() in self.rows][:k] for found in hits]


class FindsDeletedRows(MemoryCollection):
    def search(self, queries, k, accuracy=Accuracy.INDEX):
        seen = self.__dict__.setdefault("seen", {})
        seen.update(self.rows)
        engine, now = self.engine, self.engine.rows
        engine.rows = {**seen}
        try:
            return super().search(queries, k, accuracy)
        finally:
            engine.rows = now


class SearchesExactlyOverOldVectors(SearchesOverAnIndex):
    def search(self, queries, k, accuracy=Accuracy.INDEX):
        if accuracy is Accuracy.INDEX:
            self.__dict__.setdefault("index", dict(self.rows))
            return MemoryCollection.search(self, queries, k, accuracy)
        return super().search(queries, k, accuracy)


# Scanning


class CountsRowsForACursor(MemoryCollection):
    def scan(self, cursor, limit):
        texts = sorted(self.rows)
        first = int(cursor or 0)
        keys = [text.encode() for text in texts[first : first + limit]]
        vectors = np.empty((len(keys), self.width), np.float32)
        absent = ~self.fetch(keys, vectors)
        return Page(keys, vectors, absent, str(first + limit) if first + limit < len(texts) else None)


class StartsAgainWhereTheRowOfTheCursorIsGone(MemoryCollection):
    def scan(self, cursor, limit):
        return super().scan(cursor if cursor in self.rows else None, limit)


class EndsWhereTheRowOfTheCursorIsGone(MemoryCollection):
    def scan(self, cursor, limit):
        if cursor is not None and cursor not in self.rows:
            return Page([], np.empty((0, self.width), np.float32), np.empty(0, bool), None)
        return super().scan(cursor, limit)


class ReusesTheArraysOfItsPages(MemoryCollection):
    def scan(self, cursor, limit):
        page = super().scan(cursor, limit)
        room = self.__dict__.setdefault("room", np.empty((5000, self.width), np.float32))[: len(page.keys)]
        room[:] = page.vectors
        return Page(page.keys, room, page.absent, page.next)


class ScansInOneThreadOnly(MemoryCollection):
    def scan(self, cursor, limit):
        if threading.current_thread() is not self.__dict__.setdefault("thread", threading.current_thread()):
            raise AssertionError("made in another thread")
        return super().scan(cursor, limit)


class ScansAllAtOnce(MemoryCollection):
    def scan(self, cursor, limit):
        return super().scan(cursor, max(limit, 1000) if limit == 10 else limit)


class HandsOutDoubles(MemoryCollection):
    def scan(self, cursor, limit):
        page = super().scan(cursor, limit)
        return replace(page, vectors=page.vectors.astype(np.float64))


class HandsOutBytesOfAnotherOrder(MemoryCollection):
    def scan(self, cursor, limit):
        page = super().scan(cursor, limit)
        return replace(page, vectors=page.vectors.astype(">f4"))


class HandsOutMarksThatAreNumbers(MemoryCollection):
    def scan(self, cursor, limit):
        page = super().scan(cursor, limit)
        return replace(page, absent=page.absent.astype(np.int8))


class SaysFoundByAList(MemoryCollection):
    def fetch(self, keys, out):
        return Found(super().fetch(keys, out))


class Found(list):
    """A list that does what the old tests did with a mask."""

    def __invert__(self):
        return ~np.array(self, bool)

    def all(self):
        return all(self)

    def any(self):
        return any(self)


class SaysOutcomesAsText(MemoryCollection):
    def write(self, keys, vectors, expected):
        return [str(outcome.value) for outcome in super().write(keys, vectors, expected)]


class FetchesTheFirstThousand(MemoryCollection):
    def fetch(self, keys, out):
        found = super().fetch(keys, out)
        if len(keys) > 2000:
            out[1000:] = 0
        return found


class PagesEndAtAThousandRows(MemoryCollection):
    def scan(self, cursor, limit):
        page = super().scan(cursor, limit)
        if len(page.keys) <= 1000:
            return page
        return Page(page.keys[:1000], page.vectors[:1000], page.absent[:1000], page.next)


class LocatesEachOnce(MemoryCollection):
    def locate(self, texts):
        return super().locate(list(dict.fromkeys(texts)))


class LocatesInItsOwnOrder(MemoryCollection):
    def locate(self, texts):
        return super().locate(sorted(texts, key=lambda text: (text not in self.rows, text)))


class StumblesOverTextsThatAreNoNumbers(MemoryCollection):
    def locate(self, texts):
        return [text.encode() if str(int(text)) in self.rows else None for text in texts if text != "no such row"]


class TakesATextForTheNumberInIt(MemoryCollection):
    def locate(self, texts):
        return [
            key or (text.encode() if text.strip().lstrip("0") in self.rows else None)
            for key, text in zip(super().locate(texts), texts, strict=True)
        ]


class CannotScanNothing(MemoryCollection):
    def scan(self, cursor, limit):
        page = super().scan(cursor, limit)
        assert page.keys
        return page


class CountsNothingAsUnknown(MemoryCollection):
    def count(self):
        return super().count() or -1


# Traits


class ClaimsToScale(MemoryCollection):
    @property
    def traits(self):
        return replace(super().traits, rescales=True)


class ScalesWithoutSayingSo(MemoryCollection):
    @property
    def traits(self):
        return replace(super().traits, rescales=False)


class RoundsUnderATolerance(MemoryCollection):
    precision = Precision.HALF

    @property
    def traits(self):
        return replace(super().traits, tolerance=9e-4)

    def stored(self, vector):
        return rounded(super().stored(vector), self.precision)


class RoundsHarderUnderATolerance(RoundsUnderATolerance):
    precision = Precision.BFLOAT16


class ClaimsAnotherPrecisionThanItHas(RoundsUnderATolerance):
    @property
    def traits(self):
        return replace(super().traits, precision=Precision.BFLOAT16)


# Rows without the vector


class LeavesGapsOutOfTheScan(MemoryCollection):
    def scan(self, cursor, limit):
        page = super().scan(cursor, limit)
        here = ~page.absent
        keys = [key for key, present in zip(page.keys, here, strict=True) if present]
        return Page(keys, page.vectors[here], page.absent[here], page.next)


class DoesNotClaimItsGaps(MemoryCollection):
    @property
    def traits(self):
        return replace(super().traits, abilities=super().traits.abilities - {Ability.GAPS})


# Searching


class CutsKAtAHundred(MemoryCollection):
    def search(self, queries, k, accuracy=Accuracy.INDEX):
        return super().search(queries, min(k, 100), accuracy)


class StumblesOverALargeK(MemoryCollection):
    def search(self, queries, k, accuracy=Accuracy.INDEX):
        if k > 1_000_000:
            raise ValueError("k is out of range")
        return super().search(queries, k, accuracy)


class FindsNothingForALargeK(MemoryCollection):
    def search(self, queries, k, accuracy=Accuracy.INDEX):
        return super().search(queries, 0 if k > 1_000_000 else k, accuracy)


class SearchesTheFirstThousandRows(MemoryCollection):
    def search(self, queries, k, accuracy=Accuracy.INDEX):
        engine, now = self.engine, self.engine.rows
        engine.rows = dict(list(now.items())[:1000])
        try:
            return super().search(queries, k, accuracy)
        finally:
            engine.rows = now


class StumblesOverQueriesOfAnotherWidth(MemoryCollection):
    def search(self, queries, k, accuracy=Accuracy.INDEX):
        self._scores(queries, np.zeros((1, self.width), np.float32))
        return super().search(queries, k, accuracy)


class CutsQueriesOfAnotherWidth(MemoryCollection):
    def search(self, queries, k, accuracy=Accuracy.INDEX):
        return super().search(queries[:, : self.width], k, accuracy)


class RanksByDistanceToTheQuery(MemoryCollection):
    def _scores(self, queries, vectors):
        return -np.linalg.norm(queries[:, None] - vectors[None], axis=2)


class RanksByProductsNearestToOne(MemoryCollection):
    """Right as long as queries have length 1."""

    def _scores(self, queries, vectors):
        return -np.abs(1 - queries @ vectors.T)


# What is kept in the object


class KeepsNotesInTheObject(MemoryCollection):
    def notes(self):
        return dict(self.__dict__.setdefault("own", {}))

    def leave_note(self, name, text):
        self.__dict__.setdefault("own", {})[name] = text
        if not text:
            del self.own[name]
        return True


class KeepsCursorsInTheObject(MemoryCollection):
    def scan(self, cursor, limit):
        cursors = self.__dict__.setdefault("cursors", {})
        page = super().scan(cursors.get(cursor), limit)
        if page.next is None:
            return page
        name = f"cursor {len(cursors)}"
        cursors[name] = page.next
        return replace(page, next=name)


class NamesItselfAnewWhenItIsOpened(MemoryCollection):
    @property
    def traits(self):
        name = self.__dict__.setdefault("unique", uuid4().hex)
        return replace(super().traits, collection=f"memory:{name}")


class NumbersItsKeysWhenItIsOpened(MemoryCollection):
    """Keys are the object's own; another object has others for the same rows."""

    @property
    def mark(self):
        return self.__dict__.setdefault("own_mark", uuid4().bytes)

    def text_of(self, key):
        return super().text_of(key.removeprefix(self.mark))

    def locate(self, texts):
        return [None if key is None else self.mark + key for key in super().locate(texts)]

    def scan(self, cursor, limit):
        page = super().scan(cursor, limit)
        return replace(page, keys=[key if key.startswith(self.mark) else self.mark + key for key in page.keys])

    def fetch(self, keys, out):
        return super().fetch([key.removeprefix(self.mark) for key in keys], out)

    def write(self, keys, vectors, expected):
        return super().write([key.removeprefix(self.mark) for key in keys], vectors, expected)

    def search(self, queries, k, accuracy=Accuracy.INDEX):
        return [
            [key if key.startswith(self.mark) else self.mark + key for key in hits]
            for hits in super().search(queries, k, accuracy)
        ]


# Scopes


class ScopedCollection(MemoryCollection):
    """Keeps every promise for the rows of team a."""

    @property
    def traits(self):
        return replace(super().traits, scope={"where:team": '"a"'})

    @property
    def rows(self):
        everything = MemoryCollection.rows.fget(self)
        return _Inside(everything)

    @rows.setter
    def rows(self, rows):
        self.engine.rows = rows


class _Inside(dict):
    """The rows of team a; what is changed in them is changed in all."""

    def __init__(self, everything):
        super().__init__({text: row for text, row in everything.items() if row.payload.get("team") == "a"})
        self.everything = everything

    def __setitem__(self, text, row):
        super().__setitem__(text, row)
        self.everything[text] = row


class SearchesOutsideItsScope(ScopedCollection):
    def search(self, queries, k, accuracy=Accuracy.INDEX):
        return MemoryCollection(self.metric, self.width, engine=self.engine).search(queries, k, accuracy)


class CountsOutsideItsScope(ScopedCollection):
    def count(self):
        return len(self.engine.rows)


class LocatesOutsideItsScope(ScopedCollection):
    def locate(self, texts):
        return [text.encode() if text in self.engine.rows else None for text in texts]


class ScansOutsideItsScope(ScopedCollection):
    def scan(self, cursor, limit):
        return MemoryCollection(self.metric, self.width, engine=self.engine).scan(cursor, limit)


class FiltersAfterItSearched(ScopedCollection):
    def search(self, queries, k, accuracy=Accuracy.INDEX):
        inside = {text.encode() for text in self.rows}
        hits = MemoryCollection(self.metric, self.width, engine=self.engine).search(queries, min(k, 45), accuracy)
        return [[key for key in found if key in inside] for found in hits]


# Failing and closing


class TakesAnEngineThatIsAwayForAnEmptyOne(MemoryCollection):
    def scan(self, cursor, limit):
        try:
            return super().scan(cursor, limit)
        except Unreachable:
            return Page([], np.empty((0, self.width), np.float32), np.empty(0, bool), None)


class TakesRowsOfAnEngineThatIsAwayForMissing(MemoryCollection):
    def write(self, keys, vectors, expected):
        try:
            return super().write(keys, vectors, expected)
        except Unreachable:
            return [Outcome.MISSING] * len(keys)


class RaisesItsClientsErrors(MemoryCollection):
    def count(self):
        try:
            return super().count()
        except Unreachable as exc:
            raise ConnectionError("connection refused") from exc


class TakesABreakForARefusal(MemoryCollection):
    def fetch(self, keys, out):
        try:
            return super().fetch(keys, out)
        except Unreachable as exc:
            raise EngineError("the engine failed") from exc


class ForgetsWhatItIsWhenItIsClosed(MemoryCollection):
    closed = False

    def close(self):
        self.closed = True

    def count(self):
        return 0 if self.closed else super().count()


class EndsItsScanWhenItIsClosed(ForgetsWhatItIsWhenItIsClosed):
    def count(self):
        return MemoryCollection.count(self)

    def scan(self, cursor, limit):
        page = super().scan(cursor, limit)
        return replace(page, next=None) if self.closed else page


class StumblesOverItselfWhenItIsClosed(ForgetsWhatItIsWhenItIsClosed):
    def count(self):
        return MemoryCollection.count(self)

    def locate(self, texts):
        if self.closed:
            raise AttributeError("'NoneType' object has no attribute 'execute'")
        return super().locate(texts)


# Round a move


class AdvisesWithoutWords(MemoryCollection):
    def before_move(self, rows):
        return [Remark("time", "")]


class StartsTheMoveWhenItIsAskedForAdvice(MemoryCollection):
    def before_move(self, rows):
        for text, row in list(self.rows.items())[:1]:
            self.rows[text] = StoredRow(np.roll(row.vector, 1), row.payload, row.others)
        return super().before_move(rows)


class CompactsRowsAway(MemoryCollection):
    def after_move(self, rows):
        for text in sorted(self.rows)[-1:]:
            row = self.rows[text]
            self.rows[text] = StoredRow(row.vector, {}, row.others)


class QuantizesAfterAMove(MemoryCollection):
    def after_move(self, rows):
        for text, row in self.rows.items():
            self.rows[text] = StoredRow(np.round(row.vector, 2), row.payload, row.others)


# Only of one metric

METRICS = {
    ComparesDirectionsOnly: Metric.DOT,
    ClaimsToScale: Metric.DOT,
    RanksByDistanceToTheQuery: Metric.DOT,
}
"""Collections that are wrong for a metric other than cosine."""

STUMBLES = {
    StumblesOverTextsThatAreNoNumbers: (ValueError,),
    ScalesTheCallersArray: (ValueError,),
}
"""What else than an assertion of the kit ends a test over such a collection."""
