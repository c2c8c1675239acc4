"""The index of a daemon that runs: what it is told, and what a crash or a deletion costs."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from daemon.index.queries import Wanted, find
from daemon.index.schema import NoIndex, get_state, open_to_read
from tests.conftest import Daemon, Digits, wait_until

PATIENT = 600.0  # seconds; what fills an index yields to everybody


def names(root: Path, whole: bool = False) -> list[str]:
    """What the index of a root holds, by name; nothing where there is none, or where it is to be whole and is not."""
    try:
        connection = open_to_read(root / "index.sqlite")
    except NoIndex:
        return []
    with closing(connection):
        if whole and get_state(connection)["since"] is not None:
            return []
        return sorted(row["name"] for row in find(connection, Wanted()))


def test_every_answer_is_in_the_index(root: Path, start_daemon: Callable[..., Daemon], digits: Digits) -> None:
    """Answers and rejections, each once: while it runs, after a kill, and after somebody deleted the index."""
    daemon = start_daemon().wait_ready()
    daemon.drop("a.png", digits.png(0))
    daemon.drop("batch7/b.png", digits.png(1))
    daemon.drop("c.txt", b"no image")
    daemon.result("a.png")
    wait_until(lambda: names(root) == ["a.png", "batch7/b.png", "c.txt"], "three rows")
    daemon.drop("d.png", digits.png(2))
    daemon.result("d.png")
    daemon.kill9()
    daemon.restart()
    expected = ["a.png", "batch7/b.png", "c.txt", "d.png"]
    wait_until(lambda: names(root, whole=True) == expected, "what the crash left out", PATIENT)
    (root / "index.sqlite").unlink()
    daemon.drop("e.png", digits.png(3))
    wait_until(lambda: names(root, whole=True) == [*expected, "e.png"], "all of it again", PATIENT)
    assert 1 == daemon.metric("digitd_index_up")
    assert 0 == daemon.terminate()
    assert not (root / "index.sqlite-wal").exists()
    assert [*expected, "e.png"] == names(root, whole=True)
