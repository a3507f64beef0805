"""What a backend returns, checked in one place before the core goes by it.

A fault here is the backend's: it is said in words and stops the run, where an array of another shape or an outcome
that nobody knows would end in a wrong report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from nudge_vdb.contract import Collection, Mask, Outcome, Page, Remark, RowKey, Traits, Vectors
from nudge_vdb.errors import ContractBroken

OUTCOMES = {outcome.value: outcome for outcome in Outcome}
LONGEST_SHOWN = 60


class Checked:
    """A collection whose answers are what the contract says, or ``ContractBroken``."""

    def __init__(self, inner: Collection) -> None:
        self.inner = inner

    @property
    def traits(self) -> Traits:
        """Those of the collection inside."""
        return self.inner.traits

    def page(self, answer: Any) -> Page:  # noqa: ANN401 - whatever a backend returned, as in all that follows
        """Return *answer* if it is a page."""
        members = all(hasattr(answer, name) for name in ("keys", "vectors", "absent", "next"))
        self._require(members, "scan", answer, "a Page")
        rows, width = len(answer.keys), self.inner.traits.width
        self._require(_all_bytes(answer.keys), "scan", answer.keys, "keys that are bytes")
        self._array("scan", answer.vectors, np.dtype(np.float32), (rows, width))
        self._array("scan", answer.absent, np.dtype(bool), (rows,))
        self._require(answer.next is None or isinstance(answer.next, str), "scan", answer.next, "a cursor that is text")
        return answer  # type: ignore[no-any-return]

    def located(self, answer: Any, texts: Sequence[str]) -> list[RowKey | None]:  # noqa: ANN401
        """Return *answer* if it is a key or None for each of *texts*."""
        self._count("locate", answer, len(texts), "text")
        self._require(
            all(key is None or isinstance(key, bytes) for key in answer),
            "locate",
            answer,
            "keys that are bytes, or None",
        )
        return list(answer)

    def found(self, answer: Any, keys: Sequence[RowKey]) -> Mask:  # noqa: ANN401
        """Return *answer* if it is a mask of *keys*."""
        self._array("fetch", answer, np.dtype(bool), (len(keys),))
        return answer  # type: ignore[no-any-return]

    def outcomes(self, answer: Any, keys: Sequence[RowKey]) -> list[Outcome]:  # noqa: ANN401
        """Return *answer* as an outcome for each of *keys*; a text that equals one is one."""
        self._count("write", answer, len(keys), "row")
        unknown = [each for each in answer if not isinstance(each, str) or each not in OUTCOMES]
        if unknown:
            self._refuse("write", unknown[0], f"an Outcome: {', '.join(OUTCOMES)}")
        return [OUTCOMES[each] for each in answer]

    def hits(self, answer: Any, queries: Vectors, k: int) -> list[list[RowKey]]:  # noqa: ANN401
        """Return *answer* if it is at most *k* keys for each of *queries*, none twice."""
        self._count("search", answer, len(queries), "query")
        for keys in answer:
            self._require(_all_bytes(keys), "search", keys, "keys that are bytes")
            self._require(len(keys) <= k, "search", f"{len(keys)} keys for a query", f"at most {k}")
            self._require(len(set(keys)) == len(keys), "search", _repeated(keys), "each key once for a query")
        return list(answer)

    def number(self, answer: Any) -> int:  # noqa: ANN401
        """Return *answer* if it is a number of rows."""
        whole = isinstance(answer, int | np.integer) and not isinstance(answer, bool) and answer >= 0
        self._require(bool(whole), "count", answer, "a number of rows, 0 or more")
        return int(answer)

    def texts(self, answer: Any) -> Mapping[str, str]:  # noqa: ANN401
        """Return *answer* if it is notes by name."""
        whole = isinstance(answer, Mapping) and all(isinstance(each, str) for note in answer.items() for each in note)
        self._require(whole, "notes", answer, "texts by name")
        return answer  # type: ignore[no-any-return]

    def kept(self, answer: Any) -> bool:  # noqa: ANN401
        """Return *answer* if it says yes or no."""
        self._require(isinstance(answer, bool | np.bool_), "leave_note", answer, "True or False")
        return bool(answer)

    def remarks(self, answer: Any, member: str) -> list[Remark]:  # noqa: ANN401
        """Return *answer* of *member* if it is remarks."""
        whole = isinstance(answer, list | tuple) and all(isinstance(each, Remark) for each in answer)
        self._require(whole, member, answer, "a list of Remark")
        return list(answer)

    def _array(self, member: str, answer: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:  # noqa: ANN401
        if isinstance(answer, np.ndarray) and answer.dtype == dtype and answer.shape == shape:
            return
        given = f"{answer.dtype.str} of shape {answer.shape}" if isinstance(answer, np.ndarray) else answer
        self._refuse(member, given, f"an array of {dtype.name} of shape {shape}")

    def _count(self, member: str, answer: Any, count: int, thing: str) -> None:  # noqa: ANN401
        if not isinstance(answer, list | tuple):
            self._refuse(member, answer, f"a list with an entry for each {thing}")
        self._require(len(answer) == count, member, f"{len(answer)} entries", f"{count}, one for each {thing}")

    def _require(self, holds: bool, member: str, answer: object, expected: str) -> None:
        if not holds:
            self._refuse(member, answer, expected)

    def _refuse(self, member: str, answer: object, expected: str) -> NoReturn:
        told = answer if isinstance(answer, str) and " " in answer else repr(answer)
        short = told if len(told) <= LONGEST_SHOWN else f"{told[:LONGEST_SHOWN]}…"
        raise ContractBroken(
            f"{backend_of(self.inner)} broke the contract of nudge-vdb: {member} returned {short}; "
            f"expected {expected}. This is a fault of that package; nudge_vdb.testing finds such"
        )


def backend_of(collection: object) -> str:
    """Return the name of the class of *collection*, with its package."""
    kind = type(collection)
    return f"{kind.__module__}.{kind.__qualname__}"


def _all_bytes(keys: Any) -> bool:  # noqa: ANN401
    return (
        isinstance(keys, Sequence) and not isinstance(keys, str | bytes) and all(isinstance(key, bytes) for key in keys)
    )


def _repeated(keys: Sequence[RowKey]) -> str:
    seen: set[RowKey] = set()
    for key in keys:
        if key in seen:
            return f"the key {key!r} twice"
        seen.add(key)
    return ""
