"""What one task claims: from the inbox into a folder of its own, so that whoever does the task again finds it there."""

from __future__ import annotations

import logging
from collections import deque
from contextlib import suppress
from pathlib import Path

from daemon.config import InboxSettings
from daemon.drops import Drop
from daemon.files import machine_fault, printable
from daemon.folders import Folder, rename
from daemon.intake.claiming import (
    EVERYWHERE,
    BeingWritten,
    FolderClaimed,
    claim,
    left_claims,
    paths_below,
    put_back,
    remove_empty,
    strays,
)
from daemon.telemetry.metrics import Metrics

log = logging.getLogger(__name__)


class Claims:
    """The intake of one task's pipeline.

    Args:
        inbox, folder: where it claims from, and to; made where it is missing.
        names: what it is to claim. What its folder holds comes first: it is of an attempt that did not come to its end.
        metrics: counts what cannot be moved.
        complained: names that a person has been told of; kept by whoever makes one of these after another.

    """

    def __init__(self, inbox: Path, folder: Path, names: tuple[str, ...], metrics: Metrics, complained: set[str]) -> None:
        self._inbox, self._work = Folder(inbox, mounts=False), Folder(folder, make=True, own=True)
        self._metrics, self._complained = metrics, complained
        for name in list(strays(self._work)):
            self._give_back(name)
        self._left, self._names = deque(left_claims(self._work)), deque(names)
        self._unanswered: set[str] = set()

    def apply(self, settings: InboxSettings) -> None:
        """Nothing changes while a task runs."""

    def survey(self) -> None:
        """The driver shows the backlog."""

    def release(self, name: str) -> None:
        """Nothing is claimed twice: each task has names of its own."""

    def take(self, limit: int) -> list[Drop]:
        """Claim up to `limit` files.

        Raises:
            OSError: the machine failed, not a file. Where something was claimed before, the next call raises it.

        """
        drops = [self._left.popleft() for _ in range(min(limit, len(self._left)))]
        try:
            while self._names and len(drops) < limit:
                if drop := self._claim(self._names[0]):
                    drops.append(drop)
                self._names.popleft()
        except OSError:
            if not drops:
                raise
        self._unanswered.update(drop.name for drop in drops)
        return drops

    def due_in(self) -> float:
        """There is no use in waiting where nothing is under way."""
        return 0.0 if self.waiting() or not self._unanswered else float("inf")

    def waiting(self) -> int:
        """How many files are to be taken yet."""
        return len(self._left) + len(self._names)

    def unfinished(self) -> int:
        """How many files have no JSON yet."""
        return self.waiting() + len(self._unanswered)

    def put_back(self, drop: Drop) -> bool:
        """Give a file back that is perhaps still being written; the driver holds it for a while."""
        return put_back(self._work, self._inbox, drop.name)

    def answered(self, drops: list[Drop]) -> None:
        """Say that these have their JSON."""
        self._unanswered.difference_update(drop.name for drop in drops)

    def close(self) -> None:
        """Leave no empty folders."""
        with suppress(OSError):
            remove_empty(self._work, list(paths_below(self._work, EVERYWHERE)))
            Path(self._work.path).rmdir()
        self._inbox.close()
        self._work.close()

    def _give_back(self, name: str) -> None:
        """Move a folder back that is not the daemon's; while something has its name there, it waits for the next task."""
        with suppress(OSError):
            rename(self._work, name, self._inbox, name)

    def _claim(self, name: str) -> Drop | None:
        try:
            return claim(self._inbox, self._work, name)
        except (FileNotFoundError, BeingWritten):
            return None
        except FolderClaimed:
            self._give_back(name)
            return None
        except OSError as error:
            if fault := machine_fault(error, Path(self._inbox.path), Path(self._work.path)):
                raise fault from error
            if name not in self._complained:
                self._complained.add(name)
                self._metrics.intake_errors.labels("immovable").inc()
                log.warning("%s: cannot be moved to work/: %s; it stays in the inbox", printable(name), error.strerror)
            return None
