"""What keeps the daemon from a name in the inbox is said once, not at each look, and of many not of each."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable

from daemon.files import printable
from daemon.intake.sweeping import MOST_LISTED
from daemon.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

ASKING_SECONDS = 60.0  # a folder may keep the daemon out for so long before that is said
MOST_LOGGED = 100  # names that have a line each in the log, for a stranger's folder may hold 120,000


class Complaints:
    """Remembers which names were complained about, as long as they are there, and no more of them than MOST_LISTED.

    Args:
        metrics: counts what cannot be moved.
        ask_to_open: called, with time.monotonic(), whenever a folder keeps the daemon out; gives whether there is somebody
            to let it in.

    """

    def __init__(self, metrics: Metrics, ask_to_open: Callable[[float], bool]) -> None:
        self._metrics, self._ask_to_open = metrics, ask_to_open
        self._made: set[str] = set()
        self._kept_out_since: dict[str, float] = {}

    @property
    def names(self) -> set[str]:
        """Of which something is remembered."""
        return self._made | self._kept_out_since.keys()

    def forget(self, gone: set[str]) -> None:
        """These are not there any more: what has such a name next is something else."""
        self._made -= gone
        for name in gone:
            self._kept_out_since.pop(name, None)

    def kept_out(self, name: str, error: OSError, text: str) -> None:
        """Ask to be let in, again and again: tar gives a folder its mode when all is in it. Complain where it is in vain."""
        now = time.monotonic()
        is_mode = error.errno in (errno.EACCES, errno.EPERM)  # the second where a folder has the sticky bit
        patience = ASKING_SECONDS if is_mode and self._ask_to_open(now) else 0.0
        if len(self._kept_out_since) < MOST_LISTED and now - self._kept_out_since.setdefault(name, now) >= patience:
            self.make(name, text.format(error.strerror))

    def make(self, name: str, text: str) -> None:
        """Count and log it, unless that was done."""
        if name not in self._made and len(self._made) < MOST_LISTED:
            self._made.add(name)
            self._metrics.intake_errors.labels("immovable").inc()
            if len(self._made) <= MOST_LOGGED:
                log.warning("%s: %s", printable(name), text)
            if len(self._made) == MOST_LOGGED:
                log.warning("%d names could not be taken; more are only counted, as immovable in /metrics", MOST_LOGGED)
