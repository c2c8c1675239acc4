"""A process of another user, who may write into the inbox only, and wants more. Run as root, it gives that up first.

    python intruder.py ROOT SECONDS SEED

It races the daemon: sub-folders, files and links take each other's places, by rename and by exchange, while their names are
being listed and claimed. Links lead only to folders of ROOT: nothing else on the machine is ever in reach.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

NOBODY = 65534
RENAME_EXCHANGE, AT_FDCWD = 2, -100
TARGETS = ("models", "results", "rejected", "processed", "corrections/7", "work")
TREASURES = ("treasure.png", "treasure.json", "v0001.h5", "v0001.json", "current.h5")  # what is there to be carried away
PLANTED = ("v9999.h5", "v9999.json")  # what would be there if it could be put there

libc = ctypes.CDLL(None, use_errno=True)


def exchange(one: Path, other: Path) -> None:
    """Let two names change places in one step."""
    libc.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)


class Intruder:
    """Every attack, again and again, under ever new names."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.inbox = root, root / "inbox"
        self.chances = random.Random(seed)  # noqa: S311 -- nothing secret depends on it
        self.names = iter(range(1, sys.maxsize))

    def attack(self, seconds: float) -> int:
        """Attack for so long; how many rounds it took."""
        ends, rounds = time.monotonic() + seconds, 0
        while time.monotonic() < ends:
            target = self.root / self.chances.choice(TARGETS)
            kind = self.chances.choice((self.plant_a_link, self.swap_a_folder, self.swap_a_file, self.hide_in_a_folder))
            with contextlib.suppress(OSError):  # the daemon was faster
                for _ in kind(target):
                    time.sleep(self.chances.random() ** 4 * 0.05)  # moments of all sizes
            rounds += 1
        return rounds

    def plant_a_link(self, target: Path) -> Iterator[None]:
        """Drop a link to a folder; once it is taken, drop what is to go through it."""
        place = self.inbox / f"a{next(self.names)}"
        place.symlink_to(self.chances.choice((target, Path("..", target.relative_to(self.root)))))
        ends = time.monotonic() + 2.0
        while os.path.lexists(place) and time.monotonic() < ends:
            yield
        place.mkdir()
        for name in (*PLANTED, *TREASURES):
            (place / name).write_bytes(b"planted through a link")
        yield

    def swap_a_folder(self, target: Path) -> Iterator[None]:
        """Let a folder whose files are listed change places with a link, over and over."""
        number = next(self.names)
        place, link = self.inbox / f"b{number}", self.inbox / f".link{number}"
        staged = self.inbox / f".staged{number}"
        staged.mkdir()
        for name in (*TREASURES, *PLANTED):
            (staged / name).write_bytes(b"swapped for a link")
        link.symlink_to(target)
        staged.rename(place)
        for _ in range(40):
            exchange(place, link)
            yield
        for path in (place, link):
            if path.is_symlink():
                path.unlink()

    def swap_a_file(self, target: Path) -> Iterator[None]:
        """Let a file change places with a folder, a link or a hard link, over and over."""
        number = next(self.names)
        place, other = self.inbox / f"c{number}.png", self.inbox / f".other{number}"
        place.write_bytes(b"swapped for something else")
        match self.chances.randrange(4):
            case 0:
                other.mkdir()
                other.chmod(0o777)
                (other / "v9999.h5").write_bytes(b"in a folder of the intruder's")
                (other / "out").symlink_to(target)
            case 1:
                other.symlink_to(target)
            case 2:
                other.symlink_to(target / self.chances.choice(TREASURES))
            case 3:
                os.link(place, other)
        for _ in range(40):
            exchange(place, other)
            yield

    def hide_in_a_folder(self, target: Path) -> Iterator[None]:
        """Let a folder that is deep in folders become a link, and the daemon's own folders of that name be asked for."""
        number = next(self.names)
        place, away = self.inbox / f"d{number}/sub/deep", self.inbox / f".away{number}"
        place.mkdir(parents=True)
        for name in TREASURES:
            (place / name).write_bytes(b"deep in folders")
        for _ in range(20):
            yield
            place.parent.rename(away)
            place.parent.symlink_to(target)
            yield
            place.parent.unlink()
            away.rename(place.parent)


def main() -> int:
    """Give up root, see that it is gone, attack."""
    root, seconds, seed = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    os.umask(0)
    for target in TARGETS:
        if os.access(root / target, os.W_OK):
            print(f"{target} can be written by anybody: this proves nothing", file=sys.stderr)
            return 2
    print(Intruder(root, seed).attack(seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
