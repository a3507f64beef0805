"""The journal: what was noted stays noted, and what is damaged is never believed."""

import pytest

from nudge_vdb.errors import Locked, StateDamaged
from nudge_vdb.journal import Journal

MOVES = [
    ("begin", {"to": 1, "from": 0}),
    ("batch", {"written": 3, "skipped": {"missing": ["a\r\nb", "日本"]}}),
    ("end", {"to": 1, "from": 0}),
    ("begin", {"to": 2, "from": 1}),
    ("batch", {"written": 1, "skipped": {}}),
]


@pytest.fixture
def path(tmp_path):
    """A journal of MOVES, the last move unfinished."""
    return written(tmp_path / "journal")


def written(path):
    """Write MOVES; the run died between the last line and the head, which knows all but that line."""
    journal = Journal(path)
    for event, facts in MOVES[:-1]:
        journal.add(event, **facts)
    head = head_of(path).read_bytes()
    event, facts = MOVES[-1]
    journal.add(event, **facts)
    head_of(path).write_bytes(head)
    return path


def head_of(path):
    return path.with_name(f"{path.name}.head")


def told(journal):
    """All that a journal can say."""
    return journal.live, journal.unfinished, journal.begun(), journal.finished()


def damaged(line):
    return pytest.raises(StateDamaged, match=f"journal line {line} is damaged")


def test_a_new_journal_tells_of_nothing_and_makes_no_file(tmp_path):
    assert told(Journal(tmp_path / "journal")) == (0, None, set(), [])
    assert list(tmp_path.iterdir()) == []


def test_events_survive_reopening(path):
    journal = Journal(path)
    assert told(journal) == (1, 2, {1, 2}, [(0, 1)])
    journal.add("end", **{"to": 2, "from": 1})
    assert told(Journal(path)) == told(journal) == (2, None, {1, 2}, [(0, 1), (1, 2)])


def test_a_way_back_is_a_move_like_any_other(path):
    journal = Journal(path)
    journal.add("begin", **{"to": 0, "from": 1})
    assert told(journal) == (1, 0, {1, 2}, [(0, 1)])
    journal.add("end", **{"to": 0, "from": 1})
    assert told(journal) == told(Journal(path)) == (0, None, {1, 2}, [(0, 1), (1, 0)])


def test_an_event_is_there_as_soon_as_it_was_added(path):
    journal = Journal(path)
    journal.add("end", **{"to": 2, "from": 1})
    assert Journal(path).live == journal.live == 2


def test_a_last_line_torn_anywhere_is_dropped_and_the_next_event_can_be_added(path, tmp_path):
    for left in range(len(path.read_bytes().splitlines()[-1])):
        torn = written(tmp_path / f"torn at {left}")
        content = torn.read_bytes()
        torn.write_bytes(content[: content[:-1].rfind(b"\n") + 1 + left])
        Journal(torn).add("end", **{"to": 2, "from": 1})
        assert told(Journal(torn)) == (2, None, {1, 2}, [(0, 1), (1, 2)])


def test_an_end_that_the_head_knows_of_cannot_vanish_unnoticed(path):
    content = path.read_bytes()
    Journal(path).seal()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(StateDamaged, match="journal"):
            Journal(path)


def test_no_byte_of_the_head_can_change_unnoticed(path):
    head = head_of(path)
    whole = head.read_bytes()
    for place in range(len(whole)):
        for changed in (whole[:place], whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]):
            head.write_bytes(changed)
            with pytest.raises(StateDamaged, match=r"journal\.head"):
                Journal(path)


def test_the_journal_tells_which_versions_must_be_there(tmp_path):
    journal = Journal(tmp_path / "journal")
    journal.add("version", number=1, digest="a")
    journal.add("version", number=2, digest="b")
    journal.add("begin", **{"to": 1, "from": 0, "rows": 7})
    journal.add("batch", rows=4)
    journal.add("prune", number=1)
    told_again = Journal(tmp_path / "journal")
    assert (dict(told_again.kept()), told_again.pruned(), told_again.newest()) == ({2: "b"}, {1}, 2)
    assert (told_again.begun(), told_again.progress()) == (set(), (4, 7))


def test_reading_a_journal_changes_nothing_that_somebody_else_may_be_writing(path):
    torn = path.read_bytes()[:-5]
    path.write_bytes(torn)
    assert told(Journal(path)) == (1, 2, {1, 2}, [(0, 1)])
    assert path.read_bytes() == torn


@pytest.mark.parametrize("flip", [0x01, 0x20, 0x80])
def test_a_byte_flipped_anywhere_in_an_earlier_line_is_noticed_and_the_line_named(path, flip):
    content = path.read_bytes()
    for place in range(content[:-1].rfind(b"\n")):
        flipped = bytearray(content)
        flipped[place] ^= flip
        path.write_bytes(flipped)
        with damaged(content[:place].count(b"\n") + 1):
            Journal(path)


def test_no_byte_of_an_earlier_line_may_be_any_other(path):
    first, rest = path.read_bytes().split(b"\n", 1)
    for place in [*range(len(b"12345678 {")), len(first)]:
        for byte in range(256):
            changed = bytearray(first + b"\n")
            if changed[place] != byte:
                changed[place] = byte
                path.write_bytes(bytes(changed) + rest)
                with damaged(1):
                    Journal(path)


def test_a_line_that_was_taken_out_of_its_middle_is_noticed(path):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], lines[1][:20], *lines[2:]]))
    with damaged(2):
        Journal(path)


def test_an_empty_line_is_damage(path):
    path.write_bytes(b"\n" + path.read_bytes())
    with damaged(1):
        Journal(path)


def test_batches_that_were_sent_without_an_answer_are_in_doubt_until_a_move_is_finished(tmp_path):
    journal = Journal(tmp_path / "journal")
    spans = [[bytes([place]).hex()] * 2 for place in range(4)]
    journal.add("begin", **{"to": 1, "from": 0, "next": spans[0]})
    journal.add("batch", skipped={}, next=spans[1])
    assert Journal(journal.path).in_doubt() == [(b"\x01", b"\x01")]
    journal.add("batch", skipped={"unknown": ["b"]}, next=spans[2])
    assert journal.in_doubt() == [(b"\x01", b"\x01"), (b"\x02", b"\x02")]
    journal.add("begin", **{"to": 0, "from": 0, "next": spans[0]})
    journal.add("batch", skipped={}, next=None)
    assert journal.in_doubt() == [(b"\x01", b"\x01"), (b"\x02", b"\x02")]
    journal.add("end", **{"to": 0, "from": 0})
    assert Journal(journal.path).in_doubt() == []


def test_a_run_that_slept_cuts_off_no_line_of_the_run_that_took_over(path):
    """It had looked whether it holds the state, and slept before it wrote."""
    slept, other = Journal(path), Journal(path)
    other.add("end", **{"to": 2, "from": 1})
    written, head = path.read_bytes(), head_of(path).read_bytes()
    with pytest.raises(Locked, match="another run has written"):
        slept.add("batch", written=1, skipped={})
    assert (path.read_bytes(), head_of(path).read_bytes()) == (written, head)
    other.add("begin", **{"to": 1, "from": 2})
    assert Journal(path).unfinished == 1


def test_a_journal_that_was_replaced_by_an_older_one_under_a_run_is_not_filled_up(path):
    running = Journal(path)
    path.write_bytes(path.read_bytes()[:-40])
    older = path.read_bytes()
    with pytest.raises(Locked, match="another run has written"):
        running.add("end", **{"to": 2, "from": 1})
    assert path.read_bytes() == older
