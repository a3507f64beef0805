"""All that is remembered of one collection: its versions, and what was done to the database."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from nudge_vdb.contract import Traits
from nudge_vdb.durable import make_folder, read_json, write_bytes, write_json
from nudge_vdb.errors import BadOption, Locked, StateConflict, StateDamaged
from nudge_vdb.journal import Journal
from nudge_vdb.snapshot import FORMAT, Content, Version, open_version, write_version

UNWRITABLE = (None, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
"""What the system says of a place that takes no more; numpy says it without a number."""


class State:
    """The folder of one collection, vector field and scope, within the folder that the user named."""

    def __init__(self, root: Path, traits: Traits) -> None:
        self.traits, self.root = traits, root.expanduser().absolute()
        self.folder = self.root / _folder_name(traits.identity)
        self._opened: dict[Path, Version] = {}
        if self.root.exists() and not self.root.is_dir():
            raise BadOption(f"{self.root} is no folder; name one with --state")
        if self.exists():
            self._refuse_another_collection()

    def exists(self) -> bool:
        """Tell whether anything is remembered of this collection here."""
        return (self.folder / "collection.json").exists()

    @property
    def pages(self) -> Path:
        """Where the collection is paged out to while a plan is made."""
        return self.folder / "pages"

    @cached_property
    def journal(self) -> Journal:
        """What was done to the database.

        Raises:
            StateDamaged: it is gone, or a line of it is not what was written.
        """
        path = self.folder / "journal"
        if self.exists() and not path.exists():
            raise StateDamaged(f"{path} is missing, so nobody knows what is live; restore the state from a backup")
        return Journal(path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the state alone; the kernel lets go of it when the process dies.

        Raises:
            Locked: somebody else holds it; the message names them.
            BadOption: the folder cannot be written.
        """
        lock = FileLock(self.folder / "lock", timeout=0)
        try:
            self._make(lock)
            self.__dict__.pop("journal", None)
            yield
        except OSError as exc:
            if exc.errno not in UNWRITABLE:
                raise
            raise self._unwritable(exc) from exc
        finally:
            lock.release()

    def versions(self) -> list[Version]:
        """Return the versions, oldest first; one without a manifest was never finished and is none."""
        folders = sorted(path.parent for path in self.folder.glob("versions/*/manifest.json"))
        for folder in folders:
            if folder not in self._opened:  # a version never changes, and checking its files takes a while
                self._opened[folder] = open_version(folder)
        return [self._opened[folder] for folder in folders]

    def version(self, number: int) -> Version:
        """Return version *number*.

        Raises:
            BadOption: there is none; the message lists those there are.
        """
        found = {version.number: version for version in self.versions()}
        if number not in found:
            known = ", ".join(map(str, found)) or "none"
            raise BadOption(f"{self.traits.identity} has no version {number}; there are: {known}")
        return found[number]

    def add_version(self, content: Content, facts: Mapping[str, Any]) -> Version:
        """Keep *content* as a new version, durably."""
        number = 1 + max([0, *(version.number for version in self.versions()), *self.journal.begun()])
        return write_version(self.folder / "versions" / f"{number:06}", number, content, facts)

    def status_of(self, version: Version) -> str:
        """Return prepared, unproven, applying, applied or rolled-back."""
        number = version.number
        if self.journal.unfinished == number:
            return "applying"
        if number == self.journal.live:
            return "applied"
        reached = [to for _, to in self.journal.finished()]
        if number in self.journal.begun() and number not in reached:
            return "rolled-back"
        if number not in reached:
            return "prepared" if version.manifest["proven"] else "unproven"
        since = reached[len(reached) - reached[::-1].index(number) :]
        return "rolled-back" if min(since) < number else "applied"

    def _make(self, lock: FileLock) -> None:
        """Take *lock*, in a folder that is made if it is not there, and sign for it."""
        try:
            make_folder(self.folder)
            lock.acquire()
            write_json(self.folder / "holder.json", _myself())
            if not self.exists():
                write_bytes(self.folder / "journal", b"")
                write_json(self.folder / "collection.json", self._facts())
        except Timeout as exc:
            raise Locked(f"{self._holder()} is working on {self.traits.identity}; wait until it is done") from exc
        except OSError as exc:
            raise self._unwritable(exc) from exc

    def _unwritable(self, failure: OSError) -> BadOption:
        return BadOption(
            f"the state folder {self.folder} cannot be written: {failure}; make room or give permission there "
            "(a collection that was never tuned may have its state elsewhere: --state)"
        )

    def _facts(self) -> dict[str, Any]:
        traits = self.traits
        return {"format": FORMAT, "identity": traits.identity, "width": traits.width, "metric": traits.metric.value}

    def _refuse_another_collection(self) -> None:
        known = read_json(self.folder / "collection.json")
        if known.get("format") != FORMAT:
            raise StateDamaged(
                f"{self.folder} has format {known.get('format')!r} and this nudge-vdb reads {FORMAT}; update nudge-vdb"
            )
        for name, value in self._facts().items():
            if known.get(name) != value:
                raise StateConflict(
                    f"{self.traits.identity} has {name} {value!r}, but the state in {self.folder} was made with "
                    f"{known.get(name)!r}; if the collection was rebuilt, name a new state folder with --state"
                )

    def _holder(self) -> str:
        try:
            holder = json.loads((self.folder / "holder.json").read_bytes())
            since = time.strftime("%H:%M:%S", time.localtime(holder["since"]))
            return f"process {holder['process']} on {holder['host']} (since {since})"
        except (OSError, ValueError, KeyError):
            return "another run"


def _folder_name(identity: str) -> str:
    """Return a folder name that people recognise and that no two identities share."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", identity).strip("-")[-60:]
    return f"{readable}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def _myself() -> dict[str, Any]:
    return {"process": os.getpid(), "host": socket.gethostname(), "since": round(time.time())}
