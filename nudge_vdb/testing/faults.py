"""Faults on demand: a collection that fails when told to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nudge_vdb.contract import Accuracy, Collection, Mask, Outcome, Page, Remark, RowKey, Traits, Vectors

Fault = Callable[[], object]
"""Called in place of a call to the engine, or after it; raises what the engine would."""


OPTIONAL: dict[str, Callable[..., Any]] = {"before_move": lambda _: [], "after_move": lambda _: None}
"""What stands for an optional member that the collection inside lacks."""


class Faulty:
    """Passes every call on to *inner*, except where a fault was planned.

    ``Faulty(collection, before={("write", 2): boom})`` calls ``boom()`` instead of the second write, and
    ``after={…}`` carries the call out first, so that its answer is what gets lost.
    """

    def __init__(
        self,
        inner: Collection,
        before: dict[tuple[str, int], Fault] | None = None,
        after: dict[tuple[str, int], Fault] | None = None,
    ) -> None:
        self.inner = inner
        self.before = before or {}
        self.after = after or {}
        self.calls: Counter[str] = Counter()

    @property
    def traits(self) -> Traits:
        """Those of the collection inside; never faulty."""
        return self.inner.traits

    def scan(self, cursor: str | None, limit: int) -> Page:
        """Scan, or fail."""
        return self._call("scan", cursor, limit)  # type: ignore[no-any-return]

    def locate(self, texts: Sequence[str]) -> list[RowKey | None]:
        """Locate, or fail."""
        return self._call("locate", texts)  # type: ignore[no-any-return]

    def text_of(self, key: RowKey) -> str:
        """Never faulty."""
        return self.inner.text_of(key)

    def fetch(self, keys: Sequence[RowKey], out: Vectors) -> Mask:
        """Fetch, or fail."""
        return self._call("fetch", keys, out)  # type: ignore[no-any-return]

    def write(self, keys: Sequence[RowKey], vectors: Vectors, expected: Vectors) -> list[Outcome]:
        """Write, or fail."""
        return self._call("write", keys, vectors, expected)  # type: ignore[no-any-return]

    def search(self, queries: Vectors, k: int, accuracy: Accuracy = Accuracy.INDEX) -> list[list[RowKey]]:
        """Search, or fail."""
        return self._call("search", queries, k, accuracy)  # type: ignore[no-any-return]

    def count(self) -> int:
        """Count, or fail."""
        return self._call("count")  # type: ignore[no-any-return]

    def notes(self) -> Mapping[str, str]:
        """Read the notes, or fail."""
        return self._call("notes")  # type: ignore[no-any-return]

    def leave_note(self, name: str, text: str) -> bool:
        """Leave a note, or fail."""
        return self._call("leave_note", name, text)  # type: ignore[no-any-return]

    def diagnose(self) -> list[Remark]:
        """Diagnose, or fail."""
        return self._call("diagnose")  # type: ignore[no-any-return]

    def before_move(self, rows: int) -> list[Remark]:
        """Advise, or fail."""
        return self._call("before_move", rows)  # type: ignore[no-any-return]

    def after_move(self, rows: int) -> None:
        """Do what is due after a move, or fail."""
        self._call("after_move", rows)

    def close(self) -> None:
        """Never faulty."""
        self.inner.close()

    def _call(self, name: str, *args: Any) -> Any:  # noqa: ANN401 - whatever the method inside returns
        self.calls[name] += 1
        moment = (name, self.calls[name])
        if moment in self.before:
            self.before[moment]()
        answer = getattr(self.inner, name, OPTIONAL.get(name))(*args)  # type: ignore[misc]
        if moment in self.after:
            self.after[moment]()
        return answer
