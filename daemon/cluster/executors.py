"""Whether Spark still has somebody who runs its tasks."""

from __future__ import annotations

from pyspark import StatusTracker

from daemon.telemetry.readiness import Readiness

TOLD_SECONDS, LOST_SECONDS = 10.0, 120.0  # with a task to run and nobody who runs it: until it is said, until it is the end


class Executors:
    """Notices that a cluster has nobody for this application any more.

    A standalone master that was killed and came back knows no application from before (unless it has a recovery mode), and
    has the workers end what it does not know. The driver waits for a reconnection that never comes, without a word; a new
    driver is served.

    Args:
        tracker: of the Spark context.
        master: of the Spark context; only a standalone one forgets. With others, to wait may be to stand in a queue.
        readiness: told while there is nobody. "start" is held until a first batch was done by somebody.

    """

    def __init__(self, tracker: StatusTracker, master: str | None, readiness: Readiness) -> None:
        self._tracker, self._master, self._readiness = tracker, master or "", readiness
        self._since: float | None = None  # when there was nobody first

    def are_lost(self, now: float) -> bool:
        """Look whether there are any. True where those that there were are gone for good.

        Args:
            now: a moment of the monotonic clock.

        """
        if self._master.startswith("local"):  # the driver does it
            return False
        if not self._tracker.getActiveStageIds() or len(self._tracker.getExecutorInfos()) > 1:  # the driver is one of them
            self._since = None
            self._readiness.report("executors", None)
            return False
        self._since = now if self._since is None else self._since
        if now - self._since < TOLD_SECONDS:
            return False
        self._readiness.report(
            "executors",
            f"expected executors that run the tasks. Received: none from {self._master}. Has it workers with free cores and "
            f"memory?",
        )
        forgets = self._master.startswith("spark:") and not self._readiness.is_held("start")
        return forgets and now - self._since >= LOST_SECONDS
