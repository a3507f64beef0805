"""What the command line has in common: a collection that is closed, a report that is shown, a failure that is told."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer
from rich.console import Console

import nudge_vdb
from nudge_vdb.contract import Collection
from nudge_vdb.printable import json_text, printable
from nudge_vdb.report import Report


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
        print(json_text(report))
        return
    console = Console()
    for picture in pictures:
        picture(report, console)


class OneLine(logging.Formatter):
    """A record as one line, in which nothing of others' moves the cursor or forges a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message of *record*."""
        return printable(record.getMessage())


def print_warnings_of_others() -> None:
    """Show what clients warn of, and what ends their threads, on stderr as text in which nothing acts."""
    warnings.showwarning = _warned
    threading.excepthook = _thread_ended


def _warned(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    print(printable(f"{category.__name__}: {message}"), file=sys.stderr)


def _thread_ended(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_value is not None and not isinstance(ended.exc_value, SystemExit):
        print(printable("".join(traceback.format_exception(ended.exc_value)), keep="\n"), file=sys.stderr, end="")


def own_log() -> logging.Handler:
    """Return a handler for what this project has to say; what goes wrong in a client comes back as an error of ours."""
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine())
    handler.addFilter(lambda record: record.name.startswith("nudge_vdb"))
    return handler


def told(failure: typer.TyperException) -> str:
    """Return what the command line parser says, with the option's own name in it, and where to read on."""
    say, context = getattr(failure, "format_message", None), getattr(failure, "ctx", None)
    command = context.command_path if context else "nudge-vdb"
    return f"{str(say() if say else failure).rstrip('.')}; see '{command} --help'"


def fail(name: str, message: str, status: int, end: Callable[[int], NoReturn] = sys.exit) -> NoReturn:
    """Say what went wrong on stderr, or as JSON on stdout, and exit by *end*."""
    if "--json" in sys.argv:
        print(json_text({"error": name, "message": message, "status": status}))
    else:
        Console(stderr=True, highlight=False).print(f"[bold red]{name}[/]: ", end="")
        print(printable(message), file=sys.stderr)
    end(status)
