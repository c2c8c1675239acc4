"""What leaves the folders: answers that are old enough, or the oldest where the disk fills, whole days (UTC) at a time.

Each day goes through the same steps, each of which may be done again after a kill: everything of it is in the day's archive,
durably; then what is due, and is byte for byte what the archive holds, is deleted; then the index says where it is now.
Files that no answer owns are never touched.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

from daemon.config import Settings
from daemon.files import CLOSED_TO_US, OWN_FAULTS, printable
from daemon.folders import Folder
from daemon.index import archive
from daemon.index.answers import answered_at, parse
from daemon.index.archive import PROCESSED, REJECTED, RESULTS, Day
from daemon.index.schema import JSON, ORIGINAL, WAIT_SECONDS, delete, get_state, open_to_write, put_state

log = logging.getLogger(__name__)

DAY_SECONDS = 86400.0
KEYS = {PROCESSED: "processed_days", RESULTS: "results_days", REJECTED: "rejected_days"}
DAMAGED = "damaged "  # in the index's state, before an archive's name: which file it was that could not be read
IN_ONE_TRANSACTION = 500  # answers whose new places are noted in one transaction
_OLDEST = "SELECT min(answered_at) FROM answers WHERE answered_at >= ? AND answered_at < ?"
_PAGE = """
SELECT * FROM answers WHERE (answered_at, id) > (?, ?) AND answered_at < ? AND gone != 3 ORDER BY answered_at, id LIMIT ?
"""
_ANY_ARCHIVED = "SELECT 1 FROM answers WHERE archive IS NOT NULL LIMIT 1"
_MOVED = "UPDATE answers SET archive = ?, gone = ? WHERE id = ?"


class Part(NamedTuple):
    """An original or a JSON.

    Attributes:
        bit: of `gone`.
        key: of its folder in [paths].
        path: below that folder.

    """

    bit: int
    key: str
    path: str

    @property
    def member(self) -> str:
        """What it is called in an archive."""
        return f"{self.key}/{self.path}"


def parts(row: sqlite3.Row) -> tuple[Part, Part]:
    """The original and the JSON of an answer."""
    name, rejected = os.fsdecode(row["name"]), row["outcome"] == "rejected"
    return (
        Part(ORIGINAL, REJECTED if rejected else PROCESSED, os.fsdecode(row["original"] or name)),
        Part(JSON, REJECTED if rejected else RESULTS, os.fsdecode(row["json"] or f"{name}.json")),
    )


def leave(settings: Settings, now: float, free_bytes: Callable[[], int] | None = None) -> int:
    """Move out, or delete, what is due.

    Args:
        settings: how old what may become, and where it goes.
        now: in seconds since the epoch.
        free_bytes: asks how much is free; the disk of the root is asked unless given.

    Returns:
        How many answers left, at least in part.

    Raises:
        OSError, sqlite3.Error: the machine failed; nothing is lost, and the next call goes on.

    """
    ask = free_bytes or (lambda: shutil.disk_usage(settings.root).free)
    with closing(open_to_write(settings.index, WAIT_SECONDS)) as connection, ExitStack() as stack:
        connection.row_factory = sqlite3.Row
        if get_state(connection)["since"] is not None:
            return 0  # it is not known yet what there is
        goes_steadily = _goes_steadily(connection, now)
        if settings.archive:
            _check_archive(settings.archive, connection)
            _look_again(settings.archive, connection)
            archive.remove_unfinished(settings.archive)
        folders = {key: stack.enter_context(Folder(settings.folder(key))) for key in KEYS}
        left = 0
        by_age = bool(settings.archive) or goes_steadily
        for begin, keys in _days(settings, connection, now // DAY_SECONDS * DAY_SECONDS, ask, by_age):
            try:
                left += _Leaving(settings, connection, folders, begin, keys).run()
            except archive.Damaged as error:
                log.error("%s What is of that day stays.", error)
                put_state(connection, **{f"{DAMAGED}{error.path.name}": archive.identity(error.path)})
            put_state(connection, **{f"left {key}": begin + DAY_SECONDS for key in keys})
        return left


def _goes_steadily(connection: sqlite3.Connection, now: float) -> bool:
    """Whether the clock has gone on for a day without a leap: by one that is wrong, all would be old, and deleted."""
    state = get_state(connection)
    seen, since = (float(str(state.get(key, -math.inf))) for key in ("clock", "steady"))
    if abs(now - seen) > DAY_SECONDS:
        since = now
    put_state(connection, clock=now, steady=since)
    return now - since >= DAY_SECONDS


def _check_archive(folder: Path, connection: sqlite3.Connection) -> None:
    """Write nothing into the empty folder that is there while the archives' disk is not.

    Raises:
        OSError: there is nothing in the folder, and the index knows of archives.

    """
    if not (folder.is_dir() and any(folder.iterdir())) and connection.execute(_ANY_ARCHIVED).fetchone():
        raise FileNotFoundError(
            f"{folder}: expected the archives that the index knows of. Received: an empty folder, or none. "
            "Mount their disk; where they are gone for good, `digitd index --rebuild` forgets them"
        )


def _look_again(folder: Path, connection: sqlite3.Connection) -> None:
    """See to it that days are looked at again once a damaged archive was replaced, or moved away."""
    noted = {key: value for key, value in get_state(connection).items() if key.startswith(DAMAGED)}
    mended = [key for key, value in noted.items() if archive.identity(folder / key.removeprefix(DAMAGED)) != value]
    if mended:
        connection.executemany("DELETE FROM state WHERE key = ?", [(key,) for key in mended])
        connection.execute("DELETE FROM state WHERE key LIKE 'left %'")


def _days(
    settings: Settings,
    connection: sqlite3.Connection,
    today: float,
    free_bytes: Callable[[], int],
    by_age: bool = True,
) -> Iterator[tuple[float, set[str]]]:
    """The days, oldest first, each with the folders that something of it leaves: for their age, or for want of room."""
    while True:
        state = get_state(connection)
        begins: dict[str, float] = {}
        short = free_bytes() < settings.retention.keep_free_mb << 20
        for key, name in KEYS.items():
            days = getattr(settings.retention, name)
            until = today if short else today - days * DAY_SECONDS if days and by_age else 0.0
            since = float(str(state.get(f"left {key}", 0.0)))
            since = since if since <= today else 0.0  # it was noted by a clock that was wrong
            (oldest,) = connection.execute(_OLDEST, (since, until)).fetchone()
            if oldest is not None:
                begins[key] = oldest // DAY_SECONDS * DAY_SECONDS
        if not begins:
            return
        first = min(begins.values())
        yield first, {key for key, begin in begins.items() if begin == first}


class _Leaving:
    """One day's leaving: what is of that day, in the folders that it leaves now."""

    def __init__(
        self, settings: Settings, connection: sqlite3.Connection, folders: dict[str, Folder], begin: float, keys: set[str]
    ) -> None:
        self._connection, self._folders, self._begin, self._keys = connection, folders, begin, keys
        self._max_bytes = settings.inbox.max_bytes
        name = f"{datetime.fromtimestamp(begin, UTC):%Y-%m-%d}.tar"
        self._path = settings.archive / name if settings.archive else None

    def run(self) -> int:
        """Do all steps.

        Returns:
            How many answers left.

        """
        if self._path is None:
            return self._delete(None)
        with Day(self._path) as day:
            if added := archive.extend(self._path, day, self._missing(day)):
                log.info("%d files are in %s now", added, self._path)
        with Day(self._path) as day:
            return self._delete(day)

    def _due(self) -> Iterator[sqlite3.Row]:
        """The answers of the day of which anything leaves now."""
        after = (self._begin, 0)
        while page := self._connection.execute(_PAGE, (*after, self._begin + DAY_SECONDS, IN_ONE_TRANSACTION)).fetchall():
            for row in page:
                if any(part.key in self._keys and not row["gone"] & part.bit for part in parts(row)):
                    yield row
            after = (page[-1]["answered_at"], page[-1]["id"])

    def _missing(self, day: Day) -> Iterator[tuple[str, BinaryIO]]:
        """What the archive lacks: of each answer both files, one beside the other, so that it can be restored whole."""
        for row in self._due():
            if row["archive"] is None and self._is_own(row):
                for part in parts(row):
                    if part.member not in day and (file := self._open(part)):
                        if self._has_holes(file):
                            file.close()
                        else:
                            yield part.member, file

    def _has_holes(self, file: BinaryIO) -> bool:
        """Whether it was rejected as too large and takes less of the disk than its copy would: perhaps all that there is."""
        status = os.fstat(file.fileno())
        return status.st_size > max(self._max_bytes, status.st_blocks * 512)

    def _delete(self, day: Day | None) -> int:
        left = 0
        moved: list[tuple[str | None, int, int]] = []
        emptied: set[tuple[str, str]] = set()
        for row in self._due():
            gone, own, both = row["gone"], self._is_own(row), parts(row)
            for part in both:
                if part.key not in self._keys or gone & part.bit:
                    continue
                if own and self._folders[part.key].holds(part.path):
                    if day and not self._is_archived(day, part):
                        log.warning("%s/%s is not what the archive holds; it stays", part.key, printable(part.path))
                        continue
                    # Still: to compare takes a while, and the daemon goes on.
                    if self._is_own(row) and not self._remove(part, emptied):
                        continue
                gone |= part.bit
            kept = row["archive"]
            if day and self._path and own and any(part.member in day for part in both):
                kept = self._path.name
            if (kept, gone) != (row["archive"], row["gone"]):
                moved.append((kept, gone, row["id"]))
                left += 1
            if len(moved) == IN_ONE_TRANSACTION:
                self._note(moved)
                moved = []
        self._note(moved)
        self._remove_empty(emptied)
        return left

    def _remove(self, part: Part, emptied: set[tuple[str, str]]) -> bool:
        """Delete a file, and note its folder, unless somebody keeps it, as by chattr(1), or put a folder there."""
        try:
            self._folders[part.key].unlink(part.path)
        except OSError as error:
            if error.errno not in OWN_FAULTS:
                raise
            log.warning("%s/%s: %s; it stays", part.key, printable(part.path), error.strerror)
            return False
        emptied.add((part.key, part.path.rpartition("/")[0]))
        return True

    def _is_own(self, row: sqlite3.Row) -> bool:
        """Whether the files under this answer's names are its own, as its JSON says; one that has left says nothing.

        The same bytes dropped again are answered anew, into the same names.
        """
        if row["gone"] & JSON or (file := self._open(parts(row)[1])) is None:
            return True
        with file:
            try:
                return answered_at(parse(file.read())) == row["answered_at"]
            except (KeyError, ValueError, TypeError):
                return False

    def _is_archived(self, day: Day, part: Part) -> bool:
        """Whether the archive holds what the folder does; what is no regular file has no content."""
        if part.member not in day:
            return not stat.S_ISREG(self._folders[part.key].status(part.path).st_mode)
        if (file := self._open(part)) is None:
            return False
        with file:
            return all(file.read(len(piece)) == piece for piece in day.read(part.member)) and not file.read(1)

    def _note(self, moved: list[tuple[str | None, int, int]]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(_MOVED, moved)
        delete(self._connection, [id_ for kept, gone, id_ in moved if gone == ORIGINAL | JSON and kept is None])
        self._connection.execute("COMMIT")

    def _open(self, part: Part) -> BinaryIO | None:
        """A regular file, to be read; None where it is none, or may not be read."""
        try:
            file = self._folders[part.key].open_to_read(part.path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, *CLOSED_TO_US):
                return None
            raise
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file
        file.close()
        return None

    def _remove_empty(self, emptied: set[tuple[str, str]]) -> None:
        """Remove the sub-folders that nothing is left in; the daemon makes them anew where it needs them."""
        for key, path in sorted(emptied, reverse=True):
            place = path
            with suppress(OSError):
                while place:
                    self._folders[key].rmdir(place)
                    place = place.rpartition("/")[0]
