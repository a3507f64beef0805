"""Following a scan to its end, and noticing one that does not get on."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from nudge_vdb.ahead import Ahead
from nudge_vdb.contract import Collection, Page, RowKey
from nudge_vdb.errors import ContractBroken, UnfitCollection
from nudge_vdb.returned import backend_of

REMEMBERED = 1 << 17
"""How many keys are remembered at most: some 12 MB. Up to so many rows, every key that comes again is noticed."""
MOST_EMPTY = 100_000
"""How many pages without a row may follow each other: those of a scope that few rows of a large collection meet."""


def scanned(collection: Collection, cursor: str | None, limit: int) -> Iterator[Page]:
    """Yield the pages after *cursor*, each read while the one before it is put away.

    Raises:
        UnfitCollection: a row is met twice.
        ContractBroken: the scan does not get on.
    """
    progress = Progression(collection)
    page = collection.scan(cursor, limit)
    progress.note(page)
    while page.next is not None:
        following = Ahead(partial(collection.scan, page.next, limit))
        yield page
        page = following.result()
        progress.note(page)
    yield page


class Progression:
    """How far a scan has come, in bounded memory however many rows there are.

    Cursors that go round in a ring are noticed by Brent's method: one cursor is kept, and replaced by a later one after
    1, 2, 4, … pages, so that a ring is noticed before three times its length is read. Rows that come again under new
    cursors are noticed by their keys. Of more than ``REMEMBERED`` rows, those keys are remembered whose hash is a
    multiple of 2, 4, 8, …; a scan that begins again meets one of them after that many rows.
    """

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._kept: str | None = None
        self._pages, self._replaced, self._empty = 0, 1, 0
        self._seen: set[RowKey] = set()
        self._spacing = 1

    def note(self, page: Page) -> None:
        """Note *page*.

        Raises:
            UnfitCollection: one of its rows was met before.
            ContractBroken: its cursor was, or there have been very many pages without a row.
        """
        self._note_cursor(page.next)
        self._note_keys(page.keys)
        self._empty = 0 if len(page.keys) else self._empty + 1
        if self._empty > MOST_EMPTY:
            raise self._stuck(f"{self._empty:,} pages without a row")

    def _note_cursor(self, cursor: str | None) -> None:
        if cursor is not None and cursor == self._kept:
            raise self._stuck("the cursor of an earlier page")
        self._pages += 1
        if self._pages >= self._replaced:
            self._kept, self._pages, self._replaced = cursor, 0, 2 * self._replaced

    def _note_keys(self, keys: object) -> None:
        for key in keys:  # type: ignore[attr-defined]
            if hash(key) % self._spacing:
                continue
            if key in self._seen:
                traits = self._collection.traits
                raise UnfitCollection(
                    f"the row {self._collection.text_of(key)!r} of {traits.identity} was met twice in one scan; if two "
                    "rows have one key, remove the doubles first; if not, a server, proxy or cache repeats its answers"
                )
            self._seen.add(key)
        while len(self._seen) > REMEMBERED:
            self._spacing *= 2
            self._seen = {key for key in self._seen if not hash(key) % self._spacing}

    def _stuck(self, what: str) -> ContractBroken:
        return ContractBroken(
            f"the scan of {self._collection.traits.identity} does not get on: {what} came again, so it was ended "
            f"before it filled the disk; look for a proxy or cache before the engine, or for a fault of "
            f"{backend_of(getattr(self._collection, 'inner', self._collection))}"
        )
