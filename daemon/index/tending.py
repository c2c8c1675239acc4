"""What the index needs beside the answers: to be filled, and what is old to leave. A child process does both, at the lowest
priority, so that no answer waits for it; killed at any moment, its successor goes on.
"""

from __future__ import annotations

import logging
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable

from daemon.changes import tell_in_force
from daemon.config import Settings
from daemon.index.due import KEYS
from daemon.index.filling import Superseded, fill
from daemon.index.retention import leave
from daemon.index.schema import NoIndex, get_state, reading
from daemon.processes import die_with_parent, end, python, yield_to_most
from daemon.systemd import log_handler
from daemon.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

LOOK_SECONDS = 10.0  # between two looks at what is to be done
FAILED_SECONDS = 600.0  # from a child that failed to the next one
LEAVE_SECONDS = 3600.0  # between two times that what is old leaves
PATIENCE_SECONDS = 6 * 3600.0  # so long is a quiet moment waited for; then it leaves among other work
_RUN = "import sys; from daemon.index.tending import main; sys.exit(main(sys.argv[1]))"


class Tending:
    """Starts the child when there is something to do. For one thread.

    Args:
        settings: the configuration.
        metrics: counts how the child ended.
        is_quiet: whether no image waits.

    """

    def __init__(self, settings: Settings, metrics: Metrics, is_quiet: Callable[[], bool]) -> None:
        self._settings, self._metrics, self._is_quiet = settings, metrics, is_quiet
        self._child: subprocess.Popen[bytes] | None = None
        self._look_due = 0.0
        self._leave_due: float | None = None  # from the next look on

    def apply(self, settings: Settings) -> None:
        """Put what [retention] says of answers in force, from the next look on."""
        keys = (*KEYS.values(), "archive", "keep_free_mb")
        tell_in_force(log, self._settings, settings, *(f"retention.{key}" for key in keys))
        self._settings = settings
        self._leave_due = None

    def run_once(self, now: float) -> None:
        """See how the child is, or whether one is to be started.

        Args:
            now: of a monotonic clock, in seconds.

        """
        if self._child is not None:
            code = self._child.poll()
            if code is None:
                return
            self._child = None
            self._metrics.index_tasks.labels("failed" if code else "done").inc()
            if code:
                self._leave_due = now
                log.warning("the index's child process ended with %d; another one follows in %.0f s", code, FAILED_SECONDS)
            self._look_due = now + (FAILED_SECONDS if code else LOOK_SECONDS)
        if now < self._look_due:
            return
        self._look_due = now + LOOK_SECONDS
        is_behind, may_leave = self._is_behind(), self._may_leave(now)
        if may_leave:
            self._leave_due = now + LEAVE_SECONDS
        if is_behind or may_leave:
            self._child = subprocess.Popen(python("-c", _RUN, self._settings.to_text()))  # noqa: S603 -- ourselves

    def close(self) -> None:
        """End the child; its successor goes on."""
        if self._child is not None:
            end(self._child)

    def _is_behind(self) -> bool:
        """Whether the index says that it may lack answers."""
        try:
            with reading(self._settings.index) as connection:
                return get_state(connection)["since"] is not None
        except (NoIndex, sqlite3.Error):
            return False  # the retiring thread makes it anew

    def _may_leave(self, now: float) -> bool:
        """Whether it is time for what is old, or too much, to leave."""
        retention = self._settings.retention
        if self._leave_due is None:
            self._leave_due = now
        if now < self._leave_due:
            return False
        if shutil.disk_usage(self._settings.root).free < retention.keep_free_mb << 20:
            return True
        wanted = any(getattr(retention, key) for key in KEYS.values())
        return wanted and (self._is_quiet() or now >= self._leave_due + PATIENCE_SECONDS)


def main(settings: str) -> int:
    """Be the child, with what `Settings.to_text` wrote; the exit code of its process."""
    die_with_parent(signal.SIGTERM)
    yield_to_most()
    logging.basicConfig(level=logging.INFO, handlers=[log_handler()])
    return tend(Settings.from_text(settings), time.time())


def tend(settings: Settings, now: float) -> int:
    """Fill the index, then let leave what is due.

    Args:
        settings: where everything is, and how old it may become.
        now: in seconds since the epoch.

    Returns:
        0, or 1 where the machine failed.

    """
    began = time.monotonic()
    looked_at = 0

    def count(done: int, _total: int) -> None:
        nonlocal looked_at
        looked_at = done

    try:
        fill(settings.index, settings, count)
        if looked_at:
            log.info("the index is whole again: %d answers looked at in %.0f s", looked_at, time.monotonic() - began)
        if left := leave(settings, now):
            log.info("%d answers left the folders, for %s", left, settings.archive or "good")
    except Superseded:
        return 0
    except (OSError, sqlite3.Error) as error:
        print(f"index: {error}; nothing is lost", file=sys.stderr)
        return 1
    return 0
