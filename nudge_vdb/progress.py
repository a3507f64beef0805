"""The progress of a run on stderr: bars on a terminal, lines with the time in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from nudge_vdb.phases import Phases, Step

SECONDS_BETWEEN_LINES = 30.0
"""How often a phase that lasts writes a line where there is no terminal."""


class ShownPhases(Phases):
    """Shows every phase on stderr: as a bar on a terminal, as a line with the time in a log."""

    @contextmanager
    def shown(self, name: str, total: int | None) -> Iterator[Step]:
        """Show the phase while it lasts."""
        console = Console(stderr=True)
        with _bar(name, total, console) if console.is_terminal else _logged(name, total) as step:
            yield step


@contextmanager
def _bar(name: str, total: int | None, console: Console) -> Iterator[Step]:
    """Show a bar; a phase that never tells how far it is has no count."""
    columns = (SpinnerColumn(), TextColumn("{task.description:<18}"), BarColumn(), TextColumn("{task.fields[count]}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task(name, total=total, count="")

        def step(done: int, total: int | None = total, unit: str = "") -> None:

            progress.update(
                task, completed=done, total=total, description=f"{name} {unit}".rstrip(), count=_count(done, total)
            )

        yield step
        progress.update(task, completed=1, total=1)


@contextmanager
def _logged(name: str, total: int | None) -> Iterator[Step]:
    """Write one line when the phase is over, and one every half minute while it lasts."""
    started = told = time.monotonic()
    last = ""

    def step(done: int, total: int | None = total, unit: str = "") -> None:
        nonlocal told, last
        last = f": {_count(done, total)} {unit}".rstrip()
        if time.monotonic() - told >= SECONDS_BETWEEN_LINES:
            told = time.monotonic()
            _log(f"{name}{last}")

    yield step
    _log(f"{name}{last} in {time.monotonic() - started:.1f} s")


def _count(done: int, total: int | None) -> str:
    return f"{done:,}" if total is None else f"{done:,} of {total:,}"


def _log(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", file=sys.stderr, flush=True)
