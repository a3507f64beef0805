"""The query-side form of a version that carries: a matrix for the queries, and only the judged rows written.

A carried row v + x·(v, 1)·W meets a query q as v meets q + x·W₁·q, W₁ being W without its constant b, which adds the
same x·b·q to the score of every carried row. So instead of writing every row, the application may multiply its queries
by M = 1 + x·W₁, and a judged row is stored so that M·q meets it as q meets its tuned vector v': v″ = (n·v' − x·b)·M⁻¹,
n being the mean length of the carried rows before they are scaled back to theirs.

What is lost: a multiplied query meets each row as if that row had been carried and not scaled back; and an engine that
scales vectors on arrival takes from judged rows the length that M⁻¹ gave them. Both change ranks, so the form has a
score of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np

from nudge_vdb.budget import USUAL
from nudge_vdb.contract import Collection, Mask, Metric, RowKey, Traits, Vectors, as_stored
from nudge_vdb.durable import put_array
from nudge_vdb.errors import BadOption, UnfitCollection
from nudge_vdb.given import require_judgements, taking_addresses
from nudge_vdb.ground import Ground, settle
from nudge_vdb.judgements import Judgements, binary
from nudge_vdb.keys import KeyTable
from nudge_vdb.lineage import Lineage
from nudge_vdb.live import as_sent
from nudge_vdb.matching import locate, present, spelled
from nudge_vdb.merging import merged
from nudge_vdb.notes import require_own
from nudge_vdb.nudge import Floats, unit
from nudge_vdb.options import Options
from nudge_vdb.pages import forget, page_out
from nudge_vdb.paths import local_path
from nudge_vdb.phases import Phases
from nudge_vdb.placing import carried
from nudge_vdb.ranking import scores
from nudge_vdb.report import INTERNAL, now
from nudge_vdb.retry import Patient
from nudge_vdb.ridge import Map
from nudge_vdb.rivals import Part
from nudge_vdb.run import Plan, as_plan
from nudge_vdb.selection import FEWEST_QUERIES, prove
from nudge_vdb.snapshot import Content, Version
from nudge_vdb.standing import Folder, known_state
from nudge_vdb.state import State
from nudge_vdb.verify import refuse_another_model

WORST_CONDITION = 1e4
"""A matrix that stretches one direction so many times more than another cannot be undone in float32."""
SAME = 1e-5
"""A row this near to where the map carries it was carried."""
ROWS_AT_ONCE = 4096
NOT_OF_THE_FORM = (
    *(*INTERNAL, "version", "warm_", "cold_", "minutes", "snapshot_bytes", "newly_", "test", "validation"),
    *("queries", "scored_queries", "rivals", "rows_read", "carry_reason", "cold_share_reason"),
)
"""Beginnings of the names of figures that do not hold for the form."""
TERMS = ("metric", "grades", "min_gain", "confidence")
"""What a version is proven by."""
BEWARE = "searches must send M·q instead of q while this version is live, and q again when it no longer is"


@taking_addresses
def export_map(
    collection: Collection,
    path: str | Path,
    *,
    version: int,
    test: Judgements | None = None,
    min_gain: float | None = None,
    confidence: float | None = None,
    memory: int = USUAL,
    state: Folder = None,
    phases: Phases | None = None,
) -> Plan:
    """Write the matrix M (width, width) of a carrying *version* to *path*, and prepare the version that goes with it.

    That version holds the judged rows alone. Its gain is measured on *test*, with M applied to the queries that
    *version* was not trained on; without 20 of those it is not proven, and only force applies it. Metric and grades are
    those of *version*, and so are *min_gain* and *confidence* where they are not given. To measure, no more than
    *memory* bytes are held at once, besides the judgements.

    Raises:
        BadOption: the version carries nothing, the collection compares by distance, *memory* is too little, or *path*
            is taken or cannot be written; the last is looked at before anything else.
        StateConflict: most rows of *version* were embedded again by another model.
        UnfitCollection: M cannot be inverted well enough.
    """
    require_judgements(test=test)
    out = _free_place(local_path(path, "the file to write"))
    home, phases = known_state(collection, state), phases or Phases()
    if collection.traits.metric is Metric.EUCLID:
        raise BadOption(
            f"{collection.traits.identity} compares by distance, which no matrix on the query side imitates"
        )
    with home.locked():
        require_own(Patient(collection), home)
        form = Form.of(home.version(version), collection.traits)
        refuse_another_model(version, Patient(collection), home)
        terms = _terms(form.version, min_gain, confidence, memory)
        kept = _prepared(Patient(collection, after_reading=home.require_hold), home, form, test, terms, phases)
        forget(home.pages)
    _write(out, form.matrix, kept)
    return as_plan(collection, home, kept, phases)


def _free_place(path: Path) -> Path:
    """Return *path*, where a file can be made and none is.

    Raises:
        BadOption: there is something, or nothing can be written there.
    """
    if path.exists():
        raise BadOption(f"{path} is there already, and searches may be using it; name another file, or move it away")
    try:
        with NamedTemporaryFile(dir=path.parent):
            return path
    except OSError as exc:
        raise BadOption(f"no file can be made in {path.parent}: {exc}; name another place") from exc


def _write(path: Path, matrix: Floats, kept: Version) -> None:
    try:
        put_array(path, matrix)
    except OSError as exc:
        copy = kept.folder / "query_map.npy"
        raise BadOption(
            f"{path} could not be written: {exc}; the matrix of version {kept.number} is in {copy}"
        ) from exc


@dataclass(frozen=True)
class Form:
    """The query-side form of a version."""

    version: Version
    matrix: Floats
    """M, (width, width): the application sends M @ q."""
    judged: list[int]
    """Places of the version's rows that were not carried."""
    tuned: Vectors
    """(judged, width): v″"""

    @classmethod
    def of(cls, version: Version, traits: Traits) -> Form:
        """Work out the form of *version*."""
        content, manifest = version.content, version.manifest
        if content.map is None:
            raise BadOption(f"version {version.number} carries no unjudged rows; plan one with --carry on")
        mapped, reach = Map(np.asarray(content.map)), float(manifest["reach"])
        matrix = np.eye(content.map.shape[1]) + reach * mapped.matrix[:-1]
        if np.linalg.cond(matrix) > WORST_CONDITION:
            raise UnfitCollection(f"the map of version {version.number} cannot be inverted; carry the rows instead")
        parts = [_apart(content, mapped, reach, part, traits) for part in _slices(len(content.keys))]
        judged = np.concatenate([places for places, _ in parts])
        carried_lengths = np.concatenate([np.ones(0), *(lengths for _, lengths in parts)])
        length = float(carried_lengths.mean()) if len(carried_lengths) else 1.0
        units, lengths = unit(content.tuned[judged])
        asked = (length * units.astype(np.float64) - reach * mapped.matrix[-1]) @ np.linalg.inv(matrix)
        tuned = unit(asked)[0] if traits.rescales else asked * lengths[:, None]
        return cls(version, matrix, judged.tolist(), as_stored(tuned.astype(np.float32), traits))

    def content(self) -> Content:
        """Return the judged rows."""
        whole, keys = self.version.content, self.version.content.keys.at(self.judged)
        base = np.asarray(whole.base[self.judged])
        away = None if whole.away is None else np.flatnonzero(np.isin(self.judged, whole.away))
        return Content(KeyTable.of(keys), base, self.tuned, whole.seen, query_map=self.matrix, away=away)


def _slices(rows: int) -> Iterator[slice]:
    return (slice(first, min(first + ROWS_AT_ONCE, rows)) for first in range(0, rows, ROWS_AT_ONCE))


def _apart(content: Content, mapped: Map, reach: float, part: slice, traits: Traits) -> tuple[Any, Floats]:
    """Return the places of a slice's rows that were not carried, and the lengths of the others before scaling."""
    base = np.array(content.base[part])
    _, turned = carried(base, mapped, reach, traits)
    theirs: Mask = np.abs(turned - content.tuned[part]).max(axis=1) <= SAME * np.abs(turned).max(axis=1)
    units, _ = unit(base[theirs])
    return part.start + np.flatnonzero(~theirs), np.linalg.norm(units + reach * mapped.directions(units), axis=1)


def _terms(version: Version, min_gain: float | None, confidence: float | None, memory: int) -> Options:
    """Return what *version* was proven by, as far as it says, with what is asked for instead."""
    known: dict[str, Any] = {name: version.manifest[name] for name in TERMS if name in version.manifest}
    asked = {"min_gain": min_gain, "confidence": confidence}
    return Options(**known | {name: value for name, value in asked.items() if value is not None}, memory=memory)


def _prepared(
    collection: Collection, home: State, form: Form, test: Judgements | None, terms: Options, phases: Phases
) -> Version:
    content, live = form.content(), home.journal.live
    facts = {name: value for name, value in form.version.facts().items() if not name.startswith(NOT_OF_THE_FORM)}
    figures = _not_measured("no test judgements were given")
    if test is not None:
        figures |= _measured(collection, home, form, test, terms, phases)
    with phases("snapshot"):
        return home.add_version(
            content,
            {
                **facts,
                **figures,
                **{name: getattr(terms, name) for name in TERMS},
                "created": now(),
                "parent": live,
                "query_side_of": form.version.number,
                "moved": len(content.keys),
                "carried": 0,
                "rows_to_write": len(content.keys),
                "alternatives": [],
                "warnings": [BEWARE],
            },
        )


def _not_measured(why: str) -> dict[str, Any]:
    nothing = dict.fromkeys(("before", "after", "gain", "gain_low", "gain_high"), 0.0)
    reason = f"the query-side form was not measured: {why}"
    return {**nothing, "queries": 0, "scored_queries": 0, "proven": False, "reason": reason}


def _measured(
    collection: Collection, home: State, form: Form, test: Judgements, terms: Options, phases: Phases
) -> dict[str, Any]:
    """Return the figures of the form on the queries of *test* that the version was not trained on."""
    with phases("page out", collection.count()) as step:
        keys = locate(collection, list(dict.fromkeys(test.rows)))
        pages = page_out(collection, home.pages, step, terms.budget)
    with phases("compute"):
        ground = settle(collection, pages, Lineage(home), [*keys.values(), *form.content().keys], home.journal.live)
        graded = test if terms.grades else binary(test)
        judged = present(merged(spelled(graded, keys, collection)), keys, ground.place).judgements
        unseen = ~form.version.content.seen.has(judged)
        if unseen.sum() < FEWEST_QUERIES:
            return _not_measured(f"{unseen.sum()} test queries did not train, and {FEWEST_QUERIES} are needed")
        multiplied = as_sent(judged, form.matrix)
        metric, rule = home.traits.metric, [terms.measure]
        base = partial(ground.parts_without, np.empty(0, np.int64))
        ways = ((judged, base), (multiplied, partial(_stored, ground, form)))
        before, after = (scores(*way, ground.texts, metric, rule, pages.budget)[0] for way in ways)
    found = prove(np.stack([before, after])[:, unseen], terms.confidence, terms.min_gain, terms.seed, first=1)
    measured = f"measured on {unseen.sum()} test queries that did not train, M applied to them"
    counts = {"queries": len(judged), "scored_queries": int(unseen.sum())}
    return {**asdict(found), **counts, "reason": f"{measured}: {found.reason}"}


def _stored(ground: Ground, form: Form) -> Iterator[Part]:
    """Stream all rows as they would be stored."""
    placed: dict[RowKey, int] = {key: place for place, key in enumerate(form.content().keys)}
    at = {ground.place[key]: place for key, place in placed.items() if key in ground.place}
    rows = np.array(sorted(at), np.int64)
    for places, vectors in ground.parts_without(np.empty(0, np.int64)):
        own = np.flatnonzero(np.isin(places, rows))
        stored = np.array(vectors)
        stored[own] = form.tuned[[at[int(place)] for place in places[own]]]
        yield places, stored
