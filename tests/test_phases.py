"""How far a run has come, on a terminal and in a log."""

import re

import pytest

from nudge_vdb import progress
from nudge_vdb.phases import Phases, counted
from nudge_vdb.progress import ShownPhases


class Told(Phases):
    """Keeps all that the steps of its phases are told."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def shown(self, name, total):
        outer = super().shown(name, total)

        class Kept:
            def __enter__(kept):  # noqa: N805
                outer.__enter__()
                return lambda *given: self.steps.append((name, *given))

            def __exit__(kept, *failure):  # noqa: N805
                return outer.__exit__(*failure)

        return Kept()


def test_what_is_counted_is_told_to_the_phase_around_after_every_item():
    phases = Told()
    with phases("compute"):
        assert list(counted("abc", 3, "queries")) == ["a", "b", "c"]
        list(counted([range(2), range(5)], 7, "rows", len))
    assert phases.steps == [
        *[("compute", done, 3, "queries") for done in (1, 2, 3)],
        ("compute", 2, 7, "rows"),
        ("compute", 7, 7, "rows"),
    ]


def test_nothing_is_told_to_a_phase_that_is_over():
    phases = Told()
    with phases("compute"):
        pass
    assert list(counted([1], 1, "rows")) == [1]
    assert phases.steps == []


def test_a_phase_takes_one_line_with_the_time_where_there_is_no_terminal(capsys):
    phases = ShownPhases()
    with phases("page out", 5) as step:
        step(5)
    with phases("compute"):
        list(counted([1] * 1200, 1200, "queries"))
    with phases("snapshot"):
        pass
    out, err = capsys.readouterr()
    told = [re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (.*) in \d+\.\d s", line) for line in err.splitlines()]
    assert [each and each[1] for each in told] == ["page out: 5 of 5", "compute: 1,200 of 1,200 queries", "snapshot"]
    assert out == ""


def test_a_phase_that_lasts_says_how_far_it_is_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with ShownPhases()("compute"):
        list(counted([1] * 3, 3, "queries"))
    assert [line.partition("compute: ")[2][:14] for line in capsys.readouterr().err.splitlines()[:3]] == [
        f"{done} of 3 queries" for done in (1, 2, 3)
    ]


def test_a_phase_that_fails_is_not_said_to_be_over(capsys):
    with pytest.raises(ValueError, match="broken"), ShownPhases()("compute"):
        raise ValueError("broken")
    assert "compute" not in capsys.readouterr().err
