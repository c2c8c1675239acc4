"""processes.py: a child ends with its parent, even where that has ended already; and root makes nothing that is root's."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from daemon.processes import python, sweep_temporary_folders, take_temporary_folder, temporary_folder
from daemon.reading.workers import IMPORTED_IN, Workers
from tests.conftest import NOBODY

CHILD = """
import signal, sys
from daemon.processes import die_with_parent
sys.stdin.read()
die_with_parent(signal.SIGKILL)
print("lives on")
"""
PARENT = """
import subprocess, sys
from daemon.processes import python
subprocess.Popen(python("-c", sys.argv[1]))
"""


def test_a_child_whose_parent_is_gone_already_ends() -> None:
    """It asks to be ended with it only then; somebody else is its parent by now."""
    reading, writing = os.pipe()
    with subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdin=reading, stdout=subprocess.PIPE) as parent:
        os.close(reading)
        parent.wait()
        os.close(writing)  # the child goes on
        assert parent.stdout is not None
        assert b"" == parent.stdout.read()  # to its end: the child has it open, too


def test_a_child_whose_parent_lives_goes_on() -> None:
    """What it asks for changes nothing then."""
    done = subprocess.run(python("-c", CHILD), stdin=subprocess.DEVNULL, capture_output=True, check=True)
    assert b"lives on\n" == done.stdout


@pytest.mark.parametrize(("parent", "expected"), [("os.getppid()", 0), ("os.getpid()", 0), ("1", -signal.SIGKILL)])
def test_a_child_of_another_process_than_expected_ends(parent: str, expected: int) -> None:
    """As a decoder whose fork server is gone; one that does not know which that was goes on."""
    code = f"import os; from daemon.processes import die_with_parent; die_with_parent(9, {parent})"
    assert expected == subprocess.run(python("-c", code), check=False).returncode


def test_a_decoder_knows_its_fork_server() -> None:
    """It is the parent, which has imported what tells it: of nobody else's end would it take notice."""
    workers = Workers(1, 1 << 30, 10.0)
    done: queue.SimpleQueue[Future[bool]] = queue.SimpleQueue()
    workers.run(is_of_the_fork_server, 10.0, done.put)
    assert done.get().result()
    workers.close()


def is_of_the_fork_server() -> bool:
    """Whether this process knows its parent."""
    return IMPORTED_IN == os.getppid()


BECOME = """
import os, sys
from pathlib import Path
from daemon.processes import become_owner
sys.executable = sys.argv[1]
become_owner(*map(Path, sys.argv[2:]))
print(os.getresuid(), os.getresgid(), os.getgroups())
"""


def become(*folders: Path, program: str = "/bin/sh") -> str:
    """What becomes of root, who runs a program on these folders: its users, its groups, and the groups besides."""
    command = python("-c", BECOME, program, *map(str, folders))
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")


@needs_root
@pytest.mark.parametrize(("owners", "expected"), [((NOBODY, NOBODY), NOBODY), ((NOBODY, 0), 0), ((0, 0), 0)])
def test_root_goes_on_as_the_owner_of_the_folders(tmp_path: Path, owners: tuple[int, int], expected: int) -> None:
    """For good, without root's groups; only where they have one other owner."""
    folders = [tmp_path / "models", tmp_path / "logs"]
    for folder, owner in zip(folders, owners, strict=True):
        folder.mkdir()
        os.chown(folder, owner, owner)
    said = become(*folders)
    assert f"{(expected,) * 3} {(expected,) * 3} " in said
    assert expected == 0 or said.endswith(f" [{NOBODY}]\n")


@needs_root
def test_root_stays_root_where_the_owner_cannot_reach_the_program(tmp_path: Path) -> None:
    """As in root's home: nothing could be imported any more."""
    (tmp_path / "models").mkdir()
    os.chown(tmp_path / "models", NOBODY, NOBODY)
    (tmp_path / "python").touch(mode=0o700)
    assert f"{(0,) * 3} {(0,) * 3} {os.getgroups()}\n" == become(tmp_path / "models", program=str(tmp_path / "python"))


@needs_root
@pytest.mark.parametrize(("linked_by", "expected"), [(NOBODY, NOBODY), (0, 0)])
def test_a_link_in_a_folders_place_is_whose_it_is(tmp_path: Path, linked_by: int, expected: int) -> None:
    """The owner of the other folders cannot have root stay root by one to a folder of root's; only root can."""
    folders = [tmp_path / "models", tmp_path / "logs"]
    folders[0].mkdir()
    folders[1].symlink_to("/etc")
    for folder, owner in zip(folders, (NOBODY, linked_by), strict=True):
        os.chown(folder, owner, owner, follow_symlinks=False)
    assert f"{(expected,) * 3} " in become(*folders)


def test_what_must_come_to_an_end_yields_without_starving() -> None:
    """At SCHED_IDLE, a busy machine would never let it empty a full disk."""
    code = "import os; from daemon.processes import yield_to_most as y; y(); print(os.sched_getscheduler(0), os.nice(0))"
    done = subprocess.run(python("-c", code), capture_output=True, check=True)
    assert f"{os.SCHED_OTHER} 19\n".encode() == done.stdout


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where this test's temporary files are: a short name."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def test_what_killed_daemons_left_goes_at_the_next_start(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporary files are in a folder of their own, which children have too; another root's are left alone."""
    for root in ("one", "other", "one"):
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        take_temporary_folder(Path(root))
        assert os.environ["TMPDIR"] == tempfile.gettempdir()
        with tempfile.NamedTemporaryFile(delete=False), socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(Path(tempfile.mkdtemp()) / "listener"))
    own = Path(tempfile.gettempdir())
    assert [1, 2] == sorted(len(list(folder.iterdir())) for folder in temporary.iterdir())
    sweep_temporary_folders(Path("one"))
    assert [1, 1] == [len(list(folder.iterdir())) for folder in temporary.iterdir()]
    assert 2 == len(list(own.iterdir()))


def test_a_folder_for_temporary_files_whose_name_is_long_is_not_made_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the sockets in it had no names, and no decoder would start."""
    place = tmp_path / ("a" * 60)
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    take_temporary_folder(Path("/srv/one"))
    assert str(place) == tempfile.gettempdir()


def test_a_folder_for_temporary_files_that_somebody_else_made_is_not_taken(temporary: Path, tmp_path: Path) -> None:
    """Nothing is written behind a link, and nothing removed."""
    take_temporary_folder(Path("one"))
    own = Path(tempfile.gettempdir())
    own.rmdir()
    own.parent.rmdir()
    (tmp_path / "theirs").mkdir()
    own.parent.symlink_to(tmp_path)
    tempfile.tempdir = str(temporary)
    take_temporary_folder(Path("one"))
    sweep_temporary_folders(Path("one"))
    assert str(temporary) == tempfile.gettempdir()
    assert ["theirs"] == os.listdir(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a folder away")
@pytest.mark.parametrize("whose", ["", "folder"])
def test_a_folder_for_temporary_files_that_somebody_made_anew_is_left(temporary: Path, whose: str) -> None:
    """In it he could exchange all that children make there: where theirs are asked for, and answer in their place."""
    os.chown(temporary, 0, 0)
    (temporary / "folder").mkdir()
    os.chown(temporary / whose, NOBODY, NOBODY)
    tempfile.tempdir = str(temporary / "folder")
    with temporary_folder() as own:
        assert not Path(own).is_relative_to(temporary)


def test_a_process_counts_from_its_own_start() -> None:
    """What came before its first line is counted, such as Python's start and its imports."""
    began = time.monotonic()
    code = "import time; from daemon.processes import running_seconds; print(running_seconds(), time.process_time())"
    said = subprocess.run(python("-c", code), capture_output=True, check=True).stdout.split()
    running, worked = float(said[0]), float(said[1])
    assert worked - 0.05 <= running <= time.monotonic() - began + 0.05
