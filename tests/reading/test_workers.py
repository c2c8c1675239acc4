"""workers.py: light processes that decode under limits, and publish."""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from multiprocessing import forkserver
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pebble import ProcessExpired

from daemon.answering.publish import prepare, publish_predictions
from daemon.config import InboxSettings
from daemon.drops import Drop, ImageFacts, Predictions
from daemon.reading.chunks import FILES_AT_ONCE, Decoded, Decoders, decode_all, decode_chunk, decode_harmless
from tests.conftest import DEADLINE, NOBODY, Digits, encode, files_below, wait_until
from tests.hostile.files import many_scans

LIMITS = InboxSettings()


def put(work: Path, files: dict[str, bytes]) -> list[Drop]:
    """Write files into work/."""
    for name, content in files.items():
        (work / name).write_bytes(content)
    return [Drop(name, 1.0) for name in files]


def chunk(work: Path, drops: list[Drop]) -> Decoded:
    """Decode here, without a process."""
    return decode_chunk(work, drops, LIMITS.max_bytes, LIMITS.max_pixels)


def test_what_can_harm_nobody_is_decoded_at_once(tmp_path: Path, digits: Digits) -> None:
    """Small grey PNGs are decoded here; all else, and what is not there, is left for a process of its own."""
    files = {
        "a.png": digits.png(0),
        "b.jpg": encode(digits.images[1], "JPEG"),
        "c.png": b"text",
        "d.png": digits.png(3),
    }
    drops = [*put(tmp_path, files), Drop("gone.png", 1.0)]
    decoded = decode_harmless(tmp_path, drops, LIMITS.max_pixels)
    assert ["a.png", "d.png"] == [drop.name for drop in decoded.drops]
    assert np.array_equal(digits.images[[0, 3]], decoded.readings.pixels)
    assert hashlib.sha256(files["a.png"]).hexdigest() == decoded.images[0].sha256
    assert ["b.jpg", "c.png", "gone.png"] == [drop.name for drop in decoded.left]
    assert ([], []) == (decoded.refused, decoded.failed)


class Started:
    """Decoders on folders of their own."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        self.work, self.results = folder / "work", folder / "results"
        self.work.mkdir()
        prepare(self.results)
        self.decoders = Decoders(self.work, InboxSettings(**limits))

    def wait(self, start: Callable[[Callable[[Future[Any]], None]], None]) -> Future[Any]:
        """Start something and wait until it calls back."""
        called = threading.Event()
        futures: list[Future[Any]] = []

        def done(future: Future[Any]) -> None:
            futures.append(future)
            called.set()

        start(done)
        assert called.wait(DEADLINE)
        return futures[0]

    def decode(self, drops: list[Drop]) -> Decoded:
        """Decode in a process; its error is raised."""
        decoded: Decoded = self.wait(lambda done: self.decoders.decode(drops, done)).result()
        return decoded

    def lose_processes(self, drops: list[Drop]) -> None:
        """Kill all processes, and wait until others decode."""
        for process in list(self.decoders._pool._pool_manager.worker_manager.workers.values()):
            os.kill(process.pid, signal.SIGKILL)

        def decoded() -> bool:
            return self.wait(lambda done: self.decoders.decode(drops, done)).exception() is None

        wait_until(decoded, "the pool to decode again")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """Starts decoders with the limits that a test wants, and ends them."""
    started: list[Started] = []

    def begin(**limits: Any) -> Started:
        started.append(Started(tmp_path, **limits))
        return started[-1]

    yield begin
    for one in started:
        one.decoders.close()


def test_a_chunk_is_decoded_in_order(tmp_path: Path, digits: Digits) -> None:
    """Pixels, facts and drops go together."""
    drops = put(tmp_path, {f"{number}.png": digits.png(number) for number in range(5)})
    decoded = chunk(tmp_path, drops)
    assert drops == decoded.drops
    np.testing.assert_array_equal(digits.images[:5], decoded.readings.pixels)
    contents = [digits.png(number) for number in range(5)]
    expected = [ImageFacts(hashlib.sha256(content).hexdigest(), "PNG", 28, 28, len(content)) for content in contents]
    assert expected == decoded.images


def test_a_chunk_is_parted_by_what_became_of_it(tmp_path: Path, digits: Digits) -> None:
    """Digit images, files that are none, and files that the machine could not read."""
    drops = put(tmp_path, {"a.png": digits.png(0), "b.png": b"text", "c.png": b"", "d.png": digits.png(1)})
    (tmp_path / "c.png").unlink()
    decoded = chunk(tmp_path, drops)
    assert ["a.png", "d.png"] == [drop.name for drop in decoded.drops]
    assert [("b.png", "not_an_image")] == [(rejection.drop.name, rejection.reason) for rejection in decoded.refused]
    assert [("c.png", FileNotFoundError)] == [(drop.name, type(error)) for drop, error in decoded.failed]
    np.testing.assert_array_equal(digits.images[:2], decoded.readings.pixels)


def test_an_empty_chunk_is_decoded(tmp_path: Path) -> None:
    """Nothing in, nothing out."""
    assert (0, 28, 28) == chunk(tmp_path, []).readings.pixels.shape


def test_what_time_does_not_suffice_for_is_left(tmp_path: Path, digits: Digits) -> None:
    """A chunk that takes long gives back what it has, and the rest undone; nothing is in both."""
    page = np.zeros((6000, 8000), np.uint8)
    page[2000:4000, 3900:4100] = 255
    slow = encode(page, compress_level=1)
    drops = put(tmp_path, {f"{number}.png": slow for number in range(60)} | {"last.png": digits.png(0)})
    decoded = chunk(tmp_path, drops)
    assert decoded.left
    assert drops == decoded.drops + decoded.left
    assert len(decoded.drops) == len(decoded.readings) == len(decoded.images)


def test_a_process_decodes(start: Callable[..., Started], digits: Digits) -> None:
    """What a process gives is what is given without one."""
    started = start()
    drops = put(started.work, {f"{number}.png": digits.png(number) for number in range(20)})
    decoded, here = started.decode(drops), chunk(started.work, drops)
    assert (here.drops, here.images) == (decoded.drops, decoded.images)
    np.testing.assert_array_equal(here.readings.pixels, decoded.readings.pixels)


def test_a_name_that_is_not_utf8_reaches_the_process(start: Callable[..., Started], digits: Digits) -> None:
    """Names are bytes."""
    started = start()
    drops = put(started.work, {os.fsdecode(b"\xff.png"): digits.png(0)})
    assert drops == started.decode(drops).drops


def test_decoders_never_import_tensorflow(start: Callable[..., Started], digits: Digits) -> None:
    """A decoder stays light: it has neither TensorFlow nor Keras mapped."""
    started = start()
    started.decode(put(started.work, {"a.png": digits.png(0)}))
    workers = [process.pid for process in started.decoders._pool._pool_manager.worker_manager.workers.values()]
    assert len(workers) == 2
    for pid in workers:
        assert "tensorflow" not in Path(f"/proc/{pid}/maps").read_text()


def test_a_hostile_image_costs_only_its_process(start: Callable[..., Started], digits: Digits) -> None:
    """An image that decodes for too long is a TimeoutError, and the next chunk is decoded as if nothing had been."""
    started = start(decode_seconds=0.05, workers=1)
    slow = put(started.work, {"slow.jpg": many_scans()})  # many seconds on any machine; Pebble looks every 0.2 s
    with pytest.raises(TimeoutError):
        started.decode(slow)
    more = put(started.work, {f"{number}.png": digits.png(number) for number in range(3)})
    assert more == started.decode(more).drops


def test_an_image_that_needs_too_much_memory_fails_alone(start: Callable[..., Started], digits: Digits) -> None:
    """The address-space limit stops a large image; smaller ones are decoded in the least memory that can be configured."""
    started = start(decoder_memory_mb=512)
    page = np.zeros((6900, 7000, 4), np.uint8)
    page[..., 3] = 255
    large = put(started.work, {"large.png": encode(page, compress_level=1)})
    with pytest.raises((MemoryError, ProcessExpired)):
        started.decode(large)
    more = put(started.work, {f"{number}.png": digits.png(number) for number in range(3)})
    assert more == started.decode(more).drops


def test_killed_processes_are_replaced(start: Callable[..., Started], digits: Digits) -> None:
    """After somebody killed every idle process, the next chunk is decoded, if need be at a second try."""
    started = start()
    drops = put(started.work, {"a.png": digits.png(0)})
    started.decode(drops)
    started.lose_processes(drops)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a folder away")
@pytest.mark.parametrize("is_held", [True, False])
def test_processes_are_replaced_after_temporary_files_were_cleared_away(
    start: Callable[..., Started], tmp_path: Path, digits: Digits, monkeypatch: pytest.MonkeyPatch, is_held: bool
) -> None:
    """As by `rm -r /tmp/*`: the fork server's socket goes with them, and no process could be had until the next start.

    Nor is whoever takes its place handed anything, such as the pipes by which results come.
    """
    started = start()
    drops = put(started.work, {"a.png": digits.png(0)})
    started.decode(drops)
    socket_path = Path(get_temp_dir(), Path(forkserver._forkserver._forkserver_address).name)
    if not is_held:  # as after Pebble has had another one started
        forkserver._forkserver._forkserver_address = str(socket_path)
    shutil.rmtree(get_temp_dir())
    socket_path.parent.mkdir()
    os.chown(socket_path.parent, NOBODY, NOBODY)
    with socket.socket(socket.AF_UNIX) as intruder:  # anybody's, who has made a folder of that name in /tmp
        intruder.bind(str(socket_path))
        intruder.listen()
        intruder.setblocking(False)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "cleared"))
        monkeypatch.setenv("TMPDIR", str(tmp_path / "cleared"))
        started.lose_processes(drops)
        with pytest.raises(BlockingIOError):  # nobody came to him
            intruder.accept()


def test_a_process_publishes(start: Callable[..., Started]) -> None:
    """Results that a process writes are there when it calls back."""
    started = start()
    drops = [Drop(f"{number}.png", 1.0) for number in range(20)]
    facts = [ImageFacts(f"{number:064}", "PNG", 28, 28) for number in range(20)]
    rows = np.full((20, 10), 0.1, np.float32)
    batch = Predictions(drops, facts, rows, [None] * 20, "v0001", "m", 1.0, 2.0)
    publish = partial(publish_predictions, started.results, batch)
    assert started.wait(lambda done: started.decoders.write(publish, done)).exception() is None
    assert {f"{number}.png.json" for number in range(20)} == files_below(started.results)


def test_a_fault_while_publishing_is_an_oserror(start: Callable[..., Started], tmp_path: Path) -> None:
    """What the machine refused in a process comes back as what it is."""
    started = start()
    started.results.rename(tmp_path / "gone")
    facts = ImageFacts("0" * 64, "PNG", 28, 28)
    batch = Predictions([Drop("a.png", 1.0)], [facts], np.full((1, 10), 0.1, np.float32), [None], "v0001", "m", 1.0, 2.0)
    publish = partial(publish_predictions, started.results, batch)
    assert isinstance(started.wait(lambda done: started.decoders.write(publish, done)).exception(), FileNotFoundError)


INTRUDED = """
import pathlib, sys
from daemon.config import InboxSettings
from daemon.drops import Drop
from daemon.reading.chunks import decode_all

if __name__ == "__main__":
    print(len(decode_all(pathlib.Path(sys.argv[1]), ["a.png"], InboxSettings()).drops))
"""


def test_processes_import_nothing_from_the_current_folder(tmp_path: Path, digits: Digits) -> None:
    """A module that somebody put where the daemon happens to run is not run by its processes."""
    program, current = tmp_path / "program", tmp_path / "current"
    program.mkdir()
    current.mkdir()
    put(current, {"a.png": digits.png(0)})
    (program / "run.py").write_text(INTRUDED)
    for name in ("selectors", "struct", "pebble"):
        (current / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nraise ImportError\n")
    ended = subprocess.run(
        [sys.executable, program / "run.py", current], cwd=current, check=False, capture_output=True, text=True
    )
    assert ("1\n", 0) == (ended.stdout, ended.returncode), ended.stderr
    assert not (tmp_path / "ran").exists()


def test_files_that_are_decoded_in_several_processes_keep_their_order(tmp_path: Path, digits: Digits) -> None:
    """More than one process is given at once; what is no image is named among them, and so is what is gone."""
    names = [f"{number}.png" for number in range(3 * FILES_AT_ONCE)]
    put(tmp_path, {name: digits.png(int(name[:-4]) % 1000) for name in names})
    (tmp_path / names[3]).write_bytes(b"no image")
    (tmp_path / names[700]).unlink()
    decoded = decode_all(tmp_path, names, InboxSettings())
    assert [name for name in names if name not in (names[3], names[700])] == [drop.name for drop in decoded.drops]
    assert [names[3]] == [rejection.drop.name for rejection in decoded.refused]
    assert [names[700]] == [drop.name for drop, _ in decoded.failed]
    assert len(decoded.images) == len(decoded.readings) == len(names) - 2


class EndingMeanwhile(dict[Future[Any], float]):
    """Tasks that other threads end just as somebody looks at when they were given."""

    def values(self) -> Any:
        self.clear()
        return super().values()


def test_a_task_may_end_while_the_processes_are_looked_after(start: Callable[..., Started]) -> None:
    """It is no fault of anybody's, and no reason to start others."""
    workers = start().decoders
    pool = workers.renew()
    workers._open = EndingMeanwhile({Future(): 0.0})
    assert pool is workers.renew()


def test_a_bug_that_a_small_picture_brings_out_is_not_the_daemons_end(
    tmp_path: Path, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small ones are read in its own process; whatever goes wrong there is looked into in another one."""
    (tmp_path / "a.png").write_bytes(digits.png(0))

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Decoded, "add", fail)
    drops = [Drop("a.png", 0.0), Drop("none.png", 0.0)]
    decoded = decode_harmless(tmp_path, drops, 50_000_000)
    assert (drops, []) == (decoded.left, decoded.drops)
