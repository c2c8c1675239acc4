"""writer.py: what is appended, and what becomes of the index when the machine refuses."""

import math
import os
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from daemon.commands.index import print_index
from daemon.config import Settings
from daemon.index import writer
from daemon.index.filling import start_anew
from daemon.index.queries import Wanted, find, of_content
from daemon.index.schema import (
    ENDINGS,
    INSERT_LABEL,
    NoIndex,
    append,
    delete,
    get_state,
    open_to_read,
    open_to_write,
    put_state,
    storable,
)
from daemon.index.tending import Tending
from daemon.index.writer import BUSY_SECONDS, CLOSED_SECONDS, QUIET_SECONDS, SLACK_SECONDS, Index
from daemon.telemetry.metrics import Metrics
from daemon.training.seen import recall
from tests.index.answers import NOON, record


class Written:
    """An index, its metrics, and a clock that the test moves."""

    def __init__(self, path: Path, past: Callable[[], float | None] = lambda: math.inf) -> None:
        self.path, self.metrics, self.now = path, Metrics(), 100.0
        self.index = Index(path, self.metrics, past)

    def write(self, *records: object, after: float = 0.1) -> None:
        """Add records, and make a pass a little later."""
        self.index.add(list(records))  # type: ignore[arg-type]
        self.now += after
        self.index.run_once(self.now)

    def names(self) -> list[str]:
        """What is in it, oldest first."""
        with closing(open_to_read(self.path)) as connection:
            return [row["name"] for row in find(connection, Wanted(), newest_first=False)]

    def state(self) -> dict[str, object]:
        with closing(open_to_read(self.path)) as connection:
            return get_state(connection)

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Written]:
    """An index that holds nothing yet."""
    made = Written(tmp_path / "index.sqlite")
    yield made
    made.index.close()


def test_records_can_be_read_at_once(written: Written) -> None:
    """After one pass they are there, also for their digest, while the daemon keeps the file open."""
    written.write(record("a.png", b"a"), record("b.png", b"b", NOON + 1))
    assert ["a.png", "b.png"] == written.names()
    with closing(open_to_read(written.path)) as connection:
        assert ["b.png"] == [row["name"] for row in of_content(connection, record("", b"b").sha256 or b"")]


def test_who_reads_for_long_fills_no_disk(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is behind a reader cannot be overwritten: from some size on it waits for him; then the file is small again."""
    monkeypatch.setattr(writer, "MOST_WAL", 100_000)
    written.write(record("0.png"))
    wal = Path(f"{written.path}-wal")
    with closing(open_to_read(written.path)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT 1 FROM answers").fetchone()
        for number in range(1, 100):
            written.write(record(f"{number}.png", b"%d" % number, NOON + number))
        assert (0.0, True) == (written.metric("digitd_index_up"), wal.stat().st_size < 200_000)
    written.write(after=CLOSED_SECONDS)
    assert [f"{number}.png" for number in range(100)] == written.names()
    assert (1.0, True) == (written.metric("digitd_index_up"), wal.stat().st_size < 100_000)


def test_a_quiet_moment_settles(written: Written) -> None:
    """When nothing comes for a while, digests find what was appended."""
    written.write(record("a.png"))
    assert 0 == written.state()["settled"]
    written.write(after=QUIET_SECONDS)
    assert 1 == written.state()["settled"]
    with closing(open_to_read(written.path)) as connection:
        assert ["a.png"] == [row["name"] for row in of_content(connection, record("").sha256 or b"")]


def test_an_answer_that_gets_the_number_of_a_forgotten_one_is_found(written: Written) -> None:
    """Whatever was forgotten, digests find what was appended since."""
    written.write(record("a.png", b"a"), record("b.png", b"b"))
    written.write(after=QUIET_SECONDS)
    with closing(open_to_write(written.path, 1)) as connection:
        delete(connection, [1, 2])
    written.write(record("c.png", b"c"))
    for after in (0.1, QUIET_SECONDS):
        written.write(after=after)
        with closing(open_to_read(written.path)) as connection:
            assert ["c.png"] == [row["name"] for row in of_content(connection, record("", b"c").sha256 or b"")]
            assert [] == of_content(connection, record("", b"a").sha256 or b"")
    assert 1 == written.state()["settled"]


def test_many_records_settle_by_themselves(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    """What digests do not find is bounded, however long a burst is."""
    monkeypatch.setattr(writer, "UNSETTLED", 10)
    for number in range(25):
        written.write(record(f"{number}.png", bytes([number])))
    assert 15 <= int(str(written.state()["settled"]))


def test_an_answer_given_anew_replaces_the_old(written: Written) -> None:
    """Same name, same bytes, same folder: one row, the newest, in whichever order they came."""
    written.write(record("a.png", b"a"), record("a.png", b"other"), record("a.png", b"a", NOON + 2, digit=8))
    written.write(record("a.png", b"a", NOON + 1, digit=9))
    written.write(after=QUIET_SECONDS)
    with closing(open_to_read(written.path)) as connection:
        assert [(b"other", 7), (b"a", 8)] == [
            (b"a" if row["sha256"] == record("", b"a").sha256 else b"other", row["digit"])
            for row in find(connection, Wanted(), newest_first=False)
        ]


def test_names_that_are_not_utf8_are_kept(written: Written) -> None:
    """A name is bytes to the kernel, and comes back as it was."""
    name = os.fsdecode(b"a\xff.png")
    written.write(record("")._replace(name=storable(name)))
    assert [os.fsencode(name)] == written.names()


def test_labels_are_kept_and_moved(written: Written) -> None:
    """An image has one label: the last."""
    written.index.label((b"s" * 32, 7, "7/a.png", NOON))
    written.write()
    written.index.label((b"s" * 32, None, "none/a.png", NOON + 1))
    written.write()
    with closing(open_to_read(written.path)) as connection:
        assert [(None, "none/a.png")] == [tuple(row) for row in connection.execute("SELECT digit, file FROM labels")]


def test_a_closed_index_lacks_nothing_and_one_that_crashed_may(written: Written) -> None:
    """After a clean end nothing is looked for; after a crash, what is younger than its last answer, and a little more."""
    written.write(record("a.png"))
    with closing(open_to_write(written.path, 0)) as connection:
        connection.execute("DELETE FROM state WHERE key = 'since'")
        connection.execute("INSERT INTO state VALUES ('since', NULL)")
    written.index.close()
    again = Written(written.path)
    again.write(record("b.png", at=NOON + 1))
    assert (None, 0) == (again.state()["since"], again.state()["clean"])
    crashed = Written(written.path)  # the one before was never closed
    crashed.write(after=QUIET_SECONDS)
    assert NOON + 1 - SLACK_SECONDS == crashed.state()["since"]
    again.index.close()
    crashed.index.close()


def test_what_this_process_answers_is_not_looked_for(written: Written) -> None:
    """A crash is noted with the moment from which on nothing is missing, and by the clock of the file system."""
    written.write(record("a.png"))
    written.index.close()
    with closing(open_to_write(written.path, 0)) as connection:
        put_state(connection, since=None, clean=0)
    ahead = Written(written.path, past=lambda: time.time() + 500.0)
    ahead.write(after=QUIET_SECONDS)
    assert NOON + 500 - SLACK_SECONDS == pytest.approx(float(str(ahead.state()["since"])), abs=10)
    assert time.time() + 500 == pytest.approx(float(str(ahead.state()["until"])), abs=10)
    ahead.index.close()


def test_a_rebuilding_that_begins_as_a_daemon_starts_is_heeded(tmp_path: Path) -> None:
    """What it has emptied is not noted as whole."""
    path = tmp_path / "index.sqlite"
    before = Written(path)
    before.write(record("a.png", b"a"))
    before.index.close()
    with closing(open_to_write(path, 0)) as connection:
        put_state(connection, since=None)

    def past() -> float:
        start_anew(path)  # in the middle of what the daemon does first
        return time.time()

    now = Written(path, past)
    now.write(record("b.png", b"b", NOON + 1))
    assert now.state()["since"] == 0
    now.index.close()


def test_in_a_fresh_root_nothing_is_missing(written: Written) -> None:
    """Where nobody can have answered, nobody looks."""
    fresh = Written(written.path, past=lambda: None)
    fresh.write(after=QUIET_SECONDS)
    assert fresh.state()["since"] is None
    fresh.index.close()


def test_an_index_that_could_not_be_written_for_a_while_lacks_nothing(written: Written) -> None:
    """What could not be added waited, so that nobody need look for it."""
    written.write(record("a.png"))
    written.write(after=QUIET_SECONDS)
    with closing(open_to_write(written.path, 0)) as other:
        put_state(other, since=None)
        other.execute("BEGIN IMMEDIATE")
        for _ in range(2):
            written.write(record("b.png"), after=BUSY_SECONDS + 1)
        assert 0 == written.metric("digitd_index_up")
        other.execute("COMMIT")
    written.write(after=CLOSED_SECONDS + 1)
    assert 1 == written.metric("digitd_index_up")
    assert written.state()["since"] is None
    assert "b.png" in written.names()


def test_a_new_index_says_that_all_may_be_missing(written: Written) -> None:
    """Where there was none, the folders are to be looked through, even when nothing is dropped."""
    written.write(after=QUIET_SECONDS)
    assert 0.0 == written.state()["since"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"no database at all, but long enough to be looked at" * 100),
        lambda path: path.unlink(),
        lambda path: _execute(path, "PRAGMA user_version = 99"),
        lambda path: _execute(path, "DROP TABLE answers"),
    ],
    ids=["overwritten", "deleted", "of another version", "without its table"],
)
def test_a_damaged_index_is_made_anew(written: Written, damage: Callable[[Path], None]) -> None:
    """Whatever was done to the file: it is made anew, what waited is in it, and the rest is to be found in the folders."""
    written.write(record("before.png"))
    written.index.close()
    damage(written.path)
    written.write(record("after.png"))
    written.write(after=CLOSED_SECONDS + 1)
    assert ["after.png"] == written.names()
    assert 0.0 == written.state()["since"]
    assert 1 == written.metric("digitd_index_up")


def test_an_index_deleted_while_it_is_written_is_made_anew(written: Written) -> None:
    """No answer goes into a file that nobody can see any more."""
    written.write(record("before.png"))
    written.path.unlink()
    written.write(record("after.png"))
    assert ["after.png"] == written.names()


def test_a_locked_index_is_waited_for(written: Written) -> None:
    """While somebody else writes, records wait, nothing is a fault, and the pass takes no time."""
    written.write(record("a.png"))
    with closing(sqlite3.connect(written.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        written.write(record("b.png", at=NOON + 1))
        assert (1, 1) == (written.metric("digitd_index_pending_records"), written.metric("digitd_index_up"))
        written.write(after=61.0)
        assert 0 == written.metric("digitd_index_up")
        assert 1 == written.metric("digitd_index_errors_total", cause="SQLITE_BUSY")
    written.write(after=CLOSED_SECONDS + 1)
    assert ["a.png", "b.png"] == written.names()
    assert 1 == written.metric("digitd_index_up")


def test_who_may_only_read_cannot_do_worse_than_that(written: Written, caplog: pytest.LogCaptureFixture) -> None:
    """A reader's lock on what SQLite keeps beside the index holds every writer up: that is said, and how to find him."""
    written.write(record("a.png"))
    reader = (
        "import fcntl, sys; f = open(sys.argv[1], 'rb'); fcntl.lockf(f, fcntl.LOCK_SH, 1, 120); print(flush=True); input()"
    )
    command = [sys.executable, "-c", reader, f"{written.path}-shm"]  # 120: WAL_WRITE_LOCK of sqlite's wal.c
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert b"\n" == holder.stdout.readline()
        written.write(record("b.png", at=NOON + 1))
        written.write(after=61.0)
        holder.communicate(b"\n")
    assert 0 == written.metric("digitd_index_up")
    assert any("answers go on without it; `lslocks` names the process" in line for line in caplog.messages)
    written.write(after=CLOSED_SECONDS + 1)
    assert (1, ["a.png", "b.png"]) == (written.metric("digitd_index_up"), written.names())


def test_a_full_disk_costs_nothing_but_the_index(written: Written, caplog: pytest.LogCaptureFixture) -> None:
    """It is said once, with a metric; what waits is written when there is room again."""
    written.write(record("a.png"))
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16384, hard))  # no file can grow, nor be written beyond this
    try:
        for number in range(3):
            written.write(record(f"{number}.png", at=NOON + 1 + number), after=CLOSED_SECONDS + 1)
        assert (0, 3) == (written.metric("digitd_index_up"), written.metric("digitd_index_pending_records"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert 1 == sum("answers go on without it" in line for line in caplog.messages)
    written.write(after=CLOSED_SECONDS + 1)
    assert ["a.png", "0.png", "1.png", "2.png"] == written.names()


def test_what_waits_is_bounded(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond that, the index knows from when on it may lack something, and a filling that runs is void."""
    monkeypatch.setattr(writer, "PENDING", 2)
    written.write(record("a.png"))
    written.write(after=QUIET_SECONDS)
    with closing(open_to_write(written.path, 0)) as other:
        other.execute("UPDATE state SET value = NULL WHERE key = 'since'")
        generation = get_state(other)["generation"]
        other.execute("BEGIN IMMEDIATE")
        written.write(*(record(f"{number}.png", at=NOON + 10 + number) for number in range(3)))
        other.execute("COMMIT")
    written.write(record("z.png", at=NOON + 20))
    assert ["a.png", "z.png"] == written.names()
    assert NOON + 10 - SLACK_SECONDS == written.state()["since"]
    assert generation != written.state()["generation"]


READ = """
import sys
from pathlib import Path
from daemon.index.queries import Wanted, find
from daemon.index.schema import open_to_read
print([row["name"] for row in find(open_to_read(Path(sys.argv[1])), Wanted())])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")
@pytest.mark.parametrize("state", ["open", "closed", "crashed"])
def test_a_member_of_the_group_reads_while_the_daemon_writes(state: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """With read permission alone: the daemon's file is readable while it is open, after it was closed, and after a crash."""
    folder = Path("/tmp") / tmp_path_factory.mktemp("shared").name  # noqa: S108 -- one that others can enter
    folder.mkdir(mode=0o750)
    try:
        os.chown(folder, 61234, 61235)
        umask = os.umask(0o027)
        made = Written(folder / "index.sqlite")
        made.write(record("a.png"))
        if state == "closed":
            made.index.close()
        elif state == "crashed":
            left = {path: path.read_bytes() for path in folder.iterdir()}
            made.index.close()
            for path, content in left.items():
                path.write_bytes(content)
                path.chmod(0o640)
        for path in folder.iterdir():
            os.chown(path, 61234, 61235)
        read = subprocess.run(
            ["setpriv", "--reuid=61236", "--regid=61235", "--clear-groups", sys.executable, "-c", READ, made.path],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parent.parent.parent,
        )
        made.index.close()
        assert ("['a.png']", 0) == (read.stdout.strip(), read.returncode), read.stderr
    finally:
        os.umask(umask)
        subprocess.run(["rm", "-rf", folder], check=True)


def _execute(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_an_index_that_root_makes_is_its_folders_owners(tmp_path: Path) -> None:
    """After a `sudo digitd index --rebuild` the service can write it."""
    os.chown(tmp_path, 12345, 23456)
    with closing(open_to_write(tmp_path / "index.sqlite", 0)):
        owners = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in tmp_path.iterdir()}
    assert {f"index.sqlite{ending}": (12345, 23456) for ending in ENDINGS} == owners


def test_an_answer_from_the_future_hides_nothing_that_is_missing(tmp_path: Path) -> None:
    """After a crash what is older than an answer by a clock that was ahead, and newer than all others, is looked for."""
    now = time.time()
    with closing(open_to_write(tmp_path / "index.sqlite", 0)) as connection:
        put_state(connection, since=None, clean=0)
        append(connection, [record("a.png", at=now - 7200), record("b.png", at=now + 1e9)])
    again = Written(tmp_path / "index.sqlite")
    again.write(record("c.png", at=now))
    assert now - 7200 - SLACK_SECONDS == pytest.approx(float(str(again.state()["since"])))
    again.index.close()


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM state WHERE key = 'since'",
        "UPDATE state SET value = 'long ago' WHERE key = 'since'",
        "UPDATE state SET key = CAST(x'f2' AS TEXT) WHERE key = 'clean'",
        "DELETE FROM state WHERE key = 'settled'",
    ],
)
def test_what_sqlite_takes_for_whole_may_be_damaged(tmp_path: Path, damage: str) -> None:
    """It is made anew, like what SQLite itself finds damaged: the daemon ended over it, at each start again."""
    path = tmp_path / "index.sqlite"
    with closing(open_to_write(path, 0)) as connection:
        connection.execute(damage)
    again = Written(path)
    again.write(record("a.png"))
    again.write(after=QUIET_SECONDS)
    again.write(record("b.png"), after=CLOSED_SECONDS)
    assert (1.0, "b.png") == (again.metric("digitd_index_up"), again.names()[-1])
    again.index.close()


@pytest.mark.parametrize("damage", ["key = CAST(x'f2' AS TEXT)", "key = 'when'"])
def test_who_asks_a_damaged_index_is_told(bare: Settings, damage: str) -> None:
    """In words, and the daemon's own threads go on."""
    with closing(open_to_write(bare.index, 0)) as connection:
        append(connection, [record("a.png")])
        connection.execute(INSERT_LABEL, (b"x" * 32, 77, "7/a.png", NOON))
        connection.execute(f"UPDATE state SET {damage} WHERE key = 'since'")  # noqa: S608 -- constants
    assert {} == recall(bare.index, NOON + 1)
    tending = Tending(bare, Metrics(), lambda: True)
    tending.run_once(0.0)
    tending.close()
    with pytest.raises(NoIndex, match="expected a whole index"):
        print_index(bare)
