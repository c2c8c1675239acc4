"""What an inbox holds, listed where something changed and from time to time everywhere, so many names at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import chain, islice

from daemon.intake.claiming import EVERYWHERE, MOST_SWEEPING

MOST_LISTED = 250_000  # names at once: those who drop can make more than memory holds, as hard links of 20 bytes each


class Sweeps:
    """Lists names; beyond MOST_LISTED it goes on from there at the next call. For one thread.

    Args:
        walk: gives the names in a place, as `paths_below` does.
        known: the names that something is known of.

    """

    def __init__(self, walk: Callable[[str], Iterator[str]], known: Callable[[], set[str]]) -> None:
        self._walk, self._known = walk, known
        self._left: Iterator[str] | None = None  # what the sweep of everything that is under way has not listed yet
        self._unseen: set[str] = set()  # names that were known when it began, and that it has not met
        self._again = True  # whether another one is to follow at once
        self._took = 0.0  # seconds that it has spent
        self._due = 0.0  # when the next one is

    def due_in(self, now: float) -> float:
        """Seconds until everything is to be listed, or more of it."""
        return 0.0 if self._left or self._again else max(0.0, self._due - now)

    def begin_anew(self) -> None:
        """List everything from its beginning at the next call."""
        self._left, self._again = None, True

    def list(self, places: set[str], rescan_seconds: float) -> tuple[set[str], set[str]]:
        """The names in these places, or in all, where that is due.

        Args:
            places: where something changed.
            rescan_seconds: from one sweep of everything to the next.

        Returns:
            Names; and those that were known and are not there any more.

        Raises:
            OSError: the inbox cannot be listed.

        """
        now = time.monotonic()
        begins = not self._left and (EVERYWHERE in places or self.due_in(now) == 0)
        if begins:
            self._left, self._unseen, self._again, self._took = self._walk(EVERYWHERE), self._known(), False, 0.0
        elif EVERYWHERE in places:
            self._again = True  # the one that is under way has passed some of it
        walks = () if begins else map(self._walk, places - {EVERYWHERE})
        names = list(islice(chain.from_iterable(walks), MOST_LISTED))
        self._again |= len(names) == MOST_LISTED
        gone: set[str] = set()
        if self._left:
            met = list(islice(self._left, MOST_LISTED))
            names += met
            self._unseen.difference_update(met)
            self._took += time.monotonic() - now
            if len(met) < MOST_LISTED:
                gone, self._unseen, self._left = self._unseen, gone, None
                self._due = now + max(rescan_seconds, self._took / MOST_SWEEPING)
        return set(names), gone
