"""The contract as tests: subclass :class:`CollectionContract` and run pytest."""

from __future__ import annotations

from typing import Any

from nudge_vdb.testing.asking import (
    fetch,
    nearest,
    nearness,
    notes_in_the_end,
    scan_all,
    turned,
    vectors_of,
    write,
)
from nudge_vdb.testing.filled import INTEGERS
from nudge_vdb.testing.reads import Reads
from nudge_vdb.testing.searches import Searches
from nudge_vdb.testing.terms import Terms
from nudge_vdb.testing.writes import Writes

__all__ = [
    "INTEGERS",
    "CollectionContract",
    "fetch",
    "nearest",
    "nearness",
    "notes_in_the_end",
    "scan_all",
    "turned",
    "vectors_of",
    "write",
]


class CollectionContract(Reads, Writes, Searches, Terms):
    """What every backend promises.

    A subclass says in :meth:`open_filled` how a collection is made. ``ids`` are the row ids that
    the collection is filled with, ``more_ids`` those that another writer adds. Overriding one of the tests fails the
    suite; mark it ``pytest.mark.xfail(strict=True, reason=…)`` in a subclass of its own if it cannot be kept.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:  # noqa: ANN401 - class keywords are anybody's
        super().__init_subclass__(**kwargs)
        for name in (name for name in dir(CollectionContract) if name.startswith("test_")):
            test = getattr(cls, name)
            if test is not getattr(CollectionContract, name) and not _expected_to_fail(test):
                raise TypeError(
                    f"{cls.__name__}.{name} overrides a promise of the contract; if the backend cannot keep it, "
                    "mark it pytest.mark.xfail(strict=True, reason=…) and call super()"
                )


def _expected_to_fail(test: object) -> bool:
    marks = getattr(test, "pytestmark", [])
    return any(mark.name == "xfail" and mark.kwargs.get("strict") and mark.kwargs.get("reason") for mark in marks)
