"""Whoever may write into the inbox gets nothing else: no file of the daemon's is moved, and none is put among them."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.harness import FULL, Daemon, Drops, Nursery, Violation, lay_out, parse, png, until
from tests.hostile.intruder import NOBODY, PLANTED, TARGETS, TREASURES

SECONDS = 720.0 if FULL else 8.0
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user than the daemon's"),
    pytest.mark.timeout(SECONDS + 600),
]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that another user may go through, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="digitd-links-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def root(nursery: Nursery, place: Path) -> Path:
    """A root where anybody may drop, with something to be carried away in each folder of the daemon's."""
    root = lay_out(place / "root", nursery.model)
    (root / "inbox").chmod(0o777)
    for target in TARGETS:
        (root / target).mkdir(parents=True, exist_ok=True)
        if target != "work":  # what is there is taken for claimed
            (root / target / "treasure.png").write_bytes(png(77))
            (root / target / "treasure.json").write_text('{"schema": 1, "file": "treasure", "sha256": null}\n')
    return root


def treasures(root: Path) -> dict[Path, tuple[int, bytes]]:
    """What must stay where and as it is: the inode and content of each, the models' folder as a whole."""
    kept = [path for target in TARGETS if target != "work" for path in (root / target).glob("treasure.*")]
    kept += [path for path in (root / "models").iterdir() if path.name != "ledger.jsonl"]
    return {path: (path.lstat().st_ino, path.read_bytes()) for path in kept}


def check_untouched(before: dict[Path, tuple[int, bytes]], after: dict[Path, tuple[int, bytes]]) -> None:
    """Nothing was taken, replaced or changed."""
    harmed = [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]
    if harmed:
        raise Violation(f"the intruder reached {harmed}")


def check_what_is_there(root: Path) -> None:
    """In the daemon's folders are regular files and its own folders, every JSON is whole, and nothing was planted.

    Raises:
        Violation: something else is so.

    """
    for name in ("work", "results", "processed", "rejected"):
        for parent, folders, files in os.walk(root / name):
            for entry in (*folders, *files):
                with contextlib.suppress(FileNotFoundError):  # it has just been moved on
                    check(Path(parent, entry), name)
    for planted in PLANTED:
        if os.path.lexists(root / "models" / planted):
            raise Violation(f"{planted} has come to be among the models")
    strangers = [path for path in (root / "corrections").rglob("*") if path.lstat().st_uid == NOBODY]
    if strangers:
        raise Violation(f"{strangers} did not come through anybody who may label")


def check(path: Path, folder: str) -> None:
    """One thing in a folder of the daemon's may be there."""
    status = path.lstat()
    if stat.S_ISDIR(status.st_mode):
        if status.st_uid == NOBODY and folder != "work":  # there it goes back, and meanwhile is not entered
            raise Violation(f"{path} is a folder of the intruder's")
    elif folder != "work" and not stat.S_ISREG(status.st_mode):
        raise Violation(f"{path} is no file: mode {status.st_mode:o}")
    elif folder == "results" and ".tmp" not in path.parts and path.name not in TREASURES:
        if status.st_uid == NOBODY:
            raise Violation(f"{path} was not written by the daemon")
        parse(path, path.read_bytes())


def test_a_dropper_reaches_nothing_but_the_inbox(nursery: Nursery, root: Path) -> None:
    """While links, folders and files change places under its eyes, the daemon answers others and gives nothing away."""
    environment = {"DIGITD_INBOX__RESCAN_SECONDS": "0.5"}
    good = 0
    with Daemon(nursery, root, environment) as daemon:
        before = treasures(root)
        seed = random.SystemRandom().randrange(1 << 30)
        print(f"seed {seed}")
        command = [sys.executable, "-P", str(Path(__file__).parent / "intruder.py"), str(root), str(SECONDS), str(seed)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as intruder:
            try:
                while intruder.poll() is None:
                    (name,) = Drops(root / "inbox", count=1_000_000 + good).drop_digits(1)
                    answer = root / "results" / f"{name}.json"
                    until(answer.exists, 60.0, f"{name} is answered while others attack")
                    good += 1
                    check_what_is_there(root)
                    check_untouched(before, treasures(root))
                    assert daemon.alive
            finally:
                intruder.kill()
            said, complaint = intruder.communicate()
        assert intruder.returncode == 0, complaint
        assert daemon.get("/livez")[0] == 200
        print(f"{said.strip()} attacks; {good} files of others answered meanwhile")
        check_untouched(before, treasures(root))
        check_what_is_there(root)
