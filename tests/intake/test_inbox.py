"""inbox.py: what is there is found, what is whole is claimed, and nothing is claimed twice."""

import errno
import fcntl
import os
import queue
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from watchdog.observers.inotify import InotifyEmitter, InotifyWatchGroup
from watchdog.observers.inotify_c import InotifyFD

from daemon.config import InboxSettings
from daemon.folders import Folder
from daemon.intake import complaints, inbox, sweeping, waiting, watch
from daemon.intake.claiming import paths_below
from daemon.intake.inbox import Inbox
from daemon.intake.sweeping import AS_A_FOLDER, Sweeps
from daemon.intake.watch import WakingEmitter, WakingWatch, Watch
from daemon.telemetry.metrics import Metrics
from tests.conftest import REPOSITORY, files_below, leased, peak_of, wait_until

HOUR = 3600.0


class Room:
    """An inbox with its folders, driven by hand. A look every hour, so that what is found is found by events."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.inbox, self.work = folder / "inbox", folder / "work"
        self.inbox.mkdir(exist_ok=True)
        self.work.mkdir(exist_ok=True)
        self.metrics = Metrics()
        self.woken: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.taker = Inbox(
            self.inbox,
            self.work,
            InboxSettings(**{"rescan_seconds": HOUR} | settings),
            self.metrics,
            wake=lambda: self.woken.put(None),
        )

    def put(self, name: str, content: bytes = b"x") -> Path:
        """Drop a file by rename."""
        path = self.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = self.inbox.parent / "staged"
        staged.write_bytes(content)
        return staged.rename(path)

    def take(self, limit: int = 1000) -> set[str]:
        """The names of what can be claimed now, whatever events have come."""
        self.taker.look()
        return {drop.name for drop in self.taker.take(limit)}

    def metric(self, name: str, **labels: str) -> float:
        """One of its metrics."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def enter(tmp_path: Path) -> Iterator[Callable[..., Room]]:
    """Makes rooms, and closes their inboxes."""
    rooms: list[Room] = []

    def make(**settings: Any) -> Room:
        rooms.append(Room(tmp_path, **settings))
        return rooms[-1]

    yield make
    for room in rooms:
        room.taker.close()


@pytest.fixture
def room(enter: Callable[..., Room]) -> Room:
    """An inbox with the default settings."""
    return enter()


def test_what_was_there_before_the_start_is_claimed(tmp_path: Path, enter: Callable[..., Room]) -> None:
    """No event is needed for a backlog."""
    (tmp_path / "inbox" / "b").mkdir(parents=True)
    for name in ("a.png", "b/a.png"):
        (tmp_path / "inbox" / name).touch()
    room = enter()
    assert {"a.png", "b/a.png"} == {drop.name for drop in room.taker.take(10)}
    assert {"a.png", "b/a.png"} == files_below(room.work)
    assert set() == files_below(room.inbox)


def test_what_a_crash_left_in_work_comes_first(tmp_path: Path, enter: Callable[..., Room]) -> None:
    """Claimed files are given again, those of sub-folders too; the daemon's own two files are none of them."""
    (tmp_path / "work" / "b").mkdir(parents=True)
    for name in (".lock", ".daemon.json", "a.png", "b/a.png"):
        (tmp_path / "work" / name).touch()
    room = enter()
    room.put("new.png")
    assert {"a.png", "b/a.png"} == {drop.name for drop in room.taker.take(2)}
    assert {"new.png"} == room.take()
    assert {".lock", ".daemon.json", "a.png", "b/a.png", "new.png"} == {
        str(path.relative_to(room.work)) for path in room.work.rglob("*") if path.is_file()
    }


def test_a_drop_knows_when_it_was_dropped(room: Room) -> None:
    """That is when its name appeared, not when its content was last changed."""
    path = room.put("a.png")
    os.utime(path, (1, 1))
    expected = path.stat().st_ctime
    room.taker.look()
    assert [expected] == [drop.received for drop in room.taker.take(1)]


def test_no_more_than_the_limit_is_claimed(room: Room) -> None:
    """The rest stays in the inbox, for the next call."""
    for number in range(10):
        room.put(f"{number}.png")
    assert len(room.take(4)) == 4
    assert len(files_below(room.inbox)) == 6
    assert len(room.take(100)) == 6


def test_more_names_than_are_listed_at_once_are_taken(enter: Callable[..., Room], monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who drop can make more than memory holds; and what cannot be taken yet keeps no other waiting."""
    for module in (waiting, sweeping):
        monkeypatch.setattr(module, "MOST_LISTED", 3)
    room = enter(rescan_seconds=0.1)
    names = {f"{folder}/{number}.png" for folder in ("a", "b") for number in range(5)}
    with ExitStack() as writers:
        for name in sorted(names):
            writers.enter_context(room.put(name).open("ab"))
        names.add(room.put("c.png").name)
        taken: set[str] = set()
        wait_until(lambda: taken.update(drop.name for drop in room.taker.take(1)) or taken, "what nobody writes")
        assert {"c.png"} == taken
        assert room.taker.waiting() <= 3
    wait_until(lambda: taken.update(drop.name for drop in room.taker.take(1)) or taken == names, "all of them")


def test_folders_that_are_not_watched_take_no_memory(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of however many somebody makes in one: their names alone were 385 MB, of 300,000."""
    monkeypatch.setattr(watch, "MOST_WATCHED", 5)
    for number in range(5000):
        (room.inbox / f"{number:0200}").mkdir()

    def look_again() -> None:
        room.taker._watch.stop()
        room.taker._watch.renew((0, 0))
        (emitter,) = room.taker._watch._observer.emitters
        wait_until(lambda: len(emitter._inotify._active_callbacks_by_watch) == 5, "the first of them")

    assert 400_000 > peak_of(look_again)


def test_many_folders_are_looked_into_bit_by_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass is over in a second or two whatever those who drop have made, and the next one goes on from there."""
    monkeypatch.setattr(sweeping, "MOST_LISTED", 3 * AS_A_FOLDER)
    for number in range(10):
        (tmp_path / f"{number}").mkdir()
    looked_into, open_folder = [], Folder.open_folder
    monkeypatch.setattr(Folder, "open_folder", lambda *args: looked_into.append(args[1]) or open_folder(*args))
    with Folder(tmp_path) as folder:
        sweeps = Sweeps(lambda place: paths_below(folder, place), set)
        while sweeps.due_in(0.0) == 0.0:
            before = len(looked_into)
            sweeps.list(set(), HOUR)
            assert len(looked_into) <= before + 3
    assert ["", *map(str, range(10))] == sorted(looked_into)


def test_many_folders_are_looked_into_though_none_can_be_watched(
    enter: Callable[..., Room], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep goes on from where it was: nobody knows of more to be looked for than before."""
    monkeypatch.setattr(sweeping, "MOST_LISTED", 3 * AS_A_FOLDER)

    def refuse(_self: Watch) -> None:
        raise OSError(errno.EMFILE, "inotify instance limit reached")

    monkeypatch.setattr(Watch, "_start", refuse)
    room = enter()
    names = {room.put(f"{number}/a.png").relative_to(room.inbox).as_posix() for number in range(10)}
    found = set()
    for _ in range(100):
        found |= {drop.name for drop in room.taker.take(100)}
    assert names == found


def test_a_call_comes_back_however_fast_events_come(enter: Callable[..., Room], monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who drop make names that are ignored, again and again: what is dropped beside them is taken, and handed on."""
    room = enter()
    room.put("a.png")
    looks = []

    def walk(*arguments: Any) -> Iterator[str]:
        looks.append(room.taker.look())  # another event comes while this one is looked into
        assert len(looks) < 100
        return paths_below(*arguments)

    monkeypatch.setattr(inbox, "paths_below", walk)
    assert {"a.png"} == room.take(10)


def test_names_that_cannot_be_claimed_are_tried_bit_by_bit(
    enter: Callable[..., Room], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a folder that keeps the daemon out there may be 250,000: calls come back, and what is dropped then is taken."""
    monkeypatch.setattr(inbox, "MOST_TRIED", 3)
    monkeypatch.setattr(waiting, "MOST_DUE", 3)
    room = enter()
    for number in range(10):
        (room.work / f"{number}.png" / "kept").mkdir(parents=True)
        (room.work / f"{number}.png" / "kept" / "a").touch()
        room.put(f"{number}.png")
    room.put("a.png")
    assert (set(), 9) == (room.take(), room.taker.waiting())
    assert 0 == room.taker.due_in()
    wait_until(lambda: {"a.png"} == room.take(), "what can be claimed")
    monkeypatch.setattr(waiting, "PAUSE_EACH", 0.0)
    room.taker.apply(InboxSettings(rescan_seconds=0.001))
    room.put("b.png")
    for _ in range(3):
        room.take()
        assert room.taker.waiting() < 3  # of all ten that are due again
    assert {"a.png", "b.png"} == {path.name for path in room.work.iterdir() if path.is_file()}


def test_what_an_event_names_is_taken_without_a_listing(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """ext4 never makes a folder smaller: listing one that 100,000 files have passed takes half a millisecond."""
    (room.inbox / "sub").mkdir()
    room.take()
    monkeypatch.setattr(inbox, "paths_below", lambda *_: pytest.fail("the inbox was listed"))
    for name in ("a.png", "sub/b.png"):
        room.put(name)
        taken: list[str] = []
        wait_until(lambda taken=taken: taken.extend(drop.name for drop in room.taker.take(10)) or taken, "the event")
        assert [name] == taken


def test_what_an_event_names_comes_before_what_cannot_be_claimed(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger may have made 120,000 such names: those who drop beside him are answered while they are tried."""
    monkeypatch.setattr(inbox, "MOST_TRIED", 3)
    for number in range(10):
        (room.work / f"{number}.png" / "kept").mkdir(parents=True)
        (room.work / f"{number}.png" / "kept" / "a").touch()
        room.put(f"{number}.png")
    assert (set(), 8) == (room.take(), room.taker.waiting())
    room.put("a.png")
    room.put("b.png")
    room.taker.look("", "a.png")
    room.taker.look("", "b.png")
    assert ["a.png", "b.png"] == [drop.name for drop in room.taker.take(10)]


def test_names_that_cannot_be_claimed_do_not_fill_the_log(
    room: Room, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of many a few are named, and it is said where the others are counted; when they have gone, the next ones are named."""
    monkeypatch.setattr(complaints, "MOST_LOGGED", 3)
    complaint = complaints.Complaints(room.metrics, lambda _now: False)
    for number in range(5):
        complaint.kept_out(f"shut/{number}.png", PermissionError(errno.EACCES, "Permission denied"), "cannot be moved: {}")
    assert [
        "shut/0.png: cannot be moved: Permission denied",
        "shut/1.png: cannot be moved: Permission denied",
        "shut/2.png: cannot be moved: Permission denied",
        "3 names could not be taken; more are only counted, as immovable in /metrics",
    ] == caplog.messages
    assert 5 == room.metric("digitd_intake_errors_total", cause="immovable")
    complaint.forget(complaint.names)
    complaint.make("a.png", "cannot be moved")
    assert "a.png: cannot be moved" == caplog.messages[-1]


def test_what_an_event_names_is_ignored_like_what_is_listed(enter: Callable[..., Room]) -> None:
    """Whichever component of its path the pattern is about; and the daemon's own names."""
    room = enter(ignore=[".*", "*.part"])
    for name in (".hidden", ".sub/a.png", "sub/a.part", "sub.part/a.png", "sub/a.png"):
        room.put(name)
        room.taker.look(*os.path.split(name))
    assert {"sub/a.png"} == {drop.name for drop in room.taker.take(10)}


def test_more_names_than_are_told_one_by_one_are_found(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their folders are listed then."""
    monkeypatch.setattr(inbox, "MOST_TOLD", 3)
    room.take()
    names = {f"{folder}{number}.png" for folder in ("", "sub/") for number in range(5)}
    for name in sorted(names):
        room.put(name)
        room.taker.look(*os.path.split(name))
    assert names == {drop.name for drop in room.taker.take(100)}


def test_a_name_that_was_dropped_anew_while_it_was_in_work_is_found_without_a_listing(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event of the second one came before the first had left."""
    room.put("a.png", b"first")
    assert {"a.png"} == room.take()
    monkeypatch.setattr(inbox, "paths_below", lambda *_: pytest.fail("the inbox was listed"))
    room.put("a.png", b"second")
    room.taker.look("", "a.png")
    assert [] == room.taker.take(10)
    assert b"first" == (room.work / "a.png").read_bytes()
    (room.work / "a.png").unlink()
    room.taker.release("a.png")
    assert ["a.png"] == [drop.name for drop in room.taker.take(10)]


def test_empty_folders_leave_work_bit_by_bit(enter: Callable[..., Room], monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be as many as there were in the inbox."""
    monkeypatch.setattr(inbox, "MOST_TIDIED", 3)
    room = enter()
    for number in range(10):
        (room.work / f"sub/{number}").mkdir(parents=True)
    room.take()
    assert 8 == len(os.listdir(room.work / "sub"))
    wait_until(lambda: room.take() or not (room.work / "sub").exists(), "all to be gone")


def test_more_places_than_are_listed_at_once_are_found(enter: Callable[..., Room], monkeypatch: pytest.MonkeyPatch) -> None:
    """What an event is about is remembered of so many only; of more, everything is looked through."""
    monkeypatch.setattr(inbox, "MOST_CHANGED", 3)
    room = enter()
    names = {room.put(f"{number}/a.png").relative_to(room.inbox).as_posix() for number in range(10)}
    taken: set[str] = set()
    wait_until(lambda: taken.update(drop.name for drop in room.taker.take(1)) or taken == names, "all of them")


@pytest.mark.parametrize(
    "name", [".a.png", "a.part", "a.png.crdownload", "a.tmp", "a.png~", ".hidden/a.png", "a.part/b.png"]
)
def test_ignored_names_are_left_alone(room: Room, name: str) -> None:
    """Hidden and temporary names, and what is below such folders, stay in the inbox."""
    path = room.put(name)
    assert set() == room.take()
    assert path.exists()


def test_a_file_is_claimed_when_it_loses_its_temporary_name(room: Room) -> None:
    """As browsers and rsync do."""
    path = room.put("a.png.part")
    assert set() == room.take()
    path.rename(path.with_suffix(""))
    assert {"a.png"} == room.take()


def test_nothing_is_ignored_when_nothing_is_to_be(enter: Callable[..., Room]) -> None:
    """An empty list ignores nothing."""
    room = enter(ignore=[])
    room.put(".a.png")
    assert {".a.png"} == room.take()


def test_a_file_that_is_being_written_waits(room: Room) -> None:
    """While a writer has it open it stays in the inbox; once closed, it is claimed."""
    with (room.inbox / "a.png").open("wb") as writer:
        writer.write(b"half")
        writer.flush()
        assert set() == room.take()
        assert {"a.png"} == files_below(room.inbox)
    wait_until(lambda: "a.png" in room.take(), "the file to be claimed")


def test_a_file_on_which_somebody_has_a_lease_waits(room: Room) -> None:
    """Such as Samba, for whom has it open; it is asked to give it up, and the file is claimed once it has."""
    with leased(room.put("a.png")) as held:
        assert set() == room.take()
        fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        assert {"a.png"} == files_below(room.inbox)
    room.taker.look("/")
    wait_until(room.take, "the file to be claimed")


def test_a_writer_is_not_killed_by_our_look(room: Room) -> None:
    """Opening a file for writing while it is being claimed works, and costs this process no signal."""
    room.put("a.png")
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            with (room.inbox / "b.png").open("ab") as file:
                file.write(b"x")

    writer = threading.Thread(target=write)
    writer.start()
    for number in range(200):
        room.put(f"{number}.png")
        names = room.take()
        for name in names:
            room.taker.release(name)
        for name in names:
            (room.work / name).unlink()
    stop.set()
    writer.join()


@pytest.mark.parametrize("kind", ["fifo", "symlink", "dangling", "socket", "hard link"])
def test_what_is_no_regular_file_is_claimed_too(room: Room, tmp_path: Path, kind: str) -> None:
    """It is taken without being opened for good, so that it can be rejected with a reason."""
    path, other = room.inbox / "a.png", tmp_path / "other"
    other.write_bytes(b"x")
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "symlink":
            path.symlink_to(other)
        case "dangling":
            path.symlink_to(tmp_path / "none")
        case "socket":
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(str(path))
        case "hard link":
            os.link(other, path)
    assert {"a.png"} == room.take()
    assert other.read_bytes() == b"x"


def test_a_name_in_work_is_not_claimed_again(room: Room) -> None:
    """A second drop of a name waits until the first has left work/, and then does not wait for the next look."""
    room.put("a.png", b"first")
    assert {"a.png"} == room.take()
    room.put("a.png", b"second")
    assert set() == room.take()
    assert (room.work / "a.png").read_bytes() == b"first"
    (room.work / "a.png").unlink()
    room.taker.release("a.png")
    assert {"a.png"} == {drop.name for drop in room.taker.take(10)}
    assert (room.work / "a.png").read_bytes() == b"second"


def test_a_file_is_put_back_for_a_while(room: Room) -> None:
    """It is in the inbox again, and is claimed again a little later without an event."""
    room.put("a.png")
    room.taker.look()
    (drop,) = room.taker.take(1)
    assert room.taker.put_back(drop)
    assert ({"a.png"}, set()) == (files_below(room.inbox), files_below(room.work))
    assert set() == room.take()
    assert room.taker.due_in() < 60
    wait_until(lambda: room.taker.take(1), "the file to be claimed again")


def test_putting_back_replaces_nothing(room: Room) -> None:
    """Where the name was dropped anew, the claimed file stays claimed."""
    room.put("a.png", b"first")
    room.taker.look()
    (drop,) = room.taker.take(1)
    room.put("a.png", b"second")
    assert not room.taker.put_back(drop)
    assert (room.inbox / "a.png").read_bytes() == b"second"
    assert (room.work / "a.png").read_bytes() == b"first"


@pytest.mark.parametrize("how", ["write", "rename", "link", "sub-folder"])
def test_an_event_wakes(room: Room, tmp_path: Path, how: str) -> None:
    """However a file arrives, the pipeline is woken at once, not at the next look in an hour."""
    room.take()
    source = tmp_path / "source"
    source.write_bytes(b"x")
    name = "a.png"
    match how:
        case "write":
            (room.inbox / name).write_bytes(b"x")
        case "rename":
            source.rename(room.inbox / name)
        case "link":
            os.link(source, room.inbox / name)
        case "sub-folder":
            name = "deep/er/a.png"
            (room.inbox / name).parent.mkdir(parents=True)
            (room.inbox / name).write_bytes(b"x")
    room.woken.get(timeout=60)
    wait_until(lambda: name in {drop.name for drop in room.taker.take(10)}, "the file to be claimed")


def test_a_sub_folder_is_watched_as_well(room: Room) -> None:
    """The second file of a new sub-folder wakes like the first."""
    for name in ("deep/a.png", "deep/b.png"):
        room.put(name)
        wait_until(lambda name=name: name in {drop.name for drop in room.taker.take(10)}, name)


def test_a_folder_that_is_renamed_again_and_again_is_watched(room: Room, recwarn: pytest.WarningsRecorder) -> None:
    """Nothing is said of it, and nothing is kept of the names that it had."""
    folder = room.inbox / "0"
    folder.mkdir()
    room.take()
    for number in range(1, 50):
        folder = folder.rename(room.inbox / str(number))
    room.put("49/a.png")
    wait_until(lambda: room.taker.take(10), "the file in it to be claimed")
    assert (2, []) == (len(watch_of(room)._active_callbacks_by_path), list(recwarn))


def test_a_folder_that_was_moved_away_is_watched_no_longer(room: Room, tmp_path: Path) -> None:
    """Nor what is below it: whoever moves folders out could use up all watches. Another one of its name is watched."""
    room.take()
    (room.inbox / "a" / "deep").mkdir(parents=True)
    wait_until(lambda: 3 == len(watch_of(room)._active_callbacks_by_watch), "them to be watched")
    (room.inbox / "a").rename(tmp_path / "elsewhere")
    (room.inbox / "a").mkdir()
    wait_until(lambda: watches(room.inbox / "a") == 1, "the other one to be watched")
    wait_until(lambda: not any(map(watches, (tmp_path / "elsewhere", tmp_path / "elsewhere/deep"))), "them to be forgotten")
    wait_until(lambda: 2 == len(watch_of(room)._active_callbacks_by_watch), "nothing else to be kept of them")
    (room.inbox / "a").rmdir()
    (tmp_path / "elsewhere" / "deep").rmdir()
    room.put("b.png")
    wait_until(lambda: room.taker.take(10), "events to come")


def watch_of(room: Room) -> WakingWatch:
    """What watches its inbox."""
    observer = room.taker._watch._observer
    assert observer is not None
    (emitter,) = observer.emitters
    assert isinstance(emitter, WakingEmitter)
    assert isinstance(emitter._inotify, WakingWatch)
    return emitter._inotify


def test_our_own_claims_do_not_wake(room: Room) -> None:
    """Twenty drops wake twenty times: taking a file out of the inbox is no reason to look at it."""
    room.taker.take(1)
    for number in range(20):
        room.taker.due_in()
        room.put(f"{number}.png")
        room.woken.get(timeout=60)
        wait_until(lambda: room.taker.take(1), "the file to be claimed")
    assert room.woken.empty()


def test_who_is_busy_is_woken_once(room: Room) -> None:
    """Not by each of 10,000 events while more is claimed than can be answered; and again when it waits."""
    room.take()
    for _ in range(3):
        room.taker.look("", "a.png")
        room.taker.take(0)
    assert 1 == room.woken.qsize()
    assert 0.0 == room.taker.due_in()
    room.taker.take(10)
    assert 0.0 < room.taker.due_in()
    room.taker.look("", "a.png")
    assert 2 == room.woken.qsize()


def test_an_inbox_that_was_replaced_is_watched_again(room: Room) -> None:
    """Renamed away and made anew: the next look sees it, and from then on events come again."""
    room.take()
    room.inbox.rename(room.inbox.with_name("old"))
    room.inbox.mkdir()
    (room.inbox / "a.png").write_bytes(b"x")
    assert {"a.png"} == room.take()
    (room.inbox / "b.png").write_bytes(b"x")
    wait_until(lambda: {drop.name for drop in room.taker.take(10)} == {"b.png"}, "the new folder's events")


def test_a_missing_inbox_stays_a_fault_until_it_is_back(room: Room) -> None:
    """Every call says so; none pretends that there is nothing to take."""
    room.take()
    room.inbox.rmdir()
    room.taker.look()
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            room.taker.take(10)
    room.inbox.mkdir()
    room.put("a.png")
    assert {"a.png"} == {drop.name for drop in room.taker.take(10)}


STALE = """
import os, sys
from pathlib import Path
from daemon.config import InboxSettings
from daemon.intake.inbox import Inbox
from daemon.telemetry.metrics import Metrics
folder = Path(sys.argv[1])
inbox = Inbox(folder / "inbox", folder / "work", InboxSettings(rescan_seconds=3600), Metrics(), lambda: None)
drops = inbox.take(2)
os.rename(folder / "inbox/batch", folder / "stale")
print([drop.name for drop in drops])
for step in (lambda: inbox.put_back(drops[1]), *[lambda: [drop.name for drop in inbox.take(10)]] * 3):
    try:
        print(step())
    except OSError as error:
        print(error.strerror)
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_a_folder_that_another_host_has_removed_closes_the_intake_for_nobody(room: Room) -> None:
    """Over NFS what is held open of it is stale then: all that is asked of it fails, until it is opened anew."""
    for name in ("batch/a.png", "batch/b.png", "batch/c.png", "z.png"):
        room.put(name)
    calls = "openat,newfstatat,renameat,renameat2"
    stale = ["strace", "-f", "-qq", "-o", os.devnull, "-P", room.inbox.parent / "stale", "-e", f"trace={calls}"]
    stale += ["-e", f"inject={calls}:error=ESTALE"]
    command = [*stale, sys.executable, "-P", "-c", STALE, room.inbox.parent]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=False
    )
    said = ["['batch/a.png', 'batch/b.png']", "Stale file handle", "['z.png']", "[]", "[]"]
    assert said == done.stdout.splitlines(), done.stdout + done.stderr


REMOUNTED = """
import os, sys, time
from pathlib import Path
from daemon.config import InboxSettings
from daemon.intake.inbox import Inbox
from daemon.telemetry.metrics import Metrics
folder = Path(sys.argv[1])
inbox = Inbox(folder / "inbox", folder / "work", InboxSettings(rescan_seconds=0.001), Metrics(), lambda: None)
drops = inbox.take(2)
os.rename(folder / "inbox", folder / "stale")
os.mkdir(folder / "inbox")
os.rename(folder / "kept.png", folder / "inbox/kept.png")
steps = [lambda: inbox.put_back(drops[1])] * 2 if sys.argv[2] == "give" else []
for step in steps + [lambda: [drop.name for drop in inbox.take(10)]] * 3:
    try:
        print(step())
    except OSError as error:
        print(error.strerror)
    time.sleep(0.1)
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("take", ["Transport endpoint is not connected", "['kept.png']", "[]"]),
        ("give", ["Transport endpoint is not connected", "True", "['kept.png']", "[]", "[]"]),
    ],
)
def test_an_inbox_that_was_mounted_anew_is_opened_anew(room: Room, what: str, said: list[str]) -> None:
    """Of a FUSE whose server had gone, what is held open is dead: each try at it failed, though it was long there again."""
    for name in ("a.png", "b.png", "c.png"):
        room.put(name)
    room.put("kept.png").rename(room.inbox.parent / "kept.png")
    calls = "openat,newfstatat,renameat,renameat2,linkat"
    dead = ["strace", "-f", "-qq", "-o", os.devnull, "-P", room.inbox.parent / "stale", "-e", f"trace={calls}"]
    dead += ["-e", f"inject={calls}:error=ENOTCONN"]
    command = [*dead, sys.executable, "-P", "-c", REMOUNTED, room.inbox.parent, what]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=False
    )
    assert said == done.stdout.splitlines(), done.stdout + done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_what_is_mounted_over_the_inbox_is_a_fault_until_it_is_gone(room: Room, tmp_path: Path) -> None:
    """Its device is that of work/, and yet nothing can be moved: that is said of the folders, and of no file."""
    (tmp_path / "other" / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.png"):
        (tmp_path / "other" / name).write_bytes(b"x")
    room.put("c.png")
    subprocess.run(["mount", "--bind", tmp_path / "other", room.inbox], check=True)
    try:
        for _ in range(3):
            with pytest.raises(OSError, match=r"expected .*inbox and .*work in one mount"):
                room.take()
    finally:
        subprocess.run(["umount", "-l", room.inbox], check=True)
    assert {"c.png"} == room.take()
    assert 0 == room.metric("digitd_intake_errors_total", cause="immovable")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_what_is_mounted_in_the_inbox_holds_nobody_up(room: Room, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing could be taken from there, and when its server has gone a look at a name there fails as the machine does."""
    (room.inbox / "sub").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", room.inbox / "sub"], check=True)
    try:
        for name in ("sub/a.png", "sub/b.png"):
            (room.inbox / name).touch()
        room.taker.look("sub", "b.png")
        room.put("z.png")
        assert {"z.png"} == room.take()
        said = "sub/: cannot list this sub-folder: Invalid cross-device link; its files wait"
        assert [said] == [text for text in caplog.messages if text.startswith("sub/") and "b.png" not in text]
        assert not any("sub/a.png" in text for text in caplog.messages)
    finally:
        subprocess.run(["umount", "-l", room.inbox / "sub"], check=True)
    assert set() == room.take()


def test_a_missing_work_folder_is_a_fault_and_loses_nothing(room: Room) -> None:
    """work/ is made anew or the call raises; the drop is in one of the two folders."""
    room.put("a.png")
    shutil.rmtree(room.work)
    try:
        taken = room.take()
    except OSError:
        taken = set()
    assert {"a.png"} == files_below(room.inbox) | taken


def test_a_file_that_vanishes_is_no_fault(room: Room) -> None:
    """Whoever drops a file may take it away again."""
    room.put("a.png")
    room.put("b.png")
    assert {"a.png"} == room.take(1)
    (room.inbox / "b.png").unlink()
    assert set() == {drop.name for drop in room.taker.take(10)}


def test_a_file_and_a_folder_of_one_name_keep_each_other_waiting(room: Room) -> None:
    """While work/ holds a file `a`, the drop a/b.png stays in the inbox; then it is claimed."""
    room.put("a", b"file")
    assert {"a"} == room.take()
    (room.inbox / "a").mkdir()
    room.put("a/b.png")
    assert set() == room.take()
    assert {"a/b.png"} == files_below(room.inbox)
    assert room.metric("digitd_intake_errors_total", cause="immovable") == 1


def test_what_a_killed_stream_claimed_is_taken_over(tmp_path: Path, enter: Callable[..., Room]) -> None:
    """It is answered under the names it was dropped with; where that is taken, it goes back or waits, and is not lost."""
    (tmp_path / "inbox" / "c").mkdir(parents=True)
    for name in ("work/.stream/b1-0/a.png", "work/.stream/b1-1/c/b.png", "work/.stream/b2-0/c/b.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    room = enter()
    assert {"a.png", "c/b.png"} == {drop.name for drop in room.taker.take(10)}
    assert {"c/b.png"} == files_below(room.inbox)
    assert [] == list((room.work / ".stream").iterdir())


def test_what_is_dropped_as_a_killed_streams_claim_goes_back_is_not_overwritten(
    tmp_path: Path, enter: Callable[..., Room], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a look whether the name is free and the rename it may be taken."""
    (tmp_path / "inbox").mkdir()
    for name in ("work/a.png", "work/.stream/b1-0/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    expected = {"work/a.png", "work/.stream/b1-0/a.png"}
    holds = Folder.holds

    def drop_then(folder: Folder, name: str) -> bool:
        is_taken = holds(folder, name)
        if folder.path == str(tmp_path / "inbox") and not is_taken:
            (tmp_path / "inbox" / name).write_text("a new drop")
            expected.add("a new drop")
        return is_taken

    monkeypatch.setattr(Folder, "holds", drop_then)
    enter()
    assert expected == {path.read_text() for path in tmp_path.rglob("a.png")}


def test_emptied_folders_leave_work(room: Room) -> None:
    """The sub-folders that a claim made in work/ go when nothing is in them."""
    room.put("deep/er/a.png")
    assert {"deep/er/a.png"} == room.take()
    (room.work / "deep/er/a.png").unlink()
    room.taker.release("deep/er/a.png")
    assert set() == room.take()
    assert [] == os.listdir(room.work)


def test_what_the_machine_did_not_let_leave_work_leaves_later(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the disk on the way out is nobody's file, and is made up for by the next sweep."""
    room.put("deep/a.png")
    assert {"deep/a.png"} == room.take()
    (room.work / "deep" / "a.png").unlink()
    room.taker.release("deep/a.png")

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", fails)
        room.take()
    assert (room.work / "deep").exists()
    room.take()
    assert not (room.work / "deep").exists()


def test_the_backlog_is_shown(room: Room) -> None:
    """The gauges show what waits in the inbox, what is claimed, and for how long."""
    for number in range(5):
        room.put(f"{number}.png")
    room.taker.look()
    drops = room.taker.take(2)
    room.taker.survey()
    assert room.metric("digitd_backlog_images", folder="inbox") == 3
    assert room.metric("digitd_backlog_images", folder="work") == 2
    assert room.metric("digitd_oldest_waiting_seconds") > 0
    drops += room.taker.take(10)
    room.taker.answered(drops)
    for drop in drops:
        room.taker.release(drop.name)
    room.taker.survey()
    assert room.metric("digitd_backlog_images", folder="inbox") == 0
    assert room.metric("digitd_backlog_images", folder="work") == 0
    assert room.metric("digitd_oldest_waiting_seconds") == 0


def test_names_that_are_not_utf8_are_claimed(room: Room) -> None:
    """Names keep their bytes."""
    name = os.fsdecode(b"a\xff\n.png")
    room.put(name)
    assert {name} == room.take()
    assert [b"a\xff\n.png"] == os.listdir(os.fsencode(room.work))


def watches(folder: Path) -> int:
    """How many inotify watches this process has on a folder; see proc_pid_fdinfo(5)."""
    wanted = f" ino:{folder.stat().st_ino:x} "
    infos = [info.read_text() for info in Path("/proc/self/fdinfo").iterdir() if info.exists()]
    return sum(line.startswith("inotify ") and wanted in line for info in infos for line in info.splitlines())


def test_a_closed_inbox_is_no_longer_watched(room: Room) -> None:
    """After close the kernel has no watch of ours, and closing twice is harmless."""
    room.put("deep/a.png")
    room.take()
    wait_until(lambda: watches(room.inbox) == 1, "the inbox to be watched")
    wait_until(lambda: watches(room.inbox / "deep") == 1, "its sub-folder to be watched")
    room.taker.close()
    room.taker.close()
    assert (0, 0) == (watches(room.inbox), watches(room.inbox / "deep"))


def test_a_folder_that_takes_a_listed_files_place_is_not_kept(room: Room, tmp_path: Path) -> None:
    """It goes back as it is, whatever it holds, and its files are found there."""
    room.put("a.png")
    room.put("b.png")
    assert {"a.png"} == room.take(1)
    (room.inbox / "b.png").unlink()
    (room.inbox / "b.png").mkdir()
    (room.inbox / "b.png" / "out").symlink_to(tmp_path)
    room.put("b.png/c.png")
    inode = (room.inbox / "b.png").stat().st_ino
    assert {"b.png/c.png", "b.png/out"} == {drop.name for drop in room.taker.take(10)} | room.take()
    assert inode == (room.inbox / "b.png").stat().st_ino != (room.work / "b.png").stat().st_ino
    assert (room.work / "b.png" / "out").is_symlink()


def test_a_folder_of_the_daemons_own_is_not_given_away(room: Room) -> None:
    """Where one that could not be given back was empty, and removed, the next one of its name stays in work/."""
    room.put("a.png")
    room.put("sub")
    assert {"a.png"} == room.take(1)
    (room.inbox / "sub").unlink()
    (room.inbox / "sub").mkdir()
    real = os.rename

    def occupy(*args: Any, **kwargs: Any) -> None:
        real(*args, **kwargs)
        if (room.work / "sub").is_dir() and not (room.inbox / "sub").exists():
            (room.inbox / "sub").touch()  # so that it cannot go back

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rename", occupy)
        room.taker.take(10)
    assert (room.work / "sub").is_dir()
    (room.work / "sub").rmdir()
    (room.inbox / "sub").unlink()
    room.take()
    room.put("sub/b.png")
    assert {"sub/b.png"} == room.take()
    (room.inbox / "sub").rmdir()
    room.take()
    assert {"a.png", "sub/b.png"} == files_below(room.work)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a folder of another user's")
def test_work_is_not_entered_below_a_folder_of_somebody_else(tmp_path: Path, enter: Callable[..., Room]) -> None:
    """Neither at the start nor for a claim: whoever owns it could exchange what is in it."""
    (tmp_path / "work" / "sub").mkdir(parents=True)
    (tmp_path / "work" / "sub" / "a.png").touch()
    os.chown(tmp_path / "work" / "sub", 4321, 4321)
    room = enter()
    room.put("sub/b.png")
    assert set() == room.take()
    assert {"sub/b.png"} == files_below(room.inbox)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a folder of another user's")
def test_a_folder_that_a_crash_left_in_work_is_given_back(tmp_path: Path, enter: Callable[..., Room]) -> None:
    """It is somebody's, who had exchanged it for a file that was being claimed; what he had in it is found in the inbox."""
    (tmp_path / "work" / "sub" / "of" / "bobs").mkdir(parents=True)
    (tmp_path / "work" / "sub" / "of" / "bobs" / "a.png").touch()
    os.chown(tmp_path / "work" / "sub" / "of", 4321, 4321)
    room = enter()
    assert {"sub/of/bobs/a.png"} == room.take() | room.take()


def test_nobody_else_may_write_below_work(tmp_path: Path, enter: Callable[..., Room]) -> None:
    """Not in a folder of the daemon's own either, which came by the inbox: whoever may could exchange what is claimed."""
    (tmp_path / "work" / "sub" / "deep").mkdir(parents=True)
    (tmp_path / "work" / "sub").chmod(0o2777)
    (tmp_path / "work" / "sub" / "deep").chmod(0o775)
    room = enter()
    room.put("sub/deep/a.png")
    assert {"sub/deep/a.png"} == room.take()
    assert 0 == sum(path.stat().st_mode & 0o022 for path in (room.work / "sub", room.work / "sub" / "deep"))


@pytest.mark.parametrize("kind", ["link", "link above"])
def test_a_link_in_the_place_of_a_listed_folder_leads_nowhere(room: Room, tmp_path: Path, kind: str) -> None:
    """What was listed below a folder that has become a link is gone, and what is behind the link stays there."""
    models = tmp_path / "models" / "sub"
    models.mkdir(parents=True)
    (models / "v0001.h5").write_bytes(b"model")
    room.put("a.png")
    room.put("sub/sub/v0001.h5")
    assert {"a.png"} == room.take(1)
    folder = room.inbox / ("sub/sub" if kind == "link" else "sub")
    shutil.move(folder, tmp_path / "away")
    folder.symlink_to(models if kind == "link" else models.parent)
    assert set() == {drop.name for drop in room.taker.take(10)} - {"sub/sub", "sub"}
    assert (models / "v0001.h5").read_bytes() == b"model"
    assert "v0001.h5" not in {Path(name).name for name in files_below(room.work)}


@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_stands_in_the_place_of_a_folder_keeps_no_daemon_from_starting(
    tmp_path: Path, enter: Callable[..., Room], kind: str
) -> None:
    """A killed stream had claimed a name twice: one goes to work/, the other one to the inbox, or waits."""
    for task in ("b1-0", "b2-0"):
        (tmp_path / "work/.stream" / task / "sub").mkdir(parents=True)
        (tmp_path / "work/.stream" / task / "sub/a.png").write_text(task)
    (tmp_path / "inbox").mkdir()
    if kind == "link":
        (tmp_path / "inbox/sub").symlink_to(tmp_path)
    else:
        (tmp_path / "inbox/sub").touch()
    room = enter()
    assert "sub/a.png" in {drop.name for drop in room.taker.take(10)}
    (waits,) = (tmp_path / "work/.stream").glob("*/sub/a.png")
    assert {waits.read_text(), (room.work / "sub/a.png").read_text()} == {"b1-0", "b2-0"}


def test_an_event_costs_the_folder_that_it_is_about(room: Room) -> None:
    """Of many folders that have been left empty, none is listed again for a drop elsewhere."""
    folders = [room.inbox / f"left/{number}" for number in range(50)]
    for folder in folders:
        folder.mkdir(parents=True)
    room.take()
    for folder in folders:
        os.utime(folder, (1, 2))  # whoever lists it leaves a later time of last access
    os.utime(room.put("left/7/a.png").parent, (1, 2))
    wait_until(lambda: room.taker.take(10), "the file to be claimed")
    listed = [folder.name for folder in folders if folder.stat().st_atime != 1]
    if not listed:
        pytest.skip("this file system keeps no times of last access")
    assert ["7"] == listed


def test_a_file_that_cannot_be_given_back_stays_claimed(room: Room) -> None:
    """Its folder has become a link, or has gone: no fault of the machine's, and nothing is put behind the link."""
    room.put("sub/a.png")
    room.taker.look()
    (drop,) = room.taker.take(1)
    (room.inbox / "sub").rmdir()
    assert not room.taker.put_back(drop)
    (room.inbox / "sub").symlink_to(room.work)
    assert not room.taker.put_back(drop)
    assert {"sub/a.png"} == files_below(room.work)


def test_what_watchdog_keeps_to_itself_is_as_we_know_it() -> None:
    """The private parts that `WakingWatch` replaces or uses are there, in the version that is pinned."""
    assert version("watchdog") in Path(REPOSITORY, "requirements.txt").read_text()
    for name in ("_add_all_callbacks", "_recursive_simulate", "_remove_watch_internally", "on_event", "on_queue_overflow"):
        assert name in vars(InotifyWatchGroup), name
        assert name in vars(WakingWatch), name
    assert {"_inotify_fd", "path", "event_mask", "_id", "_active_callbacks_by_path", "_active_callbacks_by_watch"} <= set(
        InotifyWatchGroup.__dataclass_fields__
    )
    assert "_get_or_create_watch" in vars(InotifyFD)
    assert {"_lock", "_remove_callbacks"} <= {*vars(InotifyWatchGroup), *InotifyWatchGroup.__dataclass_fields__}
    for name in ("on_thread_start", "build_and_queue_event"):
        assert name in vars(InotifyEmitter), name
        assert name in vars(WakingEmitter), name
