"""Folders of the inbox that their owner has encrypted, and whose key he takes away: fscrypt, as ext4 and f2fs have it."""

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon.config import InboxSettings
from daemon.intake.inbox import Inbox
from daemon.reading.content import InvalidImage, read_content
from daemon.telemetry.metrics import Metrics

FEATURE = Path("/sys/fs/ext4/features/encryption")
SET_POLICY, ADD_KEY, REMOVE_KEY = 0x800C6613, 0xC0506617, 0xC0406618  # ioctls of <linux/fscrypt.h>


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An ext4 on which anybody may encrypt a folder of his."""
    if os.geteuid() != 0 or not FEATURE.exists() or not shutil.which("mkfs.ext4"):
        pytest.skip("needs root, e2fsprogs, and a kernel with fscrypt")
    image, place = tmp_path / "image", tmp_path / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-O", "encrypt", image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, place], check=False, capture_output=True).returncode:
        pytest.skip("needs a loop device")
    yield place
    subprocess.run(["umount", place], check=True)


def encrypt(folder: Path) -> Callable[[], None]:
    """Encrypt an empty folder; gives what takes the key away."""
    key = bytearray(struct.pack("=II32sII32s", 2, 0, bytes(32), 64, 0, bytes(32)) + os.urandom(64))
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, ADD_KEY, key)
        identifier = bytes(key[8:24])
        fcntl.ioctl(descriptor, SET_POLICY, struct.pack("=5B3s16s", 2, 1, 4, 3, 0, bytes(3), identifier))
    finally:
        os.close(descriptor)

    def take_key_away() -> None:
        os.sync()
        above = os.open(folder.parent, os.O_RDONLY)
        try:
            fcntl.ioctl(above, REMOVE_KEY, bytearray(struct.pack("=II32s6I", 2, 0, identifier, *[0] * 6)))
        finally:
            os.close(above)

    return take_key_away


def test_a_key_that_is_taken_away_holds_nobody_up(disk: Path) -> None:
    """What cannot be moved without it stays; others are claimed; what was claimed before is unreadable, by its own fault."""
    inbox, work = disk / "inbox", disk / "work"
    (inbox / "his").mkdir(parents=True)
    work.mkdir()
    take_key_away = encrypt(inbox / "his")
    (inbox / "his" / "a.png").write_bytes(b"a")

    def take() -> set[str]:
        taker = Inbox(inbox, work, InboxSettings(), Metrics(), wake=lambda: None)
        try:
            return {drop.name for drop in taker.take(10)}
        finally:
            taker.close()

    assert {"his/a.png"} == take()
    (inbox / "his" / "b.png").write_bytes(b"b")
    take_key_away()
    (inbox / "z.png").write_bytes(b"z")
    assert {"his/a.png", "z.png"} == take()
    with pytest.raises(InvalidImage, match="unreadable"):
        read_content(work / "his" / "a.png", 100)
    (waiting,) = (inbox / "his").iterdir()
    assert waiting.name != "b.png"
