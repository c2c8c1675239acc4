"""Processes of our own: how they are started, their end with their parent's, and yielding to everybody else."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SHORT = 107 - len("/12345678/digitd-12345678/pymp-12345678/listener-12345678")  # bytes; so sockets' names fit: unix(7)
TERM_SECONDS = 2.0  # after SIGTERM; then SIGKILL
_PR_SET_PDEATHSIG = 1
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}  # ioprio_set(2), which has no wrapper in libc
_IOPRIO_WHO_PROCESS, _IOPRIO_CLASS_BEST_EFFORT, _IOPRIO_CLASS_IDLE = 1, 2, 3
_libc = ctypes.CDLL(None)


def python(*arguments: str) -> list[str]:
    """The command line of another Python like this one; -P: it imports nothing from the current folder; -X: whose it is."""
    return [sys.executable, "-P", "-X", f"parent={os.getpid()}", *arguments]


def end(child: subprocess.Popen[bytes]) -> None:
    """End a child if it still runs: SIGTERM, and SIGKILL for one that does not heed it."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(TERM_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def die_with_parent(signal_number: int, parent: int | None = None) -> None:
    """Get this signal when the thread that started this process is gone, however it went, and now if it is: prctl(2).

    Args:
        signal_number: such as SIGKILL.
        parent: the process that should be the parent, where `python` did not start this one; itself where that is not known.

    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal_number)
    found = os.getppid()
    expected = parent or int(sys._xoptions.get("parent", found))  # noqa: SLF001 -- documented
    if expected not in (found, os.getpid()):
        os.kill(os.getpid(), signal_number)


def become_owner(*folders: Path) -> None:
    """Where root runs this on folders that are all one other user's, as with sudo, go on as that user.

    So what is made below them is hers, who needs it next, and no link that she plants, there or in their place, leads root
    astray. Where she cannot reach this very program, as in root's home, root stays root.
    """
    owner = _other_owner(folders)
    if owner is None:
        return
    (user, group), groups = owner, os.getgroups()
    with suppress(PermissionError):  # a root without its rights
        os.setgroups([group])
        os.setresgid(group, group, 0)
        os.setresuid(user, user, 0)
        if all(os.access(part, os.R_OK) for part in (sys.executable, __file__)):
            os.setresgid(group, group, group)
            os.setresuid(user, user, user)
        else:
            os.setresuid(0, 0, 0)
            os.setresgid(0, 0, 0)
            os.setgroups(groups)
    if not os.access(".", os.X_OK):
        os.chdir("/")


@contextmanager
def as_owner(*folders: Path) -> Iterator[None]:
    """Open files as the other user whose all these folders are, where root runs this; then go on as root."""
    owner, groups = _other_owner(folders), os.getgroups()
    if owner is None:
        yield
        return
    user, group = owner
    try:
        with suppress(PermissionError):  # a root without its rights
            os.setgroups([group])
            os.setegid(group)
            os.seteuid(user)
        yield
    finally:
        with suppress(PermissionError):
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(groups)


def _other_owner(folders: Iterable[Path]) -> tuple[int, int] | None:
    """User and group of these folders, where this is root, and they are all one other user's."""
    found = [_whose(folder) for folder in folders if os.path.lexists(folder)]
    if os.geteuid() != 0 or len({status.st_uid for status in found}) != 1 or found[0].st_uid == 0:
        return None
    return found[0].st_uid, found[0].st_gid


def _whose(folder: Path) -> os.stat_result:
    """The status of a folder; in its place only root's own link is followed."""
    status = folder.lstat()
    is_roots_link = stat.S_ISLNK(status.st_mode) and status.st_uid == 0
    return folder.stat() if is_roots_link and folder.exists() else status


def take_temporary_folder(root: Path) -> None:
    """Keep what is temporary, here and in children, in a folder below one that all daemons on this root have had.

    What is killed leaves a socket of multiprocessing's there. It is not below the root, whose path may be too long for one.
    """
    folder = Path(tempfile.gettempdir(), _name_for(root))
    if len(os.fsencode(folder)) > SHORT:
        return
    with suppress(FileExistsError):
        folder.mkdir(0o700)
    status = folder.lstat()
    if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():  # or somebody else took the name
        os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="", dir=folder)


def leave_cleared_folder() -> None:
    """Keep what is temporary elsewhere where what `take_temporary_folder` took was cleared away.

    As systemd does after ten days with what nobody touched, and `rm -r /tmp/*` with all. Then anybody may take its name.
    """
    folder = Path(tempfile.gettempdir())
    try:
        owners = {path.lstat().st_uid for path in (folder, folder.parent)}
    except FileNotFoundError:
        owners = {-1}
    if not owners <= {0, os.geteuid()}:
        os.environ.pop("TMPDIR", None)
        tempfile.tempdir = None  # found anew: /tmp, mostly


@contextmanager
def temporary_folder() -> Iterator[str]:
    """A folder for what a child leaves, for what is killed cleans up nothing."""
    leave_cleared_folder()
    with tempfile.TemporaryDirectory(prefix="digitd-") as folder:
        yield folder


def sweep_temporary_folders(root: Path) -> None:
    """Remove those of daemons that were killed; for the one that holds the root's lock."""
    own = Path(tempfile.gettempdir())
    if own.parent.name == _name_for(root):
        for other in own.parent.iterdir():
            if other != own:
                shutil.rmtree(other, ignore_errors=True)


def _name_for(root: Path) -> str:
    return f"digitd-{hashlib.sha256(b'%d %b' % (os.geteuid(), os.fsencode(root))).hexdigest()[:12]}"


def yield_to_others() -> None:
    """Run only when nobody else wants the processor or the disk.

    Not in a session of its own: autogrouping would then give it a fair share of the processor all the same.
    """
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    _set_io_class(_IOPRIO_CLASS_IDLE << 13)


def yield_to_most() -> None:
    """Run at the least share that comes to its end also where the processor is never idle: a seventieth of a usual one.

    At SCHED_IDLE, what empties a full disk got 1 % of a machine that was busy for an hour.
    """
    os.setpriority(os.PRIO_PROCESS, 0, 19)
    _set_io_class(_IOPRIO_CLASS_BEST_EFFORT << 13 | 7)


def running_seconds() -> float:
    """How long this process has been there, Python's own start and all imports included: proc_pid_stat(5)."""
    ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def give_back_memory() -> None:
    """Have the allocator give the kernel what it keeps free in its arenas; only glibc's can be asked to: malloc_trim(3)."""
    with suppress(AttributeError):
        _libc.malloc_trim(0)


def _set_io_class(value: int) -> None:
    number = _IOPRIO_SET.get(platform.machine())
    if number is not None:
        _libc.syscall(number, _IOPRIO_WHO_PROCESS, 0, value)
