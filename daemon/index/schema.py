"""index.sqlite: what it holds, and how it is opened. The folders are the truth: whoever deletes it loses nothing.

An answer is appended by its time; what finds it by its digest follows when nothing else is to be done (`settle`), because an
index in random order costs more than all else: 3 us a row in sorted bulk, 11 us one by one.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from daemon.files import begin_for_owner

ENDINGS = ("", "-wal", "-shm")
SCHEMA = 1
WAIT_SECONDS = 60.0  # of whoever is not the daemon, for its turn to end
ODD = (LookupError, TypeError, ValueError, OverflowError)  # what may come of a damaged file that SQLite takes for whole
NOT_KEPT = "not_a_regular_file"  # the reason of a rejection whose original is removed, for it has no content
ORIGINAL, JSON = 1, 2  # bits of `gone`: which of the two has left its folder

_TABLES = """
CREATE TABLE answers (
    id INTEGER PRIMARY KEY,
    answered_at REAL NOT NULL,
    received_at REAL,
    name NOT NULL,
    sha256 BLOB,
    outcome TEXT NOT NULL,
    reason TEXT,
    digit INTEGER,
    confidence REAL,
    version TEXT,
    size INTEGER,
    json,
    original,
    archive TEXT,
    gone INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX by_time ON answers (answered_at);
CREATE TABLE digests (digest BLOB, id INTEGER, PRIMARY KEY (digest, id)) WITHOUT ROWID;
CREATE TABLE labels (sha256 BLOB PRIMARY KEY, digit INTEGER, file, noticed_at REAL) WITHOUT ROWID;
CREATE TABLE state (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
"""
INSERT = (
    "INSERT INTO answers (answered_at, received_at, name, sha256, outcome, reason, digit, confidence, version, size, json, "
    "original) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_USUAL = (
    "INSERT INTO answers (answered_at, received_at, name, sha256, outcome, digit, confidence, version, size) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
INSERT_LABEL = "INSERT OR REPLACE INTO labels (sha256, digit, file, noticed_at) VALUES (?, ?, ?, ?)"
DIGEST = "coalesce(substr({0}.sha256, 1, 8), CAST({0}.name AS BLOB))"  # what has no sha256 is found by its name
_SETTLE = f"""
INSERT OR IGNORE INTO digests SELECT {DIGEST.format("answers")}, id FROM answers WHERE id > ? ORDER BY 1
"""  # noqa: S608 -- made of constants
_UNSETTLE = """
UPDATE state SET value = min(value, (SELECT coalesce(max(id), 0) FROM answers)) WHERE key = 'settled'
"""  # the next answer gets the newest's id if that was forgotten; AUTOINCREMENT would cost a quarter of an insertion
_REFRESHED = f"""
SELECT CASE WHEN old.answered_at <= new.answered_at THEN old.id ELSE new.id END
FROM answers AS new
JOIN digests ON digests.digest = {DIGEST.format("new")} AND digests.id < new.id
JOIN answers AS old ON old.id = digests.id
WHERE new.id > ? AND old.name = new.name AND old.sha256 IS new.sha256 AND old.archive IS new.archive
    AND (old.outcome = 'rejected') = (new.outcome = 'rejected')
"""  # noqa: S608 -- made of constants


class Unusable(sqlite3.DatabaseError):
    """The file is no index of ours, or one of another version of digitd: it is made anew."""


class NoIndex(Exception):
    """There is nothing to read, in words."""


class Record(NamedTuple):
    """An answer or rejection, as it is inserted.

    Attributes:
        answered_at, received_at: in seconds since the epoch, to the microsecond.
        name: of the drop, below the inbox; see `storable`.
        sha256: 32 bytes; None where the content was not read.
        outcome: "accepted", "review" or "rejected".
        reason: why it is to be reviewed, or was rejected.
        digit, confidence, version: of the answer.
        size: of the original, in bytes.
        json: where its JSON is below results/ or rejected/, where that is not `<name>.json`.
        original: where the original is below processed/ or rejected/, where that is not `<name>`.

    """

    answered_at: float
    received_at: float | None
    name: str | bytes
    sha256: bytes | None
    outcome: str
    reason: str | None
    digit: int | None
    confidence: float | None
    version: str | None
    size: int | None
    json: str | bytes | None = None
    original: str | bytes | None = None


def storable(name: str) -> str | bytes:
    """A name as SQLite takes it: text, or bytes where it is not UTF-8; `os.fsdecode` gives it back."""
    if name.isascii():
        return name
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name)
    return name


def open_for_a_while(path: Path) -> sqlite3.Connection:
    """Open the index as who is not the daemon, to fill it or to let leave what is old; errors are as of `open_to_write`.

    Also where the disk is so full that what several would share of it, the -shm, cannot be made: then for itself alone.
    """
    try:
        return open_to_write(path, WAIT_SECONDS)
    except sqlite3.OperationalError as error:
        if not error.sqlite_errorname.startswith("SQLITE_IOERR"):
            raise
        return open_to_write(path, WAIT_SECONDS, alone=True)


def open_to_write(path: Path, wait_seconds: float, alone: bool = False) -> sqlite3.Connection:
    """Open the index, or make it.

    Args:
        path: of index.sqlite.
        wait_seconds: how long to wait for another writer.
        alone: whether nobody else is to open it meanwhile.

    Raises:
        Unusable: there is something else in its place.
        sqlite3.Error: the machine failed, or the file is damaged.

    """
    begin_for_owner(path)
    connection = sqlite3.connect(path, timeout=wait_seconds, isolation_level=None, check_same_thread=False)
    try:
        if alone:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # a power cut loses the last rows, never the file
        connection.execute("PRAGMA wal_autocheckpoint = 4000")  # pages; at the usual 1000 they are written twice as often
        connection.execute("PRAGMA cache_size = -8000")  # KiB
        connection.execute("BEGIN IMMEDIATE")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0 and not connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
            for statement in _TABLES.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA}")
            put_state(connection, generation=os.urandom(8), settled=0, since=0.0, clean=0)
        elif version != SCHEMA:
            raise Unusable(f"expected an index of schema {SCHEMA}. Received: schema {version}")
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def open_to_read(path: Path) -> sqlite3.Connection:
    """Open the index as somebody who may only read it, also while the daemon writes.

    Raises:
        NoIndex: there is none, or it cannot be read; the message says what to do.

    """
    if not path.exists():
        raise NoIndex(
            f"{path}: expected the index of all answers. Received: no such file; a daemon that runs makes it, and "
            "so does `digitd index --rebuild`."
        )
    if not os.access(path, os.R_OK, effective_ids=True):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    error: sqlite3.Error | None = None
    # Without -wal and -shm, which only its owner can make, nobody writes, and a reader can do without locks.
    for mode in ("mode=ro", "immutable=1"):
        connection = sqlite3.connect(f"file:{quote(str(path))}?{mode}", uri=True, isolation_level=None, timeout=5)
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version != SCHEMA:
                connection.close()
                raise NoIndex(f"{path}: expected schema {SCHEMA}. Received: {version}; restart the daemon.")
            connection.execute("SELECT 1 FROM state").fetchone()
        except sqlite3.OperationalError as refused:
            connection.close()
            error = refused
            if path.with_name(f"{path.name}-wal").exists():
                break
        except sqlite3.DatabaseError as damage:
            connection.close()
            error = damage
            break
        except ODD as odd:
            connection.close()
            raise _damaged(path, odd) from odd
        else:
            connection.row_factory = sqlite3.Row
            return connection
    raise NoIndex(f"{path}: expected a whole index. Received: {error}; `digitd index --rebuild` makes it anew.") from error


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """The index, while it is read.

    Raises:
        NoIndex: there is none, it cannot be read, or it is damaged; the message says what to do.
        sqlite3.OperationalError: the machine failed.

    """
    with closing(open_to_read(path)) as connection:
        try:
            yield connection
        except (sqlite3.DatabaseError, *ODD) as error:
            if isinstance(error, sqlite3.OperationalError) and hasattr(error, "sqlite_errorname"):
                raise  # else Python's: what is no text
            raise _damaged(path, error) from error


def _damaged(path: Path, error: object) -> NoIndex:
    return NoIndex(f"{path}: expected a whole index. Received: {error!r}; `digitd index --rebuild` makes it anew.")


def remove(path: Path) -> None:
    """Delete the index: it is made anew from the folders."""
    for ending in ENDINGS:
        path.with_name(f"{path.name}{ending}").unlink(missing_ok=True)


def get_state(connection: sqlite3.Connection) -> dict[str, object]:
    """What the index says of itself.

    Returns:
        generation: changes when it begins anew; settled: rows up to this id are in `digests`; since: answers after this
        moment may be missing, None where none is; until: after this one, by the file system's clock, none is, None where
        that is not known; clean: whether its writer closed it; done, total: how far a filling is.

    Raises:
        Unusable: it does not say all of it.

    """
    state = dict(connection.execute("SELECT key, value FROM state").fetchall())
    if not state.keys() >= {"generation", "settled", "since", "clean"}:
        raise Unusable(f"expected what an index says of itself. Received: {', '.join(state) or 'nothing'}")
    return state


def put_state(connection: sqlite3.Connection, **values: object) -> None:
    """Note some of it."""
    connection.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", list(values.items()))


def newest_answer(connection: sqlite3.Connection, now: float) -> float:
    """When the newest answer was given; 0.0 where there is none. One by a clock that was ahead does not hide older ones."""
    (newest,) = connection.execute("SELECT max(answered_at) FROM answers WHERE answered_at <= ?", (now,)).fetchone()
    return newest or 0.0


def append(connection: sqlite3.Connection, records: list[Record]) -> None:
    """Append answers. Within a transaction of the caller's.

    Of each None and each bytes Python's sqlite3 asks at length how SQL would have it (0.4 us); usual answers have none.
    """
    usual, others = [], []
    for record in records:
        at, received_at, name, sha256, outcome, reason, digit, confidence, version, size, json, original = record
        if sha256 is None or digit is None or reason is not None or json is not None or original is not None:
            others.append(tuple(record))
        else:
            usual.append((at, received_at, name, bytearray(sha256), outcome, digit, confidence, version, size))
    connection.executemany(_INSERT_USUAL, usual)
    connection.executemany(INSERT, others)


def settle(connection: sqlite3.Connection) -> None:
    """Let digests find what was appended, and drop what was answered anew. Within a transaction of the caller's."""
    (settled,) = connection.execute("SELECT value FROM state WHERE key = 'settled'").fetchone()
    connection.execute(_SETTLE, (settled,))
    refreshed = connection.execute(_REFRESHED, (settled,)).fetchall()
    if refreshed:
        delete(connection, [id_ for (id_,) in refreshed])
    (newest,) = connection.execute("SELECT max(id) FROM answers").fetchone()
    put_state(connection, settled=newest or 0)


def delete(connection: sqlite3.Connection, ids: list[int]) -> None:
    """Forget answers; within a transaction of the caller's."""
    rows = [{"id": id_} for id_ in ids]
    connection.executemany(
        f"DELETE FROM digests WHERE id = :id AND digest = (SELECT {DIGEST.format('answers')} FROM answers WHERE id = :id)",  # noqa: S608
        rows,
    )
    connection.executemany("DELETE FROM answers WHERE id = :id", rows)
    connection.execute(_UNSETTLE)
