"""Scoring a live collection as it is."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nudge_vdb.budget import USUAL, budget_of
from nudge_vdb.contract import Collection
from nudge_vdb.errors import BadOption, StateConflict, StateDamaged
from nudge_vdb.given import taking_addresses
from nudge_vdb.ground import place_at, places_of
from nudge_vdb.judgements import Judgements, binary
from nudge_vdb.lineage import Lineage
from nudge_vdb.live import as_sent
from nudge_vdb.matching import locate, present, refuse_other_widths, refuse_strangers, spelled
from nudge_vdb.metrics import Measure, parse_measure
from nudge_vdb.notes import require_own
from nudge_vdb.nudge import Floats, Ints
from nudge_vdb.pages import Pages, page_out
from nudge_vdb.phases import Phases
from nudge_vdb.ranking import scores
from nudge_vdb.retry import Patient
from nudge_vdb.rivals import Part
from nudge_vdb.seen import Seen
from nudge_vdb.selection import FEWEST_QUERIES
from nudge_vdb.standing import Folder, known_state, steady

MISSING = ("skip", "zero")


@dataclass(frozen=True)
class Evaluation:
    """How well a collection answers."""

    scores: Mapping[str, float]
    """The mean over the queries of each metric asked for."""
    queries: int
    rows: int
    """Rows that were compared with every query."""
    missing: list[str]
    """Judged ids that name no row."""
    version: int | None = None
    """The version that was scored, 0 being the base; None where the vectors were scored as they are."""
    queries_missing: int = 0
    """Queries none of whose judged rows are there."""
    missing_count: str = "skip"
    """Whether they and the *missing* rows are left out (skip), or count as not found (zero)."""
    trained: int | None = None
    """How many of the queries trained what was scored, which flatters it; None where no state tells."""
    unseen_scores: Mapping[str, float] | None = None
    """The means over the other queries, where some trained and 20 or more did not."""
    unanswered: int = 0
    """Further queries, which are not scored: all their rows were judged not relevant."""


@taking_addresses
def evaluate(
    collection: Collection,
    judgements: Judgements,
    *,
    metric: str = "ndcg@10",
    grades: bool = False,
    memory: int = USUAL,
    version: int | None = None,
    missing: str = "skip",
    state: Folder = None,
    phases: Phases | None = None,
) -> Evaluation:
    """Score every query of *judgements* against every row of *collection*, exactly, as the vectors are now.

    Queries that trained what is scored are counted, as far as the *state* tells, and the others scored apart.
    With *version*, a number of the *state*, rows that were ever moved are scored where that version has them, 0 being
    the base, and the queries as they are sent while it is live. Nothing is written to the database.

    Judged rows that are not there are left out, and queries that have no other. With *missing* "zero" they count as
    not found, as in trec_eval: such rows in the ideal gain, such queries as 0.

    *metric* may name several, separated by commas. Equal scores are ordered by row id, descending, as trec_eval does.
    No more than *memory* bytes are held at once, besides the judgements.

    Raises:
        BadInput: the judgements, the metric or *memory* cannot be used, or there is no such *version*.
        StateConflict: *version* is given, and there is no state of the collection, or the collection is another's.
        EngineError: the engine cannot be reached, or refuses.
    """
    budget, measures = budget_of(memory), [parse_measure(name) for name in metric.split(",")]
    if missing not in MISSING:
        raise BadOption(f"missing {missing!r}: expected {' or '.join(MISSING)}")
    refuse_other_widths(collection.traits, {"judgements": judgements})
    collection, phases = Patient(collection), phases or Phases()
    wanted = None if version is None else _wanted(collection, version, state=state)
    seen = _seen(collection, version, state)
    with tempfile.TemporaryDirectory(prefix="nudge-vdb-") as folder:
        with phases("page out", collection.count()) as step:
            keys = locate(collection, list(dict.fromkeys(judgements.rows)))
            given = spelled(judgements if grades else binary(judgements), keys, collection)
            refuse_strangers(given, keys)
            pages = page_out(collection, Path(folder) / "pages", step, budget)
            if wanted is not None:
                place_at(wanted.number, pages, wanted.lineage)
                given = as_sent(given, wanted.matrix)
        judged = present(given, keys, places_of(pages, set(keys.values())))
        with phases("compute"):
            asked = given if missing == "zero" else judged.judgements
            table = _table(collection, pages, asked, measures)
    queries, none_there = len(asked), len(given) - len(judged.judgements)
    scored = (_means(measures, table), queries, len(pages), judged.missing, version)
    unanswered = len(judgements.unanswered)
    found = Evaluation(*scored, unanswered=unanswered, queries_missing=none_there, missing_count=missing)
    if seen is None:
        return found
    known = {name for name, there in zip(judgements.query_ids, seen.has(judgements), strict=True) if there}
    others = np.flatnonzero([name not in known for name in asked.query_ids])
    apart = _means(measures, table[:, others]) if FEWEST_QUERIES <= len(others) < queries else None
    return replace(found, trained=queries - len(others), unseen_scores=apart)


def _means(measures: list[Measure], table: Floats) -> dict[str, float]:
    return {str(measure): float(row.mean()) for measure, row in zip(measures, table, strict=True)}


def _seen(collection: Collection, number: int | None, state: Folder) -> Seen | None:
    """Return the queries that trained a version, the live one where *number* is None; None where no state tells."""
    if number is not None:
        return _seen_by(collection, number, state=state)
    try:
        return _seen_by(collection, None, state=state)
    except (StateConflict, StateDamaged):  # the live vectors can be scored without a state
        return None


@steady
def _seen_by(collection: Collection, number: int | None, *, state: Folder) -> Seen | None:
    home = known_state(collection, state)
    wanted = home.journal.live if number is None else number
    return home.version(wanted).content.seen if wanted else None


@dataclass(frozen=True)
class _Wanted:
    """A version to be scored without being live."""

    number: int
    lineage: Lineage
    matrix: Floats | None
    """(width, width): what searches multiply their queries by, None where they do not."""


@steady
def _wanted(collection: Collection, number: int, *, state: Folder) -> _Wanted:
    home = known_state(collection, state)
    require_own(collection, home)
    matrix = home.version(number).content.query_map if number else None
    return _Wanted(number, Lineage(home, number), matrix)


def _table(collection: Collection, pages: Pages, judgements: Judgements, measures: list[Measure]) -> Floats:
    def texts(places: Ints) -> list[str]:
        return [collection.text_of(key) for key in pages.keys.at(places)]

    def parts() -> Iterator[Part]:
        return ((np.arange(part.start, part.stop), pages.vectors[part]) for part in pages.counted_chunks())

    return scores(judgements, parts, texts, collection.traits.metric, measures, pages.budget)
