"""Reports as people read them: tables and sentences on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from nudge_vdb.phases import Phases, Step
from nudge_vdb.report import Report

STATES = {"applied": "live", "applying": "not written whole; repeat the command"}
MARKS = {"fine": "✓", "warning": "!", "obstacle": "✗"}
SEARCHES = {"search": "a search in the engine's index", "exact": "an exact search in the engine"}
WORTH_A_WORD = 0.1
"""Seconds of waiting that are."""
SHOWN_IDS = 5
"""How many row ids of a kind are named; --json names all."""


class ShownPhases(Phases):
    """Shows every phase as a bar on stderr."""

    @contextmanager
    def shown(self, name: str, total: int | None) -> Iterator[Step]:
        """Show the phase while it lasts."""
        columns = (SpinnerColumn(), TextColumn("{task.description:<9}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
            task = progress.add_task(name, total=total)
            yield lambda done: progress.update(task, completed=done)
            known = total if total is not None else 1
            progress.update(task, total=known, completed=known)


def plan(report: Report, console: Console) -> None:
    """Show what a plan is worth."""
    table = Table("queries", "", "before", "after", "gain", title=_title(report), title_justify="left")
    for name, kind in _kinds(report):
        table.add_row(name, _scored(report), *_changes(report, kind))
    for name in ("validation", "test"):
        if name in report:
            _add_scores(table, name, f"{report[name]['queries']:,}", report[name]["before"], report[name]["after"])
    console.print(table)
    _say(console, f"{'Proven' if report['proven'] else 'Not proven'}: {report['reason']}.")
    for note in [*_would_pass(report), *report["warnings"], *_plan_notes(report)]:
        _say(console, f"• {note}")


def _say(console: Console, text: str) -> None:
    """Print *text* as it is: row ids and messages may hold what looks like markup."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _title(report: Report) -> str:
    return f"version {report['version']}, {report['method']} at step {report['step']:g}, {report['metric']}"


def _score(value: float) -> str:
    return f"{value:.4f}"


def _scored(report: Report) -> str:
    """Say how many queries were scored, and of how many."""
    if report["scored_queries"] == report["queries"]:
        return f"{report['queries']:,}"
    return f"{report['scored_queries']:,} of {report['queries']:,}"


def _add_scores(table: Table, name: str, queries: str, before: float, after: float) -> None:
    table.add_row(name, queries, _score(before), _score(after), f"{after - before:+.4f}")


def _kinds(report: Report) -> list[tuple[str, str]]:
    """Return the names of the changes that a plan is chosen and proven by, and how their figures begin."""
    share = report.get("cold_share", 0.0)
    if "query_side_of" in report:
        named = [("test, queries multiplied", "")] if report.get("scored_queries") else []
    else:
        cold = [("for rows that nobody judged", "cold_")] if report.get("cold_rows", True) else []
        named = [("for rows that are judged", "warm_"), *cold, (f"weighed {1 - share:g} : {share:g}", "")]
    return [(name, kind) for name, kind in named if kind + "gain" in report]  # versions of early days lack some


def _changes(report: Report, kind: str) -> tuple[str, str, str]:
    """Return what the score of one *kind* was and becomes, and its gain with the interval."""
    gain, low, high = (report[kind + key] for key in ("gain", "gain_low", "gain_high"))
    interval = f"{gain:+.4f}  [{low:+.4f}, {high:+.4f}]"
    return _score(report[kind + "before"]), _score(report[kind + "after"]), interval


def _price(report: Report) -> Iterator[str]:
    """Say what applying costs, where that was worked out."""
    if report.get("rows_to_write") and "minutes" in report:
        yield (
            f"applying writes {report['rows_to_write']:,} rows in about {_lasting(report['minutes'])}, by "
            f"{report['minutes_by']}; the version takes {report['snapshot_bytes'] / 1e6:,.1f} MB"
        )


def _lasting(minutes: float) -> str:
    if minutes >= 1:
        return f"{minutes:,.1f} minutes"
    return f"{60 * minutes:,.0f} seconds" if minutes >= 1 / 60 else "a second"


def _carrying(report: Report) -> Iterator[str]:
    """Say whether unjudged rows are carried, unless nobody asked."""
    if report.get("carried"):
        yield f"{report['carried']:,} of them are carried along with the judged ones ({report['carry_reason']})"
    elif report.get("carry_reason", "asked for") != "asked for":
        yield f"rows that nobody judged are not carried: {report['carry_reason']}"


def _rivals(report: Report) -> Iterator[str]:
    """Say how rivals were found, and what was not looked at for it."""
    if "rivals" not in report:  # a version of early days, or one that was not planned
        return
    if report["rivals"] == "scan":
        yield f"rivals were found by a scan ({report['rivals_reason']})"
        return
    recall = report["rivals_recall"]
    found = "" if recall is None else f", which finds {recall:.3f} of the best rows"
    yield (
        f"rivals were found by {SEARCHES[report['rivals']]}{found} ({report['rivals_reason']}): "
        f"{report['rows_read']:,} rows were read, and the others not looked at, with or without a vector"
    )


def _would_pass(report: Report) -> Iterator[str]:
    for each in report.get("alternatives", []):
        yield (
            f"{each['option']} would pass: {each['warm_gain']:+.4f} for rows that are judged, "
            f"{each['cold_gain']:+.4f} for rows that nobody judged"
        )


def _plan_notes(report: Report) -> Iterator[str]:
    yield f"{report['moved']:,} of {report['rows']:,} rows move"
    yield from _carrying(report)
    yield from _rivals(report)
    if "cold_share_reason" in report:
        yield f"cold share {report['cold_share']:g} ({report['cold_share_reason']})"
    if report["judged_missing"]:
        yield f"judged but not in the collection, or without the vector: {_rows(report['judged_missing'])}"
    if report["rows_without_vector"]:
        yield f"{report['rows_without_vector']:,} rows have no vector in this field"
    if report["rows_not_finite"]:
        yield f"left out, since they hold NaN or infinity: {_rows(report['rows_not_finite'])}"
    if report["re_embedded"]:
        yield f"embedded again by their owner, which is their new base: {_rows(report['re_embedded'])}"
    yield from _price(report)
    if report["status"] in ("prepared", "unproven"):
        yield "nothing was written to the database"


def move(report: Report, console: Console) -> None:
    """Show what became of the rows."""
    right = report["verified"]["tuned"] + report["verified"]["base"]
    _say(console, f"Version {report['version']} is {STATES[report['status']]}.")
    _say(
        console,
        f"{report['written']:,} rows written, {report['already']:,} there already, {right:,} read back and right.",
    )
    if report.get("newly_carried"):
        _say(console, f"• {report['newly_carried']:,} rows are new or embedded again, and were carried")
    if report.get("dropped"):
        _say(
            console,
            f"• dropped versions of earlier carries: {_numbers(report['dropped'])}; they cannot be rolled back to",
        )
    for outcome, texts in report["skipped"].items():
        _say(console, f"• skipped, {outcome}: {_rows(texts)}")
    for note in _waits(report.get("waited", {})):
        _say(console, f"• {note}")
    if report["rebased"]:
        _say(console, f"• kept at the vector of their owner: {_rows(report['rebased'])}")


def _waits(waited: Report) -> Iterator[str]:
    """Say what was waited for."""
    if waited.get("throttle", 0.0) >= WORTH_A_WORD:
        yield f"waited {_lasting(waited['throttle'] / 60)}, as the throttle asks"
    if waited.get("slow_server", 0.0) >= WORTH_A_WORD:
        yield f"waited {_lasting(waited['slow_server'] / 60)}, since the server was slow and its users come first"


def _rows(texts: list[str]) -> str:
    shown = ", ".join(texts[:SHOWN_IDS])
    rest = f" and {len(texts) - SHOWN_IDS:,} more" if len(texts) > SHOWN_IDS else ""
    return f"{len(texts):,} row{'' if len(texts) == 1 else 's'} ({shown}{rest})"


def status(report: Report, console: Console) -> None:
    """Show where the collection stands."""
    _say(console, f"{report['collection']} ({report['engine']})")
    _say(console, f"{report['message']}.")
    _say(console, f"state: {report['state']}")


def history(report: Report, console: Console) -> None:
    """Show the versions, in eighty columns, each with the changes that it was chosen and proven by."""
    _say(console, report["collection"])
    if not report["versions"]:
        _say(console, "no versions yet")
        return
    for version in report["versions"]:
        status = "live" if version["live"] else version["status"]
        _say(
            console,
            f"version {version['version']}, {status}: {version['metric']}, {version['moved']:,} rows moved, "
            f"made {version['created'][:16].replace('T', ' ')}",
        )
        for name, kind in _kinds(version):
            before, after, gain = _changes(version, kind)
            _say(console, f"  {name:<28} {before} → {after}  {gain}")


def findings(report: Report, console: Console) -> None:
    """Show what the rows hold."""
    for name in ("tuned", "base"):
        _say(console, f"{report[name]:,} rows hold their {name} vector, as they should")
    notes = {
        "re_embedded": "embedded again by their owner",
        "missing": "gone",
        "astray": "not written yet, or by another version; 'nudge-vdb status' says how to go on",
    }
    for name, note in notes.items():
        if report[name]:
            _say(console, f"• {note}: {_rows(report[name])}")
    if report["deep"]:
        _say(console, "every file of the state is as it was written")


def diff(report: Report, console: Console) -> None:
    """Show the rows that are at different places."""
    _say(console, f"{report['moved']:,} rows are elsewhere in version {report['other']} than in {report['one']}")
    if report["rows"]:
        far = report["distance"]
        _say(console, f"by {far['least']:.4f} to {far['greatest']:.4f}, {far['median']:.4f} in the middle")
        table = Table("row", "distance")
        for text, distance in report["rows"]:
            table.add_row(Text(text), f"{distance:.4f}")
        console.print(table)
    if report["rebased"]:
        _say(console, f"• embedded again by their owner in between: {_rows(report['rebased'])}")


def pruned(report: Report, console: Console) -> None:
    """Show what became of the versions."""
    _say(console, f"dropped: {_numbers(report['dropped'])}; kept: {_numbers(report['kept'])}")
    for number, rows in report["needed"].items():
        _say(
            console,
            f"• version {number} stays: only it knows the base of {rows:,} rows (--gone: not of those that are gone)",
        )


def _numbers(versions: list[int]) -> str:
    return ", ".join(map(str, versions)) or "none"


def message(report: Report, console: Console) -> None:
    """Show a sentence."""
    _say(console, report["message"])


def diagnosis(report: Report, console: Console) -> None:
    """Show what there is to know."""
    _say(console, f"{report['collection']} ({report['engine']})")
    sample = report["sample"]
    looked = "all looked at" if sample["whole"] else f"the first {sample['rows']:,} looked at"
    _say(
        console,
        f"{report['width']} components, compared by {report['metric']}; about {report['count']:,} rows, {looked}",
    )
    for remark in report["remarks"]:
        _say(console, f"{MARKS[remark['weight']]} {remark['topic']}: {remark['text']}")
    _say(console, "It can be tuned." if report["fit"] else "It cannot be tuned as it is: see ✗ above.")


def evaluation(report: Report, console: Console) -> None:
    """Show the scores."""
    for name, score in report["scores"].items():
        _say(console, f"{name} {score:.4f}")
    _say(console, f"over {report['queries']:,} queries and {report['rows']:,} rows")
    if report["missing"]:
        _say(console, f"• judged but not in the collection: {_rows(report['missing'])}")


def backends(report: Report, console: Console) -> None:
    """Show the backends."""
    for backend in report["backends"]:
        state = "ready" if backend["usable"] else backend["reason"]
        _say(console, f"{backend['backend']} ({backend['package']}): {state}")


def demo(report: Report, console: Console) -> None:
    """Show what the demo proved."""
    for engine in report["engines"]:
        table = Table("held-out test queries", "before", "after", "gain", title=engine["engine"], title_justify="left")
        for name, before in engine["before"].items():
            after = engine["after"][name]
            table.add_row(name, _score(before), _score(after), f"{(after - before) / before:+.0%}")
        console.print(table)
        for proof, held in engine["proofs"].items():
            _say(console, f"{'✓' if held else '✗'} {proof}")
        for warning in engine["warnings"]:
            _say(console, f"• {warning}")
        _say(console, "")
    _hidden(report["hidden"], console)
    _say(console, "Everything held." if report["passed"] else "NOT EVERYTHING HELD: see ✗ above.")


def _hidden(ways: list[Report], console: Console) -> None:
    """Show what becomes of rows whose judgements were hidden, side by side."""
    table = Table(
        "", "before", "after", "gain", title="the judgements of 30 % of the rows hidden", title_justify="left"
    )
    for way in ways:
        for kind, name in (("judged", "rows that are judged"), ("hidden", "rows that nobody judged")):
            before, after = way[kind]["before"], way[kind]["after"]
            table.add_row(f"{way['way']}: {name}", _score(before), _score(after), f"{after - before:+.4f}")
    console.print(table)
    unproven = [way["way"] for way in ways if not way["proven"]]
    if unproven:
        _say(console, f"• not proven, so that nothing would be written: {', '.join(unproven)}")
