"""The inbox: watch it, sweep it, admit what is whole, claim it by rename.

Events only say "look now"; a sweep of the folder decides what is there. So nothing depends on an event arriving.
"""

from __future__ import annotations

import errno
import fcntl
import fnmatch
import logging
import os
import re
import signal
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from daemon.config import LOCK, PRESENCE, TEMPORARY, InboxSettings
from daemon.drops import Drop
from daemon.files import is_own_fault, printable, rename_to_free_name
from daemon.intake.watch import DEEPEST_FOLDER, Watch
from daemon.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0  # between two tries on a file that could not be taken
OURS = {LOCK, PRESENCE, TEMPORARY}  # names that the daemon itself uses in work/ and results/


class Inbox:
    """Takes files from inbox/ into work/. Owned by the pipeline's thread, except `look` and `release`.

    Args:
        inbox, work: the folders; on one file system.
        settings: what to ignore, how often to look.
        metrics: counts overflows and faults, shows the backlog.
        wake: called, from any thread, when there may be something to take.

    """

    def __init__(self, inbox: Path, work: Path, settings: InboxSettings, metrics: Metrics, wake: Callable[[], None]) -> None:
        self._inbox, self._work = str(inbox), str(work)
        self._metrics, self._wake = metrics, wake
        self.apply(settings)
        self._held_up = False  # a drop waits because its name is still in work/
        self._listing: deque[str] = deque()
        self._listed = time.monotonic()
        self._complained: set[str] = set()
        self._leftovers = deque(self._sweep_work())
        self._in_flight = {drop.name for drop in self._leftovers}  # names that are in work/
        self._unanswered = {drop.name: drop.received for drop in self._leftovers}
        self._not_before: dict[str, float] = {}
        self._being_written = False  # by somebody; the end of it is an event, and if that is lost, time tells
        self._watch = Watch(inbox, self.look, metrics)
        signal.signal(signal.SIGIO, signal.SIG_IGN)  # a writer who meets our lease sends it; its default is to kill us

    def apply(self, settings: InboxSettings) -> None:
        """Put `rescan_seconds` and `ignore` in force, and look at once."""
        self._settings = settings
        self._ignored = re.compile("|".join(fnmatch.translate(pattern) for pattern in settings.ignore) or r"(?!)").match
        self._look = True

    def look(self) -> None:
        """Say that the folder may have changed. Any thread may call this."""
        if not self._look:
            self._look = True
            self._wake()

    def close(self) -> None:
        """Stop watching."""
        self._watch.stop()

    def due_in(self) -> float:
        """Seconds until `take` is to be called without an event."""
        return 0.0 if self._listing or self._leftovers else self._sweep_due_in()

    def _sweep_due_in(self) -> float:
        due = min(self._not_before.values(), default=float("inf"))
        rest = min(RETRY_SECONDS, self._settings.rescan_seconds) if self._being_written else self._settings.rescan_seconds
        return max(0.0, min(due, self._listed + rest) - time.monotonic())

    def take(self, limit: int) -> list[Drop]:
        """Claim up to `limit` files that are whole: those that a crash left in work/ first, then the inbox's.

        Raises:
            OSError: the machine failed, not a file. Where something was claimed before, the next call raises it.

        """
        drops = [self._leftovers.popleft() for _ in range(min(limit, len(self._leftovers)))]
        if self._sweep_due_in() == 0:
            self._look = True
        try:
            while len(drops) < limit and (self._listing or self._look):
                if not self._listing:
                    self._sweep_inbox()
                    continue
                if drop := self._claim(self._listing[0]):
                    drops.append(drop)
                self._listing.popleft()
        except OSError:
            if not drops:
                raise
        return drops

    def put_back(self, drop: Drop) -> bool:
        """Give a file that is perhaps still being written back to the inbox, to be tried again a little later.

        Returns:
            False where it could not be done: the name was dropped anew meanwhile.

        """
        if not rename_to_free_name(f"{self._work}/{drop.name}", f"{self._inbox}/{drop.name}"):
            return False
        self._not_before[drop.name] = time.monotonic() + RETRY_SECONDS
        self.release(drop.name)
        return True

    def release(self, name: str) -> None:
        """Say that a file has left work/, so that its name may be claimed anew. Any thread may call this."""
        self._in_flight.discard(name)
        if self._held_up:
            self.look()

    def answered(self, drops: list[Drop]) -> None:
        """Say that these have their JSON; their originals are still in work/."""
        for drop in drops:
            self._unanswered.pop(drop.name, None)

    def survey(self) -> None:
        """Bring the gauges of the backlog up to date."""
        self._metrics.backlog.labels("inbox").set(len(self._listing))
        self._metrics.backlog.labels("work").set(len(self._in_flight))
        waited = time.time() - next(iter(self._unanswered.values()), time.time())  # claimed first
        if self._listing:
            waited = max(waited, time.monotonic() - self._listed)
        self._metrics.oldest_waiting.set(max(0.0, waited))

    def waiting(self) -> int:
        """How many files the last sweep found that are not claimed yet."""
        return len(self._listing)

    def _sweep_inbox(self) -> None:
        """List what is in the inbox; names only, for a stat each makes 100,000 names 13 times slower."""
        self._look = False
        self._listed = now = time.monotonic()
        self._being_written = False
        os.makedirs(self._work, exist_ok=True)
        if not self._in_flight:
            self._remove_empty_folders()
        self._watch.renew()
        try:
            names = set(self._walk(self._inbox, self._ignored))
        except OSError:
            self._look = True  # as soon as somebody asks again
            raise
        self._not_before = {name: due for name, due in self._not_before.items() if due > now and name in names}
        self._complained &= names
        names = {name for name in names if not name.endswith("/")}
        self._held_up = not names.isdisjoint(self._in_flight)
        self._listing.extend(sorted(name for name in names if name not in self._in_flight and name not in self._not_before))

    def _walk(self, top: str, ignored: Callable[[str], object]) -> Iterator[str]:
        """The paths of all files and, with a slash at the end, folders below `top`; a folder comes before what is in it.

        Without recursion: how deep folders nest is up to those who drop.
        """
        folders = [""]
        while folders:
            folder = folders.pop()
            if len(os.fsencode(folder)) > DEEPEST_FOLDER:
                self._complain(folder, f"a path of more than {DEEPEST_FOLDER} bytes; what is in this folder waits")
                continue
            try:
                with os.scandir(f"{top}/{folder}") as entries:
                    for entry in entries:
                        if entry.name in OURS or ignored(entry.name):
                            continue
                        name = folder + entry.name
                        if entry.is_dir(follow_symlinks=False):
                            name += "/"
                            folders.append(name)
                        yield name
            except OSError as error:
                if not folder:
                    raise
                if error.errno != errno.ENOENT:
                    self._complain(folder, f"cannot list this sub-folder: {error.strerror}; its files wait")

    def _claim(self, name: str) -> Drop | None:
        """Rename one file into work/, if nobody is writing it."""
        source, target = f"{self._inbox}/{name}", f"{self._work}/{name}"
        try:
            status = os.lstat(source)
            if stat.S_ISDIR(status.st_mode):
                return None  # a folder has taken the file's place; the next sweep looks into it
            if stat.S_ISREG(status.st_mode) and _is_being_written(source):
                self._being_written = True
                return None
            try:
                os.rename(source, target)
            except FileNotFoundError:
                folder = name.rpartition("/")[0]
                if not folder:
                    raise
                os.makedirs(f"{self._work}/{folder}", exist_ok=True)
                os.rename(source, target)
        except FileNotFoundError:
            return None  # it was taken away, or renamed
        except OSError as error:
            if not is_own_fault(error, Path(self._inbox), Path(self._work)):
                raise
            self._not_before[name] = time.monotonic() + self._settings.rescan_seconds
            self._complain(name, f"cannot be moved to work/: {error.strerror}; it stays in the inbox")
            return None
        self._in_flight.add(name)
        self._unanswered[name] = status.st_ctime
        return Drop(name, status.st_ctime)

    def _complain(self, name: str, text: str) -> None:
        if name not in self._complained:
            self._complained.add(name)
            self._metrics.intake_errors.labels("immovable").inc()
            log.warning("%s: %s", printable(name), text)

    def _remove_empty_folders(self) -> None:
        folders = [name for name in self._walk(self._work, _nothing) if name.endswith("/")]
        for folder in reversed(folders):
            with suppress(OSError):  # somebody put a file of his own there
                os.rmdir(f"{self._work}/{folder}")

    def _sweep_work(self) -> Iterator[Drop]:
        """What a crash left in work/: claimed, perhaps already answered; the work is done again."""
        for name in self._walk(self._work, _nothing):
            if not name.endswith("/"):
                yield Drop(name, os.lstat(f"{self._work}/{name}").st_ctime)


def _nothing(_name: str) -> None:
    """What is ignored in work/."""


def _is_being_written(path: str) -> bool:
    """Whether somebody has the file open for writing, where the kernel can tell."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError:
        return False  # unreadable: to be rejected with a reason
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)  # closing gives it back
    except BlockingIOError:
        return True
    except OSError:
        pass  # not our file and no CAP_LEASE, or no leases here: a file caught half-written is put back later
    finally:
        os.close(descriptor)
    return False
