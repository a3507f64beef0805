"""Rows that nobody judged: what a plan does to them is measured, weighed and, if it is too much, stopped."""

import numpy as np
import pytest

import nudge_vdb
from nudge_vdb.judgements import Judgements


def planned(world, folder, **choices):
    return nudge_vdb.plan(world.collection, world.train, state=folder, **choices).report


def crowded(worlds):
    """A world in which what lifts the judged rows sinks the others."""
    return worlds(apart=1.0)


def test_no_share_of_cold_rows_is_the_paper(world, tmp_path):
    told = planned(world, tmp_path, cold_share=0)
    for figure in ("before", "after", "gain", "gain_low", "gain_high"):
        assert told[figure] == told[f"warm_{figure}"]


def test_what_is_proven_is_the_mix(world, tmp_path):
    told = planned(world, tmp_path, cold_share=0.4)
    for figure in ("before", "after", "gain"):
        assert told[figure] == pytest.approx(0.6 * told[f"warm_{figure}"] + 0.4 * told[f"cold_{figure}"])


def test_the_larger_the_share_of_cold_rows_the_less_they_lose(worlds, tmp_path):
    world = crowded(worlds)
    losses = [-planned(world, tmp_path / str(share), cold_share=share)["cold_gain"] for share in (0, 0.3, 0.6, 1)]
    assert losses[0] > losses[-1] + 0.02
    assert (np.diff(losses) <= 1e-9).all()


def test_the_share_and_its_reason_are_told(world, tmp_path):
    assert planned(world, tmp_path)["cold_share"] == 0.3
    told = planned(world, tmp_path, cold_share=0.5)
    assert (told["cold_share"], told["cold_share_reason"]) == (0.5, "asked for")


def test_where_every_row_is_judged_none_is_cold(world, tmp_path):
    world.fixture.delete([f"row {number:03}" for number in range(80, 200)])
    told = planned(world, tmp_path)
    assert (told["cold_share"], told["cold_share_reason"]) == (0, "every row in scope is judged")


def test_a_plan_that_takes_too_much_from_cold_rows_is_stopped_and_says_what_would_pass(worlds, tmp_path):
    world = crowded(worlds)
    told = planned(world, tmp_path, cold_share=0, max_cold_loss=0.1)
    assert not told["proven"]
    assert "0.1 is the most allowed" in told["reason"]
    options = [each["option"] for each in told["alternatives"]]
    assert {option.split()[0] for option in options} >= {"--step", "--cold-share"}
    for each in told["alternatives"]:
        name, value = each["option"].removeprefix("--").replace("-", "_").split()
        again = planned(world, tmp_path / name, **{"cold_share": 0, name: float(value)}, max_cold_loss=0.1)
        assert again["proven"]
        assert again["cold_gain"] >= -0.1


def test_the_history_tells_both_scores(world, tmp_path):
    told = planned(world, tmp_path)
    kept = nudge_vdb.history(world.collection, state=tmp_path)[0]
    assert all(kept[name] == told[name] for name in ("warm_after", "cold_after", "cold_share"))


def test_the_cold_score_foretells_what_becomes_of_rows_whose_judgements_are_held_back(worlds, tmp_path):
    """Over 10 worlds: rows 60 … 79 are judged, and nobody says so."""
    foretold, real = [], []
    for seed in range(10):
        world = worlds(seed=seed, apart=1.0)
        known, held = parted(world.train, 60)
        plan = nudge_vdb.plan(world.collection, known, state=tmp_path / str(seed), cold_share=0, step=0.4)
        before = nudge_vdb.evaluate(world.collection, held).scores["ndcg@10"]
        nudge_vdb.apply(plan, force=True)
        real.append(nudge_vdb.evaluate(world.collection, held).scores["ndcg@10"] - before)
        foretold.append(plan.report["cold_gain"])
    assert np.mean(real) < -0.03
    assert np.mean(foretold) == pytest.approx(np.mean(real), abs=0.03)


def parted(judgements, number):
    """Part *judgements* into those of the rows before *number* and those of the others."""
    before = np.array([int(row.removeprefix("row ")) < number for row in judgements.rows])
    return tuple(
        Judgements.from_arrays(judgements.vectors[which], [[judgements.rows[place]] for place in np.flatnonzero(which)])
        for which in (before, ~before)
    )
