"""Finds in the folders what the index lacks: all of it after the index was lost, or what is younger than a crash.

Only folders that changed since then are listed, and only JSONs that changed since then are read.
"""

from __future__ import annotations

import logging
import math
import os
import sqlite3
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

from daemon.config import Settings
from daemon.drops import with_ending
from daemon.folders import Folder
from daemon.index import archive
from daemon.index.answers import read_record
from daemon.index.archive import PROCESSED, REJECTED, RESULTS
from daemon.index.looking import CORRECTIONS, digest, files, open_folder, read, size_of
from daemon.index.schema import (
    INSERT,
    INSERT_LABEL,
    JSON,
    ORIGINAL,
    WAIT_SECONDS,
    Record,
    get_state,
    open_for_a_while,
    open_to_write,
    put_state,
    settle,
    storable,
)

log = logging.getLogger(__name__)

IN_ONE_TRANSACTION = 500  # records that are written in one transaction, so that the daemon never waits long for its turn
SETTLE = 50_000  # records between two times that digests are brought up to date
LABEL_SECONDS = 3600.0  # a label is noticed no later after its file came

LABELS = {str(digit): digit for digit in range(10)} | {"none": None}

Progress = Callable[[int, int], None]
Row = tuple[object, ...]

_INSERT_ARCHIVED = INSERT.replace("original)", "original, archive, gone)").replace("?)", "?, ?, ?)")
_ARCHIVED = """
SELECT answers.id FROM digests JOIN answers USING (id)
WHERE digest = coalesce(substr(:sha256, 1, 8), CAST(:name AS BLOB)) AND name = :name AND sha256 IS :sha256
    AND answered_at = :answered_at AND archive IS NOT NULL
"""


class Superseded(Exception):
    """The index began anew meanwhile, or more is missing now: this filling is void."""


def start_anew(path: Path) -> None:
    """Forget everything, to be filled again.

    Raises:
        sqlite3.Error: the machine failed, or the file is damaged.

    """
    with closing(open_to_write(path, WAIT_SECONDS)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for table in ("answers", "digests", "labels", "state"):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 -- names of ours
        put_state(connection, generation=os.urandom(8), settled=0, since=0.0, clean=0)
        connection.execute("COMMIT")


def fill(path: Path, settings: Settings, progress: Progress = lambda _done, _total: None) -> None:
    """Bring the index up to date with the folders, where it says that it is not.

    Args:
        path: of index.sqlite.
        settings: where the folders are.
        progress: told after each transaction how many JSONs were looked at, and how many there are at least.

    Raises:
        Superseded: somebody else fills it.
        sqlite3.Error, OSError: the machine failed; what was found is kept.

    """
    with closing(open_for_a_while(path)) as connection:
        state = get_state(connection)
        if state["since"] is None:
            return
        until = state.get("until")
        moments = float(str(state["since"])), math.inf if until is None else float(str(until))
        _Filling(connection, settings, moments, state["generation"], progress).run()


class _Filling:
    """One filling; `moments` are those before the first and after the second of which nothing is missing."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        settings: Settings,
        moments: tuple[float, float],
        generation: object,
        progress: Progress,
    ) -> None:
        self._connection, self._settings, (self._since, self._until) = connection, settings, moments
        self._generation, self._progress = generation, progress
        self._done = self._total = self._unsettled = 0
        self._has_archived = False

    def run(self) -> None:
        folders = [(name, open_folder(self._settings.folder(name))) for name in (RESULTS, REJECTED)]
        if self._since == 0:  # else nearly none of them are looked at
            self._total = sum(_count(folder) for _, folder in folders if folder)
        processed, rejected = open_folder(self._settings.folder(PROCESSED)), folders[1][1]
        if self._since == 0:
            for tar in archive.days(self._settings.archive):
                try:
                    day = archive.Day(tar)
                except archive.Damaged as error:
                    log.error("%s Its answers are not in the index.", error)
                    continue
                with day:
                    self._write(_INSERT_ARCHIVED, self._archived(tar.name, day, folders[0][1], processed, rejected))
        self._settle(finished=False)
        self._has_archived = bool(self._connection.execute("SELECT 1 FROM answers WHERE archive IS NOT NULL").fetchone())
        for name, folder in folders:
            if folder:
                self._write(INSERT, self._found(name, folder, rejected if name == REJECTED else processed))
        self._write(INSERT_LABEL, self._labels())
        self._settle(finished=True)
        for folder in {folder for _, folder in folders} | {processed}:
            if folder:
                folder.close()

    def _write(self, statement: str, rows: Iterable[Row]) -> None:
        rows = iter(rows)
        while chunk := list(islice(rows, IN_ONE_TRANSACTION)):
            self._begin()
            self._connection.executemany(statement, chunk)
            put_state(self._connection, done=self._done, total=self._total)
            self._connection.execute("COMMIT")
            self._progress(self._done, self._total)
            self._unsettled += len(chunk)
            if self._unsettled >= SETTLE:
                self._settle(finished=False)

    def _settle(self, finished: bool) -> None:
        self._begin()
        settle(self._connection)
        if finished:
            put_state(self._connection, since=None, done=None, total=None)
            self._connection.execute("DELETE FROM state WHERE key LIKE 'left %'")  # what was found late is looked at too
        self._connection.execute("COMMIT")
        self._unsettled = 0

    def _begin(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        if get_state(self._connection).get("generation") != self._generation:
            self._connection.execute("ROLLBACK")
            raise Superseded

    def _found(self, name: str, folder: Folder, originals: Folder | None) -> Iterator[Row]:
        """A record for each JSON in results/ or rejected/."""
        for path in files(folder, self._since, self._until):
            if not path.endswith(".json") or (name == REJECTED and folder.holds(with_ending(path, "", ".json"))):
                continue  # an original, or one that is called like a JSON
            self._done += 1
            self._total = max(self._done, self._total)
            if (content := read(folder, path)) is None:
                continue
            record = read_record(content, path, name == REJECTED, lambda name_: size_of(originals, name_))
            if record and not (self._has_archived and self._is_archived(record)):
                yield record

    def _is_archived(self, record: Record) -> bool:
        found = self._connection.execute(_ARCHIVED, record._asdict()).fetchone()
        return found is not None

    def _archived(
        self, tar: str, day: archive.Day, results: Folder | None, processed: Folder | None, rejected: Folder | None
    ) -> Iterator[Row]:
        """A record for each JSON in an archive."""
        for member in day:
            place, _, path = member.partition("/")
            is_json = place == RESULTS or (place == REJECTED and with_ending(member, "", ".json") not in day)
            if not path.endswith(".json") or not is_json:
                continue
            content = b"".join(day.read(member))
            beside = REJECTED if place == REJECTED else PROCESSED

            def size(name: str, beside: str = beside) -> int | None:
                return day.size(f"{beside}/{name}")

            record = read_record(content, path, place == REJECTED, size)
            if record:
                answers, originals = (rejected, rejected) if place == REJECTED else (results, processed)
                kept = answers is not None and read(answers, path) == content
                original = os.fsdecode(record.original or record.name)
                gone = (0 if kept else JSON) | (0 if size_of(originals, original) is not None else ORIGINAL)
                yield (*record, tar, gone)

    def _labels(self) -> Iterator[Row]:
        """What people said: each image in corrections/<digit>/ and corrections/none/."""
        folder = open_folder(self._settings.folder(CORRECTIONS))
        if folder is None:
            return
        with folder:
            for path in files(folder, 0.0, others=True):
                label, slash, _ = path.partition("/")
                if not slash or any(part.startswith(".") for part in path.split("/")) or label not in LABELS:
                    continue
                try:
                    status = folder.status(path)
                except OSError:
                    continue  # somebody took it away
                if max(status.st_mtime, status.st_ctime) < self._since - LABEL_SECONDS or not stat.S_ISREG(status.st_mode):
                    continue
                most = self._settings.inbox.max_bytes
                if status.st_size <= most and (sha256 := digest(folder, path, most)):
                    yield sha256, LABELS[label], storable(path), status.st_mtime


def _count(folder: Folder) -> int:
    """How many JSONs there are."""
    return sum(path.endswith(".json") for path in files(folder, 0.0))
