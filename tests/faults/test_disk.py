"""A disk that is full, broken or read-only: injected at every system call of the walk, and live."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from daemon.answering.retirement import SLOW_SECONDS
from tests.faults.harness import (
    FULL,
    Daemon,
    Drops,
    Nursery,
    Reader,
    check_all_done,
    check_nothing_lost,
    files_below,
    fill,
    lay_out,
    mounted,
    names_in,
    needs_root,
    png,
    shell,
    threads_of,
    traced,
    until,
)
from tests.faults.test_kills import rehearse, spread

pytestmark = [needs_root, pytest.mark.timeout(3600 if FULL else 300)]
RESUME_SECONDS = 5.0  # after the cause has gone
CONSUMING_SECONDS = 2.0 if FULL else 1.2  # in which it would consume something: it tries again each second
SLACK = 15.0  # on machines that are busy with other tests
ERRORS = ("ENOSPC", "EIO", "EROFS")
# What each error can come from, as the kernel documents it; the walk's calls that read are hit by EIO only.
POSSIBLE = {
    "ENOSPC": {"renameat", "renameat2", "mkdirat", "write", "openat", "syncfs"},
    "EIO": {"renameat", "renameat2", "mkdirat", "write", "openat", "syncfs", "unlinkat", "getdents64", "read", "newfstatat"},
    "EROFS": {"renameat", "mkdirat", "openat", "unlinkat", "renameat2"},
}


def test_an_error_of_any_call_is_nobodys_end(nursery: Nursery, place: Path, tmp_path: Path) -> None:
    """Whichever system call of the walk fails with ENOSPC, EIO or EROFS, once, every file still comes to its own end."""
    root = lay_out(place / "root", nursery.model)
    drops = Drops(root / "inbox")
    hits: Counter[str] = Counter()
    with Reader(root), Daemon(nursery, root) as daemon:
        drops.drop_mixture()
        drops.drop_mixture()
        daemon.settle()
        plan, _ = rehearse(daemon, drops, tmp_path / "calls")
        for error in ERRORS:
            faults = [call for call in plan if call[1] in POSSIBLE[error]]
            for thread, kind, number in spread(faults) if FULL else faults[:: max(2, len(faults) // 2)][:2]:
                before = faults_counted(daemon)
                with traced([threads_of(daemon.pid)[thread]], f"{kind}:error={error}:when={number}", trace=kind):
                    drops.drop_mixture()
                    daemon.settle()
                hits[error] += faults_counted(daemon) > before
        until(lambda: daemon.ready, RESUME_SECONDS + SLACK, "ready again")
        check_all_done(root, drops)
        only_what_is_no_image(daemon, drops)
    print(f"\nsingle errors injected and noticed: {dict(hits)}")
    assert all(hits[error] for error in ERRORS)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("kind", ["renameat", "renameat2", "write", "syncfs", "openat", "read", "getdents64", "mkdirat"])
def test_a_lasting_error_pauses_and_resumes(nursery: Nursery, place: Path, kind: str, error: str) -> None:
    """While a kind of system call fails, the daemon says so and consumes nothing; afterwards it goes on by itself."""
    if kind not in POSSIBLE[error]:
        pytest.skip(f"{kind} never gives {error}")
    if not FULL and (kind, error) not in {("renameat", "EROFS"), ("write", "ENOSPC"), ("syncfs", "EIO"), ("read", "EIO")}:
        pytest.skip("in the full run")
    root = lay_out(place / "root", nursery.model)
    drops = Drops(root / "inbox")
    with Reader(root), Daemon(nursery, root) as daemon:
        drops.drop_mixture()
        daemon.settle()
        with traced(
            [*threads_of(daemon.pid), *daemon.workers],
            f"{kind}:error={error}",
            trace=kind,
            paths=broken_paths(daemon, drops, kind),
        ):
            drops.drop_mixture()
            drops.drop_digits(3)
            say_so(daemon)
            retired = len(names_in(root / "processed"))
            moment = time.monotonic()
            until(lambda: time.monotonic() > moment + CONSUMING_SECONDS)
            if kind in {"write", "syncfs"}:
                assert len(names_in(root / "processed")) == retired
            check_nothing_lost(root, drops)
        resumes(daemon, root, drops)
        only_what_is_no_image(daemon, drops)


def broken_paths(daemon: Daemon, drops: Drops, kind: str) -> list[str]:
    """Calls that also have to do with pipes and libraries are broken for the walk's files only; empty: for all."""
    root = daemon.root
    return {
        "read": [f"{root}/work/same.png", f"{root}/work/same.txt"],
        "write": unfinished(daemon, drops) if kind == "write" else [],
        "openat": [f"{root}/inbox", f"{root}/results/.tmp"],
        "getdents64": [f"{root}/inbox"],
    }.get(kind, [])


def unfinished(daemon: Daemon, drops: Drops) -> list[str]:
    """What each of the daemon's processes calls a result that is not whole: what it and one decoder do tells of all."""
    with traced([*threads_of(daemon.pid), *daemon.workers], trace="openat") as log:
        drops.drop_mixture()
        daemon.settle()
        calls = log.read_text(errors="replace")
    writers = set(re.findall(r'"([^"/]+)\.\d+\.json", O_WRONLY\|O_CREAT\|O_EXCL', calls))
    return [f"{daemon.root}/results/.tmp/{writer}.{pid}.json" for writer in writers for pid in daemon.family]


def faults_counted(daemon: Daemon) -> float:
    """How many faults of the machine the daemon says that it met."""
    return daemon.metric("digitd_intake_errors_total")


def only_what_is_no_image(daemon: Daemon, drops: Drops) -> None:
    """No image was rejected for what the machine did."""
    refused = sum(name.endswith(".txt") for names in drops.dropped.values() for name in names)
    assert (
        daemon.metric("digitd_rejections_total")
        == daemon.metric("digitd_rejections_total", reason="not_an_image")
        == refused
    )


def say_so(daemon: Daemon) -> None:
    """The daemon says, where machines ask it, that it does not work."""
    until(lambda: daemon.get("/readyz")[0] == 503, what="/readyz says no")
    assert daemon.metric("digitd_ready") == 0
    assert faults_counted(daemon) > 0


def resumes(daemon: Daemon, root: Path, drops: Drops) -> None:
    """Within its time after the fault is gone it is ready and has done everything."""
    gone = time.monotonic()
    daemon.settle(RESUME_SECONDS + SLACK)
    until(lambda: daemon.ready, RESUME_SECONDS + SLACK, "/readyz says yes")
    print(f" resumed and finished after {time.monotonic() - gone:.1f} s", end="")
    assert daemon.metric("digitd_ready") == 1
    check_all_done(root, drops)


def test_a_full_disk_pauses_until_there_is_room(nursery: Nursery) -> None:
    """On a disk without room for results nothing is consumed; once there is room, all goes on."""
    with mounted("tmpfs", "size=2m") as point:
        root = lay_out(point / "root", nursery.model)
        filler = point / "filler"
        live_fault(nursery, root, lambda: fill(filler), filler.unlink)


def test_a_disk_without_inodes_pauses_until_there_are_some(nursery: Nursery) -> None:
    """On a disk without a free inode nothing is consumed; once there are some, all goes on."""
    with mounted("tmpfs", "size=4m,nr_inodes=120") as point:
        root = lay_out(point / "root", nursery.model)
        stuffing = point / "stuffing"
        stuffing.mkdir()

        def stuff() -> None:
            number = 0
            try:
                while True:
                    (stuffing / str(number)).touch()
                    number += 1
            except OSError:
                pass

        def empty() -> None:
            for name in names_in(stuffing):
                (stuffing / name).unlink()

        live_fault(nursery, root, stuff, empty)


def test_a_read_only_disk_pauses_until_it_is_writable(nursery: Nursery, tmp_path: Path) -> None:
    """On a disk that was remounted read-only nothing is consumed; once it is writable again, all goes on."""
    root = lay_out(tmp_path / "root", nursery.model)
    results = root / "results"  # the daemon holds its lock open on the other one, so that the kernel refuses the remount
    shell("mount", "-t", "tmpfs", "tmpfs", str(results))
    try:
        live_fault(
            nursery,
            root,
            lambda: shell("mount", "-o", "remount,ro", str(results)),
            lambda: shell("mount", "-o", "remount,rw", str(results)),
        )
    finally:
        shell("umount", str(results))


def live_fault(nursery: Nursery, root: Path, begin: Callable[[], object], end: Callable[[], object]) -> None:
    """Drop files, break the disk, see the daemon wait; mend it, see it go on."""
    drops = Drops(root / "inbox")
    with Reader(root), Daemon(nursery, root) as daemon:
        drops.drop_mixture()
        daemon.settle()
        prepared = root / "prepared"  # a full disk takes no new files, but it lets them move
        prepared.mkdir()
        waiting = {f"later-{number}.png": png(number) for number in range(100_000, 100_020)}
        for name, content in waiting.items():
            (prepared / name).write_bytes(content)
        begin()
        answered = len(files_below(root / "results"))
        for name, content in waiting.items():
            (prepared / name).rename(root / "inbox" / name)
            drops.note(name, content)
        say_so(daemon)
        assert len(files_below(root / "results")) == answered
        check_nothing_lost(root, drops)
        end()
        resumes(daemon, root, drops)
        only_what_is_no_image(daemon, drops)


def test_a_slow_disk_is_told_and_waited_for(nursery: Nursery, place: Path) -> None:
    """While one sync takes long the daemon says so and takes nothing more; it lives, and goes on when the disk does."""
    root = lay_out(place / "root", nursery.model)
    drops = Drops(root / "inbox")
    with Daemon(nursery, root) as daemon:
        drops.drop_mixture()
        daemon.settle()
        slowly = f"syncfs:delay_enter={int(2e6 * SLOW_SECONDS)}"
        with traced(threads_of(daemon.pid), slowly, trace="syncfs"):
            drops.drop_mixture()
            until(lambda: "the disk is slow" in daemon.get("/readyz")[1], what="/readyz says so")
            drops.drop("later.png", png(9_000_001))
            assert daemon.get("/livez")[0] == 200
            check_nothing_lost(root, drops)
        resumes(daemon, root, drops)


def test_a_slow_disk_is_not_the_end_of_what_is_read_from_it(nursery: Nursery, place: Path) -> None:
    """A file that takes longer to come from the disk than an image may take to decode is answered all the same."""
    root = lay_out(place / "root", nursery.model)
    drops = Drops(root / "inbox")
    with Daemon(nursery, root, {"DIGITD_INBOX__DECODE_SECONDS": "0.5"}) as daemon:
        drops.drop_mixture()
        daemon.settle()
        with traced(daemon.workers, "read:delay_enter=1500000", trace="read", paths=[f"{root}/work/slow.bmp"]):
            drops.drop("slow.bmp", bmp())
            daemon.settle()
        assert (root / "results/slow.bmp.json").exists()
        check_all_done(root, drops)


def bmp() -> bytes:
    """A digit that is not harmless enough to be decoded in the daemon's main process."""
    file = BytesIO()
    Image.open(BytesIO(png(1))).save(file, "BMP")
    return file.getvalue()
