"""Judgements as they were read, each with its place, and several files of them joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nudge_vdb.contract import Vectors
from nudge_vdb.errors import BadJudgements, BadOption
from nudge_vdb.foreign import shown
from nudge_vdb.judgements import Judgements, build

AGREE = 0.0141
"""Two vectors of one query are at most so far apart, as a part of their length: precision and batch change as much."""
EQUAL_IDS = ("join", "refuse")


@dataclass(frozen=True)
class Read:
    """The queries of one file, in its order."""

    names: Sequence[str]
    places: Sequence[str]
    """Words that name where each query was read, such as "a.jsonl line 3"."""
    vectors: Vectors
    """(nq, d)"""
    relevant: Sequence[Mapping[str, float]]
    """Row ids and grades of each query, those of 0 and below included."""


def joined(files: Sequence[Read], equal_ids: str) -> Judgements:
    """Make one of several files: of queries with one id and one vector the rows are joined.

    Raises:
        BadJudgements: an id stands twice in one file, or in two with *equal_ids* "refuse", with other vectors or with
            another grade of a row; the message names both lines.
        BadOption: *equal_ids* is neither "join" nor "refuse".
    """
    if equal_ids not in EQUAL_IDS:
        raise BadOption(f"equal_ids {shown(equal_ids)}: expected {' or '.join(EQUAL_IDS)}")
    filled = [each for each in files if len(each.names)]
    for each in filled:
        _refuse_doubles(each)
        _refuse_another_width(filled[0], each)
    if len(filled) < 2:
        return build(*_parts(filled[0])) if filled else build(np.empty((0, 0), np.float32), [], [])
    return build(*_parts(_one(filled, equal_ids)))


def _parts(read: Read) -> tuple[Vectors, Sequence[str], Sequence[Mapping[str, float]]]:
    return read.vectors, read.names, read.relevant


def _refuse_doubles(read: Read) -> None:
    known: dict[str, str] = {}
    for name, place in zip(read.names, read.places, strict=True):
        if name in known:
            raise BadJudgements(f"{place}: query id {shown(name)} is given twice, also on {known[name]}")
        known[name] = place


def _refuse_another_width(first: Read, other: Read) -> None:
    widths = first.vectors.shape[1], other.vectors.shape[1]
    if widths[0] != widths[1]:
        raise BadJudgements(
            f"{other.places[0]}: the vector has {widths[1]} components, that of {first.places[0]} has {widths[0]}"
        )


def _one(files: Sequence[Read], equal_ids: str) -> Read:
    names: dict[str, int] = {}
    places: list[str] = []
    vectors: list[Vectors] = []
    relevant: list[dict[str, float]] = []
    for name, place, vector, rows in (query for each in files for query in _queries(each)):
        if name not in names:
            names[name] = len(names)
            places.append(place)
            vectors.append(vector)
            relevant.append(dict(rows))
            continue
        at = names[name]
        _require_same(name, (places[at], place), (vectors[at], vector), equal_ids)
        _add(relevant[at], rows, (places[at], place))
    return Read(list(names), places, np.stack(vectors), relevant)


def _queries(read: Read) -> zip[tuple[str, str, Vectors, Mapping[str, float]]]:
    return zip(read.names, read.places, read.vectors, read.relevant, strict=True)


def _require_same(name: str, places: tuple[str, str], vectors: tuple[Vectors, Vectors], equal_ids: str) -> None:
    both = f"query id {shown(name)} is given on {places[0]} and on {places[1]}"
    if equal_ids == "refuse":
        raise BadJudgements(f"{both}; leave one out, or say --equal-ids join")
    first, second = (vector.astype(np.float64) for vector in vectors)
    if not np.linalg.norm(first - second) <= AGREE * np.linalg.norm(first):
        raise BadJudgements(f"{both} with different vectors; give each query an id of its own")


def _add(known: dict[str, float], rows: Mapping[str, float], places: tuple[str, str]) -> None:
    for row, grade in rows.items():
        if known.setdefault(row, grade) != grade:
            raise BadJudgements(
                f"row {shown(row)} has grade {known[row]:g} on {places[0]} and {grade:g} on {places[1]}; "
                "keep one of them"
            )
