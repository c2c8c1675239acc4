"""Sync, then retire: published results are made durable, a group at a time, and only then do their originals leave work/."""

from __future__ import annotations

import logging
import queue
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from daemon.answering.publish import retire
from daemon.files import RETRY_SECONDS, is_own_fault, printable, sync_file_system
from daemon.folders import Folder
from daemon.index.schema import Record, storable
from daemon.index.writer import Index
from daemon.intake.inbox import Inbox
from daemon.telemetry.metrics import Metrics
from daemon.telemetry.readiness import Readiness

log = logging.getLogger(__name__)

GROUP = 1024  # originals that are retired with one sync
SLOW_SECONDS = 5.0  # a sync that takes longer keeps the intake closed, so that work/ does not fill up
LAST_SECONDS = 10.0  # at the end, for the disk; what it has not done by then is done again after the next start


@dataclass(frozen=True)
class Folders:
    """The folders that an image can be in after the inbox."""

    work: Path
    results: Path
    processed: Path
    rejected: Path


@dataclass(frozen=True, slots=True)
class Answered:
    """A drop whose JSON is published: what is left is to retire its original.

    Attributes:
        name: below work/.
        sha256: of its content, where that was read.
        folder: processed/ or rejected/.
        kept: the name that it is to have there; None where it is to be removed.
        record: what the index is told of it.

    """

    name: str
    sha256: str | None
    folder: Path
    kept: str | None
    record: Record | None


class Retirement:
    """Makes published results durable, a group at a time, and only then moves their originals out of work/.

    The sync runs in a thread of its own, so that it can be said how long a slow disk takes, and intake waits meanwhile.

    Args:
        folders: where results and originals are.
        inbox: told which names are free again.
        readiness: told when the disk refuses, or is slow.
        sync_seconds: how long a result may wait to be made durable.
        index: told what was retired; it is written by this thread, a group at a time.

    """

    def __init__(
        self,
        folders: Folders,
        inbox: Inbox,
        readiness: Readiness,
        metrics: Metrics,
        sync_seconds: float,
        index: Index,
    ) -> None:
        self._folders, self._inbox, self._readiness, self._metrics = folders, inbox, readiness, metrics
        self._sync_seconds, self._index = sync_seconds, index
        self._queue: queue.SimpleQueue[list[Answered]] = queue.SimpleQueue()
        self._group: list[Answered] = []  # waits for the next sync
        self._sync: _Sync | None = None
        self._immovable: set[str] = set()
        self._due = float("inf")

    def put(self, answered: list[Answered]) -> None:
        """Hand published drops over; any thread may call this."""
        self._queue.put(answered)

    def run_once(self, longest: float) -> None:
        """Collect for at most `longest` seconds, or wait so long for a sync; retire the group when it is due."""
        now = time.monotonic()
        self._index.run_once(now)
        if self._sync:
            self._wait(longest)
            return
        try:
            answered = self._queue.get(timeout=max(0.0, min(longest, self._due - now)))
            if not self._group:
                self._due = time.monotonic() + self._sync_seconds
            self._group += answered
        except queue.Empty:
            pass
        if len(self._group) >= GROUP or time.monotonic() >= self._due:
            self._begin()
            self._wait(longest)

    def flush(self) -> None:
        """Sync and retire what there is, unless the disk takes too long; where the machine refuses, it is tried again."""
        self._wait(LAST_SECONDS)
        if not self._sync:
            self._begin()
            self._wait(LAST_SECONDS)

    def _begin(self) -> None:
        for _ in range(self._queue.qsize()):
            self._group += self._queue.get_nowait()
        self._sync = _Sync(self._folders, self._group)
        self._group, self._due = [], float("inf")
        self._sync.start()

    def _wait(self, longest: float) -> None:
        """Wait for the sync, then retire its group; where the machine refuses, what is left is tried again."""
        if not self._sync:
            return
        self._sync.join(longest)
        sync, seconds = self._sync, time.monotonic() - self._sync.began
        if sync.is_alive():
            if seconds > SLOW_SECONDS:
                self._readiness.report("retire", f"the disk is slow: it has synced for {seconds:.0f} s so far")
            return
        self._sync = None
        fault = sync.fault
        if fault:
            self._group += sync.group
        else:
            fault = self._retire(sync.group)
        if fault:
            self._readiness.fault("retire", fault)
        else:
            self._readiness.report("retire", None)
        if self._group:
            self._due = time.monotonic() + RETRY_SECONDS
        self._metrics.stage_seconds.labels("retire").observe(time.monotonic() - sync.began)

    def _retire(self, group: list[Answered]) -> OSError | None:
        """Move originals; what cannot be moved is to be tried again. The machine's fault, where it is one."""
        fault = None
        folders = self._folders
        records: list[Record] = []
        try:
            with (
                Folder(folders.work) as work,
                Folder(folders.processed, make=True) as processed,
                Folder(folders.rejected, make=True) as rejected,
            ):
                for answered in group:
                    target = processed if answered.folder == folders.processed else rejected
                    try:
                        place = retire(work, answered.name, target, answered.kept, answered.sha256)
                    except OSError as error:  # the others go on
                        self._group.append(answered)
                        if is_own_fault(error, folders.work, answered.folder):
                            self._complain(answered.name, error)
                        else:
                            fault = error
                    else:
                        self._inbox.release(answered.name)
                        self._immovable.discard(answered.name)
                        if answered.record:
                            is_usual = place in (answered.name, None)
                            records.append(
                                answered.record if is_usual else answered.record._replace(original=storable(str(place)))
                            )
        except OSError as error:
            self._group += group
            return error
        finally:
            self._index.add(records)
        return fault

    def _complain(self, name: str, error: OSError) -> None:
        if name not in self._immovable:
            self._immovable.add(name)
            self._metrics.intake_errors.labels("immovable").inc()
            log.warning("%s is answered but cannot leave work/: %s; trying again", printable(name), error.strerror)


class _Sync(threading.Thread):
    """One sync, for a group of originals.

    Attributes:
        group: what is retired after it.
        began: when, by the monotonic clock.
        fault: of the machine, once it has ended.

    """

    def __init__(self, folders: Folders, group: list[Answered]) -> None:
        super().__init__(name="sync", daemon=True)
        self._folders, self.group, self.began = folders, group, time.monotonic()
        self.fault: OSError | None = None

    def run(self) -> None:
        try:
            sync_file_system(self._folders.results)
            if self._folders.rejected.stat().st_dev != self._folders.results.stat().st_dev:
                sync_file_system(self._folders.rejected)
        except OSError as error:
            self.fault = error
