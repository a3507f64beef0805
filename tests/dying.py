"""A run that dies at any step it takes towards the disk or the database, and a collection that outlives it."""

import json
import mmap
import os
import shutil
import sys
import traceback
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nudge_vdb.contract import StoredRow
from nudge_vdb.testing import MemoryCollection

DIED, FAILED = 9, 99
NOTE_BYTES = 1 << 16
real_open = Path.open


@dataclass
class Death:
    """Dies at the *number*-th step: before it, halfway through it, after it, or as the power fails before it."""

    number: int = 0
    moment: str = "before"
    steps: list[tuple[str, bool, bool]] = field(default_factory=list)
    """What was done so far, whether it can be done by half, and whether a failing power would have undone anything."""
    unsynced: list[tuple[str, Path, object]] = field(default_factory=list)
    """What a failing power would undo: kind (data, name), the file or folder to sync, how to undo it."""

    def step(self, name, do, half=None):
        """Do something durable, or die of it."""
        self.steps.append((name, half is not None, bool(self.unsynced)))
        here = len(self.steps) == self.number
        if here and self.moment == "half":
            half()
        if here and self.moment.startswith("power"):
            self._lose("name" if self.moment == "power, names kept" else None)
        if here and self.moment != "after":
            os._exit(DIED)
        answer = do()
        if here:
            os._exit(DIED)
        return answer

    def changes(self, kind, place, undo):
        self.unsynced.append((kind, place, undo))

    def synced(self, place):
        self.unsynced = [change for change in self.unsynced if change[1] != place]

    def renamed(self, old, new):
        """What was not synced under its old name is lost under its new one."""
        empty = [("data", new, lambda: new.write_bytes(b"")) for kind, place, _ in self.unsynced if place == old]
        self.unsynced = [change for change in self.unsynced if change[1] != old] + empty[:1]

    def _lose(self, kept):
        Path.open, Path.unlink, Path.mkdir, shutil.rmtree = real_open, real_unlink, real_mkdir, real_rmtree
        for kind, _, undo in reversed(self.unsynced):
            if kind != kept:
                undo()


class DyingFile:
    """A file open for writing whose every change is a step; nothing stays in a buffer."""

    def __init__(self, file, path, death):
        self._file, self._path, self._death = file, path, death

    def write(self, content):
        content = bytes(content)
        self._keep()
        half = content[: len(content) // 2]
        self._death.step(f"write {self._path.name}", lambda: self._put(content), lambda: self._put(half))
        return len(content)

    def truncate(self, size=None):
        self._keep()
        self._death.step(f"truncate {self._path.name}", lambda: (self._file.truncate(size), self._file.flush()))

    def _keep(self):
        held = self._path.read_bytes()
        if not any(change[:2] == ("data", self._path) for change in self._death.unsynced):
            self._death.changes("data", self._path, lambda: self._path.exists() and self._path.write_bytes(held))

    def _put(self, content):
        self._file.write(content)
        self._file.flush()

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()


real_replace, real_rename, real_unlink, real_mkdir = Path.replace, Path.rename, Path.unlink, Path.mkdir
real_rmtree = shutil.rmtree


def haunt(death):
    """Make every change of a file or folder a step of *death*, for as long as this process lives."""

    def dying_open(path, mode="r", *args, **options):
        if "w" not in mode and "+" not in mode:
            return real_open(path, mode, *args, **options)
        if "w" in mode:
            _creates(death, path)
        return DyingFile(real_open(path, mode, *args, **options), path, death)

    def dying_replace(old, new):
        new = Path(new)
        held = new.read_bytes() if new.is_file() else None

        def do():
            real_replace(old, new)
            death.changes("name", new.parent, lambda: new.write_bytes(held) if held is not None else _gone(new))
            death.renamed(old, new)

        death.step(f"rename {new.name}", do)

    def dying_rename(old, new):
        def do():
            real_rename(old, new)
            death.changes("name", new.parent, lambda: real_rename(new, old))

        death.step(f"rename {new.name}", do)

    def dying_unlink(path, missing_ok=False):
        return death.step(f"unlink {path.name}", lambda: real_unlink(path, missing_ok))

    def dying_mkdir(path, *args, **options):
        if path.exists():  # the library of the lock makes sure
            return

        def do():
            real_mkdir(path, *args, **options)
            death.changes("name", path.parent, lambda: real_rmtree(path, ignore_errors=True))

        death.step(f"mkdir {path.name}", do)

    def dying_rmtree(folder, *args, **options):
        half = sorted(path for path in Path(folder).rglob("*") if path.is_file())[::2]
        death.step(
            f"rmtree {Path(folder).name}",
            lambda: real_rmtree(folder, *args, **options),
            lambda: [real_unlink(path) for path in half],
        )

    def dying_fsync(handle):
        place = Path(f"/proc/self/fd/{handle}").readlink()
        death.step(f"fsync {place.name}", lambda: death.synced(place))

    Path.open, Path.replace, Path.rename, Path.unlink, Path.mkdir = (
        dying_open, dying_replace, dying_rename, dying_unlink, dying_mkdir,
    )  # fmt: skip
    shutil.rmtree, os.fsync = dying_rmtree, dying_fsync


def _creates(death, path):
    if path.exists():
        held = path.read_bytes()
        death.changes("data", path, lambda: path.exists() and path.write_bytes(held))
    else:
        death.changes("name", path.parent, lambda: _gone(path))


def _gone(path):
    path.unlink(missing_ok=True)


class AtOnce:
    """What is read ahead, read before anything else is done."""

    def __init__(self, work):
        self._found = work()

    def result(self):
        return self._found


def in_a_child(act):
    """Carry out *act* in a process of its own; return the status it ended with."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, which only mind BLAS
        child = os.fork()
    if not child:
        try:
            act()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(FAILED)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def steps_of(act, haunted):
    """Return the steps that *act* takes when nothing happens to it, as told by a child that took them."""
    reader, writer = os.pipe()

    def tell():
        act(haunted)
        os.write(writer, json.dumps(haunted.steps).encode())

    assert in_a_child(tell) == 0
    os.close(writer)
    with os.fdopen(reader, "rb") as told:
        return json.loads(told.read())


class SharedCollection(MemoryCollection):
    """A collection whose vectors and notes are in memory that a child shares, and which counts the rows it is sent."""

    def share(self):
        """Move the vectors to shared memory; return the collection."""
        texts = sorted(self.rows)
        self.death = None
        self.shared = np.frombuffer(mmap.mmap(-1, 4 * len(texts) * self.width), np.float32).reshape(len(texts), -1)
        self.sent = np.frombuffer(mmap.mmap(-1, 8 * len(texts)), np.int64)
        self._texts = {text: place for place, text in enumerate(texts)}
        self._notes = mmap.mmap(-1, NOTE_BYTES)
        for text, place in self._texts.items():
            self.shared[place] = self.rows[text].vector
            self._show(text)
        return self

    def _show(self, text):
        row = self.rows[text]
        self.rows[text] = StoredRow(self.shared[self._texts[text]], row.payload, row.others)

    def held(self):
        """Return all that the engine keeps: vectors and notes."""
        return self.shared.copy(), self.notes()

    def restore(self, held):
        self.shared[:], notes = held
        self.sent[:] = 0
        self._keep_notes(notes)

    def scan(self, cursor, limit):
        return self._step("scan", lambda: super(SharedCollection, self).scan(cursor, limit))

    def fetch(self, keys, out):
        return self._step("fetch", lambda: super(SharedCollection, self).fetch(keys, out))

    def write(self, keys, vectors, expected):
        half = len(keys) // 2
        return self._step(
            "write",
            lambda: self._write(keys, vectors, expected),
            lambda: self._write(keys[:half], vectors[:half], expected[:half]),
        )

    def _write(self, keys, vectors, expected):
        self.sent[[self._texts[key.decode()] for key in keys]] += 1
        return super().write(keys, vectors, expected)

    def _write_one(self, key, vector, expected):
        text = key.decode()
        outcome = super()._write_one(key, vector, expected)
        self.shared[self._texts[text]] = self.rows[text].vector
        self._show(text)
        return outcome

    def notes(self):
        return json.loads(self._notes[:].rstrip(b"\0") or b"{}")

    def leave_note(self, name, text):
        changed = {key: kept for key, kept in {**self.notes(), name: text}.items() if kept}
        return self._step("note", lambda: self._keep_notes(changed) or True)

    def _keep_notes(self, notes):
        self._notes[:] = json.dumps(notes).encode().ljust(NOTE_BYTES, b"\0")

    def _step(self, name, do, half=None):
        return do() if self.death is None else self.death.step(name, do, half)
