"""A standalone cluster on loopback, killed in every part: nothing is lost, doubled or torn."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.cluster.conftest import PATIENT, Cluster, Stream, is_settled
from tests.conftest import Digits, files_below, make_root, wait_until

pytestmark = pytest.mark.timeout(7200)
FILES = int(os.environ.get("TEST_CLUSTER_FILES", "5000"))  # of each kill
PARTS = ["worker", "executor", "daemon", "decoder", "worker1", "master", "driver"]


class Room:
    """A stream on the cluster, and what was dropped so far."""

    def __init__(self, stream: Stream, cluster: Cluster, digits: Digits) -> None:
        self.stream, self.cluster, self.digits = stream, cluster, digits
        self.names: set[str] = set()

    def drop(self, count: int) -> None:
        """Drop so many more, and wait until some of them are answered."""
        before = self.answered()
        self.names |= set(self.stream.drop_digits(self.digits, len(self.names), count))

        def some_are_answered() -> bool:
            self.serve()
            return self.answered() > before + 50

        wait_until(some_are_answered, f"answers; the log:\n{self.stream.log[-3000:]}", PATIENT)

    def answered(self) -> int:
        return len(files_below(self.stream.root / "results"))

    def kill(self, part: str, choice: random.Random) -> None:
        """SIGKILL one process of this kind, and start again what nobody else does."""
        if part == "driver":
            self.stream.kill9()
            self.stream.restart()
        elif part in self.cluster.processes:
            self.cluster.processes[part].kill()
            self.cluster.processes[part].wait(60)
            self.cluster.start(part)
        else:
            pids = wait_until(lambda: self.cluster.pids(part), f"a {part}", PATIENT)
            with suppress(ProcessLookupError):
                os.kill(choice.choice(pids), signal.SIGKILL)

    def serve(self) -> None:
        """Start the stream again where it ended with 1, as systemd does."""
        if self.stream.process.poll() == 1:
            self.stream.restart()

    def settle(self) -> None:
        """Wait until all are retired."""

        def settled() -> bool:
            self.serve()
            return is_settled(self.stream.root, self.names)

        wait_until(settled, f"all to be retired; the log:\n{self.stream.log[-3000:]}", PATIENT)


@pytest.fixture(scope="module")
def room(cluster: Cluster, digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """A stream on the cluster that the tests share."""
    root = make_root(tmp_path_factory.mktemp("clustered"))
    stream = Stream(root, cluster.address, INBOX__RESCAN_SECONDS=1)
    try:
        yield Room(stream.wait_ready(), cluster, digits)
    finally:
        stream.close()


@pytest.mark.parametrize("part", PARTS)
def test_killed_while_busy_it_loses_nothing(room: Room, part: str) -> None:
    """Whichever part is killed, each file has one whole answer in the end."""
    room.drop(FILES)
    room.kill(part, random.Random(1))  # noqa: S311  # which one, not what nobody may guess
    room.settle()
    room.stream.check(room.names)


def test_a_master_that_forgot_it_does_not_keep_it_waiting(room: Room) -> None:
    """Whoever comes after the master was killed is answered, though the driver's executors are ended for good."""
    room.kill("master", random.Random(1))  # noqa: S311
    wait_until(lambda: not room.cluster.pids("executor"), "the executors to be ended", PATIENT)
    room.drop(100)
    room.settle()
    room.stream.check(room.names)


def test_ten_random_kills(room: Room) -> None:
    """Ten parts at random, one after another, over six times the files."""
    choice = random.Random(2)  # noqa: S311
    for _ in range(10):
        room.drop(FILES * 6 // 10)
        room.kill(choice.choice(PARTS), choice)
    room.settle()
    room.stream.check(room.names)


def test_without_its_checkpoint(room: Room) -> None:
    """Killed while busy, and all that Spark remembers deleted."""
    room.drop(FILES)
    room.stream.kill9()
    shutil.rmtree(room.stream.root / "checkpoint")
    room.stream.restart()
    room.settle()
    room.stream.check(room.names)
