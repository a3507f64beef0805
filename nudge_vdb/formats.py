"""Files of judgements: one JSON object a line, a JSON array of such objects, or a BEIR folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from nudge_vdb.beir import is_qrels, read_beir, read_qrels
from nudge_vdb.contract import Vectors
from nudge_vdb.errors import BadJudgements, BadOption
from nudge_vdb.foreign import Unreadable, distinct_members, in_words, parsed, shown
from nudge_vdb.judgements import Judgements, as_float32, graded, is_list, query_id
from nudge_vdb.lines import STDIN, lines, name_of
from nudge_vdb.paths import local_path
from nudge_vdb.records import Read, joined

RIGHT = '{"query_id": "q1", "vector": [0.12, -0.03, …], "relevant": ["row 17", "row 23"]}'
MEMBERS = ("query_id", "vector", "relevant")
BLANK = " \t\r\n"


def load(paths: Sequence[Path], splits: Sequence[str] = (), equal_ids: str = "join") -> Judgements:
    """Read the judgements at *paths*, joined.

    * A file of lines ``{"query_id": str, "vector": [...], "relevant": {"row id": grade} or ["row id", …]}``, or a JSON
      array of such objects; plain, or packed by gzip or zstd; a pipe as well, and ``-`` for standard input.
    * A BEIR folder: ``queries.jsonl``, ``qrels/<split>.tsv`` and the vectors in ``queries.npy``, row i for line i.
      *splits* names the qrels files to join; they may be left out where there is only one.
    * One file of a BEIR folder's ``qrels``.

    A query id that stands in two of them is one query where the vectors agree; with *equal_ids* "refuse" it is refused.

    Raises:
        BadJudgements: nothing there, or content that cannot be used; the message names the line or the query.
        BadOption: a split that is not there, or splits where there are none.
    """
    paths = [path if path == STDIN else local_path(path, "judgements") for path in paths]
    if splits and not any(path != STDIN and path.is_dir() for path in paths):
        raise BadOption(f"{', '.join(map(name_of, paths))} is a file and has no splits; leave out --split")
    source = ", ".join(str(path) if path == STDIN else path.name for path in paths)
    return replace(joined([_read(path, splits) for path in paths], equal_ids), source=source)


def _read(path: Path, splits: Sequence[str]) -> Read:
    if path == STDIN:
        return _records(path)
    if path.is_dir():
        return read_beir(path, splits)
    if not path.exists():
        raise BadJudgements(f"{path} does not exist; expected a JSONL file or a BEIR folder")
    if is_qrels(path):
        return read_qrels(path.resolve().parent.parent, [path])
    return _records(path)


def _records(path: Path) -> Read:
    names: list[str] = []
    places: list[str] = []
    vectors: list[Vectors] = []
    relevant: list[dict[str, float]] = []
    for where, line in _objects(path):
        _require_members(line, where)
        names.append(query_id(line["query_id"], where))
        places.append(where)
        vectors.append(_vector(line["vector"], vectors[0] if vectors else None, where))
        relevant.append(graded(line["relevant"], where))
        if not relevant[-1]:
            raise BadJudgements(f"{where}: query {shown(names[-1])} has no relevant row; leave it out")
    return Read(names, places, np.stack(vectors) if vectors else np.empty((0, 0), np.float32), relevant)


def _objects(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every object, with the words that name its place."""
    found = lines(path)
    first = next(found, None)
    if first is None:
        raise BadJudgements(f"{name_of(path)} is empty: there are no judgements in it (a pipe can be read only once)")
    is_array = first[1].lstrip(BLANK).startswith("[")
    for where, value in _items(path, chain([first], found)) if is_array else _parsed_lines(chain([first], found)):
        if not isinstance(value, dict):
            raise BadJudgements(f"{where} is not a JSON object; expected such a line: {RIGHT}")
        yield where, value


def _parsed_lines(found: Iterator[tuple[str, str]]) -> Iterator[tuple[str, Any]]:
    for where, text in found:
        try:
            yield where, parsed(text, distinct=True)
        except Unreadable as exc:
            raise BadJudgements(f"{where} {exc}; expected one JSON object a line, such as {RIGHT}") from exc


def _items(path: Path, found: Iterator[tuple[str, str]]) -> Iterator[tuple[str, Any]]:
    """Yield every item of the JSON array that is the whole of *path*."""
    text = "\n".join(line for _, line in found).strip(BLANK)
    decoder = json.JSONDecoder(object_pairs_hook=distinct_members)
    at, number = _behind_blanks(text, 1), 0
    while text[at : at + 1] != "]":
        number += 1
        where = f"{name_of(path)} item {number}"
        try:
            with in_words():
                value, end = decoder.raw_decode(text, at)
        except Unreadable as exc:
            raise BadJudgements(f"{where} {exc}") from exc
        yield where, value
        at = _behind_comma(text, end, where)
    if at + 1 < len(text):
        raise BadJudgements(f"{name_of(path)} goes on behind its JSON array: {shown(text[at + 1 :])}")


def _behind_comma(text: str, at: int, where: str) -> int:
    """Return the place of the next item, or of the bracket that ends the array."""
    at = _behind_blanks(text, at)
    if text[at : at + 1] == "]":
        return at
    if text[at : at + 1] != ",":
        raise BadJudgements(f"{where} is followed by {shown(text[at : at + 20])}; expected a comma, or ] at the end")
    return _behind_blanks(text, at + 1)


def _behind_blanks(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in BLANK:
        at += 1
    return at


def _require_members(line: Mapping[str, Any], where: str) -> None:
    """Refuse a line that lacks a member or has one of the wrong kind; all that is wrong with it is said at once."""
    faults = [_lacking(line), *(_wrong(name, line[name]) for name in MEMBERS if name in line)]
    found = "; ".join(fault for fault in faults if fault)
    if found:
        raise BadJudgements(f"{where}: {found}. A right line: {RIGHT} · this one: {_brief(line)}")


def _lacking(line: Mapping[str, Any]) -> str:
    names = [f'"{name}"' for name in MEMBERS if name not in line]
    return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} missing" if names else ""


def _wrong(name: str, value: object) -> str:
    if name == "query_id" and not (isinstance(value, str | int) and not isinstance(value, bool)):
        return f'"query_id" is {_as_json(value)}; expected text or a whole number'
    if name == "vector" and not isinstance(value, list):
        return f'"vector" is no list of numbers: {_as_json(value)}'
    if name == "relevant" and not (isinstance(value, dict) or is_list(value)):
        return f'"relevant" is {shown(value)}; expected ["row id", …] or {{"row id": grade}}'
    return ""


def _brief(line: Mapping[str, Any]) -> str:
    parts = [f"{_as_json(name)}: {_as_json(value)}" for name, value in line.items()]
    return f"{{{', '.join(parts[:6])}{', …' if len(parts) > 6 else ''}}}"


def _as_json(value: object) -> str:
    """Return *value* as JSON shows it, short."""
    if isinstance(value, list) and len(value) > 2:
        return f"[{_as_json(value[0])}, {_as_json(value[1])}, …]"
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = shown(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _vector(value: list[Any], first: Vectors | None, where: str) -> Vectors:
    for component, each in enumerate(value, start=1) if set(map(type, value)) - {int, float} else ():
        if type(each) not in (int, float):
            raise BadJudgements(f'{where}: "vector" is no list of numbers: component {component} is {_as_json(each)}')
    try:
        vector = as_float32(cast("ArrayLike", value))
    except (TypeError, ValueError) as exc:
        raise BadJudgements(f'{where}: "vector" is no list of numbers: {exc}') from exc
    if not len(vector):
        raise BadJudgements(f'{where}: "vector" is no list of numbers: it is empty')
    if first is not None and len(vector) != len(first):
        raise BadJudgements(f"{where}: the vector has {len(vector)} components, those above it {len(first)}")
    if not np.isfinite(vector).all():
        raise BadJudgements(f"{where}: the vector holds NaN or infinity")
    if not vector.any():
        raise BadJudgements(f"{where}: the vector is zero, which is no direction")
    return vector
