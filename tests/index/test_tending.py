"""tending.py: when the child is started, and what it does."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from daemon.config import Settings
from daemon.index.filling import fill
from daemon.index.schema import get_state, open_to_read
from daemon.index.tending import FAILED_SECONDS, LEAVE_SECONDS, LOOK_SECONDS, PATIENCE_SECONDS, Tending, tend
from daemon.index.writer import Index
from daemon.telemetry.metrics import Metrics
from tests.conftest import files_below, wait_until
from tests.faults.harness import mounted, needs_root
from tests.index.answers import DAY, NOON, answer
from tests.index.conftest import bare_settings, has_gone_steadily

PATIENT = 600.0  # seconds; a child that yields to everybody may wait long on a busy machine


class Tended:
    """A root whose index is tended, by a clock that the test moves."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.metrics, self.quiet = settings, Metrics(), True
        self.tending = Tending(settings, self.metrics, lambda: self.quiet)
        self.now = 1000.0

    def begins(self, after: float) -> bool:
        """Make a pass so much later; whether it starts a child, which is killed then."""
        self.now += after
        self.tending.run_once(self.now)
        child, self.tending._child = self.tending._child, None
        if child:
            child.kill()
            child.wait()
        return child is not None

    def ended(self, after: float) -> str:
        """Make a pass so much later, and others until the child that it starts has ended: "done" or "failed"."""
        self.now += after
        self.tending.run_once(self.now)
        assert self.tending._child
        wait_until(lambda: self.tending._child.poll() is not None, "the child's end", PATIENT)
        self.tending.run_once(self.now)
        value = self.metrics.registry.get_sample_value
        return next(end for end in ("done", "failed") if value("digitd_index_tasks_total", {"result": end}))


@pytest.fixture
def tended(tmp_path: Path) -> Iterator[Callable[..., Tended]]:
    """Tends the index of a root that holds an old answer; whole, as a daemon leaves it, unless it is to be filled."""
    started: list[Tended] = []

    def begin(whole: bool = True, **retention: object) -> Tended:
        settings = bare_settings(tmp_path, **retention)
        answer(tmp_path, "a.png", b"a", NOON)
        index = Index(settings.index, Metrics())
        index.run_once(100.0)
        index.close()
        if whole:
            assert 0 == tend(settings, NOON)
        started.append(Tended(settings))
        return started[-1]

    yield begin
    for one in started:
        one.tending.close()


def test_what_is_missing_is_filled_by_a_child(tended: Callable[..., Tended]) -> None:
    """Once the index is whole, none is started any more."""
    one = tended(whole=False)
    assert "done" == one.ended(0)
    with closing(open_to_read(one.settings.index)) as connection:
        assert get_state(connection)["since"] is None
        assert 1 == connection.execute("SELECT count(*) FROM answers").fetchone()[0]
    assert not one.begins(LOOK_SECONDS)


def test_a_child_that_failed_is_followed_later(tended: Callable[..., Tended], caplog: pytest.LogCaptureFixture) -> None:
    """Its failure is counted and logged, and costs nothing else."""
    one = tended(processed_days=30)
    (one.settings.root / "archive").write_bytes(b"a file in its place")
    assert "failed" == one.ended(0)
    assert "another one follows" in caplog.text
    assert {"a.png"} == files_below(one.settings.root / "processed")
    assert not one.begins(LOOK_SECONDS)
    assert one.begins(FAILED_SECONDS)


def test_what_is_old_leaves_in_a_quiet_moment(tended: Callable[..., Tended]) -> None:
    """Once an hour, while no image waits; after six hours more among other work."""
    one = tended(processed_days=30)
    assert one.begins(0)
    assert not one.begins(LOOK_SECONDS)
    one.quiet = False
    assert not one.begins(LEAVE_SECONDS)
    one.quiet = True
    assert one.begins(LOOK_SECONDS)
    one.quiet = False
    assert one.begins(LEAVE_SECONDS + PATIENCE_SECONDS)


def test_a_start_among_other_work_waits_for_a_quiet_moment(tended: Callable[..., Tended]) -> None:
    """However long the machine has been up."""
    one = tended(processed_days=30)
    one.quiet = False
    up = 30 * DAY
    assert not one.begins(up)
    assert one.begins(up + PATIENCE_SECONDS)


def test_a_filling_disk_does_not_wait_for_a_quiet_moment(tended: Callable[..., Tended]) -> None:
    """With less free than asked for, what is oldest leaves at once."""
    one = tended(keep_free_mb=2**31 - 1)
    one.quiet = False
    assert one.begins(0)


def test_new_settings_are_looked_at_at_once(tended: Callable[..., Tended], tmp_path: Path) -> None:
    """What a reload asks to leave does not wait for the hour."""
    one = tended()
    assert not one.begins(0)
    one.tending.apply(bare_settings(tmp_path, processed_days=30))
    assert one.begins(LOOK_SECONDS)


def test_what_was_not_read_again_is_not_in_force(tended: Callable[..., Tended]) -> None:
    """A configuration that is being edited deletes nothing before SIGHUP has had it read, and checked."""
    one = tended(results_days=1, archive="")
    has_gone_steadily(one.settings, time.time())
    bare_settings(one.settings.root, processed_days=1, results_days=1, archive="")
    assert "done" == one.ended(0)
    assert ({"a.png"}, set()) == tuple(files_below(one.settings.folder(name)) for name in ("processed", "results"))


@needs_root
@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_disk_that_is_full_to_the_last_byte_is_emptied(tmp_path: Path, elsewhere: bool) -> None:
    """Also where nobody has the index open, whose shared memory there is no room for: to delete, or to another disk."""
    with mounted("tmpfs", "size=2m") as disk:
        for number in range(20):
            answer(disk, f"{number}.png", bytes(20_000), NOON + number)
        (tmp_path / "archive").mkdir()
        archive = str(tmp_path / "archive") if elsewhere else ""
        settings = bare_settings(disk, archive=archive, keep_free_mb=1)
        fill(settings.index, settings)
        with suppress(OSError), (disk / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))
        assert 0 == tend(settings, NOON + DAY)
        assert set() == files_below(disk / "processed") | files_below(disk / "results")
        assert elsewhere == any((tmp_path / "archive").iterdir())


def test_one_child_fills_and_moves_out(tmp_path: Path) -> None:
    """What a filling has found leaves at once where it is old enough."""
    settings = bare_settings(tmp_path, processed_days=30, results_days=30)
    answer(tmp_path, "a.png", b"a", NOON)
    assert 0 == tend(settings, NOON + 40 * DAY)
    assert {"2025-11-25.tar"} == files_below(tmp_path / "archive")
    assert set() == files_below(tmp_path / "processed") | files_below(tmp_path / "results")
