"""A report that cannot be printed is no failure of the run that it tells of."""

import io
import subprocess
import sys

import pytest

import nudge_vdb
from nudge_vdb.backends import fill
from nudge_vdb.contract import Metric, Rows
from nudge_vdb.streams import unfailing_streams

FULL = "/dev/full"


def ended(arguments, out, err):
    command = [sys.executable, "-W", "ignore", "-m", "nudge_vdb", *map(str, arguments)]
    with open(out, "w") as stdout, open(err, "w") as stderr:  # noqa: PTH123
        return subprocess.run(command, stdout=stdout, stderr=stderr, check=False).returncode


@pytest.fixture
def tuned(world, tmp_path):
    """A small collection in a folder, its state, and the options that name both."""
    where = f"qdrant+local://{tmp_path}/db/articles"
    vectors = world.collection.scan(None, 1000).vectors
    fill(where, Rows(list(range(len(vectors))), vectors, [{}] * len(vectors)), Metric.COSINE).close()
    judged = nudge_vdb.Judgements.from_arrays(
        world.train.vectors, [[row.removeprefix("row ").lstrip("0") or "0"] for row in world.train.rows]
    )
    collection = nudge_vdb.connect(where)
    plan = nudge_vdb.plan(collection, judged, state=tmp_path / "state")
    assert plan.proven
    collection.close()
    return [where, "--state", tmp_path / "state"]


@pytest.mark.parametrize(("out", "err"), [(FULL, FULL), (FULL, "err"), ("out", FULL)])
def test_a_move_whose_report_cannot_be_printed_is_done_and_says_so_by_its_status(tuned, tmp_path, out, err):
    places = [each if each == FULL else tmp_path / each for each in (out, err)]
    assert ended(["apply", *tuned], *places) == 0
    collection = nudge_vdb.connect(tuned[0])
    assert nudge_vdb.status(collection, state=tuned[2])["live"] == 1
    collection.close()
    if err != FULL:
        assert "the report could not be printed" in (tmp_path / err).read_text()
        assert "Traceback" not in (tmp_path / err).read_text()


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_an_error_that_cannot_be_printed_keeps_its_status(tmp_path, more):
    assert ended(["status", "nothing", *more], FULL, tmp_path / "err") == 2
    assert "Traceback" not in (tmp_path / "err").read_text()


def test_a_reader_that_has_had_enough_is_no_failure():
    command = f"{sys.executable} -m nudge_vdb tune --help | head -1; echo ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert ran.stdout.splitlines()[1:] == ["0"]
    assert ran.stderr == ""


def test_a_stream_that_fails_in_the_middle_ends_nothing_and_is_told_of_on_the_other(monkeypatch):
    class Breaks(io.StringIO):
        def write(self, text):
            raise OSError(5, "Input/output error")

    err = io.StringIO()
    monkeypatch.setattr(sys, "stdout", Breaks())
    monkeypatch.setattr(sys, "stderr", err)
    with unfailing_streams():
        print("a report")
        print("goes on", file=sys.stderr)
    assert err.getvalue().splitlines()[0] == "goes on"
    assert "could not be printed ([Errno 5] Input/output error)" in err.getvalue()


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_is_asked_for_in_either_way(option, capsys, monkeypatch):
    from nudge_vdb import cli

    monkeypatch.setattr(sys, "argv", ["nudge-vdb", "tune", option])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert not stopped.value.code
    assert "--judgements" in capsys.readouterr().out
