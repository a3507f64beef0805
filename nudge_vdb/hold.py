"""A folder held by one run at a time, on this machine and beyond."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, SoftFileLock, Timeout

from nudge_vdb.durable import write_json
from nudge_vdb.errors import BadOption, Locked
from nudge_vdb.foreign import parsed
from nudge_vdb.paths import is_shared

BEAT = 5.0
"""Seconds between two signs of life of a holder."""
SILENCE = 60.0
"""Seconds without one after which a holder on another machine may be dead."""
WATCH = 3 * BEAT
"""Seconds for which its file must then stay as it is until it is taken for dead."""
LOOKS = 30
"""How often the file is looked at meanwhile."""
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What the system says of a file system without locks."""


class Hold:
    """A folder held by one run at a time.

    The kernel's lock keeps out the runs of this machine and is let go of when the process dies. Beside it stands who
    holds it, for those whom the kernel's lock does not reach, since the folder may be shared between machines: a
    holder touches that file every few seconds. Whether one elsewhere lives is told without its clock and without ours:
    by the clock of the file system, and by whether its file changes while it is watched. Should a holder that was taken
    for dead only have slept, :meth:`check` tells it so before its next request.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "holder.json"
        self._lock = FileLock(folder / "lock", mode=0o660 if _shared(folder) else 0o600, timeout=0, thread_local=False)
        self._me = {**_myself(), "token": uuid4().hex}
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def take(self) -> None:
        """Hold the folder from now on.

        Raises:
            Locked: somebody else does; the message names them.
            BadOption: the file system of the folder keeps no locks.
        """
        try:
            with warnings.catch_warnings():  # of a lock that is none, which is refused below
                warnings.simplefilter("ignore", UserWarning)
                self._lock.acquire()
        except Timeout as exc:
            raise Locked(_named(_holder(self._file))) from exc
        except NotImplementedError as exc:
            raise _without_locks(self._file.parent) from exc
        except OSError as exc:
            if exc.errno in NO_LOCKS:
                raise _without_locks(self._file.parent) from exc
            raise
        try:
            if isinstance(self._lock, SoftFileLock):  # a file that the library takes for a lock outlives a killed run
                raise _without_locks(self._file.parent)
            if _alive(self._file):
                raise Locked(_named(_holder(self._file)))
            write_json(self._file, self._me)
        except BaseException:
            self.release()
            raise
        self._thread.start()

    def check(self) -> None:
        """Return if the folder is still held.

        Raises:
            Locked: somebody else has taken it over.
        """
        if not self._mine():
            raise Locked(f"{_named(_holder(self._file))} has taken over")

    def release(self) -> None:
        """Let go of the folder, if it is held."""
        self._released.set()
        if self._lock.is_locked:
            if self._mine():
                self._file.unlink(missing_ok=True)
            self._lock.release()

    def _beat(self) -> None:
        while not self._released.wait(BEAT) and self._mine():
            with suppress(OSError):
                os.utime(self._file)

    def _mine(self) -> bool:
        return bool(_holder(self._file).get("token") == self._me["token"])


def _shared(folder: Path) -> bool:
    return folder.is_dir() and is_shared(folder)


def _myself() -> dict[str, Any]:
    mine = os.getpid()
    since = round(time.time())
    return {
        "process": mine,
        "started": _start_of(mine),
        "host": socket.gethostname(),
        "machine": _machine(),
        "since": since,
    }


def _machine() -> str:
    """Return what tells this machine, since it was last started, from every other."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _start_of(process: object) -> str:
    """Return when *process* started, in the kernel's count, "" where it is not running or nobody knows."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, ValueError, IndexError):
        return ""


def _holder(file: Path) -> dict[str, Any]:
    try:
        content = parsed(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _alive(file: Path) -> bool:
    """Tell whether the holder in *file*, who does not have the kernel's lock of this machine, may still be at work."""
    holder = _holder(file)
    if not holder:
        return False
    if _machine() and holder.get("machine") == _machine():
        return bool(holder.get("started")) and _start_of(holder.get("process")) == holder["started"]
    return 0 <= _age(file) < SILENCE or _changes(file)


def _age(file: Path) -> float:
    """Return for how many seconds *file* has been as it is, by the clock of its file system.

    Another machine's clock may differ from ours by hours; the file system gives both files their times.
    """
    probe = file.with_name(f"clock-{uuid4().hex}")
    try:
        probe.touch(0o600)
        return probe.stat().st_mtime - file.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _changes(file: Path) -> bool:
    """Watch *file* for :data:`WATCH` seconds; tell whether it changes, as that of a holder at work does."""
    before = _marks(file)
    for _ in range(LOOKS):
        time.sleep(WATCH / LOOKS)
        if _marks(file) != before:
            return True
    return False


def _marks(file: Path) -> tuple[int, bytes]:
    try:
        return file.stat().st_mtime_ns, file.read_bytes()
    except OSError:
        return 0, b""


def _without_locks(folder: Path) -> BadOption:
    return BadOption(
        f"the file system of {folder} keeps no locks, so two runs could write at once; name a folder on another one "
        "with --state (of a network file system, its locks may have to be turned on)"
    )


def _named(holder: Mapping[str, Any]) -> str:
    try:
        since = time.strftime("%H:%M:%S", time.localtime(holder["since"]))
        return f"process {holder['process']} on {holder['host']} (since {since})"
    except (KeyError, TypeError, ValueError, OverflowError):
        return "another run"
