"""A name that is dropped again at the very moment at which it is claimed: two drops, each with its own end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.harness import (
    FILE_CHANGING,
    FULL,
    Daemon,
    Drops,
    Nursery,
    Violation,
    check_all_done,
    lay_out,
    needs_root,
    png,
    threads_of,
    traced,
    until,
)

pytestmark = [needs_root, pytest.mark.timeout(300)]
DELAY_MICROSECONDS = 300_000  # before and after each call of the daemon that names the file: room to be faster than it


def drop_over(target: Path, content: bytes) -> tuple[int, int, int]:
    """Drop a file in the place of whatever has its name; which file it is, its mode, and when it was changed."""
    prepared = target.parent.parent / f"prepared-{target.name}"
    prepared.write_bytes(content)
    prepared.chmod(0o604)
    status = prepared.stat()
    prepared.rename(target)
    return status.st_ino, status.st_mode, status.st_mtime_ns


def test_a_name_dropped_again_as_it_is_claimed_is_a_second_drop(nursery: Nursery, tmp_path: Path) -> None:
    """What takes a claimed file's name in the inbox is neither removed nor mixed up with it, and no original is a copy."""
    root = lay_out(tmp_path / "root", nursery.model)
    drops = Drops(root / "inbox")
    with Daemon(nursery, root) as daemon:
        drops.drop_digits(20)
        daemon.settle()
        slowly = f"{FILE_CHANGING}:delay_enter={DELAY_MICROSECONDS}:delay_exit={DELAY_MICROSECONDS}"
        for number in range(5 if FULL else 1):
            name = f"again{number}.png"
            inbox, work = root / "inbox" / name, root / "work" / name
            with traced(threads_of(daemon.pid), slowly, paths=[str(inbox)]):
                contents = [png(5_000_000 + 10 * number + again) for again in range(2)]
                files = set()
                for content in contents:
                    files.add(drop_over(inbox, content))
                    drops.note(name, content)
                    until(work.exists, what=f"{name} is claimed")
                daemon.settle()
            kept = {
                (status.st_ino, status.st_mode, status.st_mtime_ns)
                for status in (path.stat() for path in (root / "processed").glob(f"again{number}*"))
            }
            if kept != files:
                raise Violation(f"{name}: dropped were (inode, mode, time of change) {files} and kept are {kept}")
        check_all_done(root, drops)
