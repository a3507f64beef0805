"""Reports as people read them: tables and sentences on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console

from nudge_vdb.columns import Row, laid_out
from nudge_vdb.printable import printable
from nudge_vdb.report import Report

STATES = {"applied": "live", "applying": "not written whole; repeat the command"}
MARKS = {"fine": "✓", "warning": "!", "obstacle": "✗"}
SEARCHES = {"search": "a search in the engine's index", "exact": "an exact search in the engine"}
CHANGES = ("before", "after", "gain", "interval")
LARGE = 1000
"""Of fewer rows to write, nothing is said of what that does to the index."""
WORTH_A_WORD = 0.1
"""Seconds of waiting that are."""
SHOWN_IDS = 5
"""How many row ids of a kind are named; --json names all."""


def plan(report: Report, console: Console) -> None:
    """Show what a plan is worth."""
    _say(console, _title(report))
    _table(console, CHANGES, [*_proven_changes(report), *_apart_changes(report)])
    _say(console, f"{'Proven' if report['proven'] else 'Not proven'}: {report['reason']}.")
    warnings = [*report["warnings"], *report.get("state_warnings", [])]
    for note in [*_would_pass(report), *warnings, *_plan_notes(report)]:
        _say(console, f"• {note}")


def _say(console: Console, text: str) -> None:
    """Print *text* as one line: row ids and messages may hold what looks like markup, or moves the cursor."""
    console.print(printable(text), highlight=False, markup=False, soft_wrap=True)


def _table(console: Console, headings: Sequence[str], rows: Sequence[Row]) -> None:
    for line in laid_out(headings, rows, console.width):
        _say(console, line)


def _title(report: Report) -> str:
    return (
        f"version {report['version']}, {report['method']} at step {report['step']:g}, {report['metric']}, "
        f"{_scored(report)} queries"
    )


def _score(value: float) -> str:
    return f"{value:.4f}"


def _scored(report: Report) -> str:
    """Say how many queries were scored, and of how many."""
    if report["scored_queries"] == report["queries"]:
        return f"{report['queries']:,}"
    return f"{report['scored_queries']:,} of {report['queries']:,}"


def _proven_changes(report: Report) -> list[Row]:
    return [(name, _changes(report, kind)) for name, kind in _kinds(report)]


def _apart_changes(report: Report) -> list[Row]:
    """Return the scores of queries that did not train."""
    apart = [(name, report[name]) for name in ("validation", "test") if name in report]
    return [
        (f"{name} ({found['queries']:,} queries)", (*_change(found["before"], found["after"]), ""))
        for name, found in apart
    ]


def _change(before: float, after: float) -> tuple[str, str, str]:
    return _score(before), _score(after), f"{after - before:+.4f}"


def _kinds(report: Report) -> list[tuple[str, str]]:
    """Return the names of the changes that a plan is chosen and proven by, and how their figures begin."""
    share = report.get("cold_share", 0.0)
    if "query_side_of" in report:
        named = [("test, queries multiplied", "")] if report.get("scored_queries") else []
    else:
        cold = [("for rows that nobody judged", "cold_")] if report.get("cold_rows", True) else []
        named = [("for rows that are judged", "warm_"), *cold, (f"weighed {1 - share:g} : {share:g}", "")]
    return [(name, kind) for name, kind in named if kind + "gain" in report]  # versions of early days lack some


def _changes(report: Report, kind: str) -> tuple[str, str, str, str]:
    """Return what the score of one *kind* was and becomes, its gain, and the interval of that."""
    gain, low, high = (report[kind + key] for key in ("gain", "gain_low", "gain_high"))
    scores = _score(report[kind + "before"]), _score(report[kind + "after"])
    return *scores, f"{gain:+.4f}", f"[{low:+.4f}, {high:+.4f}]"


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
    if report.get("alternatives_left_out"):
        yield report["alternatives_left_out"]


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
    if report.get("rows_to_write", 0) >= LARGE:
        told = [each for each in report.get("advice", []) if each["weight"] == "fine"]  # the others are warnings
        yield from (f"{each['topic']}: {each['text']}" for each in told)
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
    if report.get("at_base_again"):
        _say(console, f"• {report['at_base_again']:,} rows were at their base again, written by another; they are back")
    for warning in report.get("move_warnings", []):
        _say(console, f"• {warning}")
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
        for note in _made_with(version):
            _say(console, f"  {note}")
        _table(console, CHANGES, _proven_changes(version))


def _made_with(version: Report) -> Iterator[str]:
    """Say how a version was made; versions of early days do not tell all of it."""
    told = [f"{version['method']} at step {version['step']:g}"]
    told += ["grades count"] if version.get("grades") else []
    told += [f"cold share {version['cold_share']:g}"] if "cold_share" in version else []
    told += [f"{version['carried']:,} rows carried"] if version.get("carried") else []
    yield ", ".join(told)
    source = version.get("judgements_from") or "judgements"
    yield f"{source}, digest {str(version['judgements'])[:12]}"


def findings(report: Report, console: Console) -> None:
    """Show what the rows hold."""
    for name in ("tuned", "base"):
        _say(console, f"{report[name]:,} rows hold their {name} vector, as they should")
    notes = {
        "re_embedded": "embedded again by their owner",
        "missing": "gone",
        "astray": "not where they should be: not written yet, at their base again, or written by another version",
    }
    for name, note in notes.items():
        if report[name]:
            _say(console, f"• {note}: {_rows(report[name])}")
    if report.get("next"):
        _say(console, f"Go on with: {report['next']}")
    if report["deep"]:
        _say(console, "every file of the state is as it was written")


def diff(report: Report, console: Console) -> None:
    """Show the rows that are at different places."""
    _say(console, f"{report['moved']:,} rows are elsewhere in version {report['other']} than in {report['one']}")
    if report["rows"]:
        far = report["distance"]
        _say(console, f"by {far['least']:.4f} to {far['greatest']:.4f}, {far['median']:.4f} in the middle")
        _table(console, ("distance", "cosine", "angle"), [_moved(each) for each in report.get("moves", [])])
    if report["rebased"]:
        _say(console, f"• embedded again by their owner in between: {_rows(report['rebased'])}")


def _moved(move: Report) -> Row:
    return printable(move["row"]), (f"{move['distance']:.4f}", f"{move['cosine']:.4f}", f"{move['degrees']:.1f}°")


def pruned(report: Report, console: Console) -> None:
    """Show what became of the versions."""
    _say(console, f"dropped: {_numbers(report['dropped'])}; kept: {_numbers(report['kept'])}")
    for number, rows in report["needed"].items():
        _say(
            console,
            f"• version {number} stays: only it knows the base of {rows:,} rows (--gone: not of those that are gone)",
        )

    if report["remembered"]:
        _say(
            console,
            f"• of {report['remembered']:,} of their rows, {report['remembered_bytes'] / 1e6:,.1f} MB are kept, so "
            "that vectors that come back with a restored backup are known, and can be undone",
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
    what = "the live vectors" if report["version"] is None else f"version {report['version']}"
    _say(console, f"{what}, over {report['queries']:,} queries and {report['rows']:,} rows")
    if not report["passed"]:
        _say(console, f"• {report['score']:.4f} is below {report['fail_below']:g}, which --fail-below asks for")
    if report["trained"]:
        _say(console, f"• {report['trained']:,} of the queries trained what is scored, which flatters it")
    for name, score in (report["unseen_scores"] or {}).items():
        _say(console, f"  over the others: {name} {score:.4f}")
    if report["unanswered"]:
        _say(console, f"• {report['unanswered']:,} further queries have no grade above 0, and are not scored")
    if report["missing"]:
        _say(console, f"• judged but not in the collection: {_rows(report['missing'])}; {_of_missing(report)}")


def _of_missing(report: Report) -> str:
    """Say what the score makes of judged rows that are not there."""
    queries = f"{report['queries_missing']:,} queries that have no other"
    if report["missing_count"] == "zero":
        return f"they count as not found, and {queries} as 0, as in trec_eval"
    return f"they are left out, and {queries}; with --missing zero they count as not found, as in trec_eval"


def backends(report: Report, console: Console) -> None:
    """Show the backends."""
    for backend in report["backends"]:
        state = "ready" if backend["usable"] else backend["reason"]
        _say(console, f"{backend['backend']} ({backend['package']}): {state}")


def demo(report: Report, console: Console) -> None:
    """Show what the demo proved."""
    for engine in report["engines"]:
        _say(console, f"{engine['engine']}, held-out test queries")
        scores = [(name, before, engine["after"][name]) for name, before in engine["before"].items()]
        relative = [(name, (_score(old), _score(new), f"{(new - old) / old:+.0%}")) for name, old, new in scores]
        _table(console, ("before", "after", "gain"), relative)
        for proof, held in engine["proofs"].items():
            _say(console, f"{'✓' if held else '✗'} {proof}")
        for warning in engine["warnings"]:
            _say(console, f"• {warning}")
        _say(console, "")
    _hidden(report["hidden"], console)
    _say(console, "Everything held." if report["passed"] else "NOT EVERYTHING HELD: see ✗ above.")


def _hidden(ways: list[Report], console: Console) -> None:
    """Show what becomes of rows whose judgements were hidden, side by side."""
    _say(console, "the judgements of 30 % of the rows hidden")
    named = (("judged", "for rows that are judged"), ("hidden", "for rows that nobody judged"))
    for way in ways:
        _say(console, way["way"])
        scores = [(name, _change(way[kind]["before"], way[kind]["after"])) for kind, name in named]
        _table(console, ("before", "after", "gain"), scores)
    unproven = [way["way"] for way in ways if not way["proven"]]
    if unproven:
        _say(console, f"• not proven, so that nothing would be written: {', '.join(unproven)}")
