"""The stream without Spark: sweeps, and the walk of a task."""

import errno
import gc
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from daemon.cluster.claims import Claims
from daemon.cluster.pin import Pin
from daemon.cluster.sweep import WARM_SECONDS, Sweep, Task
from daemon.cluster.walk import Stuck, Walker
from daemon.config import load_settings
from daemon.models.registry import Registry, RegistryError
from daemon.models.version import ModelIdentity
from daemon.systemd import CLOSED
from daemon.telemetry.metrics import Metrics
from daemon.telemetry.readiness import Readiness
from daemon.telemetry.tally import Summed
from tests.conftest import LONG_AGO, REPOSITORY, Digits, as_ordinary_user, files_below, make_root

V0001 = Registry(REPOSITORY / "models").version("v0001").identity


class Room:
    """A root whose sweeps and tasks are called by hand."""

    def __init__(self, root: Path, **overrides: object) -> None:
        environment = {f"DIGITD_{key}": str(value) for key, value in overrides.items()}
        self.root, self.settings = root, load_settings(root / "config.toml", environment)
        for name in ("inbox", "work", "results", "processed", "rejected"):
            (root / name).mkdir(exist_ok=True)
        for name in ("results", "rejected"):
            (root / name / ".tmp").mkdir(exist_ok=True)
        self.number, self.now = 1, 0.0
        self.anew()

    def anew(self) -> None:
        """Begin as a driver does that has just started; it warms its workers first."""
        self._sweep = Sweep(self.settings, slots=2)
        assert [Task(f".stream/b1-{slot}") for slot in range(2)] == self._sweep.next(1, self.now)

    def put(self, name: str, content: bytes = b"x") -> Path:
        """Drop a file by rename; it was changed long ago."""
        staged = self.root / "staged"
        staged.write_bytes(content)
        os.utime(staged, (LONG_AGO, LONG_AGO))
        (self.root / "inbox" / name).parent.mkdir(parents=True, exist_ok=True)
        return staged.rename(self.root / "inbox" / name)

    def next(self, seconds: float = 0.1) -> list[Task]:
        """The next batch, so many seconds after the last."""
        self.now += seconds
        self.number += 1
        return self._sweep.next(self.number, self.now)

    def names(self, folder: str) -> set[str]:
        return files_below(self.root / folder)


@pytest.fixture
def room(root: Path) -> Room:
    """A root with small tasks."""
    return Room(root, STREAM__TASK_FILES=300, INBOX__RESCAN_SECONDS=5)


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Room, Walker]]:
    """A root and its worker, for one load of the model; each test drops names of its own."""
    before = signal.getsignal(signal.SIGIO)
    room = Room(make_root(tmp_path_factory.mktemp("walked")), INBOX__GRACE_SECONDS=600)
    walker = Walker(room.settings)
    yield room, walker
    walker.close()
    gc.unfreeze()
    signal.signal(signal.SIGIO, before)


def test_drops_are_shared_out(room: Room) -> None:
    """Few are one task; many are as many as there are slots; more, tasks of the largest size; each has its own folder."""
    for number in range(100):
        room.put(f"{number}.png")
    assert [("b2-0", 100)] == [(Path(task.folder).name, len(task.names)) for task in room.next()]
    for number in range(800):
        room.put(f"b/{number}.png")
    tasks = room.next()
    assert ["b3-0", "b3-1", "b3-2"] == [Path(task.folder).name for task in tasks]
    assert 800 == len({name for task in tasks for name in task.names})


def test_a_batch_has_its_limit(root: Path) -> None:
    """What is over it waits for the next batch."""
    room = Room(root, STREAM__BATCH_FILES=3)
    for number in range(5):
        room.put(f"{number}.png")
    (task,) = room.next()
    assert 3 == len(task.names)
    for name in task.names:
        (root / "inbox" / name).unlink()
    assert 2 == len(room.next()[0].names)


def test_a_name_dropped_again_is_a_drop(room: Room) -> None:
    """Its inode is another; what is still the same file could not be taken, and is held for a while."""
    room.put("a.png")
    assert ("a.png",) == room.next()[0].names
    assert [] == room.next()
    assert [] == room.next(4.8)
    assert ("a.png",) == room.next(0.2)[0].names
    assert [] == room.next()
    room.put("a.png", b"another")
    assert ("a.png",) == room.next()[0].names


def test_many_files_that_cannot_be_taken_hold_up_no_others(root: Path) -> None:
    """However many batches it takes to try them all, at 1 ms each, the first are not tried again before the last."""
    room = Room(root, STREAM__BATCH_FILES=10, INBOX__RESCAN_SECONDS=0.02)
    names = {f"{number}.png" for number in range(100)}
    for name in names:
        room.put(name)
    tried: set[str] = set()
    for _ in range(50):
        tried |= {name for task in room.next(seconds=0.01) for name in task.names}
    assert names == tried


@pytest.mark.parametrize("mode", [0o755, 0o1777])
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a folder of another user's")
def test_a_folder_that_files_cannot_be_taken_from_is_opened(open_path: Path, mode: int) -> None:
    """It may be listed, so that only the tasks' claims meet what keeps them out: the driver asks in their place."""
    root = make_root(open_path / "root")
    bell = root / CLOSED
    bell.touch()
    room = Room(root)
    room.put("batch/a.png").parent.chmod(mode)
    for path in (root, root / "inbox", bell):
        os.chown(path, 65534, 65534)
    os.utime(bell, (LONG_AGO, LONG_AGO))
    with as_ordinary_user():
        assert [("batch/a.png",)] == [task.names for task in room.next()]
        assert LONG_AGO == bell.stat().st_mtime
        assert [] == room.next()
        assert LONG_AGO != bell.stat().st_mtime


def test_leftovers_come_first_and_alone(room: Room) -> None:
    """What dead drivers and a daemon left is a batch of its own, before anything new."""
    for name in ("work/.stream/b7-0/a.png", "work/.stream/b8-1/b/c.png", "work/d.png"):
        (room.root / name).parent.mkdir(parents=True, exist_ok=True)
        (room.root / name).touch()
    room.put("new.png")
    assert [Task(".stream/b7-0"), Task(".stream/b8-1"), Task("")] == room.next()
    assert [("new.png",)] == [task.names for task in room.next()]
    assert [] == room.next()
    assert [Task(".stream/b7-0"), Task(".stream/b8-1")] == room.next(5)


def test_a_batch_done_again_is_what_it_left(room: Room) -> None:
    """Its tasks' folders, and no other's; and no new batch gets a number that left some."""
    for name in ("b7-0", "b7-12", "b17-0", "x"):
        (room.root / "work/.stream" / name).mkdir(parents=True)
    sweep = Sweep(room.settings, slots=2)
    assert {Task(".stream/b7-0"), Task(".stream/b7-12")} == set(sweep.left_of(7))
    assert 17 == sweep.highest()


def test_workers_are_kept_warm(room: Room) -> None:
    """A batch of tasks without files comes now and then, one a slot."""
    assert [] == room.next()
    assert [(), ()] == [task.names for task in room.next(WARM_SECONDS)]
    assert [] == room.next()


def test_sweeps_rest(room: Room) -> None:
    """One that found nothing and took long is not made again at once."""
    room._sweep.rest(room.now, room.now + 0.1)
    room.put("a.png")
    assert [] == room.next(1.9)
    assert [] != room.next(0.2)


def test_spark_waits_for_a_drop(room: Room) -> None:
    """It is told of one that comes while it asks; where a stop is asked for, that there is nothing to do."""
    pytest.importorskip("pyspark")
    from pyspark.sql.streaming.datasource import ReadAllAvailable

    from daemon.cluster.source import STOP, Reader

    reader, limit = Reader(room.settings.model_dump_json(), str(room.settings.file), 2), ReadAllAvailable()
    warm = reader.latestOffset(reader.initialOffset(), limit)
    stop = room.root / "work" / ".stream" / STOP
    stop.parent.mkdir()
    stop.touch()
    room.put("a.png")
    assert warm == reader.latestOffset(warm, limit)
    (room.root / "inbox" / "a.png").unlink()
    stop.unlink()
    with ThreadPoolExecutor(1) as asking:
        asked = asking.submit(reader.latestOffset, warm, limit)
        room.put("b.png")
        assert {**warm, "batch": warm["batch"] + 1} == asked.result()
    (part,) = reader.partitions(warm, asked.result())
    assert ("b.png",) == part.task.names


def test_a_task_answers_as_the_daemon_does(walked: tuple[Room, Walker], digits: Digits) -> None:
    """What it claims is answered, retired, counted; what cannot be read is rejected; its folder is gone."""
    room, walker = walked
    room.put("a.png", digits.png(0))
    room.put("b/c.png", digits.png(1))
    room.put("d.png", b"no image")
    (room.root / "inbox" / "link.png").symlink_to("/etc/passwd")
    (task,) = room.next()
    counts = walker.walk(task, V0001)
    assert {"a.png.json", "b/c.png.json"} <= room.names("results")
    assert {"a.png", "b/c.png"} <= room.names("processed")
    assert {"d.png", "d.png.json", "link.png.json"} == room.names("rejected")
    assert set() == room.names("inbox") | room.names("work")
    assert [] == list((room.root / "work/.stream").iterdir())
    assert 2 == counts["digitd_images", "digitd_images_total", (("outcome", "rejected"),)]
    assert 1 == counts["digitd_predictions", "digitd_predictions_total", (("digit", str(digits.labels[0])),)]


def test_a_retry_finds_its_claims(walked: tuple[Room, Walker], digits: Digits) -> None:
    """What an attempt before claimed is answered, though its names are no more in the inbox."""
    room, walker = walked
    for number in range(3):
        room.put(f"{number}.png", digits.png(number))
    (task,) = room.next()
    claims = room.root / "work" / task.folder
    claims.mkdir(parents=True)
    for name in ("0.png", "1.png"):
        (room.root / "inbox" / name).rename(claims / name)
    walker.walk(task, V0001)
    assert {"0.png.json", "1.png.json", "2.png.json"} <= room.names("results")
    assert not claims.exists()


def test_a_file_that_is_being_written_goes_back(walked: tuple[Room, Walker]) -> None:
    """One that changed a moment ago and cannot be read is left to its writer."""
    room, walker = walked
    os.utime(room.put("half.png", b"half"))
    walker.walk(room.next()[0], V0001)
    assert {"half.png"} == room.names("inbox")
    assert [] == room.next()
    (room.root / "inbox" / "half.png").unlink()


def test_what_a_daemon_left_is_answered(walked: tuple[Room, Walker], digits: Digits) -> None:
    """In work/ itself, under the names that it was dropped with; lock and presence stay."""
    room, walker = walked
    (room.root / "work/left").mkdir()
    (room.root / "work/left/a.png").write_bytes(digits.png(0))
    (room.root / "work/.lock").touch()
    walker.walk(Task(""), V0001)
    assert {"left/a.png.json"} <= room.names("results")
    assert {".lock", ".stream"} == {path.name for path in (room.root / "work").iterdir()}


def test_a_batch_is_pinned_to_what_is_current(root: Path) -> None:
    """What current.h5 names, unless it was neither made nor vetted here; of a version that is gone since, that, too."""
    registry = Registry(root / "models")
    pin = Pin(root / "models")
    assert V0001 == pin.follow()
    for ending in (".h5", ".json"):
        shutil.copy(root / "models" / f"v0001{ending}", root / "models" / f"v0002{ending}")
    registry.make_current("v0002", "test")
    assert ModelIdentity("v0002", V0001.sha256) == pin.follow()
    manifest = json.loads((root / "models/v0001.json").read_bytes()) | {"created_at": "2026-11-23T08:00:00.000000Z"}
    (root / "models/v0003.json").write_text(json.dumps(manifest))
    shutil.copy(root / "models/v0001.h5", root / "models/v0003.h5")
    registry.make_current("v0003", "test")
    assert "v0002" == pin.follow().version
    assert V0001 == pin.usable(V0001)
    assert "v0002" == pin.usable(ModelIdentity("v0009", "0" * 64)).version


def test_a_survey_is_of_so_many_names_at_most(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who drop can make more than there is memory and time for, and systemd waits for who surveys."""
    pytest.importorskip("pyspark")
    from daemon.cluster import watching

    monkeypatch.setattr(watching, "MOST_LISTED", 3)
    for number in range(10):
        room.put(f"{number}.png")
    (room.root / "work/.stream").mkdir(exist_ok=True)
    metrics = Metrics()
    watching.Watching(room.settings, metrics, Summed(metrics.registry), Readiness(metrics)).survey(0.0)
    assert 3 == metrics.registry.get_sample_value("digitd_backlog_images", {"folder": "inbox"})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_survey_passes_over_what_is_mounted_in_the_inbox(room: Room) -> None:
    """No task enters it: its files were a backlog for ever, and where its server had gone systemd ended who waited."""
    pytest.importorskip("pyspark")
    from daemon.cluster import watching

    room.put("a.png")
    (room.root / "work/.stream").mkdir(exist_ok=True)
    mounted = room.root / "inbox" / "mounted"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", mounted], check=True)
    try:
        (mounted / "b.png").touch()
        metrics = Metrics()
        watching.Watching(room.settings, metrics, Summed(metrics.registry), Readiness(metrics)).survey(0.0)
        assert 1 == metrics.registry.get_sample_value("digitd_backlog_images", {"folder": "inbox"})
    finally:
        subprocess.run(["umount", "-l", mounted], check=True)


def test_only_the_pinned_model_answers(walked: tuple[Room, Walker]) -> None:
    """A version of other bytes than the batch was pinned to is refused before it is opened."""
    with pytest.raises(RegistryError, match="pinned to"):
        walked[1].walk(Task(""), ModelIdentity("v0001", "0" * 64))


def test_a_task_that_comes_no_further_says_why(
    walked: tuple[Room, Walker], digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives up after a while, keeps its claims, and the next attempt does them."""
    room, walker = walked
    room.put("stuck.png", digits.png(0))
    (task,) = room.next()
    monkeypatch.setattr("daemon.cluster.walk.PATIENCE_SECONDS", -room.settings.inbox.decode_seconds)
    results = (room.root / "results").rename(room.root / "aside")
    (room.root / "results").touch()
    with pytest.raises(Stuck, match=f"results: .*{os.strerror(errno.ENOTDIR)}"):
        walker.walk(task, V0001)
    assert {"stuck.png"} == files_below(room.root / "work" / task.folder)
    (room.root / "results").unlink()
    results.rename(room.root / "results")
    monkeypatch.undo()
    walker.walk(task, V0001)
    assert {"stuck.png.json"} <= room.names("results")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a folder of another user's")
def test_a_folder_that_was_claimed_for_a_file_is_given_back_by_the_next_attempt(tmp_path: Path) -> None:
    """Where the task was killed before it could be; what is in it is found in the inbox."""
    theirs = tmp_path / "work" / "sub"
    theirs.mkdir(parents=True)
    (theirs / "bobs.png").touch()
    os.chown(theirs, 4321, 4321)
    (tmp_path / "inbox").mkdir()
    with closing(Claims(tmp_path / "inbox", tmp_path / "work", (), Metrics(), set())) as claims:
        assert [] == claims.take(10)
    assert {"sub/bobs.png"} == files_below(tmp_path / "inbox")
