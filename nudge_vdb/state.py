"""All that is remembered of one collection: its versions, and what was done to the database."""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

from numpy.typing import NDArray

from nudge_vdb.contract import Traits
from nudge_vdb.durable import make_folder, read_json, read_sealed, sealed, write_bytes, write_json
from nudge_vdb.errors import BadOption, Locked, StateConflict, StateDamaged
from nudge_vdb.hold import Hold
from nudge_vdb.journal import Journal
from nudge_vdb.paths import local_path, require_posix
from nudge_vdb.printable import finite
from nudge_vdb.snapshot import (
    FORMAT,
    UNFINISHED,
    Content,
    Version,
    open_version,
    require_known_format,
    write_arrays,
    write_version,
)

LONGEST_NAME, END_OF_NAME = 60, 32
"""Characters of a folder's name before the digest, and how many of them are the end of a longer name."""
UNWRITABLE = (None, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)
"""What the system says of a place that takes no more; numpy says it without a number."""


class State:
    """The folder of one collection, vector field and scope, within the folder that the user named."""

    def __init__(self, root: Path, traits: Traits) -> None:
        require_posix()
        self.traits, self.root = traits, local_path(root, "the state folder")
        self.folder = existing_folder(self.root, traits.identity)
        self._opened: dict[Path, Version] = {}
        self._hold: Hold | None = None
        if self.root.exists() and not self.root.is_dir():
            raise BadOption(f"{self.root} is no folder; name one with --state")
        if self.exists():
            self._refuse_another_collection()
        elif self._holds_anything() and not self.exists():  # another run may be making it just now
            raise StateDamaged(f"{self.folder / 'collection.json'} is missing; restore it from a backup of the state")

    def exists(self) -> bool:
        """Tell whether anything is remembered of this collection here."""
        return (self.folder / "collection.json").exists()

    @property
    def id(self) -> str:
        """What tells this state from every other, wherever its folder is moved; "" before there is one."""
        return str(read_facts(self.folder).get("id", "")) if self.exists() else ""

    @property
    def pages(self) -> Path:
        """Where the collection is paged out to while a plan is made."""
        return self.folder / "pages"

    @cached_property
    def journal(self) -> Journal:
        """What was done to the database.

        Raises:
            StateDamaged: it is gone, or is not what was written.
        """
        path, head = self.folder / "journal", self.folder / "journal.head"
        wanted = [path] if not self.exists() or read_facts(self.folder)["format"] == 1 else [path, head]
        lost = [each for each in wanted if self.exists() and not each.exists()]
        if lost:
            raise StateDamaged(f"{lost[0]} is missing, so nobody knows what is live; restore the state from a backup")
        return Journal(path, self.require_hold)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the state alone.

        Raises:
            Locked: somebody else holds it; the message names them.
            BadOption: the folder cannot be written.
        """
        hold = Hold(self.folder)
        try:
            self._make(hold)
            yield
        except OSError as exc:
            if not self.is_unwritable(exc):
                raise
            raise self._unwritable(exc) from exc
        finally:
            if self._hold is hold:  # one who was refused must not take the hold from who has it
                self._hold = None
            hold.release()

    def is_unwritable(self, failure: OSError) -> bool:
        """Tell whether *failure* is of this folder: engines write files of their own, clients have sockets."""
        elsewhere = failure.filename is not None and not Path(str(failure.filename)).is_relative_to(self.root)
        plain = failure.errno is not None or type(failure) is OSError  # a timeout has no number either
        return failure.errno in UNWRITABLE and plain and not elsewhere

    def require_hold(self) -> None:
        """Return if this run still holds the state alone, as it must before it writes to the database or to the state.

        Raises:
            Locked: another run has taken over, or this one never held the state.
        """
        if self._hold is None:
            raise Locked(f"{self.folder} is written only by a run that holds it, within 'with state.locked()'")
        try:
            self._hold.check()
        except Locked as exc:
            raise Locked(f"{exc} {self.traits.identity}; this run has stopped before its next write") from exc

    def versions(self) -> list[Version]:
        """Return the versions, oldest first; one without a manifest was never finished and is none.

        Raises:
            StateDamaged: one that the journal knows is gone, or is another.
        """
        folders = {int(path.parent.name): path.parent for path in self.folder.glob("versions/*/manifest.json")}
        for number in sorted(folders.keys() - self.journal.pruned()):
            if folders[number] not in self._opened:  # a version never changes, and checking its files takes a while
                self._opened[folders[number]] = open_version(folders[number])
        found = {number: self._opened[folders[number]] for number in sorted(folders) if folders[number] in self._opened}
        for number, digest in self.journal.kept().items():
            if number not in found or found[number].manifest["digest"] != digest:
                raise StateDamaged(
                    f"{self._place(number) / 'manifest.json'} is missing or of another version; "
                    "restore it from a backup of the state"
                )
        return list(found.values())

    def version(self, number: int) -> Version:
        """Return version *number*.

        Raises:
            BadOption: there is none; the message lists those there are.
        """
        found = {version.number: version for version in self.versions()}
        if number not in found:
            known = ", ".join(map(str, found)) or "none; make one with 'nudge-vdb tune ADDRESS --judgements PATH'"
            dropped = (
                " (it was dropped by 'nudge-vdb prune' or a later 'carry')" if number in self.journal.pruned() else ""
            )
            raise BadOption(f"{self.traits.identity} has no version {number}{dropped}; there are: {known}")
        return found[number]

    def become_another(self) -> None:
        """Give this state an id of its own, so that no other copy of it is taken for it; it is held."""
        self.require_hold()
        facts = {name: value for name, value in read_facts(self.folder).items() if name != "digest"}
        write_json(self.folder / "collection.json", sealed({**facts, "id": uuid4().hex}))

    def add_version(self, content: Content, facts: Mapping[str, Any]) -> Version:
        """Keep *content* as a new version, durably.

        Raises:
            Locked: another run has taken over; nothing was kept.
        """
        self.require_hold()
        number = 1 + max([self.journal.newest(), *(version.number for version in self.versions())])
        with self._locked_if_lost():
            version = write_version(self._place(number), number, content, finite(facts), self.require_hold)
        self._note(version)
        return version

    @contextmanager
    def _locked_if_lost(self) -> Iterator[None]:
        """Say of a failure of the file system that another run has taken over, if it has: it removes what we make."""
        try:
            yield
        except OSError:
            self.require_hold()
            raise

    def dropped(self) -> dict[int, Version]:
        """Return what is kept of dropped versions, by number: the arrays of :class:`nudge_vdb.dropped.Dropped`.

        Raises:
            StateDamaged: something that the journal knows is gone, or is another.
        """
        found = {}
        for number, digest in self.journal.remains().items():
            found[number] = open_version(self._remains(number))
            if found[number].manifest["digest"] != digest:
                raise StateDamaged(
                    f"{self._remains(number) / 'manifest.json'} is not what was written; "
                    "restore it from a backup of the state"
                )
        return found

    def drop(self, number: int, remains: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Keep of version *number* no more than *remains*; whoever calls this has made sure that no row needs it."""
        kept: dict[str, Any] = {}
        if remains is not None:  # durable before the version goes: they alone know some base from then on
            self.require_hold()
            shutil.rmtree(self._remains(number), ignore_errors=True)
            with self._locked_if_lost():
                remembered = write_arrays(self._remains(number), number, remains, {}, self.require_hold)
            kept["remains"] = remembered.manifest["digest"]
        self.journal.add("prune", number=number, **kept)
        self._opened.pop(self._place(number), None)
        shutil.rmtree(self._place(number), ignore_errors=True)

    def check(self) -> int:
        """Compare every file with its digest; return how many versions there are.

        Raises:
            StateDamaged: a file is missing or is not what was written.
        """
        versions = self.versions()
        for version in (*versions, *self.dropped().values()):
            version.check()
        return len(versions)

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

    def _place(self, number: int) -> Path:
        return self.folder / "versions" / f"{number:06}"

    def _remains(self, number: int) -> Path:
        return self.folder / "dropped" / f"{number:06}"

    def _make(self, hold: Hold) -> None:
        """Take *hold* of the folder, which is made if it is not there, and bring it to the format of today."""
        try:
            make_folder(self.folder)
            hold.take()
            self.__dict__.pop("journal", None)  # somebody may have added to it meanwhile
            self._hold = hold
            if not self.exists() and not (self.folder / "journal").exists():
                write_bytes(self.folder / "journal", b"")
            if not self.exists() or read_facts(self.folder)["format"] < FORMAT:
                self.journal.seal()
                write_json(self.folder / "collection.json", sealed(self._facts()))
            self._tidy()
        except Locked as exc:
            raise Locked(f"{exc} is working on {self.traits.identity}; wait until it is done") from exc
        except OSError as exc:
            raise self._unwritable(exc) from exc

    def _tidy(self) -> None:
        """Finish what a run left that died while it was adding or dropping a version, or that knew no format 2."""
        known = self.journal.kept()
        whole = {version.number: version for version in self.versions()}
        if (self.folder / UNFINISHED).exists():
            shutil.rmtree(self.folder / UNFINISHED, ignore_errors=True)
        for folder in self.folder.glob("versions/*"):
            if folder.name.isdecimal() and int(folder.name) not in whole:
                shutil.rmtree(folder, ignore_errors=True)
        for number in sorted(whole.keys() - known.keys()):
            self._note(whole[number])

    def _note(self, version: Version) -> None:
        self.journal.add("version", number=version.number, digest=version.manifest["digest"])

    def _unwritable(self, failure: OSError) -> BadOption:
        return BadOption(
            f"the state folder {self.folder} cannot be written: {failure}; make room or give permission there "
            "(a collection that was never tuned may have its state elsewhere: --state)"
        )

    def _facts(self) -> dict[str, Any]:
        return {"format": FORMAT, "id": uuid4().hex, **facts_of(self.traits)}

    def _holds_anything(self) -> bool:
        """Tell whether there is more here than a run leaves that dies while it makes a new state."""
        journal = self.folder / "journal"
        return any(self.folder.glob("versions/*")) or (journal.is_file() and journal.stat().st_size > 0)

    def _refuse_another_collection(self) -> None:
        known = read_facts(self.folder)
        for name, value in facts_of(self.traits).items():
            if name in known and known[name] != value:
                raise StateConflict(
                    f"{self.traits.identity} has {name} {value!r}, but the state in {self.folder} was made with "
                    f"{known[name]!r}; if the collection was rebuilt, name a new state folder with --state"
                )


def facts_of(traits: Traits) -> dict[str, Any]:
    """Return what a state remembers of its collection."""
    return {
        "identity": traits.identity,
        "collection": traits.collection,
        "vector": traits.vector,
        "scope": dict(traits.scope),
        "width": traits.width,
        "metric": traits.metric.value,
    }


def read_facts(folder: Path) -> dict[str, Any]:
    """Return what the state in *folder* remembers of its collection.

    Raises:
        StateDamaged: it cannot be read, or was written by a newer nudge-vdb.
    """
    path = folder / "collection.json"
    facts = read_json(path)
    require_known_format(path, facts)
    return read_sealed(path) if "digest" in facts or facts["format"] != 1 else facts


def folder_name(identity: str) -> str:
    """Return a folder name that people recognise and that no two identities share."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", identity).strip("-")
    if len(readable) > LONGEST_NAME:  # what stands in front tells the engine, the end tells collection and vector
        end = readable[-END_OF_NAME:].partition("-")[2] or readable[-END_OF_NAME:]
        readable = f"{readable[: LONGEST_NAME - END_OF_NAME].rpartition('-')[0]}-{end}"
    return f"{readable}-{_digest(identity)}"


def existing_folder(root: Path, identity: str) -> Path:
    """Return the folder of *identity* in *root*: also one that was named when long names were cut in front."""
    folder = root / folder_name(identity)
    readable = re.sub(r"[^A-Za-z0-9]+", "-", identity).strip("-")
    former = root / f"{readable[-LONGEST_NAME:]}-{_digest(identity)}"
    return former if former.is_dir() and not folder.is_dir() else folder


def _digest(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()[:12]
