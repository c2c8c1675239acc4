"""SIGHUP: the configuration is read again while the daemon works."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.real import REPOSITORY, RealDaemon, wait_until


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealDaemon]:
    """One daemon for the tests of this module, each of which changes keys of its own."""
    with RealDaemon(tmp_path_factory.mktemp("reload")) as daemon:
        yield daemon


def change(daemon: RealDaemon, before: str, after: str) -> None:
    """Replace a line's beginning in config.toml, send SIGHUP, wait for the daemon to have read it."""
    config = daemon.root / "config.toml"
    text = config.read_text()
    assert before in text
    config.write_text(text.replace(before, after, 1))
    size = daemon.log.stat().st_size
    daemon.process.send_signal(signal.SIGHUP)

    def answered() -> bool:
        new = daemon.log.read_text()[size:]
        return "config.toml again" in new or "stays as it was" in new

    wait_until(answered, "an answer to SIGHUP")


def drop(daemon: RealDaemon, name: str, number: int) -> Path:
    """Save a test image into the inbox; return where its result will be."""
    with np.load(REPOSITORY / "datasets/mnist.npz") as data:
        Image.fromarray(data["x_test"][number]).save(daemon.root / "inbox" / name, "PNG")
    return daemon.root / "results" / f"{name}.json"


def test_what_can_change_live_does(daemon: RealDaemon) -> None:
    """With review_below = 1.0 the next answer is one to be reviewed; before, the same digit was accepted."""
    before = drop(daemon, "before.png", 0)
    wait_until(before.exists, "a result")
    assert '"decision":"accepted"' in before.read_text()
    change(daemon, "review_below = 0.6 ", "review_below = 1.0 ")
    after = drop(daemon, "after.png", 3)  # not of confidence 1.0 when rounded to float32
    wait_until(after.exists, "a result")
    assert '"decision":"review"' in after.read_text()
    assert daemon.said("inference.review_below is now 1.0; it was 0.6")


def test_names_that_are_no_longer_ignored_are_taken(daemon: RealDaemon) -> None:
    """A file that waited because of its name is answered without being touched."""
    result = drop(daemon, "scan.tmp", 1)
    other = drop(daemon, "other.png", 2)
    wait_until(other.exists, "a result")
    assert not result.exists()
    change(daemon, '"*.tmp", ', "")
    wait_until(result.exists, "a result")


def test_what_cannot_change_live_is_named(daemon: RealDaemon) -> None:
    """Another number of decoder processes is not taken up, and the log says what to do."""
    change(daemon, "workers = 2", "workers = 3")
    assert daemon.said("inbox.workers = 3 needs a restart; 2 stays in force")


def test_a_wrong_configuration_changes_nothing(daemon: RealDaemon) -> None:
    """The daemon says what is wrong with it, and goes on."""
    change(daemon, "grace_seconds = 5.0", "grace_seconds = -1.0")
    assert daemon.said("the configuration stays as it was:")
    assert daemon.said("[inbox] grace_seconds: expected greater than or equal to 0. Received: -1.0")
    assert daemon.is_ready()
    change(daemon, "grace_seconds = -1.0", "grace_seconds = 5.0")


def test_closing_the_terminal_ends_the_daemon(tmp_path: Path) -> None:
    """The kernel sends SIGHUP then, too; whoever closes the window of a `digitd run` means it to stop."""
    master, slave = os.openpty()
    with RealDaemon(tmp_path, terminal=slave) as daemon:
        os.close(slave)
        os.close(master)
        assert daemon.process.wait(30) == 0
    assert daemon.said("stopped")
