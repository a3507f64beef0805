"""A real retrieval set, tuned in every embedded engine that is installed: what nudge-vdb does, in half a minute.

The data are the 1,400 abstracts and 225 queries of the Cranfield collection, as all-MiniLM-L6-v2 vectors in float16,
with its relevance judgements. Payloads are made up.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np

from nudge_vdb.backends import connect, fill, installed
from nudge_vdb.contract import Collection, Fixture, Mask, Metric, Rows, StoredRow
from nudge_vdb.errors import BackendUnavailable
from nudge_vdb.judgements import Judgements
from nudge_vdb.metrics import Measure
from nudge_vdb.options import Choices
from nudge_vdb.paths import local_path
from nudge_vdb.phases import Phases
from nudge_vdb.ranking import score_ranking
from nudge_vdb.run import apply, plan, rollback

ADDRESSES = ("qdrant+local://{}/qdrant/abstracts?vector=text", "milvus+lite://{}/milvus.db/abstracts?vector=text")
MEASURES = (Measure("ndcg", 10), Measure("recall", 10), Measure("mrr", 10))
HIDDEN_SHARE = 0.3
WAYS: dict[str, Choices] = {
    "plain (--cold-share 0)": {"cold_share": 0},
    "weighed (--cold-share 0.5)": {"cold_share": 0.5},
    "carried (--cold-share 0.5 --carry on)": {"cold_share": 0.5, "carry": "on"},
}
"""What can be done about rows that nobody judged."""
SPLITS = {"train": 0, "dev": 1, "test": 2}


def run_demo(folder: Path | None, state: Path | None, phases: Callable[[], Phases]) -> dict[str, Any]:
    """Tune and undo in each embedded engine; return the figures and what was proven.

    *folder* keeps the engines' files, and the state unless *state* does; by default all goes to a temporary folder.

    Raises:
        BackendUnavailable: not one of the engines is installed.
    """
    place = local_path(folder, "--folder").resolve() if folder else _temporary_folder()
    usable = {each["backend"] for each in installed() if each["usable"]}
    addresses = [address.format(place) for address in ADDRESSES if address.partition("+")[0] in usable]
    if not addresses:
        raise BackendUnavailable("the demo needs an engine: install 'nudge-vdb[qdrant]', 'nudge-vdb[milvus]' or both")
    engines = [_show(address, state or place / "state", phases()) for address in addresses]
    with closing(connect(addresses[0])) as collection:
        hidden = hidden_rows(collection, (state or place / "state") / "hidden")
    passed = all(all(engine["proofs"].values()) for engine in engines)
    return {"passed": passed, "engines": engines, "hidden": hidden}


def _temporary_folder() -> Path:
    """Make a folder that goes with the process, after the engines that still write to it have stopped."""
    folder = Path(tempfile.mkdtemp(prefix="nudge-vdb-demo-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _show(address: str, state: Path, phases: Phases) -> dict[str, Any]:
    with phases("fill"):
        fixture = fill(address, cranfield_rows(), Metric.COSINE)
    with closing(fixture):
        return _tune_and_undo(fixture, state, phases)


def _tune_and_undo(fixture: Fixture, state: Path, phases: Phases) -> dict[str, Any]:
    collection, test = fixture.collection, cranfield("test")
    held, before = fixture.read(), searched(collection, test, MEASURES)
    planned = plan(collection, cranfield("train", "dev"), state=state, test=test, phases=phases, cold_share=0)
    applied = apply(planned)
    tuned, after = fixture.read(), searched(collection, test, MEASURES)
    rollback(collection, to=0, state=state, phases=phases)
    undone, tolerance = fixture.read(), collection.traits.tolerance
    moved = planned.report["moved"]
    return {
        "engine": collection.traits.engine,
        "before": before,
        "after": after,
        "warnings": planned.report["warnings"],
        "seconds": phases.seconds,
        "proofs": {
            f"the gain was proven on the training judgements ({planned.report['reason']})": planned.proven,
            f"{moved} of {len(held)} rows were written and read back": applied.written == moved,
            "the engine's own search answers the held-out queries better": after["ndcg@10"] > before["ndcg@10"],
            "every payload and every other vector is what it was": same_beside(held, tuned),
            "after the rollback every vector is back": same_vectors(held, undone, tolerance),
            "after the rollback every payload and every other vector is what it was": same_beside(held, undone),
        },
    }


def hidden_rows(collection: Collection, state: Path) -> list[dict[str, Any]]:
    """Hide the judgements of 30 % of the rows, plan three ways, and score the test queries on both kinds of rows."""
    hidden = np.random.default_rng(0).uniform(size=len(cranfield_rows().ids)) < HIDDEN_SHARE
    known = _of_rows(cranfield("train", "dev"), ~hidden)
    seen, unseen = (_of_rows(cranfield("test"), which) for which in (~hidden, hidden))
    found = []
    for name, choices in WAYS.items():
        told = plan(collection, known, validation=seen, test=unseen, state=state / name, **choices).report
        scores = {kind: {key: told[kind][key] for key in ("before", "after")} for kind in ("validation", "test")}
        found.append({"way": name, "judged": scores["validation"], "hidden": scores["test"], "proven": told["proven"]})
    return found


def _of_rows(judgements: Judgements, which: Mask) -> Judgements:
    """Return the part of *judgements* that names one of *which* rows, a mask by number less 1."""
    kept = {
        place: [row for row, _ in judgements.relevant(place) if which[int(row) - 1]] for place in range(len(judgements))
    }
    places = [place for place, rows in kept.items() if rows]
    names = [judgements.query_ids[place] for place in places]
    return Judgements.from_arrays(judgements.vectors[places], [kept[place] for place in places], names)


def cranfield_rows() -> Rows:
    """Return the 1,400 abstracts, numbered from 1, with payloads and a second vector."""
    with open_data() as arrays:
        vectors = arrays["rows"].astype(np.float32)
    numbers = list(range(1, len(vectors) + 1))
    payloads = [{"title": f"Cranfield abstract {number}", "tags": {"number": number}} for number in numbers]
    others = np.random.default_rng(0).normal(size=(len(vectors), 4)).astype(np.float32)
    return Rows(numbers, vectors, payloads, others)


def cranfield(*splits: str) -> Judgements:
    """Return the judgements of *splits*: train, dev or test."""
    with open_data() as arrays:
        wanted = np.flatnonzero(np.isin(arrays["split"], [SPLITS[split] for split in splits]))
        rows = {query: arrays["qrel_row"][arrays["qrel_query"] == query] + 1 for query in wanted.tolist()}
        vectors = arrays["queries"][wanted].astype(np.float32)
    return Judgements.from_arrays(vectors, [found.tolist() for found in rows.values()], list(map(str, rows)))


def open_data() -> Any:  # noqa: ANN401 - numpy's archive type has no name to import
    """Open the arrays of the set: rows, queries, qrel_query, qrel_row and split."""
    with as_file(files(__package__) / "cranfield.npz") as path:
        return np.load(path, allow_pickle=False)


def searched(collection: Collection, judgements: Judgements, measures: Sequence[Measure]) -> dict[str, float]:
    """Return the mean scores of what the engine's own search answers."""
    hits = collection.search(judgements.vectors, max(measure.k for measure in measures))
    scores = [
        score_ranking([collection.text_of(key) for key in keys], dict(judgements.relevant(place)), measures)
        for place, keys in enumerate(hits)
    ]
    return dict(zip(map(str, measures), np.mean(scores, axis=0).tolist(), strict=True))


def same_beside(left: Mapping[str, StoredRow], right: Mapping[str, StoredRow]) -> bool:
    """Tell whether two readings have the same rows, with the same payloads and other vectors."""
    return left.keys() == right.keys() and all(
        row.payload == right[text].payload and row.others == right[text].others for text, row in left.items()
    )


def same_vectors(left: Mapping[str, StoredRow], right: Mapping[str, StoredRow], tolerance: float) -> bool:
    """Tell whether two readings hold the same vectors, within *tolerance* per component."""
    return all(
        np.allclose(np.asarray(row.vector), np.asarray(right[text].vector), rtol=0, atol=tolerance)
        for text, row in left.items()
    )
