"""A collection, the command line at work on it in a process of its own, and what the collection holds afterwards."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from integration.mortal import Mortal
from integration.topics import OPTIONS, Topics, topics
from integration.witness import Copy, Witness, differences

LONGEST = 180.0
"""Seconds after which a command is taken to hang."""
BETWEEN_LOOKS = 0.002
TIMEOUT = 3
"""Seconds that a request may take."""
ROWS_EACH, WIDTH = 50, 1024
"""Rows of a topic; components of a vector: so wide that a batch is about a thousand rows."""
TUNE, ROLLBACK, RESUME = "tune", "rollback", "resume"
PHASES = {TUNE: ["start", "plan", "write", "verify"], ROLLBACK: ["start", "write", "verify"]}
MARKS = {"plan": "pages", "write": "begin", "verify": "end"}
"""What is seen in the state when a phase begins."""

_processes = multiprocessing.get_context("forkserver")  # which has imported everything already
_processes.set_forkserver_preload(["nudge_vdb.cli", "nudge_vdb_qdrant", "nudge_vdb_milvus"])


class Hangs(AssertionError):
    """A command did not end."""


class Astray(AssertionError):
    """A collection does not hold what it should, or a command did not end as it should."""


def _command_line(arguments: Sequence[str], settings: dict[str, str], said: str) -> None:
    """Be the command line, as a process."""
    from nudge_vdb import cli

    os.environ.update(settings)
    log = os.open(f"{said}.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 2)
    sys.argv = ["nudge-vdb", *arguments, "--json"]
    with Path(said).open("w") as out, redirect_stdout(out):
        cli.main()


@dataclass
class Command:
    """The command line at work."""

    process: BaseProcess
    said: Path

    def wait(self) -> tuple[int, dict[str, Any]]:
        """Return the exit status, and what it said, when it has ended."""
        self.process.join(LONGEST)
        if self.process.exitcode is None:
            self.process.kill()
            raise Hangs(f"a command had not ended after {LONGEST:.0f} s: {Path(f'{self.said}.log').read_text()}")
        text = self.said.read_text() if self.said.exists() else ""
        return self.process.exitcode, json.loads(text) if text else {}

    def wait_for(self, seconds: float) -> None:
        """Return when it has ended, at the latest after *seconds*."""
        self.process.join(seconds)

    def kill(self) -> bool:
        """Kill it; tell whether it was still at work."""
        self.process.kill()
        self.process.join()
        return self.process.exitcode == -signal.SIGKILL


class Trace:
    """What a state tells to whoever looks at its files: how far a command has come, and what is live."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def seen(self) -> Counter[str]:
        """Count the events by their kind, and the folders of pages."""
        found = Counter(str(event["event"]) for event in self._events())
        found["pages"] = len(list(self._root.glob("*/pages")))
        return found

    def live(self) -> int:
        """Return the version that the last finished move led to."""
        return next((int(event["to"]) for event in reversed(self._events()) if event["event"] == "end"), 0)

    def _events(self) -> list[dict[str, Any]]:
        files = [file.read_text() for file in self._root.glob("*/journal")]
        lines = [line for text in files for line in text.split("\n")[:-1]]
        return [json.loads(line.partition(" ")[2]) for line in lines]


@dataclass
class Scene:
    """A collection, what it should hold at its base and tuned, and the command line to it."""

    witness: Witness
    judgements: Path
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    lasting: dict[str, dict[str, float]] = field(default_factory=dict)
    """Seconds of each phase of each command, undisturbed."""
    count: Counter[str] = field(default_factory=Counter)
    held: dict[int, Copy] = field(default_factory=dict)
    """What the collection holds at its base (0), and tuned (1)."""

    @property
    def state(self) -> Path:
        """Where the command line keeps its state."""
        return self.folder / "state"

    @property
    def trace(self) -> Trace:
        """What the state tells."""
        return Trace(self.state)

    def fill(self, world: Topics) -> None:
        """Make the collection, and see what an undisturbed run makes of it and how long that takes."""
        self.witness.fill(world.rows)
        self.held[0] = self.witness.read()
        self.start("status").wait()  # imports everything, once
        self._watch(TUNE)
        self.held[1] = self.witness.read()
        if not (self.held[0].vectors != self.held[1].vectors).any(axis=1).all():
            raise Astray("a tune was to move every row")
        self._watch(ROLLBACK)
        self.must_hold(0)

    def start(self, name: str) -> Command:
        """Start a command: tune, rollback (to the base), resume or status."""
        said = self.folder / f"said-{self.count['commands']}"
        self.count["commands"] += 1
        more = {TUNE: ["--judgements", str(self.judgements), *OPTIONS], ROLLBACK: ["--to", "0"]}.get(name, [])
        settings = {"NUDGE_VDB_STATE": str(self.state), **self.settings}
        arguments = [name, self.witness.address, *more]
        process = _processes.Process(target=_command_line, args=(arguments, settings, str(said)))
        process.start()
        return Command(process, said)

    def started(self, name: str, phase: str, share: float) -> Command:
        """Start a command, and return it when *share* of *phase* is over, by how long that lasts undisturbed."""
        before, command = self.trace.seen(), self.start(name)
        self._wait_for(command, before, phase)
        known = name if name in PHASES else ROLLBACK  # what a resume does lasts about as long
        command.wait_for(share * self.lasting[known][phase])
        return command

    def finish(self, name: str) -> None:
        """Run a command to its end."""
        self.require_end(name, *self.start(name).wait())

    def require_end(self, name: str, status: int, said: dict[str, Any]) -> None:
        """Return if a command ended well; where there is no state yet, to say so is to end well."""
        if status and "holds no state of" not in said.get("message", ""):
            raise Astray(f"{name} ended with {status}: {said}; {self.folder}")

    def must_hold(self, version: int) -> None:
        """Compare the collection with what it should hold, and count what is not so."""
        found = differences(self.held[min(version, 1)], self.witness.read())
        self.count.update({"comparisons": 1, **found})
        if found.total():
            raise Astray(f"at version {version}: {dict(found)}; {dict(self.count)}; {self.folder}")

    def _watch(self, name: str) -> None:
        """Run a command to its end, and note how long its phases last."""
        before, began = self.trace.seen(), {"start": time.monotonic()}
        command = self.start(name)
        for phase in PHASES[name][1:]:
            self._wait_for(command, before, phase)
            began[phase] = time.monotonic()
        status, said = command.wait()
        if status:
            raise Astray(f"{name} ended with {status}: {said}")
        times = [*began.values(), time.monotonic()]
        self.lasting[name] = {phase: times[at + 1] - times[at] for at, phase in enumerate(began)}

    def _wait_for(self, command: Command, before: Counter[str], phase: str) -> None:
        """Return when *phase* begins, or the command ends."""
        mark = MARKS.get(phase)
        while mark and command.process.is_alive() and self.trace.seen()[mark] <= before[mark]:
            time.sleep(BETWEEN_LOOKS)


@contextmanager
def scene_at(server: Mortal, folder: Path, count: int) -> Iterator[Scene]:
    """Yield a scene on *server*, a collection of *count* topics, with its files in *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    world, witness = topics(count, ROWS_EACH, WIDTH), server.witness("rows", timeout=str(TIMEOUT))
    scene = Scene(witness, world.as_file(folder / "judgements.jsonl"), folder)
    try:
        scene.fill(world)
        yield scene
    finally:
        witness.close()
