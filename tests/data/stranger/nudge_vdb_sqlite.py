"""A table in SQLite as a collection: sqlite:///FOLDER/FILE/TABLE?metric=cosine, vectors as BLOBs of float32."""

import json
import sqlite3
import sys
import threading
from contextlib import contextmanager

import numpy as np

from nudge_vdb.contract import Ability, Accuracy, Metric, Outcome, Page, Remark, StoredRow, Traits, agree
from nudge_vdb.errors import BadAddress, BadOption, Busy, Refused, UnfitCollection

AT_ONCE = 500
NOTES = "nudge_vdb_notes"


def quoted(name):
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


@contextmanager
def translated(doing):
    try:
        yield
    except sqlite3.OperationalError as exc:
        raise (Busy if "locked" in str(exc) else Refused)(f"{doing}: {exc}") from exc
    except (sqlite3.Error, UnicodeEncodeError) as exc:
        raise Refused(f"{doing}: {exc}") from exc


class SqliteCollection:
    def __init__(self, file, table, vector="vector", metric=Metric.COSINE):
        self._db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self._lock = threading.RLock()  # one connection for all threads
        self._table, self._column = quoted(table), quoted(vector)
        with self._asking("opening") as db:
            columns = {row[1]: row[2] for row in db.execute(f"PRAGMA table_info({self._table})")}
            if "id" not in columns or vector not in columns:
                raise UnfitCollection(f"{file} has no table {table} with the columns id and {vector}")
            first = db.execute(f"SELECT length({self._column}) FROM {self._table} WHERE {self._column} IS NOT NULL")
            width = (first.fetchone() or (0,))[0] // 4
        self._whole = columns["id"].upper() == "INTEGER"
        self._traits = Traits(
            f"sqlite:{file}/{table}",
            vector,
            f"SQLite {sqlite3.sqlite_version}",
            width,
            metric,
            rescales=False,
            tolerance=0.0,
            abilities=frozenset({Ability.NOTES, Ability.GAPS, Ability.EXACT_SEARCH}),
        )

    @contextmanager
    def _asking(self, doing):
        with self._lock, translated(f"{doing} {self._table}"):
            yield self._db

    @property
    def traits(self):
        return self._traits

    def scan(self, cursor, limit):
        where, after = ("WHERE id > ?", [json.loads(cursor)]) if cursor else ("", [])
        with self._asking("scanning") as db:
            rows = db.execute(
                f"SELECT id, {self._column} FROM {self._table} {where} ORDER BY id LIMIT ?", [*after, limit]
            ).fetchall()
        vectors = np.zeros((len(rows), self._traits.width), np.float32)
        absent = np.array([row[1] is None for row in rows], bool)
        for place in np.flatnonzero(~absent):
            vectors[place] = np.frombuffer(rows[place][1], "<f4")
        following = json.dumps(rows[-1][0]) if len(rows) == limit else None
        return Page([self._key(row[0]) for row in rows], vectors, absent, following)

    def locate(self, texts):
        wanted = [self._id(text) for text in texts]
        with self._asking("locating") as db:
            ask = f"SELECT 1 FROM {self._table} WHERE id = ?"
            return [
                None if each is None or not db.execute(ask, [each]).fetchone() else self._key(each) for each in wanted
            ]

    def text_of(self, key):
        return str(json.loads(key))

    def fetch(self, keys, out):
        found, places = np.zeros(len(keys), bool), {json.loads(key): place for place, key in enumerate(keys)}
        ids = list(places)
        with self._asking("fetching") as db:
            for first in range(0, len(ids), AT_ONCE):
                some = ids[first : first + AT_ONCE]
                marks = ",".join("?" * len(some))
                ask = (
                    f"SELECT id, {self._column} FROM {self._table} WHERE id IN ({marks}) AND {self._column} IS NOT NULL"
                )
                for name, vector in db.execute(ask, some):
                    out[places[name]], found[places[name]] = np.frombuffer(vector, "<f4"), True
        return found

    def write(self, keys, vectors, expected):
        if vectors.shape != (len(keys), self._traits.width) or not np.isfinite(vectors).all():
            raise Refused(f"expected {len(keys)} finite vectors of {self._traits.width} components")
        with self._asking("writing") as db:
            db.execute("BEGIN IMMEDIATE")  # nobody writes between the look and the update
            try:
                live = np.zeros_like(vectors)
                found = self.fetch(keys, live)
                there, same = agree(live, vectors, 0.0), agree(live, expected, 0.0)
                due = found & same & ~there
                db.executemany(
                    f"UPDATE {self._table} SET {self._column} = ? WHERE id = ?",
                    [
                        (vectors[place].astype("<f4").tobytes(), json.loads(keys[place]))
                        for place in np.flatnonzero(due)
                    ],
                )
                db.execute("COMMIT")
            except BaseException:
                db.execute("ROLLBACK")
                raise
        kinds = {(False, False): Outcome.MISSING, (False, True): Outcome.MISSING, (True, False): Outcome.CHANGED}
        return [kinds.get((bool(f), bool(ok)), Outcome.WRITTEN) for f, ok in zip(found, due | there, strict=True)]

    def search(self, queries, k, accuracy=Accuracy.INDEX):
        if queries.shape[1:] != (self._traits.width,):
            raise Refused(f"expected queries of {self._traits.width} components")
        page = self.scan(None, sys.maxsize)
        keys = [key for key, gap in zip(page.keys, page.absent, strict=True) if not gap]
        rows, asked = page.vectors[~page.absent].astype(np.float64), queries.astype(np.float64)
        scores = asked @ rows.T
        if self._traits.metric is Metric.COSINE:
            scores = scores / np.linalg.norm(rows, axis=1)
        if self._traits.metric is Metric.EUCLID:
            scores = 2 * scores - (rows**2).sum(axis=1)
        return [[keys[place] for place in row] for row in np.argsort(-scores, axis=1, kind="stable")[:, :k]]

    def count(self):
        with self._asking("counting") as db:
            return db.execute(f"SELECT count(*) FROM {self._table}").fetchone()[0]

    def notes(self):
        with self._asking("reading the notes of") as db:
            if not db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", [NOTES]).fetchone():
                return {}
            return dict(db.execute(f"SELECT name, text FROM {NOTES} WHERE tuned = ?", [self._table]))

    def leave_note(self, name, text):
        with self._asking("leaving a note with") as db:
            db.execute(f"CREATE TABLE IF NOT EXISTS {NOTES} (tuned, name, text, PRIMARY KEY (tuned, name))")
            db.execute(f"DELETE FROM {NOTES} WHERE tuned = ? AND name = ?", [self._table, name])
            if text:
                db.execute(f"INSERT INTO {NOTES} VALUES (?, ?, ?)", [self._table, name, text])
            return True

    def diagnose(self):
        return [
            Remark("reading", "by SQL, from the file"),
            Remark("writing", "rows are compared and updated in one transaction a batch"),
        ]

    def close(self):
        with self._lock:
            self._db.close()

    def _key(self, name):
        return json.dumps(name).encode()

    def _id(self, text):
        if not self._whole:
            return text if text.isprintable() or text.isascii() else None
        whole = len(text) < 20 and text.lstrip("-").isdecimal() and str(int(text)) == text
        return int(text) if whole else None


class SqliteFixture:
    def __init__(self, file, table, metric):
        self._db, self._table = sqlite3.connect(file, isolation_level=None), quoted(table)
        self.collection = SqliteCollection(file, table, metric=metric)

    def read(self):
        rows = self._db.execute(f"SELECT id, vector, payload, other FROM {self._table}")
        return {
            str(name): StoredRow(
                None if vector is None else np.frombuffer(vector, "<f4"),
                json.loads(payload),
                {"other": json.loads(other)},
            )
            for name, vector, payload, other in rows
        }

    def insert(self, rows):
        fill(self._db, self._table, rows)

    def re_embed(self, ids, vectors):
        self._db.executemany(
            f"UPDATE {self._table} SET vector = ? WHERE id = ?",
            [(vector.astype("<f4").tobytes(), name) for name, vector in zip(ids, vectors, strict=True)],
        )

    def delete(self, ids):
        self._db.executemany(f"DELETE FROM {self._table} WHERE id = ?", [[name] for name in ids])

    def close(self):
        self.collection.close()
        self._db.close()


def fill(db, table, rows):
    blobs = [None if np.isnan(vector).all() else vector.astype("<f4").tobytes() for vector in rows.vectors]
    others = [None] * len(blobs) if rows.others is None else rows.others.tolist()
    payloads = [json.dumps(payload) for payload in rows.payloads]
    held = zip(rows.ids, blobs, payloads, map(json.dumps, others), strict=True)
    db.executemany(f"INSERT INTO {table} (id, vector, payload, other) VALUES (?, ?, ?, ?)", list(held))


def place_of(address):
    address.allow("metric")
    try:
        return address.file, address.collection, Metric(address.option("metric") or "cosine")
    except ValueError as exc:
        raise BadAddress(f"metric={address.option('metric')}: expected cosine, dot or euclid") from exc


def open_collection(address):
    file, table, metric = place_of(address)
    return SqliteCollection(file, table, metric=metric)


def open_fixture(address, rows, metric):
    file, table, _ = place_of(address)
    db = sqlite3.connect(file, isolation_level=None)
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", [table]).fetchone():
        raise BadOption(f"the table {table} exists already; choose another name")
    kind = "INTEGER" if all(isinstance(name, int) for name in rows.ids) else "TEXT"
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"CREATE TABLE {quoted(table)} (id {kind} PRIMARY KEY, vector BLOB, payload TEXT, other TEXT)")
    fill(db, quoted(table), rows)
    db.close()
    return SqliteFixture(file, table, metric)
