"""What a hostile image could try once it ran code inside a service: run in the unit's sandbox, and as root for comparison.

Prints one JSON object: attempt -> "allowed" or the error that denied it. Standard library only.
"""

import ctypes
import json
import mmap
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

DATA = Path("/var/lib/digitd")
libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: object) -> None:
    """A system call by its C name; raises OSError where it fails."""
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def connect(family: int, address: object) -> None:
    """Open a connection."""
    with socket.socket(family, socket.SOCK_STREAM) as channel:
        channel.connect(address)


def write(path: str) -> None:
    """Make a file and remove it."""
    Path(path).write_text("attack")
    Path(path).unlink()


def execute_from(folder: Path) -> None:
    """Copy a program into a folder and run it."""
    program = folder / ".attack-program"  # with a dot, so that the daemon leaves it alone
    try:
        shutil.copyfile("/bin/true", program)
        program.chmod(0o755)
        subprocess.run([program], check=True)
    finally:
        program.unlink(missing_ok=True)


def map_executable_from(folder: Path) -> None:
    """Map a file of a folder as code, as a loader of libraries does."""
    library = folder / ".attack-library"
    try:
        library.write_bytes(bytes(4096))
        with library.open("rb") as file:
            mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC, flags=mmap.MAP_PRIVATE).close()
    finally:
        library.unlink(missing_ok=True)


def make_setuid() -> None:
    """Make a file that runs as its owner."""
    program = DATA / "attack-setuid"
    try:
        program.touch()
        program.chmod(0o4755)
        if not program.stat().st_mode & stat.S_ISUID:
            raise PermissionError
    finally:
        program.unlink(missing_ok=True)


def give_away() -> None:
    """Change the owner of a file of one's own; to oneself, so that only the system call is asked about."""
    file = DATA / "attack-owner"
    try:
        file.touch()
        os.chown(file, os.getuid(), -1)
    finally:
        file.unlink(missing_ok=True)


def see_init() -> None:
    """Look at a process of another user."""
    Path("/proc/1/status").read_text()


def in_child(attempt: Callable[[], None]) -> Callable[[], None]:
    """Make an attempt where its effect ends with the process that made it."""

    def run() -> None:
        child = os.fork()
        if child == 0:
            try:
                attempt()
            except OSError as error:
                os._exit(error.errno or 255)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code:
            raise OSError(code, os.strerror(code) if code > 0 else f"killed by signal {-code}")

    return run


ATTEMPTS: dict[str, Callable[[], object]] = {
    "connect over TCP": lambda: connect(socket.AF_INET, ("127.0.0.1", 9787)),
    "open an IPv6 socket": lambda: socket.socket(socket.AF_INET6).close(),
    "open a raw packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(),
    "open a netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
    "talk to the system bus": lambda: connect(socket.AF_UNIX, "/run/dbus/system_bus_socket"),
    "write the configuration": lambda: Path("/etc/digitd/config.toml").open("a").close(),
    "write into the program": lambda: write("/opt/digitd/current/attack"),
    "write into /usr/local/bin": lambda: write("/usr/local/bin/attack"),
    "write into /var/lib": lambda: write("/var/lib/attack"),
    "read another user's file": lambda: Path("/home/alice/readable").read_text(),
    "read root's file": lambda: Path("/root/secret").read_text(),
    "read the password hashes": lambda: Path("/etc/shadow").read_text(),
    "look at another user's process": see_init,
    "signal another user's process": lambda: os.kill(1, 0),
    "execute from the inbox": lambda: execute_from(DATA / "inbox"),
    "execute from the labels": lambda: execute_from(DATA / "corrections"),
    "execute from the cache": lambda: execute_from(Path("/var/cache/digitd")),
    "execute from /tmp": lambda: execute_from(Path("/tmp")),  # noqa: S108 -- the attack's own
    "execute from /dev/shm": lambda: execute_from(Path("/dev/shm")),  # noqa: S108 -- the attack's own
    "load a library from the models": lambda: map_executable_from(DATA / "models"),
    "make a setuid file": make_setuid,
    "give a file away": give_away,
    "mount a file system": in_child(lambda: call("mount", b"none", b"/mnt", b"tmpfs", 0, None)),
    "make a namespace": in_child(lambda: call("unshare", 0x04000000)),  # CLONE_NEWUTS
    "trace a process": in_child(lambda: call("ptrace", 0, 0, None, None)),
    "change the host name": lambda: socket.sethostname(socket.gethostname()),
    "take the processor in real time": in_child(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))),
    # What one of the services lives on: some of these must be allowed, else the list above would prove nothing.
    "write into its data": lambda: write(f"{DATA}/work/control"),
    "write a label": lambda: write(f"{DATA}/corrections/7/.control"),
    "write into its cache": lambda: write("/var/cache/digitd/control"),
    "talk over AF_UNIX": lambda: [end.close() for end in socket.socketpair()],
    "step back to SCHED_IDLE": in_child(lambda: os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))),
    "read the configuration": lambda: Path("/etc/digitd/config.toml").read_text(),
}


def main() -> None:
    """Make every attempt."""
    found = {}
    for name, attempt in ATTEMPTS.items():
        try:
            attempt()
            found[name] = "allowed"
        except (OSError, subprocess.CalledProcessError) as error:
            found[name] = f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}"
    json.dump(found, sys.stdout)


main()
