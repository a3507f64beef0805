"""Judgements: queries, and the rows that answer them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nudge_vdb.contract import Vectors
from nudge_vdb.errors import BadJudgements
from nudge_vdb.mapped import release

Relevant = Mapping[str, float] | Mapping[int, float] | Sequence[str] | Sequence[int]
"""The rows that answer one query: ids, or ids with grades; grades of 0 and below are no judgement."""

LARGEST = float(np.finfo(np.float32).max)
COMPARED_AT_ONCE = 1024

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Judgements:
    """nq queries and the p pairs of a query and a row that answers it, ordered by query."""

    query_ids: tuple[str, ...]
    vectors: Vectors
    """(nq, d), float32, as the application sends them; finite, none of length 0."""
    query: Ints
    """(p,): the place of each pair's query, ascending."""
    rows: tuple[str, ...]
    """(p,): the id of each pair's row, as text."""
    grades: NDArray[np.float64]
    """(p,): above 0; a plain relevant row has 1."""
    weights: NDArray[np.float64]
    """(p,): how strongly the pair pulls: its grade, added up where equal queries were merged."""

    def __len__(self) -> int:
        return len(self.query_ids)

    @classmethod
    def from_arrays(
        cls, vectors: ArrayLike, relevant: Sequence[Relevant], query_ids: Sequence[str] | Sequence[int] | None = None
    ) -> Judgements:
        """Return judgements from query *vectors* (nq, d) and, for each, its relevant rows.

        Raises:
            BadJudgements: shapes that do not fit, vectors that are not finite or zero, a query without a relevant
                row, ids given twice. The message names the query.
        """
        array = _two_dimensional(vectors)
        names = tuple(map(str, range(len(array)) if query_ids is None else query_ids))
        if not len(array) == len(relevant) == len(names):
            raise BadJudgements(
                f"{len(array)} query vectors, {len(relevant)} lists of relevant rows and {len(names)} query ids: "
                "give one of each per query"
            )
        return build(
            array, names, [graded(rows, f"query {name!r}") for name, rows in zip(names, relevant, strict=True)]
        )

    @classmethod
    def load(cls, path: str | Path, splits: Sequence[str] = ()) -> Judgements:
        """Read a JSONL file, a BEIR folder, or one file of a BEIR folder's ``qrels``; see :mod:`nudge_vdb.formats`."""
        from nudge_vdb.formats import load

        return load(Path(path), splits)

    def relevant(self, place: int) -> Iterator[tuple[str, float]]:
        """Yield the rows of the query at *place* with their grades."""
        first, last = np.searchsorted(self.query, [place, place + 1])
        yield from zip(self.rows[first:last], self.grades[first:last].tolist(), strict=True)

    def digest(self) -> str:
        """Return a SHA-256 over all that counts, the same for the same judgements."""
        content = hashlib.sha256(json.dumps([self.query_ids, self.rows]).encode())
        for array in (self.vectors, self.query, self.grades, self.weights):
            for first in range(0, len(array), COMPARED_AT_ONCE):
                content.update(np.ascontiguousarray(array[first : first + COMPARED_AT_ONCE]).tobytes())
                release(array)
        return content.hexdigest()


def build(vectors: Vectors, names: Sequence[str], relevant: Sequence[Mapping[str, float]]) -> Judgements:
    """Put checked parts together; refuse what only shows when all queries are seen."""
    if not len(names):
        raise BadJudgements("there are no judgements: give at least one query with a row that answers it")
    _refuse_doubles(names)
    counts = [len(rows) for rows in relevant]
    for place in np.flatnonzero(~_usable(vectors) | (np.array(counts) == 0))[:1]:
        _refuse_unusable(names[place], vectors[place], relevant[place])
    pairs = [pair for rows in relevant for pair in rows.items()]
    return Judgements(
        tuple(names),
        vectors,
        np.repeat(np.arange(len(names)), counts),
        tuple(text for text, _ in pairs),
        np.array([grade for _, grade in pairs]),
        np.array([grade for _, grade in pairs]),
    )


def graded(rows: object, where: str) -> dict[str, float]:
    """Return the relevant *rows* of one query as {id: grade}, pairs with a grade of 0 or below left out."""
    if isinstance(rows, Mapping):
        pairs = [(_row_id(text, where), _grade(grade, where)) for text, grade in rows.items()]
    elif isinstance(rows, (Sequence, Set, np.ndarray)) and not isinstance(rows, str):
        pairs = [(_row_id(text, where), 1.0) for text in rows]
    else:
        raise BadJudgements(f'{where}: "relevant" is {rows!r}; expected ["row id", …] or {{"row id": grade}}')
    found = {text: grade for text, grade in pairs if grade > 0}
    texts = [text for text, _ in pairs]
    if len(set(texts)) < len(texts):
        twice = next(text for text in texts if texts.count(text) > 1)
        raise BadJudgements(f"{where} names row {twice!r} twice")
    return found


def _row_id(value: object, where: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return str(int(value))
    raise BadJudgements(f"{where}: {value!r} is no row id; give text, or a whole number")


def _grade(value: object, where: str) -> float:
    number: Any = value if isinstance(value, (int, float, np.integer, np.floating)) else np.nan
    if -LARGEST <= number <= LARGEST:
        return float(number)
    raise BadJudgements(f"{where}: {value!r} is no grade; give a number")


def as_float32(numbers: ArrayLike) -> Vectors:
    """Return *numbers* as float32, infinity where they are beyond it.

    Raises:
        TypeError, ValueError: they are no array of numbers.
    """
    if isinstance(numbers, np.ndarray) and numbers.dtype == np.float32:
        return numbers if isinstance(numbers, np.memmap) else numbers.copy()  # what is mapped stays so
    try:
        with np.errstate(over="ignore"):
            return np.asarray(numbers, dtype=np.float64).astype(np.float32)
    except OverflowError as exc:
        raise ValueError("a number is beyond any float") from exc


def _two_dimensional(vectors: ArrayLike) -> Vectors:
    try:
        array = as_float32(vectors)
    except (TypeError, ValueError) as exc:
        raise BadJudgements(f"the query vectors are no array of numbers of one width: {exc}") from exc
    if array.ndim != 2:
        raise BadJudgements(f"the query vectors have shape {array.shape}; expected (queries, width)")
    return array


def _refuse_doubles(names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise BadJudgements(f"query id {name!r} is given twice")
        seen.add(name)


def _usable(vectors: Vectors) -> NDArray[np.bool_]:
    """Tell which of *vectors* (nq, d) are finite and not zero."""
    found = [np.zeros(0, bool)]
    for first in range(0, len(vectors), COMPARED_AT_ONCE):
        part = np.asarray(vectors[first : first + COMPARED_AT_ONCE])
        found.append(np.asarray(np.isfinite(part).all(axis=1) & part.any(axis=1)))
        release(vectors)
    return np.concatenate(found)


def _refuse_unusable(name: str, vector: Vectors, rows: Mapping[str, float]) -> None:
    if not np.isfinite(vector).all():
        raise BadJudgements(f"query {name!r}: its vector holds NaN or infinity")
    if not vector.any():
        raise BadJudgements(f"query {name!r}: its vector is zero, which is no direction")
    if not rows:
        raise BadJudgements(f"query {name!r} has no relevant row (a grade above 0); leave it out")


def binary(judgements: Judgements) -> Judgements:
    """Return *judgements* with every grade 1, and so every weight."""
    return Judgements(
        judgements.query_ids,
        judgements.vectors,
        judgements.query,
        judgements.rows,
        np.ones_like(judgements.grades),
        np.ones_like(judgements.weights),
    )
