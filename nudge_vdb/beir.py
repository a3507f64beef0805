"""Judgements in a BEIR folder: queries.jsonl, qrels/<split>.tsv, and the vectors of the queries in queries.npy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from nudge_vdb.contract import Vectors
from nudge_vdb.errors import BadJudgements, BadOption
from nudge_vdb.foreign import Unreadable, mapped_array, number_in, parsed, shown
from nudge_vdb.judgements import as_float32, grade_of, query_id
from nudge_vdb.lines import COMPRESSED, lines
from nudge_vdb.records import Read

HEADERS = {"queryid", "qid", "query", "topic", "topicid"}
"""What the first column is called, but for case and punctuation."""
QRELS = "query-id, corpus-id and score, separated by tabs"


def read_beir(folder: Path, splits: Sequence[str]) -> Read:
    """Read the *splits* of a BEIR folder; they may be left out where there is only one.

    Raises:
        BadJudgements: content that cannot be used; the message names the line.
        BadOption: a split that is not there.
    """
    return read_qrels(folder, [_split_file(folder, split) for split in splits] or [_only_split(folder)])


def is_qrels(path: Path) -> bool:
    """Tell whether *path* is named like the qrels of a split."""
    return _plain(path).suffix == ".tsv"


def read_qrels(folder: Path, qrels: Sequence[Path]) -> Read:
    """Read the files *qrels* of a BEIR folder, joined."""
    queries = _packed_or_not(folder / "queries.jsonl")
    places = _query_places(queries)
    names = {name: row for row, name in enumerate(places)}
    vectors = _query_vectors(folder / "queries.npy", len(names))
    relevant: dict[str, dict[str, float]] = {}
    for path in qrels:
        for where, query, row, grade in _judged(path, names):
            if query not in names:
                raise BadJudgements(f"{where}: query {shown(query)} is not in {queries}")
            known = relevant.setdefault(query, {})
            if row in known:
                raise BadJudgements(f"{where}: row {shown(row)} is judged twice for query {shown(query)}")
            known[row] = grade
    rows = [names[name] for name in relevant]
    return Read(list(relevant), [places[name] for name in relevant], vectors[rows], list(relevant.values()))


def _query_places(path: Path) -> dict[str, str]:
    """Return, by the id of each query, the words that name its line, in the order of the file."""
    if not path.exists():
        raise BadJudgements(f"{path} does not exist; a BEIR folder holds queries.jsonl, qrels/ and queries.npy")
    found: dict[str, str] = {}
    for where, text in lines(path):
        name = _query_name(text, where)
        if name in found:
            raise BadJudgements(f'{where}: "_id" is given twice: {shown(name)}, also on {found[name]}')
        found[name] = where
    return found


def _query_name(text: str, where: str) -> str:
    try:
        line = parsed(text, distinct=True)
    except Unreadable as exc:
        raise BadJudgements(f"{where} {exc}") from exc
    if not isinstance(line, dict):
        raise BadJudgements(f'{where} is not a JSON object; expected such a line: {{"_id": "q1", "text": "…"}}')
    if line.get("_id") in (None, ""):
        raise BadJudgements(f'{where}: "_id" is missing; expected such a line: {{"_id": "q1", "text": "…"}}')
    return query_id(line["_id"], f'{where}: "_id"')


def _query_vectors(path: Path, count: int) -> Vectors:
    if not path.is_file():
        raise BadJudgements(
            f"{path} does not exist, or is no regular file: embed the lines of queries.jsonl with the collection's own "
            "model and save them there with numpy.save, one row a line"
        )
    try:
        held = mapped_array(path)
        if held.ndim != 2 or len(held) != count:
            raise BadJudgements(f"{path} has shape {held.shape}; queries.jsonl has {count} queries, one row each")
        return np.asarray(as_float32(held))
    except Unreadable as exc:
        raise BadJudgements(f"{path} {exc}") from exc
    except (OSError, TypeError, ValueError) as exc:
        raise BadJudgements(f"{path} is no .npy file of numbers: {exc}") from exc


def _judged(path: Path, names: Mapping[str, object]) -> Iterator[tuple[str, str, str, float]]:
    """Yield place, query, row and grade of every line below the header."""
    for number, (where, line) in enumerate(lines(path)):
        cells = line.split("\t")
        if number or not _is_header(cells, names):
            yield where, *_cells(cells, line, where)


def _cells(cells: Sequence[str], line: str, where: str) -> tuple[str, str, float]:
    if len(cells) != 3:
        trec = " (this looks like qrels of TREC, which have four columns)" if len(line.split()) == 4 else ""
        raise BadJudgements(f"{where}: expected {QRELS}{trec}; it is {shown(line)}")
    grade = number_in(cells[2])
    if grade is None:
        raise BadJudgements(f"{where}: expected {QRELS}; the score {shown(cells[2])} is no number")
    return cells[0], cells[1], grade_of(grade, where)


def _is_header(cells: Sequence[str], names: Mapping[str, object]) -> bool:
    """Tell whether *cells* name the columns. Only known names do: another line would be dropped without a word."""
    plain = re.sub(r"[^a-z]", "", cells[0].lower())
    return len(cells) == 3 and plain in HEADERS and cells[0] not in names and number_in(cells[2]) is None


def _only_split(folder: Path) -> Path:
    found = _splits(folder)
    if len(found) == 1:
        return found[0]
    raise BadOption(f"{folder} has the splits {_names(found)}; say which judge with --split NAME (may be repeated)")


def _split_file(folder: Path, split: str) -> Path:
    found = _splits(folder)
    for path in found:
        if _plain(path).stem == split:
            return path
    raise BadOption(f"{folder} has no split {shown(split)}; it has {_names(found)}")


def _splits(folder: Path) -> list[Path]:
    found = sorted(path for path in (folder / "qrels").glob("*.tsv*") if is_qrels(path))
    if not found:
        raise BadJudgements(f"{folder} is no BEIR folder: it holds no qrels/<split>.tsv")
    return found


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(_plain(path).stem for path in paths)


def _plain(path: Path) -> Path:
    """Return *path* without the ending of what packed it."""
    return path.with_suffix("") if path.suffix in COMPRESSED else path


def _packed_or_not(path: Path) -> Path:
    packed = (path.with_name(path.name + ending) for ending in COMPRESSED)
    return next((each for each in (path, *packed) if each.exists()), path)
