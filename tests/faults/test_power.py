"""Power cuts: an ext4 that loses everything which is not on its disk, at random moments of a run."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.folders import Folder
from daemon.training.labelling import Labelling
from tests.faults.harness import (
    FULL,
    LOG_FLUSH,
    NO_LOG_FLUSH,
    Daemon,
    Drops,
    Nursery,
    answers,
    chances,
    check_all_done,
    check_nothing_lost,
    cut_power,
    files_below,
    is_settled,
    lay_out,
    make_ext4,
    names_in,
    needs_root,
    png,
    shell,
    threads_of,
    traced,
    until,
)

pytestmark = [needs_root, pytest.mark.timeout(3600 if FULL else 300)]
CUTS = 50 if FULL else 2
WAITING = 300 if FULL else 150  # files in the inbox when the daemon starts
SEED = int(os.environ.get("FAULTS_SEED", "1"))


class Machine:
    """A disk that is mounted, cut off, and mounted again."""

    def __init__(self, folder: Path) -> None:
        self.point = folder / "mount"
        self.point.mkdir()
        self._image = make_ext4(folder, 256 if FULL else 96)
        self.mount()

    def mount(self) -> None:
        shell("mount", "-o", "loop", str(self._image), str(self.point))
        try:
            (self.point / "probe").touch()
        except OSError:  # another mount namespace, of some container, keeps the one that was cut off: take the disk out
            self.unmount()
            copied = self._image.with_name(f"{self._image.name}-")
            shell("cp", "--sparse=always", str(self._image), str(copied))
            self._image.unlink()
            self._image = copied
            shell("mount", "-o", "loop", str(self._image), str(self.point))

    def unmount(self) -> None:
        if os.path.ismount(self.point):
            shell("umount", str(self.point))

    def cut(self, flags: int) -> None:
        cut_power(self.point, flags)


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A machine of its own disk, in memory where that can be, so that its cuts cost no wear."""
    shm = Path("/dev/shm")  # noqa: S108 -- a folder of our own is made in it
    folder = Path(tempfile.mkdtemp(prefix="digitd-power-", dir=shm if shm.is_dir() else None))
    machine = Machine(folder)
    yield machine
    machine.unmount()
    shutil.rmtree(folder)


def test_a_power_cut_at_any_moment_loses_nothing(nursery: Nursery, machine: Machine, tmp_path: Path) -> None:
    """After a power cut every file is where its result is durable or where it is swept again, and no JSON is half."""
    root = lay_out(machine.point / "root", nursery.model)
    drops = Drops(root / "inbox")
    chance = chances(SEED)
    middle = empty = 0
    for number in range(CUTS):
        drops.drop_digits(max(0, WAITING - len(names_in(root / "inbox"))))
        drops.drop_mixture()
        drops.persist()
        daemon = Daemon(nursery, root, {"DIGITD_INFERENCE__SYNC_SECONDS": "0.02"}, log=tmp_path / "log")
        daemon.start()
        answered = len(names_in(root / "results"))
        progress = chance.randrange(WAITING)
        until(lambda: is_settled(root) or len(names_in(root / "results")) >= answered + progress)  # noqa: B023
        power_comes_back(machine, daemon, (LOG_FLUSH, NO_LOG_FLUSH)[number % 2])
        middle += not is_settled(root)
        empty += sum(not (root / "results" / name).stat().st_size for name in names_in(root / "results"))
        check_nothing_lost(root, drops, cut=True)
    with Daemon(nursery, root) as daemon:
        daemon.settle(300)
    check_all_done(root, drops, killed=True)
    told = len(answers(root / "results"))
    print(
        f"\npower cuts: {CUTS}, {middle} in mid-work; {drops.count} files, {told} results; {empty} were empty and made again"
    )
    assert middle > 0


def test_a_power_cut_during_the_sync_loses_nothing(nursery: Nursery, machine: Machine, tmp_path: Path) -> None:
    """When the lights go out while results are being made durable, their originals are still where they are swept again."""
    root = lay_out(machine.point / "root", nursery.model)
    drops = Drops(root / "inbox")
    daemon = Daemon(nursery, root, log=tmp_path / "log").start()
    drops.drop_mixture()
    daemon.settle()
    drops.persist()
    with traced(threads_of(daemon.pid), "syncfs:delay_enter=3000000", trace="syncfs", log=tmp_path / "calls"):
        before = len(files_below(root / "results"))
        drops.drop_mixture()
        drops.persist()
        until(lambda: len(files_below(root / "results")) > before and "syncfs(" in (tmp_path / "calls").read_text())
        power_comes_back(machine, daemon, LOG_FLUSH)
    recovers(nursery, root, drops)


def test_a_power_cut_right_after_retiring_loses_nothing(nursery: Nursery, machine: Machine, tmp_path: Path) -> None:
    """When the lights go out just as originals have left work/, their results are on the disk."""
    root = lay_out(machine.point / "root", nursery.model)
    drops = Drops(root / "inbox")
    for flags in (LOG_FLUSH, NO_LOG_FLUSH):
        daemon = Daemon(nursery, root, log=tmp_path / "log").start()
        drops.drop_mixture()
        drops.persist()
        daemon.settle()
        power_comes_back(machine, daemon, flags)
        recovers(nursery, root, drops)


def test_a_power_cut_after_an_image_was_labelled_leaves_no_empty_label(machine: Machine) -> None:
    """What was said of it is whole, or not there; half of it would be an image that nobody can read."""
    (machine.point / "processed").mkdir()
    (machine.point / "processed" / "a.png").write_bytes(png(1))
    with (
        Folder(machine.point / "processed") as processed,
        Labelling(machine.point / "corrections", 1 << 20) as labels,
    ):
        labels.label(processed, "a.png", "1")
    machine.cut(LOG_FLUSH)
    machine.unmount()
    machine.mount()
    assert png(1) == (machine.point / "corrections" / "1" / "a.png").read_bytes()


def power_comes_back(machine: Machine, daemon: Daemon, flags: int) -> None:
    """Cut the power, end what runs, start the machine again."""
    family = daemon.family
    machine.cut(flags)
    daemon.kill()
    daemon.wait_gone(family)
    machine.unmount()
    machine.mount()


def recovers(nursery: Nursery, root: Path, drops: Drops) -> None:
    """Nothing was lost, and the next daemon finishes the work."""
    check_nothing_lost(root, drops, cut=True)
    with Daemon(nursery, root) as daemon:
        daemon.settle()
    check_all_done(root, drops, killed=True)
