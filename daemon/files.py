"""What the kernel offers for files that must be whole, durable or nobody else's; shared by everything that writes."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

RETRY_SECONDS = 1.0  # between two tries on what the machine, or the writer of a file, did not allow
OWN_FAULTS = {  # of a file that cannot be renamed, where nothing is wrong with the folders
    errno.EPERM,
    errno.EACCES,
    errno.EBUSY,
    errno.EXDEV,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENOTEMPTY,
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.ENOKEY,  # it is in an encrypted folder, whose owner has taken the key away: fscrypt
}
CLOSED_TO_US = {  # of a file that cannot be opened for reading, where nothing is wrong with the machine
    errno.ELOOP,  # a link
    errno.ENXIO,  # a socket
    errno.EISDIR,
    errno.EACCES,
    errno.EPERM,
    errno.EWOULDBLOCK,  # its owner holds a lease on it: fcntl(2), F_SETLEASE
    errno.ENOKEY,  # it is encrypted, and its owner has taken the key away: fscrypt
}

_libc = ctypes.CDLL(None, use_errno=True)
_WRITER = f"{os.uname().nodename.replace('/', '-')}.{secrets.token_hex(8)}"  # shared by those that are forked from here


def printable(name: str) -> str:
    r"""A file's name for JSON, logs and terminals: bytes that are not UTF-8 become \xNN, control characters likewise."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_durably(path: Path, content: bytes) -> None:
    """Write a file so that, even after a power cut, it is whole or not there."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write to, with the ending of `path`; at the end of the block it durably takes its place.

    Readers, also after a power cut, see the old file or the whole new one. For folders that nobody else may write to.
    """
    temporary = path.with_name(f".{path.stem[:40]}.{secrets.token_hex(8)}{path.suffix}")
    try:
        yield temporary
        _sync(temporary, os.O_RDONLY | os.O_NOFOLLOW, owned=True)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def writer_name() -> str:
    """What no other process calls itself that may write to the same folder, on this host or another."""
    return f"{_WRITER}.{os.getpid()}"


def file_system_time(folder: Path | int) -> float:
    """Now, in seconds since the epoch, by the clock that stamps what is written to a folder of ours, or its descriptor.

    Where it is mounted from another host that is not this host's clock, and times of files can only be compared with it.
    """
    os.utime(folder)
    return os.stat(folder).st_mtime  # noqa: PTH116 -- of a descriptor, too


def append_line(path: Path, text: str) -> None:
    """Add a line to a .jsonl file, durably; what a crash left of an unfinished line is closed off first.

    Raises:
        OSError: as of open(2) and write(2); ELOOP where it is a link, by which root would write, and give away, whatever it
            leads to.

    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        if size == 0:
            give_to_owner(descriptor, path.parent)
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        line = f"{chr(10) if torn else ''}{text}\n".encode()
        if os.write(descriptor, line) != len(line):  # a disk that fills up takes a part, and only then says so
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a .jsonl file; none where it is missing; a torn line is passed over."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        for line in file:
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict):
                yield value


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int, owned: bool = False) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        if owned:
            give_to_owner(descriptor, path.parent)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(folder: Path) -> None:
    """Make everything written so far to the folder's file system durable, with one syncfs(2).

    Raises:
        OSError: the kernel could not write something back.

    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _libc.syncfs(descriptor) != 0:
            raise _last_error(str(folder))
    finally:
        os.close(descriptor)


def replace_symlink(link: Path, target: str) -> None:
    """Make `link` a symlink to `target`, replacing an older one in one durable step; for one process at a time."""
    temporary = link.with_name(f".{link.name}")  # always the same: whatever ends this in between leaves no more than one
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)
    sync_folder(link.parent)


def begin_for_owner(path: Path) -> None:
    """Where root is about to make a file, as with sudo, make it, empty, as the owner of the folder needs it."""
    if os.geteuid() == 0 and not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            give_to_owner(descriptor, path.parent)
        finally:
            os.close(descriptor)


def take_lock(path: Path, *, wait: bool = False) -> int | None:
    """Take a lock that is held until its descriptor, which children may inherit, is closed everywhere.

    Only its owner can open the file, for whoever can read a file can lock it as well. Where root makes it, as with sudo, it
    belongs to the owner of the folder, who needs it next.

    Args:
        path: of the lock.
        wait: until it is free.

    Returns:
        The descriptor; None where another process holds the lock.

    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
    except PermissionError:
        if not os.path.lexists(path):
            raise  # it is the folder that cannot be written
        if not _gives_way(path):
            return None
        descriptor = os.open(path, flags, 0o600)
    try:
        give_to_owner(descriptor, path.parent)
        with suppress(PermissionError):  # a file of somebody else's
            os.fchmod(descriptor, 0o600)  # as it was made by earlier versions, the group could read it
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock, as `take_lock` takes it, while the block runs; wait for it before.

    Raises:
        PermissionError: it is another user's, who holds it.

    """
    lock = take_lock(path, wait=True)
    if lock is None:
        raise PermissionError(errno.EACCES, "another user holds this lock", str(path))
    try:
        yield
    finally:
        os.close(lock)


def give_to_owner(descriptor: int, folder: Path) -> None:
    """Where root makes a file, as with sudo, it is for the owner of the folder, who needs it next."""
    if os.geteuid() == 0:
        status = folder.stat()
        with suppress(PermissionError):  # a root without its rights
            os.fchown(descriptor, status.st_uid, status.st_gid)


def _gives_way(path: Path) -> bool:
    """Remove a lock that somebody else made, as root did in earlier versions, unless it is held."""
    left = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(left).st_ino == path.lstat().st_ino:  # else another process was faster
            path.unlink()
    except FileNotFoundError:
        pass
    except BlockingIOError:
        return False
    finally:
        os.close(left)
    return True


def machine_fault(error: OSError, source: Path, target: Path) -> OSError | None:
    """What is wrong with the machine, where a rename from one folder to another failed; None where it is the file's own."""
    if error.errno not in OWN_FAULTS:
        return error
    if _mount(source) != _mount(target):
        return OSError(
            errno.EXDEV,
            f"expected {source} and {target} in one mount, as at the start. Received: two. Take away what was mounted over "
            "one of them (umount -l), or mount the folder above them instead and start again",
        )
    return None if all(os.access(folder, os.W_OK | os.X_OK) for folder in (source, target)) else error


def _mount(folder: Path) -> str:
    """Which mount a folder is in: proc_pid_fdinfo(5). Two of one file system have one `st_dev`."""
    descriptor = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    try:
        lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    finally:
        os.close(descriptor)
    return next(line for line in lines if line.startswith("mnt_id:"))


def _last_error(path: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), path)
