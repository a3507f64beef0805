"""Scoring a live collection as it is."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nudge_vdb.budget import USUAL, budget_of
from nudge_vdb.contract import Collection
from nudge_vdb.ground import places_of
from nudge_vdb.judgements import Judgements, binary
from nudge_vdb.matching import locate, present, refuse_other_widths, refuse_strangers, spelled
from nudge_vdb.metrics import Measure, parse_measure
from nudge_vdb.nudge import Floats, Ints
from nudge_vdb.pages import Pages, page_out
from nudge_vdb.phases import Phases
from nudge_vdb.ranking import scores
from nudge_vdb.retry import Patient
from nudge_vdb.rivals import Part


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


def evaluate(
    collection: Collection,
    judgements: Judgements,
    *,
    metric: str = "ndcg@10",
    grades: bool = False,
    memory: int = USUAL,
    phases: Phases | None = None,
) -> Evaluation:
    """Score every query of *judgements* against every row of *collection*, exactly, as the vectors are now.

    *metric* may name several, separated by commas. Equal scores are ordered by row id, descending, as trec_eval does.
    No more than *memory* bytes are held at once, besides the judgements.

    Raises:
        BadInput: the judgements, the metric or *memory* cannot be used.
        EngineError: the engine cannot be reached, or refuses.
    """
    budget, measures = budget_of(memory), [parse_measure(name) for name in metric.split(",")]
    refuse_other_widths(collection.traits, {"judgements": judgements})
    collection, phases = Patient(collection), phases or Phases()
    with tempfile.TemporaryDirectory(prefix="nudge-vdb-") as folder:
        with phases("page out", collection.count()) as step:
            keys = locate(collection, list(dict.fromkeys(judgements.rows)))
            given = spelled(judgements if grades else binary(judgements), keys, collection)
            refuse_strangers(given, keys)
            pages = page_out(collection, Path(folder) / "pages", step, budget)
        judged = present(given, keys, places_of(pages, set(keys.values())))
        with phases("compute"):
            table = _table(collection, pages, judged.judgements, measures)
    means = {str(measure): float(row.mean()) for measure, row in zip(measures, table, strict=True)}
    return Evaluation(means, len(judged.judgements), len(pages), judged.missing)


def _table(collection: Collection, pages: Pages, judgements: Judgements, measures: list[Measure]) -> Floats:
    def texts(places: Ints) -> list[str]:
        return [collection.text_of(key) for key in pages.keys.at(places)]

    def parts() -> Iterator[Part]:
        return ((np.arange(part.start, part.stop), pages.vectors[part]) for part in pages.counted_chunks())

    return scores(judgements, parts, texts, collection.traits.metric, measures, pages.budget)
