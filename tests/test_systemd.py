"""systemd.py: what the daemon says to systemd, and how the journal reads its lines."""

import logging
import os
import socket
from pathlib import Path

import pytest

from daemon.systemd import CLOSED, Opener, ask_for_time, log_handler, notify
from tests.conftest import as_ordinary_user


def record(level: int, text: str) -> logging.LogRecord:
    """A line to be logged."""
    return logging.LogRecord("daemon", level, __file__, 1, text, None, None)


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    """States arrive at $NOTIFY_SOCKET, a path or, after an @, a name in the abstract namespace."""
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0{name}" if abstract else name)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if abstract else name)
        notify("READY=1")
        ask_for_time(1.5)
        assert [b"READY=1", b"EXTEND_TIMEOUT_USEC=1500000"] == [receiver.recv(100), receiver.recv(100)]


def test_without_systemd_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without $NOTIFY_SOCKET there is nobody to tell."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")


def test_systemd_that_cannot_be_reached_ends_no_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell that a service started hands its $NOTIFY_SOCKET on, also where nobody hears it."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "none"))
    notify("READY=1")


def test_the_opener_is_woken_less_often_the_longer_somebody_needs_it(tmp_path: Path) -> None:
    """A folder that is shut again and again wakes it after 1, 2, 4, 8, then each 15 s; after a minute's peace at once."""
    bell, opener = tmp_path / CLOSED, Opener(tmp_path)
    assert not opener.ask(0.0)
    bell.touch()
    woken = []
    for second in (*range(1, 80), 200):
        os.utime(bell, (0, 0))
        assert opener.ask(float(second))
        woken += [second] * (bell.stat().st_mtime > 0)
    assert [1, 3, 7, 15, 30, 45, 60, 75, 200] == woken


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_an_opener_that_cannot_be_woken_is_as_none(open_path: Path) -> None:
    """As after a restore by root, to whom its bell belongs then: the intake goes on."""
    (open_path / CLOSED).touch()
    with as_ordinary_user():
        assert not Opener(open_path).ask(0.0)


def test_the_journal_is_told_the_priority_of_every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line of a message begins with its priority, and has no time of its own."""
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    assert "<3>first\n<3>second" == log_handler().format(record(logging.ERROR, "first\nsecond"))
    assert "<6>text" == log_handler().format(record(logging.INFO, "text"))


def test_a_person_is_told_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere a line has its time and its level in words."""
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    assert log_handler().format(record(logging.WARNING, "text")).endswith(" WARNING text")
