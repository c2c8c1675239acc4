"""presence.py: which daemon runs on a root."""

import fcntl
import os
from pathlib import Path

from daemon.telemetry.presence import HOST, announce, who_runs


def test_who_runs_is_told_while_it_runs(tmp_path: Path) -> None:
    """What was announced is read until the descriptor is closed; before and after nobody runs."""
    path = tmp_path / ".daemon.json"
    assert who_runs(path) is None
    descriptor = announce(path, {"pid": 7})
    assert {"pid": 7, "host": HOST} == who_runs(path) == who_runs(path)
    os.close(descriptor)
    assert who_runs(path) is None


def test_what_a_full_disk_left_tells_that_nobody_runs(tmp_path: Path) -> None:
    """A file without content, of a daemon that could not announce itself."""
    (tmp_path / ".daemon.json").touch()
    assert who_runs(tmp_path / ".daemon.json") is None


def test_a_reader_can_neither_keep_a_daemon_away_nor_feign_one(tmp_path: Path) -> None:
    """Every lock that one may take who can only read the file leaves the next announcement and its absence as they are."""
    path = tmp_path / ".daemon.json"
    os.close(announce(path, {"pid": 7}))
    with path.open("rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_EX)
        fcntl.lockf(reader, fcntl.LOCK_SH)
        assert who_runs(path) is None
        descriptor = announce(path, {"pid": 8})
        assert {"pid": 8, "host": HOST} == who_runs(path)
        os.close(descriptor)


def test_everybody_who_sees_the_folder_may_ask(tmp_path: Path) -> None:
    """The group of a service reads work/; the umask of the daemon does not matter."""
    before = os.umask(0o077)
    try:
        os.close(announce(tmp_path / "a", {}))
    finally:
        os.umask(before)
    assert 0o644 == (tmp_path / "a").stat().st_mode & 0o777
