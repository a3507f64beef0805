"""The command line: reads options, calls the library, prints what it says."""

from __future__ import annotations

import logging
import sys
import traceback
from dataclasses import asdict
from functools import partial
from importlib import metadata
from pathlib import Path
from tempfile import gettempdir
from typing import Annotated, NoReturn

import typer

import nudge_vdb
from nudge_vdb import render
from nudge_vdb.arguments import (
    Address,
    Call,
    EqualIds,
    Force,
    Grades,
    Json,
    JudgementsPaths,
    Memory,
    Splits,
    StateFolder,
    Test,
    Throttle,
    apart,
    example,
    planning,
)
from nudge_vdb.backends import installed
from nudge_vdb.budget import parse_size
from nudge_vdb.doctor import DEFAULT_ROWS, refuse_obstacles
from nudge_vdb.errors import DONE, ROWS_SKIPPED, BadInput, BadOption, NotProven, NudgeError
from nudge_vdb.formats import load
from nudge_vdb.interruption import INTERRUPTED, end_now, take_termination_for_ctrl_c, was_interrupted
from nudge_vdb.printable import printable
from nudge_vdb.progress import ShownPhases
from nudge_vdb.report import Report
from nudge_vdb.run import Applied, Plan
from nudge_vdb.streams import unfailing_streams
from nudge_vdb.terminal import fail, opened, own_log, print_warnings_of_others, show, told

app = typer.Typer(
    name="nudge-vdb",
    help="Fine-tune the vectors of a live collection with NUDGE: proven before anything is written, undone at will.",
    epilog="Exit status: 0 done, 2 bad input, 3 no proven gain and nothing written, "
    "or a score below --fail-below, 4 done but rows were skipped, or are not where the live version wants them, "
    "5 another run holds the lock, 6 engine unreachable or refused, 7 state damaged, 130 interrupted, 1 anything else.",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)] = False,
) -> None:
    """Take the options of the command itself."""
    if version:
        print(f"nudge-vdb {metadata.version('nudge-vdb')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command(
    epilog=example(
        "tune ADDRESS --judgements judgements.jsonl --test test.jsonl",
        "tune ADDRESS --judgements beir/articles --split train --carry auto",
    )
)
@partial(planning, first=refuse_obstacles)
def tune(plan: Plan, call: Call) -> None:
    """Plan, and write the plan to the database if its gain is proven."""
    if not plan.proven and not call.force:
        show(plan.report, call.as_json, render.plan)
        raise typer.Exit(NotProven.exit_status)
    _apply(plan, call)


@app.command(epilog=example("plan ADDRESS --judgements judgements.jsonl --max-cold-loss 0.01"))
@planning
def plan(plan: Plan, call: Call) -> None:
    """Work out a version and keep it for 'apply'; write nothing to the database."""
    show(plan.report, call.as_json, render.plan)
    raise typer.Exit(DONE if plan.proven or call.force else NotProven.exit_status)


@app.command(epilog=example("apply ADDRESS", "apply ADDRESS 3 --throttle 500"))
def apply(
    address: Address,
    version: Annotated[
        int | None, typer.Argument(help="By default an interrupted one, else the newest never applied.")
    ] = None,
    state: StateFolder = None,
    force: Force = False,
    throttle: Throttle = None,
    as_json: Json = False,
) -> None:
    """Write a prepared version to the database."""
    with opened(address) as collection:
        refuse_obstacles(collection)
        plan = nudge_vdb.prepared(collection, version, state=state, phases=ShownPhases())
        _apply(plan, Call(address, state, force, as_json, throttle))


def _apply(plan: Plan, call: Call) -> None:
    """Write *plan*, show what became of it, and how to undo it."""
    before = plan.state.journal.live
    applied = nudge_vdb.apply(plan, force=call.force, throttle=call.throttle)
    show(applied.report, call.as_json, render.plan, render.move)
    if not call.as_json and before != plan.version.number:
        print(printable(f"Undo with: {call.undo(before)}"))
    raise typer.Exit(_exit_status(applied))


@app.command(epilog=example("rollback ADDRESS --to 0"))
def rollback(
    address: Address,
    to: Annotated[int, typer.Option(help="A version that was applied once; 0 is the base.")],
    throttle: Throttle = None,
    state: StateFolder = None,
    as_json: Json = False,
) -> None:
    """Bring the collection to another version, back or forth."""
    with opened(address) as collection:
        applied = nudge_vdb.rollback(collection, to=to, state=state, throttle=throttle, phases=ShownPhases())
    show(applied.report, as_json, render.move)
    raise typer.Exit(_exit_status(applied))


@app.command(epilog=example("carry ADDRESS --json"))
def carry(
    address: Address,
    gone: Annotated[bool, typer.Option("--gone", help="Rows that are not there are gone for good.")] = False,
    memory: Memory = "512MB",
    throttle: Throttle = None,
    state: StateFolder = None,
    as_json: Json = False,
) -> None:
    """Carry the rows that are new, or embedded again, since the live version was made; for a nightly job."""
    with opened(address) as collection:
        size = parse_size(memory)
        applied = nudge_vdb.carry(
            collection, gone=gone, throttle=throttle, memory=size, state=state, phases=ShownPhases()
        )
    show(applied.report, as_json, render.move)
    raise typer.Exit(_exit_status(applied))


@app.command("export-map", epilog=example("export-map ADDRESS queries.npy --version 2 --test test.jsonl"))
def export_map(
    address: Address,
    out: Annotated[Path, typer.Argument(help="Where the matrix goes: a .npy file of width × width.")],
    version: Annotated[int, typer.Option(help="A version made with --carry.")],
    test: Test = None,
    min_gain: Annotated[float | None, typer.Option(help="The gain that must be proven [as for the version].")] = None,
    confidence: Annotated[
        float | None, typer.Option(help="The confidence of the interval [as for the version].")
    ] = None,
    memory: Memory = "512MB",
    state: StateFolder = None,
    as_json: Json = False,
) -> None:
    """Carry on the query side: write a matrix for the queries, and prepare a version of the judged rows alone."""
    held_out = apart(test, "test")
    with opened(address) as collection:
        plan = nudge_vdb.export_map(
            collection,
            out,
            version=version,
            test=held_out,
            min_gain=min_gain,
            confidence=confidence,
            memory=parse_size(memory),
            state=state,
            phases=ShownPhases(),
        )
    show(plan.report, as_json, render.plan)
    if not as_json:
        print(printable(f"The matrix is in {out}; 'nudge-vdb apply' writes the rows that go with it."))
    raise typer.Exit(DONE if plan.proven else NotProven.exit_status)


@app.command(epilog=example("resume ADDRESS"))
def resume(address: Address, throttle: Throttle = None, state: StateFolder = None, as_json: Json = False) -> None:
    """Finish what was interrupted, forth or back."""
    with opened(address) as collection:
        applied = nudge_vdb.resume(collection, state=state, throttle=throttle, phases=ShownPhases())
        if applied is None:
            _show_status(nudge_vdb.status(collection, state=state), as_json)
            return
    show(applied.report, as_json, render.move)
    raise typer.Exit(_exit_status(applied))


@app.command(epilog=example("status ADDRESS"))
def status(
    address: Address,
    deep: Annotated[
        bool, typer.Option("--deep", help="Look at all rows that were ever moved, not at a sample.")
    ] = False,
    state: StateFolder = None,
    as_json: Json = False,
) -> None:
    """Say which version is live, whether the rows hold it, and what to do next."""
    with opened(address) as collection:
        _show_status(nudge_vdb.status(collection, state=state, deep=deep), as_json)


def _show_status(report: Report, as_json: bool) -> None:
    """Show where the collection stands, and exit by whether the rows are where the live version wants them."""
    show(report, as_json, render.status)
    raise typer.Exit(ROWS_SKIPPED if report["rows"] and report["next"] else DONE)


@app.command(epilog=example("history ADDRESS"))
def history(address: Address, state: StateFolder = None, as_json: Json = False) -> None:
    """List the versions with their figures."""
    with opened(address) as collection:
        versions = nudge_vdb.history(collection, state=state)
        show({"collection": collection.traits.identity, "versions": versions}, as_json, render.history)


@app.command(epilog=example("diff ADDRESS 0 1 --limit 50"))
def diff(
    address: Address,
    one: Annotated[int, typer.Argument(help="A version; 0 is the base.")],
    other: Annotated[int, typer.Argument(help="Another version.")],
    limit: Annotated[int, typer.Option(min=0, help="Show at most so many rows, the farthest first; 0 is all.")] = 20,
    state: StateFolder = None,
    as_json: Json = False,
) -> None:
    """List the rows that two versions have in different places, and how far apart."""
    with opened(address) as collection:
        found = nudge_vdb.diff(collection, one, other, state=state)
    shown = found.moves[: limit or None]
    report = {"one": one, "other": other, "moved": len(found.moves), "distance": found.quantiles()}
    rows = {"rows": [(move.row, move.distance) for move in shown], "moves": [move.as_report() for move in shown]}
    show({**report, **rows, "rebased": found.rebased}, as_json, render.diff)


@app.command(epilog=example("prune ADDRESS --keep 3"))
def prune(
    address: Address,
    keep: Annotated[int, typer.Option(help="How many of the newest versions stay, besides the live one.")],
    gone: Annotated[bool, typer.Option("--gone", help="Rows that are not there are gone for good.")] = False,
    state: StateFolder = None,
    as_json: Json = False,
) -> None:
    """Drop old versions; one that alone knows the base of a row stays."""
    with opened(address) as collection:
        pruned = nudge_vdb.prune(collection, keep=keep, gone=gone, state=state, phases=ShownPhases())
    show(asdict(pruned), as_json, render.pruned)


@app.command(epilog=example("adopt ADDRESS --state /mnt/nudge-vdb"))
def adopt(
    address: Address,
    as_base: Annotated[
        bool, typer.Option("--as-base", help="The state is lost: take the vectors as they are now for the base.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Also where the collection's note names another state, a newer one, or none."),
    ] = False,
    state: StateFolder = None,
    as_json: Json = False,
) -> None:
    """Make the state in a folder that of a collection, which was moved, goes by another name, or lost its state."""
    with opened(address) as collection:
        said = nudge_vdb.adopt(collection, state=state, as_base=as_base, force=force)
    show({"message": said}, as_json, render.message)


@app.command(epilog=example("doctor ADDRESS"))
def doctor(
    address: Address,
    rows: Annotated[int, typer.Option(help="Look at so many rows.")] = DEFAULT_ROWS,
    state: StateFolder = None,
    as_json: Json = False,
) -> None:
    """Say what there is to know of a collection before it is tuned; read only."""
    with opened(address) as collection:
        found = nudge_vdb.diagnose(collection, rows=rows, state=state, phases=ShownPhases())
    show(found, as_json, render.diagnosis)
    raise typer.Exit(DONE if found["fit"] else BadInput.exit_status)


@app.command(epilog=example("verify ADDRESS --deep"))
def verify(
    address: Address,
    deep: Annotated[bool, typer.Option("--deep", help="Compare every file of the state with its digest too.")] = False,
    throttle: Throttle = None,
    state: StateFolder = None,
    as_json: Json = False,
) -> None:
    """Compare the database with the state: which rows hold what they should?"""
    with opened(address) as collection:
        findings = nudge_vdb.verify(collection, state=state, deep=deep, throttle=throttle, phases=ShownPhases())
    show({**asdict(findings), "deep": deep}, as_json, render.findings)
    raise typer.Exit(DONE if findings.clean else ROWS_SKIPPED)


@app.command(
    epilog=example(
        "evaluate ADDRESS --judgements test.jsonl --metric ndcg@10,recall@20",
        "evaluate ADDRESS --judgements test.jsonl --version 0",
    )
)
def evaluate(
    address: Address,
    judgements: JudgementsPaths,
    split: Splits = None,
    metric: Annotated[str, typer.Option(help="One or more, separated by commas.")] = "ndcg@10",
    grades: Grades = False,
    version: Annotated[
        int | None, typer.Option(help="Score this version without writing it, 0 being the base [the live vectors].")
    ] = None,
    missing: Annotated[
        str, typer.Option(help="Judged rows that are not there: skip them, or zero, as trec_eval does.")
    ] = "skip",
    fail_below: Annotated[
        float | None, typer.Option(help="Exit with status 3 if the score by the first metric is below this, 0 to 1.")
    ] = None,
    memory: Memory = "512MB",
    state: StateFolder = None,
    equal_ids: EqualIds = "join",
    as_json: Json = False,
) -> None:
    """Score the live vectors, or those of a version, on judgements."""
    least = 0.0 if fail_below is None else fail_below
    if not 0 <= least <= 1:
        raise BadOption(f"fail_below {least!r}: expected 0 to 1")
    given = load(judgements, split or [], equal_ids)
    with opened(address) as collection:
        found = nudge_vdb.evaluate(
            collection,
            given,
            metric=metric,
            grades=grades,
            memory=parse_size(memory),
            version=version,
            missing=missing,
            state=state,
            phases=ShownPhases(),
        )
    score = next(iter(found.scores.values()))
    passed = score >= least
    report = {"metric": metric, "score": score, **asdict(found), "fail_below": fail_below, "passed": passed}
    show(report, as_json, render.evaluation)
    raise typer.Exit(DONE if passed else NotProven.exit_status)


@app.command(epilog=example("backends"))
def backends(as_json: Json = False) -> None:
    """List the backends that are installed."""
    show({"backends": installed()}, as_json, render.backends)


@app.command(epilog=example("demo"))
def demo(
    folder: Annotated[Path | None, typer.Option(help="Where to work; by default a folder that is removed.")] = None,
    state: StateFolder = None,
    as_json: Json = False,
) -> None:
    """Tune a small collection in each embedded engine, prove that nothing else changed, and undo it."""
    from nudge_vdb.demo import run_demo

    report = run_demo(folder, state, ShownPhases)
    show(report, as_json, render.demo)
    raise typer.Exit(DONE if report["passed"] else NudgeError.exit_status)


def _exit_status(applied: Applied) -> int:
    return ROWS_SKIPPED if any(applied.skipped.values()) else DONE


def main() -> None:
    """Run the command line and exit with the status that the outcome calls for."""
    with unfailing_streams():
        logging.basicConfig(handlers=[own_log()])
        print_warnings_of_others()
        take_termination_for_ctrl_c()
        _run()


def _run() -> NoReturn:
    try:
        status = app(standalone_mode=False) or DONE
        if status == INTERRUPTED:
            raise typer.Abort
        sys.exit(status)
    except NudgeError as exc:
        fail(type(exc).__name__, str(exc), exc.exit_status)
    except typer.TyperException as exc:
        fail("BadUsage", told(exc), BadInput.exit_status)
    except (typer.Abort, KeyboardInterrupt):
        end = end_now if was_interrupted() else sys.exit  # what threads wait for, nobody does
        fail("Interrupted", "'nudge-vdb status ADDRESS' says where it stopped and how to go on", INTERRUPTED, end)
    except OSError as exc:
        fail("BadInput", _in_words(exc), BadInput.exit_status)
    except Exception as exc:  # a defect of ours: the traceback is for the report of it
        print(printable(traceback.format_exc(), keep="\n"), file=sys.stderr, end="")
        fail(type(exc).__name__, str(exc), NudgeError.exit_status)


def _in_words(failure: OSError) -> str:
    """Say what the system refused, and where: of a move that had begun to write, its own error tells."""
    place = f"{failure.filename} cannot be used" if failure.filename else "a file cannot be written or read"
    where = "" if failure.filename else f" (files go to the state folder and to the temporary folder {gettempdir()})"
    return f"{place}: {failure.strerror or failure}{where}; nothing was written to the database"
