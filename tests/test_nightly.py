"""A carry every night: the state stays as large as it is, and no base is ever lost."""

import numpy as np
import pytest

import nudge_vdb
from nudge_vdb.contract import Metric
from nudge_vdb.errors import BadOption
from nudge_vdb.standing import open_state
from nudge_vdb.testing import Faulty
from tests.test_newcomers import tuned, without

WIDTH = 12


@pytest.fixture
def world(worlds, tmp_path):
    """A world that is tuned and carried, 40 of its rows not there yet."""
    world = worlds(Metric.DOT, width=WIDTH, apart=1.0)
    world.bases = world.vectors()
    world.late = {f"row {number:03}": without(world, [f"row {number:03}"]) for number in range(160, 200)}
    tuned(world, tmp_path)
    return world


def night(world, folder, number, **options):
    """Insert four rows, delete one, embed one again, and carry."""
    for text in [f"row {160 + 4 * number + each:03}" for each in range(4)]:
        world.fixture.insert(world.late[text])
    again = f"row {100 + number:03}"
    world.bases[again] = np.roll(world.bases[again], 1)
    world.fixture.re_embed([again], world.bases[again][None])
    world.gone = f"row {120 + number:03}"
    world.fixture.delete([world.gone])
    return nudge_vdb.carry(world.collection, state=folder, **options)


def kept(world, folder):
    return [version["version"] for version in nudge_vdb.history(world.collection, state=folder)]


def require_bases(world, folder):
    nudge_vdb.rollback(world.collection, to=0, state=folder)
    for text, vector in world.vectors().items():
        assert (vector == world.bases[text]).all(), text


def test_a_week_of_carries_leaves_what_was_tuned_and_the_last_two(world, tmp_path):
    for number in range(7):
        report = night(world, tmp_path, number).report
        assert report["newly_carried"] == 5
        assert report["dropped"] == ([number] if number > 1 else [])
        assert nudge_vdb.verify(world.collection, state=tmp_path, deep=True).astray == []
    assert kept(world, tmp_path) == [1, 7, 8]
    assert len(list(open_state(world.collection, tmp_path).folder.glob("versions/*"))) == 3
    with pytest.raises(BadOption, match=r"dropped by .* a later 'carry'"):
        nudge_vdb.rollback(world.collection, to=3, state=tmp_path)
    require_bases(world, tmp_path)


def test_the_last_carry_can_be_undone_and_done_again(world, tmp_path):
    for number in range(4):
        night(world, tmp_path, number)
    held = world.vectors()
    nudge_vdb.rollback(world.collection, to=4, state=tmp_path)
    newest = world.late["row 172"].ids[0]
    assert (world.vectors()[newest] == world.bases[newest]).all()
    nudge_vdb.carry(world.collection, state=tmp_path)
    assert all((world.vectors()[text] == vector).all() for text, vector in held.items())
    assert kept(world, tmp_path) == [1, 4, 6]
    require_bases(world, tmp_path)


def test_a_row_that_comes_back_after_many_nights_as_it_was_tuned_still_has_its_base(world, tmp_path):
    night(world, tmp_path, 0)
    backups = world.fixture.read()["row 163"], world.fixture.read()["row 020"]
    for text in ("row 163", "row 020"):
        world.fixture.delete([text])
    for number in range(1, 5):
        assert night(world, tmp_path, number).report["missing"] == (3 if number == 1 else 1)
    world.collection.rows |= dict(zip(("row 163", "row 020"), backups, strict=True))
    found = nudge_vdb.verify(world.collection, state=tmp_path)
    assert "row 163" not in found.re_embedded + found.astray
    require_bases(world, tmp_path)


def test_rows_that_are_gone_for_good_do_not_stay(world, tmp_path):
    stays = night(world, tmp_path, 0).report
    assert stays["away"] == 1
    assert stays["moved"] == len(world.fixture.read())
    goes = night(world, tmp_path, 1, gone=True).report
    assert goes["away"] == 0
    assert world.gone.encode() not in open_state(world.collection, tmp_path).version(3).content.keys
    require_bases(world, tmp_path)


def test_an_earlier_carry_that_alone_knows_the_base_of_a_row_stays(world, tmp_path):
    """The row was embedded again and carried from there; when the next carry has looked at it, it is put back."""
    night(world, tmp_path, 0)
    first, base = world.vectors()["row 160"], world.bases["row 160"]
    world.fixture.re_embed(["row 160"], np.roll(base, 1)[None])
    night(world, tmp_path, 1)
    world.fixture.insert(world.late["row 199"])
    late = Faulty(world.collection)

    def when_all_is_read():
        verifying = ("fetch", late.calls["fetch"] + 2)  # the next looks at the rows that stay where they are
        late.before[verifying] = lambda: world.fixture.re_embed(["row 160"], first[None])

    late.after["write", 1] = when_all_is_read
    applied = nudge_vdb.carry(late, state=tmp_path)
    assert applied.report["dropped"] == []
    assert kept(world, tmp_path) == [1, 2, 3, 4]
    require_bases(world, tmp_path)


def test_only_rows_that_a_newer_version_does_not_hold_as_well_are_asked_for(world, tmp_path):
    for number in range(2):
        night(world, tmp_path, number)
    asked = []

    class Counted(Faulty):
        def fetch(self, keys, out):
            asked.extend(keys)
            return super().fetch(keys, out)

    world.fixture.insert(world.late["row 199"])
    nudge_vdb.carry(world.collection, state=tmp_path)
    asked.clear()
    pruned = nudge_vdb.prune(Counted(world.collection), keep=0, state=tmp_path)
    assert pruned.dropped == [1, 3]
    assert sorted(set(asked)) == [b"row 100", b"row 101"]


def test_a_carry_that_died_before_it_wrote_is_not_made_twice(world, tmp_path):
    world.fixture.insert(world.late["row 199"])

    def die():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nudge_vdb.carry(Faulty(world.collection, before={("notes", 2): die}), state=tmp_path)
    assert kept(world, tmp_path) == [1, 2]
    assert nudge_vdb.carry(world.collection, state=tmp_path).report["version"] == 2


def test_what_an_unfinished_carry_leaves_is_dropped_by_nobody(world, tmp_path):
    for number in range(3):
        night(world, tmp_path, number)
    world.fixture.insert(world.late["row 199"])

    def die():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nudge_vdb.carry(Faulty(world.collection, after={("write", 1): die}), state=tmp_path)
    assert kept(world, tmp_path) == [1, 3, 4, 5]
    nudge_vdb.carry(world.collection, state=tmp_path)
    assert kept(world, tmp_path) == [1, 4, 5]
    require_bases(world, tmp_path)


def test_the_query_side_form_of_a_carry_misses_no_row_that_was_gone_before(world, tmp_path):
    night(world, tmp_path, 0)
    world.fixture.delete(["row 003"])
    night(world, tmp_path, 1)
    assert "row 003" in {
        world.collection.text_of(key) for key in open_state(world.collection, tmp_path).version(3).content.keys
    }
    form = nudge_vdb.export_map(world.collection, tmp_path / "map.npy", version=3, state=tmp_path)
    assert "newly_carried" not in form.report
    applied = nudge_vdb.apply(form, force=True)
    assert applied.skipped == {}
    require_bases(world, tmp_path)
