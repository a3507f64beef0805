"""Judgements: queries, and the rows that answer them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nudge_vdb.contract import Vectors
from nudge_vdb.errors import BadJudgements
from nudge_vdb.foreign import is_unicode, shown
from nudge_vdb.mapped import release

Relevant = Mapping[str, float] | Mapping[int, float] | Sequence[str] | Sequence[int]
"""The rows that answer one query: ids, or ids with grades; those of 0 and below were judged not relevant."""

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
    unanswered: tuple[str, ...] = ()
    """Ids of further queries, all of whose rows were judged not relevant: they train nothing and are not scored."""
    source: str = ""
    """The names of the files that they were read from, for people; no part of the digest."""

    def __len__(self) -> int:
        return len(self.query_ids)

    @classmethod
    def from_arrays(
        cls, vectors: ArrayLike, relevant: Sequence[Relevant], query_ids: Sequence[str] | Sequence[int] | None = None
    ) -> Judgements:
        """Return judgements from query *vectors* (nq, d) and, for each, its relevant rows.

        Raises:
            BadJudgements: shapes that do not fit, vectors that are not finite or zero, a query without a judged
                row, ids given twice. The message names the query.
        """
        array = _two_dimensional(vectors)
        names = [query_id(name, "query_ids") for name in (range(len(array)) if query_ids is None else query_ids)]
        if not len(array) == len(relevant) == len(names):
            raise BadJudgements(
                f"{len(array)} query vectors, {len(relevant)} lists of relevant rows and {len(names)} query ids: "
                "give one of each per query"
            )
        return build(
            array, names, [graded(rows, f"query {name!r}") for name, rows in zip(names, relevant, strict=True)]
        )

    @classmethod
    def load(
        cls, path: str | Path | Sequence[str | Path], splits: Sequence[str] = (), equal_ids: str = "join"
    ) -> Judgements:
        """Read a JSONL file, a BEIR folder, one file of its ``qrels``, or several; see :mod:`nudge_vdb.formats`."""
        from nudge_vdb.formats import load

        paths = [path] if isinstance(path, str | Path) else path
        return load([Path(each) for each in paths], splits, equal_ids)

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
    named = np.array([len(rows) > 0 for rows in relevant])
    for place in np.flatnonzero(~_usable(vectors) | ~named)[:1]:
        _refuse_unusable(names[place], vectors[place], relevant[place])
    answers = [{text: grade for text, grade in rows.items() if grade > 0} for rows in relevant]
    answered = [place for place, rows in enumerate(answers) if rows]
    if not answered:
        raise BadJudgements(
            f"there are no judgements: none of the {len(names)} queries has a relevant row (a grade above 0)"
        )
    if len(answered) < len(names):
        vectors = vectors[answered]
    pairs = [pair for rows in answers for pair in rows.items()]
    return Judgements(
        tuple(names[place] for place in answered),
        vectors,
        np.repeat(np.arange(len(answered)), [len(answers[place]) for place in answered]),
        tuple(text for text, _ in pairs),
        np.array([grade for _, grade in pairs]),
        np.array([grade for _, grade in pairs]),
        tuple(name for name, rows in zip(names, answers, strict=True) if not rows),
    )


def graded(rows: object, where: str) -> dict[str, float]:
    """Return the judged *rows* of one query as {id: grade}."""
    if isinstance(rows, Mapping):
        pairs = [(_row_id(text, where), grade_of(grade, where)) for text, grade in rows.items()]
    elif is_list(rows):
        pairs = [(_row_id(text, where), 1.0) for text in rows]
    else:
        raise BadJudgements(f'{where}: "relevant" is {shown(rows)}; expected ["row id", …] or {{"row id": grade}}')
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(text for text, _ in pairs).most_common(1)[0][0]
        raise BadJudgements(f"{where} names row {shown(twice)} twice")
    return found


def is_list(rows: object) -> TypeGuard[Sequence[object]]:
    """Tell whether *rows* is a list of anything; a text and bytes are lists to Python alone."""
    if isinstance(rows, np.ndarray):
        return rows.ndim == 1
    return isinstance(rows, (Sequence, Set)) and not isinstance(rows, str | bytes | bytearray | memoryview)


def query_id(value: object, where: str) -> str:
    """Return a query id as text."""
    if value is None or isinstance(value, bool | float | np.bool_ | np.floating | bytes):
        raise BadJudgements(f"{where}: {shown(value)} is no query id; give text, or a whole number")
    return _text_id(value, f"{where}: {{}} is no query id")


def _row_id(value: object, where: str) -> str:
    if isinstance(value, str) or (isinstance(value, (int, np.integer)) and not isinstance(value, bool)):
        return _text_id(value, f"{where}: {{}} is no row id")
    raise BadJudgements(f"{where}: {shown(value)} is no row id; give text, or a whole number")


def _text_id(value: object, words: str) -> str:
    try:
        text = str(value)
    except ValueError as exc:
        raise BadJudgements(f"{words.format('a number of thousands of digits')}") from exc
    if not is_unicode(text):
        raise BadJudgements(f"{words.format(shown(value))}: it holds half of a surrogate pair, which is no character")
    return text


def grade_of(value: object, where: str) -> float:
    """Return a grade as a number."""
    is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    number: Any = value if is_number else np.nan
    if -LARGEST <= number <= LARGEST:
        return float(number)
    raise BadJudgements(f"{where}: {shown(value)} is no grade; give a number")


def as_float32(numbers: ArrayLike) -> Vectors:
    """Return *numbers* as float32, infinity where they are beyond it.

    Raises:
        TypeError, ValueError: they are no array of numbers.
    """
    if isinstance(numbers, np.ndarray) and numbers.dtype == np.float32 and numbers.dtype.isnative:
        return numbers if isinstance(numbers, np.memmap) else numbers.copy()  # what is mapped stays so
    given = np.asarray(numbers)
    _refuse_other_kinds(given)
    try:
        with np.errstate(over="ignore"):
            return given.astype(np.float64).astype(np.float32)
    except OverflowError as exc:
        raise ValueError("a number is beyond any float") from exc


def _refuse_other_kinds(given: NDArray[Any]) -> None:
    """Refuse truths, texts, dates and records, of which numpy makes numbers without a word."""
    if given.dtype.kind in "bcmMSU" or given.dtype.type is np.void:
        raise TypeError(f"its type is {given.dtype}, expected numbers")
    if given.dtype.kind == "O" and any(isinstance(each, bool | str | bytes) for each in given.flat):
        raise TypeError("it holds something else than numbers")


def _two_dimensional(vectors: ArrayLike) -> Vectors:
    try:
        array = as_float32(vectors)
    except (TypeError, ValueError, RecursionError) as exc:
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
        raise BadJudgements(f"query {shown(name)}: its vector holds NaN or infinity")
    if not vector.any():
        raise BadJudgements(f"query {shown(name)}: its vector is zero, which is no direction")
    if not rows:
        raise BadJudgements(f"query {shown(name)} has no relevant row (a grade above 0); leave it out")


def binary(judgements: Judgements) -> Judgements:
    """Return *judgements* with every grade 1, and so every weight."""
    ones = np.ones_like(judgements.grades)
    return replace(judgements, grades=ones, weights=ones.copy())
