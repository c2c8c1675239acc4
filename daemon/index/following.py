"""Has the index follow answers that others write into the folders: a stream on Spark, or daemons on other hosts."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import closing

from daemon.config import TEMPORARY, Settings
from daemon.files import file_system_time
from daemon.index.filling import Superseded, fill
from daemon.index.schema import (
    WAIT_SECONDS,
    NoIndex,
    get_state,
    newest_answer,
    open_to_write,
    put_state,
    reading,
)

FOLLOW_SECONDS = 10.0  # between two looks into the folders
MOST_LOOKING = {True: 0.5, False: 0.05}  # of the time goes into looks at most, by whether the last one found something
LATE_SECONDS = 60.0  # a JSON appears no later after it was written, and its original is retired by then
CLOCKS_SECONDS = 3600.0  # clocks of hosts differ by less


class Following:
    """Fills the index again and again; for one thread.

    Args:
        settings: where the index and the folders are.

    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self._due = float("-inf")
        self._since: float | None = None  # by the file system's clock; before it nothing is missing

    def run_once(self, now: float) -> None:
        """Look for new answers, where that is due.

        Args:
            now: of a monotonic clock, in seconds.

        Raises:
            OSError: the machine failed; the next pass tries again.

        """
        if now < self._due:
            return
        self._due = now + FOLLOW_SECONDS
        began = time.monotonic()
        looked_at = file_system_time(self._settings.folder("results") / TEMPORARY)
        try:
            before = self._note_missing(looked_at)
            if before is None:
                return
            fill(self._settings.index, self._settings, self._heed_stop)
            self._since = looked_at - LATE_SECONDS
            found = self._newest_record() != before
        except Superseded:
            return
        except (sqlite3.Error, NoIndex) as error:
            raise OSError(f"{self._settings.index}: {error}") from error
        self._due = now + max(FOLLOW_SECONDS, (time.monotonic() - began) / MOST_LOOKING[found])

    def close(self) -> None:
        """End a look that is under way soon."""
        self._stop.set()

    def _note_missing(self, looked_at: float) -> int | None:
        """Say in the index what it may lack; None where it lacks more, which a child process is finding.

        Args:
            looked_at: now, by the file system's clock.

        Returns:
            The number of the newest record.

        """
        with closing(open_to_write(self._settings.index, WAIT_SECONDS)) as connection:
            connection.execute("BEGIN IMMEDIATE")  # somebody may begin to rebuild it this very moment
            if get_state(connection)["since"] is not None:
                return None
            if self._since is None:
                self._since = max(0.0, newest_answer(connection, looked_at) - CLOCKS_SECONDS)
            put_state(connection, since=self._since, until=None, generation=os.urandom(8))
            connection.execute("COMMIT")
        return self._newest_record()

    def _newest_record(self) -> int:
        with reading(self._settings.index) as connection:
            (newest,) = connection.execute("SELECT max(id) FROM answers").fetchone()
        return newest or 0

    def _heed_stop(self, _done: int, _total: int) -> None:
        if self._stop.is_set():
            raise Superseded  # the next start finds the rest
