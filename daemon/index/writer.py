"""The index as the daemon writes it, behind the answers. Whatever becomes of the file, only the index suffers."""

from __future__ import annotations

import errno
import logging
import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from daemon.index import schema
from daemon.index.schema import INSERT_LABEL, ODD, Record, Unusable, get_state, newest_answer, put_state, settle
from daemon.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

PENDING = 100_000  # records that wait for the file, 40 MB of them; more are left to be found in the folders
UNSETTLED = 50_000  # records that digests do not find yet: looked through in 10 ms
QUIET_SECONDS = 10.0  # without a new record: time to settle; among a million digests, 50,000 cost a third each of 10,000
CLOSED_SECONDS = 5.0  # between two tries on a file that cannot be written
BUSY_SECONDS = 60.0  # somebody else may write for so long before it is a fault
MOST_WAL = 256 << 20  # bytes of index.sqlite-wal, which grows for as long as somebody reads, such as `digitd find | less`
SLACK_SECONDS = 60.0  # the order of answers and of their records differs by less
DAMAGE = (
    *("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR", "SQLITE_CONSTRAINT", "SQLITE_MISMATCH", "SQLITE_SCHEMA"),
    "OperationalError",  # Python's own, of text that is none
)

Label = tuple[bytes, int | None, str | bytes, float]


class Index:
    """Appends answers and labels to index.sqlite, one transaction a group. Owned by the retiring thread, except `label`.

    Args:
        path: of index.sqlite.
        metrics: shows whether it works, and what waits for it.
        past: says until when others may have answered, as `looking.past` does; they may do so at any time unless given.

    """

    def __init__(self, path: Path, metrics: Metrics, past: Callable[[], float | None] = lambda: math.inf) -> None:
        self._path, self._metrics, self._past = path, metrics, past
        self._wal = path.with_name(f"{path.name}-wal")
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._pending: list[Record] = []
        self._labels: list[Label] = []
        self._lock = threading.Lock()
        self._missed: float | None = None  # answers from this moment on may never have been appended
        self._unsettled = 1  # records; at first who knows
        self._wrote = 0.0
        self._not_before = 0.0
        self._busy_since: float | None = None
        self._works = True
        metrics.index_up.set(1)

    def add(self, records: list[Record]) -> None:
        """Take records, to be written by the next pass."""
        self._pending += records

    def label(self, label: Label) -> None:
        """Take what a person said of an image: (sha256, digit, file, noticed_at). Any thread may call this."""
        with self._lock:
            self._labels.append(label)

    @property
    def is_current(self) -> bool:
        """Whether all that was retired is in the file. Any thread may ask."""
        return self._works and self._connection is not None and not self._pending

    def run_once(self, now: float) -> None:
        """Write what waits; settle when nothing came for a while.

        Args:
            now: of a monotonic clock, in seconds.

        """
        if now < self._not_before:
            return
        if self._pending or self._labels:
            self._try(self._append, now)
        elif self._unsettled and now - self._wrote >= QUIET_SECONDS:
            self._try(self._settle, now)

    def close(self) -> None:
        """Write what waits, and note that nothing is missing."""

        def finish(connection: sqlite3.Connection) -> None:
            self._append(connection)
            self._settle(connection)
            if self._missed is None:
                put_state(connection, clean=1)

        self._try(finish, self._wrote)
        self._close()

    def _try(self, step: Callable[[sqlite3.Connection], None], now: float) -> None:
        try:
            step(self._open())
        except (sqlite3.Error, OSError) as error:
            self._fault(error, now)
        except ODD as error:
            self._fault(Unusable(repr(error)), now)
        else:
            self._wrote, self._busy_since = now, None
            self._metrics.index_pending.set(0)
            if not self._works:
                self._works = True
                self._metrics.index_up.set(1)
                log.info("the index works again")

    def _open(self) -> sqlite3.Connection:
        """The connection; a new one where the file was deleted or replaced."""
        try:
            inode = self._path.stat().st_ino
        except FileNotFoundError:
            inode = 0
        if self._connection is None or inode != self._inode:
            self._close()
            if not inode:
                schema.remove(self._path)  # a -wal that is left would be taken for the new file's
            self._connection = schema.open_to_write(self._path, wait_seconds=0)
            inode = self._path.stat().st_ino
            # Else it is the one that this process closed over a fault: what it could not add since still waits.
            if inode != self._inode or get_state(self._connection)["clean"]:
                self._begin(self._connection)
            self._inode = inode
        if (size := self._wal_bytes()) > MOST_WAL:
            is_held, *_ = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if is_held:
                raise OSError(
                    errno.EBUSY,
                    f"expected nobody to read it for so long that its -wal takes {size >> 20} MiB. Received: somebody who "
                    "does; `lslocks` names the process, perhaps a `digitd find` whose output nobody takes",
                )
        return self._connection

    def _wal_bytes(self) -> int:
        try:
            return self._wal.stat().st_size
        except FileNotFoundError:
            return 0

    def _begin(self, connection: sqlite3.Connection) -> None:
        """Note that from now on it may be behind; what is so already, as after a crash, is to be found in the folders.

        What this process answers from now on need not be: it is added, or its loss is noted by the next one.
        """
        until, now = self._past(), time.time()
        connection.execute("PRAGMA synchronous = FULL")  # a power cut must not bring "clean" back
        connection.execute("BEGIN IMMEDIATE")  # somebody may begin to rebuild it this very moment
        state = get_state(connection)
        since = state["since"]
        if until is None:
            since = None
        elif since is None and not state["clean"]:
            other_clock = until - now if until < math.inf else 0.0  # than the one that answers are stamped with
            since = max(0.0, newest_answer(connection, now) + other_clock - SLACK_SECONDS)
        put_state(connection, clean=0, since=since, until=until)
        connection.execute("COMMIT")
        connection.execute("PRAGMA synchronous = NORMAL")

    def _append(self, connection: sqlite3.Connection) -> None:
        records = self._pending
        with self._lock:
            labels = self._labels.copy()
        connection.execute("BEGIN IMMEDIATE")
        schema.append(connection, records)
        connection.executemany(INSERT_LABEL, labels)
        if self._missed is not None:
            since = get_state(connection)["since"]
            since = self._missed if since is None else min(float(str(since)), self._missed)
            put_state(connection, since=since, until=None, generation=os.urandom(8))  # a filling may be past where they are
        connection.execute("COMMIT")
        self._missed, self._pending = None, []
        with self._lock:
            del self._labels[: len(labels)]
        self._unsettled += len(records)
        if self._unsettled >= UNSETTLED:
            self._settle(connection)

    def _settle(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        settle(connection)
        connection.execute("COMMIT")
        self._unsettled = 0

    def _fault(self, error: sqlite3.Error | OSError, now: float) -> None:
        cause = str(getattr(error, "sqlite_errorname", None) or type(error).__name__)
        if self._connection is not None and self._connection.in_transaction:
            with suppress(sqlite3.Error):
                self._connection.rollback()
        if len(self._pending) > PENDING:
            first = min(record.answered_at for record in self._pending) - SLACK_SECONDS
            self._missed = first if self._missed is None else min(first, self._missed)
            self._pending = []
        self._metrics.index_pending.set(len(self._pending))
        busy = cause.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
        if busy:
            self._busy_since = now if self._busy_since is None else self._busy_since
            if now - self._busy_since < BUSY_SECONDS:
                return  # somebody fills it; the next pass tries again
        self._not_before = now + CLOSED_SECONDS
        self._metrics.index_errors.labels(cause).inc()
        self._metrics.index_up.set(0)
        self._close()
        damaged = isinstance(error, Unusable) or cause.startswith(DAMAGE)
        if self._works or damaged:
            outlook = "made anew" if damaged else "answers go on without it"
            if busy:
                outlook += "; `lslocks` names the process that has locked it"
            log.error("%s: %s (%s); %s", self._path, error, cause, outlook)
        self._works = False
        if damaged:
            with suppress(OSError):
                schema.remove(self._path)

    def _close(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None
