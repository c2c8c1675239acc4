"""Names in the inbox that cannot be taken now: each is tried again a while later, and those of a shut folder together."""

from __future__ import annotations

from itertools import islice

from daemon.intake.sweeping import MOST_LISTED

MOST_DUE = 1_000  # names that are due at once: each takes 0.3 ms where it is in vain again
PAUSE_EACH = 0.003  # seconds, from one try on all names that cannot be claimed to the next: a tenth of the time


class Waiting:
    """Remembers when to try again; of too many it remembers none, so that they wait until everything is swept.

    Folders, with a slash at the end, stand for all names that are in them. For one thread; moments are of time.monotonic().
    """

    def __init__(self) -> None:
        self._not_before: dict[str, float] = {}
        self._being_written: set[str] = set()  # those that an event may bring earlier

    @property
    def names(self) -> set[str]:
        """Of which something is remembered."""
        return set(self._not_before)

    def add(self, name: str, now: float, seconds: float, being_written: bool = False) -> None:
        """Leave a name alone for so long, longer where there are many."""
        if len(self._not_before) < MOST_LISTED:
            self._not_before[name] = now + max(seconds, PAUSE_EACH * len(self._not_before))
            if being_written:
                self._being_written.add(name)

    def is_shut(self, name: str) -> bool:
        """Whether its folder kept the daemon out, and is to be tried again later."""
        folder, slash, _ = name.rpartition("/")
        return folder + slash in self._not_before

    def holds(self, name: str) -> bool:
        """Whether it is to be left alone now, though an event tells of it, or a listing."""
        return self.is_shut(name) or (name in self._not_before and name not in self._being_written)

    def due_in(self, now: float) -> float:
        """Seconds until one of them is due."""
        return max(0.0, min(self._not_before.values(), default=float("inf")) - now)

    def due(self, now: float) -> set[str]:
        """Some that are to be tried again now, which are forgotten with that."""
        names = set(islice((name for name, moment in self._not_before.items() if moment <= now), MOST_DUE))
        self.forget(names)
        return names

    def forget(self, names: set[str]) -> None:
        """These are tried again, or have gone."""
        self._being_written -= names
        for name in names:
            self._not_before.pop(name, None)
