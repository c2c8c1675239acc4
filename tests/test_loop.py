"""loop.py: a thread that makes passes, and whether it moves."""

import ctypes
import fcntl
import logging
import os
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from daemon.loop import STALLED_SECONDS, Loop
from tests.conftest import wait_until

FIFREEZE, FITHAW = 0xC0045877, 0xC0045878  # linux/fs.h: every writer waits, in uninterruptible sleep
LATE = STALLED_SECONDS + 1


def test_it_makes_passes_until_it_is_left() -> None:
    """One pass follows another; afterwards the thread has ended."""
    passes: list[None] = []
    with Loop("passes", lambda: passes.append(None)) as loop:
        wait_until(lambda: len(passes) > 2, "three passes")
    assert not loop.is_alive()


def test_a_thread_that_does_not_move_is_named() -> None:
    """A pass that began long ago is told with the thread's name and the time; a young one is not."""
    in_pass, go_on = threading.Event(), threading.Event()
    with Loop("pipeline", lambda: in_pass.set() or go_on.wait()) as loop:
        in_pass.wait()
        assert loop.stall(time.monotonic()) is None
        assert loop.stall(time.monotonic() + LATE) == f"thread pipeline made no pass for {LATE:.0f} s"
        go_on.set()


def test_work_behind_the_scenes_may_take_its_time() -> None:
    """A loop that rests between passes is never said to stand still."""
    in_pass, go_on = threading.Event(), threading.Event()
    with Loop("models", lambda: in_pass.set() or go_on.wait(), rest=0.001) as loop:
        in_pass.wait()
        assert loop.stall(time.monotonic() + LATE) is None
        go_on.set()


def test_a_machines_fault_does_not_end_work_behind_the_scenes(caplog: pytest.LogCaptureFixture) -> None:
    """A full disk is logged with the thread's name, and the next pass comes."""
    passes: list[None] = []

    def run_once() -> None:
        passes.append(None)
        raise OSError(28, "No space left on device")

    with caplog.at_level(logging.ERROR), Loop("models", run_once, rest=0.001):
        wait_until(lambda: len(passes) > 1, "a second pass")
    assert "models: [Errno 28] No space left on device; trying again" in caplog.text


@pytest.fixture
def slow_disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A folder where every change waits, and what ends the waiting."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("needs root and mkfs.ext4")
    image, mounted = tmp_path / "image", tmp_path / "mounted"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, mounted], check=False, capture_output=True).returncode != 0:
        pytest.skip("needs loop devices")
    descriptor = os.open(mounted, os.O_RDONLY)
    fcntl.ioctl(descriptor, FIFREEZE, 0)
    with ExitStack() as stack:
        stack.callback(subprocess.run, ["umount", mounted], check=True)
        stack.callback(os.close, descriptor)
        thaw = ExitStack()
        thaw.callback(fcntl.ioctl, descriptor, FITHAW, 0)
        stack.callback(thaw.close)
        yield mounted, thaw.close


def test_who_waits_for_the_disk_is_not_stuck(slow_disk: tuple[Path, Callable[[], None]]) -> None:
    """However long a change of the disk takes, the thread that waits for it is not said to stand still."""
    folder, thaw = slow_disk
    go_on = threading.Event()

    def run_once() -> None:
        (folder / "made").mkdir(exist_ok=True)
        go_on.wait()

    with Loop("retire", run_once) as loop:
        wait_until(lambda: state(loop) == "D", "the thread to wait for the disk")
        assert loop.stall(time.monotonic() + LATE) is None
        thaw()
        wait_until((folder / "made").is_dir, "the disk")
        wait_until(lambda: state(loop) == "S", "the thread to wait for something else")
        assert loop.stall(time.monotonic() + LATE) == f"thread retire made no pass for {LATE:.0f} s"
        go_on.set()


@pytest.fixture
def deaf_disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A file system of FUSE's that answers nothing once it is mounted, and what ends it."""
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip("needs root and /dev/fuse")
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/dev/fuse").open("r+b", buffering=0) as channel:
        options = f"fd={channel.fileno()},rootmode=40000,user_id=0,group_id=0"
        if libc.mount(b"deaf", os.fsencode(tmp_path), b"fuse", 0, options.encode()) != 0:
            pytest.skip("needs the right to mount FUSE")
        try:
            asked = struct.unpack_from("IIQ", channel.read(1 << 17))  # FUSE_INIT, whose answer is struct fuse_init_out
            answer = struct.pack("IIIIHHI", 7, 31, 0, 0, 0, 0, 4096).ljust(64, b"\0")
            channel.write(struct.pack("IiQ", 16 + len(answer), 0, asked[2]) + answer)
            yield tmp_path, channel.close
        finally:
            libc.umount2(os.fsencode(tmp_path), 2)  # MNT_DETACH


def test_who_waits_for_fuse_is_not_stuck(deaf_disk: tuple[Path, Callable[[], None]]) -> None:
    """It waits in a state that signals may interrupt, as for anything else."""
    folder, end = deaf_disk
    go_on = threading.Event()

    def run_once() -> None:
        with suppress(OSError):
            (folder / "a").stat()
        go_on.wait()

    with Loop("retire", run_once) as loop:
        wait_until(lambda: "request_wait_answer" in waits_on(loop), "the thread to wait for FUSE")
        assert state(loop) == "S"
        assert loop.stall(time.monotonic() + LATE) is None
        end()
        wait_until(lambda: "futex" in waits_on(loop), "the thread to wait for something else")
        assert loop.stall(time.monotonic() + LATE) == f"thread retire made no pass for {LATE:.0f} s"
        go_on.set()


def waits_on(loop: Loop) -> str:
    """Where in the kernel the thread waits: proc_pid_wchan(5)."""
    return Path(f"/proc/self/task/{loop._thread.native_id}/wchan").read_text()


def state(loop: Loop) -> str:
    """What the kernel says the thread does: proc_pid_stat(5)."""
    return Path(f"/proc/self/task/{loop._thread.native_id}/stat").read_text().rpartition(")")[2].split()[0]
