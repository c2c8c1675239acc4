"""What the next batch takes: numbered sweeps of the folders, and the tasks that they are shared out to. Without Spark.

The folders are the state; Spark keeps no list of files. So a name that is dropped again is a drop again, and a batch that is
done again takes what is left of it.
"""

from __future__ import annotations

import errno
import logging
import re
import stat
from dataclasses import dataclass
from functools import partial

from daemon.config import STREAM, Settings
from daemon.files import printable
from daemon.folders import Folder
from daemon.intake.claiming import EVERYWHERE, MOST_SWEEPING, entries_below, ignoring
from daemon.intake.waiting import PAUSE_EACH
from daemon.systemd import Opener

log = logging.getLogger(__name__)

CLAIMS = re.compile(r"b(\d+)-\d+")  # the folder of a batch's task in work/.stream/
FEWEST = 256  # files of a task, where there are tasks enough; fewer are not worth a task of their own
WARM_SECONDS = 30.0  # Spark ends a Python worker, with its model, that had no task for a minute


@dataclass(frozen=True)
class Task:
    """What a task walks.

    Attributes:
        folder: of its claims, below work/; "" for work/ itself, where a daemon left some.
        names: what it is to claim from the inbox; what it finds in its folder comes first.

    """

    folder: str
    names: tuple[str, ...] = ()


class Sweep:
    """Finds what there is to do. One batch is done before the next is asked for.

    Args:
        settings: of the root.
        slots: how many tasks can run at once.

    """

    def __init__(self, settings: Settings, slots: int) -> None:
        self._settings, self._slots = settings, slots
        self._inbox, self._work = Folder(settings.folder("inbox"), mounts=False), Folder(settings.folder("work"), own=True)
        self._ignored = ignoring(settings.inbox.ignore)
        self._opener = Opener(settings.root)
        self._given: dict[str, int] = {}  # what the last batch was to claim, and its inodes
        self._held: dict[tuple[str, int], float] = {}  # what could not be taken, by name and inode, until when
        self._complained: set[str] = set()
        self._warm_until = self._rest_until = float("-inf")
        self._is_first = True

    def highest(self) -> int:
        """The highest number of a batch that left claims; the next one must be higher, whatever Spark remembers."""
        return max((int(match[1]) for name in self._claims() if (match := CLAIMS.fullmatch(name))), default=0)

    def left_of(self, number: int) -> list[Task]:
        """The tasks of a batch that an earlier driver planned: what they had claimed. The rest is in the inbox still."""
        return [Task(f"{STREAM}/{name}") for name in self._claims() if name.startswith(f"b{number}-")]

    def next(self, number: int, now: float) -> list[Task]:
        """The tasks of the next batch; none where there is nothing to do.

        Args:
            number: of the batch.
            now: a moment of the monotonic clock.

        Raises:
            OSError: the machine failed.

        """
        if now < self._rest_until:
            return []
        self._inbox.renew()
        self._work.renew()
        self._held = {key: until for key, until in self._held.items() if until > now - self._settings.inbox.rescan_seconds}
        if now >= self._warm_until:  # at the start, too, so that all have their model before there is anything to do
            self._warm_until = now + WARM_SECONDS
            return [Task(f"{STREAM}/b{number}-{slot}") for slot in range(self._slots)]
        return self._leftovers(now) or self._new(number, now)

    def rest(self, began: float, ended: float) -> None:
        """Sweep no more for a while: one that found nothing took this long."""
        self._rest_until = began + (ended - began) / MOST_SWEEPING

    def _leftovers(self, now: float) -> list[Task]:
        """What dead drivers and daemons left, and what could not leave work/: in batches of their own."""
        tasks = []
        for name in sorted(self._claims()):
            if self._is_due(name, 0, now):
                self._held[name, 0] = now + self._settings.inbox.rescan_seconds
                tasks.append(Task(f"{STREAM}/{name}"))
        if self._is_first and any(not name.endswith("/") for name, _ in entries_below(self._work, EVERYWHERE)):
            tasks.append(Task(""))
        self._is_first = False
        return tasks

    def _new(self, number: int, now: float) -> list[Task]:
        """What is in the inbox, as much as a batch may take, shared out."""
        limit, given = self._settings.stream.batch_files, self._given
        found: dict[str, int] = {}
        for name, inode in entries_below(self._inbox, EVERYWHERE, self._ignored, partial(self._closed, now)):
            if name.endswith("/"):
                continue
            if not self._is_due(name, inode, now):
                continue
            if given.get(name) == inode and (name, inode) not in self._held:
                self._held[name, inode] = now + max(self._settings.inbox.rescan_seconds, PAUSE_EACH * len(self._held))
                if self._keeps_us_out(name):
                    self._opener.ask(now)
                continue
            self._held.pop((name, inode), None)
            found[name] = inode
            if len(found) >= limit:
                break
        self._given = found
        names = sorted(found)  # those of a sub-folder together
        size = min(max(-(-len(names) // self._slots), FEWEST), self._settings.stream.task_files)
        return [
            Task(f"{STREAM}/b{number}-{start // size}", tuple(names[start : start + size]))
            for start in range(0, len(names), size)
        ]

    def _keeps_us_out(self, name: str) -> bool:
        """Whether a file could not be taken because of its folder, as one of mode 0755, or with the sticky bit."""
        folder, slash, _ = name.rpartition("/")
        try:
            return bool(slash) and (self._inbox.is_shut(name) or bool(self._inbox.status(folder).st_mode & stat.S_ISVTX))
        except OSError:
            return False  # it has gone

    def _is_due(self, name: str, inode: int, now: float) -> bool:
        return now >= self._held.get((name, inode), now)

    def _claims(self) -> list[str]:
        try:
            return [entry.name for entry in self._work.entries(STREAM) if CLAIMS.fullmatch(entry.name)]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _closed(self, now: float, folder: str, error: OSError) -> None:
        """A sub-folder keeps us out; ask the opener, and say so once."""
        if error.errno == errno.EACCES:
            self._opener.ask(now)
        if folder not in self._complained:
            self._complained.add(folder)
            log.warning("%s: cannot list this sub-folder: %s; its files wait", printable(folder), error.strerror)
