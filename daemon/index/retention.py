"""What leaves the folders: answers that are old enough, or the oldest where the disk fills, whole days (UTC) at a time.

Each day goes through the same steps, each of which may be done again after a kill: everything of it is in the day's archive,
durably; then what is due, and is byte for byte what the archive holds, is deleted; then the index says where it is now.
Files that no answer owns are never touched.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime
from typing import BinaryIO, NamedTuple

from daemon.config import Settings
from daemon.files import CLOSED_TO_US, OWN_FAULTS, printable
from daemon.folders import Folder
from daemon.index import archive
from daemon.index.answers import answered_at, parse
from daemon.index.archive import PROCESSED, REJECTED, RESULTS, Day
from daemon.index.due import DAMAGED, DAY_SECONDS, KEYS, check_archive, days, goes_steadily, look_again
from daemon.index.looking import digest
from daemon.index.schema import JSON, ORIGINAL, delete, get_state, open_for_a_while, put_state

log = logging.getLogger(__name__)

IN_ONE_TRANSACTION = 500  # answers whose new places are noted in one transaction
_PAGE = """
SELECT * FROM answers WHERE (answered_at, id) > (?, ?) AND answered_at < ? AND gone != 3 ORDER BY answered_at, id LIMIT ?
"""
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
    with closing(open_for_a_while(settings.index)) as connection, ExitStack() as stack:
        connection.row_factory = sqlite3.Row
        if get_state(connection)["since"] is not None:
            return 0  # it is not known yet what there is
        is_steady = goes_steadily(connection, now)
        if settings.archive:
            check_archive(settings.archive, connection)
            look_again(settings.archive, connection)
            archive.remove_unfinished(settings.archive)
        folders = {key: stack.enter_context(Folder(settings.folder(key), make=True)) for key in KEYS}
        left = 0
        by_age = bool(settings.archive) or is_steady
        for begin, keys in days(settings, connection, now // DAY_SECONDS * DAY_SECONDS, ask, by_age):
            try:
                left += _Leaving(settings, connection, folders, begin, keys).run()
            except archive.Damaged as error:
                log.error("%s What is of that day stays.", error)
                put_state(connection, **{f"{DAMAGED}{error.path.name}": archive.identity(error.path)})
            put_state(connection, **{f"left {key}": begin + DAY_SECONDS for key in keys})
        return left


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
        """Whether the files under this answer's names are its own, as its JSON says; where that has left, its digest does.

        The same bytes dropped again are answered anew, into the same names; others, once somebody has taken the first away.
        """
        original, json = parts(row)
        if row["gone"] & JSON:
            if self._path is not None or row["sha256"] is None:
                return True  # what is in an archive is compared with that
            return digest(self._folders[original.key], original.path, self._max_bytes) in (None, row["sha256"])
        if (file := self._open(json)) is None:
            return True
        with file:
            try:
                return answered_at(parse(file.read())) == row["answered_at"]
            except (KeyError, ValueError, TypeError, OverflowError):
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
