"""Sync, then retire: published results are made durable, a group at a time, and only then do their originals leave work/."""

from __future__ import annotations

import logging
import queue
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from daemon.answering.publish import prepare, retire
from daemon.files import RETRY_SECONDS, machine_fault, printable, sync_file_system
from daemon.folders import Folder
from daemon.index.schema import Record, storable
from daemon.intake.claiming import Intake
from daemon.telemetry.metrics import Metrics
from daemon.telemetry.readiness import Readiness

log = logging.getLogger(__name__)

GROUP = 1024  # originals that are retired with one sync
SLOW_SECONDS = 5.0  # a sync that takes longer keeps the intake closed, for work/ would fill up


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


class Told(Protocol):
    """Who is told what was retired, as `Index` is."""

    def run_once(self, now: float) -> None:
        """Do what is due at a moment of the monotonic clock."""

    def add(self, records: list[Record]) -> None:
        """Take records, a group at a time."""


class Retirement:
    """Makes published results durable, a group at a time, and only then moves their originals out of work/.

    Args:
        folders: where results and originals are.
        inbox: told which names are free again.
        readiness: told when the disk refuses.
        sync_seconds: how long a result may wait to be made durable.
        index: told what was retired; it is written by this thread, a group at a time.

    """

    def __init__(
        self,
        folders: Folders,
        inbox: Intake,
        readiness: Readiness,
        metrics: Metrics,
        sync_seconds: float,
        index: Told,
    ) -> None:
        self._folders, self._inbox, self._readiness, self._metrics = folders, inbox, readiness, metrics
        self._sync_seconds, self._index = sync_seconds, index
        self._queue: queue.SimpleQueue[list[Answered]] = queue.SimpleQueue()
        self._group: list[Answered] = []
        self._sync_began = float("inf")  # now, if a sync is going on
        self._immovable: set[str] = set()
        self._due = float("inf")

    def put(self, answered: list[Answered]) -> None:
        """Hand published drops over; any thread may call this."""
        self._queue.put(answered)

    def run_once(self, longest: float) -> None:
        """Collect for at most `longest` seconds; retire the group when it is due."""
        now = time.monotonic()
        self._index.run_once(now)
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
        for _ in range(self._queue.qsize()):
            self._group += self._queue.get_nowait()
        group, self._group, self._due = self._group, [], float("inf")
        self._sync_began = started = time.monotonic()
        try:
            self._sync()
        except OSError as error:
            fault: OSError | None = error
            self._group += group
        else:
            fault = self._retire(group)
        finally:
            self._sync_began = float("inf")
        if fault:
            self._readiness.fault("retire", fault)
        else:
            self._readiness.report("retire", None)
        if self._group:
            self._due = time.monotonic() + RETRY_SECONDS
        self._metrics.stage_seconds.labels("retire").observe(time.monotonic() - started)

    def slowness(self, now: float) -> str | None:
        """How long the disk has taken for a sync, where that is so long that work/ would fill up. Any thread may ask."""
        seconds = now - self._sync_began
        return f"the disk is slow: it has synced for {seconds:.0f} s so far" if seconds > SLOW_SECONDS else None

    def _sync(self) -> None:
        results, rejected = self._folders.results, self._folders.rejected
        try:
            sync_file_system(results)
            if rejected.stat().st_dev != results.stat().st_dev:
                sync_file_system(rejected)
        except FileNotFoundError:  # somebody took one of them away; until this works nothing else would make it anew
            prepare(results)
            prepare(rejected)
            raise

    def _retire(self, group: list[Answered]) -> OSError | None:
        """Move originals; what cannot be moved is to be tried again. The machine's fault, where it is one."""
        fault = None
        folders = self._folders
        records: list[Record] = []
        try:
            with (
                Folder(folders.work, make=True) as work,
                Folder(folders.processed, make=True) as processed,
                Folder(folders.rejected, make=True) as rejected,
            ):
                for answered in group:
                    target = processed if answered.folder == folders.processed else rejected
                    try:
                        place = retire(work, answered.name, target, answered.kept, answered.sha256)
                    except OSError as error:  # the others go on
                        self._group.append(answered)
                        if machine := machine_fault(error, folders.work, answered.folder):
                            fault = machine
                        else:
                            self._complain(answered.name, error)
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
