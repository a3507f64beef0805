"""Which queries a version was trained on."""

from dataclasses import replace

import numpy as np
import pytest

import nudge_vdb
from nudge_vdb.judgements import Judgements
from nudge_vdb.nudge import unit
from nudge_vdb.seen import Seen

WIDTH = 384


def queries(count, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)
    return Judgements.from_arrays(vectors, [["row"]] * count)


def again(judgements, how):
    """The same texts, embedded again."""
    vectors = judgements.vectors
    noise = np.random.default_rng(1).normal(size=vectors.shape) * np.linalg.norm(vectors, axis=1, keepdims=True)
    ways = {
        "the same": vectors,
        "longer": 3 * vectors,
        "in half precision": unit(vectors)[0].astype(np.float16),
        "in bfloat16": vectors + noise * 2**-9 / np.sqrt(WIDTH),
        "in another batch": vectors + noise * 1e-6 / np.sqrt(WIDTH),
    }
    return replace(judgements, vectors=ways[how].astype(np.float32))


@pytest.mark.parametrize("how", ["the same", "longer", "in half precision", "in bfloat16", "in another batch"])
def test_a_query_that_was_embedded_again_is_the_query_that_trained(how):
    trained = queries(3000)
    assert Seen.of(trained).has(again(trained, how)).all()


def test_a_query_that_says_something_else_is_another():
    trained = queries(3000)
    near = unit(trained.vectors + 0.2 * queries(3000, seed=2).vectors)[0]
    assert not Seen.of(trained).has(replace(trained, vectors=near.astype(np.float32))).any()
    mixed = replace(trained, vectors=np.concatenate([near[:1500].astype(np.float32), trained.vectors[1500:]]))
    assert Seen.of(trained).has(mixed).tolist() == [False] * 1500 + [True] * 1500


def test_a_version_of_early_days_tells_copies_that_are_rounded_alike():
    trained = queries(100)
    early = replace(Seen.of(trained), units=None)
    assert early.has(again(trained, "longer")).all()
    assert not early.has(queries(100, seed=3)).any()


def test_queries_that_trained_and_were_embedded_again_count_neither_for_nor_against_what_is_live(worlds, tmp_path):
    world = worlds()
    nudge_vdb.apply(nudge_vdb.plan(world.collection, world.train, state=tmp_path), force=True)
    told = nudge_vdb.plan(world.collection, again(world.train, "in half precision"), state=tmp_path).report
    assert told["against_live"] == {"version": 1, "queries": 0}
