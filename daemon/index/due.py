"""Which days are due to leave the folders: by their age, by the room there is, by a clock that can be believed."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from daemon.config import Settings
from daemon.index import archive
from daemon.index.archive import PROCESSED, REJECTED, RESULTS
from daemon.index.schema import get_state, put_state

DAY_SECONDS = 86400.0
LEAP_SECONDS = DAY_SECONDS  # between two looks, one of which may wait for a quiet moment for hours
STEADY_SECONDS = 6 * 3600.0  # in which a clock that is wrong is set right; no longer, for machines that run by day only
KEYS = {PROCESSED: "processed_days", RESULTS: "results_days", REJECTED: "rejected_days"}
DAMAGED = "damaged "  # in the index's state, before an archive's name: which file it was that could not be read
_OLDEST = "SELECT min(answered_at) FROM answers WHERE answered_at >= ? AND answered_at < ?"
_ANY_ARCHIVED = "SELECT 1 FROM answers WHERE archive IS NOT NULL LIMIT 1"


def goes_steadily(connection: sqlite3.Connection, now: float) -> bool:
    """Whether the clock has gone on without a leap for a while: by one that is wrong, all would be old, and deleted."""
    state = get_state(connection)
    seen, since = (float(str(state.get(key, -math.inf))) for key in ("clock", "steady"))
    if abs(now - seen) > LEAP_SECONDS:
        since = now
    _note(connection, clock=now, steady=since)
    return now - since >= STEADY_SECONDS


def check_archive(folder: Path, connection: sqlite3.Connection) -> None:
    """Write nothing into the empty folder that is there while the archives' disk is not.

    Raises:
        OSError: there is nothing in the folder, the index knows of archives, and it is not the one that they were in.

    """
    inode = folder.stat().st_ino if folder.is_dir() else None
    if inode is not None and (any(folder.iterdir()) or inode == get_state(connection).get("archive")):
        _note(connection, archive=inode)  # whoever empties this very folder keeps the archives elsewhere
    elif connection.execute(_ANY_ARCHIVED).fetchone():
        raise FileNotFoundError(
            f"{folder}: expected the archives that the index knows of. Received: an empty folder, or none. "
            "Mount their disk; where they are kept elsewhere for good, put any file there"
        )


def _note(connection: sqlite3.Connection, **values: object) -> None:
    """Note what is to be known later; where there is no room for it, what leaves now makes some."""
    try:
        put_state(connection, **values)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname not in ("SQLITE_FULL", "SQLITE_IOERR_WRITE"):  # the second of a quota that is used up
            raise


def look_again(folder: Path, connection: sqlite3.Connection) -> None:
    """See to it that days are looked at again once a damaged archive was replaced, or moved away."""
    noted = {key: value for key, value in get_state(connection).items() if key.startswith(DAMAGED)}
    mended = [key for key, value in noted.items() if archive.identity(folder / key.removeprefix(DAMAGED)) != value]
    if mended:
        connection.executemany("DELETE FROM state WHERE key = ?", [(key,) for key in mended])
        connection.execute("DELETE FROM state WHERE key LIKE 'left %'")


def days(
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
