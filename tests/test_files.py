"""files.py: names to show, durable writing, locks."""

import fcntl
import hashlib
import os
import resource
from pathlib import Path

import pytest

from daemon.files import (
    append_line,
    file_sha256,
    printable,
    replace_symlink,
    sync_file_system,
    sync_folder,
    take_lock,
    write_durably,
)
from tests.conftest import as_ordinary_user


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a b.png", "a b.png"),
        ("größe/七.png", "größe/七.png"),
        (os.fsdecode(b"a\xff.png"), r"a\xff.png"),
        ("a\nb\x1b[31m.png", r"a\nb\x1b[31m.png"),
        ("a\u202eb.png", r"a\u202eb.png"),
    ],
)
def test_printable_names_are_safe_to_show(name: str, expected: str) -> None:
    """Bytes that are not UTF-8 and control characters are escaped; everything else is as it was."""
    assert expected == printable(name)
    printable(name).encode("utf-8")


def test_a_line_is_not_added_through_a_link(tmp_path: Path) -> None:
    """With sudo, root would write where the owner of the folder wants it to, and give the file to that owner."""
    (tmp_path / "another").touch()
    (tmp_path / "ledger.jsonl").symlink_to("another")
    with pytest.raises(OSError, match="symbolic links"):
        append_line(tmp_path / "ledger.jsonl", "{}")
    assert b"" == (tmp_path / "another").read_bytes()


def test_a_line_that_the_disk_took_only_in_part_is_no_line(tmp_path: Path) -> None:
    """Whoever added it is told, and the next one begins a line of its own."""
    path = tmp_path / "ledger.jsonl"
    append_line(path, '"one"')
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(OSError, match="No space left"):
            append_line(path, '"another"')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    append_line(path, '"two"')
    assert b'"one"\n"ano\n"two"\n' == path.read_bytes()


def test_file_sha256_is_that_of_the_content(tmp_path: Path) -> None:
    """The digest is what sha256sum gives."""
    (tmp_path / "a").write_bytes(b"abc")
    assert hashlib.sha256(b"abc").hexdigest() == file_sha256(tmp_path / "a")


def test_write_durably_replaces_the_whole_file(tmp_path: Path) -> None:
    """The new content is there, and no temporary file is."""
    (tmp_path / "a").write_bytes(b"old and longer")
    write_durably(tmp_path / "a", b"new")
    assert {"a": b"new"} == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_replace_symlink_replaces_link_and_file(tmp_path: Path) -> None:
    """A link is made, then replaced; each time it is relative."""
    replace_symlink(tmp_path / "current", "v1")
    replace_symlink(tmp_path / "current", "v2")
    assert ["current"] == os.listdir(tmp_path)
    assert (tmp_path / "current").readlink() == Path("v2")


def test_what_a_kill_left_of_a_link_is_there_once(tmp_path: Path) -> None:
    """However often links were not put in their place, the next one is made of what is left."""
    (tmp_path / ".current").symlink_to("v1")
    replace_symlink(tmp_path / "current", "v2")
    assert ["current"] == os.listdir(tmp_path)


def test_syncing_a_missing_folder_raises(tmp_path: Path) -> None:
    """What is not there cannot be made durable, and that is said."""
    sync_folder(tmp_path)
    sync_file_system(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        sync_file_system(tmp_path / "none")


def test_a_lock_is_held_until_it_is_closed(tmp_path: Path) -> None:
    """Nobody else has it meanwhile; afterwards the next one does."""
    path = tmp_path / ".lock"
    first = take_lock(path)
    assert first is not None
    assert take_lock(path) is None
    os.close(first)
    second = take_lock(path)
    assert second is not None
    os.close(second)


def test_a_lock_cannot_be_held_by_those_who_only_read(tmp_path: Path) -> None:
    """Who can open a file can lock it; so nobody but the owner can, also where an earlier version left it readable."""
    path = tmp_path / ".lock"
    path.touch(0o640)
    descriptor = take_lock(path)
    assert descriptor is not None
    os.close(descriptor)
    assert 0o600 == path.stat().st_mode & 0o777


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_lock_that_root_takes_stays_the_owners_of_its_folder(tmp_path: Path) -> None:
    """After a `sudo digitd retrain` the service's user can take it."""
    os.chown(tmp_path, 12345, 23456)
    for _ in range(2):  # also one that an earlier version left to root
        descriptor = take_lock(tmp_path / ".lock")
        assert descriptor is not None
        os.close(descriptor)
        assert (12345, 23456) == ((status := (tmp_path / ".lock").stat()).st_uid, status.st_gid)
        os.chown(tmp_path / ".lock", 0, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_file_that_root_begins_is_its_folders_owners(tmp_path: Path) -> None:
    """After a `sudo digitd retrain`, whatever the umask, the service can add to the ledger, and read the manifest."""
    os.chown(tmp_path, 12345, 23456)
    append_line(tmp_path / "ledger.jsonl", "{}")
    write_durably(tmp_path / "v0002.json", b"{}")
    for path in tmp_path.iterdir():
        assert (12345, 23456) == ((status := path.stat()).st_uid, status.st_gid)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_lock_that_root_left_gives_way_unless_it_is_held(tmp_path: Path) -> None:
    """`sudo digitd retrain` of an earlier version made one that the service's user can read, and not open for writing."""
    path = tmp_path / ".lock"
    path.touch(0o644)
    os.chown(tmp_path, 12345, 23456)
    for folder in tmp_path.parents[:3]:
        folder.chmod(0o755)
    held = os.open(path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    os.seteuid(12345)
    try:
        assert take_lock(path) is None
        os.close(held)
        descriptor = take_lock(path)
        assert descriptor is not None
        assert 12345 == os.fstat(descriptor).st_uid
        assert take_lock(path) is None
        os.close(descriptor)
    finally:
        os.seteuid(0)


def test_a_lock_that_cannot_be_made_is_refused_for_the_folders_sake(open_path: Path) -> None:
    """It was said that the lock is not there."""
    open_path.chmod(0o555)
    with as_ordinary_user(), pytest.raises(PermissionError):
        take_lock(open_path / ".lock")
