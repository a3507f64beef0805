"""Files of judgements: one JSON object a line, or a BEIR folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from nudge_vdb.contract import Vectors
from nudge_vdb.errors import BadJudgements, BadOption
from nudge_vdb.judgements import Judgements, as_float32, build, graded
from nudge_vdb.paths import local_path


def load(path: Path, splits: Sequence[str] = ()) -> Judgements:
    """Read the judgements at *path*.

    * A file of lines ``{"query_id": str, "vector": [...], "relevant": {"row id": grade} or ["row id", …]}``.
    * A BEIR folder: ``queries.jsonl``, ``qrels/<split>.tsv`` and the vectors in ``queries.npy``, row i for line i.
      *splits* names the qrels files to join; they may be left out where there is only one.
    * One file of a BEIR folder's ``qrels``.

    Raises:
        BadJudgements: nothing there, or content that cannot be used; the message names the line or the query.
        BadOption: a split that is not there, or splits where there are none.
    """
    path = local_path(path, "judgements")
    if path.is_dir():
        return _beir(path, [_split_file(path, split) for split in splits] or [_only_split(path)])
    if splits:
        raise BadOption(f"{path} is a file and has no splits; leave out --split")
    if not path.is_file():
        raise BadJudgements(f"{path} does not exist; expected a JSONL file or a BEIR folder")
    if path.suffix == ".tsv":
        return _beir(path.resolve().parent.parent, [path])
    return _jsonl(path)


def _jsonl(path: Path) -> Judgements:
    names: list[str] = []
    vectors: list[Vectors] = []
    relevant: list[dict[str, float]] = []
    for where, line in _json_lines(path):
        if not isinstance(line.get("query_id"), str):
            raise BadJudgements(f'{where}: "query_id" is {line.get("query_id")!r}; expected text')
        names.append(line["query_id"])
        vectors.append(_vector(line.get("vector"), vectors[0] if vectors else None, where))
        relevant.append(graded(line.get("relevant"), where))
        if not relevant[-1]:
            raise BadJudgements(f"{where}: query {names[-1]!r} has no relevant row (a grade above 0); leave it out")
    stacked = np.stack(vectors) if vectors else np.empty((0, 0), np.float32)
    return build(stacked, names, relevant)


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the JSON object of every line that is not blank, with the words that name its place."""
    for where, text in _lines(path):
        yield where, _json_object(text, where)


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield every line that is not blank, with the words that name its place."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{path} line {number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as exc:
                raise BadJudgements(f"{where} is not UTF-8 text: {exc}") from exc
            if text.strip():
                yield where, text


def _json_object(text: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text, object_pairs_hook=lambda pairs: _distinct(pairs, where))
    except json.JSONDecodeError as exc:
        raise BadJudgements(f"{where} is not JSON: {exc}") from exc
    if not isinstance(found, dict):
        raise BadJudgements(f"{where} is not a JSON object")
    return found


def _distinct(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BadJudgements(f"{where} names {twice!r} twice")
    return dict(pairs)


def _vector(value: object, first: Vectors | None, where: str) -> Vectors:
    try:
        vector = as_float32(cast("ArrayLike", value))
    except (TypeError, ValueError) as exc:
        raise BadJudgements(f'{where}: "vector" is no list of numbers: {exc}') from exc
    if vector.ndim != 1 or not len(vector):
        raise BadJudgements(f'{where}: "vector" is no list of numbers')
    if first is not None and len(vector) != len(first):
        raise BadJudgements(f"{where}: the vector has {len(vector)} components, those above it {len(first)}")
    if not np.isfinite(vector).all():
        raise BadJudgements(f"{where}: the vector holds NaN or infinity")
    if not vector.any():
        raise BadJudgements(f"{where}: the vector is zero, which is no direction")
    return vector


def _only_split(folder: Path) -> Path:
    found = _splits(folder)
    if len(found) == 1:
        return found[0]
    raise BadOption(f"{folder} has the splits {_names(found)}; say which judge with --split NAME (may be repeated)")


def _split_file(folder: Path, split: str) -> Path:
    found = _splits(folder)
    for path in found:
        if path.stem == split:
            return path
    raise BadOption(f"{folder} has no split {split!r}; it has {_names(found)}")


def _splits(folder: Path) -> list[Path]:
    found = sorted((folder / "qrels").glob("*.tsv"))
    if not found:
        raise BadJudgements(f"{folder} is no BEIR folder: it holds no qrels/<split>.tsv")
    return found


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(path.stem for path in paths)


def _beir(folder: Path, qrels: Sequence[Path]) -> Judgements:
    names = _query_names(folder / "queries.jsonl")
    vectors = _query_vectors(folder / "queries.npy", len(names))
    relevant: dict[str, dict[str, float]] = {}
    for path in qrels:
        for where, query, row, grade in _qrels(path):
            if query not in names:
                raise BadJudgements(f"{where}: query {query!r} is not in {folder / 'queries.jsonl'}")
            rows = relevant.setdefault(query, {})
            if row in rows:
                raise BadJudgements(f"{where}: row {row!r} is judged twice for query {query!r}")
            rows[row] = grade
    judged = {query: wanted for query, rows in relevant.items() if (wanted := graded(rows, f"query {query!r}"))}
    return build(vectors[[names[query] for query in judged]], list(judged), list(judged.values()))


def _query_names(path: Path) -> dict[str, int]:
    """Return the place of each query id in the file."""
    if not path.is_file():
        raise BadJudgements(f"{path} does not exist; a BEIR folder holds queries.jsonl, qrels/ and queries.npy")
    names: dict[str, int] = {}
    for where, line in _json_lines(path):
        name = line["_id"] if isinstance(line.get("_id"), str) else ""
        if not name or name in names:
            raise BadJudgements(f'{where}: "_id" is {"given twice" if name else "missing"}')
        names[name] = len(names)
    return names


def _query_vectors(path: Path, count: int) -> Vectors:
    if not path.is_file():
        raise BadJudgements(
            f"{path} does not exist: embed the lines of queries.jsonl with the collection's own model and save them "
            "there with numpy.save, one row a line"
        )
    try:
        vectors = as_float32(np.load(path, allow_pickle=False))
    except (OSError, TypeError, ValueError, EOFError) as exc:
        raise BadJudgements(f"{path} is no .npy file of numbers: {exc}") from exc
    if vectors.ndim != 2 or len(vectors) != count:
        raise BadJudgements(f"{path} has shape {vectors.shape}; queries.jsonl has {count} queries, one row each")
    return np.asarray(vectors)


def _qrels(path: Path) -> Iterator[tuple[str, str, str, float]]:
    """Yield place, query, row and grade of every line below the header."""
    for number, (where, line) in enumerate(_lines(path)):
        cells = line.split("\t")
        if number or _is_number(cells[-1]):
            if len(cells) != 3 or not _is_number(cells[2]):
                raise BadJudgements(f"{where}: expected query-id, corpus-id and score, separated by tabs")
            yield where, cells[0], cells[1], float(cells[2])


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
