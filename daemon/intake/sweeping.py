"""What an inbox holds, listed where something changed and from time to time everywhere, so many names at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import chain

from daemon.intake.claiming import EVERYWHERE, MOST_SWEEPING

MOST_LISTED = 250_000  # names at once: those who drop can make more than memory holds, as hard links of 20 bytes each
AS_A_FOLDER = 25  # so many names take as long as it takes to look into a folder


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
        names, is_all = _some(chain.from_iterable(walks))
        self._again |= not is_all
        gone: set[str] = set()
        if self._left:
            met, is_all = _some(self._left)
            names += met
            self._unseen.difference_update(met)
            self._took += time.monotonic() - now
            if is_all:
                gone, self._unseen, self._left = self._unseen, gone, None
                self._due = now + max(rescan_seconds, self._took / MOST_SWEEPING)
        return set(names), gone


def _some(walk: Iterator[str]) -> tuple[list[str], bool]:
    """As many names as are listed at once, and whether these were all."""
    names, room = [], MOST_LISTED
    for name in walk:
        names.append(name)
        room -= AS_A_FOLDER if name.endswith("/") else 1
        if room <= 0:
            return names, False
    return names, True
