"""The command line: reads options, calls the library, prints what it says."""

from __future__ import annotations

import json
import logging
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import nudge_vdb
from nudge_vdb import render
from nudge_vdb.backends import installed
from nudge_vdb.contract import Collection
from nudge_vdb.doctor import DEFAULT_ROWS, refuse_obstacles
from nudge_vdb.errors import DONE, ROWS_SKIPPED, BadInput, NotProven, NudgeError
from nudge_vdb.formats import load
from nudge_vdb.judgements import Judgements
from nudge_vdb.render import ShownPhases
from nudge_vdb.report import Report
from nudge_vdb.run import Applied, Plan

app = typer.Typer(
    name="nudge-vdb",
    help="Fine-tune the vectors of a live collection with NUDGE: proven before anything is written, undone at will.",
    epilog="Exit status: 0 done, 2 bad input, 3 no proven gain and nothing written, 4 done but rows were skipped, "
    "5 another run holds the lock, 6 engine unreachable or refused, 7 state damaged, 130 interrupted, 1 anything else.",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Address = Annotated[str, typer.Argument(help="Such as qdrant://localhost:6333/articles?vector=title")]
JudgementsPath = Annotated[Path, typer.Option("--judgements", help="A JSONL file, a BEIR folder or its qrels file.")]
Splits = Annotated[list[str] | None, typer.Option("--split", help="A split of the BEIR folder; may be repeated.")]
Validation = Annotated[Path | None, typer.Option(help="Judgements to score apart; of a BEIR folder, its split dev.")]
Test = Annotated[Path | None, typer.Option(help="Judgements to score apart; of a BEIR folder, its split test.")]
StateFolder = Annotated[Path | None, typer.Option("--state", help="Where versions are kept [$NUDGE_VDB_STATE].")]
Metric = Annotated[str, typer.Option(help="ndcg@K, recall@K, mrr@K or precision@K.")]
Method = Annotated[str, typer.Option(help="nudge-n, or nudge-m for inner product.")]
Step = Annotated[float | None, typer.Option(help="A fixed step instead of the best one.")]
Grades = Annotated[bool, typer.Option("--grades", help="Let grades weigh the pulls and the metric.")]
ColdShare = Annotated[
    float | None,
    typer.Option(help="Share of searches for rows nobody judged, 0 to 1 [0.3; 0 where every row is judged]."),
]
MaxColdLoss = Annotated[float | None, typer.Option(help="Refuse a plan that takes more from rows nobody judged.")]
Carrying = Annotated[str, typer.Option(help="Move rows nobody judged along with the others: off, on or auto.")]
MaxRows = Annotated[int, typer.Option(help="With --carry auto, write no more rows than this.")]
MinGain = Annotated[float, typer.Option(help="The gain that must be proven.")]
Confidence = Annotated[float, typer.Option(help="Of the interval of the gain.")]
MaxQueries = Annotated[int, typer.Option(help="Score at most so many queries; all of them train.")]
Seed = Annotated[int, typer.Option(help="Of every random choice.")]
Force = Annotated[bool, typer.Option("--force", help="Go on although the gain is not proven; search may get worse.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout; the rest goes to stderr.")]


INTERRUPTED = 130


@dataclass(frozen=True)
class Call:
    """How a command was called."""

    address: str
    state: Path | None
    force: bool
    as_json: bool

    def undo(self, version: int) -> str:
        """Return the command that goes back to *version*, ready to be pasted."""
        state = ["--state", str(self.state)] if self.state else []
        return shlex.join(["nudge-vdb", "rollback", self.address, "--to", str(version), *state])


Command = Callable[[Plan, Call], None]


def planning(command: Command, first: Callable[[Collection], None] = lambda _: None) -> Callable[..., None]:
    """Turn *command*, which takes a plan, into one that takes the options that make a plan; *first* may refuse."""

    def planned(
        address: Address,
        judgements: JudgementsPath,
        split: Splits = None,
        validation: Validation = None,
        test: Test = None,
        state: StateFolder = None,
        metric: Metric = "ndcg@10",
        method: Method = "nudge-n",
        step: Step = None,
        grades: Grades = False,
        cold_share: ColdShare = None,
        max_cold_loss: MaxColdLoss = None,
        carry: Carrying = "off",
        max_rows: MaxRows = 1_000_000,
        min_gain: MinGain = 0.0,
        confidence: Confidence = 0.95,
        max_queries: MaxQueries = 2000,
        seed: Seed = 0,
        force: Force = False,
        as_json: Json = False,
    ) -> None:
        with opened(address) as collection:
            first(collection)
            plan = nudge_vdb.plan(
                collection,
                load(judgements, split or []),
                state=state,
                validation=_apart(validation, "dev"),
                test=_apart(test, "test"),
                phases=ShownPhases(),
                metric=metric,
                method=method,
                step=step,
                grades=grades,
                cold_share=cold_share,
                max_cold_loss=max_cold_loss,
                carry=carry,
                max_rows=max_rows,
                min_gain=min_gain,
                confidence=confidence,
                max_queries=max_queries,
                seed=seed,
            )
            command(plan, Call(address, state, force, as_json))

    planned.__name__, planned.__doc__ = command.__name__, command.__doc__
    return planned


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


@app.command()
@partial(planning, first=refuse_obstacles)
def tune(plan: Plan, call: Call) -> None:
    """Plan, and write the plan to the database if its gain is proven."""
    if not plan.proven and not call.force:
        show(plan.report, call.as_json, render.plan)
        raise typer.Exit(NotProven.exit_status)
    _apply(plan, call)


@app.command()
@planning
def plan(plan: Plan, call: Call) -> None:
    """Work out a version and keep it for 'apply'; write nothing to the database."""
    show(plan.report, call.as_json, render.plan)
    raise typer.Exit(DONE if plan.proven or call.force else NotProven.exit_status)


@app.command()
def apply(
    address: Address,
    version: Annotated[int | None, typer.Argument(help="By default the newest that was never applied.")] = None,
    state: StateFolder = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write a prepared version to the database."""
    with opened(address) as collection:
        refuse_obstacles(collection)
        plan = nudge_vdb.prepared(collection, version, state=state, phases=ShownPhases())
        _apply(plan, Call(address, state, force, as_json))


def _apply(plan: Plan, call: Call) -> None:
    """Write *plan*, show what became of it, and how to undo it."""
    before = plan.state.journal.live
    applied = nudge_vdb.apply(plan, force=call.force)
    show(applied.report, call.as_json, render.plan, render.move)
    if not call.as_json and before != plan.version.number:
        print(f"Undo with: {call.undo(before)}")
    raise typer.Exit(_exit_status(applied))


@app.command()
def rollback(
    address: Address,
    to: Annotated[int, typer.Option(help="A version that was applied once; 0 is the base.")],
    state: StateFolder = None,
    as_json: Json = False,
) -> None:
    """Bring the collection to another version, back or forth."""
    with opened(address) as collection:
        applied = nudge_vdb.rollback(collection, to=to, state=state, phases=ShownPhases())
    show(applied.report, as_json, render.move)
    raise typer.Exit(_exit_status(applied))


@app.command()
def carry(address: Address, state: StateFolder = None, as_json: Json = False) -> None:
    """Carry the rows that are new, or embedded again, since the live version was made; for a nightly job."""
    with opened(address) as collection:
        applied = nudge_vdb.carry(collection, state=state, phases=ShownPhases())
    show(applied.report, as_json, render.move)
    raise typer.Exit(_exit_status(applied))


@app.command("export-map")
def export_map(
    address: Address,
    out: Annotated[Path, typer.Argument(help="Where the matrix goes: a .npy file of width × width.")],
    version: Annotated[int, typer.Option(help="A version made with --carry.")],
    test: Test = None,
    state: StateFolder = None,
    as_json: Json = False,
) -> None:
    """Carry on the query side: write a matrix for the queries, and prepare a version of the judged rows alone."""
    with opened(address) as collection:
        plan = nudge_vdb.export_map(
            collection, out, version=version, test=_apart(test, "test"), state=state, phases=ShownPhases()
        )
    show(plan.report, as_json, render.plan)
    raise typer.Exit(DONE if plan.proven else NotProven.exit_status)


@app.command()
def resume(address: Address, state: StateFolder = None, as_json: Json = False) -> None:
    """Finish what was interrupted, forth or back."""
    with opened(address) as collection:
        applied = nudge_vdb.resume(collection, state=state, phases=ShownPhases())
        if applied is None:
            show(nudge_vdb.status(collection, state=state), as_json, render.status)
            return
    show(applied.report, as_json, render.move)
    raise typer.Exit(_exit_status(applied))


@app.command()
def status(address: Address, state: StateFolder = None, as_json: Json = False) -> None:
    """Say which version is live, and what to do next."""
    with opened(address) as collection:
        show(nudge_vdb.status(collection, state=state), as_json, render.status)


@app.command()
def history(address: Address, state: StateFolder = None, as_json: Json = False) -> None:
    """List the versions with their figures."""
    with opened(address) as collection:
        versions = nudge_vdb.history(collection, state=state)
        show({"collection": collection.traits.identity, "versions": versions}, as_json, render.history)


@app.command()
def diff(
    address: Address,
    one: Annotated[int, typer.Argument(help="A version; 0 is the base.")],
    other: Annotated[int, typer.Argument(help="Another version.")],
    limit: Annotated[int, typer.Option(help="Show at most so many rows, the farthest first; 0 is all.")] = 20,
    state: StateFolder = None,
    as_json: Json = False,
) -> None:
    """List the rows that two versions have in different places, and how far apart."""
    with opened(address) as collection:
        found = nudge_vdb.diff(collection, one, other, state=state)
    shown = found.rows[:limit] if limit > 0 else found.rows
    report = {"one": one, "other": other, "moved": len(found.rows), "distance": found.quantiles()}
    show({**report, "rows": shown, "rebased": found.rebased}, as_json, render.diff)


@app.command()
def prune(
    address: Address,
    keep: Annotated[int, typer.Option(help="How many of the newest versions stay, besides the live one.")],
    state: StateFolder = None,
    as_json: Json = False,
) -> None:
    """Drop old versions; one that holds the base of a live row stays."""
    with opened(address) as collection:
        pruned = nudge_vdb.prune(collection, keep=keep, state=state, phases=ShownPhases())
    show(asdict(pruned), as_json, render.pruned)


@app.command()
def adopt(
    address: Address,
    as_base: Annotated[
        bool, typer.Option("--as-base", help="The state is lost: take the vectors as they are now for the base.")
    ] = False,
    state: StateFolder = None,
    as_json: Json = False,
) -> None:
    """Bind the state in a folder to a collection that was moved or is reached by another name."""
    with opened(address) as collection:
        said = nudge_vdb.adopt(collection, state=state, as_base=as_base)
    show({"message": said}, as_json, render.message)


@app.command()
def doctor(
    address: Address,
    rows: Annotated[int, typer.Option(help="Look at so many rows.")] = DEFAULT_ROWS,
    state: StateFolder = None,  # noqa: ARG001 - every verb takes it
    as_json: Json = False,
) -> None:
    """Say what there is to know of a collection before it is tuned; read only."""
    with opened(address) as collection:
        found = nudge_vdb.diagnose(collection, rows=rows, phases=ShownPhases())
    show(found, as_json, render.diagnosis)
    raise typer.Exit(DONE if found["fit"] else BadInput.exit_status)


@app.command()
def verify(
    address: Address,
    deep: Annotated[bool, typer.Option("--deep", help="Compare every file of the state with its digest too.")] = False,
    state: StateFolder = None,
    as_json: Json = False,
) -> None:
    """Compare the database with the state: which rows hold what they should?"""
    with opened(address) as collection:
        findings = nudge_vdb.verify(collection, state=state, deep=deep, phases=ShownPhases())
    show(asdict(findings), as_json, render.findings)
    raise typer.Exit(DONE if findings.clean else ROWS_SKIPPED)


@app.command()
def evaluate(
    address: Address,
    judgements: JudgementsPath,
    split: Splits = None,
    metric: Annotated[str, typer.Option(help="One or more, separated by commas.")] = "ndcg@10",
    grades: Grades = False,
    state: StateFolder = None,  # noqa: ARG001 - every verb takes it
    as_json: Json = False,
) -> None:
    """Score the live vectors on judgements."""
    with opened(address) as collection:
        found = nudge_vdb.evaluate(
            collection, load(judgements, split or []), metric=metric, grades=grades, phases=ShownPhases()
        )
    show({"metric": metric, "score": next(iter(found.scores.values())), **asdict(found)}, as_json, render.evaluation)


@app.command()
def backends(state: StateFolder = None, as_json: Json = False) -> None:  # noqa: ARG001 - every verb takes it
    """List the backends that are installed."""
    show({"backends": installed()}, as_json, render.backends)


@app.command()
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


@contextmanager
def opened(address: str) -> Iterator[Collection]:
    """Open the collection, and close it whatever happens."""
    collection = nudge_vdb.connect(address)
    try:
        yield collection
    finally:
        collection.close()


def show(report: Report, as_json: bool, *pictures: Callable[[Report, Console], None]) -> None:
    """Print *report* on stdout: as one JSON object, or as *pictures* for people."""
    if as_json:
        print(json.dumps(report, ensure_ascii=False))
        return
    console = Console()
    for picture in pictures:
        picture(report, console)


def main() -> None:
    """Run the command line and exit with the status that the outcome calls for."""
    logging.basicConfig(format="%(message)s", handlers=[_own_log()])
    try:
        status = app(standalone_mode=False) or DONE
        if status == INTERRUPTED:
            raise typer.Abort
        sys.exit(status)
    except NudgeError as exc:
        _fail(type(exc).__name__, str(exc), exc.exit_status)
    except typer.TyperException as exc:
        _fail("BadUsage", f"{_told(exc)}; see 'nudge-vdb --help'", BadInput.exit_status)
    except (typer.Abort, KeyboardInterrupt):
        _fail("Interrupted", "'nudge-vdb status ADDRESS' says where it stopped and how to go on", INTERRUPTED)
    except Exception as exc:  # a defect of ours: the traceback is for the report of it
        traceback.print_exc()
        _fail(type(exc).__name__, str(exc), NudgeError.exit_status)


def _own_log() -> logging.Handler:
    """Return a handler for what this project has to say; what goes wrong in a client comes back as an error of ours."""
    handler = logging.StreamHandler()
    handler.addFilter(lambda record: record.name.startswith("nudge_vdb"))
    return handler


def _told(failure: typer.TyperException) -> str:
    """Return what the command line parser says, with the option's own name in it."""
    say = getattr(failure, "format_message", None)
    return str(say() if say else failure).rstrip(".")


def _fail(name: str, message: str, status: int) -> None:
    """Say what went wrong on stderr, or as JSON on stdout, and exit."""
    if "--json" in sys.argv:
        print(json.dumps({"error": name, "message": message, "status": status}, ensure_ascii=False))
    else:
        Console(stderr=True, highlight=False).print(f"[bold red]{name}[/]: ", end="")
        print(message, file=sys.stderr)
    sys.exit(status)


def _exit_status(applied: Applied) -> int:
    return ROWS_SKIPPED if any(applied.skipped.values()) else DONE


def _apart(path: Path | None, split: str) -> Judgements | None:
    """Read judgements to score apart; of a BEIR folder, *split*."""
    if path is None:
        return None
    return load(path, [split] if path.is_dir() else [])
