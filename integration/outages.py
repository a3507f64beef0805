"""Servers that die, or stand still, in the middle of a write."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable

import numpy as np

from integration.mortal import Mortal
from integration.scene import RESUME, ROLLBACK, TIMEOUT, TUNE, Astray, Command, Scene

STILL = 2.5 * TIMEOUT
"""Seconds for which a server stands still: past the time-out, and short of the minute after which Milvus gives up."""
LONG, SHORT = "120", "1"
"""Seconds of patience: enough to see an outage through, or not."""
EARLY = 0.8
"""How far a write has come at most, so that it is seldom done already."""
LOADED = 120.0
"""Seconds within which a server that was started again has its collection in memory."""
BETWEEN_LOOKS = 0.2


def killed(server: Mortal, scene: Scene, name: str, patience: str, share: float) -> None:
    """Kill the server when a command has done *share* of its writing, and start it again; go on where need be."""
    command = _writing(scene, name, patience, share)
    server.kill()
    if patience == SHORT:
        _must_give_up(scene, command)
    server.start()
    if patience == LONG:
        _must_see_it_through(scene, command)
    _wait_until_loaded(scene)
    scene.count["servers killed"] += 1
    _finished(scene, RESUME)


def paused(server: Mortal, scene: Scene, name: str, patience: str, share: float) -> None:
    """Let the server stand still past the time-out when a command has done *share* of its writing."""
    command = _writing(scene, name, patience, share)
    server.pause()
    try:
        if patience == SHORT:
            _must_give_up(scene, command)
        else:
            command.wait_for(STILL)
    finally:
        server.go_on()
    if patience == LONG:
        _must_see_it_through(scene, command)
    scene.count["servers paused"] += 1
    # Where a run gave up, what it sent last is still on its way when the next one begins, and that goes back.
    _finished(scene, ROLLBACK if patience == SHORT else RESUME)


def happen(server: Mortal, scene: Scene, times: int, seed: int, told: Callable[[], None]) -> None:
    """Kill and pause the server, *times* tunes and roll-backs each, with patience and without."""
    rng = np.random.default_rng(seed)
    for turn in range(times):
        for happens in (killed, paused):
            shutil.rmtree(scene.state)
            happens(server, scene, TUNE, (SHORT, LONG)[turn % 2], EARLY * rng.random())
            if scene.trace.live():
                happens(server, scene, ROLLBACK, (LONG, SHORT)[turn % 2], EARLY * rng.random())
            scene.finish(ROLLBACK)
        told()


def summary(scene: Scene) -> str:
    """Return what was done, in words."""
    kinds = ("servers killed", "servers paused", "amid writing", "seen through", "given up")
    return ", ".join(f"{scene.count[kind]} {kind}" for kind in kinds)


def _writing(scene: Scene, name: str, patience: str, share: float) -> Command:
    scene.settings["NUDGE_VDB_PATIENCE"] = patience
    ended = scene.trace.seen()["end"]
    command = scene.started(name, "write", share)
    scene.count["amid writing"] += command.process.is_alive() and scene.trace.seen()["end"] == ended
    return command


def _must_give_up(scene: Scene, command: Command) -> None:
    status, said = command.wait()
    if status not in (0, 4, 6):  # 0: it was done just before
        raise Astray(f"ended with {status}: {said}")
    scene.count["given up"] += status != 0


def _must_see_it_through(scene: Scene, command: Command) -> None:
    status, said = command.wait()
    if status:
        raise Astray(f"ended with {status}: {said}")
    scene.count["seen through"] += 1


def _finished(scene: Scene, by: str) -> None:
    scene.settings["NUDGE_VDB_PATIENCE"] = LONG
    scene.finish(by)
    scene.must_hold(scene.trace.live())


def _wait_until_loaded(scene: Scene) -> None:
    """Return when the collection can be read again."""
    deadline = time.monotonic() + LOADED
    while True:
        try:
            scene.witness.read()
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(BETWEEN_LOOKS)
        else:
            return
