"""Rows that nobody judged: what a plan does to them is measured, weighed and, if it is too much, stopped."""

import numpy as np
import pytest

import nudge_vdb
from benchmarks.sets import content
from nudge_vdb.contract import Metric, StoredRow
from nudge_vdb.errors import BadOption
from nudge_vdb.judgements import Judgements
from nudge_vdb.ridge import Fit
from nudge_vdb.testing import MemoryCollection


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


def test_the_default_share_grows_with_the_unjudged_rows_and_no_row_makes_it_jump(world, tmp_path):
    shares, before = [], 200
    for left in (200, 115, 114, 100, 82, 81, 80):
        world.fixture.delete([f"row {number:03}" for number in range(left, before)])
        shares.append(planned(world, tmp_path / str(left), step=0.1)["cold_share"])
        before = left
    assert shares == pytest.approx([0.3, 0.3, 34 / 114, 0.2, 2 / 82, 1 / 81, 0], abs=1e-4)


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
    require_kept(told["alternatives"], world, tmp_path, cold_share=0, max_cold_loss=0.1)


def require_kept(alternatives, world, folder, **choices):
    """Require that every plan that would pass, made as it is named, does, with the figures that were told."""
    for number, each in enumerate(alternatives):
        words = each["option"].removeprefix("--").replace("-", "_").split()
        named = {name.strip("_"): value for name, value in zip(words[::2], words[1::2], strict=True)}
        given = {name: value if name == "carry" else float(value) for name, value in named.items()}
        again = planned(world, folder / str(number), **{**choices, **given})
        assert again["proven"], each["option"]
        assert [again[name] for name in ("warm_gain", "cold_gain")] == pytest.approx(
            [each[name] for name in ("warm_gain", "cold_gain")], abs=1e-6
        )


@pytest.mark.parametrize("carry", ["on", "auto"])
@pytest.mark.parametrize("seed", range(4))
def test_what_would_pass_instead_of_a_carrying_plan_passes(carry, seed, worlds, tmp_path):
    """Of few queries, so that much is not proven."""
    world = worlds(seed=seed, apart=1.0)
    some = np.random.default_rng(seed).choice(len(world.train), 60, replace=False)
    texts = [world.train.rows[place] for place in some]
    world.train = Judgements.from_arrays(world.train.vectors[some], [[text] for text in texts])
    choices = {"carry": carry, "cold_share": 0.7, "max_cold_loss": 0.02}
    told = planned(world, tmp_path, **choices)
    require_kept(told["alternatives"], world, tmp_path, **choices)


def test_at_a_cold_share_of_nothing_carrying_with_a_share_is_told_of(worlds, tmp_path):
    world = worlds(apart=2.0)
    told = planned(world, tmp_path, cold_share=0, max_cold_loss=0.05)
    assert not told["proven"]
    assert any(each["option"].startswith("--carry on") for each in told["alternatives"])
    require_kept(told["alternatives"], world, tmp_path, cold_share=0, max_cold_loss=0.05)


@pytest.mark.parametrize("carry", ["off", "on"])
def test_a_step_that_was_given_is_judged_as_it_is_however_bad(carry, tmp_path):
    """Where rows lie where their queries are there is nothing to gain, and much to lose by going too far."""
    data = content(0)
    plan = nudge_vdb.plan(data.fixture().collection, data.judgements("train"), state=tmp_path, step=1.5, carry=carry)
    told = plan.report
    assert not told["proven"]
    assert told["gain"] < -0.05
    assert told["gain_high"] < 0


def test_where_nobody_can_lose_no_loss_stops_a_plan_or_is_warned_of(worlds, tmp_path):
    world = crowded(worlds)
    judged = set(world.train.rows)
    world.fixture.delete([text for text in world.fixture.read() if text not in judged])
    told = planned(world, tmp_path, max_cold_loss=0.0)
    assert told["proven"]
    assert not told["cold_rows"]
    assert not any("nobody judged" in warning for warning in told["warnings"])


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


def carried(world, folder, **choices):
    plan = nudge_vdb.plan(world.collection, world.train, state=folder, carry="on", test=world.test, **choices)
    return plan, nudge_vdb.apply(plan)


@pytest.mark.parametrize("metric", list(Metric))
def test_carrying_moves_every_row_keeps_its_length_and_can_be_undone(worlds, metric, tmp_path):
    world = worlds(metric, apart=1.0)
    before = world.fixture.read()
    plan, applied = carried(world, tmp_path)
    assert plan.proven
    assert (plan.report["moved"], plan.report["carried"], applied.written) == (200, 120, 200)
    after = world.fixture.read()
    for text, row in before.items():
        assert np.linalg.norm(after[text].vector) == pytest.approx(np.linalg.norm(row.vector), rel=1e-5)
        assert (after[text].payload, after[text].others) == (row.payload, row.others)
        assert (after[text].vector != row.vector).any()
    assert nudge_vdb.verify(world.collection, state=tmp_path).tuned == 200
    nudge_vdb.rollback(world.collection, to=0, state=tmp_path)
    tolerance = world.collection.traits.tolerance
    for text, row in world.fixture.read().items():
        np.testing.assert_allclose(row.vector, before[text].vector, rtol=0, atol=tolerance)


@pytest.mark.parametrize("metric", list(Metric))
def test_what_a_carrying_plan_foretells_is_what_evaluate_measures_afterwards(worlds, metric, tmp_path):
    world = worlds(metric, apart=1.0)
    before = nudge_vdb.evaluate(world.collection, world.test).scores["ndcg@10"]
    plan, _ = carried(world, tmp_path)
    assert plan.report["test"]["before"] == pytest.approx(before, abs=1e-9)
    after = nudge_vdb.evaluate(world.collection, world.test).scores["ndcg@10"]
    assert plan.report["test"]["after"] == pytest.approx(after, abs=1e-9)


def test_carrying_saves_cold_rows_what_the_others_would_cost_them(worlds, tmp_path):
    world = crowded(worlds)
    plain, carrying = (planned(world, tmp_path / way, cold_share=0.3, carry=way) for way in ("off", "on"))
    assert carrying["cold_gain"] > plain["cold_gain"] + 0.05
    assert carrying["gain"] > plain["gain"]


def test_the_score_of_carried_cold_rows_is_what_becomes_of_rows_whose_judgements_are_held_back(worlds, tmp_path):
    foretold, real = [], []
    for seed in range(10):
        world = worlds(seed=seed, apart=1.0)
        known, held = parted(world.train, 60)
        plan = nudge_vdb.plan(world.collection, known, state=tmp_path / str(seed), carry="on")
        before = nudge_vdb.evaluate(world.collection, held).scores["ndcg@10"]
        nudge_vdb.apply(plan)
        real.append(nudge_vdb.evaluate(world.collection, held).scores["ndcg@10"] - before)
        foretold.append(plan.report["cold_gain"])
    assert np.mean(foretold) == pytest.approx(np.mean(real), abs=0.03)


def test_tuning_again_after_carrying_starts_from_the_base(worlds, tmp_path):
    again, fresh = worlds(Metric.DOT, apart=1.0), worlds(Metric.DOT, apart=1.0)
    carried(again, tmp_path / "again", step=0.2)
    carried(again, tmp_path / "again", step=0.4)
    carried(fresh, tmp_path / "fresh", step=0.4)
    for text, row in again.fixture.read().items():
        np.testing.assert_array_equal(row.vector, fresh.fixture.read()[text].vector)


def test_tuning_without_carrying_brings_carried_rows_back(worlds, tmp_path):
    world = crowded(worlds)
    before = world.vectors()
    carried(world, tmp_path)
    nudge_vdb.apply(nudge_vdb.plan(world.collection, world.train, state=tmp_path))
    for text in set(before) - set(world.train.rows):
        np.testing.assert_allclose(world.vectors()[text], before[text], atol=1e-6)


def test_auto_carries_where_that_is_proven_and_not_too_many_rows_are_written(worlds, tmp_path):
    world = crowded(worlds)
    assert planned(world, tmp_path / "any", carry="auto")["carried"] == 120
    told = planned(world, tmp_path / "few", carry="auto", max_rows=199)
    assert told["carried"] == 0
    assert "--max-rows 199" in told["carry_reason"]


def test_auto_leaves_cold_rows_alone_where_carrying_is_not_proven(world, tmp_path):
    told = planned(world, tmp_path, carry="auto", cold_share=0)
    assert (told["carried"], told["carry"]) == (0, "off")
    assert "not proven" in told["carry_reason"]


def test_a_plan_that_was_stopped_says_that_carrying_would_pass(worlds, tmp_path):
    world = worlds(apart=2.0)
    told = planned(world, tmp_path, cold_share=0.8)
    assert not told["proven"]
    assert "--carry on" in [each["option"] for each in told["alternatives"]]
    assert planned(world, tmp_path / "carried", cold_share=0.8, carry="on")["proven"]


def test_rows_that_cannot_be_carried_stay_as_they_are(worlds, tmp_path):
    world = worlds(Metric.DOT, apart=1.0)
    world.collection.rows["row 199"].vector[:] = 0
    world.collection.rows["row 198"].vector[3] = np.nan
    world.collection.rows["row 197"].vector[3] = 9e19
    plan, applied = carried(world, tmp_path)
    assert (plan.report["carried"], applied.written) == (117, 197)
    assert not world.vectors()["row 199"].any()


def test_few_judgements_prove_nothing_however_many_rows_they_would_carry(worlds, tmp_path):
    world = crowded(worlds)
    few, _ = parted(world.train, 4)
    told = nudge_vdb.plan(world.collection, few, state=tmp_path, carry="on").report
    assert not told["proven"]


@pytest.mark.parametrize(
    ("choice", "word"),
    [
        ({"carry": "some"}, "off, on or auto"),
        ({"carry": "on", "method": "nudge-m"}, "needs method nudge-n"),
        ({"cold_share": 1.5}, "0 to 1"),
        ({"max_cold_loss": -0.1}, "0 to 1"),
        ({"max_rows": -1, "carry": "auto"}, "0 and above"),
        ({"max_rows": 9, "carry": "on"}, "give --carry auto"),
        ({"max_rows": 9}, "give --carry auto"),
    ],
)
def test_options_of_carrying_outside_their_range_are_refused(world, tmp_path, choice, word):
    with pytest.raises(BadOption, match=word):
        planned(world, tmp_path, **choice)


@pytest.fixture
def wide():
    """Rows and queries of so many components, drawn at random, so that nothing is proven."""

    def make(width, answers):
        rng = np.random.default_rng(0)
        rows = {
            str(place): StoredRow(row.astype(np.float32), {}, {})
            for place, row in enumerate(rng.normal(size=(300, width)))
        }
        queries = rng.normal(size=(answers, width))
        return MemoryCollection(Metric.COSINE, width, rows=rows), Judgements.from_arrays(
            queries, [[str(place)] for place in range(answers)]
        )

    return make


@pytest.mark.parametrize(
    ("width", "memory", "said"),
    [(1024, 64, "would hold about"), (1024, 1024, "take longer than the plan"), (64, 64, None)],
)
def test_advice_that_would_cost_more_than_the_plan_is_left_out_and_that_is_said(
    width, memory, said, wide, tmp_path, monkeypatch
):
    fitted = []
    fit_of = Fit.of
    monkeypatch.setattr(Fit, "of", lambda *given: fitted.append(1) or fit_of(*given))
    collection, judgements = wide(width, 60)
    told = nudge_vdb.plan(collection, judgements, state=tmp_path, memory=memory << 20).report
    assert not told["proven"]
    assert bool(fitted) == (said is None)
    assert (told["alternatives_left_out"] or "").find(said or "") >= 0
    assert (told["alternatives_left_out"] is None) == (said is None)


def test_carrying_is_left_where_it_would_hold_more_than_the_budget_and_that_is_said(wide, tmp_path):
    collection, judgements = wide(800, 30)
    told = nudge_vdb.plan(collection, judgements, state=tmp_path, memory=64 << 20, carry="auto", max_queries=20).report
    assert told["carry"] == "off"
    assert "--memory is 64 MB" in told["carry_reason"]
