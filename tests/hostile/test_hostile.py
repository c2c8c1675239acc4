"""Every hostile file comes to its documented end, and disturbs nothing else."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.harness import FULL, Daemon, Violation, parse, png, until
from tests.hostile.conftest import LIMIT_SECONDS
from tests.hostile.files import ANSWERED, STAYS, Hostile, all_hostile

GRACE = 2.0  # seconds by which a hostile file may delay a good one beyond its own limit
BUSY = 15.0  # seconds that a busy machine may add
MOST_MEMORY_MB = 150.0  # that the main process may take beyond its idle size
LONG_AGO = 1_500_000_000
numbers = itertools.count(10_000_000)
delays: dict[str, float] = {}


class Watched:
    """The folders of a daemon, before and after."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon, self.root = daemon, daemon.root
        self._seen = set(self._answers())

    def _answers(self) -> list[tuple[Path, int]]:
        """Each JSON, and when it was written: a link may have the name, inode and time of one that was removed before."""
        folders = (self.root / "results", self.root / "rejected")
        names = [Path(parent, name) for folder in folders for parent, _, names in os.walk(folder) for name in names]
        answers = [path for path in names if path.suffix == ".json" and ".tmp" not in path.parts]
        return [(path, path.lstat().st_mtime_ns) for path in answers]

    def new_answers(self) -> list[dict[str, Any]]:
        """Every JSON that has appeared since; a rejection has a reason."""
        found = [path for path, written in self._answers() if (path, written) not in self._seen and path.is_file()]
        return [parse(path, path.read_bytes()) for path in found]

    def good_file_is_answered(self, title: str, limit: float = LIMIT_SECONDS) -> None:
        """Drop a good file now: it has its answer in time."""
        name = f"good{next(numbers)}.png"
        dropped = time.monotonic()
        (self.root / "prepared" / name).write_bytes(png(next(numbers)))
        (self.root / "prepared" / name).rename(self.root / "inbox" / name)
        result = self.root / "results" / f"{name}.json"
        until(result.exists, limit + GRACE + BUSY, f"the good file after {title!r} is answered")
        delays[title] = time.monotonic() - dropped
        assert parse(result, result.read_bytes())["digit"] == 1
        self._seen.add((result, result.lstat().st_mtime_ns))

    def is_unharmed(self) -> None:
        """The main process lives, answers, and has not grown."""
        assert self.daemon.alive
        assert self.daemon.get("/livez")[0] == 200
        assert self.daemon.metric("digitd_images_total") > 0
        assert self.daemon.memory_mb - self.daemon.idle_mb < MOST_MEMORY_MB


@pytest.fixture
def watched(daemon: Daemon) -> Iterator[Watched]:
    """What the daemon's folders hold when the test begins."""
    yield Watched(daemon)
    inbox = daemon.root / "inbox"
    for path in inbox.iterdir():  # what stays must not disturb the next one
        subprocess.run(["chattr", "-i", str(path)], check=False, capture_output=True)
        subprocess.run(["rm", "-rf", str(path)], check=True)


@pytest.mark.parametrize("hostile", all_hostile(), ids=lambda hostile: hostile.title)
def test_it_comes_to_its_end(watched: Watched, hostile: Hostile) -> None:
    """A hostile file ends as the contract says, and a good one dropped right after it is answered in time."""
    if hostile.slow and not FULL:
        pytest.skip("in the full run: it takes its whole time limit")
    if hostile.needs_root and os.geteuid() != 0:
        pytest.skip("only root can make it")
    prepared = watched.root / "prepared" / f"hostile{next(numbers)}"
    try:
        hostile.make(prepared)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"it cannot be made here: {error}")
    target = os.fsencode(watched.root / "inbox") + b"/" + hostile.name
    if hostile.title == "immutable file":  # it cannot be moved by anybody
        subprocess.run(["chattr", "-i", str(prepared)], check=True)
        prepared.unlink()
        with watched.daemon.stopped():
            hostile.make(Path(os.fsdecode(target)))
    elif prepared.is_dir() and not prepared.is_symlink():
        prepared.rename(os.fsdecode(target))
    else:
        os.utime(prepared, (LONG_AGO, LONG_AGO), follow_symlinks=False)  # nobody may take it for unfinished
        prepared.rename(os.fsdecode(target))
    watched.good_file_is_answered(hostile.title)
    if hostile.ends == (STAYS,):
        assert os.path.lexists(target)
        assert watched.new_answers() == []
    else:
        answers = until(watched.new_answers, LIMIT_SECONDS + GRACE + BUSY, f"{hostile.title} has an answer")
        assert [answer.get("reason", ANSWERED) for answer in answers] in [[end] for end in hostile.ends]
        until(lambda: not os.path.lexists(target), what="it has left the inbox")
    watched.is_unharmed()


def test_an_unreadable_file_is_rejected_as_such(watched: Watched) -> None:
    """A file that the daemon may not open is rejected as unreadable, once its grace is over."""
    prepared = watched.root / "prepared" / "unreadable"
    prepared.write_bytes(png(next(numbers)))
    prepared.chmod(0)
    os.utime(prepared, (LONG_AGO, LONG_AGO))
    prepared.rename(watched.root / "inbox" / "unreadable.png")
    watched.good_file_is_answered("unreadable file")
    assert [answer["reason"] for answer in until(watched.new_answers)] == ["unreadable"]


def test_what_stays_is_taken_when_it_can_be(watched: Watched) -> None:
    """An immutable file stays in the inbox, is complained of, and is answered once it may be moved."""
    path = watched.root / "inbox" / f"later{next(numbers)}.png"
    result = watched.root / "results" / f"{path.name}.json"
    with_complaint = watched.daemon.metric("digitd_intake_errors_total", cause="immovable")
    with watched.daemon.stopped():
        path.write_bytes(png(next(numbers)))
        made = subprocess.run(["chattr", "+i", str(path)], check=False, capture_output=True).returncode == 0
    if not made:
        pytest.skip("no immutable files here")
    until(lambda: watched.daemon.metric("digitd_intake_errors_total", cause="immovable") > with_complaint)
    subprocess.run(["chattr", "-i", str(path)], check=True)
    until(result.exists, what="it is answered")


def test_what_cannot_leave_work_stops_nobody(watched: Watched) -> None:
    """A file that becomes immovable after it was claimed is answered, and so are all others; it leaves when it can."""
    path = watched.root / "work" / f"fixed{next(numbers)}.png"
    for _ in range(100):  # it must be caught on its way
        path = path.with_name(f"fixed{next(numbers)}.png")
        (watched.root / "inbox" / path.name).write_bytes(png(next(numbers)))
        until(lambda: path.exists() or (watched.root / "processed" / path.name).exists())  # noqa: B023
        if subprocess.run(["chattr", "+i", str(path)], check=False, capture_output=True).returncode == 0:
            break
    else:
        pytest.skip("no immutable files here, or it is always too quick")
    until(lambda: watched.daemon.metric("digitd_intake_errors_total", cause="immovable") > 0)
    watched.good_file_is_answered("a file that cannot leave work/")
    assert watched.daemon.get("/readyz")[0] == 200
    subprocess.run(["chattr", "-i", str(path)], check=True)
    until((watched.root / "processed" / path.name).exists, what="it has left work/")


@pytest.mark.parametrize("keeps_it_open", [True, False])
def test_a_slow_writer_is_waited_for(watched: Watched, keeps_it_open: bool) -> None:
    """A file that is written with pauses of seconds is read when it is whole, whether it is kept open meanwhile or not."""
    whole = noisy_png()
    name = f"slow{next(numbers)}.png"
    path = watched.root / "inbox" / name
    pause = 3.0 if FULL else 1.5
    parts = [whole[at : at + len(whole) // 3 + 1] for at in range(0, len(whole), len(whole) // 3 + 1)]
    with path.open("ab", buffering=0) as file:
        for part in parts:
            if keeps_it_open:
                file.write(part)
            else:
                file.close()
                append(path, part)
            began = time.monotonic()
            watched.good_file_is_answered("a file being written")
            until(lambda: time.monotonic() > began + pause)  # noqa: B023 -- this writer is slow; that is the point
    (answer,) = until(watched.new_answers, 30.0, "the slow file is answered")
    assert answer.get("reason", ANSWERED) == ANSWERED
    assert answer["file"] == name


def append(path: Path, part: bytes) -> None:
    """Open, write, close, wherever the file is: where the daemon has it, as a writer that knows its inode would."""
    until(lambda: path.exists() or None, 10.0, f"{path} is given back to its writer")
    with path.open("ab") as file:
        file.write(part)


def noisy_png() -> bytes:
    """A digit of half a megabyte."""
    import io

    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(next(numbers)).integers(0, 40, (800, 600), np.uint8)
    pixels[150:650, 280:330] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=0)
    return file.getvalue()


def test_a_copy_caught_at_its_start_is_read_when_it_is_whole(watched: Watched) -> None:
    """A large file that cp has only begun to write is read when cp is done."""
    source = watched.root / "prepared" / "large.png"
    source.write_bytes(noisy_png())
    fifo = watched.root / "prepared" / "throttle"
    os.mkfifo(fifo)
    name = f"copied{next(numbers)}.png"
    with subprocess.Popen(["cp", "/dev/stdin", str(watched.root / "inbox" / name)], stdin=subprocess.PIPE) as copy:
        assert copy.stdin is not None
        with source.open("rb") as whole:
            copy.stdin.write(whole.read(100))
            copy.stdin.flush()
            until((watched.root / "inbox" / name).exists)
            watched.good_file_is_answered("a copy that has begun")
            shutil.copyfileobj(whole, copy.stdin)
        copy.stdin.close()
    (answer,) = until(watched.new_answers, 30.0, "the copied file is answered")
    assert (answer["file"], answer.get("reason", ANSWERED)) == (name, ANSWERED)


def test_files_that_change_or_vanish_as_they_are_read_harm_nothing(watched: Watched) -> None:
    """Files that are overwritten, truncated and deleted wherever they are, all the time, end somehow and harm nothing."""
    leave = threading.Event()
    name = f"changing{next(numbers)}.png"

    def change() -> None:
        for number in itertools.count():
            for folder in ("inbox", "work"):
                path = watched.root / folder / name
                try:
                    if number % 3 == 0 and folder == "inbox":
                        path.write_bytes(noisy_png())
                    elif number % 3 == 1:
                        os.truncate(path, 1000)
                    else:
                        path.unlink()
                except OSError:
                    continue
            if leave.is_set():
                return

    restless = threading.Thread(target=change)
    restless.start()
    try:
        for _ in range(10 if FULL else 3):
            watched.good_file_is_answered("a file that changes")
    finally:
        leave.set()
        restless.join()
    watched.is_unharmed()


def test_many_at_once_leave_the_others_alone(watched: Watched) -> None:
    """All hostile files at once, a hundred good ones among them: every good one is answered."""
    good = []
    for hostile in all_hostile():
        if hostile.slow or hostile.needs_root or hostile.ends == (STAYS,):
            continue
        prepared = watched.root / "prepared" / f"hostile{next(numbers)}"
        hostile.make(prepared)
        prepared.rename(os.fsdecode(os.fsencode(watched.root / "inbox/x") + b"%d-" % next(numbers) + hostile.name[-200:]))
        good.append(f"among{next(numbers)}.png")
        (watched.root / "prepared" / good[-1]).write_bytes(png(next(numbers)))
        (watched.root / "prepared" / good[-1]).rename(watched.root / "inbox" / good[-1])
    for name in good:
        until((watched.root / "results" / f"{name}.json").exists, 60.0, f"{name} is answered")
    watched.is_unharmed()


@pytest.mark.skipif(not FULL, reason="in the full run: it takes half a minute until they are given up")
def test_a_decoder_that_is_stopped_is_replaced(watched: Watched) -> None:
    """A decoder process that hangs for ever costs its time limit, and then others do its work."""
    for worker in watched.daemon.workers:
        os.kill(worker, signal.SIGSTOP)
    stopped = watched.daemon.workers
    name = f"hung{next(numbers)}.png"
    (watched.root / "inbox" / name).write_bytes(png(next(numbers)))
    until((watched.root / "results" / f"{name}.json").exists, 60.0, "it is answered by others")
    until(lambda: not set(stopped) & set(watched.daemon.workers), what="the stopped ones are gone")


def test_delays_and_memory(daemon: Daemon) -> None:
    """Over the whole session the main process has stayed within its bound."""
    peak = peak_mb(daemon.pid)
    worst = max(delays, key=lambda title: delays[title], default="nothing")
    print(f"\nmain process: idle {daemon.idle_mb:.0f} MB, peak {peak:.0f} MB")
    print(f"slowest good file: {delays.get(worst, 0):.1f} s, after {worst}")
    if peak - daemon.idle_mb > MOST_MEMORY_MB:
        raise Violation(f"the main process grew from {daemon.idle_mb:.0f} to {peak:.0f} MB")


def peak_mb(pid: int) -> float:
    """The most resident memory that a process ever had, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
