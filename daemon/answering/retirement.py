"""Sync, then retire: published results are made durable, a group at a time, and only then do their originals leave work/."""

from __future__ import annotations

import logging
import queue
import time
from dataclasses import dataclass
from pathlib import Path

from daemon.answering.publish import retire
from daemon.files import is_own_fault, printable, sync_file_system
from daemon.intake.inbox import Inbox
from daemon.telemetry.metrics import Metrics
from daemon.telemetry.readiness import Readiness

log = logging.getLogger(__name__)

GROUP = 1024  # originals that are retired with one sync
RETRY_SECONDS = 1.0  # between two tries on something that the machine refused


@dataclass(frozen=True)
class Folders:
    """The folders that an image can be in after the inbox."""

    work: Path
    results: Path
    processed: Path
    rejected: Path


@dataclass(frozen=True, slots=True)
class Answered:
    """A drop whose JSON is published: what is left is to retire its original to `folder`."""

    name: str
    sha256: str | None
    folder: Path


class Retirement:
    """Makes published results durable, a group at a time, and only then moves their originals out of work/.

    Args:
        folders: where results and originals are.
        inbox: told which names are free again.
        readiness: told when the disk refuses.
        sync_seconds: how long a result may wait to be made durable.

    """

    def __init__(self, folders: Folders, inbox: Inbox, readiness: Readiness, metrics: Metrics, sync_seconds: float) -> None:
        self._folders, self._inbox, self._readiness, self._metrics = folders, inbox, readiness, metrics
        self._sync_seconds = sync_seconds
        self._queue: queue.SimpleQueue[list[Answered]] = queue.SimpleQueue()
        self._group: list[Answered] = []
        self._immovable: set[str] = set()
        self._due = float("inf")

    def put(self, answered: list[Answered]) -> None:
        """Hand published drops over; any thread may call this."""
        self._queue.put(answered)

    def run_once(self, longest: float) -> None:
        """Collect for at most `longest` seconds; retire the group when it is due."""
        now = time.monotonic()
        try:
            answered = self._queue.get(timeout=max(0.0, min(longest, self._due - now)))
            if not self._group:
                self._due = time.monotonic() + self._sync_seconds
            self._group += answered
        except queue.Empty:
            pass
        if len(self._group) >= GROUP or time.monotonic() >= self._due:
            self.flush()

    def flush(self) -> None:
        """Sync, then retire the group; where the machine refuses, what is left is tried again."""
        while True:
            try:
                self._group += self._queue.get_nowait()
            except queue.Empty:
                break
        group, self._group, self._due = self._group, [], float("inf")
        started = time.monotonic()
        fault: OSError | None = None
        try:
            self._sync()
        except OSError as error:
            fault, self._group = error, group
        else:
            for answered in group:
                try:
                    self._retire(answered)
                except OSError as error:  # the others go on
                    fault = error
                    self._group.append(answered)
        if fault:
            self._readiness.fault("retire", fault)
        else:
            self._readiness.report("retire", None)
        if self._group:
            self._due = time.monotonic() + RETRY_SECONDS
        self._metrics.stage_seconds.labels("retire").observe(time.monotonic() - started)

    def _sync(self) -> None:
        sync_file_system(self._folders.results)
        if self._folders.rejected.stat().st_dev != self._folders.results.stat().st_dev:
            sync_file_system(self._folders.rejected)

    def _retire(self, answered: Answered) -> None:
        """Move one original; one that cannot be moved for its own sake is tried again without closing the intake."""
        name, work = answered.name, self._folders.work
        try:
            retire(name, answered.sha256, work, answered.folder)
        except OSError as error:
            if not is_own_fault(error, work, answered.folder):
                raise
            self._group.append(answered)
            if name not in self._immovable:
                self._immovable.add(name)
                self._metrics.intake_errors.labels("immovable").inc()
                log.warning("%s is answered but cannot leave work/: %s; trying again", printable(name), error.strerror)
        else:
            self._inbox.release(name)
            self._immovable.discard(name)
