"""The choice of a step and its proof."""

import numpy as np
import pytest

from nudge_vdb.selection import FEWEST_QUERIES, choose, cross_fitted, interval, prove


def noise(queries: int, steps: int = 20, seed: int = 0):
    """Scores that no step changes in truth."""
    return np.random.default_rng(seed).uniform(size=(steps, queries))


def test_the_best_mean_is_chosen_and_ties_go_to_the_smaller_step():
    table = np.array([[0.1, 0.2], [0.5, 0.3], [0.3, 0.5], [0.0, 0.0]])
    assert choose(table) == 1


def test_a_tie_that_only_rounding_breaks_goes_to_the_smaller_step():
    assert choose(np.array([[0.3, 0.3], [0.1 + 0.2, 0.3]])) == 0


def test_a_query_is_never_scored_at_a_step_that_it_chose_itself():
    """One query alone likes step 2; on the others every step is the same, so without it step 0 is chosen."""
    table = np.zeros((3, 50))
    table[2, 7] = 1.0
    assert cross_fitted(table, seed=0)[7] == 0
    assert table[choose(table), 7] == 1


def test_one_split_is_a_lottery_and_many_are_less_of_one(monkeypatch):
    many = np.std([cross_fitted(noise(40), seed).mean() for seed in range(40)])
    monkeypatch.setattr("nudge_vdb.selection.SPLITS", 1)
    one = np.std([cross_fitted(noise(40), seed).mean() for seed in range(40)])
    assert many < 0.5 * one


def test_cross_fitting_keeps_a_gain_that_all_queries_share():
    table = np.stack([np.full(40, 0.3), np.full(40, 0.6), np.full(40, 0.5)])
    np.testing.assert_allclose(cross_fitted(table, seed=1), 0.6)


def test_cross_fitting_takes_away_what_choosing_adds_to_noise():
    gains = [cross_fitted(noise(60, seed=seed), seed).mean() - 0.5 for seed in range(100)]
    chosen = [noise(60, seed=seed).mean(axis=1).max() - 0.5 for seed in range(100)]
    assert np.mean(chosen) > 0.05
    assert abs(np.mean(gains)) < 0.02


def test_the_interval_agrees_with_the_normal_one_on_many_queries():
    differences = np.random.default_rng(0).normal(0.1, 1.0, 2000)
    low, high = interval(differences, 0.95, seed=0)
    half = 1.96 * differences.std() / np.sqrt(len(differences))
    assert low == pytest.approx(differences.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(differences.mean() + half, abs=0.1 * half)


def test_a_lower_end_of_nothing_is_nothing_whatever_rounding_adds():
    """Three of forty queries gain, so that one resample in twenty holds none of them."""
    base = np.random.default_rng(0).uniform(size=40)
    table = np.tile(base, (151, 1))
    table[3:, :3] = 1
    assert not any(prove(table, 0.95, 0.0, seed).proven for seed in range(60))


def test_the_same_seed_gives_the_same_proof():
    assert prove(noise(50), 0.95, 0.0, seed=3) == prove(noise(50), 0.95, 0.0, seed=3)


def test_noise_is_proven_no_more_often_than_the_confidence_allows():
    rng = np.random.default_rng(0)
    proven = 0
    for seed in range(200):
        base = rng.uniform(size=100)
        table = np.clip(base + 0.1 * rng.normal(size=(20, 100)), 0, 1)
        table[0] = base
        proven += prove(table - table.mean(axis=1, keepdims=True) + 0.5, 0.95, 0.0, seed).proven
    assert proven <= 10  # 2.5 % of 200 is 5


def test_a_clear_gain_is_proven_unless_more_is_asked_for():
    table = np.stack([np.full(60, 0.3), np.random.default_rng(0).uniform(0.4, 0.6, 60)])
    assert prove(table, 0.95, 0.0, seed=0).proven
    assert not prove(table, 0.95, 0.5, seed=0).proven


def test_too_few_queries_prove_nothing_however_large_the_gain():
    table = np.stack([np.zeros(FEWEST_QUERIES - 1), np.ones(FEWEST_QUERIES - 1)])
    proof = prove(table, 0.95, 0.0, seed=0)
    assert not proof.proven
    assert "too few" in proof.reason


def test_gain_is_after_less_before_and_lies_in_its_interval():
    proof = prove(noise(80), 0.9, 0.0, seed=0)
    assert proof.gain == pytest.approx(proof.after - proof.before)
    assert proof.gain_low <= proof.gain <= proof.gain_high
