"""The inbox: sweep it, admit what is whole, claim it by rename.

Events only say "look there now", or "look for this name"; a look decides what is there, and from time to time a sweep finds
whatever no event told of. So nothing depends on an event arriving.

Those who drop may swap anything for a link, a folder or another file at any moment. Names are resolved beneath the inbox
(`daemon.folders`), and what a claim really took is looked at once it is in work/, where nobody but the daemon may write. A
hard link is a file like any other: the daemon never changes a file's content, mode or owner, and reads with no more rights
than its user has, so whoever links a file that is not his own gains nothing by it.
"""

from __future__ import annotations

import errno
import signal
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from daemon.config import InboxSettings
from daemon.drops import Drop
from daemon.files import RETRY_SECONDS, machine_fault
from daemon.folders import DEEPEST_FOLDER, Folder, rename
from daemon.intake.claiming import (
    EVERYWHERE,
    OURS,
    BeingWritten,
    FolderClaimed,
    claim,
    ignoring,
    left_claims,
    paths_below,
    put_back,
    remove_empty,
    strays,
    take_over,
)
from daemon.intake.complaints import Complaints
from daemon.intake.sweeping import Sweeps
from daemon.intake.waiting import Waiting
from daemon.intake.watch import Watch
from daemon.telemetry.metrics import Metrics

# What one call does at most, for those who drop can make more of it than a pass may take:
MOST_TRIED = 1_000  # names that are tried, of which perhaps none can be claimed: 0.3 ms each
MOST_TOLD = 8  # names that are looked for one by one; of more, their folder is listed, however large it once was
MOST_CHANGED = 5_000  # places that are listed because something changed there; of more, everything is listed, bit by bit
MOST_TIDIED = 10_000  # folders of work/ that are looked at, to be removed where they are empty


class Inbox:
    """Takes files from inbox/ into work/. Owned by the pipeline's thread, except `look` and `release`.

    Args:
        inbox, work: the folders; on one file system.
        settings: what to ignore, how often to look.
        metrics: counts overflows and faults, shows the backlog.
        wake: called, from any thread, when there may be something to take.
        ask_to_open: as `Complaints` takes it.

    """

    def __init__(
        self,
        inbox: Path,
        work: Path,
        settings: InboxSettings,
        metrics: Metrics,
        wake: Callable[[], None],
        ask_to_open: Callable[[float], bool] = lambda _now: False,
    ) -> None:
        self._inbox = Folder(inbox, mounts=False)  # no rename leads out of one, and one whose server has gone fails
        self._work = Folder(work, make=True, own=True)
        self._metrics, self._wake, self._complaints = metrics, wake, Complaints(metrics, ask_to_open)
        self._changed: set[str] = set()  # where to look
        self._told: dict[str, None] = {}  # names to look for, before all others
        self._woken = False  # whether who waits for `due_in` was woken already
        self.apply(settings)
        self._listing: OrderedDict[str, None] = OrderedDict()  # names to be claimed
        self._listed = time.monotonic()  # when there was a name last where there was none
        self._sweeps = Sweeps(lambda place: self._walk(self._inbox, place), self._known)
        self._untidy = True  # there may be empty folders in work/
        take_over(self._work, self._inbox)
        self._strays = set(strays(self._work))  # folders that were claimed for files, and could not be given back yet
        self._leftovers = deque(left_claims(self._work))
        self._in_flight = {drop.name for drop in self._leftovers}  # names that are in work/
        self._held_up: set[str] = set()  # names that are dropped anew while they are in work/
        self._unanswered = {drop.name: drop.received for drop in self._leftovers}
        self._waiting = Waiting()
        self._watch = Watch(inbox, self.look, metrics)
        signal.signal(signal.SIGIO, signal.SIG_IGN)  # a writer who meets our lease sends it; its default is to kill us

    def apply(self, settings: InboxSettings) -> None:
        """Put `rescan_seconds` and `ignore` in force, and look at once."""
        self._settings = settings
        self._ignored = ignoring(settings.ignore)
        self._look = True
        self._changed.add(EVERYWHERE)

    def look(self, place: str = EVERYWHERE, name: str = "") -> None:
        """Say that a folder may have changed, or, with a slash at its end, all below it too; or only one name in it.

        Any thread may call this.
        """
        if name and len(self._told) < MOST_TOLD:
            self._told[f"{place}/{name}" if place else name] = None
        else:
            self._changed.add(place if len(self._changed) < MOST_CHANGED else EVERYWHERE)
            self._look = True
        if not self._woken:
            self._woken = True
            self._wake()

    def close(self) -> None:
        """Stop watching."""
        self._watch.stop()
        self._inbox.close()
        self._work.close()

    def due_in(self) -> float:
        """Seconds until `take` is to be called without an event; from now on, an event wakes who waits for so long."""
        if self._listing or self._leftovers:
            return 0.0
        self._woken = False  # before it is looked whether there was an event
        return 0.0 if self._told or self._look else self._sweep_due_in()

    def _sweep_due_in(self) -> float:
        now = time.monotonic()
        return min(self._waiting.due_in(now), self._sweeps.due_in(now))

    def take(self, limit: int) -> list[Drop]:
        """Claim up to `limit` files that are whole: those that a crash left in work/, those just told of, then all others.

        Raises:
            OSError: the machine failed, not a file. Where something was claimed before, the next call raises it.

        """
        drops = [self._leftovers.popleft() for _ in range(min(limit, len(self._leftovers)))]
        if self._sweep_due_in() == 0:
            self._look = True
        may_sweep = True  # once: events may come faster than what they are about can be listed
        try:
            if self._told:
                self._put_told_first()
            for _ in range(MOST_TRIED):
                if len(drops) >= limit or not (self._listing or (self._look and may_sweep)):
                    break
                if not self._listing:
                    may_sweep = False
                    self._sweep_inbox()
                    continue
                name = next(iter(self._listing))
                if drop := self._claim(name):
                    drops.append(drop)
                del self._listing[name]
        except OSError:
            if not drops:
                raise
        return drops

    def put_back(self, drop: Drop) -> bool:
        """Give a file that is perhaps still being written back to the inbox, to be tried again a little later.

        Returns:
            Whether it could be done.

        """
        if not put_back(self._work, self._inbox, drop.name):
            return False
        self._try_again(drop.name, RETRY_SECONDS)
        self.release(drop.name)
        return True

    def release(self, name: str) -> None:
        """Say that a file has left work/, so that its name may be claimed anew. Any thread may call this."""
        self._in_flight.discard(name)
        if name in self._held_up:
            self._held_up.discard(name)
            place, _, last = name.rpartition("/")
            self.look(place, last)

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

    def _put_told_first(self) -> None:
        """List the names that events told of before all others, of which perhaps many cannot be claimed."""
        self._renew()
        if not self._listing:
            self._listed = time.monotonic()
        for name in [self._told.popitem()[0] for _ in range(len(self._told))]:  # the first of them comes first, then
            if not any(part in OURS or self._ignored(part) for part in name.split("/")) and self._may_try(name):
                self._listing[name] = None
                self._listing.move_to_end(name, last=False)

    def _sweep_inbox(self) -> None:
        """List where something changed, or all where that is due; names only, for a stat each takes 13 times as long."""
        self._look = False
        self._listed = now = time.monotonic()
        changed = {self._changed.pop() for _ in range(len(self._changed))}
        self._renew()
        try:
            if self._untidy and not self._in_flight:
                self._remove_empty_folders()
            if not self._watch.renew(self._inbox.identity):
                self._sweeps.begin_anew()
            due = self._waiting.due(now)
            changed |= {name.rstrip("/") for name in due if _is_folder(name)}
            names, gone = self._sweeps.list(changed, self._settings.rescan_seconds)
        except OSError:
            self._begin_anew()
            raise
        self._forget(gone)
        files = {name for name in names | due if not _is_folder(name)}
        self._listing.update(dict.fromkeys(sorted(filter(self._may_try, files))))
        for name in list(self._strays):
            self._give_back(name)

    def _renew(self) -> None:
        try:
            self._inbox.renew()
            self._work.renew()
        except OSError:
            self._begin_anew()
            raise

    def _begin_anew(self) -> None:
        """Sweep everything as soon as somebody asks again."""
        self._sweeps.begin_anew()
        self._look = True

    def _may_try(self, name: str) -> bool:
        if name in self._in_flight:
            self._held_up.add(name)
            return False
        return not self._waiting.holds(name)

    def _known(self) -> set[str]:
        return self._complaints.names | self._waiting.names

    def _forget(self, gone: set[str]) -> None:
        self._complaints.forget(gone)
        self._waiting.forget(gone)

    def _walk(self, top: Folder, place: str) -> Iterator[str]:
        """The paths in a place; in work/, unlike in the inbox, nothing is ignored."""
        return paths_below(top, place, self._ignored if top is self._inbox else _nothing, self._closed)

    def _closed(self, folder: str, error: OSError) -> None:
        if error.errno == errno.ENAMETOOLONG:
            self._complaints.make(folder, f"a path of more than {DEEPEST_FOLDER} bytes; what is in this folder waits")
        else:
            self._complaints.kept_out(folder, error, "cannot list this sub-folder: {}; its files wait")

    def _claim(self, name: str) -> Drop | None:
        """Rename one file into work/, if nobody is writing it."""
        if self._waiting.is_shut(name):
            return None
        self._waiting.forget({name})
        self._untidy |= "/" in name
        try:
            drop = claim(self._inbox, self._work, name)
        except FileNotFoundError:
            return None  # it was taken away, or renamed
        except BeingWritten:
            self._try_again(name, min(RETRY_SECONDS, self._settings.rescan_seconds), being_written=True)
            return None
        except FolderClaimed:
            self._give_back(name)  # the next sweep looks into it
            return None
        except OSError as error:
            if fault := machine_fault(error, Path(self._inbox.path), Path(self._work.path)):
                if fault.errno == errno.EXDEV:
                    self._listing.clear()  # it is of a folder that may be another one at the next call
                    self._begin_anew()
                raise fault from error
            self._kept_out(name, error)
            return None
        self._in_flight.add(name)
        self._unanswered[name] = drop.received
        return drop

    def _kept_out(self, name: str, error: OSError) -> None:
        """Leave what cannot be moved alone for a while, and all that is in its folder where that keeps the daemon out."""
        folder, slash, _ = name.rpartition("/")
        text = "cannot be moved to work/: {}; it stays in the inbox"
        if error.errno == errno.EACCES and slash and self._inbox.is_shut(name):  # else it is about what has this name alone
            name, text = folder + slash, "its files cannot be moved to work/: {}; they stay in the inbox"
        self._try_again(name, self._settings.rescan_seconds)
        self._complaints.kept_out(name, error, text)

    def _try_again(self, name: str, seconds: float, being_written: bool = False) -> None:
        self._waiting.add(name, time.monotonic(), seconds, being_written)

    def _give_back(self, name: str) -> None:
        """Move a folder back that is not the daemon's: rename(2) moves folders too, and never onto what is in use."""
        self._strays.discard(name)
        try:
            rename(self._work, name, self._inbox, name)
        except OSError as error:
            if self._work.holds(name):  # else it was empty, and removed: what has the name next is the daemon's own
                self._strays.add(name)
                self._complaints.make(name, f"a folder that cannot be given back from work/: {error.strerror}")

    def _remove_empty_folders(self) -> None:
        found = list(islice(self._walk(self._work, EVERYWHERE), MOST_TIDIED))
        self._untidy = not remove_empty(self._work, found) or len(found) == MOST_TIDIED


def _is_folder(name: str) -> bool:
    """As `paths_below` names them."""
    return name.endswith("/")


def _nothing(_name: str) -> None:
    """What is ignored in work/."""
