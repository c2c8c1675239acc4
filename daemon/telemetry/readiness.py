"""Why the daemon is not ready, told by its parts, shown on /readyz, in the log and in a metric."""

from __future__ import annotations

import errno
import logging
import os
import threading
from pathlib import Path

from daemon.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

MUCH_BYTES, MUCH_INODES = 64 << 20, 1000  # free on a disk that is not full


class Readiness:
    """Why the daemon is not ready, by source; it is ready when there is no reason. Any thread may use it.

    Args:
        metrics: shows it.
        disk: a folder of the file system that answers are written to.

    """

    def __init__(self, metrics: Metrics, disk: Path | None = None) -> None:
        self._disk = disk
        self._reasons = {"start": "the model is being loaded"}
        self._lock = threading.Lock()
        self._metrics = metrics

    def report(self, source: str, reason: str | None) -> None:
        """Say what keeps a source from working; None when it works."""
        with self._lock:
            before = self._reasons.pop(source, None)
            if reason is not None:
                self._reasons[source] = reason
            self._metrics.ready.set(not self._reasons)
        if reason is not None and before is None:
            log.error("not ready: %s: %s", source, reason)
        elif reason is None and before is not None and source != "start":
            log.info("%s works again", source)

    def fault(self, source: str, error: OSError) -> None:
        """Report a fault of the machine, and count it."""
        self._metrics.intake_errors.labels(errno.errorcode.get(error.errno or 0, "unknown")).inc()
        self.report(source, f"{error}{self._explain(error)}")

    def _explain(self, error: OSError) -> str:
        """What to do where the disk is said to be full and is not."""
        if error.errno != errno.ENOSPC or self._disk is None:
            return ""
        disk = os.statvfs(self._disk)
        if disk.f_bavail * disk.f_frsize < MUCH_BYTES or disk.f_favail < MUCH_INODES:
            return ""
        return (
            ", though the disk has room: expected a folder that takes more names. Received: perhaps one that is full, as "
            "ext4's can be at some millions (dmesg says so). Empty it, as [retention] does, or use `tune2fs -O large_dir`"
        )

    def is_held(self, source: str) -> bool:
        """Whether this source does not work."""
        return source in self._reasons

    @property
    def reasons(self) -> list[str]:
        """What is wrong, one sentence each; empty when ready."""
        with self._lock:
            return [f"{source}: {reason}" for source, reason in sorted(self._reasons.items())]
