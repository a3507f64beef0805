"""A collection that is filled anew for every test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar
from uuid import UUID

import pytest

from nudge_vdb.contract import Collection, Fixture, Metric, Rows
from nudge_vdb.testing.examples import example_rows

INTEGERS = [*range(1, 41), 500, 2**31, 2**53 + 1, 2**62]


class Filled:
    """How a collection is made, and with what."""

    ids: ClassVar[Any] = INTEGERS
    """The row ids that the collection is filled with."""
    more_ids: ClassVar[Any] = [77_777]
    """Those that another writer adds."""
    metric: ClassVar[Metric] = Metric.COSINE
    width: ClassVar[int] = 8
    many: ClassVar[int] = 3000
    """How many rows one test adds, so that pages, batches and an index fill; 0 skips that test."""

    def open_filled(self, rows: Rows, metric: Metric, tmp_path: Any) -> Fixture:  # noqa: ANN401
        """Create a collection with *rows* and return it with its back door; to be overridden."""
        raise NotImplementedError

    def further_ids(self, count: int) -> Any:  # noqa: ANN401 - a list of int or of str, as the collection has them
        """Return *count* more row ids of the same kind as ``ids``; to be overridden where that cannot be guessed."""
        first = self.ids[0]
        if isinstance(first, int):
            return list(range(1_000_000, 1_000_000 + count))
        if all(map(_is_uuid, self.ids)):
            return [str(UUID(int=(number << 64) + 1)) for number in range(1, count + 1)]
        return [f"further {number}" for number in range(count)]

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

    def _id_of(self, text: str) -> Any:  # noqa: ANN401 - int or str, as the collection has it
        return next(name for name in self.ids if str(name) == text)


def _is_uuid(name: object) -> bool:
    try:
        return str(UUID(str(name))) == name
    except ValueError:
        return False
