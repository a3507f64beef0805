"""A crowd of rows in clusters, few of them asked for, so that a search leaves most of them where they are."""

from dataclasses import dataclass

import numpy as np

import nudge_vdb
from nudge_vdb.contract import Rows
from nudge_vdb.judgements import Judgements
from nudge_vdb.nudge import unit

ROWS, WIDTH, CLUSTERS = 1200, 12, 24
ASKED, QUERIES_EACH = 10, 4
TWINS = 30
"""So many rows hold the vector of another."""
NOT_THE_SAME = {
    *("rivals", "rivals_reason", "rivals_recall", "rows_read", "rows", "rows_without_vector", "rows_not_finite"),
    *("seconds", "created", "minutes", "minutes_by", "digest", "state_warnings", "advice"),
}
"""What a report says of how rivals were found, and of when."""


@dataclass(frozen=True)
class Crowd:
    """Rows, and judgements that are worth something."""

    rows: Rows
    train: Judgements
    fewer: Judgements
    test: Judgements


def make_crowd(seed: int = 0, gaps: bool = False) -> Crowd:
    """Return rows of several lengths in clusters, some of them twice; with *gaps*, some hold no vector."""
    rng = np.random.default_rng(seed)
    centres = 1.5 * rng.normal(size=(CLUSTERS, WIDTH))
    vectors = centres[rng.integers(0, CLUSTERS, ROWS)] + rng.normal(size=(ROWS, WIDTH))
    vectors = unit(vectors)[0] * rng.uniform(0.8, 1.25, (ROWS, 1))
    vectors[ASKED : ASKED + TWINS] = vectors[np.arange(TWINS) % ASKED]
    asked = np.repeat(np.arange(ASKED), QUERIES_EACH)
    shift = 0.9 * rng.normal(size=(ASKED, WIDTH)) / np.sqrt(WIDTH)
    queries = vectors[asked] + shift[asked] + 0.6 * rng.normal(size=(len(asked), WIDTH)) / np.sqrt(WIDTH)
    vectors = vectors.astype(np.float32)
    if gaps:
        vectors[-50:] = np.nan
    ids = list(range(1, ROWS + 1))
    payloads = [{"team": ("a", "b")[number % 2], "number": number} for number in range(ROWS)]

    def judged(places) -> Judgements:
        relevant = [[str(ids[asked[place]]), str(ids[ASKED + asked[place]])] for place in places]
        return Judgements.from_arrays(queries[places], relevant, [f"q{place}" for place in places])

    places = np.arange(len(asked))
    held_out = places % QUERIES_EACH == 0
    return Crowd(
        Rows(ids, vectors, payloads), judged(places[~held_out]), judged(places[10:30]), judged(places[held_out])
    )


def planned(collection, crowd_judgements, state, **choices):
    """Plan with a small cutoff, so that few rows are needed of each query."""
    return nudge_vdb.plan(collection, crowd_judgements, state=state, **{"metric": "ndcg@3", **choices})


def figures(plan) -> dict[str, object]:
    """Return all that a plan says, but for what must differ between ways of finding rivals."""
    return {name: value for name, value in plan.report.items() if name not in NOT_THE_SAME}


def arrays(plan) -> list[object]:
    """Return what the version of *plan* holds, bit for bit."""
    return [np.asarray(each).tobytes() for each in plan.version.content.arrays().values()]
