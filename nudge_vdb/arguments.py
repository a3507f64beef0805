"""What commands are called with, and what turns the options of a plan into one."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

import nudge_vdb
from nudge_vdb.budget import parse_size
from nudge_vdb.contract import Collection
from nudge_vdb.formats import load
from nudge_vdb.judgements import Judgements
from nudge_vdb.lines import STDIN
from nudge_vdb.paths import local_path
from nudge_vdb.progress import ShownPhases
from nudge_vdb.run import Plan
from nudge_vdb.terminal import opened

Address = Annotated[str, typer.Argument(help="Such as qdrant://localhost:6333/articles?vector=title")]
JudgementsPaths = Annotated[
    list[Path],
    typer.Option(
        "--judgements", help="A JSONL file, - for standard input, a BEIR folder or its qrels file; may be repeated."
    ),
]
EqualIds = Annotated[
    str, typer.Option(help="Where files name a query id twice with one vector: join their rows, or refuse.")
]
Splits = Annotated[list[str] | None, typer.Option("--split", help="A split of the BEIR folder; may be repeated.")]
Validation = Annotated[
    list[Path] | None, typer.Option(help="Judgements to score apart; of a BEIR folder, its split dev; may be repeated.")
]
Test = Annotated[
    list[Path] | None,
    typer.Option(help="Judgements to score apart; of a BEIR folder, its split test; may be repeated."),
]
StateFolder = Annotated[
    Path | None,
    typer.Option(
        "--state",
        help="The folder where versions are kept [$NUDGE_VDB_STATE].",
        parser=lambda given: local_path(given, "--state"),
        metavar="<path>",
    ),
]
Metric = Annotated[str, typer.Option(help="ndcg@K, recall@K, mrr@K or precision@K.")]
Method = Annotated[str, typer.Option(help="nudge-n, or nudge-m for inner product.")]
Step = Annotated[float | None, typer.Option(help="Use this step instead of the best one.")]
Grades = Annotated[bool, typer.Option("--grades", help="Let grades weigh the pulls and the metric.")]
ColdShare = Annotated[
    float | None,
    typer.Option(
        help="Share of searches for rows nobody judged, 0 to 1 [0.3, or the share of rows nobody judged if less]."
    ),
]
MaxColdLoss = Annotated[
    float | None, typer.Option(help="Refuse a plan that takes more from judged rows taken as unjudged.")
]
Carrying = Annotated[str, typer.Option(help="Move rows nobody judged along with the others: off, on or auto.")]
MaxRows = Annotated[
    int | None, typer.Option(help="With --carry auto, carry only if no more rows than this are written [1000000].")
]
Rivals = Annotated[
    str, typer.Option(help="Find rivals by scan, by search in the engine's index, by exact search, or auto.")
]
MinGain = Annotated[float, typer.Option(help="The gain that must be proven.")]
Confidence = Annotated[float, typer.Option(help="The confidence of the interval of the gain.")]
MaxQueries = Annotated[int, typer.Option(help="Score at most so many queries; all of them train.")]
Memory = Annotated[str, typer.Option(help="How much memory a plan may hold at once, such as 512MB or 2GiB.")]
Seed = Annotated[int, typer.Option(help="The seed of every random choice.")]
Force = Annotated[
    bool,
    typer.Option(
        "--force", help="Go on although the gain is not proven; search may get worse. A plan then ends with status 0."
    ),
]
Throttle = Annotated[
    float | None, typer.Option(help="Write, and read back, at most so many rows a second.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout; the rest goes to stderr.")]


EXAMPLE_ADDRESS = "'qdrant://localhost:6333/articles?vector=title'"


@dataclass(frozen=True)
class Call:
    """How a command was called."""

    address: str
    state: Path | None
    force: bool
    as_json: bool
    throttle: float | None

    def undo(self, version: int) -> str:
        """Return the command that goes back to *version*, ready to be pasted."""
        state = ["--state", str(self.state)] if self.state else []
        return shlex.join(["nudge-vdb", "rollback", self.address, "--to", str(version), *state])


Command = Callable[[Plan, Call], None]


def example(*lines: str) -> str:
    """Return the end of a command's help: *lines* to try, in which ADDRESS stands for the address of a collection."""
    shown = (f"  nudge-vdb {line.replace('ADDRESS', EXAMPLE_ADDRESS)}" for line in lines)
    return "\n".join(["\b", "Example:" if len(lines) == 1 else "Examples:", *shown])


def planning(command: Command, first: Callable[[Collection], None] = lambda _: None) -> Callable[..., None]:
    """Turn *command*, which takes a plan, into one that takes the options that make a plan; *first* may refuse."""

    def planned(
        address: Address,
        judgements: JudgementsPaths,
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
        max_rows: MaxRows = None,
        rivals: Rivals = "auto",
        min_gain: MinGain = 0.0,
        confidence: Confidence = 0.95,
        max_queries: MaxQueries = 2000,
        seed: Seed = 0,
        memory: Memory = "512MB",
        force: Force = False,
        throttle: Throttle = None,
        equal_ids: EqualIds = "join",
        as_json: Json = False,
    ) -> None:
        given = load(judgements, split or [], equal_ids)
        held_out = {"validation": apart(validation, "dev", equal_ids), "test": apart(test, "test", equal_ids)}
        with opened(address) as collection:
            first(collection)
            plan = nudge_vdb.plan(
                collection,
                given,
                state=state,
                **held_out,
                throttle=throttle,
                phases=ShownPhases(),
                metric=metric,
                method=method,
                step=step,
                grades=grades,
                cold_share=cold_share,
                max_cold_loss=max_cold_loss,
                carry=carry,
                max_rows=max_rows,
                rivals=rivals,
                min_gain=min_gain,
                confidence=confidence,
                max_queries=max_queries,
                seed=seed,
                memory=parse_size(memory),
            )
            command(plan, Call(address, state, force, as_json, throttle))

    planned.__name__, planned.__doc__ = command.__name__, command.__doc__
    return planned


def apart(paths: list[Path] | None, split: str, equal_ids: str = "join") -> Judgements | None:
    """Read judgements to score apart; of a BEIR folder, *split*."""
    if not paths:
        return None
    places = [path if path == STDIN else local_path(path, f"judgements ({split})") for path in paths]
    return load(places, [split] if any(path.is_dir() for path in places) else [], equal_ids)
