"""Who may only read the index may lock it, for that is how POSIX locks are: nobody's answer waits for him."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from daemon.index.queries import Wanted, find
from daemon.index.schema import open_to_read
from tests.faults.harness import FULL, Daemon, Drops, Nursery, check_all_done, until

pytestmark = [
    pytest.mark.skipif(not FULL, reason="in the full run: the index is tried again after a while only"),
    pytest.mark.timeout(300),
]
HOLDER = """
import fcntl, sys
files = [open(path, "rb") for path in sys.argv[1:]]
for file in files:
    fcntl.lockf(file, fcntl.LOCK_SH)
print(flush=True)
input()
"""


@contextmanager
def all_locked(root: Path) -> Iterator[None]:
    """Another process holds all that a reader can hold of the index and of what SQLite keeps beside it."""
    paths = [root / f"index.sqlite{ending}" for ending in ("", "-wal", "-shm")]
    command = [sys.executable, "-c", HOLDER, *map(str, paths)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert b"\n" == holder.stdout.readline()
        yield
        holder.communicate(b"\n")


def rows(root: Path) -> int:
    """How many answers the index has."""
    with closing(open_to_read(root / "index.sqlite")) as connection:
        return len(list(find(connection, Wanted())))


def test_a_locked_index_keeps_no_answer_from_anybody(nursery: Nursery, root: Path) -> None:
    """Answering, retiring, stopping, being killed and starting go on; when the lock is gone the index gets all."""
    drops = Drops(root / "inbox")
    with Daemon(nursery, root) as daemon:
        drops.drop_mixture()
        daemon.settle()
        until(lambda: rows(root) == drops.count, what="all in the index")
        with all_locked(root):
            drops.drop_mixture()
            daemon.settle()
            assert daemon.get("/readyz")[0] == 200
            assert daemon.stop() == 0
            daemon.start()
            drops.drop_mixture()
            daemon.settle()
            daemon.kill()
            daemon.start()
            drops.drop_mixture()
            daemon.settle()
            check_all_done(root, drops, killed=True)
        until(lambda: rows(root) == drops.count, 200.0, "all in the index again")
