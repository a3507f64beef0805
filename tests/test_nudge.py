"""The rays of NUDGE against the authors' frozen output, and what must hold for any pull."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nudge_vdb.contract import Metric
from nudge_vdb.exam import Exam, Field
from nudge_vdb.nudge import RAYS, STEPS, Method, Pulls, rays_m, rays_n, unit
from nudge_vdb.selection import authors_step

DATA = Path(__file__).parent / "data"
SETS = ["cranfield", "metatool"]


@pytest.fixture(params=SETS)
def frozen(request):
    """Part of a real set with what nudge-ft 0.1.2 makes of it."""
    with np.load(DATA / f"nudge_ft_{request.param}.npz") as arrays:
        return dict(arrays)


def pulls_of(frozen) -> Pulls:
    query, row = frozen["train_pairs"].astype(np.int64).T
    order = np.argsort(row, kind="stable")
    units, _ = unit(frozen["train_queries"])
    return Pulls(units, query[order], row[order], np.ones(len(row)), len(frozen["rows"]))


def authors_normalised(frozen):
    """The authors' code scales the rows, and keeps them so."""
    return unit(frozen["rows"].astype(np.float32))[0]


@pytest.mark.parametrize(
    ("name", "method", "step"),
    [("n_0.2", Method.NUDGE_N, 0.2), ("n_0.46", Method.NUDGE_N, 0.46), ("m_0.3", Method.NUDGE_M, 0.3)],
)
def test_every_row_ends_where_the_authors_code_puts_it(frozen, name, method, step):
    pulls = pulls_of(frozen)
    rays = RAYS[method](authors_normalised(frozen), pulls.of(0, pulls.rows), None)
    np.testing.assert_allclose(rays.at(step)[frozen["kept"]], frozen[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("k", [1, 10])
def test_the_authors_rule_chooses_the_step_that_the_authors_code_chooses(frozen, k):
    pulls, rows = pulls_of(frozen), authors_normalised(frozen)
    query, row = frozen["dev_pairs"].astype(np.int64).T
    units, lengths = unit(frozen["dev_queries"])
    exam = Exam(units, lengths, query, row, np.ones(len(row)), np.zeros(len(row)))
    nobody, order = np.empty((len(units), 0)), np.zeros(len(rows))
    step = authors_step(Field(Method.NUDGE_N, Metric.COSINE, pulls, lambda part: rows[part], order, nobody), exam, k)
    tuned = rays_n(rows, pulls.of(0, pulls.rows)).at(step)
    np.testing.assert_allclose(tuned[frozen["kept"]], frozen[f"n_rule_top{k}"], rtol=0, atol=1e-5)


def random_rows(seed: int, rows: int = 20, width: int = 12):
    rng = np.random.default_rng(seed)
    return unit(rng.normal(size=(rows, width)))[0], rng.normal(size=(rows, width)) * rng.uniform(0.1, 5, (rows, 1))


@given(seed=st.integers(0, 10_000), step=st.floats(0.0, 1.5))
def test_nudge_n_keeps_length_1_and_stays_within_the_step(seed, step):
    units, pulls = random_rows(seed)
    moved = rays_n(units, pulls).at(step).astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 1, atol=1e-6)
    assert (((moved - units) ** 2).sum(axis=1) <= step + 1e-5).all()


@given(seed=st.integers(0, 10_000), step=st.floats(0.01, 1.5))
def test_no_other_point_within_the_step_is_nearer_to_the_pull_than_nudge_n(seed, step):
    units, pulls = random_rows(seed)
    moved = rays_n(units, pulls).at(step)
    movable = np.einsum("ij,ij->i", units, pulls) >= 0
    rng = np.random.default_rng(seed)
    others = unit(units + rng.normal(size=units.shape) * rng.uniform(0, 1, (len(units), 1)))[0]
    allowed = movable & (((others - units) ** 2).sum(axis=1) <= step)
    ours, theirs = ((vectors * pulls).sum(axis=1) for vectors in (moved, others))
    assert (ours[allowed] >= theirs[allowed] - 1e-4 * np.linalg.norm(pulls[allowed], axis=1)).all()


def test_nudge_n_never_passes_the_pull():
    units, pulls = random_rows(3)
    towards = unit(pulls)[0]
    moved = rays_n(units, pulls).at(1.99)
    movable = np.einsum("ij,ij->i", units, pulls) >= 0
    np.testing.assert_allclose(moved[movable], towards[movable], atol=1e-5)


@pytest.mark.parametrize("rays", [rays_n, rays_m])
def test_a_row_without_a_pull_stays(rays):
    units, pulls = random_rows(1)
    pulls[:5] = 0
    assert (rays(units, pulls).at(1.0)[:5] == units[:5]).all()


def test_a_row_pulled_away_from_itself_or_exactly_along_itself_stays_under_nudge_n():
    units, _ = random_rows(2, rows=2)
    assert (rays_n(units, units * np.array([[-2.0], [3.0]])).at(0.5) == units).all()


def test_a_row_pulled_backwards_stays_under_nudge_n_however_much_it_is_pulled_aside():
    units, _ = random_rows(6, rows=5)
    aside = np.random.default_rng(0).normal(size=units.shape)
    aside -= np.einsum("ij,ij->i", aside, units)[:, None] * units
    moved = rays_n(units, aside - 0.1 * units).at(0.5)
    assert (moved == units).all()
    assert not (rays_n(units, aside + 0.1 * units).at(0.5) == units).all(axis=1).any()


def test_what_rounding_leaves_of_a_pull_is_no_pull():
    units, pulls = random_rows(4)
    left_over = 1e-13 * pulls[::-1]
    moved = rays_n(units, left_over, scale=np.linalg.norm(pulls, axis=1)).at(0.5)
    assert (moved == units).all()


def test_nudge_m_moves_by_the_step_whatever_the_size_of_the_pull():
    units, pulls = random_rows(5)
    moved = rays_m(units, pulls).at(0.7)
    np.testing.assert_allclose(np.linalg.norm(moved - units, axis=1), 0.7, atol=1e-5)
    np.testing.assert_allclose(rays_m(units, 100 * pulls).at(0.7), moved, atol=1e-6)


@given(seed=st.integers(0, 10_000), first=st.integers(0, 8), size=st.integers(1, 8))
def test_pulls_of_any_slice_are_the_weighted_sums_of_the_queries(seed, first, size):
    rng = np.random.default_rng(seed)
    queries = unit(rng.normal(size=(7, 5)))[0]
    row = np.sort(rng.integers(0, 16, 40))
    query, weight = rng.integers(0, 7, 40), rng.uniform(0.5, 3, 40)
    expected = np.zeros((16, 5))
    for place in range(40):
        expected[row[place]] += weight[place] * queries[query[place]]
    found = Pulls(queries, query, row, weight, 16).of(first, first + size)
    np.testing.assert_allclose(found, expected[first : first + size], atol=1e-12)


@given(seed=st.integers(0, 10_000), first=st.integers(0, 8), size=st.integers(1, 8))
def test_the_pull_of_a_row_is_the_same_to_the_last_bit_whatever_rows_it_is_worked_out_with(seed, first, size):
    rng = np.random.default_rng(seed)
    row = np.sort(rng.integers(0, 16, 60))
    pulls = Pulls(unit(rng.normal(size=(7, 5)))[0], rng.integers(0, 7, 60), row, rng.uniform(0.5, 3, 60), 16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nudge_vdb.nudge.PUSHES_BYTES", 8 * 5 * 3)
        assert (pulls.of(first, first + size) == pulls.of(0, 16)[first : first + size]).all()


def test_pulls_of_a_row_with_more_judgements_than_fit_at_once_are_whole():
    queries = np.eye(3, dtype=np.float32)
    count = 10_000
    pulls = Pulls(queries, np.arange(count) % 3, np.zeros(count, np.int64), np.ones(count), 1)
    assert pulls.of(0, 1).tolist() == [[3334.0, 3333.0, 3333.0]]


@pytest.mark.parametrize("method", list(Method))
def test_the_first_step_is_the_base(method):
    assert STEPS[method][0] == 0
    assert len(STEPS[method]) == 151
    assert (np.diff(STEPS[method]) > 0).all()
