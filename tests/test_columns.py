"""Tables that no terminal cuts."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from nudge_vdb import render
from nudge_vdb.columns import laid_out

NAMES = st.text("abc ", min_size=1, max_size=30)
CELLS = st.lists(st.text("0123456789.+-", min_size=1, max_size=20), min_size=3, max_size=3)
PLAN = {
    "version": 12, "method": "nudge-n", "step": 0.04, "metric": "ndcg@10", "queries": 10_000, "scored_queries": 2_000,
    "cold_share": 0.3, "proven": True, "reason": "the interval lies above 0", "warnings": [], "moved": 80, "rows": 200,
    "judged_missing": [], "rows_without_vector": 0, "rows_not_finite": [], "re_embedded": [], "status": "applied",
    "test": {"queries": 1_000, "before": 0.1, "after": 0.2},
    **{
        kind + name: value
        for kind in ("warm_", "cold_", "")
        for name, value in [("before", 0.4), ("after", 0.43), ("gain", 0.03), ("gain_low", -0.01), ("gain_high", 0.05)]
    },
}  # fmt: skip


@given(rows=st.lists(st.tuples(NAMES, CELLS), max_size=5), width=st.integers(1, 120))
def test_no_cell_is_cut_or_broken_however_narrow_the_terminal_is(rows, width):
    lines = list(laid_out(("before", "after", "gain"), rows, width))
    text = "\n".join(lines)
    assert all(cell in text for _, cells in rows for cell in cells)
    in_columns = bool(lines) and lines[0].split() == ["before", "after", "gain"]
    assert not in_columns or max(map(len, lines)) <= width


@pytest.mark.parametrize("width", [40, 80])
def test_the_figures_of_a_plan_stand_whole_in_a_line_of_a_terminal_of(width):
    out = io.StringIO()
    render.plan(PLAN, Console(file=out, width=width))
    table = out.getvalue().split("Proven")[0].splitlines()[1:]
    assert max(map(len, table)) <= width
    assert sum("[-0.0100, +0.0500]" in line for line in table) == 3


def test_a_wide_terminal_shows_the_figures_of_a_name_in_one_line():
    lines = list(laid_out(("before", "after"), [("rows", ("0.1", "0.25")), ("longer name", ("12.5", ""))], 40))
    assert lines == [
        "               before  after",
        "  rows            0.1   0.25",
        "  longer name    12.5",
    ]


def test_a_narrow_terminal_shows_every_figure_behind_its_heading():
    lines = list(laid_out(("before", "after"), [("rows", ("0.1", "")), ("others", ("0.3", "0.4"))], 20))
    assert lines == ["  rows", "    before 0.1", "  others", "    before 0.3", "    after 0.4"]
