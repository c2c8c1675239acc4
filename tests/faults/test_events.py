"""Events that never come: the folder is the truth, and a sweep finds what no event told of."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from tests.faults.harness import (
    FULL,
    Daemon,
    Drops,
    Nursery,
    check_all_done,
    lay_out,
    mounted,
    needs_root,
    png,
    shell,
    until,
)

pytestmark = pytest.mark.timeout(1800 if FULL else 300)
NEVER = 3600.0  # seconds until a sweep that no event asked for: longer than the test
RESCAN_SECONDS = 1.0  # as the harness configures it
SLACK = 15.0  # on machines that are busy with other tests


def done_within_the_interval(daemon: Daemon, drops: Drops) -> None:
    """Drop a few files now: all have their end within the rescan interval."""
    dropped = time.monotonic()
    drops.drop_mixture()
    daemon.settle(RESCAN_SECONDS + SLACK)
    print(f" done after {time.monotonic() - dropped:.1f} s", end="")


def test_files_dropped_while_it_was_stopped_are_all_done(nursery: Nursery, root: Path) -> None:
    """Files dropped while no daemon runs, and while one is stopped in its tracks, are all done when it runs again."""
    count = 10_000 if FULL else 200
    drops = Drops(root / "inbox")
    drops.drop_digits(count)
    with Daemon(nursery, root) as daemon:
        daemon.settle(300)
        with daemon.stopped():
            drops.drop_digits(count)
        daemon.settle(300)
        if FULL:  # three events a file, and the kernel keeps 16,384
            assert daemon.metric("digitd_inbox_overflows_total") > 0
        done_within_the_interval(daemon, drops)
        check_all_done(root, drops)


def test_events_that_the_kernel_dropped_are_made_up_for(nursery: Nursery, root: Path) -> None:
    """When more happens in the inbox than the kernel keeps events of, that is counted, and every file is done."""
    drops = Drops(root / "inbox")
    room = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    with Daemon(nursery, root, {"DIGITD_INBOX__RESCAN_SECONDS": str(NEVER)}) as daemon:
        drops.drop_digits(20)  # and no sub-folders: those in work/ are tidied away by the next sweep
        daemon.settle()
        assert daemon.metric("digitd_inbox_overflows_total") == 0
        with daemon.stopped():
            restless = [root / "inbox/.one", root / "inbox/.other"]  # an event for each new name of one ignored file
            restless[0].touch()
            for number in range(room + 1):
                os.rename(restless[number % 2], restless[1 - number % 2])  # noqa: PTH104 -- 16,385 of them
            drops.drop_digits(300)
            restless[(room + 1) % 2].unlink()
        daemon.settle()
        assert daemon.metric("digitd_inbox_overflows_total") > 0
        drops.drop_digits(20)  # and events are heard again
        daemon.settle()
        check_all_done(root, drops)


@needs_root
@pytest.mark.parametrize("limit", ["max_inotify_watches", "max_inotify_instances"])
def test_without_inotify_the_inbox_is_polled(nursery: Nursery, root: Path, limit: str) -> None:
    """Where the kernel grants no watches, files are done within the rescan interval, and a metric says so."""
    drops = Drops(root / "inbox")
    with Daemon(nursery, root, deny_inotify=limit) as daemon:
        drops.drop_mixture()
        daemon.settle()
        for _ in range(2):
            done_within_the_interval(daemon, drops)
        assert daemon.metric("digitd_intake_errors_total", cause="watch") == 1
        check_all_done(root, drops)


def test_an_inbox_made_anew_is_watched_again(nursery: Nursery, root: Path) -> None:
    """An inbox that is renamed or deleted, and made anew, is watched like the first; while there is none, it says so."""
    inbox = root / "inbox"
    drops = Drops(inbox)
    with Daemon(nursery, root) as daemon:
        done_within_the_interval(daemon, drops)
        inbox.rename(root / "old")
        until(lambda: daemon.get("/readyz")[0] == 503, what="/readyz says no")
        assert "inbox" in daemon.get("/readyz")[1]
        inbox.mkdir()
        done_within_the_interval(daemon, drops)
        until(lambda: daemon.ready, what="/readyz says yes")
        shutil.rmtree(inbox)
        inbox.mkdir()
        done_within_the_interval(daemon, drops)
        inbox.rename(root / "older")
        (root / "old").rename(inbox)
        done_within_the_interval(daemon, drops)
        check_all_done(root, drops)


def test_not_ready_stays_not_ready(nursery: Nursery, root: Path) -> None:
    """For as long as there is no inbox, /readyz says no without a break."""
    rescan = 3.0 if FULL else 1.5
    with Daemon(nursery, root, {"DIGITD_INBOX__RESCAN_SECONDS": str(rescan)}) as daemon:
        (root / "inbox").rename(root / "old")
        until(lambda: daemon.get("/readyz")[0] == 503, what="/readyz says no")
        ends = time.monotonic() + rescan + 1.0
        while time.monotonic() < ends:
            assert daemon.get("/readyz")[0] == 503
        (root / "old").rename(root / "inbox")
        until(lambda: daemon.ready, what="/readyz says yes")


@needs_root
def test_an_inbox_unreadable_for_a_while_is_read_afterwards(nursery: Nursery, root: Path) -> None:
    """An inbox that may not be read pauses the intake, also one that could not be read from the start."""
    inbox = root / "inbox"
    drops = Drops(inbox)
    for started_blind in (False, True):
        if started_blind:
            inbox.chmod(0)
        daemon = Daemon(nursery, root, obey_modes=True)
        daemon.start(ready=not started_blind)
        with daemon_of(daemon):
            if not started_blind:
                done_within_the_interval(daemon, drops)
                inbox.chmod(0)
            until(lambda: daemon.address and daemon.get("/readyz")[0] == 503, what="/readyz says no")  # noqa: B023
            until(lambda: "ermission" in daemon.get("/readyz")[1], what="it says why")  # noqa: B023
            drops.drop_mixture()
            inbox.chmod(0o755)
            daemon.settle(RESCAN_SECONDS + SLACK)
            until(lambda: daemon.ready, what="/readyz says yes")  # noqa: B023
            done_within_the_interval(daemon, drops)
    check_all_done(root, drops)


class daemon_of:  # noqa: N801 -- reads as a with-statement
    """A daemon that was started before the block."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        self._daemon.__exit__(*error)  # type: ignore[arg-type]


@needs_root
def test_an_inbox_that_may_not_be_changed_pauses_the_intake(nursery: Nursery, root: Path) -> None:
    """Files in an inbox that the daemon may not write wait, /readyz says so, and they are done once it may."""
    inbox = root / "inbox"
    drops = Drops(inbox)
    with Daemon(nursery, root, obey_modes=True) as daemon:
        done_within_the_interval(daemon, drops)
        inbox.chmod(0o555)
        drops.drop_mixture()
        until(lambda: daemon.get("/readyz")[0] == 503, what="/readyz says no")
        inbox.chmod(0o755)
        daemon.settle(RESCAN_SECONDS + SLACK)
        check_all_done(root, drops)


@needs_root
def test_a_file_system_without_events_is_polled(nursery: Nursery) -> None:
    """Where files appear without any event, as on a network file system, they are done within the rescan interval."""
    with mounted("tmpfs") as point:
        for name in ("lower", "upper", "scratch", "merged"):
            (point / name).mkdir()
        layers = f"lowerdir={point}/lower,upperdir={point}/upper,workdir={point}/scratch"
        shell("mount", "-t", "overlay", "overlay", "-o", layers, str(point / "merged"))
        try:
            root = lay_out(point / "merged/root", nursery.model)
            drops = Drops(root / "inbox")
            behind = Drops(point / "upper/root/inbox", dropped=drops.dropped)  # seen by sweeps and by no watch
            with Daemon(nursery, root) as daemon:
                for _ in range(3):
                    done_within_the_interval(daemon, behind)
                drops.count = behind.count
                check_all_done(root, drops)
        finally:
            shell("umount", str(point / "merged"))


def test_folders_are_taken_with_what_is_in_them(nursery: Nursery, root: Path) -> None:
    """Files in folders that are moved in whole, made in a hurry or replace a file, are all done."""
    drops = Drops(root / "inbox")
    with Daemon(nursery, root) as daemon:
        for number in range(5 if FULL else 2):
            outside = root / f"outside{number}" / "a" / "b"
            outside.mkdir(parents=True)
            for file in range(20):
                (outside / f"{file}.png").write_bytes(png(1000 * number + file))
                drops.note(f"moved{number}/a/b/{file}.png", png(1000 * number + file))
            (root / f"outside{number}").rename(root / "inbox" / f"moved{number}")
            drops.drop("x", png(9000 + number))
            until(lambda: not (root / "inbox/x").exists() and not (root / "work/x").exists())
            drops.drop(f"x/{number}.png", png(9100 + number))
            until(lambda n=number: not (root / f"inbox/x/{n}.png").exists())
            shutil.rmtree(root / "inbox/x")
        daemon.settle(RESCAN_SECONDS + SLACK)
        check_all_done(root, drops)
