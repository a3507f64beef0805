"""Dropping old versions, never the base of a live row; and what lies between two versions."""

import numpy as np
import pytest

import nudge_vdb
from nudge_vdb.contract import Metric
from nudge_vdb.diff import diff
from nudge_vdb.doctor import diagnose
from nudge_vdb.errors import BadOption
from nudge_vdb.judgements import Judgements
from nudge_vdb.prune import prune
from nudge_vdb.standing import open_state
from nudge_vdb.testing import Faulty


@pytest.fixture
def world(worlds):
    return worlds(Metric.DOT, width=8)


@pytest.fixture
def tune(world, tmp_path):
    """Plan and apply a version, by force."""

    def act(judgements, step=0.3):
        plan = nudge_vdb.plan(world.collection, judgements, state=tmp_path, step=step, max_queries=30)
        nudge_vdb.apply(plan, force=True)
        return plan.version.content

    return act


def half(world, part):
    """The judgements of every other row."""
    pairs = list(zip(world.train.vectors, world.train.rows, strict=True))
    chosen = [(vector, text) for vector, text in pairs if int(text[-1]) % 2 == part]
    return Judgements.from_arrays([vector for vector, _ in chosen], [[text] for _, text in chosen])


def versions(world, folder):
    return [version["version"] for version in nudge_vdb.history(world.collection, state=folder)]


def test_versions_that_no_row_needs_are_dropped_and_their_numbers_are_not_used_again(world, tune, tmp_path):
    before = world.vectors()
    for judgements in (world.train, world.fewer, world.test):
        tune(judgements)
    assert prune(world.collection, keep=1, state=tmp_path).dropped == [1, 2]
    assert versions(world, tmp_path) == [3]
    assert [path.name for path in open_state(world.collection, tmp_path).folder.glob("versions/*")] == ["000003"]
    with pytest.raises(BadOption, match="dropped by 'nudge-vdb prune'"):
        nudge_vdb.rollback(world.collection, to=1, state=tmp_path)
    tune(world.fewer)
    assert versions(world, tmp_path) == [3, 4]
    nudge_vdb.rollback(world.collection, to=0, state=tmp_path)
    assert all((world.vectors()[text] == vector).all() for text, vector in before.items())
    assert prune(world.collection, keep=0, state=tmp_path).kept == []


def test_a_version_that_alone_knows_the_base_of_a_live_row_stays(world, tune, tmp_path):
    """A row that could not be brought back keeps the version from which it comes."""
    before = world.vectors()
    tune(half(world, 0))
    astray = world.vectors()["row 000"]
    tune(half(world, 1))
    world.fixture.re_embed(["row 000"], astray[None])  # from a backup of the database, say
    pruned = prune(world.collection, keep=1, state=tmp_path)
    assert (pruned.dropped, pruned.kept, pruned.needed) == ([], [1, 2], {1: 1})
    nudge_vdb.rollback(world.collection, to=0, state=tmp_path)
    assert all((world.vectors()[text] == vector).all() for text, vector in before.items())
    assert prune(world.collection, keep=0, state=tmp_path).dropped == [1, 2]


def test_a_version_that_alone_knows_the_base_of_a_row_that_is_away_stays_unless_it_is_gone_for_good(
    world, tune, tmp_path
):
    """A row that left the scope may come back into it, tuned as it is."""
    before = world.vectors()
    tune(world.train)
    row = world.fixture.collection.rows.pop("row 001")
    nudge_vdb.rollback(world.collection, to=0, state=tmp_path)
    assert prune(world.collection, keep=0, state=tmp_path).needed == {1: 1}
    world.fixture.collection.rows["row 001"] = row
    nudge_vdb.rollback(world.collection, to=0, state=tmp_path)
    assert (world.vectors()["row 001"] == before["row 001"]).all()
    world.fixture.delete(["row 001"])
    assert prune(world.collection, keep=0, gone=True, state=tmp_path).dropped == [1]


def test_a_row_that_is_away_keeps_the_version_of_the_vector_that_it_left_with(world, tune, tmp_path):
    """Another version knows the row, too, but not that vector."""
    before = world.vectors()
    tune(world.train, step=0.3)
    tune(world.train, step=0.5)
    row = world.fixture.collection.rows.pop("row 001")
    nudge_vdb.rollback(world.collection, to=1, state=tmp_path)
    pruned = prune(world.collection, keep=0, state=tmp_path)
    assert (pruned.dropped, pruned.kept, pruned.needed) == ([], [1, 2], {2: 1})
    world.fixture.collection.rows["row 001"] = row
    nudge_vdb.rollback(world.collection, to=0, state=tmp_path)
    assert all((world.vectors()[text] == vector).all() for text, vector in before.items())


def test_the_live_version_stays_however_old_it_is(world, tune, tmp_path):
    for judgements in (world.train, world.fewer, world.test):
        tune(judgements)
    nudge_vdb.rollback(world.collection, to=1, state=tmp_path)
    assert prune(world.collection, keep=0, state=tmp_path).kept == [1]
    assert nudge_vdb.verify(world.collection, state=tmp_path, deep=True).clean


def test_pruning_writes_nothing_to_the_database(world, tune, tmp_path):
    for judgements in (world.train, world.fewer):
        tune(judgements)
    counted = Faulty(world.collection)
    prune(counted, keep=0, state=tmp_path)
    assert counted.calls["write"] == counted.calls["leave_note"] == 0


def test_a_difference_is_the_rows_that_move_and_how_far(world, tune, tmp_path):
    one, two = tune(half(world, 0)), tune(world.train)
    places = [dict(zip([key.decode() for key in each.keys], each.tuned, strict=True)) for each in (one, two)]
    base = dict(zip([key.decode() for key in two.keys], two.base, strict=True))
    wanted = {
        text: np.linalg.norm(places[0].get(text, base[text]).astype(float) - vector.astype(float))
        for text, vector in places[1].items()
    }
    found = diff(world.collection, 1, 2, state=tmp_path)
    assert dict(found.rows) == pytest.approx({text: far for text, far in wanted.items() if far})
    assert [far for _, far in found.rows] == sorted((far for _, far in found.rows), reverse=True)
    assert found.quantiles()["greatest"] == pytest.approx(max(wanted.values()))
    assert dict(diff(world.collection, 2, 1, state=tmp_path).rows) == dict(found.rows)


def test_a_difference_tells_distance_cosine_and_angle_of_every_row_that_moved(world, tune, tmp_path):
    base = world.vectors()
    tune(world.train, step=0.3)
    found, tuned = diff(world.collection, 0, 1, state=tmp_path), world.vectors()
    moved = {text for text, vector in tuned.items() if (vector != base[text]).any()}
    assert {move.row for move in found.moves} == moved != set()
    for move in found.moves:
        before, after = (vectors[move.row].astype(np.float64) for vectors in (base, tuned))
        cosine = before @ after / np.sqrt((before @ before) * (after @ after))
        assert move.cosine == pytest.approx(cosine, abs=1e-6)
        assert move.degrees == pytest.approx(np.degrees(np.arccos(cosine)), abs=1e-3)
        assert move.distance == pytest.approx(np.sqrt(((before - after) ** 2).sum()), abs=1e-6)


def test_a_version_differs_from_the_base_by_all_its_rows_and_from_itself_by_none(world, tune, tmp_path):
    content = tune(world.train)
    far = np.linalg.norm(content.tuned.astype(float) - content.base, axis=1)
    found = diff(world.collection, 0, 1, state=tmp_path)
    assert len(found.rows) == len(content.keys)
    assert sorted(distance for _, distance in found.rows) == pytest.approx(sorted(far))
    assert diff(world.collection, 1, 1, state=tmp_path).rows == []
    assert diff(world.collection, 1, 1, state=tmp_path).quantiles() == {}


def test_a_row_embedded_again_between_two_versions_is_listed(world, tune, tmp_path):
    tune(world.train)
    text = world.train.rows[0]
    world.fixture.re_embed([text], world.train.vectors[:1])
    tune(world.train)
    assert diff(world.collection, 1, 2, state=tmp_path).rebased == [text]


# What the doctor says


def remarks(collection, **options):
    found = diagnose(collection, **options)
    return found, " ".join(f"{remark['weight']}: {remark['text']}" for remark in found["remarks"])


def test_the_doctor_finds_a_sound_collection_fit_and_changes_nothing(world, tune, tmp_path):
    counted = Faulty(world.collection)
    found, told = remarks(counted)
    assert found["fit"]
    assert (found["count"], found["sample"]["rows"], found["sample"]["whole"]) == (200, 200, True)
    assert "warning" not in told
    assert counted.calls["write"] == counted.calls["leave_note"] == 0
    tune(world.train)
    assert "belong to the state" in remarks(world.collection)[1]


def test_the_doctor_names_what_is_wrong_with_the_rows(world):
    rows = world.collection.rows
    for place, vector in enumerate((np.full(8, np.nan), np.zeros(8), rows["row 009"].vector, None)):
        row = rows[f"row {place:03}"]
        rows[f"row {place:03}"] = type(row)(
            None if vector is None else np.asarray(vector, np.float32), row.payload, row.others
        )
    sample, told = remarks(world.collection)
    found = sample["sample"]
    assert (found["not_finite"], found["zero"], found["doubled"], found["absent"]) == (1, 1, 1, 1)
    for words in ("1 rows hold NaN", "1 vectors are zero", "1 rows hold the same vector", "1 rows lack the vector"):
        assert words in told


def test_the_doctor_finds_an_empty_collection_unfit(world):
    world.collection.rows.clear()
    found, told = remarks(world.collection)
    assert not found["fit"]
    assert "obstacle: no row holds the vector" in told


def test_the_doctor_looks_at_no_more_rows_than_it_is_told(world):
    found, _ = remarks(world.collection, rows=16)
    assert (found["sample"]["rows"], found["sample"]["whole"]) == (16, False)


def test_what_was_planned_and_never_applied_can_be_rolled_back_to_the_base(world, tmp_path):
    nudge_vdb.plan(world.collection, world.train, state=tmp_path, step=0.3)
    assert nudge_vdb.rollback(world.collection, to=0, state=tmp_path).written == 0
