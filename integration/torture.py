"""Kills and outages at random instants: python -m integration.torture qdrant --kills 100 --outages 5 --seed 0.

The command line runs in a process of its own, which is killed; then it is run again, or something else is, until a
command ends by itself. What the collection holds is then compared, row by row, with what it should hold. After that,
the server is killed and paused in the middle of writes.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from integration import outages
from integration.mortal import ENGINES, mortal
from integration.scene import PHASES, RESUME, ROLLBACK, TUNE, Scene, scene_at
from integration.witness import damage

WEIGHTS = {"start": 0.08, "plan": 0.17, "write": 0.6, "verify": 0.15}
"""How many of the kills fall into each phase."""
AGAIN = 0.6
"""How often the command that follows a kill is killed too."""
TOPICS = 42


def kill_often(scene: Scene, kills: int, seed: int, seconds: float, told: Callable[[str], None]) -> None:
    """Kill the command line *kills* times, for at most so many *seconds*."""
    rng, deadline, last = np.random.default_rng(seed), time.monotonic() + seconds, 0
    while kills_of(scene) < kills and time.monotonic() < deadline:
        _cycle(scene, rng)
        if kills_of(scene) >= last + 10:
            last = kills_of(scene)
            told(summary(scene))
    scene.finish(ROLLBACK)
    scene.must_hold(0)


def _cycle(scene: Scene, rng: np.random.Generator) -> None:
    """Tune and go back to the base, both of them killed on the way, and look what the collection holds."""
    shutil.rmtree(scene.state, ignore_errors=True)
    for first in (TUNE, ROLLBACK):
        follows = first
        while _killed(scene, follows, rng):
            follows = str(rng.choice([RESUME, first, ROLLBACK])) if scene.state.exists() else first
            if rng.random() >= AGAIN:
                scene.finish(follows)
                break
        scene.must_hold(scene.trace.live())
    scene.finish(ROLLBACK)  # which takes the note back: without its state, nobody would know the base of what is live
    scene.must_hold(0)


def _killed(scene: Scene, name: str, rng: np.random.Generator) -> bool:
    """Start a command and kill it at an instant; tell whether it was still at work."""
    phases = PHASES.get(name, PHASES[ROLLBACK])
    weights = np.array([WEIGHTS[phase] for phase in phases])
    phase = str(rng.choice(phases, p=weights / weights.sum()))
    command = scene.started(name, phase, rng.random())
    if command.kill():
        scene.count[f"kills in {phase}"] += 1
        return True
    scene.require_end(name, *command.wait())
    return False


def kills_of(scene: Scene) -> int:
    """Return how many commands were killed at work."""
    return sum(times for name, times in scene.count.items() if name.startswith("kills in"))


def summary(scene: Scene) -> str:
    """Return what was done and found, in a line."""
    phases = ", ".join(f"{scene.count[f'kills in {phase}']} in {phase}" for phase in WEIGHTS)
    return f"{kills_of(scene)} commands killed ({phases}), {outages.summary(scene)}; {damage(scene.count)}"


def main() -> None:
    """Torture a server of an engine, and say what was done and found."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--outages", type=int, default=5, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60.0, help="the longest that the kills may take")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="nudge-vdb-torture-"))
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it tells of every look at a server that is not back yet

    def told(line: str) -> None:
        print(f"{given.engine}: {line}", flush=True)

    with mortal(given.engine, folder / "server") as server, scene_at(server, folder, TOPICS) as scene:
        told(str({name: {phase: round(s, 2) for phase, s in each.items()} for name, each in scene.lasting.items()}))
        kill_often(scene, given.kills, given.seed, 60 * given.minutes, told)
        outages.happen(server, scene, given.outages, given.seed, lambda: told(summary(scene)))
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
