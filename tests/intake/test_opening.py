"""opening.py: letting the daemon's user into folders that keep it out, by a program with two capabilities."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from daemon.intake.opening import let_in, open_folders
from tests.conftest import REPOSITORY, peak_of, wait_until

DAEMON, PERSON = 23456, 12345

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None or shutil.which("getfacl") is None,
    reason="needs root, setpriv and getfacl (Debian: acl)",
)


def as_daemon(*command: str, capable: bool) -> subprocess.CompletedProcess[str]:
    """Run a command as the daemon's user, with the unit's capabilities or with none."""
    these = "+dac_read_search,+fowner" if capable else "-all"
    return subprocess.run(
        [
            *("setpriv", f"--reuid={DAEMON}", f"--regid={DAEMON}", "--clear-groups", "--no-new-privs"),
            *(f"--bounding-set=-all,{these}", f"--inh-caps=-all,{these}", f"--ambient-caps=-all,{these}"),
            *command,
        ],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )


def open_them(inbox: Path) -> subprocess.CompletedProcess[str]:
    """What digitd-open.service runs."""
    return as_daemon(sys.executable, "-P", "-m", "daemon.intake.opening", str(inbox), capable=True)


def may_take(path: Path) -> bool:
    """Whether the daemon's user could move this file away, and does: out and back."""
    return as_daemon("sh", "-c", f"mv {path} {path}.moved && mv {path}.moved {path}", capable=False).returncode == 0


@pytest.fixture
def inbox() -> Iterator[Path]:
    """An inbox of the daemon's user, where everybody may come by; pytest keeps its own folders closed."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        inbox = Path(folder) / "inbox"
        inbox.mkdir()
        os.chown(inbox, DAEMON, DAEMON)
        yield inbox


def drop_folder(inbox: Path, name: str, mode: int) -> Path:
    """A folder of a person's, with a file in it."""
    folder = inbox / name
    folder.mkdir()
    file = folder / "a.png"
    file.touch()
    folder.chmod(mode)
    for path in (folder, file):
        os.chown(path, PERSON, PERSON)
    return file


@needs_root
@pytest.mark.parametrize("mode", [0o755, 0o700, 0o2775, 0o500, 0o000, 0o1777])
def test_what_a_folder_holds_can_be_taken(inbox: Path, mode: int) -> None:
    """Whatever its mode, and that of the folder in it; the people may do what they could before."""
    outer = drop_folder(inbox, "batch", 0o777)
    inner = drop_folder(inbox / "batch", "inner", mode)
    (inbox / "batch").chmod(mode)
    before = (inbox / "batch").stat().st_mode & 0o707
    assert not may_take(outer)
    done = open_them(inbox)
    assert (0, f"{inbox}: 2 sub-folders had kept digitd out\n") == (done.returncode, done.stderr)
    assert may_take(outer)
    assert may_take(inner)
    assert before == (inbox / "batch").stat().st_mode & 0o707
    assert "" == open_them(inbox).stderr


@needs_root
def test_the_default_acl_of_the_inbox_is_unmasked(inbox: Path) -> None:
    """What `cp -r` leaves of it: the mode masks it; others get no more by the new mask than they had."""
    subprocess.run(["setfacl", "-d", "-m", f"u:{DAEMON}:rwx,g:777:rwx", str(inbox)], check=True)
    file = drop_folder(inbox, "copied", 0o755)
    assert not may_take(file)
    open_them(inbox)
    assert may_take(file)
    shown = subprocess.run(["getfacl", "-cn", str(inbox / "copied")], capture_output=True, text=True, check=True).stdout
    assert f"user:{DAEMON}:rwx\n" in shown
    assert "group:777:r-x\n" in shown
    assert "group::r-x\n" in shown


@needs_root
def test_no_link_is_followed_and_no_file_is_touched(inbox: Path) -> None:
    """What is elsewhere stays closed, and so does a file that only its owner may read."""
    elsewhere = inbox.parent / "elsewhere"
    elsewhere.mkdir(0o700)
    (inbox / "link").symlink_to(elsewhere)
    file = drop_folder(inbox, "batch", 0o755)
    file.chmod(0o600)
    (file.parent / "link").symlink_to(elsewhere)
    assert 0 == open_them(inbox).returncode
    assert not os.listxattr(elsewhere)
    assert not os.listxattr(file)
    assert 0o600 == file.stat().st_mode & 0o777


@needs_root
def test_what_is_mounted_in_the_inbox_is_left_alone(inbox: Path) -> None:
    """The daemon takes nothing from there; and where its server has gone, whoever looks would wait while others are shut."""
    drop_folder(inbox, "shut", 0o700)
    (inbox / "mounted").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0700,uid=12345", "none", inbox / "mounted"], check=True)
    try:
        drop_folder(inbox / "mounted", "batch", 0o755)
        assert (0, f"{inbox}: 1 sub-folders had kept digitd out\n") == ((done := open_them(inbox)).returncode, done.stderr)
        assert ["system.posix_acl_access"] == os.listxattr(inbox / "shut")
        assert [] == os.listxattr(inbox / "mounted") + os.listxattr(inbox / "mounted" / "batch")
    finally:
        subprocess.run(["umount", "-l", inbox / "mounted"], check=True)


def test_an_acl_is_extended() -> None:
    """The entries stay in the kernel's order, with a mask that keeps nothing of the user's back."""
    mode_only = let_in(None, 0o40750, 7)
    assert mode_only == let_in(mode_only, 0o40770, 7)
    assert len(let_in(mode_only, 0o40770, 8)) == len(mode_only) + 8


ASKING = """
import logging, sys
from pathlib import Path
import daemon.intake.inbox
from daemon.config import InboxSettings
from daemon.telemetry.metrics import Metrics
logging.basicConfig(stream=sys.stdout, format="%(message)s")
folder = Path(sys.argv[1])
def ask(_now): print("asked"); return True
settings = InboxSettings(rescan_seconds=1e-9)
inbox = daemon.intake.inbox.Inbox(folder / "inbox", folder / "work", settings, Metrics(), lambda: None, ask)
for daemon.intake.complaints.ASKING_SECONDS in (60.0, 0.0):
    inbox.look()
    print([drop.name for drop in inbox.take(10)])
inbox.close()
"""


@needs_root
def test_the_daemon_asks_to_be_let_in_before_it_complains(inbox: Path) -> None:
    """Of folders that keep it out it says nothing at first; it goes on asking, and complains where that was in vain."""
    (inbox.parent / "work").mkdir()
    os.chown(inbox.parent / "work", DAEMON, DAEMON)
    drop_folder(inbox, "open-to-look", 0o755)
    drop_folder(inbox, "shut", 0o700)
    done = as_daemon(sys.executable, "-P", "-c", ASKING, str(inbox.parent), capable=False)
    assert done.stdout.splitlines() == [
        "asked",
        "asked",
        "[]",
        "asked",
        "shut/: cannot list this sub-folder: Permission denied; its files wait",
        "asked",
        "open-to-look/: its files cannot be moved to work/: Permission denied; they stay in the inbox",
        "[]",
    ], done.stdout + done.stderr


KEPT_OUT = """
import sys, time
from pathlib import Path
from daemon.config import InboxSettings
from daemon.intake.inbox import Inbox
from daemon.telemetry.metrics import Metrics
folder, metrics = Path(sys.argv[1]), Metrics()
inbox = Inbox(folder / "inbox", folder / "work", InboxSettings(rescan_seconds=0.1), metrics, lambda: None)
print([drop.name for drop in inbox.take(10)])
print(metrics.registry.get_sample_value("digitd_intake_errors_total", {"cause": "immovable"}))
taken, until = [], time.monotonic() + 60
while len(taken) < 6 and time.monotonic() < until:
    taken += [drop.name for drop in inbox.take(10)]
print(sorted(taken))
inbox.close()
"""


@needs_root
def test_a_folder_that_keeps_the_daemon_out_is_tried_as_one(inbox: Path) -> None:
    """Not each of perhaps 120,000 files in it; they are taken when it is opened, and others are meanwhile."""
    (inbox.parent / "work").mkdir()
    os.chown(inbox.parent / "work", DAEMON, DAEMON)
    folder = drop_folder(inbox, "batch", 0o755).parent
    for number in range(5):
        (folder / f"{number}.png").touch()
    (inbox / "beside.png").touch()
    with ThreadPoolExecutor(1) as person:
        person.submit(lambda: (wait_until((inbox.parent / "work" / "beside.png").exists, "the other"), folder.chmod(0o777)))
        done = as_daemon(sys.executable, "-P", "-c", KEPT_OUT, str(inbox.parent), capable=False)
    assert ["['beside.png']", "1.0", str([f"batch/{name}.png" for name in (*range(5), "a")])] == done.stdout.splitlines()


SWAPPED = """
import os, sys
from pathlib import Path
from daemon.config import InboxSettings
from daemon.intake.inbox import Inbox
from daemon.telemetry.metrics import Metrics
folder = Path(sys.argv[1])
inbox = Inbox(folder / "inbox", folder / "work", InboxSettings(rescan_seconds=3600), Metrics(), lambda: None)
print([drop.name for drop in inbox.take(1)])
name = folder / "inbox/batch/b.png"
name.unlink()
name.mkdir(mode=0o555)
print([drop.name for drop in inbox.take(10)])
inbox.close()
"""


@needs_root
def test_a_folder_in_a_files_place_that_cannot_be_moved_shuts_none_for_others(inbox: Path) -> None:
    """Moving a folder takes the right to write to it, too: that it lacks is nothing that its parent does."""
    (inbox.parent / "work").mkdir()
    os.chown(inbox.parent / "work", DAEMON, DAEMON)
    folder = drop_folder(inbox, "batch", 0o777).parent
    for name in "bcd":
        (folder / f"{name}.png").touch()
    done = as_daemon(sys.executable, "-P", "-c", SWAPPED, str(inbox.parent), capable=False)
    assert ["['batch/a.png']", "['batch/c.png', 'batch/d.png']"] == done.stdout.splitlines(), done.stderr


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv")
def test_a_name_forges_no_line_of_the_journal(inbox: Path) -> None:
    """Whoever may write into the inbox may call a folder as he likes, with line feeds and priorities in it."""
    (inbox / "a\n<0>all is lost").mkdir(mode=0o700)
    done = as_daemon(sys.executable, "-P", "-m", "daemon.intake.opening", str(inbox), capable=False)
    assert [f"{inbox}/a\\n<0>all is lost: Permission denied"] == done.stderr.splitlines()


def test_folders_are_looked_at_one_after_the_other(tmp_path: Path) -> None:
    """Of however many somebody makes in one, memory holds no more at once: the program has little, and would end."""
    for number in range(5000):
        (tmp_path / f"{number:0200}").mkdir()
    assert 200_000 > peak_of(lambda: open_folders(str(tmp_path)))
