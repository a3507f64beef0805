"""Text of others on the terminal, in the log and in JSON."""

import io
import json
import logging
import sys
import threading
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from nudge_vdb import cli, render
from nudge_vdb.arguments import Call
from nudge_vdb.notes import Note
from nudge_vdb.printable import finite, json_text, printable
from nudge_vdb.terminal import OneLine, print_warnings_of_others

EVIL = [
    "a\x1b]0;pwned\x07",
    "b\x1b[2J",
    "c\nVersion 9 is live.",
    "d\x9b31m",
    "\u202egnp.exe",
    "e\u2066f\u200b",
    "\x7f\ud800",
]


@given(st.text())
def test_what_is_shown_moves_no_cursor_hides_nothing_and_is_one_line(text):
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1
    shown.encode()


@pytest.mark.parametrize("text", ["plain", "日本 · café → 😀", "[red]not markup[/]", "C:\\x"])
def test_what_people_write_is_shown_as_it_is(text):
    assert printable(text) == text


@given(st.dictionaries(st.text(), st.floats() | st.text() | st.lists(st.floats())))
def test_json_is_what_every_parser_reads_and_hides_nothing(content):
    text = json_text(content)
    assert text.isprintable()

    def refuse(constant):
        raise ValueError(constant)

    assert json.loads(text, parse_constant=refuse) == finite(content)


def test_numbers_that_are_not_finite_are_null_at_any_depth():
    assert finite({"a": [1.0, float("nan")], "b": {"c": float("-inf")}, "d": (np.float64("inf"), 2)}) == {
        "a": [1.0, None], "b": {"c": None}, "d": [None, 2],
    }  # fmt: skip


def told(picture, report):
    out = io.StringIO()
    picture(report, Console(file=out, width=200, force_terminal=True))
    return out.getvalue()


FINDINGS = {"tuned": 1, "base": 0, "re_embedded": EVIL, "missing": EVIL, "astray": EVIL, "deep": False, "next": EVIL[2]}
MOVES = [{"row": each, "distance": 0.1, "cosine": 0.9, "degrees": 10.0} for each in EVIL]
FAR = {"least": 0, "median": 0, "greatest": 0}
REPORTS = {
    "findings": FINDINGS,
    "diff": {"moved": 7, "one": 0, "other": 1, "distance": FAR, "rows": EVIL, "moves": MOVES, "rebased": EVIL},
    "message": {"message": EVIL[2]},
    "status": {"collection": EVIL[0], "engine": EVIL[1], "message": EVIL[2], "state": EVIL[3]},
}


@pytest.mark.parametrize("name", REPORTS)
def test_no_report_forges_a_line_or_reaches_the_terminal(name):
    shown = told(getattr(render, name), REPORTS[name])
    assert all(line.isprintable() for line in shown.splitlines())
    assert not any(line.startswith("Version 9 is live") for line in shown.splitlines())


def test_markup_of_others_is_shown_as_text():
    assert "[link=http://x]y[/]" in told(render.message, {"message": "[link=http://x]y[/]"})


def test_a_note_that_others_left_says_nothing_to_the_terminal():
    assert Note("abc", 1, "", {}, "host\x1b[2J", "/x\nFAKE").origin.isprintable()


def test_a_line_of_the_log_is_one_line():
    record = logging.LogRecord("nudge_vdb", logging.WARNING, "", 0, "rows %s", (EVIL[2] + EVIL[1],), None)
    assert OneLine().format(record) == "rows c\\nVersion 9 is live.b\\x1b[2J"


def test_an_error_that_quotes_others_is_one_line_on_stderr(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["nudge-vdb", "status", "qdrant+local:///nowhere/\x1b[2Jx\nVersion 9 is live."])
    with pytest.raises(SystemExit):
        cli.main()
    err = capsys.readouterr().err
    assert "\x1b[2J" not in err
    assert not any(line.startswith("Version 9") for line in err.splitlines())


def test_the_traceback_of_a_defect_says_nothing_to_the_terminal(monkeypatch, capsys):
    def broken(*_, **__):
        raise ZeroDivisionError("\x1b[2J")

    monkeypatch.setattr("nudge_vdb.connect", broken)
    monkeypatch.setattr(sys, "argv", ["nudge-vdb", "status", "x"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "\x1b[2J" not in err


def test_what_clients_warn_of_and_what_ends_their_threads_moves_no_cursor(monkeypatch, capsys):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    print_warnings_of_others()

    def end():
        raise RuntimeError(EVIL[1])

    for evil in EVIL:
        warnings.showwarning(UserWarning(evil), UserWarning, "client.py", 1)
    thread = threading.Thread(target=end)
    thread.start()
    thread.join()
    lines = capsys.readouterr().err.splitlines()
    assert lines[: len(EVIL)] == [f"UserWarning: {printable(evil)}" for evil in EVIL]
    assert lines[-1] == f"RuntimeError: {printable(EVIL[1])}"
    assert all(line.isprintable() for line in lines)


def test_the_command_that_undoes_moves_no_cursor(monkeypatch, capsys):
    applied = SimpleNamespace(report={}, skipped={})
    plan = SimpleNamespace(state=SimpleNamespace(journal=SimpleNamespace(live=0)), version=SimpleNamespace(number=1))
    monkeypatch.setattr("nudge_vdb.apply", lambda *_, **__: applied)
    monkeypatch.setattr(cli, "show", lambda *_: None)
    with pytest.raises(typer.Exit):
        cli._apply(plan, Call(f"qdrant://host/{EVIL[1]}", None, False, False, None))
    assert capsys.readouterr().out.removesuffix("\n").isprintable()
