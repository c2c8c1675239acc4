"""SIGHUP: the configuration is read again while the daemon works."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Daemon, Digits, make_root, wait_until


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for the tests of this module, each of which changes keys of its own."""
    running = Daemon(make_root(tmp_path_factory.mktemp("reload")))
    try:
        yield running.wait_ready()
    finally:
        running.close()


def change(daemon: Daemon, before: str, after: str) -> str:
    """Replace a part of config.toml and send SIGHUP; what the daemon says to it."""
    config = daemon.root / "config.toml"
    text = config.read_text()
    assert before in text
    config.write_text(text.replace(before, after, 1))
    said = len(daemon.log)
    daemon.process.send_signal(signal.SIGHUP)

    def answer() -> str:
        new = daemon.log[said:]
        return new if "config.toml again" in new or "stays as it was" in new else ""

    return wait_until(answer, "an answer to SIGHUP")


def test_what_can_change_live_does(daemon: Daemon, digits: Digits) -> None:
    """With review_below = 1.0 an answer of less confidence is one to be reviewed, which was accepted before."""
    daemon.drop("before.png", digits.png(8))
    before = daemon.result("before.png")
    assert (0.6 < before["confidence"] < 1.0, before["decision"]) == (True, "accepted")
    said = change(daemon, "review_below = 0.6 ", "review_below = 1.0 ")
    assert "inference.review_below is now 1.0; it was 0.6" in said
    daemon.drop("after.png", digits.png(8))
    assert daemon.result("after.png")["decision"] == "review"


def test_names_that_are_no_longer_ignored_are_taken(daemon: Daemon, digits: Digits) -> None:
    """A file that waited because of its name is answered without being touched."""
    daemon.drop("scan.tmp", digits.png(1))
    daemon.drop("other.png", digits.png(2))
    daemon.result("other.png")
    assert not (daemon.root / "results/scan.tmp.json").exists()
    change(daemon, '"*.tmp", ', "")
    assert daemon.result("scan.tmp")["digit"] == digits.labels[1]


def test_what_cannot_change_live_is_named(daemon: Daemon) -> None:
    """Another number of decoder processes is not taken up, and the log says what to do."""
    assert "inbox.workers = 3 needs a restart; 2 stays in force" in change(daemon, "workers = 2", "workers = 3")


def test_a_wrong_configuration_changes_nothing(daemon: Daemon) -> None:
    """The daemon says what is wrong with it, and goes on."""
    said = change(daemon, "grace_seconds = 5.0", "grace_seconds = -1.0")
    assert "the configuration stays as it was:" in said
    assert "[inbox] grace_seconds: expected greater than or equal to 0. Received: -1.0" in said
    assert daemon.get("/readyz")[0] == 200
    change(daemon, "grace_seconds = -1.0", "grace_seconds = 5.0")


def test_closing_the_terminal_ends_the_daemon(root: Path) -> None:
    """The kernel sends SIGHUP then, too; whoever closes the window of a `digitd run` means it to stop."""
    master, slave = os.openpty()
    log = root / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            ["setsid", "--ctty", sys.executable, "-m", "daemon", "run", "--config", str(root / "config.toml")],
            stdin=slave,
            stderr=file,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "DIGITD_HTTP__PORT": "0"},
        )
    os.close(slave)
    try:
        wait_until(lambda: "ready after" in log.read_text(), "the daemon to be ready")
        os.close(master)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
