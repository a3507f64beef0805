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

Relevant = Mapping[str, float] | Mapping[int, float] | Sequence[str] | Sequence[int]
"""The rows that answer one query: ids, or ids with grades; grades of 0 and below are no judgement."""

LARGEST = float(np.finfo(np.float32).max)
SAME_QUERY = 1e-4
"""Two unit queries nearer than this are one query, embedded twice."""


@dataclass(frozen=True, slots=True)
class Judgements:
    """nq queries and the p pairs of a query and a row that answers it, ordered by query."""

    query_ids: tuple[str, ...]
    vectors: Vectors
    """(nq, d), float32, as the application sends them; finite, none of length 0."""
    query: NDArray[np.int64]
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
            content.update(np.ascontiguousarray(array).tobytes())
        return content.hexdigest()


def build(vectors: Vectors, names: Sequence[str], relevant: Sequence[Mapping[str, float]]) -> Judgements:
    """Put checked parts together; refuse what only shows when all queries are seen."""
    if not len(names):
        raise BadJudgements("there are no judgements: give at least one query with a row that answers it")
    _refuse_doubles(names)
    for name, vector, rows in zip(names, vectors, relevant, strict=True):
        _refuse_unusable(name, vector, rows)
    counts = [len(rows) for rows in relevant]
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


def _refuse_unusable(name: str, vector: Vectors, rows: Mapping[str, float]) -> None:
    if not np.isfinite(vector).all():
        raise BadJudgements(f"query {name!r}: its vector holds NaN or infinity")
    if not vector.any():
        raise BadJudgements(f"query {name!r}: its vector is zero, which is no direction")
    if not rows:
        raise BadJudgements(f"query {name!r} has no relevant row (a grade above 0); leave it out")


def merged(judgements: Judgements) -> Judgements:
    """Return *judgements* with equal queries made one: weights added, the best grade kept.

    A query that stayed in twice would vouch for itself when it is left out once.
    """
    label = _equal_queries(judgements.vectors)
    kept, place = np.unique(label, return_inverse=True)
    pairs: list[dict[str, tuple[float, float]]] = [{} for _ in kept]
    for query, row, grade, weight in zip(
        place[judgements.query], judgements.rows, judgements.grades, judgements.weights, strict=True
    ):
        best, total = pairs[query].get(row, (0.0, 0.0))
        pairs[query][row] = (max(best, float(grade)), total + float(weight))
    flat = [(row, *values) for rows in pairs for row, values in rows.items()]
    return Judgements(
        tuple(judgements.query_ids[first] for first in kept),
        judgements.vectors[kept],
        np.repeat(np.arange(len(kept)), [len(rows) for rows in pairs]),
        tuple(row for row, _, _ in flat),
        np.array([grade for _, grade, _ in flat]),
        np.array([weight for _, _, weight in flat]),
    )


def _equal_queries(vectors: Vectors) -> NDArray[np.int64]:
    """Return for each query the place of the first query that equals it.

    Equal queries have equal projections on any line, so only neighbours on a random line need be compared.
    """
    units = vectors / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    _, first, same = np.unique(units, axis=0, return_index=True, return_inverse=True)
    distinct = units[first]
    line = np.random.default_rng(0).normal(size=units.shape[1])
    line /= np.linalg.norm(line)
    order = np.argsort(distinct @ line, kind="stable")
    along = (distinct @ line)[order]
    pairs = [np.empty((2, 0), np.int64)]
    for shift in range(1, len(order)):
        near = np.flatnonzero(along[shift:] - along[:-shift] <= SAME_QUERY)
        if not len(near):
            break
        left, right = order[near], order[near + shift]
        equal = np.linalg.norm(distinct[left] - distinct[right], axis=1) <= SAME_QUERY
        pairs.append(np.stack([left[equal], right[equal]]))
    return _smallest_label(first.astype(np.int64), np.concatenate(pairs, axis=1))[same.reshape(-1)]


def _smallest_label(label: NDArray[np.int64], pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give all that hang together by *pairs* (2, n) the smallest *label* among them."""
    while True:
        spread = label.copy()
        np.minimum.at(spread, pairs[0], label[pairs[1]])
        np.minimum.at(spread, pairs[1], label[pairs[0]])
        if (spread == label).all():
            return label
        label = spread


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
