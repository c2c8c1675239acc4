"""retention.py: what leaves, when, where to, and that no kill loses or doubles any of it."""

import io
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from daemon.config import Settings
from daemon.index import archive, retention
from daemon.index.archive import Day
from daemon.index.due import STEADY_SECONDS, days
from daemon.index.filling import fill, start_anew
from daemon.index.queries import Wanted, as_dict, find
from daemon.index.retention import leave
from daemon.index.schema import open_to_read, open_to_write, put_state
from daemon.index.writer import Index
from daemon.telemetry.metrics import Metrics
from tests.conftest import files_below, leased
from tests.index.answers import DAY, NOON, answer, put, reject
from tests.index.conftest import bare_settings, has_gone_steadily

FULL = os.environ.get("FAULTS") == "full"
ALL_OLD = {"processed_days": 30, "results_days": 30, "rejected_days": 30}
LATER = NOON + 31 * DAY


def make(root: Path) -> None:
    """Answers and rejections of two days, and an index of them."""
    answer(root, "a.png", b"a", NOON)
    answer(root, "batch7/b.png", b"b" * 2000, NOON + 1)
    answer(root, os.fsdecode("größe.png".encode()), b"c", NOON + 2)
    reject(root, "d.txt", b"text", NOON + 3)
    answer(root, "e.png", b"e", NOON + DAY)
    settings = bare_settings(root)
    fill(settings.index, settings)
    has_gone_steadily(settings, LATER)


def archived(settings: Settings, day: str = "2025-11-25") -> dict[str, bytes]:
    """What a day's archive holds, as `tarfile` reads it; a name that is there twice is a failure."""
    assert settings.archive
    with tarfile.open(settings.archive / f"{day}.tar") as tar:
        members = tar.getmembers()
        found = {member.name: (tar.extractfile(member) or pytest.fail(member.name)).read() for member in members}
    assert len(members) == len(found)
    return found


def in_folders(settings: Settings) -> dict[str, bytes]:
    """What is in results/, processed/ and rejected/."""
    return {
        f"{key}/{name}": (settings.folder(key) / name).read_bytes()
        for key in ("processed", "results", "rejected")
        for name in files_below(settings.folder(key))
    }


def rows(settings: Settings) -> dict[str, dict[str, Any]]:
    """The index, by name."""
    with closing(open_to_read(settings.index)) as connection:
        return {row["name"]: as_dict(row, settings) for row in find(connection, Wanted())}


def test_by_default_nothing_leaves(tmp_path: Path) -> None:
    """0 days are for ever."""
    make(tmp_path)
    settings = bare_settings(tmp_path)
    before = in_folders(settings)
    assert 0 == leave(settings, NOON + 10_000 * DAY)
    assert before == in_folders(settings)
    assert not (tmp_path / "archive").exists()


def test_a_day_that_is_old_enough_is_in_its_archive(tmp_path: Path) -> None:
    """Originals and JSONs of that day are in one tar, beside each other; the folders hold what is younger."""
    make(tmp_path)
    settings = bare_settings(tmp_path, **ALL_OLD)
    before = in_folders(settings)
    assert 4 == leave(settings, LATER)
    left = {name: content for name, content in before.items() if "/e.png" not in name}
    assert left == archived(settings)
    assert {name: before[name] for name in ("processed/e.png", "results/e.png.json")} == in_folders(settings)
    names = list(archived(settings))
    assert names.index("processed/batch7/b.png") + 1 == names.index("results/batch7/b.png.json")
    assert not (tmp_path / "processed" / "batch7").exists()
    assert ["2025-11-25.tar"] == [path.name for path in archive.days(settings.archive)]


def test_tar_reads_it_and_puts_everything_back(tmp_path: Path) -> None:
    """`tar -xf` in the root restores the folders as they were."""
    make(tmp_path)
    settings = bare_settings(tmp_path, **ALL_OLD)
    before = in_folders(settings)
    leave(settings, LATER)
    subprocess.run(["tar", "-C", tmp_path, "-xf", tmp_path / "archive" / "2025-11-25.tar"], check=True)
    assert before == in_folders(settings)


def test_what_is_archived_is_still_found(tmp_path: Path) -> None:
    """The index says in which archive it is; a lost index is filled from the archives as well, to the same rows."""
    make(tmp_path)
    settings = bare_settings(tmp_path, **(ALL_OLD | {"results_days": 365}))
    leave(settings, LATER)
    found = rows(settings)
    assert "archive/2025-11-25.tar:processed/a.png" == found["a.png"]["original"]
    assert "results/a.png.json" == found["a.png"]["json"]
    assert "archive/2025-11-25.tar:rejected/d.txt.json" == found["d.txt"]["json"]
    assert "processed/e.png" == found["e.png"]["original"]
    settings.index.unlink()
    fill(settings.index, settings)
    assert found == rows(settings)


def test_originals_and_results_leave_at_their_own_time(tmp_path: Path) -> None:
    """What left first is in the archive with its JSON; the JSON in results/ is deleted when its own days are over."""
    make(tmp_path)
    settings = bare_settings(tmp_path, processed_days=30, results_days=60)
    leave(settings, LATER)
    assert {"processed/e.png", "results/a.png.json", "results/e.png.json"} <= in_folders(settings).keys()
    first = archived(settings)
    leave(settings, LATER + 30 * DAY)
    assert first == archived(settings)
    assert {"rejected/d.txt", "rejected/d.txt.json", "results/e.png.json"} == in_folders(settings).keys()


def test_without_an_archive_what_is_old_is_deleted(tmp_path: Path) -> None:
    """It is nowhere then, and the index does not name it."""
    make(tmp_path)
    settings = bare_settings(tmp_path, archive="", **ALL_OLD)
    leave(settings, LATER)
    assert {"processed/e.png", "results/e.png.json"} == in_folders(settings).keys()
    assert {"e.png"} == rows(settings).keys()


def test_a_full_disk_sends_the_oldest_days_first(tmp_path: Path) -> None:
    """As many whole days as are needed, and never today's."""
    for number in range(4):
        answer(tmp_path, f"{number}.png", bytes([number]), NOON + number * DAY)
    settings = bare_settings(tmp_path, keep_free_mb=100)
    fill(settings.index, settings)
    leave(settings, NOON + 3 * DAY, lambda: (101 if len(archive.days(settings.archive)) >= 2 else 99) << 20)
    assert {"2.png", "3.png"} == files_below(tmp_path / "processed")
    leave(settings, NOON + 3 * DAY, lambda: 0)
    assert {"3.png"} == files_below(tmp_path / "processed")


def test_what_was_answered_anew_stays(tmp_path: Path) -> None:
    """The files under an old answer's names are the new answer's: its JSON says so, also before the index does."""
    make(tmp_path)
    settings = bare_settings(tmp_path, **ALL_OLD)
    answer(tmp_path, "a.png", b"a", LATER - 10)
    leave(settings, LATER)
    assert {"processed/a.png", "results/a.png.json"} <= in_folders(settings).keys()
    assert "processed/a.png" not in archived(settings)


def test_what_somebody_took_away_is_no_fault(tmp_path: Path) -> None:
    """A JSON that was fetched from results/ does not keep its original there."""
    make(tmp_path)
    settings = bare_settings(tmp_path, **ALL_OLD)
    (tmp_path / "results" / "a.png.json").unlink()
    (tmp_path / "processed" / "batch7" / "b.png").unlink()
    leave(settings, LATER)
    assert {"processed/e.png", "results/e.png.json"} == in_folders(settings).keys()
    assert {"processed/a.png", "results/batch7/b.png.json"} <= archived(settings).keys()


def test_what_no_answer_owns_stays(tmp_path: Path) -> None:
    """A file that somebody put there is not the daemon's to delete."""
    make(tmp_path)
    put(tmp_path / "processed" / "mine.png", b"mine")
    settings = bare_settings(tmp_path, archive="", **ALL_OLD)
    leave(settings, LATER)
    assert "processed/mine.png" in in_folders(settings)


def test_nothing_is_deleted_through_a_link(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A sub-folder that was swapped for a link leads nowhere."""
    make(tmp_path)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for key in ("processed", "results"):
        shutil.move(tmp_path / key / "batch7", elsewhere / key)
        (tmp_path / key / "batch7").symlink_to(elsewhere / key)
    settings = bare_settings(tmp_path, archive="", **ALL_OLD)
    leave(settings, LATER)
    assert {"processed/b.png", "results/b.png.json"} == files_below(elsewhere)


def test_what_the_archive_holds_is_never_replaced(tmp_path: Path) -> None:
    """A file that is not the one in the archive under its name stays; the day's others leave."""
    make(tmp_path)
    settings = bare_settings(tmp_path, **ALL_OLD)
    before = in_folders(settings)
    leave(settings, LATER)
    answer(tmp_path, "a.png", b"another", NOON)
    settings.index.unlink()
    fill(settings.index, settings)
    leave(settings, LATER)
    assert b"another" == in_folders(settings)["processed/a.png"]
    assert before["processed/a.png"] == archived(settings)["processed/a.png"]


def test_a_fifo_that_was_rejected_leaves(tmp_path: Path) -> None:
    """It has no content to archive, and holds nobody up."""
    settings = bare_settings(tmp_path, **ALL_OLD)
    reject(tmp_path, "fifo", b"")
    (tmp_path / "rejected" / "fifo").unlink()
    os.mkfifo(tmp_path / "rejected" / "fifo")
    fill(settings.index, settings)
    leave(settings, LATER)
    assert set() == files_below(tmp_path / "rejected")
    assert {"rejected/fifo.json"} == archived(settings).keys()


def test_an_archive_that_cannot_be_written_loses_nothing(tmp_path: Path) -> None:
    """The fault is raised, and everything is where it was."""
    make(tmp_path)
    put(tmp_path / "archive", b"a file in its place")
    settings = bare_settings(tmp_path, **ALL_OLD)
    before = in_folders(settings)
    with pytest.raises(OSError, match="archive"):
        leave(settings, LATER)
    assert before == in_folders(settings)


def test_what_is_not_known_to_be_whole_waits(tmp_path: Path) -> None:
    """While the index is being filled nothing leaves."""
    make(tmp_path)
    settings = bare_settings(tmp_path, **ALL_OLD)
    with closing(open_to_write(settings.index, 0)) as connection:
        put_state(connection, since=0.0)
    assert 0 == leave(settings, LATER)


def test_days_are_looked_at_once(tmp_path: Path) -> None:
    """What has left is not gone through again, unless a filling found more."""
    make(tmp_path)
    settings = bare_settings(tmp_path, **ALL_OLD)
    leave(settings, LATER)
    statements: list[str] = []
    with closing(open_to_write(settings.index, 0)) as connection:
        connection.row_factory = None
        connection.set_trace_callback(statements.append)
        assert [] == list(days(settings, connection, LATER // DAY * DAY, lambda: 1 << 40))
    late = answer(tmp_path, "late.png", b"late", NOON + 9)
    index = Index(settings.index, Metrics())
    index.add([late])
    index.close()
    with closing(open_to_write(settings.index, 0)) as connection:
        put_state(connection, since=0.0)
    fill(settings.index, settings)
    leave(settings, LATER)
    assert "processed/late.png" in archived(settings)


def killed_at(step: int, settings: Settings) -> bool:
    """Run it in a process of its own that is killed at that line of what does it; whether it got so far."""
    child = os.fork()
    if child == 0:
        lines = 0

        def trace(frame: FrameType, event: str, _argument: object) -> Any:
            nonlocal lines
            if frame.f_code.co_filename not in (retention.__file__, archive.__file__):
                return None
            lines += event == "line"
            if lines == step:
                os._exit(9)
            return trace

        try:
            sys.settrace(trace)
            leave(settings, LATER)
            os._exit(0)
        finally:
            os._exit(1)  # a child of pytest never returns to it
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        if Path(folder).stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("needs another file system than that of temporary files")
        yield Path(folder)


@pytest.mark.parametrize("is_kept", [True, False], ids=["archived", "deleted"])
def test_a_kill_at_any_step_loses_and_doubles_nothing(tmp_path: Path, is_kept: bool, elsewhere: Path) -> None:
    """Whatever line it ends at: every file is in its folder or in a whole archive, and the next run ends the same.

    The archive is on another file system.
    """
    kept = str(elsewhere / "archive") if is_kept else ""
    make(tmp_path / "pattern")
    expected: dict[str, Any] = {}
    step, stride = 1, 1 if FULL else 23
    while True:
        root = tmp_path / str(step)
        shutil.copytree(tmp_path / "pattern", root)
        settings = bare_settings(root, archive=kept, **ALL_OLD)
        before = in_folders(settings)
        killed = killed_at(step, settings)
        if kept:
            found = archived(settings) if archive.days(settings.archive) else {}
            assert before == found | in_folders(settings)
        leave(settings, LATER)
        ended = {"rows": rows(settings), "folders": in_folders(settings), "archive": archived(settings) if kept else {}}
        assert (expected := expected or ended) == ended
        assert before == ended["archive"] | ended["folders"] or not kept
        if settings.archive:
            assert [] == list(settings.archive.glob(".*"))
            shutil.rmtree(settings.archive)
        shutil.rmtree(root)
        if not killed:
            break
        step += stride
    assert step > 100


def test_what_its_owner_holds_stays_and_stops_nothing(tmp_path: Path) -> None:
    """A lease on one original: all others leave."""
    make(tmp_path)
    settings = bare_settings(tmp_path, processed_days=1)
    with leased(tmp_path / "processed" / "a.png"):
        leave(settings, NOON + 10 * DAY)
    assert {"processed/a.png"} == {name for name in in_folders(settings) if name.startswith("processed/")}


def test_what_has_no_end_stays_and_fills_no_disk(tmp_path: Path) -> None:
    """A file of nothing but holes, rejected as too large: its copy would take what it does not."""
    make(tmp_path)
    settings = bare_settings(tmp_path, rejected_days=1)
    with (tmp_path / "rejected" / "d.txt").open("wb") as file:
        file.truncate(1 << 43)
    leave(settings, NOON + 10 * DAY)
    assert {"rejected/d.txt.json"} == archived(settings).keys()
    assert (tmp_path / "rejected" / "d.txt").stat().st_size == 1 << 43


def test_what_others_keep_beside_the_archives_is_left_alone(tmp_path: Path) -> None:
    """[retention] archive may be a folder of backups: only what a kill left of ours is removed, only ours are read."""
    make(tmp_path)
    settings = bare_settings(tmp_path, processed_days=1)
    for name in (".own.tar", "photos.tar", ".2025-11-25.123.tar"):
        put(tmp_path / "archive" / name, b"no tar")
    leave(settings, NOON + 10 * DAY)
    assert {".own.tar", "photos.tar", "2025-11-25.tar", "2025-11-26.tar"} == set(os.listdir(tmp_path / "archive"))
    start_anew(settings.index)
    fill(settings.index, settings)
    assert 5 == len(rows(settings))


def test_what_is_answered_anew_while_it_is_compared_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result of the same bytes, dropped again at that moment, is not taken for the old one."""
    make(tmp_path)
    settings = bare_settings(tmp_path, results_days=1)
    real = Day.read

    def read(day: Day, name: str) -> Iterator[bytes]:
        yield from real(day, name)
        if name == "results/a.png.json":
            answer(tmp_path, "a.png", b"a", NOON + 9 * DAY)

    monkeypatch.setattr(Day, "read", read)
    leave(settings, NOON + 10 * DAY)
    assert {"results/a.png.json"} == {name for name in in_folders(settings) if name.startswith("results/")}


def test_what_somebody_keeps_keeps_nothing_else(bare: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """An original that may not be deleted stays, and is named; all others leave, of that day and of later ones."""
    make(bare.root)
    kept = bare.root / "processed" / "a.png"
    if subprocess.run(["chattr", "+i", kept], check=False, capture_output=True).returncode:
        pytest.skip("needs root, and a file system with immutable files")
    try:
        leave(bare_settings(bare.root, **ALL_OLD), LATER + DAY)
    finally:
        subprocess.run(["chattr", "-i", kept], check=True)
    assert {"processed/a.png": b"a"} == in_folders(bare)
    assert "processed/a.png: Operation not permitted; it stays" in caplog.text


def test_a_folder_in_the_place_of_an_original_keeps_nothing_else(bare: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """Somebody took `a` out of processed/, and then came `a/b.png`: what is in that folder is not of that day."""
    answer(bare.root, "a", b"a", NOON)
    answer(bare.root, "z.png", b"z", NOON + 1)
    fill(bare.index, bare)
    (bare.root / "processed" / "a").unlink()
    answer(bare.root, "a/b.png", b"b", NOON + 30 * DAY)
    has_gone_steadily(bare, LATER)
    leave(bare_settings(bare.root, processed_days=30, archive=""), LATER)
    assert {"processed/a/b.png"} == {name for name in in_folders(bare) if name.startswith("processed/")}
    assert "processed/a: Is a directory; it stays" in caplog.text


@pytest.mark.parametrize("damage", [lambda tar: flip(tar, 2 * 2560 + 10), lambda tar: tar.write_bytes(b"")])
def test_a_damaged_archive_is_named_and_stays_and_stops_nothing(
    tmp_path: Path, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    """What is behind the damage was overwritten, where tarfile says that nothing is; other days leave."""
    make(tmp_path)
    settings = bare_settings(tmp_path, **ALL_OLD)
    leave(settings, LATER)
    tar = tmp_path / "archive" / "2025-11-25.tar"
    damage(tar)
    damaged = tar.read_bytes()
    answer(tmp_path, "late.png", b"late", NOON + 9)
    start_anew(settings.index)
    fill(settings.index, settings)
    leave(settings, LATER + DAY)
    assert damaged == tar.read_bytes()
    assert {"processed/late.png", "results/late.png.json"} == in_folders(settings).keys()
    assert {"late.png", "e.png"} == rows(settings).keys()
    assert f"{tar}: expected a whole tar" in caplog.text


def test_a_damaged_archive_that_is_mended_takes_the_rest(tmp_path: Path) -> None:
    """What stayed in the folders for its sake leaves once a copy is in its place; until then its day is looked at once."""
    make(tmp_path)
    settings = bare_settings(tmp_path, **ALL_OLD)
    leave(settings, LATER)
    tar = tmp_path / "archive" / "2025-11-25.tar"
    whole = tar.read_bytes()
    late(tmp_path)
    tar.write_bytes(b"")
    assert 0 == leave(settings, LATER)
    with closing(open_to_write(settings.index, 0)) as connection:
        connection.row_factory = None
        assert [] == list(days(settings, connection, LATER // DAY * DAY, lambda: 1 << 40))
    tar.write_bytes(whole)
    assert 1 == leave(settings, LATER)
    assert "processed/late.png" in archived(settings)
    assert {} == {name: content for name, content in in_folders(settings).items() if "late" in name}


@pytest.mark.parametrize("disk", ["missing", "not mounted"])
def test_nothing_is_written_where_the_archives_disk_should_be(tmp_path: Path, disk: str) -> None:
    """It would fill the disk below; what is old waits for the other."""
    make(tmp_path)
    settings = bare_settings(tmp_path, **ALL_OLD)
    leave(settings, LATER)
    late(tmp_path)
    (tmp_path / "archive").rename(tmp_path / "elsewhere")
    if disk == "not mounted":
        (tmp_path / "archive").mkdir()
    with pytest.raises(OSError, match="Mount their disk"):
        leave(settings, LATER)
    assert "processed/late.png" in in_folders(settings)
    assert [] == archive.days(tmp_path / "archive")
    shutil.rmtree(tmp_path / "archive", ignore_errors=True)
    (tmp_path / "elsewhere").rename(tmp_path / "archive")
    assert 1 == leave(settings, LATER)


def test_whoever_takes_the_archives_away_stops_nothing(tmp_path: Path) -> None:
    """Their own folder may be emptied, as to another machine; another one in its place takes a file of any name."""
    make(tmp_path)
    settings = bare_settings(tmp_path, **ALL_OLD)
    for name in ("", "late.png", "later.png"):
        if name:
            late(tmp_path, name)
        assert leave(settings, LATER)
        leave(settings, LATER)
        for tar in archive.days(tmp_path / "archive"):
            tar.unlink()
    (tmp_path / "archive").rename(tmp_path / "elsewhere")
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "they are on tape").touch()
    late(tmp_path, "latest.png")
    assert 1 == leave(settings, LATER)


def test_the_folder_above_the_archive_is_not_made(tmp_path: Path) -> None:
    """It may be where a disk is to be mounted."""
    make(tmp_path)
    settings = bare_settings(tmp_path, archive=str(tmp_path / "disk" / "archive"), **ALL_OLD)
    before = in_folders(settings)
    with pytest.raises(FileNotFoundError):
        leave(settings, LATER)
    assert before == in_folders(settings)
    assert not (tmp_path / "disk").exists()


def test_a_clock_that_has_leapt_deletes_nothing(tmp_path: Path) -> None:
    """By one that is wrong all would be old; what is deleted for good waits until it has gone on for a while."""
    make(tmp_path)
    settings = bare_settings(tmp_path, archive="", **ALL_OLD)
    before = in_folders(settings)
    wrong = NOON + 1000 * DAY
    for now in (wrong, wrong + 100, NOON, wrong, wrong + STEADY_SECONDS - 1, wrong + 3 * DAY):
        assert 0 == leave(settings, now)
        assert before == in_folders(settings)
    leave(settings, wrong + 3 * DAY + STEADY_SECONDS)
    assert {} == in_folders(settings)


def test_what_took_the_name_of_an_original_is_as_old_as_it_is(bare: Settings) -> None:
    """The first one's JSON was old enough to be deleted, and somebody took its original away."""
    answer(bare.root, "a.png", b"first", NOON)
    answer(bare.root, "b.png", b"stays", NOON)
    fill(bare.index, bare)
    has_gone_steadily(bare, NOON + 2 * DAY)
    settings = bare_settings(bare.root, results_days=1, processed_days=30, archive="")
    assert 2 == leave(settings, NOON + 2 * DAY)
    late(bare.root, "a.png", b"second", NOON + 20 * DAY)
    has_gone_steadily(bare, LATER)
    leave(settings, LATER)
    assert {"processed/a.png": b"second"} == in_folders(settings)


def late(root: Path, name: str = "late.png", content: bytes = b"late", at: float = NOON + 9) -> None:
    """One more answer, of the first day unless given, of which the index knows."""
    settings = bare_settings(root, **ALL_OLD)
    record = answer(root, name, content, at)
    with closing(open_to_write(settings.index, 0)) as connection:
        put_state(connection, clean=1)
    index = Index(settings.index, Metrics())
    index.add([record])
    index.close()
    with closing(open_to_write(settings.index, 0)) as connection:
        put_state(connection, since=None)
        connection.execute("DELETE FROM state WHERE key LIKE 'left %'")  # as what is found by a filling


def flip(path: Path, at: int) -> None:
    """Turn a byte's bits."""
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)


def test_what_a_wrong_clock_let_leave_keeps_no_day(tmp_path: Path) -> None:
    """A day that is yet to come was noted as looked at: what is older leaves all the same, once the clock is right."""
    settings = bare_settings(tmp_path, **ALL_OLD)
    answer(tmp_path, "wrong.png", b"wrong", NOON + 1000 * DAY)
    fill(settings.index, settings)
    assert 1 == leave(settings, NOON + 1100 * DAY)
    index = Index(settings.index, Metrics())
    index.add([answer(tmp_path, "a.png", b"a", NOON)])
    index.close()
    with closing(open_to_write(settings.index, 0)) as connection:
        put_state(connection, since=None)
    assert 1 == leave(settings, LATER)


class Shrinking(io.FileIO):
    """A file of which somebody takes half away, between the look at its size and the reading."""

    def read(self, size: int | None = -1, /) -> bytes:
        os.truncate(self.name, 50)
        return super().read(size)


def test_a_file_that_shrinks_as_it_is_archived_holds_nothing_up(tmp_path: Path) -> None:
    """Who dropped it may have it open still; the archive is whole, and what is not the same stays in the folder."""
    put(tmp_path / "a.png", b"a" * 100)
    put(tmp_path / "b.png", b"b")
    path = tmp_path / "archive" / "2025-11-25.tar"
    files = [("processed/a.png", Shrinking(tmp_path / "a.png")), ("processed/b.png", (tmp_path / "b.png").open("rb"))]
    with Day(path) as day:
        assert 2 == archive.extend(path, day, files)  # type: ignore[arg-type]
    with Day(path) as day:
        assert [b"a" * 50 + bytes(50), b"b"] == [b"".join(day.read(name)) for name in day]


def test_where_nothing_more_may_be_written_what_is_old_leaves_all_the_same(tmp_path: Path) -> None:
    """As where a quota is used up, which SQLite does not tell from a fault of the disk: until something has left."""
    make(tmp_path)
    settings = bare_settings(tmp_path, **ALL_OLD, archive="")
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(sqlite3.OperationalError):
            leave(settings, LATER)  # to note what has left there is no room either
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {"processed/e.png", "results/e.png.json"} == set(in_folders(settings))
    assert 4 == leave(settings, LATER)
